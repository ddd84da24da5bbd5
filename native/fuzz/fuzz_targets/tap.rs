//! Any frames behind any virtio headers, as a hostile guest of the same machine may write them to the TAP's other side.
#![no_main]

use libfuzzer_sys::fuzz_target;
use omninervous_engine::outbound::Sender;
use omninervous_engine::vnet::{VNET_HEADER, Vnet};

mod common;
use common::edges::{AT, OURS, Underlay, edge};

fuzz_target!(|input: &[u8]| {
    let (link, rest) = common::link(input);
    let (shared, _) = edge(link, 1500);
    let mut sender = Sender::default();
    for record in common::records(rest) {
        let Some((header, frame)) = record.split_first_chunk::<VNET_HEADER>() else { continue };
        let (Some(vnet), mut frame) = (Vnet::decode(header), frame.to_vec()) else { continue };
        if let Some(source) = frame.get_mut(6..12) {
            source.copy_from_slice(&OURS);
        }
        sender.tap(&shared, &shared.read(), AT, &vnet, &mut frame, &mut Underlay);
    }
    sender.flush(&mut Underlay);
});
