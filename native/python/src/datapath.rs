//! `NativeDatapath`: the engine crate without threads and descriptors. Differential tests drive it beside
//! `synapse/datapath.py`; every instant is an argument, a boot-time second.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use omninervous_engine::count::Drop;
use omninervous_engine::inbound::{Arrived, Receiver};
use omninervous_engine::merge::Write;
use omninervous_engine::outbound::{Sender, Shared, Wire};
use omninervous_engine::table::PeerId;
use omninervous_engine::vnet::{VNET_HEADER, Vnet};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::tables::{Address, Tables, address, nanoseconds, parse, tuple};

/// One edge's data plane: frames and datagrams in, datagrams, writes and events out.
#[pyclass(frozen, extends = Tables)]
pub struct NativeDatapath {
    shared: Arc<Shared>,
    ends: Mutex<Ends>,
}

/// One thread of each kind, and what came out of them.
#[derive(Default)]
struct Ends {
    sender: Sender,
    receiver: Receiver,
    wire: Sent,
    /// Datagrams that arrived, opened in place: `ready` points into them.
    buffers: Vec<Vec<u8>>,
    ready: Vec<Write>,
}

#[derive(Default)]
struct Sent(Vec<(SocketAddr, Vec<u8>, u8)>);

impl Wire for Sent {
    fn send(&mut self, to: SocketAddr, contents: &[u8], segment: usize, class: u8) {
        self.0.extend(contents.chunks(segment).map(|it| (to, it.to_vec(), class)));
    }
}

type Datagram<'py> = (Address, Bound<'py, PyBytes>, u8);
type TapWrite<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>);
type Output<'py> = (Vec<Datagram<'py>>, Vec<TapWrite<'py>>, Vec<Bound<'py, PyTuple>>);

#[pymethods]
impl NativeDatapath {
    #[new]
    fn new(own_mac: [u8; 6]) -> PyClassInitializer<Self> {
        let shared = Arc::new(Shared::new(own_mac));
        let tables = Tables::new(Arc::clone(&shared));
        PyClassInitializer::from(tables).add_subclass(Self { shared, ends: Mutex::default() })
    }

    /// A frame as a TAP gives it, with its virtio header.
    #[pyo3(name = "from_tap")]
    fn tap(&self, now: f64, vnet: [u8; VNET_HEADER], frame: &[u8]) {
        let Ends { sender, wire, .. } = &mut *self.ends();
        match Vnet::decode(&vnet) {
            Some(vnet) => {
                let table = self.shared.read();
                sender.tap(&self.shared, &table, nanoseconds(now), &vnet, &mut frame.to_vec(), wire);
            }
            None => self.shared.counters.drop(Drop::VnetHeader),
        }
        sender.flush(wire);
    }

    /// A datagram from anywhere. What can be merged is held back until `take`.
    #[pyo3(name = "from_underlay", signature = (now, host, port, data, ecn=0))]
    fn underlay(&self, now: f64, host: &str, port: u16, data: &[u8], ecn: u8) -> PyResult<()> {
        let source = parse(&(host.to_owned(), port))?;
        let Ends { receiver, buffers, ready, .. } = &mut *self.ends();
        let from = Arrived { source, buffer: buffers.len(), start: 0, ecn };
        let mut data = data.to_vec();
        receiver.datagram(&self.shared, &self.shared.read(), nanoseconds(now), from, &mut data, ready);
        buffers.push(data);
        Ok(())
    }

    fn send_datagram(&self, endpoint: Address, data: &[u8]) -> PyResult<()> {
        self.ends().wire.send(parse(&endpoint)?, data, data.len(), 0);
        Ok(())
    }

    fn send_control(&self, now: f64, local_index: u32, payload: &[u8], endpoint: Option<Address>) -> PyResult<()> {
        let endpoint = endpoint.as_ref().map(parse).transpose()?;
        let Ends { sender, wire, .. } = &mut *self.ends();
        let table = self.shared.read();
        if let Some(entry) = table.session(local_index) {
            sender.control(&self.shared, &table, nanoseconds(now), entry, payload, endpoint, wire);
            sender.flush(wire);
        }
        Ok(())
    }

    fn send_frames(&self, now: f64, peer: PeerId, frames: Vec<Vec<u8>>) {
        let Ends { sender, wire, .. } = &mut *self.ends();
        let table = self.shared.read();
        if let Some(row) = table.row(&peer) {
            frames.iter().for_each(|it| sender.waited(&self.shared, &table, nanoseconds(now), row, it, wire));
            sender.flush(wire);
        }
    }

    fn deliver_frames(&self, frames: Vec<Vec<u8>>) {
        let Ends { receiver, ready, .. } = &mut *self.ends();
        receiver.flush(ready);
        ready.extend(frames.into_iter().map(|headers| Write { vnet: Vnet::PLAIN, headers, pieces: vec![] }));
    }

    /// Time has passed: forget payloads whose fragments never came.
    fn timeout(&self, now: f64) {
        self.shared.read().expire_fragments(nanoseconds(now));
    }

    /// Skip sequence numbers of a lane that sends.
    fn skip(&self, local_index: u32, lane: usize, count: u64) {
        if let Some(entry) = self.shared.read().session(local_index) {
            // At the limit, all that are left are lost.
            let _ = entry.session.reserve(lane, count);
        }
    }

    /// All output since the last call: datagrams with their addresses and traffic classes, frames with their virtio headers, events.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Output<'py>> {
        let bytes = |it: &[u8]| PyBytes::new(py, it);
        let Ends { receiver, wire, buffers, ready, .. } = &mut *self.ends();
        receiver.flush(ready);
        let datagrams = wire.0.drain(..).map(|(to, data, class)| (address(to), bytes(&data), class)).collect();
        let mut writes = vec![];
        for write in ready.drain(..) {
            let mut frame = write.headers.clone();
            write.pieces.iter().for_each(|it| frame.extend(&buffers[it.buffer][it.start..it.start + it.len]));
            writes.push((bytes(&write.vnet.encode()), bytes(&frame)));
            receiver.recycle(write);
        }
        buffers.clear();
        let events = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok((datagrams, writes, events.into_iter().map(|it| tuple(py, it)).collect::<PyResult<_>>()?))
    }
}

impl NativeDatapath {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
