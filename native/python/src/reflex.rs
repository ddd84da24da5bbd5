//! `Reflex`: the reflex crate's lane, taking and giving plain Python values. Times are boot-time seconds.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use omninervous_reflex::kernel::{Mechanism, Refusal};
use omninervous_reflex::lane::{Event, Lane, PeerId};
use omninervous_reflex::layout::Own;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use zeroize::Zeroizing;

use crate::tables::{Address, address, nanoseconds, parse};

/// Initiations of a source, before `limit` says otherwise.
const RATE: u32 = 50;

type Activity = (Py<PyBytes>, u32, [f64; 4], [u64; 4]);

/// The kernel lane of one edge. What it holds in the kernel ends with it, or with the process.
#[pyclass(frozen)]
pub struct Reflex {
    lane: Mutex<Option<Lane>>,
}

impl Reflex {
    fn lane(&self) -> MutexGuard<'_, Option<Lane>> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Do something unless it is closed.
    fn with<T: Default + Send>(
        &self, py: Python<'_>, what: impl FnOnce(&mut Lane) -> io::Result<T> + Send,
    ) -> PyResult<T> {
        py.detach(|| self.lane().as_mut().map_or(Ok(T::default()), what)).map_err(|it| os_error(&it))
    }
}

#[pymethods]
impl Reflex {
    #[new]
    #[pyo3(signature = (overlay, own_mac, mac1_key, port, sessions = 2048))]
    fn new(
        py: Python<'_>, overlay: u32, own_mac: [u8; 6], mac1_key: [u8; 32], port: u16, sessions: u32,
    ) -> PyResult<Self> {
        let own = Own { overlay, mac: own_mac, mac1_key, port, rate: RATE, cookies: ([0; 32], 0) };
        let lane = py.detach(|| Lane::open(own, sessions)).map_err(|it| os_error(&it))?;
        Ok(Self { lane: Mutex::new(Some(lane)) })
    }

    fn limit(&self, py: Python<'_>, rate: u32) -> PyResult<()> {
        self.with(py, |it| it.limit(rate))
    }

    fn trust_cookies(&self, py: Python<'_>, secret: [u8; 32], until: f64) -> PyResult<()> {
        self.with(py, |it| it.trust_cookies(secret, nanoseconds(until)))
    }

    fn attach_underlay(&self, py: Python<'_>, ifindex: u32, mechanism: &str) -> PyResult<()> {
        let mechanism =
            Mechanism::named(mechanism).ok_or_else(|| PyValueError::new_err(format!("mechanism {mechanism:?}")))?;
        self.with(py, |it| it.receive(ifindex, mechanism))
    }

    fn detach_underlay(&self, py: Python<'_>, ifindex: u32) -> PyResult<()> {
        self.with(py, |it| it.ignore(ifindex))
    }

    fn attach_overlay(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Lane::send)
    }

    fn detach_overlay(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |it| {
            it.hold();
            Ok(())
        })
    }

    fn set_peer(
        &self, py: Python<'_>, peer: PeerId, mac: Option<[u8; 6]>, addresses: Vec<Vec<u8>>, mtu: u16,
    ) -> PyResult<()> {
        self.with(py, |it| it.set_peer(peer, mac, &addresses, mtu))
    }

    fn remove_peer(&self, py: Python<'_>, peer: PeerId) -> PyResult<()> {
        self.with(py, |it| it.remove_peer(&peer))
    }

    fn install_session(
        &self, py: Python<'_>, peer: PeerId, local_index: u32, remote_index: u32, expires_at: f64,
    ) -> PyResult<()> {
        self.with(py, |it| it.install_session(peer, local_index, remote_index, nanoseconds(expires_at)))
    }

    fn open_lane(
        &self, py: Python<'_>, local_index: u32, send_key: [u8; 32], recv_key: [u8; 32], send: bool,
    ) -> PyResult<bool> {
        let (send_key, recv_key) = (Zeroizing::new(send_key), Zeroizing::new(recv_key));
        self.with(py, |it| it.open_lane(local_index, &send_key, &recv_key, send))
    }

    fn select_session(&self, py: Python<'_>, peer: PeerId, local_index: u32) -> PyResult<()> {
        self.with(py, |it| it.select_session(&peer, local_index))
    }

    fn watch(&self, py: Python<'_>, peer: PeerId, on: bool) -> PyResult<()> {
        self.with(py, |it| it.watch(&peer, on))
    }

    fn remove_session(&self, py: Python<'_>, local_index: u32) -> PyResult<()> {
        self.with(py, |it| it.remove_session(local_index))
    }

    fn set_endpoint(&self, py: Python<'_>, peer: PeerId, endpoint: Address, proven: bool) -> PyResult<()> {
        let endpoint = parse(&endpoint)?;
        self.with(py, |it| it.set_endpoint(&peer, endpoint, proven))
    }

    fn note_datagram(&self, py: Python<'_>, endpoint: Address, data: &[u8]) -> PyResult<()> {
        let endpoint = parse(&endpoint)?;
        self.with(py, |it| it.note_datagram(endpoint, data))
    }

    fn tick(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Lane::tick)
    }

    fn fileno(&self) -> PyResult<i32> {
        self.lane().as_ref().map(Lane::signal).ok_or_else(|| PyValueError::new_err("closed"))
    }

    /// All events since the last call.
    fn events<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let all = self.with(py, |it| Ok(it.events()))?;
        all.into_iter().map(|it| tuple(py, &it)).collect()
    }

    /// For every session with the lane: peer, local index, (tx, tx data, rx, rx data) in boot-time seconds, (tx
    /// packets, tx bytes, rx packets, rx bytes).
    fn activity(&self, py: Python<'_>) -> PyResult<Vec<Activity>> {
        let seconds = |it: u64| it as f64 / 1e9;
        let one = |(peer, index, times, counts): (PeerId, u32, [u64; 3], [u64; 4])| {
            let [sent, received, data] = times.map(seconds);
            // All that this lane sends is frames.
            (PyBytes::new(py, &peer).unbind(), index, [sent, sent, received, data], counts)
        };
        Ok(self.with(py, |it| Ok(it.activity()))?.into_iter().map(one).collect())
    }

    /// Totals since start, by name.
    fn counters(&self, py: Python<'_>) -> PyResult<Vec<(&'static str, u64)>> {
        self.with(py, |it| Ok(it.counters()))
    }

    /// MACs of peers whose frames were delivered here, with the boot-time second of the newest.
    fn learned(&self, py: Python<'_>) -> PyResult<Vec<(Py<PyBytes>, f64)>> {
        let all = self.with(py, |it| Ok(it.learned()))?;
        Ok(all.into_iter().map(|(mac, at)| (PyBytes::new(py, &mac).unbind(), at as f64 / 1e9)).collect())
    }

    /// What is attached: program, hook, interface index.
    fn programs(&self, py: Python<'_>) -> PyResult<Vec<(&'static str, &'static str, u32)>> {
        self.with(py, |it| Ok(it.attached()))
    }

    /// Run a program on a packet: verdict, packet afterwards, nanoseconds of one run.
    #[pyo3(signature = (program, packet, repeat = 1))]
    fn test_run<'py>(
        &self, py: Python<'py>, program: &str, packet: &[u8], repeat: u32,
    ) -> PyResult<(u32, Bound<'py, PyBytes>, u64)> {
        let (verdict, after, time) = self.with(py, |it| it.test_run(program, packet, repeat))?;
        Ok((verdict, PyBytes::new(py, &after), time))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.lane().take()));
    }
}

fn tuple<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyTuple>> {
    match event {
        Event::Confirmed(peer, index, source) => {
            ("confirmed", PyBytes::new(py, peer), index, address(*source)).into_pyobject(py)
        }
        Event::Source(peer, index, source, size) => {
            ("source", PyBytes::new(py, peer), index, address(*source), size).into_pyobject(py)
        }
        Event::Exhausted(peer, index) => ("exhausted", PyBytes::new(py, peer), index).into_pyobject(py),
    }
}

/// OSError with the kernel's number, where there is one.
fn os_error(error: &io::Error) -> PyErr {
    let refusal = error.get_ref().and_then(|it| it.downcast_ref::<Refusal>()).map(|it| it.number);
    match refusal.or(error.raw_os_error()) {
        Some(number) => PyOSError::new_err((number, error.to_string())),
        None => PyOSError::new_err(error.to_string()),
    }
}
