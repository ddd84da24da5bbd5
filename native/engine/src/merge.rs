//! Opened frames -> super-frames for the local stack (generic receive offload).
//!
//! TCP segments of one flow that follow one another become one frame with one header, written to the TAP at once: the
//! stack then works once per super-frame, not once per segment. Frames are named by where they lie (`Piece`), not copied.
//! The conditions are those of Linux's own GRO (net/ipv4/tcp_offload.c, tcp_gro_receive): equal headers but for length,
//! identification, sequence, checksum, FIN and PSH. Order inside a flow is kept: what cannot join its flow's super-frame
//! first pushes that out.

use crate::checksum;
use crate::ip::{IPV6_HEADER, Ip};
use crate::packet::{Layout, Transport, parse};
use crate::vnet::{Gso, Vnet};

/// Flows merged side by side; beyond them the oldest is pushed out.
const MAX_FLOWS: usize = 8;
/// Largest IP packet a super-frame may make.
const MAX_PACKET: usize = 65_535;
/// Longest headers that are merged: Ethernet, two tags, IPv6, TCP with all options.
const MAX_HEADERS: usize = 14 + 8 + 40 + 60;

/// Segments of one super-frame.
pub const MAX_PIECES: usize = 126;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const URG: u8 = 0x20;
const CWR: u8 = 0x80;
const DONT_FRAGMENT: u8 = 0x40;

/// A stretch of a receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which buffer.
    pub buffer: usize,
    /// First byte.
    pub start: usize,
    /// Bytes.
    pub len: usize,
}

/// One write to the TAP: virtio header, then `headers`, then the pieces in order.
#[derive(Clone, Debug)]
pub struct Write {
    /// The virtio header's fields, all derived here.
    pub vnet: Vnet,
    /// Bytes that no buffer holds: the patched headers of a super-frame; empty for a frame that goes as it came.
    pub headers: Vec<u8>,
    /// The rest of the frame.
    pub pieces: Vec<Piece>,
}

/// Merges frames until told to flush. `write` receives what is ready, in an order that keeps every flow's.
#[derive(Default)]
pub struct Merger {
    flows: Vec<Flow>,
    spare: Vec<Write>,
}

struct Flow {
    layout: Layout,
    first_payload: usize,
    total_payload: usize,
    next_sequence: u32,
    next_id: u16,
    write: Write,
}

/// What a frame asks of its flow.
enum Verdict {
    /// Takes part in merging.
    Mergeable(Layout),
    /// Goes alone, after its flow's super-frame.
    Alone(Option<Layout>),
}

impl Merger {
    /// Take the frame at `piece`, whose bytes are `frame`. `partial`: its transport checksum is only begun. Gives false when
    /// it is partial but no TCP or UDP packet, which a peer must not send.
    pub fn push(&mut self, piece: Piece, frame: &[u8], partial: bool, ready: &mut Vec<Write>) -> bool {
        match classify(frame, partial) {
            // Only an exact packet may be partial.
            Verdict::Alone(layout) if partial && layout.is_none_or(|it| it.end != frame.len()) => return false,
            Verdict::Mergeable(layout) => self.join(piece, frame, &layout, ready),
            Verdict::Alone(layout) => {
                self.push_out_flow_of(frame, layout.as_ref(), ready);
                let write = self.alone(piece, layout.filter(|_| partial));
                ready.push(write);
            }
        }
        true
    }

    /// Push everything out.
    pub fn flush(&mut self, ready: &mut Vec<Write>) {
        ready.extend(self.flows.drain(..).map(Flow::finish));
    }

    /// Give back a write that was carried out, so that its memory serves again.
    pub fn recycle(&mut self, mut write: Write) {
        if self.spare.len() < 4 * MAX_FLOWS {
            write.headers.clear();
            write.pieces.clear();
            self.spare.push(write);
        }
    }

    fn join(&mut self, piece: Piece, frame: &[u8], layout: &Layout, ready: &mut Vec<Write>) {
        let found = self.flows.iter().position(|flow| same_flow(&flow.write.headers, &flow.layout, frame, layout));
        if let Some(at) = found {
            if self.flows[at].accepts(frame, layout) {
                if self.flows[at].append(piece, frame, layout) {
                    ready.push(self.flows.remove(at).finish());
                }
                return;
            }
            ready.push(self.flows.remove(at).finish());
        }
        let flow = self.start(piece, frame, layout);
        if frame[layout.l4 + 13] & (FIN | PSH) != 0 {
            ready.push(flow.finish());
            return;
        }
        if self.flows.len() == MAX_FLOWS {
            ready.push(self.flows.remove(0).finish());
        }
        self.flows.push(flow);
    }

    fn start(&mut self, piece: Piece, frame: &[u8], layout: &Layout) -> Flow {
        let mut write = self.blank();
        write.headers.extend_from_slice(&frame[..layout.payload]);
        let payload = layout.end - layout.payload;
        write.pieces.push(Piece { buffer: piece.buffer, start: piece.start + layout.payload, len: payload });
        Flow {
            layout: *layout,
            first_payload: payload,
            total_payload: payload,
            next_sequence: sequence(frame, layout).wrapping_add(payload as u32),
            next_id: identification(frame, layout).wrapping_add(1),
            write,
        }
    }

    /// A frame as it came. The begun checksum of a partial one may be wrong: it is then wrong when completed, too.
    fn alone(&mut self, piece: Piece, partial: Option<Layout>) -> Write {
        let mut write = self.blank();
        write.vnet = partial.map_or(Vnet::PLAIN, |layout| unfinished(&layout));
        write.pieces.push(piece);
        write
    }

    fn push_out_flow_of(&mut self, frame: &[u8], layout: Option<&Layout>, ready: &mut Vec<Write>) {
        match layout {
            // What does not parse may belong to any flow (an IP fragment, say).
            None => self.flush(ready),
            Some(layout) => {
                let found =
                    self.flows.iter().position(|flow| same_flow(&flow.write.headers, &flow.layout, frame, layout));
                if let Some(at) = found {
                    ready.push(self.flows.remove(at).finish());
                }
            }
        }
    }

    fn blank(&mut self) -> Write {
        self.spare.pop().unwrap_or_else(|| Write {
            vnet: Vnet::PLAIN,
            headers: Vec::with_capacity(MAX_HEADERS),
            pieces: Vec::with_capacity(64),
        })
    }
}

impl Flow {
    fn accepts(&self, frame: &[u8], layout: &Layout) -> bool {
        let payload = layout.end - layout.payload;
        let id_follows = layout.ip == Ip::V6
            || frame[layout.l3 + 6] & DONT_FRAGMENT != 0
            || identification(frame, layout) == self.next_id;
        *layout == (Layout { end: layout.end, ..self.layout })
            && payload <= self.first_payload
            && sequence(frame, layout) == self.next_sequence
            && id_follows
            && self.write.pieces.len() < MAX_PIECES
            && layout.payload - layout.l3 + self.total_payload + payload <= MAX_PACKET
            && headers_equal(&self.write.headers, frame, layout)
    }

    /// Add a frame that was accepted; true when the super-frame is complete.
    fn append(&mut self, piece: Piece, frame: &[u8], layout: &Layout) -> bool {
        let payload = layout.end - layout.payload;
        self.write.pieces.push(Piece { buffer: piece.buffer, start: piece.start + layout.payload, len: payload });
        self.total_payload += payload;
        self.next_sequence = self.next_sequence.wrapping_add(payload as u32);
        self.next_id = self.next_id.wrapping_add(1);
        let flags = frame[layout.l4 + 13] & (FIN | PSH);
        self.write.headers[layout.l4 + 13] |= flags;
        flags != 0 || payload < self.first_payload
    }

    fn finish(mut self) -> Write {
        let layout = Layout { end: self.layout.payload + self.total_payload, ..self.layout };
        let headers = &mut self.write.headers;
        match layout.ip {
            Ip::V4 => {
                let total = (layout.end - layout.l3) as u16;
                headers[layout.l3 + 2..layout.l3 + 4].copy_from_slice(&total.to_be_bytes());
                checksum::finish_ip(headers, &layout);
            }
            Ip::V6 => {
                let length = (layout.end - layout.l3 - IPV6_HEADER) as u16;
                headers[layout.l3 + 4..layout.l3 + 6].copy_from_slice(&length.to_be_bytes());
            }
        }
        checksum::begin_transport(headers, &layout);
        self.write.vnet = unfinished(&layout);
        if self.write.pieces.len() > 1 {
            self.write.vnet.gso = if layout.ip == Ip::V4 { Gso::TcpV4 } else { Gso::TcpV6 };
            self.write.vnet.gso_size = self.first_payload as u16;
            self.write.vnet.header_len = layout.payload as u16;
        }
        self.write
    }
}

fn classify(frame: &[u8], partial: bool) -> Verdict {
    let Some(layout) = parse(frame) else { return Verdict::Alone(None) };
    let options_free = match layout.ip {
        Ip::V4 => layout.l4 - layout.l3 == 20,
        Ip::V6 => layout.l4 - layout.l3 == IPV6_HEADER,
    };
    let mergeable = layout.transport == Transport::Tcp
        && options_free
        && layout.payload < layout.end
        && frame[layout.l4 + 13] & (SYN | RST | URG | CWR) == 0
        && layout.end == frame.len()
        && checksum::ip_valid(frame, &layout)
        && if partial { checksum::transport_begun(frame, &layout) } else { checksum::transport_valid(frame, &layout) };
    if mergeable { Verdict::Mergeable(layout) } else { Verdict::Alone(Some(layout)) }
}

fn unfinished(layout: &Layout) -> Vnet {
    Vnet {
        needs_csum: true,
        csum_start: layout.l4 as u16,
        csum_offset: layout.transport.checksum_offset() as u16,
        ..Vnet::PLAIN
    }
}

fn same_flow(mine: &[u8], my: &Layout, frame: &[u8], its: &Layout) -> bool {
    let addresses = |layout: &Layout| match layout.ip {
        Ip::V4 => layout.l3 + 12..layout.l3 + 20,
        Ip::V6 => layout.l3 + 8..layout.l3 + 40,
    };
    my.ip == its.ip
        && my.transport == its.transport
        && mine[addresses(my)] == frame[addresses(its)]
        && mine[my.l4..my.l4 + 4] == frame[its.l4..its.l4 + 4]
}

/// Equal but for length, identification, checksums, sequence, FIN and PSH. Both have the same layout.
fn headers_equal(mine: &[u8], frame: &[u8], layout: &Layout) -> bool {
    let Layout { l3, l4, payload, .. } = *layout;
    let equal = |from: usize, to: usize| mine[from..to] == frame[from..to];
    let ip = match layout.ip {
        Ip::V4 => equal(0, l3 + 2) && equal(l3 + 6, l3 + 10) && equal(l3 + 12, l4),
        Ip::V6 => equal(0, l3 + 4) && equal(l3 + 6, l4),
    };
    let flags = (mine[l4 + 13] ^ frame[l4 + 13]) & !(FIN | PSH);
    ip && equal(l4, l4 + 4)
        && equal(l4 + 8, l4 + 13)
        && flags == 0
        && equal(l4 + 14, l4 + 16)
        && equal(l4 + 18, payload)
}

fn sequence(frame: &[u8], layout: &Layout) -> u32 {
    u32::from_be_bytes([frame[layout.l4 + 4], frame[layout.l4 + 5], frame[layout.l4 + 6], frame[layout.l4 + 7]])
}

fn identification(frame: &[u8], layout: &Layout) -> u16 {
    match layout.ip {
        Ip::V4 => u16::from_be_bytes([frame[layout.l3 + 4], frame[layout.l3 + 5]]),
        Ip::V6 => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::samples::{self, Tcp};
    use crate::split::{Plan, plan};
    use proptest::prelude::*;

    /// Feed frames through a merger and give what would be written, each with its virtio header.
    fn merge(frames: &[(Vec<u8>, bool)]) -> Vec<(Vnet, Vec<u8>)> {
        let (mut merger, mut ready) = (Merger::default(), vec![]);
        for (buffer, (frame, partial)) in frames.iter().enumerate() {
            let piece = Piece { buffer, start: 0, len: frame.len() };
            assert!(merger.push(piece, frame, *partial, &mut ready));
        }
        merger.flush(&mut ready);
        let gather = |write: &Write| {
            let mut bytes = write.headers.clone();
            for piece in &write.pieces {
                bytes.extend(&frames[piece.buffer].0[piece.start..piece.start + piece.len]);
            }
            (write.vnet, bytes)
        };
        ready.iter().map(gather).collect()
    }

    fn full(it: &Tcp) -> (Vec<u8>, bool) {
        (samples::tcp(it), false)
    }

    #[test]
    fn segments_that_follow_one_another_become_one_frame() {
        for v6 in [false, true] {
            let frames: Vec<_> =
                (0..5u16).map(|i| full(&Tcp { v6, id: i, seq: 1000 + 100 * u32::from(i), ..Tcp::default() })).collect();
            let written = merge(&frames);
            assert_eq!(written.len(), 1);
            let (vnet, frame) = &written[0];
            assert_eq!((vnet.gso_size, usize::from(vnet.header_len)), (100, if v6 { 74 } else { 54 }));
            assert_eq!(parse(frame).expect("parses").end, frame.len());
        }
    }

    #[test]
    fn what_differs_is_not_merged_and_order_is_kept() {
        let first = Tcp { seq: 1000, ..Tcp::default() };
        let next = Tcp { seq: 1100, id: 8, ..Tcp::default() };
        for other in [
            Tcp { seq: 1101, ..next.clone() },
            Tcp { flags: 0x12, ..next.clone() },
            Tcp { flags: 0x50, ..next.clone() },
            Tcp { options: vec![1; 4], ..next.clone() },
            Tcp { payload: vec![], ..next.clone() },
            Tcp { payload: vec![9; 101], ..next.clone() },
            Tcp { tags: 1, ..next.clone() },
        ] {
            let frames = [full(&first), full(&other)];
            let written = merge(&frames);
            assert_eq!(written.len(), 2, "{other:?}");
            assert!(written.iter().all(|(vnet, _)| vnet.gso == Gso::None));
            assert!(written[0].1.ends_with(&[0x5a; 100]));
            let sequence = |frame: &[u8]| sequence(frame, &parse(frame).expect("parses"));
            assert_eq!(sequence(&written[1].1), other.seq);
        }
    }

    #[test]
    fn a_short_segment_or_a_push_ends_the_super_frame() {
        let frames = [
            full(&Tcp { seq: 1000, ..Tcp::default() }),
            full(&Tcp { seq: 1100, payload: vec![1; 40], ..Tcp::default() }),
            full(&Tcp { seq: 1140, payload: vec![2; 40], flags: 0x18, ..Tcp::default() }),
        ];
        let written = merge(&frames);
        assert_eq!(written.iter().map(|(v, _)| v.gso).collect::<Vec<_>>(), [Gso::TcpV4, Gso::None]);
    }

    #[test]
    fn a_wrong_checksum_goes_alone_and_untouched() {
        let mut bad = samples::tcp(&Tcp { seq: 1100, ..Tcp::default() });
        *bad.last_mut().expect("not empty") ^= 1;
        let written = merge(&[full(&Tcp::default()), (bad.clone(), false)]);
        assert_eq!(written.len(), 2);
        assert_eq!(written[1], (Vnet::PLAIN, bad));
    }

    #[test]
    fn a_partial_frame_must_be_tcp_or_udp() {
        let (mut merger, mut ready) = (Merger::default(), vec![]);
        let piece = Piece { buffer: 0, start: 0, len: 60 };
        assert!(!merger.push(piece, &[0; 60], true, &mut ready));
        assert!(ready.is_empty());
    }

    proptest! {
        /// Splitting, then merging, gives the stream back, whatever lies between two flows.
        #[test]
        fn merging_undoes_splitting(
            v6: bool, size in 200u16..1400, seq: u32, payload in proptest::collection::vec(any::<u8>(), 1..20_000),
        ) {
            let whole = samples::tcp(&Tcp { v6, seq, payload: payload.clone(), flags: 0x18, ..Tcp::default() });
            let vnet = Vnet {
                needs_csum: true, gso: if v6 { Gso::TcpV6 } else { Gso::TcpV4 }, gso_size: size, ..Vnet::PLAIN
            };
            let Plan::Split(split) = plan(&vnet, &whole) else { panic!("must split") };
            let frames: Vec<_> = (0..split.count()).map(|index| {
                let mut out = vec![0; split.len_of(index)];
                split.write(&whole, index, &mut out);
                (out, true)
            }).collect();
            let written = merge(&frames);
            prop_assert_eq!(written.len(), 1);
            let (vnet, mut frame) = written[0].clone();
            let layout = parse(&frame).expect("parses");
            if frames.len() > 1 {
                prop_assert_eq!(vnet.gso_size, size);
            }
            prop_assert!(vnet.needs_csum);
            checksum::complete_transport(&mut frame, &layout);
            prop_assert_eq!(layout.end, frame.len());
            prop_assert_eq!(frame, whole);
        }

        #[test]
        fn any_frame_is_taken_without_panic(
            frames in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..120), any::<bool>()), 0..20),
            at in 12usize..70, value: u8,
        ) {
            let (mut merger, mut ready) = (Merger::default(), vec![]);
            let mut damaged = samples::tcp(&Tcp::default());
            damaged[at] = value;
            for (frame, partial) in frames.iter().chain([&(damaged, true)]) {
                merger.push(Piece { buffer: 0, start: 0, len: frame.len() }, frame, *partial, &mut ready);
            }
            merger.flush(&mut ready);
        }
    }
}
