//! An edge with one peer, and what may leave it, for the tests and the fuzz targets.
#![allow(dead_code, reason = "no test has all of it")]

use std::net::SocketAddr;

use omninervous_engine::inbound::Receiver;
use omninervous_engine::merge::Write;
use omninervous_engine::outbound::{Shared, Wire};
use omninervous_engine::session::{Aead, LaneKeys, Session};
use omninervous_engine::table::{Link, MAX_FRAME, PeerId, Policy, Prefix};

/// The edge's own MAC.
pub const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The peer's MAC.
pub const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// When everything happens.
pub const AT: u64 = 1;
const PEER: PeerId = [7; 32];

fn keys(send: u8, recv: u8) -> LaneKeys {
    LaneKeys { aead: Aead::Aes256Gcm, send: [send; 32].into(), recv: [recv; 32].into() }
}

/// The edge, and the session that the peer seals with.
pub fn edge(link: Link, mtu: usize) -> (Shared, Session) {
    let shared = one_end([OURS, THEIRS], 2, link, mtu, 5, Session::new(6, &keys(1, 2)));
    (shared, Session::new(5, &keys(2, 1)))
}

/// The edge, and the edge that its peer is.
pub fn pair(mtu: usize) -> [Shared; 2] {
    let (near, session) = edge(Link::Ethernet, mtu);
    [near, one_end([THEIRS, OURS], 1, Link::Ethernet, mtu, 6, session)]
}

fn one_end(macs: [[u8; 6]; 2], peer: u8, link: Link, mtu: usize, local_index: u32, session: Session) -> Shared {
    let shared = Shared::new(macs[0]);
    let everything = [(4, 0), (16, 0)].map(|(size, bits)| Prefix { address: vec![0; size], bits });
    let policy = Policy {
        link,
        mac: Some(macs[1]),
        ipv4: vec![[10, 200, 0, peer]],
        ipv6: vec![[0xfd; 16]],
        allowed: everything.to_vec(),
        mtu,
    };
    let mut table = shared.write();
    table.set_peer(PEER, &policy, 0);
    table.set_endpoint(&PEER, ([192, 0, 2, 1], 7).into(), None);
    table.install_session(&PEER, local_index, u64::MAX, session);
    table.select_session(&PEER, local_index);
    table.set_flood(vec![PEER]);
    drop(table);
    shared
}

/// Holds what leaves to the limits of one send.
pub struct Underlay;

impl Wire for Underlay {
    fn send(&mut self, _: SocketAddr, contents: &[u8], segment: usize, _: u8) {
        assert!(segment > 0 && contents.len() <= 65_507 && contents.len().div_ceil(segment) <= 64);
    }
}

/// What a datagram left to be written, checked against the buffers that it lay in.
pub fn finish(receiver: &mut Receiver, buffers: &[Vec<u8>], ready: &mut Vec<Write>) {
    receiver.flush(ready);
    for write in ready.drain(..) {
        let pieces: usize = write.pieces.iter().map(|it| buffers[it.buffer][it.start..it.start + it.len].len()).sum();
        assert!(write.headers.len() + pieces <= 65_535 + 22);
        assert!(write.vnet.gso_size == 0 || usize::from(write.vnet.gso_size) <= MAX_FRAME);
        receiver.recycle(write);
    }
}
