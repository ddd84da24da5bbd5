//! `struct virtio_net_hdr`, which a TAP with IFF_VNET_HDR puts before every frame (virtio 1.2, section 5.1.6; native
//! byte order, which is little-endian wherever this runs).

/// Bytes of the header as this engine sets it on its TAP.
pub const VNET_HEADER: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
pub const NEEDS_CSUM: u8 = 1;

/// What a super-frame is to be cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gso {
    /// A single frame.
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams of one flow.
    Udp,
}

/// The header's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vnet {
    /// The checksum field holds the pseudo-header sum only.
    pub needs_csum: bool,
    /// Kind of super-frame.
    pub gso: Gso,
    /// Bytes of headers before the first segment's payload.
    pub header_len: u16,
    /// Payload bytes of a segment.
    pub gso_size: u16,
    /// Where the checksum begins.
    pub csum_start: u16,
    /// Where, from `csum_start`, the checksum goes.
    pub csum_offset: u16,
}

impl Vnet {
    /// A frame that needs nothing.
    pub const PLAIN: Self =
        Self { needs_csum: false, gso: Gso::None, header_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };

    /// The header in front of what a TAP gave; None for an unknown kind of super-frame.
    #[must_use]
    pub fn decode(data: &[u8; VNET_HEADER]) -> Option<Self> {
        let field = |at: usize| u16::from_le_bytes([data[at], data[at + 1]]);
        let gso = match data[1] & !0x80 {
            0 => Gso::None,
            1 => Gso::TcpV4,
            4 => Gso::TcpV6,
            5 => Gso::Udp,
            _ => return None,
        };
        Some(Self {
            needs_csum: data[0] & NEEDS_CSUM != 0,
            gso,
            header_len: field(2),
            gso_size: field(4),
            csum_start: field(6),
            csum_offset: field(8),
        })
    }

    /// The bytes to put before a frame.
    #[must_use]
    pub fn encode(&self) -> [u8; VNET_HEADER] {
        let mut out = [0; VNET_HEADER];
        out[0] = if self.needs_csum { NEEDS_CSUM } else { 0 };
        out[1] = match self.gso {
            Gso::None => 0,
            Gso::TcpV4 => 1,
            Gso::TcpV6 => 4,
            Gso::Udp => 5,
        };
        for (at, value) in [(2, self.header_len), (4, self.gso_size), (6, self.csum_start), (8, self.csum_offset)] {
            out[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for gso in [Gso::None, Gso::TcpV4, Gso::TcpV6, Gso::Udp] {
            let it = Vnet { needs_csum: true, gso, header_len: 54, gso_size: 1326, csum_start: 34, csum_offset: 16 };
            assert_eq!(Vnet::decode(&it.encode()), Some(it));
        }
        assert_eq!(Vnet::decode(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
