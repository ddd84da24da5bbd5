//! Any datagrams of an outsider: dropped and counted, or handed to the core; nothing is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use omninervous_engine::inbound::{Arrived, Receiver};

mod common;
use common::edges::{AT, edge};

fuzz_target!(|input: &[u8]| {
    let (link, rest) = common::link(input);
    let (shared, _) = edge(link, 1500);
    let (mut receiver, mut ready) = (Receiver::default(), vec![]);
    for record in common::records(rest) {
        let mut data = record.to_vec();
        let from = Arrived { source: ([192, 0, 2, 9], 9).into(), buffer: 0, start: 0, ecn: 1 };
        receiver.datagram(&shared, &shared.read(), AT, from, &mut data, &mut ready);
    }
    receiver.flush(&mut ready);
    assert!(ready.is_empty(), "nobody has the keys");
});
