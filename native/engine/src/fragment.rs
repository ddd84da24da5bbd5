//! Payloads that do not fit the path: cut into fragments, and put together again in bounded memory. The same rules as
//! `core/fragments.py`. A fragment's header (network byte order): kind 0x03, flags (bit 0 = last), offset u16, id u32.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes before a fragment's data.
pub const FRAGMENT_HEADER: usize = 8;
/// The payload kind of fragments.
pub const FRAGMENT: u8 = 0x03;

const LAST: u8 = 0x01;
const MAX_PAYLOAD: usize = 0xffff;
const MAX_PIECES: usize = 64;
const MAX_ENTRIES: usize = 8;
const PIECE_OVERHEAD: usize = 128;
const POOL_LIMIT: usize = 4 << 20;
const TIMEOUT_NS: u64 = 1_000_000_000;
const CONGESTION: u8 = 0b11;

/// A piece of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Joins the pieces of one payload.
    pub id: u32,
    /// Where in the payload it begins.
    pub offset: usize,
    /// Whether it is the last one.
    pub last: bool,
    /// Its bytes, never empty.
    pub data: &'a [u8],
}

/// The fragment in a payload of kind FRAGMENT; None when it is empty or ends beyond 65,535.
#[must_use]
pub fn decode(payload: &[u8]) -> Option<Fragment<'_>> {
    let (header, data) = payload.split_at_checked(FRAGMENT_HEADER)?;
    let offset = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if data.is_empty() || offset + data.len() > MAX_PAYLOAD {
        return None;
    }
    let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    Some(Fragment { id, offset, last: header[1] & LAST != 0, data })
}

/// Fragment payloads of at most `limit` bytes each, header included, that together carry `whole`.
pub fn split<'a>(whole: Fragment<'a>, limit: usize) -> impl Iterator<Item = Fragment<'a>> {
    let room = limit - FRAGMENT_HEADER;
    let count = whole.data.len().div_ceil(room);
    whole.data.chunks(room).enumerate().map(move |(at, data)| Fragment {
        id: whole.id,
        offset: whole.offset + at * room,
        last: whole.last && at + 1 == count,
        data,
    })
}

impl Fragment<'_> {
    /// The eight bytes before the data.
    #[must_use]
    pub fn header(&self) -> [u8; FRAGMENT_HEADER] {
        let [o0, o1] = (self.offset as u16).to_be_bytes();
        let [i0, i1, i2, i3] = self.id.to_be_bytes();
        [FRAGMENT, if self.last { LAST } else { 0 }, o0, o1, i0, i1, i2, i3]
    }
}

/// The memory that all peers' reassemblers share, and what they gave up.
#[derive(Default)]
pub struct Pool {
    used: AtomicUsize,
    /// Payloads forgotten because pieces were missing for too long.
    pub timed_out: AtomicU64,
    /// Payloads forgotten to make room for newer ones of the same peer.
    pub evicted: AtomicU64,
}

impl Pool {
    /// Bytes held now, overhead included.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Payloads that were forgotten, by drop counter.
    #[must_use]
    pub fn given_up(&self) -> [(&'static str, u64); 2] {
        let read = |it: &AtomicU64| it.load(Ordering::Relaxed);
        [("fragment_timeout", read(&self.timed_out)), ("fragment_evicted", read(&self.evicted))]
    }
}

/// Why a fragment was not taken: the drop counter's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It contradicts an earlier one, or the payload is too large or too finely cut: `fragment`.
    Fragment,
    /// The shared memory is full: `fragment_memory`.
    Memory,
}

/// Puts one peer's fragments together: at most 8 payloads at a time, the oldest goes first.
pub struct Reassembler {
    entries: VecDeque<Entry>,
    max_payload: usize,
    pool: Arc<Pool>,
    ecn: u8,
}

struct Entry {
    id: u32,
    deadline: u64,
    pieces: BTreeMap<usize, Vec<u8>>,
    held: usize,
    size: Option<usize>,
    ecn: u8,
}

impl Reassembler {
    /// An empty one.
    #[must_use]
    pub fn new(max_payload: usize, pool: Arc<Pool>) -> Self {
        Self { entries: VecDeque::new(), max_payload, pool, ecn: 0 }
    }

    /// The ECN field of the payload that `add` gave last: congestion if a piece met some (RFC 3168, section 5.3), else the last
    /// piece's.
    #[must_use]
    pub fn ecn(&self) -> u8 {
        self.ecn
    }

    /// Take a fragment, and the ECN field of the datagram that brought it; the whole payload if it was the missing one. `now` in
    /// nanoseconds.
    pub fn add(&mut self, now: u64, piece: &Fragment, ecn: u8) -> Result<Option<Vec<u8>>, Refused> {
        self.expire(now);
        let at = self.entries.iter().position(|it| it.id == piece.id).unwrap_or_else(|| self.begin(now, piece.id));
        let entry = &self.entries[at];
        if entry.pieces.get(&piece.offset).is_some_and(|it| it == piece.data) && (!piece.last || entry.size.is_some()) {
            return Ok(None);
        }
        if entry.contradicts(piece, self.max_payload) {
            self.forget(at);
            return Err(Refused::Fragment);
        }
        let cost = piece.data.len() + PIECE_OVERHEAD;
        if self.pool.used.fetch_add(cost, Ordering::Relaxed) + cost > POOL_LIMIT {
            self.pool.used.fetch_sub(cost, Ordering::Relaxed);
            return Err(Refused::Memory);
        }
        let whole = self.entries[at].store(piece, ecn);
        if whole.is_some() {
            self.ecn = self.entries[at].ecn;
            self.forget(at);
        }
        Ok(whole)
    }

    /// Forget what has waited too long.
    pub fn expire(&mut self, now: u64) {
        while self.entries.front().is_some_and(|it| it.deadline <= now) {
            self.forget(0);
            self.pool.timed_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn begin(&mut self, now: u64, id: u32) -> usize {
        if self.entries.len() >= MAX_ENTRIES {
            self.forget(0);
            self.pool.evicted.fetch_add(1, Ordering::Relaxed);
        }
        let ecn = 0;
        self.entries.push_back(Entry {
            id,
            deadline: now + TIMEOUT_NS,
            pieces: BTreeMap::new(),
            held: 0,
            size: None,
            ecn,
        });
        self.entries.len() - 1
    }

    fn forget(&mut self, at: usize) {
        if let Some(entry) = self.entries.remove(at) {
            self.pool.used.fetch_sub(entry.held + entry.pieces.len() * PIECE_OVERHEAD, Ordering::Relaxed);
        }
    }
}

impl Drop for Reassembler {
    fn drop(&mut self) {
        while !self.entries.is_empty() {
            self.forget(0);
        }
    }
}

impl Entry {
    fn contradicts(&self, piece: &Fragment, max_payload: usize) -> bool {
        let (start, end) = (piece.offset, piece.offset + piece.data.len());
        end > max_payload
            || self.pieces.len() >= MAX_PIECES
            || self.size.is_some_and(|size| piece.last || end > size)
            || self.pieces.iter().any(|(&at, data)| start < at + data.len() && (at < end || piece.last))
    }

    fn store(&mut self, piece: &Fragment, ecn: u8) -> Option<Vec<u8>> {
        if self.ecn != CONGESTION {
            self.ecn = ecn;
        }
        self.pieces.insert(piece.offset, piece.data.to_vec());
        self.held += piece.data.len();
        if piece.last {
            self.size = Some(piece.offset + piece.data.len());
        }
        (Some(self.held) == self.size).then(|| self.pieces.values().flatten().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reassembler() -> Reassembler {
        Reassembler::new(MAX_PAYLOAD, Arc::default())
    }

    proptest! {
        #[test]
        fn any_order_gives_the_payload_back_once(
            payload in proptest::collection::vec(any::<u8>(), 1..6000), limit in 150usize..1500, seed: u64,
        ) {
            let mut pieces: Vec<_> = split(Fragment { id: 7, offset: 0, last: true, data: &payload }, limit).collect();
            let count = pieces.len();
            let order = |at: usize| (at as u64 + 1).wrapping_mul(seed | 1) % 1009;
            let mut numbered: Vec<_> = pieces.drain(..).enumerate().collect();
            numbered.sort_by_key(|(at, _)| order(*at));
            let mut it = reassembler();
            let mut whole = vec![];
            let marked = seed as usize % (2 * count);
            for (number, (_, piece)) in numbered.iter().enumerate() {
                let mut wire = piece.header().to_vec();
                wire.extend(piece.data);
                prop_assert!(wire.len() <= limit);
                let decoded = decode(&wire).expect("our own fragment");
                prop_assert_eq!(&decoded, piece);
                let ecn = if number == marked { CONGESTION } else { 2 };
                whole.extend(it.add(0, &decoded, ecn).expect("no contradiction"));
                if count > 1 && whole.is_empty() {
                    prop_assert_eq!(it.add(0, &decoded, 1), Ok(None));
                }
            }
            prop_assert_eq!(whole, vec![payload]);
            prop_assert_eq!(it.ecn(), if marked < count { CONGESTION } else { 2 });
            prop_assert_eq!(it.pool.used.load(Ordering::Relaxed), 0);
        }

        #[test]
        fn any_bytes_are_taken_or_refused(lists in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 0..40)) {
            let mut it = reassembler();
            for bytes in &lists {
                if let Some(piece) = decode(bytes) {
                    let _ = it.add(0, &piece, 3);
                }
            }
            it.expire(TIMEOUT_NS);
            prop_assert_eq!(it.pool.used.load(Ordering::Relaxed), 0);
        }
    }
}
