//! The native engine's threads: for each bulk queue, one turns the TAP's frames into datagrams, one the sockets' datagrams
//! into frames; the express queue has one for both.
//!
//! ```text
//! omni-txN:  poll TAP     -> read until empty -> Sender   -> one sendmsg a batch (UDP_SEGMENT)
//! omni-rxN:  poll sockets -> recvmmsg (GRO)   -> Receiver -> one writev a super-frame
//! omni-ex0:  both
//! submit():  the control plane's commands, in its own thread
//! ```
//!
//! With several queues the first one is express: a frame of it never waits behind a stream, neither in the TAP nor here nor
//! in the receiver's socket (`sysio::Steering`, `sysio::receive_by_lane`).
//!
//! A thread holds the table's read lock for a batch, never while it waits, so a command waits for a batch at most; and
//! established traffic never waits for the control plane.

#![forbid(unsafe_code)]

mod express;
mod receive;
mod transmit;
mod udp;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLockReadGuard};
use std::thread::JoinHandle;

use omninervous_engine::event::Event;
use omninervous_engine::outbound::{Sender, Shared};
use omninervous_engine::queue::Queue;
use omninervous_engine::table::{PeerId, Table};
use omninervous_engine::vnet::{VNET_HEADER, Vnet};
use omninervous_sysio::Steering;
use rustix::event::{EventfdFlags, Timespec, eventfd};

use crate::udp::Udp;

/// How long a descriptor that only fails is left alone.
const REST: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The kernel's smallest; a frame takes about 5 microseconds.
const SLICE_NS: u64 = 100_000;

/// A running engine.
pub struct Engine {
    common: Arc<Common>,
    control: Mutex<Sender>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the threads share.
struct Common {
    shared: Arc<Shared>,
    /// At least one; the first is the one that the control plane sends by.
    ends: Vec<End>,
    /// Readable while there are events.
    signal: OwnedFd,
    /// Readable once the threads must end.
    wake: OwnedFd,
    closing: AtomicBool,
    /// Datagrams that a path refused for their size: whoever sends must not touch the table, which its caller holds.
    too_big: Mutex<Vec<(SocketAddr, usize)>>,
}

/// A queue: its part of the TAP, and its sockets.
pub struct End {
    queue: Queue,
    tap: OwnedFd,
    udp: Udp,
}

/// The descriptors of one queue. `tap`: opened with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR; `sockets`: bound, the first of a family
/// sends. Several queues belong to one TAP (IFF_MULTI_QUEUE) and one port (SO_REUSEPORT, bound in this order).
pub struct Descriptors {
    /// A queue of the TAP.
    pub tap: OwnedFd,
    /// Its sockets.
    pub sockets: Vec<UdpSocket>,
}

impl Engine {
    /// Start the threads. One queue carries everything; of several the first one is express.
    ///
    /// # Errors
    /// What the kernel refuses: descriptors, offloads, steering, threads.
    pub fn start(queues: Vec<Descriptors>, own_mac: [u8; 6]) -> io::Result<Self> {
        let ends = open(queues)?;
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let common = Arc::new(Common {
            shared: Arc::new(Shared::new(own_mac)),
            ends,
            signal: eventfd(0, flags)?,
            wake: eventfd(0, flags)?,
            closing: AtomicBool::new(false),
            too_big: Mutex::default(),
        });
        // From here on `close` ends what was started, even if a thread cannot be.
        let engine = Self { common, control: Mutex::default(), threads: Mutex::default() };
        for (number, end) in engine.common.ends.iter().enumerate() {
            if end.queue == Queue::Express {
                engine.spawn(format!("omni-ex{number}"), number, express::run)?;
            } else {
                engine.spawn(format!("omni-tx{number}"), number, transmit::run)?;
                engine.spawn(format!("omni-rx{number}"), number, receive::run)?;
            }
        }
        Ok(engine)
    }

    /// Readable while `events` has something to give.
    #[must_use]
    pub fn signal(&self) -> BorrowedFd<'_> {
        self.common.signal.as_fd()
    }

    /// What the threads read and count.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.common.shared
    }

    /// Send a datagram outside of any session.
    pub fn send_datagram(&self, to: SocketAddr, data: &[u8]) {
        use omninervous_engine::outbound::Wire;
        self.common.first().udp.bind(&self.common).send(to, data, data.len(), 0);
        self.common.announce(); // the system may have said at once why it does not go
    }

    /// Seal a control payload on lane 0 of a session. An unknown session is ignored.
    pub fn send_control(&self, local_index: u32, payload: &[u8], to: Option<SocketAddr>) {
        let table = self.common.table();
        let Some(entry) = table.session(local_index).map(Arc::clone) else { return };
        let mut sender = self.control();
        let mut wire = self.common.first().udp.bind(&self.common);
        sender.control(self.shared(), &table, now(), &entry, payload, to, &mut wire);
        sender.flush(&mut wire);
        drop(table);
        self.common.announce();
    }

    /// Send frames that waited for a session.
    pub fn send_frames(&self, peer: &PeerId, frames: &[Vec<u8>]) {
        let table = self.common.table();
        let Some(row) = table.row(peer) else { return };
        let mut sender = self.control();
        let mut wire = self.common.first().udp.bind(&self.common);
        for frame in frames {
            sender.waited(self.shared(), &table, now(), row, frame, &mut wire);
        }
        sender.flush(&mut wire);
        drop(table);
        self.common.announce();
    }

    /// Hand a frame to the local stack.
    pub fn deliver(&self, frame: &[u8]) {
        let header = Vnet::PLAIN.encode();
        self.common.write_tap(self.common.first(), &header, frame, std::iter::empty());
        self.common.announce();
    }

    /// All events since the last call.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let mut queue = self.shared().queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = [0; 8];
        // Nothing to read is what an empty queue looks like.
        let _ = rustix::io::read(&self.common.signal, &mut count);
        queue.take().into()
    }

    /// Stop the threads, forget all keys. Idempotent.
    pub fn close(&self) {
        self.common.closing.store(true, Ordering::Relaxed);
        let _ = rustix::io::write(&self.common.wake, &1u64.to_ne_bytes());
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
        self.shared().write().clear();
    }

    fn control(&self) -> MutexGuard<'_, Sender> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, name: String, number: usize, run: fn(&Common, &End)) -> io::Result<()> {
        let common = Arc::clone(&self.common);
        let work = move || {
            let end = &common.ends[number];
            if end.queue == Queue::Express {
                // A wish: without it the express queue waits for its turn as everybody does.
                let _ = omninervous_sysio::short_slice(SLICE_NS);
            }
            run(&common, end);
        };
        let thread = std::thread::Builder::new().name(name).spawn(work)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }
}

impl std::ops::Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

impl Common {
    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.shared.read()
    }

    fn first(&self) -> &End {
        &self.ends[0]
    }

    fn closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Let the paths that refused datagrams carry smaller ones from now on.
    fn shrink(&self, table: &Table) {
        for (to, size) in self.too_big.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            for row in table.rows().filter(|it| it.endpoint == Some(to)) {
                row.shrink(size);
            }
        }
    }

    /// Make the signal readable if there are events.
    fn announce(&self) {
        let queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.is_empty() {
            // A full counter is readable, too.
            let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
        }
    }

    /// One write to the TAP: virtio header, headers, pieces.
    fn write_tap<'a>(
        &self, end: &End, vnet: &'a [u8; VNET_HEADER], headers: &'a [u8], pieces: impl Iterator<Item = &'a [u8]>,
    ) {
        use omninervous_engine::count::Drop;
        let mut parts = [io::IoSlice::new(&[]); receive::MAX_PARTS];
        let mut count = 0;
        for part in [&vnet[..], headers].into_iter().chain(pieces) {
            parts[count] = io::IoSlice::new(part);
            count += 1;
        }
        match rustix::io::writev(&end.tap, &parts[..count]) {
            Ok(_) => (),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS | rustix::io::Errno::NOMEM) => {
                self.shared.counters.drop(Drop::TapWrite);
            }
            Err(error) => self.tap_failed(Drop::TapWrite, error),
        }
    }

    /// The TAP is down (EIO) or deleted (EBADFD).
    fn tap_failed(&self, reason: omninervous_engine::count::Drop, error: rustix::io::Errno) {
        self.failed(reason, SocketAddr::from(([0, 0, 0, 0], 0)), error.raw_os_error());
    }

    fn failed(&self, reason: omninervous_engine::count::Drop, endpoint: SocketAddr, errno: i32) {
        self.shared.counters.drop(reason);
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).offer_error(now(), endpoint, errno);
    }
}

/// Queues of these descriptors, and what divides frames and datagrams between them.
fn open(queues: Vec<Descriptors>) -> io::Result<Vec<End>> {
    let bulk = queues.len().saturating_sub(1);
    let kinds = if bulk == 0 { vec![Queue::Bulk(0)] } else { kinds(bulk) };
    let mut ends = vec![];
    for (queue, it) in kinds.into_iter().zip(queues) {
        rustix::io::ioctl_fionbio(&it.tap, true)?;
        ends.push(End { queue, tap: it.tap, udp: Udp::new(it.sockets)? });
    }
    let Some(first) = ends.first() else { return Err(io::ErrorKind::InvalidInput.into()) };
    omninervous_sysio::offer_offloads(first.tap.as_fd())?;
    if bulk > 0 {
        Steering::load(bulk as u32)?.attach(first.tap.as_fd())?;
        for it in first.udp.sockets.iter() {
            omninervous_sysio::receive_by_lane(it.socket.as_fd(), bulk as u32)?;
        }
    }
    Ok(ends)
}

fn kinds(bulk: usize) -> Vec<Queue> {
    std::iter::once(Queue::Express).chain((0..bulk).map(Queue::Bulk)).collect()
}

/// Nanoseconds on the boot-time clock.
#[must_use]
pub fn now() -> u64 {
    let it = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    it.tv_sec as u64 * 1_000_000_000 + it.tv_nsec as u64
}
