//! What a native Synapse computes: no system calls, no clocks, no unsafe code.
//!
//! `outbound` turns frames of the local stack into sealed datagrams, `inbound` the reverse; `table` is what both read.
//! `synapse/datapath.py` is the oracle: the differential tests hold this crate to its verdicts and bytes.

#![forbid(unsafe_code)]

pub mod checksum;
mod cipher;
pub mod count;
pub mod cpu;
pub mod event;
pub mod fragment;
pub mod guard;
pub mod inbound;
pub mod ip;
pub mod merge;
pub mod outbound;
pub mod packet;
pub mod queue;
pub mod replay;
pub mod resolve;
pub mod session;
pub mod split;
pub mod table;
pub mod traffic_class;
pub mod vnet;
