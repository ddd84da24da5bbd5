//! Any frame behind any virtio header, any datagram, and any plaintext of a member: the engine survives (overflow checks are
//! on in test builds), and what it wants written lies inside of what arrived. `PROPTEST_CASES` makes it longer (`make fuzz`).

use omninervous_engine::inbound::{Arrived, Receiver};
use omninervous_engine::outbound::Sender;
use omninervous_engine::session::{HEADER, TAG};
use omninervous_engine::table::Link;
use omninervous_engine::vnet::{VNET_HEADER, Vnet};
use proptest::collection::vec;
use proptest::prelude::*;

mod common;
use common::{AT, OURS, THEIRS, Underlay, edge, finish};

fn link() -> impl Strategy<Value = Link> {
    prop_oneof![4 => Just(Link::Ethernet), 2 => Just(Link::Ip), 1 => Just(Link::Signalling)]
}

/// Bytes whose first ones are often those of a header.
fn frame(source: [u8; 6], destination: [u8; 6]) -> impl Strategy<Value = Vec<u8>> {
    let ethertype = prop_oneof![
        3 => Just(vec![8, 0, 0x45, 0]),
        3 => Just(vec![0x86, 0xdd, 0x60, 0]),
        1 => Just(vec![8, 6]),
        1 => Just(vec![0x81, 0, 0, 1, 8, 0, 0x45, 2]),
        1 => vec(any::<u8>(), 0..6),
    ];
    let destination = prop_oneof![4 => Just(destination), 1 => Just([0xff; 6]), 1 => any::<[u8; 6]>()];
    let body = prop_oneof![4 => vec(any::<u8>(), 0..100), 1 => vec(any::<u8>(), 1300..1600), 1 => vec(any::<u8>(), 9000..9300)];
    (destination, ethertype, body, any::<bool>(), 0usize..70, any::<u8>()).prop_map(
        move |(destination, ethertype, body, sound, at, value)| {
            let mut frame = [&destination[..], &source[..], &ethertype[..], &body[..]].concat();
            if sound {
                make_sound(&mut frame, ethertype.len());
            }
            if let Some(byte) = frame.get_mut(12 + at).filter(|_| value % 3 == 0) {
                *byte = value;
            }
            frame
        },
    )
}

/// Lengths, addresses and protocol as a stack writes them, so that what follows is looked at.
fn make_sound(frame: &mut [u8], ethertype: usize) {
    let start = 12 + if ethertype == 8 { 6 } else { 2 };
    let Some(packet) = frame.get_mut(start..).filter(|it| it.len() > 60) else { return };
    let size = packet.len();
    let upper = if packet[0] >> 4 == 4 {
        packet[2..4].copy_from_slice(&(size as u16).to_be_bytes());
        packet[6..8].copy_from_slice(&[0x40, 0]);
        packet[12..16].copy_from_slice(&[10, 200, 0, 2]);
        packet[9] = if packet[9] % 2 == 0 { 6 } else { 17 };
        20
    } else {
        packet[4..6].copy_from_slice(&((size - 40) as u16).to_be_bytes());
        packet[8..24].fill(0xfd);
        packet[6] = if packet[6] % 2 == 0 { 6 } else { 17 };
        40
    };
    packet[upper + 12] = 0x50;
}

proptest! {
    #[test]
    fn any_frame_behind_any_virtio_header(
        link in link(), mtu in 576usize..9100, header: [u8; VNET_HEADER], plain: bool,
        frames in vec(frame(OURS, THEIRS), 1..6),
    ) {
        let (shared, _) = edge(link, mtu);
        let mut sender = Sender::default();
        let header = if plain { [0; VNET_HEADER] } else { header };
        for mut frame in frames {
            if let Some(vnet) = Vnet::decode(&header) {
                sender.tap(&shared, &shared.read(), AT, &vnet, &mut frame, &mut Underlay);
            }
        }
        sender.flush(&mut Underlay);
    }

    #[test]
    fn any_datagram(datagrams in vec((0u8..8, vec(any::<u8>(), 0..200)), 1..20), ecn in 0u8..4) {
        let (shared, _) = edge(Link::Ethernet, 1500);
        let (mut receiver, mut ready) = (Receiver::default(), vec![]);
        for (kind, mut data) in datagrams {
            if let Some(first) = data.get_mut(..8) {
                first.copy_from_slice(&[kind, 0, 0, 0, 5, 0, 0, 0]);
            }
            let from = Arrived { source: ([192, 0, 2, 9], 9).into(), buffer: 0, start: 0, ecn };
            receiver.datagram(&shared, &shared.read(), AT, from, &mut data, &mut ready);
        }
        prop_assert!(ready.is_empty(), "nobody has the keys");
    }

    #[test]
    fn any_plaintext_of_a_member(
        link in link(), kinds in vec((0u8..6, 0u8..4, frame(THEIRS, OURS)), 1..24), raw: bool,
    ) {
        let (shared, far) = edge(link, 1500);
        let (mut receiver, mut ready, mut buffers) = (Receiver::default(), vec![], vec![]);
        for (kind, ecn, frame) in kinds {
            let payload = if raw && frame.len() > 14 { frame[14..].to_vec() } else { [&[kind], &frame[..]].concat() };
            let mut data = [&[0; HEADER][..], &payload[..], &[0; TAG][..]].concat();
            let sequence = far.reserve(0, 1).expect("counters are left");
            far.seal(0, sequence, &mut data).expect("lane 0 is open");
            let from = Arrived { source: ([192, 0, 2, 1], 7).into(), buffer: buffers.len(), start: 0, ecn };
            receiver.datagram(&shared, &shared.read(), AT, from, &mut data, &mut ready);
            buffers.push(data);
        }
        finish(&mut receiver, &buffers, &mut ready);
    }
}
