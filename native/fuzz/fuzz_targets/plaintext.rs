//! Any plaintexts of a hostile member, sealed as they should be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use omninervous_engine::inbound::{Arrived, Receiver};
use omninervous_engine::session::{HEADER, TAG};

mod common;
use common::edges::{AT, edge, finish};

fuzz_target!(|input: &[u8]| {
    let (link, rest) = common::link(input);
    let (shared, far) = edge(link, 1500);
    let (mut receiver, mut ready, mut buffers) = (Receiver::default(), vec![], vec![]);
    for record in common::records(rest) {
        let mut data = [&[0; HEADER][..], record, &[0; TAG][..]].concat();
        let sequence = far.reserve(0, 1).expect("counters are left");
        far.seal(0, sequence, &mut data).expect("lane 0 is open");
        let from = Arrived { source: ([192, 0, 2, 1], 7).into(), buffer: buffers.len(), start: 0, ecn: 1 };
        receiver.datagram(&shared, &shared.read(), AT, from, &mut data, &mut ready);
        buffers.push(data);
    }
    finish(&mut receiver, &buffers, &mut ready);
});
