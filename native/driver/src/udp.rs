//! The sockets: who sends, and what a failed send means.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::PoisonError;

use omninervous_engine::count::Drop;
use omninervous_engine::outbound::Wire;
use quinn_udp::{Transmit, UdpSocketState};
use rustix::io::Errno;

use crate::Common;

/// A socket with what is known of its offloads.
pub(crate) struct Socket {
    pub(crate) socket: UdpSocket,
    pub(crate) state: UdpSocketState,
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
        let open = |socket: UdpSocket| Ok(Socket { state: UdpSocketState::new((&socket).into())?, socket });
        Ok(Self { sockets: sockets.into_iter().map(open).collect::<io::Result<_>>()? })
    }

    pub(crate) fn bind<'a>(&'a self, common: &'a Common) -> Bound<'a> {
        Bound { udp: self, common }
    }

    fn sender(&self, to: SocketAddr) -> Option<&Socket> {
        let same_family = |it: &&Socket| it.socket.local_addr().is_ok_and(|own| own.is_ipv6() == to.is_ipv6());
        self.sockets.iter().find(same_family)
    }
}

impl Wire for Bound<'_> {
    fn send(&mut self, to: SocketAddr, contents: &[u8], segment: usize) {
        let Some(socket) = self.udp.sender(to) else { return self.common.shared.counters.drop(Drop::NoSocket) };
        let per_call = segment * socket.state.max_gso_segments().max(1);
        let mut rest = contents;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(per_call.min(rest.len()));
            rest = after;
            if let Err(error) = transmit(socket, to, part, segment) {
                self.failed(to, part, segment, &error, socket);
            }
        }
    }
}

impl Bound<'_> {
    fn failed(&self, to: SocketAddr, part: &[u8], segment: usize, error: &io::Error, socket: &Socket) {
        let counters = &self.common.shared.counters;
        match Errno::from_io_error(error) {
            Some(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => counters.drop(Drop::SendBuffer),
            Some(Errno::MSGSIZE) => {
                // TCP repeats what is lost here; from now on the payloads go in fragments.
                counters.drop(Drop::TooBig);
                self.common.too_big.lock().unwrap_or_else(PoisonError::into_inner).push((to, segment));
            }
            // The kernel or the card cannot segment: `max_gso_segments` is 1 from now on.
            Some(Errno::IO | Errno::INVAL) if part.len() > segment => {
                for one in part.chunks(segment) {
                    if transmit(socket, to, one, segment).is_err() {
                        counters.drop(Drop::UnderlayError);
                    }
                }
            }
            other => {
                let errno = other.unwrap_or(Errno::IO);
                self.common.failed(Drop::UnderlayError, to, errno.raw_os_error());
            }
        }
    }
}

fn transmit(socket: &Socket, to: SocketAddr, contents: &[u8], segment: usize) -> io::Result<()> {
    let segment_size = (contents.len() > segment).then_some(segment);
    let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None };
    socket.state.try_send((&socket.socket).into(), &transmit)
}
