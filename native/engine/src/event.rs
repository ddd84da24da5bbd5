//! Events that wait for the control plane: bounded, so that nobody outside can make us remember without end. The same bounds
//! and rates as `core/event_queue.py`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::net::SocketAddr;

use crate::count::Drop;
use crate::table::PeerId;

const CAPACITY: usize = 4096;
const FRAMES_PER_PEER: f64 = 32.0;
const UNRESOLVED_FRAMES: f64 = 256.0;
const SOURCES_PER_SESSION: f64 = 8.0;
const REMEMBERED: usize = 1024;

/// What the core must know; mirrors `core/dataplane.py`.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    DatagramReceived { source: SocketAddr, data: Vec<u8> },
    SessionConfirmed { peer: PeerId, local_index: u32, source: SocketAddr },
    ControlReceived { peer: PeerId, local_index: u32, payload: Vec<u8>, source: SocketAddr, size: usize },
    SourceChanged { peer: PeerId, local_index: u32, source: SocketAddr, size: usize },
    FrameWithoutSession { peer: PeerId, frame: Vec<u8> },
    FrameUnresolved { frame: Vec<u8> },
    SessionExhausted { peer: PeerId, local_index: u32 },
    UnderlayError { endpoint: SocketAddr, errno: i32 },
}

/// A FIFO. The `offer_*` methods say why they refuse.
#[derive(Default)]
pub struct EventQueue {
    events: VecDeque<Event>,
    waiting: Limiter<PeerId>,
    unresolved: Limiter<()>,
    sources: Limiter<(u32, SocketAddr)>,
    session_sources: Limiter<u32>,
    errors: Limiter<SocketAddr>,
}

impl EventQueue {
    /// Append, unless there is no room for its kind.
    pub fn put(&mut self, event: Event) -> Result<(), Drop> {
        let bound = match event {
            Event::FrameUnresolved { .. } | Event::FrameWithoutSession { .. } => CAPACITY / 2,
            Event::DatagramReceived { .. } | Event::SourceChanged { .. } | Event::UnderlayError { .. } => {
                CAPACITY * 3 / 4
            }
            Event::ControlReceived { .. } => CAPACITY,
            Event::SessionConfirmed { .. } | Event::SessionExhausted { .. } => usize::MAX,
        };
        if self.events.len() >= bound {
            return Err(Drop::EventOverflow);
        }
        self.events.push_back(event);
        Ok(())
    }

    /// FrameWithoutSession, at most 32 per peer and second. `frame` is called only if it is wanted.
    pub fn offer_waiting(&mut self, now: u64, peer: PeerId, frame: impl FnOnce() -> Vec<u8>) -> Result<(), Drop> {
        if !self.waiting.allow(now, peer, FRAMES_PER_PEER) {
            return Err(Drop::NoSession);
        }
        self.put(Event::FrameWithoutSession { peer, frame: frame() })
    }

    /// FrameUnresolved, at most 256 per second.
    pub fn offer_unresolved(&mut self, now: u64, frame: impl FnOnce() -> Vec<u8>) -> Result<(), Drop> {
        if !self.unresolved.allow(now, (), UNRESOLVED_FRAMES) {
            return Err(Drop::Unresolved);
        }
        self.put(Event::FrameUnresolved { frame: frame() })
    }

    /// SourceChanged: a hint, given again by the next packet, so a refused one is not counted.
    pub fn offer_source(&mut self, now: u64, peer: PeerId, local_index: u32, source: SocketAddr, size: usize) {
        if self.sources.allow(now, (local_index, source), 1.0)
            && self.session_sources.allow(now, local_index, SOURCES_PER_SESSION)
        {
            let _ = self.put(Event::SourceChanged { peer, local_index, source, size });
        }
    }

    /// UnderlayError; the caller counts the failure itself.
    pub fn offer_error(&mut self, now: u64, endpoint: SocketAddr, errno: i32) {
        if self.errors.allow(now, endpoint, 1.0) {
            let _ = self.put(Event::UnderlayError { endpoint, errno });
        }
    }

    /// All events, oldest first.
    pub fn take(&mut self) -> VecDeque<Event> {
        std::mem::take(&mut self.events)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// Token buckets of the keys heard last. The burst is one second's tokens.
struct Limiter<K> {
    buckets: HashMap<K, Bucket>,
    /// By the turn in which a key was heard last.
    order: BTreeMap<u64, K>,
    turn: u64,
}

struct Bucket {
    tokens: f64,
    at: u64,
    turn: u64,
}

impl<K> Default for Limiter<K> {
    fn default() -> Self {
        Self { buckets: HashMap::new(), order: BTreeMap::new(), turn: 0 }
    }
}

impl<K: Copy + Eq + Hash> Limiter<K> {
    fn allow(&mut self, now: u64, key: K, per_second: f64) -> bool {
        self.turn += 1;
        let turn = self.turn;
        let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: per_second, at: now, turn });
        self.order.remove(&bucket.turn);
        self.order.insert(turn, key);
        let earned = now.saturating_sub(bucket.at) as f64 / 1e9 * per_second;
        *bucket = Bucket { tokens: per_second.min(bucket.tokens + earned), at: now, turn };
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        if self.buckets.len() > REMEMBERED
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.buckets.remove(&oldest);
        }
        allowed
    }
}
