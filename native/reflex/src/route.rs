//! The machine's own addresses, and by which interface and from which address it reaches another one: asked of the
//! kernel by netlink.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const RTM_GETADDR: u16 = 22;
const RTM_NEWADDR: u16 = 20;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const HEADER: usize = 16;
const IFADDRMSG: usize = 8;
const RTMSG: usize = 12;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A netlink socket in the network namespace of whoever opened it.
pub struct Routes {
    socket: OwnedFd,
}

impl Routes {
    /// Open one.
    pub fn open() -> io::Result<Self> {
        // No protocol number is NETLINK_ROUTE.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket })
    }

    /// All addresses of this machine.
    pub fn own_addresses(&self) -> io::Result<Vec<IpAddr>> {
        self.ask(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, &[0; IFADDRMSG])?;
        let mut all = vec![];
        loop {
            let answer = self.answer()?;
            for (kind, body) in messages(&answer) {
                if kind != RTM_NEWADDR {
                    return Ok(all); // the end of the dump, or an error
                }
                let attributes = || attributes(body.get(IFADDRMSG..).unwrap_or_default());
                let find = |wanted| attributes().find(|it| it.0 == wanted).and_then(|it| ip(it.1));
                all.extend(find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS)));
            }
        }
    }

    /// Interface and source address of what goes to `to`; None: no way.
    pub fn way(&self, to: IpAddr) -> io::Result<Option<(u32, IpAddr)>> {
        let (family, bytes) = match to {
            IpAddr::V4(it) => (AF_INET, it.octets().to_vec()),
            IpAddr::V6(it) => (AF_INET6, it.octets().to_vec()),
        };
        let mut body = vec![0; RTMSG];
        (body[0], body[1]) = (family, 8 * bytes.len() as u8);
        body.extend((4 + bytes.len() as u16).to_ne_bytes());
        body.extend(RTA_DST.to_ne_bytes());
        body.extend(bytes);
        self.ask(RTM_GETROUTE, NLM_F_REQUEST, &body)?;
        let answer = self.answer()?;
        let Some((RTM_NEWROUTE, body)) = messages(&answer).next() else { return Ok(None) };
        let attributes = || attributes(body.get(RTMSG..).unwrap_or_default());
        let find = |wanted| attributes().find(|it| it.0 == wanted).map(|it| it.1);
        let interface = find(RTA_OIF).and_then(|it| it.try_into().ok()).map(u32::from_ne_bytes);
        Ok(interface.zip(find(RTA_PREFSRC).and_then(ip)))
    }

    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]); // sequence and port: one question at a time
        message.extend(body);
        rustix::net::send(&self.socket, &message, SendFlags::empty())?;
        Ok(())
    }

    fn answer(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 32768];
        let (size, _) = rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        buffer.truncate(size);
        Ok(buffer)
    }
}

fn messages(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let size = u32::from_ne_bytes(data.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(data.get(4..6)?.try_into().ok()?);
        let body = data.get(HEADER..size)?;
        data = data.get(size.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

fn attributes(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let size = usize::from(u16::from_ne_bytes(data.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(data.get(2..4)?.try_into().ok()?);
        let value = data.get(4..size)?;
        data = data.get(size.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_an_address_and_a_way() {
        let routes = Routes::open().expect("netlink");
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert!(routes.own_addresses().expect("a dump").contains(&loopback));
        assert_eq!(routes.way(loopback).expect("an answer"), Some((1, loopback)));
    }
}
