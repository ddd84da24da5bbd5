//! Many datagrams of one size in one system call (udp(7), UDP_SEGMENT), with a traffic class.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Room for two control messages of an int each.
const CONTROL: usize = 8;

/// Send `contents` as datagrams of `segment` bytes, the last one perhaps shorter. Never blocks.
///
/// # Errors
/// What sendmsg(2) gives; EINVAL or EIO for several datagrams where the kernel or the card cannot cut them.
pub fn send_segments(
    socket: BorrowedFd<'_>, to: SocketAddr, contents: &[u8], segment: usize, class: u8,
) -> io::Result<()> {
    let mut address = Address::new(to);
    let mut piece = libc::iovec { iov_base: contents.as_ptr().cast_mut().cast(), iov_len: contents.len() };
    let mut control = [0u64; CONTROL];
    // SAFETY: a msghdr of zeros is valid: it names nothing.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut address.bytes).cast();
    message.msg_namelen = address.size;
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    let mut used = 0;
    if class != 0 {
        let (level, kind) =
            if to.is_ipv4() { (libc::IPPROTO_IP, libc::IP_TOS) } else { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) };
        used += put(&mut control[used..], level, kind, &i32::from(class).to_ne_bytes());
    }
    if contents.len() > segment {
        used += put(&mut control[used..], libc::SOL_UDP, libc::UDP_SEGMENT, &(segment as u16).to_ne_bytes());
    }
    if used > 0 {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = used * size_of::<u64>();
    }
    loop {
        // SAFETY: `message` names the address, the contents and the control messages, each with its size; all outlive the
        // call, and the kernel only reads them.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Write a control message (`struct cmsghdr` and its value, padded to whole words as CMSG_SPACE says); its words.
fn put(control: &mut [u64], level: i32, kind: i32, value: &[u8]) -> usize {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let len = HEADER + value.len();
    let words = len.div_ceil(size_of::<u64>());
    let mut bytes = [0; CONTROL * size_of::<u64>()];
    bytes[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
    bytes[size_of::<usize>()..][..4].copy_from_slice(&level.to_ne_bytes());
    bytes[size_of::<usize>() + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
    bytes[HEADER..len].copy_from_slice(value);
    for (word, bytes) in control[..words].iter_mut().zip(bytes.chunks_exact(size_of::<u64>())) {
        let mut one = [0; size_of::<u64>()];
        one.copy_from_slice(bytes);
        *word = u64::from_ne_bytes(one);
    }
    words
}

/// A `sockaddr_in` or `sockaddr_in6`, as bytes: family (host order), port, then (flow,) address (, scope).
struct Address {
    bytes: [u8; 28],
    size: libc::socklen_t,
}

impl Address {
    fn new(it: SocketAddr) -> Self {
        let mut bytes = [0; 28];
        bytes[2..4].copy_from_slice(&it.port().to_be_bytes());
        let (family, size) = match it {
            SocketAddr::V4(it) => {
                bytes[4..8].copy_from_slice(&it.ip().octets());
                (libc::AF_INET, 16)
            }
            SocketAddr::V6(it) => {
                bytes[8..24].copy_from_slice(&it.ip().octets());
                bytes[24..28].copy_from_slice(&it.scope_id().to_ne_bytes());
                (libc::AF_INET6, 28)
            }
        };
        bytes[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
        Self { bytes, size }
    }
}
