//! A super-frame from the local stack -> frames of one segment each.
//!
//! The kernel hands a TAP with TSO and USO frames of up to 64 KiB. Every segment repeats the headers; what differs is the
//! IP length and identification, the TCP sequence number and flags, the UDP length, and the checksums. The transport
//! checksum of a segment is only begun (pseudo-header sum): the payload kind ETHERNET_PARTIAL says so to the receiver.

use crate::checksum;
use crate::ip::{IPV6_HEADER, Ip};
use crate::packet::{Layout, Transport, parse};
use crate::vnet::{Gso, Vnet};

const TCP_SEQUENCE: usize = 4;
const TCP_FLAGS: usize = 13;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// What is to be done with a frame that a TAP gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// One frame, as it is.
    Whole,
    /// One frame whose transport checksum holds the pseudo-header sum only.
    Partial,
    /// One frame whose checksum must be completed over `start..`, the result going to `start + offset`.
    Complete {
        /// Where the checksum begins.
        start: usize,
        /// Offset of the checksum field from there.
        offset: usize,
    },
    /// A super-frame.
    Split(Split),
    /// The header and the frame contradict one another.
    Nonsense,
}

/// How a super-frame falls into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    layout: Layout,
    size: usize,
}

/// Decide what to do with a frame from the TAP.
#[must_use]
pub fn plan(vnet: &Vnet, frame: &[u8]) -> Plan {
    if vnet.gso != Gso::None {
        return plan_split(vnet, frame).map_or(Plan::Nonsense, Plan::Split);
    }
    if !vnet.needs_csum {
        return Plan::Whole;
    }
    let (start, offset) = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
    if let Some(layout) = parse(frame)
        && layout.l4 == start
        && layout.transport.checksum_offset() == offset
        && layout.end == frame.len()
    {
        return Plan::Partial;
    }
    if start + offset + 2 <= frame.len() { Plan::Complete { start, offset } } else { Plan::Nonsense }
}

/// Complete a checksum in place as `Plan::Complete` asks.
pub fn complete(frame: &mut [u8], start: usize, offset: usize) {
    // A kernel writes 0xffff for 0, too: in UDP, 0 says that there is no checksum.
    let check = match !checksum::fold(checksum::sum(&frame[start..])) {
        0 => 0xffff,
        other => other,
    };
    frame[start + offset..start + offset + 2].copy_from_slice(&check.to_be_bytes());
}

impl Split {
    /// How many segments.
    #[must_use]
    pub fn count(&self) -> usize {
        (self.layout.end - self.layout.payload).div_ceil(self.size)
    }

    /// Bytes of every segment but the last.
    #[must_use]
    pub fn full_len(&self) -> usize {
        self.layout.payload + self.size
    }

    /// Bytes of segment `index`.
    #[must_use]
    pub fn len_of(&self, index: usize) -> usize {
        self.layout.payload + self.payload_of(index).len()
    }

    /// Write segment `index` of `frame` to the start of `out`, which must hold `len_of(index)` bytes; gives that length.
    pub fn write(&self, frame: &[u8], index: usize, out: &mut [u8]) -> usize {
        let headers = self.layout.payload;
        let payload = self.payload_of(index);
        let len = headers + payload.len();
        let out = &mut out[..len];
        out[..headers].copy_from_slice(&frame[..headers]);
        out[headers..].copy_from_slice(&frame[payload]);
        self.patch_ip(out, index);
        self.patch_transport(out, index);
        checksum::begin_transport(out, &Layout { end: len, ..self.layout });
        len
    }

    fn payload_of(&self, index: usize) -> std::ops::Range<usize> {
        let start = self.layout.payload + index * self.size;
        start..(start + self.size).min(self.layout.end)
    }

    fn patch_ip(&self, out: &mut [u8], index: usize) {
        let Layout { ip, l3, l4, .. } = self.layout;
        match ip {
            Ip::V4 => {
                let total = (out.len() - l3) as u16;
                out[l3 + 2..l3 + 4].copy_from_slice(&total.to_be_bytes());
                let id = u16::from_be_bytes([out[l3 + 4], out[l3 + 5]]).wrapping_add(index as u16);
                out[l3 + 4..l3 + 6].copy_from_slice(&id.to_be_bytes());
                out[l3 + 10..l3 + 12].fill(0);
                let check = !checksum::fold(checksum::sum(&out[l3..l4]));
                out[l3 + 10..l3 + 12].copy_from_slice(&check.to_be_bytes());
            }
            Ip::V6 => {
                let length = (out.len() - l3 - IPV6_HEADER) as u16;
                out[l3 + 4..l3 + 6].copy_from_slice(&length.to_be_bytes());
            }
        }
    }

    fn patch_transport(&self, out: &mut [u8], index: usize) {
        let l4 = self.layout.l4;
        match self.layout.transport {
            Transport::Tcp => {
                let at = l4 + TCP_SEQUENCE;
                let first = u32::from_be_bytes([out[at], out[at + 1], out[at + 2], out[at + 3]]);
                let sequence = first.wrapping_add((index * self.size) as u32);
                out[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
                if index + 1 < self.count() {
                    out[l4 + TCP_FLAGS] &= !(FIN | PSH);
                }
                if index > 0 {
                    out[l4 + TCP_FLAGS] &= !CWR;
                }
            }
            Transport::Udp => {
                let length = (out.len() - l4) as u16;
                out[l4 + 4..l4 + 6].copy_from_slice(&length.to_be_bytes());
            }
        }
    }
}

fn plan_split(vnet: &Vnet, frame: &[u8]) -> Option<Split> {
    let layout = parse(frame)?;
    let agrees = match vnet.gso {
        Gso::None => false,
        Gso::TcpV4 => (layout.ip, layout.transport) == (Ip::V4, Transport::Tcp),
        Gso::TcpV6 => (layout.ip, layout.transport) == (Ip::V6, Transport::Tcp),
        Gso::Udp => layout.transport == Transport::Udp,
    };
    let size = usize::from(vnet.gso_size);
    (agrees && size > 0 && layout.payload < layout.end).then_some(Split { layout, size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::samples;
    use proptest::prelude::*;

    fn vnet(v6: bool, size: u16) -> Vnet {
        Vnet { needs_csum: true, gso: if v6 { Gso::TcpV6 } else { Gso::TcpV4 }, gso_size: size, ..Vnet::PLAIN }
    }

    fn segments(frame: &[u8], vnet: &Vnet) -> Vec<Vec<u8>> {
        let Plan::Split(split) = plan(vnet, frame) else { panic!("not split: {:?}", plan(vnet, frame)) };
        (0..split.count())
            .map(|index| {
                let mut out = vec![0; split.len_of(index)];
                assert_eq!(split.write(frame, index, &mut out), out.len());
                out
            })
            .collect()
    }

    #[test]
    fn flags_stand_on_the_segment_they_belong_to() {
        let frame = samples::tcp(&samples::Tcp { flags: 0x99, payload: vec![1; 250], ..Default::default() });
        let flags: Vec<u8> = segments(&frame, &vnet(false, 100)).iter().map(|s| s[14 + 20 + 13]).collect();
        assert_eq!(flags, [0x90, 0x10, 0x19]);
    }

    #[test]
    fn what_contradicts_itself_is_nonsense() {
        let frame = samples::tcp(&samples::Tcp::default());
        assert_eq!(plan(&vnet(true, 100), &frame), Plan::Nonsense);
        assert_eq!(plan(&vnet(false, 0), &frame), Plan::Nonsense);
        assert_eq!(plan(&vnet(false, 100), &frame[..30]), Plan::Nonsense);
        let beyond = Vnet { needs_csum: true, csum_start: 150, csum_offset: 16, ..Vnet::PLAIN };
        assert_eq!(plan(&beyond, &frame), Plan::Nonsense);
    }

    #[test]
    fn a_checksum_of_an_unknown_protocol_is_completed() {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        frame[20] = 0x12;
        assert_eq!(
            plan(&Vnet { needs_csum: true, csum_start: 20, csum_offset: 2, ..Vnet::PLAIN }, &frame),
            Plan::Complete { start: 20, offset: 2 }
        );
        complete(&mut frame, 20, 2);
        assert_eq!(checksum::fold(checksum::sum(&frame[20..])), 0xffff);
    }

    proptest! {
        #[test]
        fn the_segments_are_the_stream(
            v6: bool, tags in 0usize..3, size in 1u16..1400, seq: u32, id: u16,
            payload in proptest::collection::vec(any::<u8>(), 1..6000),
        ) {
            let frame = samples::tcp(&samples::Tcp { v6, tags, seq, id, payload: payload.clone(), ..Default::default() });
            let mut stream: Vec<u8> = vec![];
            for (index, mut segment) in segments(&frame, &vnet(v6, size)).into_iter().enumerate() {
                let layout = parse(&segment).expect("a segment parses");
                prop_assert_eq!(layout.end, segment.len());
                let at = layout.l4 + TCP_SEQUENCE;
                let here = u32::from_be_bytes(segment[at..at + 4].try_into().expect("four bytes"));
                prop_assert_eq!(here, seq.wrapping_add(stream.len() as u32));
                if !v6 {
                    let ip = &segment[layout.l3..layout.l4];
                    prop_assert_eq!(checksum::fold(checksum::sum(ip)), 0xffff);
                    prop_assert_eq!(u16::from_be_bytes([ip[4], ip[5]]), id.wrapping_add(index as u16));
                }
                // Completing what was begun gives a valid checksum: the field holds the pseudo-header sum.
                checksum::complete_transport(&mut segment, &layout);
                prop_assert!(checksum::transport_valid(&segment, &layout));
                stream.extend(&segment[layout.payload..]);
            }
            prop_assert_eq!(stream, payload);
        }
    }
}
