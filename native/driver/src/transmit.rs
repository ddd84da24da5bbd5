//! TAP -> sockets.

use omninervous_engine::count::Drop;
use omninervous_engine::outbound::Sender;
use omninervous_engine::vnet::{VNET_HEADER, Vnet};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::{Common, End, REST, now};

const LARGEST_FRAME: usize = VNET_HEADER + 65_535 + 22;
/// Frames between two looks at the clock and at what commands have changed.
const TURN: usize = 32;

/// One thread's way outward.
pub(crate) struct Outward<'a> {
    common: &'a Common,
    end: &'a End,
    sender: Sender,
    buffer: Vec<u8>,
    /// The TAP failed: it is left alone until then.
    rests_until: u64,
}

pub(crate) fn run(common: &Common, end: &End) {
    let mut outward = Outward::new(common, end);
    let mut fds = [PollFd::new(&common.wake, PollFlags::IN), PollFd::new(&end.tap, PollFlags::IN)];
    while !common.closing() {
        let rests = outward.rests();
        let awake = if rests { 1 } else { 2 };
        let _ = poll(&mut fds[..awake], rests.then_some(&REST));
        if awake == 2 && !fds[1].revents().is_empty() {
            outward.take();
        }
    }
}

impl<'a> Outward<'a> {
    pub(crate) fn new(common: &'a Common, end: &'a End) -> Self {
        let (sender, buffer) = (Sender::new(end.queue), vec![0; LARGEST_FRAME]);
        Self { common, end, sender, buffer, rests_until: 0 }
    }

    /// Whether the TAP is to be left alone for now.
    pub(crate) fn rests(&self) -> bool {
        self.rests_until > 0 && now() < self.rests_until
    }

    /// One turn: read, seal, send, until the TAP is empty or others have waited long enough.
    pub(crate) fn take(&mut self) {
        match self.drain() {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => (),
            Err(error) => {
                self.common.tap_failed(Drop::TapRead, error);
                self.rests_until = now() + REST.tv_sec as u64 * 1_000_000_000;
            }
        }
        self.common.announce();
    }

    fn drain(&mut self) -> Result<(), Errno> {
        let Self { common, end, sender, buffer, .. } = self;
        let mut wire = end.udp.bind(common);
        let mut result = Ok(());
        {
            let table = common.table();
            common.shrink(&table);
            let now = now();
            for _ in 0..TURN {
                let len = match rustix::io::read(&end.tap, &mut *buffer) {
                    Ok(len) => len,
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                };
                let Some((header, frame)) = buffer[..len].split_first_chunk_mut::<VNET_HEADER>() else {
                    common.shared.counters.drop(Drop::BadFrame);
                    continue;
                };
                match Vnet::decode(header) {
                    Some(vnet) => sender.tap(&common.shared, &table, now, &vnet, frame, &mut wire),
                    None => common.shared.counters.drop(Drop::VnetHeader),
                }
            }
        }
        sender.flush(&mut wire);
        result
    }
}
