//! The reflex lane: programs in the kernel seal and open single frames of lane 8 (bpf/synapse.bpf.c), this crate loads
//! them and keeps their maps. Nothing here sees a packet.
//!
//! ```text
//! lane    what the control plane says -> which entries the maps hold
//! kernel  programs, links and maps, by the aya crate
//! layout  values of the maps, byte for byte as in bpf/shared.h
//! route   own addresses and ways to others, by netlink
//! ```

#![forbid(unsafe_code)]

pub mod kernel;
pub mod lane;
pub mod layout;
pub mod route;

/// Why the programs cannot run here, in a sentence; None if they can. Loads them and lets them go.
#[must_use]
pub fn error() -> Option<String> {
    kernel::Kernel::load(1).err().map(|it| it.to_string())
}
