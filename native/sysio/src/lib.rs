//! System calls that no library wraps safely: the only crate of this workspace in which `unsafe` may stand.

mod schedule;
mod segments;
mod steering;

pub use schedule::short_slice;
pub use segments::send_segments;
pub use steering::{Steering, receive_by_lane};

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

/// Ask a TAP (opened with IFF_VNET_HDR) for super-frames: TCP always, UDP where the kernel has it (6.2). True with UDP.
///
/// # Errors
/// What the kernel refuses the smaller set with.
pub fn offer_offloads(tap: BorrowedFd<'_>) -> io::Result<bool> {
    let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    if set_offloads(tap, tcp | TUN_F_USO4 | TUN_F_USO6).is_ok() {
        return Ok(true);
    }
    set_offloads(tap, tcp).map(|()| false)
}

fn set_offloads(tap: BorrowedFd<'_>, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours; the descriptor is borrowed, so it is
    // open for the length of the call.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A second descriptor of the same open file, closed on exec. EBADF for a number that is no descriptor.
///
/// # Errors
/// What `fcntl(F_DUPFD_CLOEXEC)` gives.
pub fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl takes any number and touches no memory of ours.
    let copy = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
