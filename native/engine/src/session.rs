//! An established session: its keys, counters and replay windows, lane by lane.
//!
//! The invariant of the whole data plane: **a (key, counter) pair is never used twice.** A lane's keys are set once in a
//! session's life (`OnceLock`), its counter only grows (an atomic addition hands every number out once, to any thread), and
//! a number at the limit is refused. A new handshake makes a new session with new keys.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::cipher::Cipher;
pub use crate::cipher::{Aead, TAG};
use crate::replay::ReplayWindow;

/// Bytes before the sealed payload: type 4, three zero bytes, receiver index, counter (little-endian).
pub const HEADER: usize = 16;
/// Lanes that may exist: base, seven bulk queues, reflex.
pub const LANES: usize = 9;

const LANE_SHIFT: u32 = 60;
const SEQUENCE_MASK: u64 = (1 << LANE_SHIFT) - 1;
const TRANSPORT: u8 = 4;
/// Numbers from here on are refused (WireGuard's margin below the end of the space).
const REJECT_AFTER: u64 = (1 << LANE_SHIFT) - (1 << 13) - 1;
/// From here on a rekey is due.
const REKEY_AFTER: u64 = 1 << 59;
/// The same for AES-256-GCM, whose confidentiality bound is counted in blocks per key.
const REKEY_AFTER_AES: u64 = 1 << 27;
/// First number that an AES-256-GCM lane neither sends nor accepts.
const REJECT_AFTER_AES: u64 = 1 << 28;

/// Why a datagram was not sealed or not opened. The name is the drop counter's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The lane has no keys.
    Lane,
    /// The lane's counter reached its limit.
    CounterLimit,
    /// The counter was seen before or is too old.
    Replay,
    /// The tag does not fit.
    BadTag,
}

/// What opening a datagram told, beside the plaintext in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The lane it came on.
    pub lane: usize,
    /// Bytes of plaintext, which begin at `HEADER`.
    pub len: usize,
    /// Whether its counter is the lane's highest.
    pub highest: bool,
}

/// Keys of one lane, both directions.
pub struct LaneKeys {
    /// The cipher.
    pub aead: Aead,
    /// For sealing.
    pub send: Zeroizing<[u8; 32]>,
    /// For opening.
    pub recv: Zeroizing<[u8; 32]>,
}

/// One session.
pub struct Session {
    remote_index: u32,
    /// SHA-256 of the key that lane 0 seals with: tells sessions apart without keeping the key.
    fingerprint: [u8; 32],
    lanes: [OnceLock<Lane>; LANES],
}

struct Lane {
    send: Cipher,
    recv: Cipher,
    counter: AtomicU64,
    window: Mutex<ReplayWindow>,
    rekey_after: u64,
    reject_after: u64,
}

impl Session {
    /// A session with lane 0 open. `remote_index` is the receiver index of what it sends.
    #[must_use]
    pub fn new(remote_index: u32, base: &LaneKeys) -> Self {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, base.send.as_slice()).as_ref());
        let session = Self { remote_index, fingerprint, lanes: [const { OnceLock::new() }; LANES] };
        session.open_lane(0, base);
        session
    }

    /// Whether both seal with the same key: then only one of them may ever be used.
    #[must_use]
    pub fn same_key(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }

    /// Give a lane its keys. A lane that has some keeps them and its counter: false.
    pub fn open_lane(&self, lane: usize, keys: &LaneKeys) -> bool {
        self.lanes.get(lane).is_some_and(|slot| slot.set(Lane::new(keys)).is_ok())
    }

    /// Take `count` consecutive counters of a lane: the first one.
    pub fn reserve(&self, lane: usize, count: u64) -> Result<u64, Refused> {
        let it = self.lane(lane)?;
        let first = it.counter.fetch_add(count, Ordering::Relaxed);
        if first + count > it.reject_after {
            // Numbers are lost, never reused; the addition cannot wrap in any machine's life.
            return Err(Refused::CounterLimit);
        }
        Ok(first)
    }

    /// Seal the plaintext at `HEADER..HEADER + len` of `datagram` in place with a counter from `reserve`, and write header and
    /// tag. `datagram` holds `HEADER + len + TAG` bytes.
    pub fn seal(&self, lane: usize, sequence: u64, datagram: &mut [u8]) -> Result<(), Refused> {
        let it = self.lane(lane)?;
        let counter = (lane as u64) << LANE_SHIFT | sequence;
        let end = datagram.len() - TAG;
        datagram[..4].copy_from_slice(&[TRANSPORT, 0, 0, 0]);
        datagram[4..8].copy_from_slice(&self.remote_index.to_le_bytes());
        datagram[8..HEADER].copy_from_slice(&counter.to_le_bytes());
        let tag = it.send.seal(counter, &mut datagram[HEADER..end]).ok_or(Refused::BadTag)?;
        datagram[end..].copy_from_slice(&tag);
        Ok(())
    }

    /// Open a datagram in place: replay check, tag, then the window is moved.
    pub fn open(&self, datagram: &mut [u8]) -> Result<Opened, Refused> {
        if datagram.len() < HEADER + TAG {
            return Err(Refused::BadTag);
        }
        let counter = u64::from_le_bytes(datagram[8..HEADER].try_into().map_err(|_| Refused::BadTag)?);
        let (number, sequence) = ((counter >> LANE_SHIFT) as usize, counter & SEQUENCE_MASK);
        let lane = self.lane(number)?;
        if sequence >= lane.reject_after {
            return Err(Refused::CounterLimit);
        }
        // A panic cannot leave a window half changed, so a poisoned lock is as good as any.
        if !lane.window.lock().unwrap_or_else(PoisonError::into_inner).fresh(sequence) {
            return Err(Refused::Replay);
        }
        let len = lane.recv.open(counter, &mut datagram[HEADER..]).ok_or(Refused::BadTag)?;
        let accepted = lane.window.lock().unwrap_or_else(PoisonError::into_inner).accept(sequence);
        let highest = accepted.ok_or(Refused::Replay)?;
        Ok(Opened { lane: number, len, highest })
    }

    /// Whether a lane asks for a new handshake: a number from the rekey mark on was taken.
    #[must_use]
    pub fn exhausted(&self, lane: usize) -> bool {
        self.lane(lane).is_ok_and(|it| it.counter.load(Ordering::Relaxed) > it.rekey_after)
    }

    fn lane(&self, lane: usize) -> Result<&Lane, Refused> {
        self.lanes.get(lane).and_then(OnceLock::get).ok_or(Refused::Lane)
    }
}

impl Lane {
    fn new(keys: &LaneKeys) -> Self {
        let aes = keys.aead == Aead::Aes256Gcm;
        Self {
            send: Cipher::new(keys.aead, &keys.send),
            recv: Cipher::new(keys.aead, &keys.recv),
            counter: AtomicU64::new(0),
            window: Mutex::default(),
            rekey_after: if aes { REKEY_AFTER_AES } else { REKEY_AFTER },
            reject_after: if aes { REJECT_AFTER_AES } else { REJECT_AFTER },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Arc;

    fn keys(aead: Aead, send: u8, recv: u8) -> LaneKeys {
        LaneKeys { aead, send: Zeroizing::new([send; 32]), recv: Zeroizing::new([recv; 32]) }
    }

    fn pair() -> (Session, Session) {
        let (a, b) = (
            Session::new(2, &keys(Aead::ChaCha20Poly1305, 1, 2)),
            Session::new(1, &keys(Aead::ChaCha20Poly1305, 2, 1)),
        );
        a.open_lane(1, &keys(Aead::Aes256Gcm, 3, 4));
        b.open_lane(1, &keys(Aead::Aes256Gcm, 4, 3));
        (a, b)
    }

    fn sealed(session: &Session, lane: usize, plaintext: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; HEADER + plaintext.len() + TAG];
        datagram[HEADER..HEADER + plaintext.len()].copy_from_slice(plaintext);
        let sequence = session.reserve(lane, 1).expect("counters are left");
        session.seal(lane, sequence, &mut datagram).expect("the lane is open");
        datagram
    }

    #[test]
    fn opens_once_on_every_lane() {
        let (a, b) = pair();
        for lane in [0, 1] {
            let datagram = sealed(&a, lane, b"frame");
            let mut copy = datagram.clone();
            assert_eq!(b.open(&mut copy), Ok(Opened { lane, len: 5, highest: true }));
            assert_eq!(&copy[HEADER..HEADER + 5], b"frame");
            assert_eq!(b.open(&mut datagram.clone()), Err(Refused::Replay));
        }
        assert_eq!(a.reserve(2, 1), Err(Refused::Lane));
        assert_eq!(a.reserve(9, 1), Err(Refused::Lane));
    }

    #[test]
    fn any_flipped_bit_is_refused_and_costs_no_counter() {
        let (a, b) = pair();
        let datagram = sealed(&a, 0, b"frame");
        for at in 8..datagram.len() {
            let mut bad = datagram.clone();
            bad[at] ^= 0x10;
            assert!(b.open(&mut bad).is_err(), "byte {at}");
        }
        assert!(b.open(&mut datagram.clone()).is_ok());
    }

    #[test]
    fn keys_of_a_lane_are_set_once() {
        let (a, b) = pair();
        let first = sealed(&a, 1, b"one");
        assert!(!a.open_lane(1, &keys(Aead::Aes256Gcm, 3, 4)));
        let second = sealed(&a, 1, b"one");
        assert_ne!(first[8..16], second[8..16]);
        assert!(b.open(&mut first.clone()).is_ok() && b.open(&mut second.clone()).is_ok());
    }

    #[test]
    fn threads_never_share_a_counter() {
        let session = Arc::new(pair().0);
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let session = Arc::clone(&session);
                std::thread::spawn(move || {
                    (0..5_000)
                        .flat_map(|n| {
                            let count = n % 7 + 1;
                            let first = session.reserve(1, count).expect("counters are left");
                            first..first + count
                        })
                        .collect::<Vec<u64>>()
                })
            })
            .collect();
        let numbers: Vec<u64> = workers.into_iter().flat_map(|it| it.join().expect("no panic")).collect();
        assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), numbers.len());
    }

    #[test]
    fn the_limit_is_never_passed() {
        let (a, _) = pair();
        a.reserve(1, REKEY_AFTER_AES).expect("below the limit");
        assert!(!a.exhausted(1));
        assert_eq!(a.reserve(1, 1), Ok(REKEY_AFTER_AES));
        assert!(a.exhausted(1) && !a.exhausted(0));
        assert_eq!(a.reserve(1, REJECT_AFTER_AES), Err(Refused::CounterLimit));
        assert_eq!(a.reserve(1, 1), Err(Refused::CounterLimit));
    }
}
