//! `Tables`: what every engine class takes and tells, whoever drives it. Commands and events get their names in
//! `synapse/native.py`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use omninervous_engine::event::Event;
use omninervous_engine::outbound::Shared;
use omninervous_engine::session::{Aead, LANES, LaneKeys, Session};
use omninervous_engine::table::{Entry, Link, PeerId, Policy, Prefix, Row};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use zeroize::Zeroizing;

/// Host and port.
pub(crate) type Address = (String, u16);
type LaneTuple = (usize, u8, [u8; 32], [u8; 32]);
type ActivityTuple<Id> = (Id, u32, [f64; 4], [u64; 4]);

/// Peers, sessions and counters of an engine.
#[pyclass(frozen, subclass)]
pub struct Tables {
    shared: Arc<Shared>,
}

impl Tables {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[pymethods]
impl Tables {
    #[allow(clippy::too_many_arguments)]
    fn set_peer(
        &self, py: Python<'_>, peer: PeerId, link: &str, mac: Option<[u8; 6]>, addresses: Vec<Vec<u8>>,
        allowed: Vec<(Vec<u8>, u8)>, mtu: usize, fragment_id: u32,
    ) -> PyResult<()> {
        let policy = Policy {
            link: match link {
                "ethernet" => Link::Ethernet,
                "ip" => Link::Ip,
                "signalling" => Link::Signalling,
                _ => return Err(PyValueError::new_err(format!("link {link:?}"))),
            },
            mac,
            ipv4: addresses.iter().filter_map(|it| it.as_slice().try_into().ok()).collect(),
            ipv6: addresses.iter().filter_map(|it| it.as_slice().try_into().ok()).collect(),
            allowed: allowed.into_iter().map(|(address, bits)| Prefix { address, bits }).collect(),
            mtu,
        };
        py.detach(|| self.shared.write().set_peer(peer, &policy, fragment_id));
        Ok(())
    }

    fn remove_peer(&self, py: Python<'_>, peer: PeerId) {
        py.detach(|| self.shared.write().remove_peer(&peer));
    }

    fn set_flood(&self, py: Python<'_>, peers: Vec<PeerId>) {
        py.detach(|| self.shared.write().set_flood(peers));
    }

    #[allow(clippy::too_many_arguments)]
    fn install_session(
        &self, py: Python<'_>, peer: PeerId, local_index: u32, remote_index: u32, send_key: [u8; 32],
        recv_key: [u8; 32], expires_at: f64,
    ) {
        let session = Session::new(remote_index, &lane_keys(Aead::ChaCha20Poly1305, send_key, recv_key));
        let expires_at = nanoseconds(expires_at);
        py.detach(|| self.shared.write().install_session(&peer, local_index, expires_at, session));
    }

    fn open_lanes(&self, py: Python<'_>, local_index: u32, lanes: Vec<LaneTuple>, tx: Vec<usize>) {
        py.detach(|| {
            let table = self.shared.write();
            let Some(entry) = table.session(local_index) else { return };
            for (lane, aead, send, recv) in lanes {
                let aead = if aead == 0 { Aead::ChaCha20Poly1305 } else { Aead::Aes256Gcm };
                entry.session.open_lane(lane, &lane_keys(aead, send, recv));
            }
            let open = tx.into_iter().filter(|it| *it < LANES).fold(0, |lanes, it| lanes | 1 << it);
            entry.tx_lanes.store(open, Ordering::Relaxed);
        });
    }

    fn select_session(&self, py: Python<'_>, peer: PeerId, local_index: u32) {
        py.detach(|| self.shared.write().select_session(&peer, local_index));
    }

    fn remove_session(&self, py: Python<'_>, local_index: u32) {
        py.detach(|| self.shared.write().remove_session(local_index));
    }

    fn set_endpoint(&self, py: Python<'_>, peer: PeerId, endpoint: Address, budget: Option<u64>) -> PyResult<()> {
        let endpoint = parse(&endpoint)?;
        py.detach(|| self.shared.write().set_endpoint(&peer, endpoint, budget));
        Ok(())
    }

    /// For every session: peer, local index, (tx, tx data, rx, rx data) in boot-time seconds, (tx packets, tx bytes, rx
    /// packets, rx bytes).
    fn activity(&self, py: Python<'_>) -> Vec<ActivityTuple<Py<PyBytes>>> {
        let read = |it: &AtomicU64| it.load(Ordering::Relaxed);
        let seconds = |it: &AtomicU64| read(it) as f64 / 1e9;
        let one = |it: &Arc<Entry>| {
            let did = &it.activity;
            let times = [&did.tx_at, &did.tx_data_at, &did.rx_at, &did.rx_data_at].map(seconds);
            let counts = [&did.tx_packets, &did.tx_bytes, &did.rx_packets, &did.rx_bytes].map(read);
            (it.peer.id, it.local_index, times, counts)
        };
        let collect = || self.shared.read().sessions().map(one).collect::<Vec<ActivityTuple<PeerId>>>();
        let named = |(peer, index, times, counts): ActivityTuple<PeerId>| {
            (PyBytes::new(py, &peer).unbind(), index, times, counts)
        };
        py.detach(collect).into_iter().map(named).collect()
    }

    /// Totals since start, by name.
    fn counters(&self, py: Python<'_>) -> Vec<(String, u64)> {
        let all = &self.shared.counters;
        let mut totals: Vec<(String, u64)> = vec![];
        for (lane, counts) in all.lanes().enumerate() {
            for (position, (name, count)) in counts.into_iter().enumerate() {
                if lane == 0 {
                    totals.push((name.to_owned(), 0));
                }
                totals[position].1 += count;
            }
            totals.extend(counts.iter().filter(|it| it.1 > 0).map(|it| (format!("lane{lane}_{}", it.0), it.1)));
        }
        let given_up = py.detach(|| self.shared.read().pool().given_up());
        let drops = all.dropped().chain(given_up.into_iter().filter(|it| it.1 > 0));
        totals.into_iter().chain(drops.map(|(name, count)| (format!("drop_{name}"), count))).collect()
    }

    /// MACs of peers whose frames were delivered here, with the boot-time second of the newest.
    fn learned(&self, py: Python<'_>) -> Vec<(Py<PyBytes>, f64)> {
        let one = |it: &Row| {
            let at = it.peer.delivered_at.load(Ordering::Relaxed);
            it.mac.filter(|_| at > 0).map(|mac| (mac, at))
        };
        let mut all: Vec<_> = py.detach(|| self.shared.read().rows().filter_map(one).collect());
        // Two peers may claim one MAC: the newest comes last, and wins in a dict.
        all.sort_unstable_by_key(|it| it.1);
        all.into_iter().map(|(mac, at)| (PyBytes::new(py, &mac).unbind(), at as f64 / 1e9)).collect()
    }
}

fn lane_keys(aead: Aead, send: [u8; 32], recv: [u8; 32]) -> LaneKeys {
    LaneKeys { aead, send: Zeroizing::new(send), recv: Zeroizing::new(recv) }
}

/// A boot-time second as the engine counts it.
pub(crate) fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

pub(crate) fn parse(endpoint: &Address) -> PyResult<SocketAddr> {
    let host: IpAddr = endpoint.0.parse().map_err(|_| PyValueError::new_err(format!("address {:?}", endpoint.0)))?;
    Ok(SocketAddr::new(host, endpoint.1))
}

pub(crate) fn address(it: SocketAddr) -> Address {
    (it.ip().to_canonical().to_string(), it.port())
}

/// An event: the kind's name, then its fields in the order of `core/dataplane.py`.
pub(crate) fn tuple(py: Python<'_>, event: Event) -> PyResult<Bound<'_, PyTuple>> {
    let bytes = |it: &[u8]| PyBytes::new(py, it);
    match event {
        Event::DatagramReceived { source, data } => ("datagram", address(source), bytes(&data)).into_pyobject(py),
        Event::SessionConfirmed { peer, local_index, source } => {
            ("confirmed", bytes(&peer), local_index, address(source)).into_pyobject(py)
        }
        Event::ControlReceived { peer, local_index, payload, source, size } => {
            ("control", bytes(&peer), local_index, bytes(&payload), address(source), size).into_pyobject(py)
        }
        Event::SourceChanged { peer, local_index, source, size } => {
            ("source", bytes(&peer), local_index, address(source), size).into_pyobject(py)
        }
        Event::FrameWithoutSession { peer, frame } => ("waiting", bytes(&peer), bytes(&frame)).into_pyobject(py),
        Event::FrameUnresolved { frame } => ("unresolved", bytes(&frame)).into_pyobject(py),
        Event::SessionExhausted { peer, local_index } => ("exhausted", bytes(&peer), local_index).into_pyobject(py),
        Event::UnderlayError { endpoint, errno } => ("error", address(endpoint), errno).into_pyobject(py),
    }
}
