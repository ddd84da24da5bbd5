//! Which queue a frame or a datagram goes to: a small program in the TAP, another one in the group of UDP sockets.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
/// `_IOR('T', 224, int)` of <linux/if_tun.h>.
const TUNSETSTEERINGEBPF: libc::c_ulong = 0x8004_54e0;

/// A loaded program that chooses the TAP queue of each frame: 0 for all but TCP data, 1 to `bulk` for that.
///
/// It is an eBPF socket filter (tun(4) calls it with the frame's Ethernet header first): TCP segments without data, unless they
/// end the connection, and everything that is not TCP go to queue 0; the rest by a hash of the ports, fragments and tagged frames
/// to queue 1. So a flow's data stays in one queue.
pub struct Steering(OwnedFd);

impl Steering {
    /// Load it for so many bulk queues.
    ///
    /// # Errors
    /// What bpf(2) gives: EPERM without CAP_BPF where unprivileged eBPF is off, ENOSYS.
    pub fn load(bulk: u32) -> io::Result<Self> {
        let program = steering_program(bulk);
        let attributes = ProgramLoad {
            kind: BPF_PROG_TYPE_SOCKET_FILTER,
            count: program.len() as u32,
            instructions: program.as_ptr() as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            ..ProgramLoad::default()
        };
        let size = size_of::<ProgramLoad>();
        // SAFETY: `attributes` is a bpf_attr for BPF_PROG_LOAD of the size that is told; the program and the licence that it
        // points to outlive the call, and the kernel only reads them.
        let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(result as i32) }))
    }

    /// Let a TAP use it. The TAP keeps it for as long as it lives.
    ///
    /// # Errors
    /// What the kernel (4.16 or newer) refuses it with.
    pub fn attach(&self, tap: BorrowedFd<'_>) -> io::Result<()> {
        let program = self.0.as_raw_fd();
        // SAFETY: TUNSETSTEERINGEBPF reads one int from the address that is given, which lives until the call returns.
        let result = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETSTEERINGEBPF, &raw const program) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Let a group of SO_REUSEPORT sockets, to which `socket` belongs, divide datagrams by lane: lanes 1 to `bulk` to the sockets of
/// these numbers in the order of binding, everything else to the first one.
///
/// # Errors
/// What setsockopt(2) gives.
pub fn receive_by_lane(socket: BorrowedFd<'_>, bulk: u32) -> io::Result<()> {
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    use libc::{BPF_A, BPF_ABS, BPF_ALU, BPF_B, BPF_JEQ, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_RSH};
    // A load beyond the datagram's end ends the program with 0.
    let mut filter = [
        op(BPF_LD | BPF_B | BPF_ABS, 0, 0, 0),
        op(BPF_JMP | BPF_JEQ | BPF_K, 0, 3, 4), // transport data?
        op(BPF_LD | BPF_B | BPF_ABS, 0, 0, 15), // the counter's highest byte
        op(BPF_ALU | BPF_RSH | BPF_K, 0, 0, 4),
        op(BPF_JMP | BPF_JGT | BPF_K, 0, 1, bulk),
        op(BPF_RET | BPF_K, 0, 0, 0),
        op(BPF_RET | BPF_A, 0, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let size = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the option takes a sock_fprog of that size; it and the filter outlive the call, and the kernel copies them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD needs.
#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// Offsets in a frame without VLAN tag.
const ETHERTYPE: i32 = 12;
const NETWORK: i32 = 14;
const V4_LENGTH: i32 = NETWORK + 2;
const V4_FRAGMENT: i32 = NETWORK + 6;
const V4_PROTOCOL: i32 = NETWORK + 9;
const V6_LENGTH: i32 = NETWORK + 4;
const V6_NEXT_HEADER: i32 = NETWORK + 6;
const V6_HEADER: i32 = 40;
const TCP: i32 = 6;
const TCP_DATA_OFFSET: i32 = 12;
const TCP_FLAGS: i32 = 13;
const FIN_RST: i32 = 0x05;
/// A multiplier whose product's upper half depends on all bits of the ports (Knuth, volume 3, section 6.4).
const SPREAD: i32 = 0x61c8_8647;

#[rustfmt::skip]
fn steering_program(bulk: u32) -> Vec<u64> {
    use Op::{Add, And, Jeq, Jmp, Jne, Jset, Jsle, LoadB, LoadBAt, LoadH, LoadWAt, Lsh, Mod, Mov, MovReg, Mul, Rsh, Sub};
    let lines = [
        Line::Do(MovReg(6, 1)), // where the loads below look for the frame
        Line::Do(LoadH(ETHERTYPE)),
        Line::Do(Jeq(0x0800, "v4")),
        Line::Do(Jeq(0x86dd, "v6")),
        Line::Do(Jeq(0x8100, "one")),
        Line::Do(Jeq(0x88a8, "one")),
        Line::Label("express"),
        Line::Do(Mov(0, 0)),
        Line::Do(Op::Exit),
        Line::Label("v4"),
        Line::Do(LoadB(V4_PROTOCOL)),
        Line::Do(Jne(TCP, "express")),
        Line::Do(LoadH(V4_FRAGMENT)),
        Line::Do(Jset(0x3fff, "one")),
        Line::Do(LoadB(NETWORK)),
        Line::Do(And(15)),
        Line::Do(Lsh(2)),
        Line::Do(MovReg(7, 0)), // r7: length of the IP header
        Line::Do(LoadH(V4_LENGTH)),
        Line::Do(MovReg(8, 0)),
        Line::Do(Sub(8, 7)), // r8: bytes behind it
        Line::Do(Jmp("tcp")),
        Line::Label("v6"),
        Line::Do(LoadB(V6_NEXT_HEADER)),
        Line::Do(Jne(TCP, "express")),
        Line::Do(Mov(7, V6_HEADER)),
        Line::Do(LoadH(V6_LENGTH)),
        Line::Do(MovReg(8, 0)),
        Line::Label("tcp"),
        Line::Do(LoadBAt(7, NETWORK + TCP_DATA_OFFSET)),
        Line::Do(Rsh(2)),
        Line::Do(And(0x3c)),
        Line::Do(Sub(8, 0)), // r8: bytes of data
        Line::Do(LoadBAt(7, NETWORK + TCP_FLAGS)),
        Line::Do(Jset(FIN_RST, "bulk")),
        Line::Do(Jsle(8, 0, "express")),
        Line::Label("bulk"),
        Line::Do(LoadWAt(7, NETWORK)), // both ports
        Line::Do(Mul(SPREAD)),
        Line::Do(Rsh(32)),
        Line::Do(Mod(bulk as i32)),
        Line::Do(Add(1)),
        Line::Do(Op::Exit),
        Line::Label("one"),
        Line::Do(Mov(0, 1)),
        Line::Do(Op::Exit),
    ];
    assemble(&lines)
}

/// An instruction (kernel, Documentation/bpf/standardization/instruction-set.rst). Register 0 where none is named.
#[derive(Clone, Copy)]
enum Op {
    Mov(u8, i32),
    MovReg(u8, u8),
    Add(i32),
    And(i32),
    Lsh(i32),
    Rsh(i32),
    Mul(i32),
    Mod(i32),
    /// First register -= second.
    Sub(u8, u8),
    /// Load a byte or a big-endian half-word of the frame.
    LoadB(i32),
    LoadH(i32),
    /// Load a byte or word at register + offset.
    LoadBAt(u8, i32),
    LoadWAt(u8, i32),
    Jmp(&'static str),
    Jeq(i32, &'static str),
    Jne(i32, &'static str),
    Jset(i32, &'static str),
    /// If the register is at most the number, both signed.
    Jsle(u8, i32, &'static str),
    Exit,
}

#[derive(Clone, Copy)]
enum Line {
    Do(Op),
    Label(&'static str),
}

fn assemble(lines: &[Line]) -> Vec<u64> {
    let place = |label: &str| {
        let before = lines.iter().take_while(|it| !matches!(it, Line::Label(name) if *name == label));
        before.filter(|it| matches!(it, Line::Do(_))).count()
    };
    let ops = lines.iter().filter_map(|it| if let Line::Do(op) = it { Some(*op) } else { None });
    ops.enumerate().map(|(at, op)| encode(op, |label| (place(label) as isize - at as isize - 1) as i16)).collect()
}

fn encode(op: Op, jump: impl Fn(&str) -> i16) -> u64 {
    let (code, target, source, offset, number) = match op {
        Op::Mov(register, number) => (0xb7, register, 0, 0, number),
        Op::MovReg(register, from) => (0xbf, register, from, 0, 0),
        Op::Add(number) => (0x07, 0, 0, 0, number),
        Op::And(number) => (0x57, 0, 0, 0, number),
        Op::Lsh(number) => (0x67, 0, 0, 0, number),
        Op::Rsh(number) => (0x77, 0, 0, 0, number),
        Op::Mul(number) => (0x27, 0, 0, 0, number),
        Op::Mod(number) => (0x97, 0, 0, 0, number),
        Op::Sub(register, other) => (0x1f, register, other, 0, 0),
        Op::LoadB(at) => (0x30, 0, 0, 0, at),
        Op::LoadH(at) => (0x28, 0, 0, 0, at),
        Op::LoadBAt(register, at) => (0x50, 0, register, 0, at),
        Op::LoadWAt(register, at) => (0x40, 0, register, 0, at),
        Op::Jmp(label) => (0x05, 0, 0, jump(label), 0),
        Op::Jeq(number, label) => (0x15, 0, 0, jump(label), number),
        Op::Jne(number, label) => (0x55, 0, 0, jump(label), number),
        Op::Jset(number, label) => (0x45, 0, 0, jump(label), number),
        Op::Jsle(register, number, label) => (0xd5, register, 0, jump(label), number),
        Op::Exit => (0x95, 0, 0, 0, 0),
    };
    u64::from(code as u8)
        | u64::from(target | source << 4) << 8
        | u64::from(offset as u16) << 16
        | u64::from(number as u32) << 32
}
