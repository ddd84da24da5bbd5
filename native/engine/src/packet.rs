//! Where the headers of an Ethernet frame are. Nothing here trusts a length that the frame states about itself.

use crate::ip::{self, Ip, Packet};

/// Offset of the checksum field in a TCP header.
pub const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum field in a UDP header.
pub const UDP_CHECKSUM: usize = 6;

/// The transport protocols whose checksums and segments are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
}

impl Transport {
    /// The IP protocol number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Offset of the checksum field inside the transport header.
    #[must_use]
    pub fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => TCP_CHECKSUM,
            Self::Udp => UDP_CHECKSUM,
        }
    }
}

/// Byte offsets in one whole (unfragmented) TCP or UDP packet over IP in an Ethernet frame, all inside the frame:
/// `l3 < l4 < payload <= end <= frame.len()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// IP version.
    pub ip: Ip,
    /// Transport protocol.
    pub transport: Transport,
    /// Start of the IP header.
    pub l3: usize,
    /// Start of the transport header.
    pub l4: usize,
    /// Start of the transport payload.
    pub payload: usize,
    /// End of the IP packet; Ethernet padding may follow.
    pub end: usize,
}

/// The layout of a frame, or None when it is not a whole, well-formed TCP or UDP packet over IP.
#[must_use]
pub fn parse(frame: &[u8]) -> Option<Layout> {
    let (ethertype, start) = ip::network_header(frame).ok()?;
    if ethertype != ip::IPV4 && ethertype != ip::IPV6 {
        return None;
    }
    let packet = ip::packet(frame, start).ok()?;
    let named = if packet.ip == Ip::V4 { ip::IPV4 } else { ip::IPV6 };
    if packet.fragment || ethertype != named { None } else { transport(frame, &packet) }
}

fn transport(frame: &[u8], packet: &Packet) -> Option<Layout> {
    let Packet { ip, start, upper, end, .. } = *packet;
    let (transport, smallest) = match packet.protocol {
        6 => (Transport::Tcp, 20),
        17 => (Transport::Udp, 8),
        _ => return None,
    };
    if upper + smallest > end {
        return None;
    }
    let header = if transport == Transport::Tcp { usize::from(frame[upper + 12] >> 4) * 4 } else { smallest };
    let payload = upper + header;
    if header < smallest || payload > end {
        return None;
    }
    Some(Layout { ip, transport, l3: start, l4: upper, payload, end })
}

#[cfg(test)]
pub(crate) mod samples {
    //! Well-formed frames for the tests of this crate.

    use crate::checksum;

    /// What a test varies in a TCP frame.
    #[derive(Clone, Debug)]
    pub struct Tcp {
        pub v6: bool,
        pub tags: usize,
        pub id: u16,
        pub seq: u32,
        pub flags: u8,
        pub options: Vec<u8>,
        pub payload: Vec<u8>,
    }

    impl Default for Tcp {
        fn default() -> Self {
            Self { v6: false, tags: 0, id: 7, seq: 1000, flags: 0x10, options: vec![], payload: vec![0x5a; 100] }
        }
    }

    /// The frame with correct checksums.
    pub fn tcp(it: &Tcp) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in 0..it.tags {
            frame.extend([0x81, 0x00, 0x00, tag as u8 + 1]);
        }
        let header = 20 + it.options.len();
        let length = header + it.payload.len();
        if it.v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((length as u16).to_be_bytes());
            frame.extend([6, 64]);
            frame.extend([0xfd; 32]);
        } else {
            frame.extend([0x08, 0x00, 0x45, 0x00]);
            frame.extend((20 + length as u16).to_be_bytes());
            frame.extend(it.id.to_be_bytes());
            frame.extend([0x40, 0, 64, 6, 0, 0, 10, 200, 0, 1, 10, 200, 0, 2]);
        }
        let l4 = frame.len();
        frame.extend([0x30, 0x39, 0x14, 0x51]);
        frame.extend(it.seq.to_be_bytes());
        frame.extend([0, 0, 0, 9, (header as u8 / 4) << 4, it.flags, 0x20, 0x00, 0, 0, 0, 0]);
        frame.extend(&it.options);
        frame.extend(&it.payload);
        let layout = super::parse(&frame).expect("a well-formed frame");
        assert_eq!(layout.l4, l4);
        checksum::finish_ip(&mut frame, &layout);
        checksum::finish_transport(&mut frame, &layout);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn offsets_of_every_header_combination() {
        for (v6, tags) in [(false, 0), (false, 2), (true, 0), (true, 1)] {
            let frame = samples::tcp(&samples::Tcp { v6, tags, options: vec![1; 12], ..Default::default() });
            let layout = parse(&frame).expect("parses");
            assert_eq!(layout.l3, 14 + 4 * tags);
            assert_eq!(layout.l4, layout.l3 + if v6 { 40 } else { 20 });
            assert_eq!((layout.payload, layout.end), (layout.l4 + 32, frame.len()));
        }
    }

    #[test]
    fn a_third_tag_a_fragment_and_a_truncated_packet_are_not_understood() {
        assert_eq!(parse(&samples::tcp(&samples::Tcp { tags: 2, ..Default::default() })[..40]), None);
        let mut fragment = samples::tcp(&samples::Tcp::default());
        fragment[14 + 6] = 0x20;
        assert_eq!(parse(&fragment), None);
        let mut three = vec![0; 12];
        three.extend([0x81, 0, 0, 1].repeat(3));
        three.extend(&samples::tcp(&samples::Tcp::default())[12..]);
        assert_eq!(parse(&three), None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_offsets_inside_the_frame(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(it) = parse(&frame) {
                prop_assert!(it.l3 < it.l4 && it.l4 < it.payload && it.payload <= it.end && it.end <= frame.len());
            }
        }

        #[test]
        fn any_damage_gives_offsets_inside_the_frame(at in 12usize..60, value: u8, v6: bool) {
            let mut frame = samples::tcp(&samples::Tcp { v6, ..Default::default() });
            frame[at] = value;
            if let Some(it) = parse(&frame) {
                prop_assert!(it.l3 < it.l4 && it.l4 < it.payload && it.payload <= it.end && it.end <= frame.len());
            }
        }
    }
}
