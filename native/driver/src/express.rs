//! The express queue: one thread for both ways. What it has delivered is often answered at once (a ping, a request, an
//! acknowledgement), and then the answer lies in the TAP already: nobody has to be woken for it.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};

use crate::receive::Inward;
use crate::transmit::Outward;
use crate::{Common, End, REST};

pub(crate) fn run(common: &Common, end: &End) {
    let (mut inward, mut outward) = (Inward::new(common, end), Outward::new(common, end));
    let sockets = end.udp.sockets.len();
    let mut fds = vec![PollFd::new(&common.wake, PollFlags::IN)];
    fds.extend(end.udp.sockets.iter().map(|it| PollFd::from_borrowed_fd(it.socket.as_fd(), PollFlags::IN)));
    fds.push(PollFd::new(&end.tap, PollFlags::IN));
    while !common.closing() {
        let rests = outward.rests();
        let watched = fds.len() - usize::from(rests);
        let patience = if rests { Some(REST) } else { inward.patience() };
        let _ = poll(&mut fds[..watched], patience.as_ref());
        let delivered = inward.take(&fds[1..=sockets]);
        if !rests && (delivered || !fds[sockets + 1].revents().is_empty()) {
            outward.take();
        }
        common.announce();
    }
}
