//! The programs and maps in the kernel. Everything here ends with the descriptors that this holds: links of TCX and
//! XDP, programs and maps die with the process, however it dies.

use std::collections::HashMap as Table;
use std::io;
use std::net::SocketAddr;

use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::links::FdLink;
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::xdp::XdpLink;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, TestRun, TestRunOptions, Xdp, XdpMode};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};

use crate::layout::{self, Address, Config, Peer, Session};

const OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/synapse.bpf.o"));
/// Update in place and under the value's lock (`BPF_F_LOCK`).
const LOCKED: u64 = 4;
/// Peers that PEERS and FDB hold.
const PEERS: u32 = 16384;
/// Sessions that INDICES holds, of all kinds.
const INDICES: u32 = 65536;

/// Which hook receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// TCX ingress alone.
    Tc,
    /// XDP in the driver, then TCX ingress. Not XDP in the stack (generic): it gives TCX a packet without its MAC
    /// header, and gains nothing over TCX alone.
    Xdp,
}

impl Mechanism {
    /// By its name on the command line.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Tc, Self::Xdp].into_iter().find(|it| it.name() == name)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
        }
    }
}

/// The links on one underlay: dropping them detaches.
struct Receiving {
    mechanism: Mechanism,
    _tc: FdLink,
    _xdp: Option<FdLink>,
}

/// What is in the kernel.
pub struct Kernel {
    programs: Ebpf,
    config: Array<MapData, Config>,
    sessions: Array<MapData, Session>,
    indices: HashMap<MapData, u32, u32>,
    peers: HashMap<MapData, u32, Peer>,
    fdb: HashMap<MapData, [u8; 6], u32>,
    known: HashMap<MapData, Address, u32>,
    locals: HashMap<MapData, Address, u32>,
    handshakes: HashMap<MapData, u32, u64>,
    hellos: HashMap<MapData, Address, u64>,
    counters: PerCpuArray<MapData, u64>,
    /// What the programs tell.
    pub events: RingBuf<MapData>,
    receiving: Table<u32, Receiving>,
    sending: Option<(u32, FdLink)>,
}

impl Kernel {
    /// Load the programs that carry traffic, with room for so many sessions on lane 8. Nothing is attached.
    pub fn load(sessions: u32) -> io::Result<Self> {
        supported()?;
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("SESSIONS", sessions);
        for (name, size) in [("INDICES", INDICES), ("PEERS", PEERS), ("FDB", PEERS), ("KNOWN", PEERS)] {
            loader.map_max_entries(name, size);
        }
        let mut programs = loader.load(OBJECT).map_err(refused)?;
        for name in ["omni_egress", "tc_synapse", "tc_opened"] {
            classifier(&mut programs, name)?.load().map_err(|it| program_error(name, it))?;
        }
        let xdp: &mut Xdp = program(&mut programs, "xdp_synapse")?;
        xdp.load().map_err(|it| program_error("xdp_synapse", it))?;
        Ok(Self {
            config: map(&mut programs, "CONFIG")?,
            sessions: map(&mut programs, "SESSIONS")?,
            indices: map(&mut programs, "INDICES")?,
            peers: map(&mut programs, "PEERS")?,
            fdb: map(&mut programs, "FDB")?,
            known: map(&mut programs, "KNOWN")?,
            locals: map(&mut programs, "LOCALS")?,
            handshakes: map(&mut programs, "HANDSHAKES")?,
            hellos: map(&mut programs, "HELLOS")?,
            counters: map(&mut programs, "COUNTERS")?,
            events: map(&mut programs, "EVENTS")?,
            receiving: Table::new(),
            sending: None,
            programs,
        })
    }

    /// Begin to receive on an interface, or change the mechanism there.
    pub fn receive(&mut self, interface: u32, mechanism: Mechanism) -> io::Result<()> {
        if self.receiving.get(&interface).is_some_and(|it| it.mechanism == mechanism) {
            return Ok(());
        }
        let name = name_of(interface)?;
        // What the other mechanism attached goes first: two of our programs would judge one datagram twice.
        self.receiving.remove(&interface);
        let tc = tcx(&mut self.programs, ingress(mechanism), &name, TcAttachType::Ingress)?;
        let xdp = match mechanism {
            Mechanism::Tc => None,
            Mechanism::Xdp => Some(xdp(&mut self.programs, interface, &name)?),
        };
        self.receiving.insert(interface, Receiving { mechanism, _tc: tc, _xdp: xdp });
        Ok(())
    }

    /// Whether we receive there.
    pub fn receives(&self, interface: u32) -> bool {
        self.receiving.contains_key(&interface)
    }

    /// Receive there no longer.
    pub fn ignore(&mut self, interface: u32) {
        self.receiving.remove(&interface);
    }

    /// Begin to send what leaves the overlay interface.
    pub fn send(&mut self, overlay: u32) -> io::Result<()> {
        if self.sending.is_none() {
            let name = name_of(overlay)?;
            let link = tcx(&mut self.programs, "omni_egress", &name, TcAttachType::Egress)?;
            self.sending = Some((overlay, link));
        }
        Ok(())
    }

    /// Send no longer.
    pub fn hold(&mut self) {
        self.sending = None;
    }

    /// Program, hook and interface of what is attached.
    pub fn attached(&self) -> Vec<(&'static str, &'static str, u32)> {
        let mut all: Vec<_> = self.sending.iter().map(|it| ("omni_egress", "egress", it.0)).collect();
        for (&interface, it) in &self.receiving {
            all.push((ingress(it.mechanism), "ingress", interface));
            if it.mechanism == Mechanism::Xdp {
                all.push(("xdp_synapse", "xdp", interface));
            }
        }
        all
    }

    /// Write CONFIG.
    pub fn configure(&mut self, config: &Config) -> io::Result<()> {
        self.config.set(0, *config, 0).map_err(io::Error::other)
    }

    /// Put a whole session into a slot, or wipe the slot with zeros: in place, so that no copy of a key stays in freed
    /// memory.
    pub fn set_session(&mut self, slot: u32, session: &Session) -> io::Result<()> {
        self.sessions.set(slot, *session, LOCKED).map_err(io::Error::other)
    }

    /// A consistent copy of a session, keys included.
    pub fn session(&self, slot: u32) -> io::Result<Session> {
        self.sessions.get(&slot, LOCKED).map_err(io::Error::other)
    }

    /// Let a receiver index lead to a slot.
    pub fn set_index(&mut self, index: u32, slot: u32) -> io::Result<()> {
        self.indices.insert(index, slot, 0).map_err(io::Error::other)
    }

    /// Forget a receiver index.
    pub fn remove_index(&mut self, index: u32) {
        let _ = self.indices.remove(&index); // not there: just as well
    }

    /// Create or replace a peer.
    pub fn set_peer(&mut self, number: u32, peer: &Peer) -> io::Result<()> {
        self.peers.insert(number, *peer, 0).map_err(io::Error::other)
    }

    /// A peer as the kernel has it.
    pub fn peer(&self, number: u32) -> Option<Peer> {
        self.peers.get(&number, 0).ok()
    }

    /// Forget a peer.
    pub fn remove_peer(&mut self, number: u32) {
        let _ = self.peers.remove(&number);
    }

    /// The peer that a MAC leads to.
    pub fn mac_holder(&self, mac: [u8; 6]) -> Option<u32> {
        self.fdb.get(&mac, 0).ok()
    }

    /// Let a MAC lead to a peer.
    pub fn set_mac(&mut self, mac: [u8; 6], number: u32) -> io::Result<()> {
        self.fdb.insert(mac, number, 0).map_err(io::Error::other)
    }

    /// Let a MAC lead to nobody.
    pub fn remove_mac(&mut self, mac: [u8; 6]) {
        let _ = self.fdb.remove(&mac);
    }

    /// Add an address of our own, or take one away.
    pub fn set_local(&mut self, address: &Address, there: bool) -> io::Result<()> {
        set_member(&mut self.locals, address, there)
    }

    /// Add the endpoint of a peer, or take one away.
    pub fn set_known(&mut self, address: &Address, there: bool) -> io::Result<()> {
        set_member(&mut self.known, address, there)
    }

    /// Answers to a handshake index are awaited until an instant.
    pub fn await_handshake(&mut self, index: u32, until: u64) -> io::Result<()> {
        self.handshakes.insert(index, until, 0).map_err(io::Error::other)
    }

    /// A HELLO_REPLY from an endpoint is awaited until an instant.
    pub fn await_hello(&mut self, endpoint: SocketAddr, until: u64) -> io::Result<()> {
        self.hellos.insert(layout::address(endpoint), until, 0).map_err(io::Error::other)
    }

    /// All counters, the sum of all CPUs.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let sum = |number: usize| self.counters.get(&(number as u32), 0).map_or(0, |it| it.iter().sum());
        layout::COUNTERS.iter().enumerate().map(|(number, name)| (*name, sum(number))).collect()
    }

    /// Run a program on a packet: its verdict, the packet afterwards, nanoseconds of one run.
    pub fn test_run(&mut self, name: &str, packet: &[u8], repeat: u32) -> io::Result<(u32, Vec<u8>, u64)> {
        let mut out = vec![0; packet.len() + 512];
        let options = TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), repeat, ..Default::default() };
        let result = if name == "xdp_synapse" {
            program::<Xdp>(&mut self.programs, name)?.test_run(options)
        } else {
            let it = classifier(&mut self.programs, name)?;
            if it.fd().is_err() {
                it.load().map_err(|it| program_error(name, it))?;
            }
            it.test_run(options)
        };
        let result = result.map_err(|it| program_error(name, it))?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out, result.duration.as_nanos() as u64))
    }
}

/// Put an address into a set, or take it away; what is not there is no error.
fn set_member(set: &mut HashMap<MapData, Address, u32>, address: &Address, there: bool) -> io::Result<()> {
    if there {
        return set.insert(*address, 1, 0).map_err(io::Error::other);
    }
    let _ = set.remove(address);
    Ok(())
}

/// Whether this kernel is new enough: an error that says what is missing.
fn supported() -> io::Result<()> {
    let version = KernelVersion::current().map_err(io::Error::other)?;
    if version < KernelVersion::new(6, 6, 0) {
        let sentence = "this kernel is older than 6.6, the first with the links (TCX) that end with their process";
        return Err(io::Error::new(io::ErrorKind::Unsupported, sentence));
    }
    if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        let sentence = "this kernel was built without BTF (no /sys/kernel/btf/vmlinux)";
        return Err(io::Error::new(io::ErrorKind::Unsupported, sentence));
    }
    Ok(())
}

fn program<'a, P>(programs: &'a mut Ebpf, name: &str) -> io::Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let found = programs.program_mut(name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, name.to_owned()))?;
    found.try_into().map_err(io::Error::other)
}

fn classifier<'a>(programs: &'a mut Ebpf, name: &str) -> io::Result<&'a mut SchedClassifier> {
    program(programs, name)
}

fn map<M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(programs: &mut Ebpf, name: &str) -> io::Result<M> {
    let found = programs.take_map(name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, name.to_owned()))?;
    M::try_from(found).map_err(io::Error::other)
}

/// What stands at the ingress of an interface.
fn ingress(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::Tc => "tc_synapse",
        Mechanism::Xdp => "tc_opened",
    }
}

fn tcx(programs: &mut Ebpf, name: &str, interface: &str, hook: TcAttachType) -> io::Result<FdLink> {
    let it = classifier(programs, name)?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = it.attach_with_options(interface, hook, options).map_err(|it| attach_error(interface, it))?;
    let link: SchedClassifierLink = it.take_link(id).map_err(io::Error::other)?;
    link.try_into().map_err(|_| io::Error::other("the kernel gave no link for TCX"))
}

fn xdp(programs: &mut Ebpf, interface: u32, name: &str) -> io::Result<FdLink> {
    let it: &mut Xdp = program(programs, "xdp_synapse")?;
    let id = it.attach_to_if_index(interface, XdpMode::Driver).map_err(|it| attach_error(name, it))?;
    let link: XdpLink = it.take_link(id).map_err(io::Error::other)?;
    // What is no link would outlive us: dropping it here detaches it.
    link.try_into().map_err(|_| io::Error::new(io::ErrorKind::Unsupported, "the kernel gave no link for XDP"))
}

fn name_of(interface: u32) -> io::Result<String> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    Ok(rustix::net::netdevice::index_to_name(socket, interface)?)
}

/// The innermost cause, with what was tried.
fn cause(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut at = Some(error);
    while let Some(it) = at {
        if let Some(number) = it.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        at = it.source();
    }
    None
}

fn refused(error: EbpfError) -> io::Error {
    sentence("the kernel refused the reflex lane's maps", cause(&error), &error.to_string())
}

fn program_error(name: &str, error: ProgramError) -> io::Error {
    if let ProgramError::LoadError { verifier_log, io_error } = &error {
        let log = verifier_log.to_string();
        let last =
            log.lines().rev().find(|it| !it.trim().is_empty() && !it.starts_with("processed")).unwrap_or_default();
        return sentence(&format!("the kernel refused {name}"), io_error.raw_os_error(), last);
    }
    sentence(&format!("{name} could not be run"), cause(&error), &error.to_string())
}

fn attach_error(interface: &str, error: ProgramError) -> io::Error {
    sentence(&format!("cannot attach to {interface}"), cause(&error), &error.to_string())
}

/// An error with the kernel's number and one sentence.
fn sentence(what: &str, number: Option<i32>, more: &str) -> io::Error {
    let Some(number) = number else { return io::Error::other(format!("{what}: {more}")) };
    let known = io::Error::from_raw_os_error(number);
    io::Error::new(known.kind(), Refusal { number, text: format!("{what}: {known} ({more})") })
}

/// Carries the kernel's error number beside the sentence.
#[derive(Debug)]
pub struct Refusal {
    /// errno.
    pub number: i32,
    text: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&self.text)
    }
}

impl std::error::Error for Refusal {}
