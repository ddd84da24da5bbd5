//! Counters that any thread may raise: drops by reason, and totals.

use std::sync::atomic::{AtomicU64, Ordering};

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

/// All counters of an engine.
pub struct Counters {
    drops: [AtomicU64; NAMES.len()],
    /// Authenticated transport datagrams received, and their UDP payload bytes.
    pub rx_packets: AtomicU64,
    /// See `rx_packets`.
    pub rx_bytes: AtomicU64,
    /// Sealed datagrams, and their UDP payload bytes.
    pub tx_packets: AtomicU64,
    /// See `tx_packets`.
    pub tx_bytes: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            drops: [const { AtomicU64::new(0) }; NAMES.len()],
            rx_packets: zero(),
            rx_bytes: zero(),
            tx_packets: zero(),
            tx_bytes: zero(),
        }
    }
}

impl Counters {
    /// Count one drop.
    pub fn drop(&self, reason: Drop) {
        self.drops[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Count datagrams of `bytes` in all that were authenticated.
    pub fn received(&self, bytes: usize) {
        self.rx_packets.fetch_add(1, Ordering::Relaxed);
        self.rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Count a datagram that was sealed.
    pub fn sealed(&self, packets: usize, bytes: usize) {
        self.tx_packets.fetch_add(packets as u64, Ordering::Relaxed);
        self.tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Drop counters that are not zero, by name.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.iter().zip(&self.drops).map(|(name, it)| (*name, it.load(Ordering::Relaxed))).filter(|it| it.1 > 0)
    }
}
