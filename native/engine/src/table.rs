//! What an engine knows: peers, their sessions, the FDB (MAC -> peer), the flood set, cryptokey routing.
//!
//! The control plane writes it (one writer, briefly); the data threads read it for every packet. What packets change is
//! atomic or behind a lock of its own. Bounded by what the control plane installs.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::fragment::{Pool, Reassembler};
use crate::guard::{Guard, Mac};
use crate::session::{HEADER, Session, TAG};

/// A peer's X25519 public key.
pub type PeerId = [u8; 32];

/// Largest Ethernet frame that is carried or delivered: a jumbo payload with header and one VLAN tag.
pub const MAX_FRAME: usize = 9216 + 18;

const UDP_OVER_IPV4: usize = 28;
const UDP_OVER_IPV6: usize = 48;
const LEAST_MTU: usize = 576;
const MTU_STEPS: [usize; 4] = [1500, 1400, 1280, LEAST_MTU];

/// What a peer's payloads hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Ethernet frames, fragments, control.
    Ethernet,
    /// Raw IP packets: a stock WireGuard peer.
    Ip,
    /// Control messages: a Nucleus.
    Signalling,
}

/// An IP prefix of cryptokey routing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// 4 or 16 bytes, host bits zero.
    pub address: Vec<u8>,
    /// Bits that count.
    pub bits: u8,
}

/// What a SetPeer says.
pub struct Policy {
    /// What the payloads hold.
    pub link: Link,
    /// MAC of the peer's omni0, or a synthetic one; None while an Ethernet peer has not proven its identity.
    pub mac: Option<Mac>,
    /// IPv4 addresses the peer may use.
    pub ipv4: Vec<[u8; 4]>,
    /// IPv6 addresses the peer may use.
    pub ipv6: Vec<[u8; 16]>,
    /// Cryptokey routing of an IP peer.
    pub allowed: Vec<Prefix>,
    /// Largest outer packet of the path.
    pub mtu: usize,
}

/// A session in place, and what it has done. Times are nanoseconds on the boot-time clock, 0 = never.
pub struct Entry {
    /// Keys, counters, windows.
    pub session: Session,
    /// Whose it is.
    pub peer: Arc<Peer>,
    /// The receiver index of what comes in.
    pub local_index: u32,
    /// The last moment at which it sends and receives.
    pub expires_at: u64,
    /// Bitmap of the lanes that frames may leave on, beside lane 0; `Queue::lane` chooses.
    pub tx_lanes: AtomicU16,
    /// Whether something authenticated arrived.
    pub confirmed: AtomicBool,
    /// Whether the core was told that a rekey is due.
    pub exhaustion_told: AtomicBool,
    /// What was sent and received.
    pub activity: Activity,
}

/// What a session has done.
#[allow(missing_docs)]
#[derive(Default)]
pub struct Activity {
    pub tx_at: AtomicU64,
    pub tx_data_at: AtomicU64,
    pub rx_at: AtomicU64,
    pub rx_data_at: AtomicU64,
    pub tx_packets: AtomicU64,
    pub tx_bytes: AtomicU64,
    pub rx_packets: AtomicU64,
    pub rx_bytes: AtomicU64,
}

/// A peer: what does not change with policy or path. Shared by its sessions.
pub struct Peer {
    /// Its key.
    pub id: PeerId,
    /// UDP payload bytes that may still go to an unproven endpoint; `i64::MAX` = no limit.
    pub budget: AtomicI64,
    /// Number of the next payload that must be cut.
    pub fragment_id: AtomicU32,
    /// Its unfinished payloads.
    pub reassembler: Mutex<Reassembler>,
    /// When the newest frame was handed to the local stack; 0 = never.
    pub delivered_at: AtomicU64,
    /// The MTU that the path itself taught.
    pub found_mtu: AtomicUsize,
}

/// A peer's row in the table: what the control plane sets.
pub struct Row {
    /// The shared part.
    pub peer: Arc<Peer>,
    /// What the payloads hold.
    pub link: Link,
    /// See `Policy::mac`.
    pub mac: Option<Mac>,
    /// None: unproven, or no Ethernet peer.
    pub guard: Option<Guard>,
    /// Where its datagrams go.
    pub endpoint: Option<SocketAddr>,
    /// The session that sends.
    pub selected: Option<Arc<Entry>>,
    sessions: Vec<u32>,
    set_mtu: usize,
    /// Rows in the order in which they came.
    number: u64,
}

/// All peers and sessions.
#[derive(Default)]
pub struct Table {
    own_mac: Mac,
    rows: HashMap<PeerId, Row>,
    sessions: HashMap<u32, Arc<Entry>>,
    fdb: HashMap<Mac, PeerId>,
    flood: Vec<PeerId>,
    allowed: HashMap<Prefix, PeerId>,
    allowed_bits: Vec<(usize, u8)>,
    pool: Arc<Pool>,
    rows_made: u64,
}

impl Row {
    /// Largest payload that one datagram carries on this path.
    #[must_use]
    pub fn room(&self) -> usize {
        self.peer.found_mtu.load(Ordering::Relaxed) - self.overhead() - HEADER - TAG
    }

    /// A datagram of `size` UDP payload bytes was too large for the path: assume the next smaller MTU. False if there is none.
    pub fn shrink(&self, size: usize) -> bool {
        let outer = size + self.overhead();
        if outer > self.peer.found_mtu.load(Ordering::Relaxed) {
            return true; // sent before the path shrank: says nothing new
        }
        let smaller = MTU_STEPS.into_iter().find(|step| *step < outer);
        if let Some(step) = smaller {
            self.peer.found_mtu.store(step, Ordering::Relaxed);
        }
        smaller.is_some()
    }

    fn overhead(&self) -> usize {
        if self.endpoint.is_some_and(|it| it.is_ipv6()) { UDP_OVER_IPV6 } else { UDP_OVER_IPV4 }
    }
}

impl Table {
    /// An empty table for the interface with this MAC.
    #[must_use]
    pub fn new(own_mac: Mac) -> Self {
        Self { own_mac, ..Self::default() }
    }

    /// The MAC of omni0.
    #[must_use]
    pub fn own_mac(&self) -> Mac {
        self.own_mac
    }

    /// The memory of all reassemblers.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A peer by key.
    #[must_use]
    pub fn row(&self, peer: &PeerId) -> Option<&Row> {
        self.rows.get(peer)
    }

    /// All peers.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// The peer behind a MAC.
    #[must_use]
    pub fn behind(&self, mac: &[u8]) -> Option<&Row> {
        self.rows.get(self.fdb.get(<&Mac>::try_from(mac).ok()?)?)
    }

    /// Proven members of the flood set, in its order.
    pub fn flood(&self) -> impl Iterator<Item = &Row> {
        self.flood.iter().filter_map(|it| self.rows.get(it)).filter(|it| it.guard.is_some())
    }

    /// A session by receiver index.
    #[must_use]
    pub fn session(&self, local_index: u32) -> Option<&Arc<Entry>> {
        self.sessions.get(&local_index)
    }

    /// All sessions.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.sessions.values()
    }

    /// The IP peer that an address of 4 or 16 bytes is routed to, by the longest prefix.
    #[must_use]
    pub fn routed(&self, address: &[u8]) -> Option<&PeerId> {
        let levels = self.allowed_bits.iter().filter(|(size, _)| *size == address.len());
        levels.map(|(_, bits)| prefix(address, *bits)).find_map(|it| self.allowed.get(&it))
    }

    /// Create a peer or replace its policy. `fragment_id`: where the numbers of a new peer's cut payloads begin.
    pub fn set_peer(&mut self, id: PeerId, policy: &Policy, fragment_id: u32) {
        let mtu = policy.mtu.max(LEAST_MTU);
        self.rows_made += 1;
        let (pool, number) = (&self.pool, self.rows_made);
        let row = self.rows.entry(id).or_insert_with(|| Row::new(id, mtu, fragment_id, number, Arc::clone(pool)));
        let former = row.mac;
        row.link = policy.link;
        row.mac = policy.mac.filter(|_| policy.link != Link::Signalling);
        let member = row.mac.filter(|_| policy.link == Link::Ethernet);
        row.guard = member.map(|mac| Guard::new(self.own_mac, mac, &policy.ipv4, &policy.ipv6));
        if mtu != row.set_mtu {
            row.set_mtu = mtu;
            row.peer.found_mtu.store(mtu, Ordering::Relaxed);
        }
        let mac = row.mac;
        if former != mac {
            self.release_mac(&id, former);
        }
        if let Some(mac) = mac {
            // Who has a MAC keeps it: a second key that hashes to the same one (a forgery) gets no traffic.
            self.fdb.entry(mac).or_insert(id);
        }
        self.assign(&id, if policy.link == Link::Ip { &policy.allowed } else { &[] });
    }

    /// Forget a peer and all that is its.
    pub fn remove_peer(&mut self, id: &PeerId) {
        let Some(row) = self.rows.remove(id) else { return };
        for index in &row.sessions {
            self.sessions.remove(index);
        }
        self.assign(id, &[]);
        self.flood.retain(|it| it != id);
        self.release_mac(id, row.mac);
    }

    /// Forget payloads whose fragments never came. Their memory is everybody's.
    pub fn expire_fragments(&self, now: u64) {
        for row in self.rows.values() {
            row.peer.reassembler.lock().unwrap_or_else(PoisonError::into_inner).expire(now);
        }
    }

    /// Forget all peers.
    pub fn clear(&mut self) {
        let ids: Vec<PeerId> = self.rows.keys().copied().collect();
        ids.iter().for_each(|it| self.remove_peer(it));
    }

    /// Replace the flood set.
    pub fn set_flood(&mut self, peers: Vec<PeerId>) {
        self.flood = peers;
    }

    /// Put a session in place; it receives at once. One that is there already stays: its counters must not start again.
    pub fn install_session(&mut self, id: &PeerId, local_index: u32, expires_at: u64, session: Session) {
        let there = self.sessions.get(&local_index).is_some_and(|it| it.session.same_key(&session));
        if there || !self.rows.contains_key(id) {
            return;
        }
        self.remove_session(local_index);
        let Some(row) = self.rows.get_mut(id) else { return };
        row.sessions.push(local_index);
        let entry = Entry {
            session,
            peer: Arc::clone(&row.peer),
            local_index,
            expires_at,
            tx_lanes: AtomicU16::new(0),
            confirmed: AtomicBool::new(false),
            exhaustion_told: AtomicBool::new(false),
            activity: Activity::default(),
        };
        self.sessions.insert(local_index, Arc::new(entry));
    }

    /// From now on the peer's frames leave on this session.
    pub fn select_session(&mut self, id: &PeerId, local_index: u32) {
        let entry = self.sessions.get(&local_index).filter(|it| it.peer.id == *id);
        if let (Some(row), Some(entry)) = (self.rows.get_mut(id), entry) {
            row.selected = Some(Arc::clone(entry));
        }
    }

    /// Drop a session; its keys go with the last thread that still uses it.
    pub fn remove_session(&mut self, local_index: u32) {
        let Some(entry) = self.sessions.remove(&local_index) else { return };
        if let Some(row) = self.rows.get_mut(&entry.peer.id) {
            row.sessions.retain(|it| *it != local_index);
            row.selected.take_if(|it| it.local_index == local_index);
        }
    }

    /// Where the peer's datagrams go. A new path starts with the MTU that policy names.
    pub fn set_endpoint(&mut self, id: &PeerId, endpoint: SocketAddr, budget: Option<u64>) {
        let Some(row) = self.rows.get_mut(id) else { return };
        if row.endpoint != Some(endpoint) {
            row.endpoint = Some(endpoint);
            row.peer.found_mtu.store(row.set_mtu, Ordering::Relaxed);
        }
        let budget = budget.map_or(i64::MAX, |it| i64::try_from(it).unwrap_or(i64::MAX));
        row.peer.budget.store(budget, Ordering::Relaxed);
    }

    fn release_mac(&mut self, id: &PeerId, mac: Option<Mac>) {
        let Some(mac) = mac.filter(|it| self.fdb.get(it) == Some(id)) else { return };
        self.fdb.remove(&mac);
        if let Some(heir) = self.rows.values().filter(|it| it.mac == Some(mac)).min_by_key(|it| it.number) {
            self.fdb.insert(mac, heir.peer.id);
        }
    }

    fn assign(&mut self, id: &PeerId, prefixes: &[Prefix]) {
        if prefixes.is_empty() && self.allowed.is_empty() {
            return;
        }
        self.allowed.retain(|_, owner| owner != id);
        self.allowed.extend(prefixes.iter().map(|it| (it.clone(), *id)));
        self.allowed_bits = self.allowed.keys().map(|it| (it.address.len(), it.bits)).collect();
        self.allowed_bits.sort_unstable_by_key(|it| std::cmp::Reverse(it.1));
        self.allowed_bits.dedup();
    }
}

impl Row {
    fn new(id: PeerId, mtu: usize, fragment_id: u32, number: u64, pool: Arc<Pool>) -> Self {
        let peer = Peer {
            id,
            budget: AtomicI64::new(i64::MAX),
            fragment_id: AtomicU32::new(fragment_id),
            reassembler: Mutex::new(Reassembler::new(1 + MAX_FRAME, pool)),
            delivered_at: AtomicU64::new(0),
            found_mtu: AtomicUsize::new(mtu),
        };
        Self {
            peer: Arc::new(peer),
            link: Link::Ethernet,
            mac: None,
            guard: None,
            endpoint: None,
            selected: None,
            sessions: vec![],
            set_mtu: mtu,
            number,
        }
    }
}

fn prefix(address: &[u8], bits: u8) -> Prefix {
    let keep = |at: usize, byte: u8| {
        let here = usize::from(bits).saturating_sub(at * 8).min(8);
        if here == 0 { 0 } else { byte & (0xff << (8 - here)) }
    };
    Prefix { address: address.iter().enumerate().map(|(at, byte)| keep(at, *byte)).collect(), bits }
}
