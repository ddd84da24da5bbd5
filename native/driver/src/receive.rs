//! Sockets -> TAP.

use std::io::IoSliceMut;
use std::os::fd::AsFd;

use omninervous_engine::count::Drop;
use omninervous_engine::inbound::{Arrived, Receiver};
use omninervous_engine::merge::{MAX_PIECES, Write};
use omninervous_engine::table::Table;
use quinn_udp::{BATCH_SIZE, RecvMeta};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::udp::Socket;
use crate::{Common, End, now};

/// Slices of one write to the TAP: virtio header, headers, pieces.
pub(crate) const MAX_PARTS: usize = 2 + MAX_PIECES;
const LARGEST_BATCH: usize = 65_536;
/// How often fragments that wait for others are looked at, and as nanoseconds.
const SWEEP: Timespec = Timespec { tv_sec: 0, tv_nsec: SWEEP_NS as i64 };
const SWEEP_NS: u64 = 500_000_000;
/// Receive calls on one socket before the others are looked at.
const TURN: usize = 8;

/// One thread's way inward.
pub(crate) struct Inward<'a> {
    common: &'a Common,
    end: &'a End,
    receiver: Receiver,
    buffers: Vec<Vec<u8>>,
    ready: Vec<Write>,
    swept: u64,
}

pub(crate) fn run(common: &Common, end: &End) {
    let mut inward = Inward::new(common, end);
    let mut fds = vec![PollFd::new(&common.wake, PollFlags::IN)];
    fds.extend(end.udp.sockets.iter().map(|it| PollFd::from_borrowed_fd(it.socket.as_fd(), PollFlags::IN)));
    while !common.closing() {
        let _ = poll(&mut fds, inward.patience().as_ref());
        inward.take(&fds[1..]);
        common.announce();
    }
}

impl<'a> Inward<'a> {
    pub(crate) fn new(common: &'a Common, end: &'a End) -> Self {
        let buffers = (0..BATCH_SIZE).map(|_| vec![0; LARGEST_BATCH]).collect();
        Self { common, end, receiver: Receiver::default(), buffers, ready: vec![], swept: 0 }
    }

    /// How long to wait for datagrams at most: None if nothing else is to be done.
    pub(crate) fn patience(&self) -> Option<Timespec> {
        (self.common.table().pool().used() > 0).then_some(SWEEP)
    }

    /// Take what the sockets have, whose polls these are. Whether there was anything.
    pub(crate) fn take(&mut self, fds: &[PollFd<'_>]) -> bool {
        if self.common.table().pool().used() > 0 && now() - self.swept >= SWEEP_NS {
            self.swept = now();
            self.common.table().expire_fragments(self.swept);
        }
        let mut any = false;
        for (fd, socket) in fds.iter().zip(self.end.udp.sockets.iter()) {
            if !fd.revents().is_empty() {
                self.drain(socket);
                any = true;
            }
        }
        any
    }

    fn drain(&mut self, socket: &Socket) {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        for _ in 0..TURN {
            let mut slices: Vec<IoSliceMut> = self.buffers.iter_mut().map(|it| IoSliceMut::new(it)).collect();
            let count = match socket.state.recv((&socket.socket).into(), &mut slices, &mut metas) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // An error that an earlier datagram caused (ICMP): reading it has cleared it.
                Err(_) => {
                    self.common.shared.counters.drop(Drop::UnderlayReceive);
                    continue;
                }
            };
            drop(slices);
            self.batch(&metas[..count]);
            if count < BATCH_SIZE {
                return; // nothing more waited
            }
        }
    }

    fn batch(&mut self, metas: &[RecvMeta]) {
        let common = self.common;
        {
            let table = common.table();
            let now = now();
            for (buffer, meta) in metas.iter().enumerate() {
                self.segments(&table, now, buffer, meta);
            }
        }
        self.receiver.flush(&mut self.ready);
        self.write();
    }

    fn segments(&mut self, table: &Table, now: u64, buffer: usize, meta: &RecvMeta) {
        let stride = meta.stride.max(1);
        let ecn = meta.ecn.map_or(0, |it| it as u8);
        for start in (0..meta.len).step_by(stride) {
            let end = (start + stride).min(meta.len);
            let from = Arrived { source: meta.addr, buffer, start, ecn };
            let data = &mut self.buffers[buffer][start..end];
            self.receiver.datagram(&self.common.shared, table, now, from, data, &mut self.ready);
        }
    }

    fn write(&mut self) {
        for write in self.ready.drain(..) {
            let pieces = write.pieces.iter().map(|it| &self.buffers[it.buffer][it.start..it.start + it.len]);
            self.common.write_tap(self.end, &write.vnet.encode(), &write.headers, pieces);
            self.receiver.recycle(write);
        }
    }
}
