//! The sockets: who sends, and what a failed send means.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use omninervous_engine::count::Drop;
use omninervous_engine::outbound::Wire;
use quinn_udp::UdpSocketState;
use rustix::io::Errno;

use crate::Common;

/// A socket with what is known of its offloads.
pub(crate) struct Socket {
    pub(crate) socket: UdpSocket,
    pub(crate) state: UdpSocketState,
    ipv6: bool,
    /// The kernel cuts several datagrams out of one send.
    segments: AtomicBool,
}

/// The sockets of a queue, shared by its threads.
pub(crate) struct Udp {
    pub(crate) sockets: Vec<Socket>,
}

/// Sends for one thread.
pub(crate) struct Bound<'a> {
    udp: &'a Udp,
    common: &'a Common,
}

impl Udp {
    pub(crate) fn new(sockets: Vec<UdpSocket>) -> io::Result<Self> {
        let open = |socket: UdpSocket| {
            let state = UdpSocketState::new((&socket).into())?;
            let segments = AtomicBool::new(state.max_gso_segments() > 1);
            Ok(Socket { ipv6: socket.local_addr()?.is_ipv6(), socket, state, segments })
        };
        Ok(Self { sockets: sockets.into_iter().map(open).collect::<io::Result<_>>()? })
    }

    pub(crate) fn bind<'a>(&'a self, common: &'a Common) -> Bound<'a> {
        Bound { udp: self, common }
    }

    fn sender(&self, to: SocketAddr) -> Option<&Socket> {
        self.sockets.iter().find(|it| it.ipv6 == to.is_ipv6())
    }
}

impl Wire for Bound<'_> {
    fn send(&mut self, to: SocketAddr, contents: &[u8], segment: usize, class: u8) {
        let Some(socket) = self.udp.sender(to) else { return self.common.shared.counters.drop(Drop::NoSocket) };
        let transmit = |part: &[u8]| {
            omninervous_sysio::send_segments(socket.socket.as_fd(), to, part, segment, class).map_err(|it| errno(&it))
        };
        let together = contents.len() > segment && socket.segments.load(Ordering::Relaxed);
        if together {
            match transmit(contents) {
                Ok(()) => return,
                Err(Errno::IO | Errno::INVAL) => (), // perhaps the kernel or the card cannot cut
                Err(error) => return self.failed(to, segment, error),
            }
        }
        let mut sent = true;
        for part in contents.chunks(segment) {
            if let Err(error) = transmit(part) {
                sent = false;
                self.failed(to, part.len(), error);
            }
        }
        if together && sent {
            socket.segments.store(false, Ordering::Relaxed);
        }
    }
}

impl Bound<'_> {
    fn failed(&self, to: SocketAddr, size: usize, error: Errno) {
        let counters = &self.common.shared.counters;
        match error {
            Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => counters.drop(Drop::SendBuffer),
            Errno::MSGSIZE => {
                // TCP repeats what is lost here; from now on the payloads go in fragments.
                counters.drop(Drop::TooBig);
                self.common.too_big.lock().unwrap_or_else(PoisonError::into_inner).push((to, size));
            }
            other => self.common.failed(Drop::UnderlayError, to, other.raw_os_error()),
        }
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
