//! Frames of the local stack -> sealed datagrams.
//!
//! ```text
//! tap() -> source is ours? -> ARP, ND: core -> FDB / flood -> split -> seal into the batch -> Wire::send
//! ```
//!
//! Datagrams of one size for one address gather in a batch that leaves in one system call (UDP_SEGMENT). Whoever drives a
//! `Sender` flushes it as soon as nothing more is waiting, so a lone frame leaves at once.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::checksum;
use crate::count::{Counters, Drop};
use crate::event::{Event, EventQueue};
use crate::fragment::{self, Fragment};
use crate::ip::{self, ETHERNET_HEADER, Ip};
use crate::packet::parse;
use crate::queue::Queue;
use crate::resolve::{Resolution, classify};
use crate::session::{HEADER, Refused, TAG};
use crate::split::{Plan, Split, complete, plan};
use crate::table::{Entry, Link, MAX_FRAME, Row, Table};
use crate::traffic_class;
use crate::vnet::{Gso, Vnet};

/// Payload kind: an Ethernet frame.
pub const ETHERNET: u8 = 0x01;
/// Payload kind: an Ethernet frame whose transport checksum is only begun.
pub const ETHERNET_PARTIAL: u8 = 0x02;

const MAX_BATCH_BYTES: usize = 65_507;
const MAX_BATCH_SEGMENTS: usize = 64;
/// WireGuard pads plaintexts with zeros to a multiple of 16 bytes (paper, section 5.4.6).
const PADDING: usize = 16;

/// What all threads of an engine share.
pub struct Shared {
    /// Peers and sessions.
    pub table: RwLock<Table>,
    /// Totals.
    pub counters: Counters,
    /// What the core must know.
    pub queue: Mutex<EventQueue>,
}

impl Shared {
    /// An engine's state for the interface with this MAC.
    #[must_use]
    pub fn new(own_mac: [u8; 6]) -> Self {
        Self { table: RwLock::new(Table::new(own_mac)), counters: Counters::default(), queue: Mutex::default() }
    }

    /// The table, to look at. A command is carried out whole or not at all, so a poisoned lock is as good as any.
    pub fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table, to change.
    pub fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offer something to the event queue and count a refusal.
    pub fn tell(&self, offer: impl FnOnce(&mut EventQueue) -> Result<(), Drop>) {
        // A queue is whole between two calls, so a poisoned lock is as good as any.
        if let Err(reason) = offer(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.counters.drop(reason);
        }
    }
}

/// Where datagrams go.
pub trait Wire {
    /// Send `contents` to an address: datagrams of `segment` bytes each, the last one perhaps shorter, all with this traffic
    /// class in their IP headers.
    fn send(&mut self, to: SocketAddr, contents: &[u8], segment: usize, class: u8);
}

/// Seals for one thread.
pub struct Sender {
    queue: Queue,
    batch: Vec<u8>,
    used: usize,
    to: Option<SocketAddr>,
    segment: usize,
    class: u8,
    count: usize,
    closed: bool,
    scratch: Vec<u8>,
}

impl Default for Sender {
    fn default() -> Self {
        Self::new(Queue::Bulk(0))
    }
}

impl Sender {
    /// A sender for the frames of one queue.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        Self {
            queue,
            batch: vec![0; MAX_BATCH_BYTES],
            used: 0,
            to: None,
            segment: 0,
            class: 0,
            count: 0,
            closed: false,
            scratch: vec![0; MAX_FRAME + PADDING],
        }
    }

    /// A frame that the local stack sends, as the TAP gave it; `frame` may be changed.
    pub fn tap(
        &mut self, shared: &Shared, table: &Table, now: u64, vnet: &Vnet, frame: &mut [u8], wire: &mut dyn Wire,
    ) {
        if frame.len() < ETHERNET_HEADER || (vnet.gso == Gso::None && frame.len() > MAX_FRAME) {
            return shared.counters.drop(Drop::BadFrame);
        }
        if frame[6..12] != table.own_mac() {
            return shared.counters.drop(Drop::BridgedSource);
        }
        let mut plan = plan(vnet, frame);
        if let Plan::Complete { start, offset } = plan {
            complete(frame, start, offset);
            plan = Plan::Whole;
        }
        if plan == Plan::Nonsense {
            return shared.counters.drop(Drop::VnetHeader);
        }
        match &plan {
            Plan::Split(split) if split.len_of(0) > MAX_FRAME => return shared.counters.drop(Drop::BadFrame),
            Plan::Split(_) => (),
            _ => match classify(frame) {
                Resolution::Question => {
                    return shared.tell(|it| it.offer_unresolved(now, || finished(frame, &plan)));
                }
                Resolution::Announcement => return shared.counters.drop(Drop::ArpLocal),
                Resolution::None => (),
            },
        }
        if frame[0] & 1 == 1 {
            let mut peers = 0;
            for row in table.flood() {
                self.forward(shared, table, now, row, frame, &plan, true, wire);
                peers += 1;
            }
            if peers == 0 {
                shared.counters.drop(Drop::NoPeers);
            }
        } else if let Some(row) = table.behind(&frame[..6]) {
            self.forward(shared, table, now, row, frame, &plan, true, wire);
        } else {
            shared.tell(|it| it.offer_unresolved(now, || finished(frame, &plan)));
        }
    }

    /// Frames that waited for a session, whole and with complete checksums.
    pub fn waited(&mut self, shared: &Shared, table: &Table, now: u64, row: &Row, frame: &[u8], wire: &mut dyn Wire) {
        self.forward(shared, table, now, row, frame, &Plan::Whole, false, wire);
    }

    /// A control payload (or a keepalive) on lane 0 of a session; `to`: instead of the peer's endpoint.
    #[allow(clippy::too_many_arguments)]
    pub fn control(
        &mut self, shared: &Shared, table: &Table, now: u64, entry: &Arc<Entry>, payload: &[u8],
        to: Option<SocketAddr>, wire: &mut dyn Wire,
    ) {
        let endpoint = table.row(&entry.peer.id).and_then(|it| it.endpoint);
        let Some(to) = to.or(endpoint) else { return shared.counters.drop(Drop::NoEndpoint) };
        if entry.expires_at < now {
            return shared.counters.drop(Drop::Expired);
        }
        let outgoing =
            Outgoing { shared, now, entry, to, limited: endpoint == Some(to), lane: 0, data: false, class: 0 };
        self.seal(&outgoing, payload.len(), |out| out.copy_from_slice(payload), wire);
    }

    /// Send what has gathered.
    pub fn flush(&mut self, wire: &mut dyn Wire) {
        if let Some(to) = self.to.take() {
            wire.send(to, &self.batch[..self.used], self.segment, self.class);
        }
        (self.used, self.count, self.closed) = (0, 0, false);
    }

    #[allow(clippy::too_many_arguments)]
    fn forward(
        &mut self, shared: &Shared, table: &Table, now: u64, row: &Row, frame: &[u8], plan: &Plan, ask: bool,
        wire: &mut dyn Wire,
    ) {
        if row.link != Link::Ethernet && !self.routable(shared, table, row, frame) {
            return;
        }
        let session = row.selected.as_ref().filter(|it| it.expires_at >= now);
        let (Some(entry), Some(to)) = (session, row.endpoint) else {
            if !ask {
                return shared.counters.drop(Drop::NoSession);
            }
            return shared.tell(|it| it.offer_waiting(now, row.peer.id, || finished(frame, plan)));
        };
        let lane = self.queue.lane(entry.tx_lanes.load(Ordering::Relaxed));
        let class = traffic_class::of_frame(frame);
        let outgoing = Outgoing { shared, now, entry, to, limited: true, lane, data: true, class };
        match plan {
            Plan::Split(split) => self.segments(&outgoing, row, frame, split, wire),
            _ => self.whole(&outgoing, row, frame, *plan == Plan::Partial, wire),
        }
    }

    fn routable(&self, shared: &Shared, table: &Table, row: &Row, frame: &[u8]) -> bool {
        let Some(packet) = routed_packet(frame) else {
            shared.counters.drop(Drop::NotIp);
            return false;
        };
        let ours = table.routed(packet.destination(frame)) == Some(&row.peer.id);
        if !ours {
            shared.counters.drop(Drop::AllowedIps);
        }
        ours
    }

    fn segments(&mut self, outgoing: &Outgoing, row: &Row, frame: &[u8], split: &Split, wire: &mut dyn Wire) {
        let room = row.room();
        for index in 0..split.count() {
            let len = split.len_of(index);
            if row.link == Link::Ethernet && len < room {
                let write = |out: &mut [u8]| {
                    out[0] = ETHERNET_PARTIAL;
                    split.write(frame, index, &mut out[1..]);
                };
                self.seal(outgoing, 1 + len, write, wire);
            } else {
                let mut segment = vec![0; len];
                split.write(frame, index, &mut segment);
                self.whole(outgoing, row, &segment, true, wire);
            }
        }
    }

    fn whole(&mut self, outgoing: &Outgoing, row: &Row, frame: &[u8], partial: bool, wire: &mut dyn Wire) {
        if row.link != Link::Ethernet {
            return self.packet(outgoing, frame, partial, wire);
        }
        let kind = if partial { ETHERNET_PARTIAL } else { ETHERNET };
        let (len, room) = (1 + frame.len(), row.room());
        if len <= room {
            let write = |out: &mut [u8]| {
                out[0] = kind;
                out[1..].copy_from_slice(frame);
            };
            self.seal(outgoing, len, write, wire);
            return;
        }
        let id = row.peer.fragment_id.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut payload = Vec::with_capacity(len);
        payload.push(kind);
        payload.extend_from_slice(frame);
        for piece in fragment::split(Fragment { id, offset: 0, last: true, data: &payload }, room) {
            let write = |out: &mut [u8]| {
                out[..fragment::FRAGMENT_HEADER].copy_from_slice(&piece.header());
                out[fragment::FRAGMENT_HEADER..].copy_from_slice(piece.data);
            };
            self.seal(outgoing, fragment::FRAGMENT_HEADER + piece.data.len(), write, wire);
        }
    }

    /// A stock peer's plaintext: the IP packet, padded.
    fn packet(&mut self, outgoing: &Outgoing, frame: &[u8], partial: bool, wire: &mut dyn Wire) {
        let Some(end) = routed_packet(frame).map(|it| it.end).filter(|it| *it <= self.scratch.len()) else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch[..end].copy_from_slice(&frame[..end]);
        if partial && let Some(layout) = parse(&scratch[..end]) {
            checksum::complete_transport(&mut scratch[..end], &layout);
        }
        let len = end - ETHERNET_HEADER;
        let write = |out: &mut [u8]| {
            out[..len].copy_from_slice(&scratch[ETHERNET_HEADER..end]);
            out[len..].fill(0);
        };
        self.seal(outgoing, len.next_multiple_of(PADDING), write, wire);
        self.scratch = scratch;
    }

    /// Seal a plaintext of `len` bytes that `write` puts in place, or count why not.
    fn seal(&mut self, outgoing: &Outgoing, len: usize, write: impl FnOnce(&mut [u8]), wire: &mut dyn Wire) {
        let Outgoing { shared, now, entry, to, lane, class, .. } = *outgoing;
        let size = HEADER + len + TAG;
        if outgoing.limited && !spend(entry, size) {
            return shared.counters.drop(Drop::ReflectionBudget);
        }
        let slot = self.slot(to, size, class, wire);
        write(&mut slot[HEADER..HEADER + len]);
        let sealed = entry.session.reserve(lane, 1).and_then(|sequence| entry.session.seal(lane, sequence, slot));
        if let Err(refused) = sealed {
            self.unslot(size);
            shared.counters.drop(if refused == Refused::Lane { Drop::Lane } else { Drop::CounterLimit });
        }
        if entry.session.exhausted(lane) && !entry.exhaustion_told.swap(true, Ordering::Relaxed) {
            let (peer, local_index) = (entry.peer.id, entry.local_index);
            shared.tell(|it| it.put(Event::SessionExhausted { peer, local_index }));
        }
        if sealed.is_err() {
            return;
        }
        let did = &entry.activity;
        did.tx_at.store(now, Ordering::Relaxed);
        if outgoing.data {
            did.tx_data_at.store(now, Ordering::Relaxed);
        }
        did.tx_packets.fetch_add(1, Ordering::Relaxed);
        did.tx_bytes.fetch_add(size as u64, Ordering::Relaxed);
        shared.counters.sealed(lane, size);
    }

    /// Room for the next datagram in the batch, which goes first if the datagram does not fit in.
    fn slot(&mut self, to: SocketAddr, size: usize, class: u8, wire: &mut dyn Wire) -> &mut [u8] {
        let fits = self.to == Some(to)
            && self.class == class
            && !self.closed
            && size <= self.segment
            && self.count < MAX_BATCH_SEGMENTS
            && self.used + size <= MAX_BATCH_BYTES;
        if !fits {
            self.flush(wire);
            (self.to, self.segment, self.class) = (Some(to), size, class);
        }
        self.closed = size < self.segment;
        self.count += 1;
        let start = self.used;
        self.used += size;
        &mut self.batch[start..start + size]
    }

    /// Take the newest slot back.
    fn unslot(&mut self, size: usize) {
        self.used -= size;
        self.count -= 1;
        self.closed = false;
        if self.count == 0 {
            self.to = None;
        }
    }
}

/// One session's sending, as `seal` needs it.
#[derive(Clone, Copy)]
struct Outgoing<'a> {
    shared: &'a Shared,
    now: u64,
    entry: &'a Arc<Entry>,
    to: SocketAddr,
    limited: bool,
    lane: usize,
    data: bool,
    class: u8,
}

fn spend(entry: &Entry, size: usize) -> bool {
    let budget = &entry.peer.budget;
    if budget.load(Ordering::Relaxed) == i64::MAX {
        return true;
    }
    let less =
        |left: i64| if left == i64::MAX { Some(left) } else { (left >= size as i64).then(|| left - size as i64) };
    budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
}

/// The untagged IP packet of a frame, whose ethertype names its version.
fn routed_packet(frame: &[u8]) -> Option<ip::Packet> {
    let (ethertype, start) = ip::network_header(frame).ok()?;
    let packet = ip::packet(frame, start).ok()?;
    let named = if packet.ip == Ip::V4 { ip::IPV4 } else { ip::IPV6 };
    (start == ETHERNET_HEADER && ethertype == named).then_some(packet)
}

/// The frame as the core may keep it and give it back: one segment at most, checksums complete.
fn finished(frame: &[u8], plan: &Plan) -> Vec<u8> {
    let mut out = match plan {
        Plan::Split(split) => {
            let mut first = vec![0; split.len_of(0)];
            split.write(frame, 0, &mut first);
            first
        }
        _ => frame.to_vec(),
    };
    if matches!(plan, Plan::Split(_) | Plan::Partial)
        && let Some(layout) = parse(&out)
    {
        checksum::complete_transport(&mut out, &layout);
    }
    out
}
