//! Values of the maps, byte for byte as bpf/shared.h lays them out. Numbers are in the machine's order, addresses in
//! the network's.

use std::net::{IpAddr, SocketAddr};

use zeroize::Zeroizing;

/// Sizes and counter names, from bpf/shared.h.
#[allow(missing_docs, dead_code)]
mod shared {
    include!(concat!(env!("OUT_DIR"), "/shared.rs"));
}

pub use shared::COUNTERS;

/// A session that sends on the bulk lane only, or a peer without one.
pub const NO_SLOT: u32 = u32::MAX;
/// Addresses of a kind that a peer may have.
pub const MAX_ADDRESSES: usize = 4;

/// Bytes of a value.
pub type Config = [u8; shared::CONFIG];
/// Bytes of a value.
pub type Session = [u8; shared::SESSION];
/// Bytes of a value.
pub type Peer = [u8; shared::PEER];
/// Bytes of a key.
pub type Address = [u8; shared::ADDRESS];

/// Writes fields one after the other.
struct Writer<'a> {
    to: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.to[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        self
    }

    fn u16(&mut self, number: u16) -> &mut Self {
        self.bytes(&number.to_ne_bytes())
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.bytes(&number.to_ne_bytes())
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.bytes(&number.to_ne_bytes())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map_or(0, u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_ne_bytes)
}

/// What tells an edge from others.
pub struct Own {
    /// Interface index of omni0.
    pub overlay: u32,
    /// Its MAC.
    pub mac: [u8; 6],
    /// BLAKE2s("mac1----" || own public key).
    pub mac1_key: [u8; 32],
    /// Our UDP port.
    pub port: u16,
    /// Initiations of a source that pass: so many at once, and so many in a second; not 0.
    pub rate: u32,
    /// Secret behind the cookies that peers have from us, and until when (boot-time nanoseconds); 0: nobody has one.
    pub cookies: ([u8; 32], u64),
}

/// `struct config`. `locals`: another number whenever LOCALS has changed, not 0.
pub fn config(own: &Own, lenient: u32, locals: u32, mark: u64) -> Config {
    let Own { overlay, mac, mac1_key, port, rate, cookies } = own;
    let mut value = [0; shared::CONFIG];
    let mut it = Writer { to: &mut value, at: 0 };
    it.bytes(mac1_key)
        .bytes(mac)
        .bytes(&port.to_be_bytes())
        .u32(*overlay)
        .u32(lenient)
        .u32(*rate)
        .u32(locals)
        .u64(mark);
    it.bytes(&cookies.0).u64(cookies.1);
    assert_eq!(it.at, shared::CONFIG);
    value
}

/// Keys of a session's lane 8, and whose it is.
pub struct NewSession<'a> {
    /// Receiver index of what comes in.
    pub local_index: u32,
    /// Receiver index of what goes out.
    pub remote_index: u32,
    /// The peer's number.
    pub peer: u32,
    /// Boot-time nanoseconds.
    pub expires_at: u64,
    /// For sealing.
    pub send_key: &'a [u8; 32],
    /// For opening.
    pub recv_key: &'a [u8; 32],
}

const SEND_KEY: usize = 24;
const COUNTER: usize = SEND_KEY + 64;
const TX_AT: usize = COUNTER + 8;
const LIVE: usize = TX_AT + 8 * 8 + 4;

/// `struct session`, with a fresh counter and window.
pub fn session(new: &NewSession<'_>) -> Zeroizing<Session> {
    let mut value = Zeroizing::new([0; shared::SESSION]);
    let mut it = Writer { to: value.as_mut_slice(), at: 4 };
    it.u32(new.local_index).u32(new.remote_index).u32(new.peer).u64(new.expires_at);
    it.bytes(new.send_key).bytes(new.recv_key);
    Writer { to: value.as_mut_slice(), at: LIVE }.u32(1);
    value
}

/// What a session in the kernel has done: times in boot-time nanoseconds.
pub struct Activity {
    /// Newest datagram sent; received; received with data.
    pub times: [u64; 3],
    /// Datagrams and their bytes sent, then received.
    pub counts: [u64; 4],
}

/// The statistics in a `struct session`.
pub fn activity(value: &Session) -> Activity {
    let field = |number: usize| u64_at(value, TX_AT + 8 * number);
    Activity { times: [field(0), field(3), field(4)], counts: [field(1), field(2), field(5), field(6)] }
}

/// `struct address`.
pub fn address(of: SocketAddr) -> Address {
    let mut value = [0; shared::ADDRESS];
    let ip = of.ip().to_canonical();
    write_ip(&mut value[..16], ip);
    value[16..18].copy_from_slice(&of.port().to_be_bytes());
    value[18] = if ip.is_ipv4() { 4 } else { 6 };
    value
}

fn write_ip(to: &mut [u8], ip: IpAddr) {
    match ip {
        IpAddr::V4(it) => to[..4].copy_from_slice(&it.octets()),
        IpAddr::V6(it) => to[..16].copy_from_slice(&it.octets()),
    }
}

fn read_address(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([bytes[16], bytes[17]]);
    let ip = match bytes[18] {
        4 => IpAddr::from(<[u8; 4]>::try_from(&bytes[..4]).ok()?),
        6 => IpAddr::from(<[u8; 16]>::try_from(&bytes[..16]).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// What a `struct peer` says.
pub struct PeerValue<'a> {
    /// MAC of its omni0; None: not proven.
    pub mac: Option<[u8; 6]>,
    /// Largest outer packet of the path.
    pub mtu: u16,
    /// The session to send on.
    pub slot: u32,
    /// Where its datagrams go, and whether a round trip proved it.
    pub endpoint: Option<(SocketAddr, bool)>,
    /// By which interface, and from which of our addresses.
    pub way: Option<(u32, IpAddr)>,
    /// Addresses that it may use, link-local included.
    pub ipv4: &'a [[u8; 4]],
    /// See `ipv4`.
    pub ipv6: &'a [[u8; 16]],
    /// When the newest frame was handed to the local stack, in boot-time nanoseconds.
    pub delivered_at: u64,
}

const DELIVERED_AT: usize = shared::PEER - 8;

/// `struct peer`.
pub fn peer(of: &PeerValue<'_>) -> Peer {
    let mut value = [0; shared::PEER];
    let mut source = [0; 16];
    if let Some((_, ip)) = of.way {
        write_ip(&mut source, ip);
    }
    let endpoint = of.endpoint.map_or([0; shared::ADDRESS], |(it, _)| address(it));
    let mut it = Writer { to: &mut value, at: 0 };
    it.bytes(&of.mac.unwrap_or_default()).u16(of.mtu).u32(of.slot).u32(of.way.map_or(0, |it| it.0));
    it.bytes(&endpoint).bytes(&source).u32(u32::from(of.endpoint.is_some_and(|it| it.1)));
    it.bytes(of.ipv4.as_flattened());
    it.at += (MAX_ADDRESSES - of.ipv4.len()) * 4;
    it.bytes(of.ipv6.as_flattened());
    it.at += (MAX_ADDRESSES - of.ipv6.len()) * 16;
    it.u32(of.ipv4.len() as u32).u32(of.ipv6.len() as u32).u64(of.delivered_at);
    assert_eq!(it.at, shared::PEER);
    value
}

/// When a frame of the peer was delivered last; 0 = never.
pub fn delivered_at(value: &Peer) -> u64 {
    u64_at(value, DELIVERED_AT)
}

/// What the kernel tells, by peer number.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// The first authenticated datagram of lane 8 arrived.
    Confirmed(u32, u32, SocketAddr),
    /// The newest datagram came from elsewhere than the endpoint; the last number is its size.
    Source(u32, u32, SocketAddr, u32),
    /// A rekey is due.
    Exhausted(u32, u32),
}

/// A `struct event`.
pub fn event(bytes: &[u8]) -> Option<Told> {
    if bytes.len() != shared::EVENT {
        return None;
    }
    let (number, index, size) = (u32_at(bytes, 4), u32_at(bytes, 8), u32_at(bytes, 12));
    match u32_at(bytes, 0) {
        1 => Some(Told::Confirmed(number, index, read_address(&bytes[16..36])?)),
        2 => Some(Told::Source(number, index, read_address(&bytes[16..36])?, size)),
        3 => Some(Told::Exhausted(number, index)),
        _ => None,
    }
}
