//! The kernel lane of one edge: which peers, sessions and addresses the programs know. It mirrors the engine's table
//! (`engine::table`) into maps; what packets change lives in the maps alone.
//!
//! A session's keys are in one place, a slot of SESSIONS. A slot is written whole and under its lock, when a session
//! begins and (with zeros) when it ends. So a counter belongs to the key beside it, always.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use rustix::time::{ClockId, clock_gettime};
use zeroize::{Zeroize, Zeroizing};

use crate::kernel::{Kernel, Mechanism};
use crate::layout::{self, Address, MAX_ADDRESSES, NO_SLOT, NewSession, Own, PeerValue, Told};
use crate::route::Routes;

/// A peer's X25519 public key.
pub type PeerId = [u8; 32];

/// How long answers to a handshake message are let in: an attempt lasts 5 s, and a little more (core/attempts.py).
const AWAITED: u64 = 6_000_000_000;
const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const HELLO: u8 = 5;

/// A peer, as the control plane describes it.
struct Peer {
    number: u32,
    mac: Option<[u8; 6]>,
    ipv4: Vec<[u8; 4]>,
    ipv6: Vec<[u8; 16]>,
    mtu: u16,
    endpoint: Option<(SocketAddr, bool)>,
    way: Option<(u32, IpAddr)>,
    selected: Option<u32>,
    /// What is sent to it takes the bulk lane, where it can be seen on the interface.
    watched: bool,
}

/// A session, whether or not it has the lane.
struct Session {
    peer: PeerId,
    remote_index: u32,
    expires_at: u64,
    slot: Option<u32>,
    sends: bool,
}

/// What a session did on lane 8: peer, local index, times (sent, received, received with data), counts (packets and
/// bytes sent, then received).
pub type Did = (PeerId, u32, [u64; 3], [u64; 4]);

/// An event for the control plane.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The first authenticated datagram.
    Confirmed(PeerId, u32, SocketAddr),
    /// The newest datagram came from elsewhere; the last number is its size.
    Source(PeerId, u32, SocketAddr, u32),
    /// A rekey is due.
    Exhausted(PeerId, u32),
}

/// The lane. Dropping it, as `close` does, detaches everything and wipes all keys.
pub struct Lane {
    kernel: Kernel,
    routes: Routes,
    own: Own,
    mark: u64,
    peers: HashMap<PeerId, Peer>,
    numbers: HashMap<u32, PeerId>,
    next_number: u32,
    sessions: HashMap<u32, Session>,
    free: Vec<u32>,
    homeless: u32,
    locals: HashSet<Address>,
    locals_version: u32,
}

impl Lane {
    /// Load everything; attach nothing.
    pub fn open(own: Own, sessions: u32) -> io::Result<Self> {
        let mut mark = [0; 8];
        rustix::rand::getrandom(&mut mark, rustix::rand::GetRandomFlags::empty())?;
        let mut lane = Self {
            kernel: Kernel::load(sessions)?,
            routes: Routes::open()?,
            own,
            mark: u64::from_ne_bytes(mark),
            peers: HashMap::new(),
            numbers: HashMap::new(),
            next_number: 1,
            sessions: HashMap::new(),
            free: (0..sessions).rev().collect(),
            homeless: 0,
            locals: HashSet::new(),
            locals_version: 1,
        };
        lane.configure()?;
        lane.look_around()?;
        Ok(lane)
    }

    /// Let so many initiations of a source pass, at once and in a second.
    pub fn limit(&mut self, rate: u32) -> io::Result<()> {
        self.own.rate = rate.max(1);
        self.configure()
    }

    /// Know the cookies that the control plane gives away from now on, and until when (boot-time nanoseconds).
    pub fn trust_cookies(&mut self, secret: [u8; 32], until: u64) -> io::Result<()> {
        self.own.cookies = (secret, until);
        self.configure()
    }

    /// Receive on an underlay.
    pub fn receive(&mut self, interface: u32, mechanism: Mechanism) -> io::Result<()> {
        self.kernel.receive(interface, mechanism)?;
        self.write_peers()
    }

    /// Receive there no longer.
    pub fn ignore(&mut self, interface: u32) -> io::Result<()> {
        self.kernel.ignore(interface);
        self.write_peers()
    }

    /// Send what leaves the overlay interface.
    pub fn send(&mut self) -> io::Result<()> {
        self.kernel.send(self.own.overlay)
    }

    /// Send no longer.
    pub fn hold(&mut self) {
        self.kernel.hold();
    }

    /// Program, hook and interface of what is attached.
    #[must_use]
    pub fn attached(&self) -> Vec<(&'static str, &'static str, u32)> {
        self.kernel.attached()
    }

    /// Create a peer or replace its policy. `addresses` are of 4 or 16 bytes.
    pub fn set_peer(&mut self, id: PeerId, mac: Option<[u8; 6]>, addresses: &[Vec<u8>], mtu: u16) -> io::Result<()> {
        let ipv4: Vec<[u8; 4]> = addresses.iter().filter_map(|it| it.as_slice().try_into().ok()).collect();
        let mut ipv6: Vec<[u8; 16]> = addresses.iter().filter_map(|it| it.as_slice().try_into().ok()).collect();
        ipv6.extend(mac.map(eui64_link_local));
        if ipv4.len() > MAX_ADDRESSES || ipv6.len() > MAX_ADDRESSES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a peer has {MAX_ADDRESSES} addresses at most"),
            ));
        }
        let old_mac = self.peers.get(&id).and_then(|it| it.mac);
        let next_number = &mut self.next_number;
        let numbers = &mut self.numbers;
        let peer = self.peers.entry(id).or_insert_with(|| {
            let number = *next_number;
            *next_number += 1;
            numbers.insert(number, id);
            Peer {
                number,
                mac,
                ipv4: vec![],
                ipv6: vec![],
                mtu,
                endpoint: None,
                way: None,
                selected: None,
                watched: false,
            }
        });
        (peer.mac, peer.ipv4, peer.ipv6, peer.mtu) = (mac, ipv4, ipv6, mtu);
        let number = peer.number;
        self.write_peer(&id)?;
        if let Some(old) = old_mac.filter(|_| old_mac != mac) {
            self.release_mac(old, number)?;
        }
        mac.map_or(Ok(()), |it| self.claim_mac(it, number))
    }

    /// Who has a MAC keeps it: a second key that hashes to the same one (a forgery) gets no traffic.
    fn claim_mac(&mut self, mac: [u8; 6], number: u32) -> io::Result<()> {
        if self.kernel.mac_holder(mac).is_some() { Ok(()) } else { self.kernel.set_mac(mac, number) }
    }

    /// A peer has this MAC no longer. Whoever has waited for it longest gets it.
    fn release_mac(&mut self, mac: [u8; 6], number: u32) -> io::Result<()> {
        if self.kernel.mac_holder(mac) != Some(number) {
            return Ok(());
        }
        self.kernel.remove_mac(mac);
        let waiting = self.peers.values().filter(|it| it.mac == Some(mac) && it.number != number);
        waiting.map(|it| it.number).min().map_or(Ok(()), |heir| self.kernel.set_mac(mac, heir))
    }

    /// Forget a peer and its sessions.
    pub fn remove_peer(&mut self, id: &PeerId) -> io::Result<()> {
        let of_it = self.sessions.iter().filter(|it| it.1.peer == *id).map(|it| *it.0);
        for index in of_it.collect::<Vec<_>>() {
            self.remove_session(index)?;
        }
        if let Some(peer) = self.peers.remove(id) {
            self.numbers.remove(&peer.number);
            self.kernel.remove_peer(peer.number);
            if let Some(mac) = peer.mac {
                self.release_mac(mac, peer.number)?;
            }
            self.forget_endpoint(peer.endpoint.map(|it| it.0))?;
        }
        Ok(())
    }

    /// Let a session's datagrams in. `expires_at`: boot-time nanoseconds.
    pub fn install_session(
        &mut self, id: PeerId, local_index: u32, remote_index: u32, expires_at: u64,
    ) -> io::Result<()> {
        self.remove_session(local_index)?;
        let session = Session { peer: id, remote_index, expires_at, slot: None, sends: false };
        self.sessions.insert(local_index, session);
        if self.kernel.set_index(local_index, NO_SLOT).is_err() {
            self.homeless += 1;
            self.configure()?; // INDICES is full: unknown sessions are the engine's to judge from now on
        }
        Ok(())
    }

    /// Give a session lane 8, and let it send there. The keys of a lane that is open stay. False: no room.
    pub fn open_lane(&mut self, local_index: u32, send: &[u8; 32], recv: &[u8; 32], sends: bool) -> io::Result<bool> {
        let Some(session) = self.sessions.get_mut(&local_index) else { return Ok(false) };
        let Some(peer) = self.peers.get(&session.peer) else { return Ok(false) };
        session.sends |= sends;
        if session.slot.is_none() {
            let Some(slot) = self.free.pop() else { return Ok(false) };
            let value = layout::session(&NewSession {
                local_index,
                remote_index: session.remote_index,
                peer: peer.number,
                expires_at: session.expires_at,
                send_key: send,
                recv_key: recv,
            });
            session.slot = Some(slot);
            self.kernel.set_session(slot, &value)?;
            self.kernel.set_index(local_index, slot)?;
        }
        let id = session.peer;
        self.write_peer(&id)?;
        Ok(true)
    }

    /// From now on the peer's frames leave on this session.
    pub fn select_session(&mut self, id: &PeerId, local_index: u32) -> io::Result<()> {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.selected = Some(local_index);
            self.write_peer(id)?;
        }
        Ok(())
    }

    /// Send to a peer by the bulk lane for as long as it is watched.
    pub fn watch(&mut self, id: &PeerId, on: bool) -> io::Result<()> {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.watched = on;
            self.write_peer(id)?;
        }
        Ok(())
    }

    /// Drop a session: its keys are overwritten where they are.
    pub fn remove_session(&mut self, local_index: u32) -> io::Result<()> {
        let Some(session) = self.sessions.remove(&local_index) else { return Ok(()) };
        self.kernel.remove_index(local_index);
        let Some(slot) = session.slot else { return Ok(()) };
        self.write_peer(&session.peer)?;
        self.kernel.set_session(slot, &[0; size_of::<layout::Session>()])?;
        self.free.push(slot);
        Ok(())
    }

    /// Where the peer's datagrams go, and whether a round trip proved it.
    pub fn set_endpoint(&mut self, id: &PeerId, endpoint: SocketAddr, proven: bool) -> io::Result<()> {
        let way = self.routes.way(endpoint.ip().to_canonical())?;
        if let Some(peer) = self.peers.get_mut(id) {
            let former = peer.endpoint.map(|it| it.0);
            (peer.endpoint, peer.way) = (Some((endpoint, proven)), way);
            self.write_peer(id)?;
            self.kernel.set_known(&layout::address(endpoint), true)?;
            self.forget_endpoint(former)?;
        }
        Ok(())
    }

    /// An endpoint that a peer had is nobody's, unless another one has it.
    fn forget_endpoint(&mut self, endpoint: Option<SocketAddr>) -> io::Result<()> {
        let Some(endpoint) = endpoint else { return Ok(()) };
        if self.peers.values().any(|it| it.endpoint.is_some_and(|it| it.0 == endpoint)) {
            return Ok(());
        }
        self.kernel.set_known(&layout::address(endpoint), false)
    }

    /// A datagram outside of any session is about to leave: what it asks for may come in.
    pub fn note_datagram(&mut self, endpoint: SocketAddr, data: &[u8]) -> io::Result<()> {
        let until = boot_time() + AWAITED;
        match (data.first(), data.get(4..8).and_then(|it| it.try_into().ok())) {
            (Some(&(INITIATION | RESPONSE)), Some(index)) => {
                self.kernel.await_handshake(u32::from_le_bytes(index), until)
            }
            (Some(&HELLO), _) => self.kernel.await_hello(endpoint, until),
            _ => Ok(()),
        }
    }

    /// Look at addresses and routes again, and drop what has expired.
    pub fn tick(&mut self) -> io::Result<()> {
        let now = boot_time();
        let over = self.sessions.iter().filter(|it| it.1.expires_at < now && it.1.slot.is_some()).map(|it| *it.0);
        for index in over.collect::<Vec<_>>() {
            self.remove_session(index)?;
        }
        self.look_around()?;
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let Some((endpoint, _)) = peer.endpoint else { continue };
            let way = self.routes.way(endpoint.ip().to_canonical())?;
            if way != peer.way {
                peer.way = way;
                self.write_peer(&id)?;
            }
        }
        Ok(())
    }

    /// What happened since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        let mut all = vec![];
        while let Some(item) = self.kernel.events.next() {
            let Some(told) = layout::event(&item) else { continue };
            let id = |number: u32| self.numbers.get(&number).copied();
            all.extend(match told {
                Told::Confirmed(number, index, source) => id(number).map(|it| Event::Confirmed(it, index, source)),
                Told::Source(number, index, source, size) => {
                    id(number).map(|it| Event::Source(it, index, source, size))
                }
                Told::Exhausted(number, index) => id(number).map(|it| Event::Exhausted(it, index)),
            });
        }
        all
    }

    /// Readable while there are events.
    #[must_use]
    pub fn signal(&self) -> RawFd {
        self.kernel.events.as_raw_fd()
    }

    /// What every session with the lane has done.
    #[must_use]
    pub fn activity(&self) -> Vec<Did> {
        let one = |(index, session): (&u32, &Session)| {
            let value = Zeroizing::new(self.kernel.session(session.slot?).ok()?);
            let did = layout::activity(&value);
            Some((session.peer, *index, did.times, did.counts))
        };
        self.sessions.iter().filter_map(one).collect()
    }

    /// All counters.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.kernel.counters()
    }

    /// MACs of peers whose frames were delivered, and when, in boot-time nanoseconds.
    #[must_use]
    pub fn learned(&self) -> Vec<([u8; 6], u64)> {
        let one = |it: &Peer| Some((it.mac?, self.kernel.peer(it.number).map_or(0, |it| layout::delivered_at(&it))));
        self.peers.values().filter_map(one).filter(|it| it.1 > 0).collect()
    }

    /// Run a program on a packet, for tests.
    pub fn test_run(&mut self, program: &str, packet: &[u8], repeat: u32) -> io::Result<(u32, Vec<u8>, u64)> {
        self.kernel.test_run(program, packet, repeat)
    }

    fn configure(&mut self) -> io::Result<()> {
        self.kernel.configure(&layout::config(&self.own, self.homeless, self.locals_version, self.mark))
    }

    /// Bring LOCALS up to date.
    fn look_around(&mut self) -> io::Result<()> {
        let key = |ip: IpAddr| layout::address(SocketAddr::new(ip, 0));
        let now: HashSet<Address> = self.routes.own_addresses()?.into_iter().map(key).collect();
        for gone in self.locals.difference(&now) {
            self.kernel.set_local(gone, false)?;
        }
        for new in now.difference(&self.locals) {
            self.kernel.set_local(new, true)?;
        }
        if now != self.locals {
            self.locals = now;
            self.locals_version = self.locals_version.wrapping_add(1).max(1);
            self.configure()?;
        }
        Ok(())
    }

    fn write_peers(&mut self) -> io::Result<()> {
        let all: Vec<PeerId> = self.peers.keys().copied().collect();
        all.iter().try_for_each(|it| self.write_peer(it))
    }

    fn write_peer(&mut self, id: &PeerId) -> io::Result<()> {
        let Some(peer) = self.peers.get(id) else { return Ok(()) };
        let selected = peer.selected.filter(|_| !peer.watched);
        let selected = selected.and_then(|it| self.sessions.get(&it)).filter(|it| it.sends);
        let value = layout::peer(&PeerValue {
            mac: peer.mac,
            mtu: peer.mtu,
            slot: selected.and_then(|it| it.slot).unwrap_or(NO_SLOT),
            endpoint: peer.endpoint,
            // By an interface without our programs (a tunnel has no Ethernet header for them) the bulk lane sends.
            way: peer.way.filter(|it| self.kernel.receives(it.0)),
            ipv4: &peer.ipv4,
            ipv6: &peer.ipv6,
            delivered_at: self.kernel.peer(peer.number).map_or(0, |it| layout::delivered_at(&it)),
        });
        self.kernel.set_peer(peer.number, &value)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.kernel.hold();
        for session in self.sessions.values() {
            if let Some(slot) = session.slot {
                let _ = self.kernel.set_session(slot, &[0; size_of::<layout::Session>()]); // the map goes next anyway
            }
        }
        self.own.mac1_key.zeroize();
        self.own.cookies.0.zeroize();
    }
}

/// Nanoseconds on the boot-time clock, as the programs count.
fn boot_time() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The link-local address that an interface forms from its MAC (RFC 4291, appendix A).
fn eui64_link_local(mac: [u8; 6]) -> [u8; 16] {
    let [a, b, c, d, e, f] = mac;
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0x02, b, c, 0xff, 0xfe, d, e, f]
}
