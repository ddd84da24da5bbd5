//! `NativeEngine`: the driver crate's threads, taking and giving plain Python values.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use omninervous_driver::{Descriptors, Engine};
use omninervous_engine::table::PeerId;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::tables::{Address, Tables, parse, tuple};

/// The native engine: threads between a TAP and UDP sockets. The descriptors are duplicated; `queues` has one of the TAP and
/// those of the sockets for each queue.
#[pyclass(frozen, extends = Tables)]
pub struct NativeEngine {
    engine: Engine,
}

#[pymethods]
impl NativeEngine {
    #[new]
    fn new(queues: Vec<(i32, Vec<i32>)>, own_mac: [u8; 6]) -> PyResult<PyClassInitializer<Self>> {
        let socket = |it| Ok(UdpSocket::from(omninervous_sysio::duplicate(it)?));
        let queue = |(tap, sockets): (i32, Vec<i32>)| {
            let tap = omninervous_sysio::duplicate(tap)?;
            Ok(Descriptors { tap, sockets: sockets.into_iter().map(socket).collect::<io::Result<_>>()? })
        };
        let engine = Engine::start(queues.into_iter().map(queue).collect::<io::Result<_>>()?, own_mac)?;
        let tables = Tables::new(Arc::clone(engine.shared()));
        Ok(PyClassInitializer::from(tables).add_subclass(Self { engine }))
    }

    fn fileno(&self) -> i32 {
        self.engine.signal().as_raw_fd()
    }

    fn send_datagram(&self, py: Python<'_>, endpoint: Address, data: &[u8]) -> PyResult<()> {
        let endpoint = parse(&endpoint)?;
        py.detach(|| self.engine.send_datagram(endpoint, data));
        Ok(())
    }

    fn send_control(
        &self, py: Python<'_>, local_index: u32, payload: &[u8], endpoint: Option<Address>,
    ) -> PyResult<()> {
        let endpoint = endpoint.as_ref().map(parse).transpose()?;
        py.detach(|| self.engine.send_control(local_index, payload, endpoint));
        Ok(())
    }

    fn send_frames(&self, py: Python<'_>, peer: PeerId, frames: Vec<Vec<u8>>) {
        py.detach(|| self.engine.send_frames(&peer, &frames));
    }

    fn deliver_frames(&self, py: Python<'_>, frames: Vec<Vec<u8>>) {
        py.detach(|| frames.iter().for_each(|it| self.engine.deliver(it)));
    }

    /// All events since the last call.
    fn events<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        py.detach(|| self.engine.events()).into_iter().map(|it| tuple(py, it)).collect()
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.engine.close());
    }
}
