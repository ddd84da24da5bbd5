//! Ethernet and IP headers as far as policy needs them. Every length is checked against the frame: a hostile member wrote it.

/// Bytes of an Ethernet header without VLAN tags.
pub const ETHERNET_HEADER: usize = 14;
/// Bytes of an IPv6 header without extension headers.
pub const IPV6_HEADER: usize = 40;
/// ARP's ethertype.
pub const ARP: u16 = 0x0806;
/// IPv4's ethertype.
pub const IPV4: u16 = 0x0800;
/// IPv6's ethertype.
pub const IPV6: u16 = 0x86dd;

const VLAN_TAG: usize = 4;
const MAX_VLAN_TAGS: usize = 2;
const MAX_EXTENSION_HEADERS: usize = 8;
const FRAGMENT_HEADER: u8 = 44;

/// Bytes that are not what they claim to be; the drop is counted as `bad_payload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Version of the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

/// Where the parts of an IP packet are, as offsets into the bytes it was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// IP version.
    pub ip: Ip,
    /// Start of the IP header.
    pub start: usize,
    /// Upper-layer protocol, after the extension headers (of a later fragment: the first header in it).
    pub protocol: u8,
    /// Start of the upper layer.
    pub upper: usize,
    /// End by the packet's own length field; padding may follow.
    pub end: usize,
    /// A piece of a larger packet.
    pub fragment: bool,
    /// The piece at offset 0, or no fragment: only then does an upper-layer header stand at `upper`.
    pub first: bool,
}

impl Packet {
    /// The source address: 4 or 16 bytes.
    #[must_use]
    pub fn source<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        match self.ip {
            Ip::V4 => &data[self.start + 12..self.start + 16],
            Ip::V6 => &data[self.start + 8..self.start + 24],
        }
    }

    /// The destination address: 4 or 16 bytes.
    #[must_use]
    pub fn destination<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        match self.ip {
            Ip::V4 => &data[self.start + 16..self.start + 20],
            Ip::V6 => &data[self.start + 24..self.start + 40],
        }
    }
}

/// Big-endian u16 at an offset.
pub fn be16(data: &[u8], at: usize) -> Result<u16, Malformed> {
    let bytes = data.get(at..at + 2).and_then(|it| it.try_into().ok()).ok_or(Malformed)?;
    Ok(u16::from_be_bytes(bytes))
}

/// Ethertype and offset of what follows the Ethernet header and up to two VLAN tags. A third tag is malformed: what hides
/// behind it cannot be checked.
pub fn network_header(frame: &[u8]) -> Result<(u16, usize), Malformed> {
    let mut at = ETHERNET_HEADER;
    for _ in 0..=MAX_VLAN_TAGS {
        match be16(frame, at - 2)? {
            0x8100 | 0x88a8 => at += VLAN_TAG,
            ethertype => return Ok((ethertype, at)),
        }
    }
    Err(Malformed)
}

/// Parse the IPv4 or IPv6 packet at an offset. An IPv6 header chain of more than 8 headers is malformed, and so is one that
/// is not complete in the first fragment (RFC 7112).
pub fn packet(data: &[u8], start: usize) -> Result<Packet, Malformed> {
    match data.get(start).ok_or(Malformed)? >> 4 {
        4 => ipv4(data, start),
        6 => ipv6(data, start),
        _ => Err(Malformed),
    }
}

fn ipv4(data: &[u8], start: usize) -> Result<Packet, Malformed> {
    let rest = data.len() - start;
    if rest < 20 {
        return Err(Malformed);
    }
    let header = usize::from(data[start] & 0x0f) * 4;
    let total = usize::from(be16(data, start + 2)?);
    if header < 20 || total < header || rest < total {
        return Err(Malformed);
    }
    let fragment = be16(data, start + 6)?;
    Ok(Packet {
        ip: Ip::V4,
        start,
        protocol: data[start + 9],
        upper: start + header,
        end: start + total,
        fragment: fragment & 0x3fff != 0,
        first: fragment & 0x1fff == 0,
    })
}

fn ipv6(data: &[u8], start: usize) -> Result<Packet, Malformed> {
    let mut upper = start + IPV6_HEADER;
    if data.len() < upper {
        return Err(Malformed);
    }
    let end = upper + usize::from(be16(data, start + 4)?);
    if end > data.len() {
        return Err(Malformed);
    }
    let mut protocol = data[start + 6];
    let (mut fragment, mut first) = (false, true);
    for _ in 0..MAX_EXTENSION_HEADERS {
        let size = extension(data, protocol, upper, end)?;
        if size > 0 {
            if protocol == FRAGMENT_HEADER {
                let field = be16(data, upper + 2)?;
                fragment |= field & 0xfff9 != 0;
                first &= field & 0xfff8 == 0;
            }
            protocol = data[upper];
            upper += size;
        }
        if size == 0 || !first {
            return Ok(Packet { ip: Ip::V6, start, protocol, upper, end, fragment, first });
        }
    }
    Err(Malformed)
}

/// Bytes of the extension header at `at`; 0 for an upper layer.
fn extension(data: &[u8], protocol: u8, at: usize, end: usize) -> Result<usize, Malformed> {
    let size = match protocol {
        0 | 43 | 44 | 51 | 60 if at + 8 > end => return Err(Malformed),
        FRAGMENT_HEADER => 8,
        51 => (usize::from(data[at + 1]) + 2) * 4,
        0 | 43 | 60 => (usize::from(data[at + 1]) + 1) * 8,
        _ => 0,
    };
    if at + size > end && size > 0 { Err(Malformed) } else { Ok(size) }
}
