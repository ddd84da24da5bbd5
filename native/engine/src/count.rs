//! Counters that any thread may raise: drops by reason, and totals.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::LANES;

macro_rules! reasons {
    ($($name:ident $text:literal,)*) => {
        /// Why something was dropped; the names are those of `synapse/datapath.py`.
        #[allow(missing_docs)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Drop { $($name),* }

        const NAMES: &[&str] = &[$($text),*];
    };
}

reasons! {
    AllowedIps "allowed_ips", ArpLocal "arp_local", BadFrame "bad_frame", BadLength "bad_length", BadPayload "bad_payload",
    BadTag "bad_tag", BadType "bad_type", BridgedSource "bridged_source", CounterLimit "counter_limit",
    DestinationGuard "destination_guard", Ecn "ecn", EventOverflow "event_overflow", Expired "expired", Fragment "fragment",
    FragmentMemory "fragment_memory", FrameTooBig "frame_too_big", Lane "lane", NoEndpoint "no_endpoint",
    NoMembership "no_membership", NoPeers "no_peers", NoSession "no_session", NoSocket "no_socket", NotIp "not_ip",
    PayloadKind "payload_kind", Redirect "redirect", ReflectionBudget "reflection_budget", Relayed "relayed",
    Replay "replay", RouterAdvertisement "router_advertisement", Runt "runt", SendBuffer "send_buffer",
    SourceGuard "source_guard", TapRead "tap_read", TapWrite "tap_write", TooBig "too_big",
    UnderlayError "underlay_error", UnderlayReceive "underlay_receive", UnknownSession "unknown_session",
    Unresolved "unresolved", VnetHeader "vnet_header",
}

/// Datagrams of one lane and their UDP payload bytes: rx authenticated, tx sealed.
#[derive(Default)]
pub struct Lane {
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
}

/// All counters of an engine.
pub struct Counters {
    drops: [AtomicU64; NAMES.len()],
    lanes: [Lane; LANES],
}

impl Default for Counters {
    fn default() -> Self {
        Self { drops: [const { AtomicU64::new(0) }; NAMES.len()], lanes: Default::default() }
    }
}

impl Counters {
    /// Count one drop.
    pub fn drop(&self, reason: Drop) {
        self.drops[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Count a datagram that was authenticated.
    pub fn received(&self, lane: usize, bytes: usize) {
        self.lanes[lane].rx_packets.fetch_add(1, Ordering::Relaxed);
        self.lanes[lane].rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Count a datagram that was sealed.
    pub fn sealed(&self, lane: usize, bytes: usize) {
        self.lanes[lane].tx_packets.fetch_add(1, Ordering::Relaxed);
        self.lanes[lane].tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Totals of each lane, from lane 0 on.
    pub fn lanes(&self) -> impl Iterator<Item = [(&'static str, u64); 4]> {
        self.lanes.iter().map(|it| {
            [
                ("rx_packets", &it.rx_packets),
                ("rx_bytes", &it.rx_bytes),
                ("tx_packets", &it.tx_packets),
                ("tx_bytes", &it.tx_bytes),
            ]
            .map(|(name, total)| (name, total.load(Ordering::Relaxed)))
        })
    }

    /// Drop counters that are not zero, by name.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.iter().zip(&self.drops).map(|(name, it)| (*name, it.load(Ordering::Relaxed))).filter(|it| it.1 > 0)
    }
}
