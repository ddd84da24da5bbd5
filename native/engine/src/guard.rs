//! The source guard: what a peer may say on our segment. The same verdicts as `core/guard.py`, which holds the rules.

use std::collections::HashSet;

use crate::ip::{self, Ip, Malformed, Packet};

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ICMP_REDIRECT: u8 = 5;
const NEIGHBOUR_SIZE: usize = 24;
const ROUTER_SOLICITATION_SIZE: usize = 8;
const ARP_SIZE: usize = 28;

/// A MAC address.
pub type Mac = [u8; 6];

/// Why a frame was refused: a drop counter's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Cannot be parsed as far as the rules need: `bad_payload`.
    Malformed,
    /// Speaks for somebody else.
    SourceGuard,
    /// Unicast that is not for us.
    DestinationGuard,
    /// Nobody is a router here.
    RouterAdvertisement,
    /// Nor does anybody redirect.
    Redirect,
}

impl Refusal {
    /// The drop counter's name.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "bad_payload",
            Self::SourceGuard => "source_guard",
            Self::DestinationGuard => "destination_guard",
            Self::RouterAdvertisement => "router_advertisement",
            Self::Redirect => "redirect",
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// A neighbour solicitation or advertisement, as far as anybody here looks at it.
pub struct Neighbour<'a> {
    /// 135 or 136.
    pub kind: u8,
    /// The IPv6 source, 16 bytes.
    pub source: &'a [u8],
    /// The address that is asked for or spoken of, 16 bytes.
    pub target: &'a [u8],
    options: &'a [u8],
}

/// The neighbour message in a frame.
pub fn neighbour(frame: &[u8]) -> Result<Neighbour<'_>, Malformed> {
    let (ethertype, start) = ip::network_header(frame)?;
    if ethertype != ip::IPV6 {
        return Err(Malformed);
    }
    let packet = ip::packet(frame, start)?;
    let at = packet.upper;
    let whole =
        packet.ip == Ip::V6 && packet.protocol == ICMPV6 && !packet.fragment && at + NEIGHBOUR_SIZE <= packet.end;
    if !whole || !matches!(frame[at], NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT) {
        return Err(Malformed);
    }
    let options = &frame[at + NEIGHBOUR_SIZE..packet.end];
    link_layer_options(options, |_| ())?;
    Ok(Neighbour { kind: frame[at], source: packet.source(frame), target: &frame[at + 8..at + 24], options })
}

/// An ARP packet for IPv4 over Ethernet: the 28 bytes.
pub fn arp(frame: &[u8]) -> Result<&[u8], Malformed> {
    let (ethertype, start) = ip::network_header(frame)?;
    let body = frame.get(start..start + ARP_SIZE).ok_or(Malformed)?;
    if ethertype != ip::ARP || body[..6] != [0, 1, 8, 0, 6, 4] { Err(Malformed) } else { Ok(body) }
}

/// The policy for one member's frames.
pub struct Guard {
    own_mac: Mac,
    mac: Mac,
    ipv4: HashSet<[u8; 4]>,
    ipv6: HashSet<[u8; 16]>,
}

impl Guard {
    /// `own_mac`: of our omni0; the others are the member's. Its link-local address need not be listed.
    #[must_use]
    pub fn new(own_mac: Mac, mac: Mac, ipv4: &[[u8; 4]], ipv6: &[[u8; 16]]) -> Self {
        let mut ipv6: HashSet<_> = ipv6.iter().copied().collect();
        ipv6.insert(eui64_link_local(mac));
        Self { own_mac, mac, ipv4: ipv4.iter().copied().collect(), ipv6 }
    }

    /// The member's MAC.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Whether the member may send this frame to us.
    pub fn check(&self, frame: &[u8]) -> Result<(), Refusal> {
        let (ethertype, start) = ip::network_header(frame)?;
        if frame[6..12] != self.mac {
            return Err(Refusal::SourceGuard);
        }
        if frame[0] & 1 == 0 && frame[..6] != self.own_mac {
            return Err(Refusal::DestinationGuard);
        }
        match ethertype {
            ip::IPV4 => self.check_ipv4(frame, &version(frame, start, Ip::V4)?),
            ip::IPV6 => self.check_ipv6(frame, &version(frame, start, Ip::V6)?),
            ip::ARP => self.check_arp(frame),
            _ => Ok(()),
        }
    }

    fn check_ipv4(&self, frame: &[u8], packet: &Packet) -> Result<(), Refusal> {
        if !self.may_use4(packet.source(frame)) {
            return Err(Refusal::SourceGuard);
        }
        if packet.protocol == ICMP { refuse_icmp_redirect(frame, packet) } else { Ok(()) }
    }

    fn check_arp(&self, frame: &[u8]) -> Result<(), Refusal> {
        let arp = arp(frame)?;
        if arp[8..14] != self.mac || !self.may_use4(&arp[14..18]) { Err(Refusal::SourceGuard) } else { Ok(()) }
    }

    fn check_ipv6(&self, frame: &[u8], packet: &Packet) -> Result<(), Refusal> {
        let source = packet.source(frame);
        if source != [0; 16] && !self.owns6(source) {
            return Err(Refusal::SourceGuard);
        }
        if packet.protocol != ICMPV6 || !packet.first {
            return Ok(());
        }
        match icmp_type(frame, packet)? {
            ROUTER_ADVERTISEMENT => Err(Refusal::RouterAdvertisement),
            REDIRECT => Err(Refusal::Redirect),
            ROUTER_SOLICITATION..=REDIRECT if packet.fragment => Err(Refusal::SourceGuard), // RFC 6980
            ROUTER_SOLICITATION => {
                let options = packet.upper + ROUTER_SOLICITATION_SIZE;
                self.check_link_addresses(frame.get(options..packet.end).unwrap_or_default())
            }
            NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => self.check_neighbour(frame),
            _ => Ok(()),
        }
    }

    fn check_neighbour(&self, frame: &[u8]) -> Result<(), Refusal> {
        let message = neighbour(frame)?;
        self.check_link_addresses(message.options)?;
        // A solicitation from the unspecified address would make another target's owner give that address up
        // (RFC 4862, section 5.4.3).
        let claims = message.kind == NEIGHBOUR_ADVERTISEMENT || message.source == [0; 16];
        if claims && !self.owns6(message.target) { Err(Refusal::SourceGuard) } else { Ok(()) }
    }

    fn check_link_addresses(&self, options: &[u8]) -> Result<(), Refusal> {
        let mut own = true;
        link_layer_options(options, |value| own &= value == self.mac)?;
        if own { Ok(()) } else { Err(Refusal::SourceGuard) }
    }

    fn may_use4(&self, address: &[u8]) -> bool {
        address == [0; 4] || <[u8; 4]>::try_from(address).is_ok_and(|it| self.ipv4.contains(&it))
    }

    fn owns6(&self, address: &[u8]) -> bool {
        <[u8; 16]>::try_from(address).is_ok_and(|it| self.ipv6.contains(&it))
    }
}

/// The raw IP packet of a stock peer, if it may enter our segment at all: neighbour discovery and redirects speak about a
/// link that such a peer is not on. Its source address is the caller's to check.
pub fn check_routed(data: &[u8]) -> Result<Packet, Refusal> {
    let packet = ip::packet(data, 0)?;
    match (packet.ip, packet.protocol) {
        (Ip::V4, ICMP) => refuse_icmp_redirect(data, &packet)?,
        (Ip::V6, ICMPV6) if packet.first => match icmp_type(data, &packet)? {
            ROUTER_ADVERTISEMENT => return Err(Refusal::RouterAdvertisement),
            REDIRECT => return Err(Refusal::Redirect),
            ROUTER_SOLICITATION..=REDIRECT => return Err(Refusal::SourceGuard),
            _ => (),
        },
        _ => (),
    }
    Ok(packet)
}

/// The link-local address that an interface forms from its MAC (RFC 4291, appendix A).
#[must_use]
pub fn eui64_link_local(mac: Mac) -> [u8; 16] {
    let [a, b, c, d, e, f] = mac;
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0x02, b, c, 0xff, 0xfe, d, e, f]
}

fn version(frame: &[u8], start: usize, wanted: Ip) -> Result<Packet, Malformed> {
    let packet = ip::packet(frame, start)?;
    if packet.ip == wanted { Ok(packet) } else { Err(Malformed) }
}

fn icmp_type(data: &[u8], packet: &Packet) -> Result<u8, Malformed> {
    if packet.upper < packet.end { Ok(data[packet.upper]) } else { Err(Malformed) }
}

fn refuse_icmp_redirect(data: &[u8], packet: &Packet) -> Result<(), Refusal> {
    if packet.first && icmp_type(data, packet)? == ICMP_REDIRECT { Err(Refusal::Redirect) } else { Ok(()) }
}

/// Give every link-layer address option to `visit`. Malformed: an option cut short or of length 0 (RFC 4861, section 4.6).
fn link_layer_options(mut options: &[u8], mut visit: impl FnMut(&[u8])) -> Result<(), Malformed> {
    while !options.is_empty() {
        let size = usize::from(*options.get(1).ok_or(Malformed)?) * 8;
        if size == 0 || size > options.len() {
            return Err(Malformed);
        }
        if matches!(options[0], 1 | 2) {
            visit(&options[2..size]);
        }
        options = &options[size..];
    }
    Ok(())
}
