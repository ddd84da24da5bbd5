//! No (key, counter) pair is used twice: several threads seal at once, while sessions are replaced, installed again, and
//! get lanes; every datagram's pair is recorded.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use omninervous_engine::outbound::{Sender, Shared, Wire};
use omninervous_engine::queue::Queue;
use omninervous_engine::session::{Aead, LaneKeys, Session};
use omninervous_engine::table::{Link, PeerId, Policy};
use omninervous_engine::vnet::Vnet;

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PEER: PeerId = [7; 32];
const THREADS: usize = 4;
const REKEYS: u32 = 60;
const FRAMES_PER_KEY: u64 = 300;

/// Records the receiver index, which stands for the session's keys here, and the counter, whose top bits are the lane.
#[derive(Default)]
struct Record(Vec<(u32, u64)>);

impl Wire for Record {
    fn send(&mut self, _: SocketAddr, contents: &[u8], segment: usize, _: u8) {
        for datagram in contents.chunks(segment) {
            let index = u32::from_le_bytes(datagram[4..8].try_into().expect("four bytes"));
            self.0.push((index, u64::from_le_bytes(datagram[8..16].try_into().expect("eight bytes"))));
        }
    }
}

fn keys(aead: Aead, seed: u32, way: u8) -> LaneKeys {
    let bytes = |way: u8| {
        let mut key = [way; 32];
        key[..4].copy_from_slice(&seed.to_le_bytes());
        key.into()
    };
    LaneKeys { aead, send: bytes(way), recv: bytes(way + 1) }
}

/// Frames, super-frames and control messages until told to stop.
fn seal(shared: &Shared, stop: &AtomicBool, seed: usize) -> Vec<(u32, u64)> {
    // More threads than queues: what a lane is shared by must not matter.
    let queue = if seed.is_multiple_of(2) { Queue::Express } else { Queue::Bulk(seed / 2) };
    let (mut sender, mut wire) = (Sender::new(queue), Record::default());
    let mut frame = [&THEIRS[..], &OURS[..], &[0x88, 0xb5], &[0; 300]].concat();
    while !stop.load(Ordering::Relaxed) {
        let table = shared.read();
        for turn in 0..16 {
            sender.tap(shared, &table, 1, &Vnet::PLAIN, &mut frame, &mut wire);
            if turn == seed
                && let Some(entry) = table.sessions().next()
            {
                sender.control(shared, &table, 1, entry, b"\x04\x01", None, &mut wire);
            }
        }
        sender.flush(&mut wire);
    }
    wire.0
}

#[test]
fn threads_rekeys_and_lanes_never_repeat_a_pair() {
    let shared = Shared::new(OURS);
    let policy =
        Policy { link: Link::Ethernet, mac: Some(THEIRS), ipv4: vec![], ipv6: vec![], allowed: vec![], mtu: 600 };
    shared.write().set_peer(PEER, &policy, 0);
    shared.write().set_endpoint(&PEER, ([192, 0, 2, 1], 7).into(), None);
    let stop = AtomicBool::new(false);
    let pairs: Vec<(u32, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|at| {
                scope.spawn({
                    let (shared, stop) = (&shared, &stop);
                    move || seal(shared, stop, at)
                })
            })
            .collect();
        for number in 0..REKEYS {
            // The local index is often an older session's; the remote one stands for the keys.
            let local = number % 3;
            let session = || Session::new(number, &keys(Aead::ChaCha20Poly1305, number, 1));
            shared.write().install_session(&PEER, local, u64::MAX, session());
            shared.write().select_session(&PEER, local);
            let goal = sealed(&shared) + FRAMES_PER_KEY;
            let mut lane = 0;
            while sealed(&shared) < goal {
                // What a core that lost its memory might do: the same session, the same lanes, again and again.
                shared.write().install_session(&PEER, local, u64::MAX, session());
                lane = (lane + 1) % 9;
                let table = shared.read();
                let entry = table.session(local).expect("it was just installed");
                let aead = if lane % 2 == 0 { Aead::ChaCha20Poly1305 } else { Aead::Aes256Gcm };
                entry.session.open_lane(lane, &keys(aead, number, 2 * lane as u8 + 1));
                entry.tx_lanes.fetch_xor(1 << lane, Ordering::Relaxed);
                drop(table);
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().flat_map(|it| it.join().expect("no panic")).collect()
    });
    let keys: HashSet<(u32, u64)> = pairs.iter().map(|(index, counter)| (*index, counter >> 60)).collect();
    assert_eq!(pairs.iter().collect::<HashSet<_>>().len(), pairs.len(), "a pair was repeated");
    assert!(pairs.len() as u64 >= u64::from(REKEYS) * FRAMES_PER_KEY);
    assert!(keys.len() > REKEYS as usize, "more keys than sessions: lanes were used");
}

#[test]
fn the_same_session_again_changes_nothing() {
    let shared = Shared::new(OURS);
    let policy =
        Policy { link: Link::Ethernet, mac: Some(THEIRS), ipv4: vec![], ipv6: vec![], allowed: vec![], mtu: 600 };
    let session = |seed| Session::new(3, &keys(Aead::ChaCha20Poly1305, seed, 1));
    let next = |shared: &Shared| shared.read().session(5).map(|it| it.session.reserve(0, 1));
    shared.write().set_peer(PEER, &policy, 0);
    shared.write().install_session(&PEER, 5, 9, session(1));
    assert_eq!(next(&shared), Some(Ok(0)));
    shared.write().install_session(&PEER, 5, 9, session(1));
    assert_eq!(next(&shared), Some(Ok(1)));
    shared.write().install_session(&[9; 32], 5, 9, session(2));
    assert_eq!(next(&shared), Some(Ok(2)), "an unknown peer's command is ignored");
    shared.write().install_session(&PEER, 5, 9, session(2));
    assert_eq!(next(&shared), Some(Ok(0)), "other keys make another session");
}

/// Datagrams sealed on all lanes.
fn sealed(shared: &Shared) -> u64 {
    shared.counters.lanes().map(|it| it[2].1).sum()
}
