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

pub(crate) fn run(common: &Common, end: &End) {
    let mut sender = Sender::new(end.queue);
    let mut buffer = vec![0; LARGEST_FRAME];
    while wait(common, end) {
        match drain(common, end, &mut sender, &mut buffer) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => (),
            Err(error) => {
                common.tap_failed(Drop::TapRead, error);
                common.announce();
                std::thread::sleep(REST);
            }
        }
    }
}

/// Wait for frames. False: the engine closes.
fn wait(common: &Common, end: &End) -> bool {
    let mut fds = [PollFd::new(&end.tap, PollFlags::IN), PollFd::new(&common.wake, PollFlags::IN)];
    let _ = poll(&mut fds, None);
    !common.closing()
}

/// One turn: read, seal, send, until the TAP is empty or others have waited long enough.
fn drain(common: &Common, end: &End, sender: &mut Sender, buffer: &mut [u8]) -> Result<(), Errno> {
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
    common.announce();
    result
}
