//! Once warm, no frame costs an allocation: sealed, sent, opened, merged and written, super-frames and small frames alike.

use std::net::SocketAddr;

use omninervous_engine::inbound::{Arrived, Receiver};
use omninervous_engine::merge::Write;
use omninervous_engine::outbound::{Sender, Shared, Wire};
use omninervous_engine::vnet::{Gso, Vnet};

mod common;
use common::{AT, OURS, THEIRS, pair};

const HEADERS: usize = 14 + 20 + 20;
const SEGMENT: u16 = 1326;

/// The underlay: it keeps what was sent, in memory of its own.
struct Cable {
    bytes: Vec<u8>,
    datagrams: Vec<(usize, usize)>,
}

impl Wire for Cable {
    fn send(&mut self, _: SocketAddr, contents: &[u8], segment: usize, _: u8) {
        for datagram in contents.chunks(segment) {
            self.datagrams.push((self.bytes.len(), datagram.len()));
            self.bytes.extend_from_slice(datagram);
        }
    }
}

/// A TCP packet over IPv4 with so many bytes of payload, as a stack hands it to a TAP.
fn tcp(payload: usize, sequence: u32) -> Vec<u8> {
    let mut frame = [&THEIRS[..], &OURS[..], &[8, 0]].concat();
    frame.extend([0x45, 0]);
    frame.extend(((payload + 40) as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 200, 0, 1, 10, 200, 0, 2]);
    frame.extend([0x9c, 0x40, 0x14, 0x51]);
    frame.extend(sequence.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.resize(HEADERS + payload, 0x5a);
    frame
}

struct Ends {
    shared: [Shared; 2],
    sender: Sender,
    receiver: Receiver,
    cable: Cable,
    ready: Vec<Write>,
}

impl Ends {
    /// One frame from the TAP of one end to that of the other; bytes of payload that arrive.
    fn cross(&mut self, vnet: &Vnet, frame: &mut [u8]) -> usize {
        let [near, far] = &self.shared;
        self.sender.tap(near, &near.read(), AT, vnet, frame, &mut self.cable);
        self.sender.flush(&mut self.cable);
        for (start, len) in self.cable.datagrams.drain(..) {
            let from = Arrived { source: ([192, 0, 2, 1], 7).into(), buffer: 0, start, ecn: 0 };
            let data = &mut self.cable.bytes[start..start + len];
            self.receiver.datagram(far, &far.read(), AT, from, data, &mut self.ready);
        }
        self.receiver.flush(&mut self.ready);
        let mut arrived = 0;
        for write in self.ready.drain(..) {
            arrived += write.headers.len() + write.pieces.iter().map(|it| it.len).sum::<usize>() - HEADERS;
            self.receiver.recycle(write);
        }
        self.cable.bytes.clear();
        arrived
    }
}

#[test]
fn a_warm_engine_allocates_nothing_per_packet() {
    let mut ends = Ends {
        shared: pair(1500),
        sender: Sender::default(),
        receiver: Receiver::default(),
        cable: Cable { bytes: Vec::with_capacity(1 << 20), datagrams: Vec::with_capacity(1 << 10) },
        ready: Vec::with_capacity(1 << 10),
    };
    let single = Vnet { needs_csum: true, csum_start: 34, csum_offset: 16, header_len: HEADERS as u16, ..Vnet::PLAIN };
    let large = Vnet { gso: Gso::TcpV4, gso_size: SEGMENT, ..single };
    let traffic = [(large, 45 * usize::from(SEGMENT)), (single, 64), (single, usize::from(SEGMENT))];
    let mut frames: Vec<Vec<u8>> =
        (0..).zip(traffic).map(|(number, (_, payload))| tcp(payload, number << 20)).collect();
    let mut round = |wanted: usize| {
        for _ in 0..wanted {
            for ((vnet, payload), frame) in traffic.iter().zip(&mut frames) {
                assert_eq!(ends.cross(vnet, frame), *payload);
            }
        }
    };
    round(10);
    let found = allocation_counter::measure(|| round(100));
    assert_eq!(found.count_total, 0, "{found:?}");
}
