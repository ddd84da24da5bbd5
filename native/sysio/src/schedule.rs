//! When the kernel lets a thread run.

use std::io;

const SCHED_OTHER: u32 = 0;

/// `struct sched_attr` of sched_setattr(2), its first version.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Ask for slices of so many nanoseconds for the calling thread: it runs as much as the others in all, but when it wakes, it runs
/// before threads with longer slices (EEVDF, Linux 6.12; older kernels take no notice). Needs no privilege.
///
/// # Errors
/// What sched_setattr(2) gives.
pub fn short_slice(nanoseconds: u64) -> io::Result<()> {
    // SAFETY: getpriority takes numbers only.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: SCHED_OTHER,
        nice,
        runtime: nanoseconds,
        ..Attributes::default()
    };
    // SAFETY: `attributes` is a sched_attr of the size that it tells, and outlives the call; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
