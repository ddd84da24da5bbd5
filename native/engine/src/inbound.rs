//! Datagrams of the underlay -> frames for the local stack, control messages, events.
//!
//! ```text
//! datagram() -> type -> session by index -> open in place -> payload kind, fragments -> source guard -> merge -> Write
//! ```
//!
//! Whatever comes in ends as a write, as an event, or as a counted drop; never as a panic.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::checksum;
use crate::count::Drop;
use crate::event::Event;
use crate::fragment::{self, FRAGMENT};
use crate::guard::{Refusal, check_routed};
use crate::ip::{self, Ip};
use crate::merge::{Merger, Piece, Write};
use crate::outbound::{ETHERNET, ETHERNET_PARTIAL, Shared};
use crate::packet::parse;
use crate::session::{HEADER, Refused, TAG};
use crate::table::{Entry, Link, MAX_FRAME, Row, Table};
use crate::traffic_class::{NotCapable, mark_frame, mark_packet};
use crate::vnet::Vnet;

const CONTROL: u8 = 0x04;
const RELAYED: u8 = 0x05;

/// Opens for one thread.
#[derive(Default)]
pub struct Receiver {
    merger: Merger,
}

/// Where a datagram came from and lies.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// The sender.
    pub source: SocketAddr,
    /// The receive buffer.
    pub buffer: usize,
    /// Where in it the datagram begins.
    pub start: usize,
    /// The ECN field of its IP header.
    pub ecn: u8,
}

impl Receiver {
    /// A datagram from anywhere; it is opened in place. What is ready to be written goes to `ready`, in order.
    pub fn datagram(
        &mut self, shared: &Shared, table: &Table, now: u64, from: Arrived, data: &mut [u8], ready: &mut Vec<Write>,
    ) {
        let Some((word, _)) = data.split_first_chunk::<4>() else { return shared.counters.drop(Drop::Runt) };
        let wanted = match word {
            [4, 0, 0, 0] => return self.open(shared, table, now, from, data, ready),
            [1, 0, 0, 0] => 148,
            [2, 0, 0, 0] => 92,
            [3, 0, 0, 0] | [5, 0, 0, 0] => 64,
            [6, 0, 0, 0] => 56,
            _ => return shared.counters.drop(Drop::BadType),
        };
        if data.len() != wanted {
            return shared.counters.drop(Drop::BadLength);
        }
        shared.tell(|it| it.put(Event::DatagramReceived { source: from.source, data: data.to_vec() }));
    }

    /// Push out what waits to be merged: nothing more has arrived.
    pub fn flush(&mut self, ready: &mut Vec<Write>) {
        self.merger.flush(ready);
    }

    /// Give a write's memory back.
    pub fn recycle(&mut self, write: Write) {
        self.merger.recycle(write);
    }

    fn open(
        &mut self, shared: &Shared, table: &Table, now: u64, from: Arrived, data: &mut [u8], ready: &mut Vec<Write>,
    ) {
        if data.len() < HEADER + TAG {
            return shared.counters.drop(Drop::Runt);
        }
        let index = u32::from_le_bytes([data[4], data[5], data[6], data[7]]);
        let Some(entry) = table.session(index) else { return shared.counters.drop(Drop::UnknownSession) };
        let Some(row) = table.row(&entry.peer.id) else { return shared.counters.drop(Drop::UnknownSession) };
        if entry.expires_at < now {
            return shared.counters.drop(Drop::Expired);
        }
        let opened = match entry.session.open(data) {
            Ok(opened) => opened,
            Err(refused) => return shared.counters.drop(reason_of(refused)),
        };
        shared.counters.received(opened.lane, data.len());
        let size = data.len();
        let payload = &mut data[HEADER..HEADER + opened.len];
        // An edge's control message that only measures a path is no move: ControlReceived names its source.
        let measures = row.link == Link::Ethernet && payload.first() == Some(&CONTROL);
        note(shared, now, entry, row, from.source, size, opened.highest && !measures);
        if payload.is_empty() {
            return;
        }
        let context = Context { shared, table, now, entry, row, from, size, lane: opened.lane };
        if let Err(reason) = self.receive(&context, payload, ready) {
            shared.counters.drop(reason);
        }
    }

    /// Act on an authenticated plaintext that is not empty.
    fn receive(&mut self, context: &Context, payload: &mut [u8], ready: &mut Vec<Write>) -> Result<(), Drop> {
        let Context { now, entry, row, from, .. } = *context;
        if payload[0] != CONTROL {
            entry.activity.rx_data_at.store(now, Ordering::Relaxed);
        }
        match (payload[0], row.link) {
            (ETHERNET | ETHERNET_PARTIAL, Link::Ethernet) => {
                check(row, &payload[1..])?;
                mark_frame(&mut payload[1..], from.ecn)?;
                let piece = Piece { buffer: from.buffer, start: from.start + HEADER + 1, len: payload.len() - 1 };
                if !self.merger.push(piece, &payload[1..], payload[0] == ETHERNET_PARTIAL, ready) {
                    return Err(Drop::BadPayload);
                }
                row.peer.delivered_at.store(now, Ordering::Relaxed);
                Ok(())
            }
            (FRAGMENT, Link::Ethernet) => self.reassemble(context, payload, ready),
            _ => self.receive_slow(context, payload, from.ecn, ready),
        }
    }

    /// Everything that is rare: it may copy. `ecn`: of the datagram, or of those that brought the payload in pieces.
    fn receive_slow(&mut self, context: &Context, payload: &[u8], ecn: u8, ready: &mut Vec<Write>) -> Result<(), Drop> {
        let Context { shared, now, entry, row, from, size, lane, .. } = *context;
        match (payload[0], row.link) {
            (CONTROL, Link::Ethernet | Link::Signalling) if lane == 0 => {
                let (peer, local_index, source) = (row.peer.id, entry.local_index, from.source);
                let payload = payload.to_vec();
                shared.tell(|it| it.put(Event::ControlReceived { peer, local_index, payload, source, size }));
                Ok(())
            }
            (kind, Link::Ip) if matches!(kind >> 4, 4 | 6) => self.routed(context, payload, ready),
            (kind @ (ETHERNET | ETHERNET_PARTIAL), Link::Ethernet) => {
                let mut frame = payload[1..].to_vec();
                check(row, &frame)?;
                mark_frame(&mut frame, ecn)?;
                if kind == ETHERNET_PARTIAL {
                    let layout = parse(&frame).filter(|it| it.end == frame.len()).ok_or(Drop::BadPayload)?;
                    checksum::complete_transport(&mut frame, &layout);
                }
                self.deliver(frame, ready);
                row.peer.delivered_at.store(now, Ordering::Relaxed);
                Ok(())
            }
            (RELAYED, _) => Err(Drop::Relayed),
            _ => Err(Drop::PayloadKind),
        }
    }

    fn reassemble(&mut self, context: &Context, piece: &[u8], ready: &mut Vec<Write>) -> Result<(), Drop> {
        if context.row.guard.is_none() {
            return Err(Drop::NoMembership);
        }
        let piece = fragment::decode(piece).ok_or(Drop::BadPayload)?;
        // A reassembler is whole between two calls, so a poisoned lock is as good as any.
        let mut reassembler = context.row.peer.reassembler.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = reassembler.add(context.now, &piece, context.from.ecn).map_err(|it| match it {
            fragment::Refused::Fragment => Drop::Fragment,
            fragment::Refused::Memory => Drop::FragmentMemory,
        })?;
        let ecn = reassembler.ecn();
        drop(reassembler);
        match whole {
            None => Ok(()),
            Some(whole) if whole[0] == FRAGMENT => Err(Drop::Fragment),
            Some(whole) => self.receive_slow(context, &whole, ecn, ready),
        }
    }

    /// A stock peer's packet, under a header that names its synthetic MAC. Padding is cut off.
    fn routed(&mut self, context: &Context, payload: &[u8], ready: &mut Vec<Write>) -> Result<(), Drop> {
        let Context { table, row, now, from, .. } = *context;
        let packet = check_routed(payload).map_err(refusal)?;
        let own = table.routed(packet.source(payload)) == Some(&row.peer.id);
        let Some(mac) = row.mac.filter(|_| own) else { return Err(Drop::SourceGuard) };
        if packet.end > MAX_FRAME - ip::ETHERNET_HEADER {
            return Err(Drop::FrameTooBig);
        }
        let ethertype = if packet.ip == Ip::V4 { ip::IPV4 } else { ip::IPV6 };
        let mut frame = [&table.own_mac()[..], &mac[..], &ethertype.to_be_bytes()[..], &payload[..packet.end]].concat();
        mark_packet(&mut frame[ip::ETHERNET_HEADER..], from.ecn)?;
        self.deliver(frame, ready);
        row.peer.delivered_at.store(now, Ordering::Relaxed);
        Ok(())
    }

    /// Write a frame that lies in no receive buffer, after what came before it.
    fn deliver(&mut self, frame: Vec<u8>, ready: &mut Vec<Write>) {
        self.merger.flush(ready);
        ready.push(Write { vnet: Vnet::PLAIN, headers: frame, pieces: vec![] });
    }
}

/// An authenticated datagram, as its handlers need it.
#[derive(Clone, Copy)]
struct Context<'a> {
    shared: &'a Shared,
    table: &'a Table,
    now: u64,
    entry: &'a Arc<Entry>,
    row: &'a Row,
    from: Arrived,
    size: usize,
    lane: usize,
}

fn check(row: &Row, frame: &[u8]) -> Result<(), Drop> {
    let guard = row.guard.as_ref().ok_or(Drop::NoMembership)?;
    if frame.len() > MAX_FRAME {
        return Err(Drop::FrameTooBig);
    }
    guard.check(frame).map_err(refusal)
}

fn note(shared: &Shared, now: u64, entry: &Entry, row: &Row, source: SocketAddr, size: usize, highest: bool) {
    let did = &entry.activity;
    did.rx_at.store(now, Ordering::Relaxed);
    did.rx_packets.fetch_add(1, Ordering::Relaxed);
    did.rx_bytes.fetch_add(size as u64, Ordering::Relaxed);
    let (peer, local_index) = (row.peer.id, entry.local_index);
    if !entry.confirmed.load(Ordering::Relaxed) && !entry.confirmed.swap(true, Ordering::Relaxed) {
        shared.tell(|it| it.put(Event::SessionConfirmed { peer, local_index, source }));
    }
    if highest && Some(source) != row.endpoint {
        shared.tell(|it| {
            it.offer_source(now, peer, local_index, source, size);
            Ok(())
        });
    }
}

fn reason_of(refused: Refused) -> Drop {
    match refused {
        Refused::Lane => Drop::Lane,
        Refused::CounterLimit => Drop::CounterLimit,
        Refused::Replay => Drop::Replay,
        Refused::BadTag => Drop::BadTag,
    }
}

impl From<NotCapable> for Drop {
    fn from(_: NotCapable) -> Self {
        Self::Ecn
    }
}

fn refusal(it: Refusal) -> Drop {
    match it {
        Refusal::Malformed => Drop::BadPayload,
        Refusal::SourceGuard => Drop::SourceGuard,
        Refusal::DestinationGuard => Drop::DestinationGuard,
        Refusal::RouterAdvertisement => Drop::RouterAdvertisement,
        Refusal::Redirect => Drop::Redirect,
    }
}
