//! The express queue: one thread for both ways. What it has delivered is often answered at once (a ping, a request, an
//! acknowledgement), and then the answer lies in the TAP already: nobody has to be woken for it.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::receive::Inward;
use crate::transmit::Outward;
use crate::{Common, End, REST, now};

pub(crate) fn run(common: &Common, end: &End) {
    let (mut inward, mut outward) = (Inward::new(common, end), Outward::new(common, end));
    let sockets = end.udp.sockets.len();
    let mut fds = vec![PollFd::new(&common.wake, PollFlags::IN)];
    fds.extend(end.udp.sockets.iter().map(|it| PollFd::from_borrowed_fd(it.socket.as_fd(), PollFlags::IN)));
    fds.push(PollFd::new(&end.tap, PollFlags::IN));
    let mut spin = Spin::default();
    while !common.closing() {
        let rests = outward.rests();
        let watched = fds.len() - usize::from(rests);
        let patience = if rests { Some(REST) } else { inward.patience() };
        wait(&mut fds[..watched], patience.as_ref(), &mut spin);
        let delivered = inward.take(&fds[1..=sockets]);
        if !rests && (delivered || !fds[sockets + 1].revents().is_empty()) {
            outward.take();
        }
        common.announce();
    }
}

/// Poll until something is there, or for so long; awake at first if that seems worth it.
fn wait(fds: &mut [PollFd<'_>], patience: Option<&Timespec>, spin: &mut Spin) {
    let began = now();
    let spins = spin.is_worth_it(began);
    while spins && now() - began < SPIN_NS {
        if poll(fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
            return;
        }
        std::thread::yield_now();
    }
    let _ = poll(fds, patience);
    spin.learn(now() - began, spins, began);
}

/// How long to look for the next frame before sleeping. To wake a thread on a halted virtual processor took 50 to 150 us,
/// on both ends and both ways: more than all else that happens to a ping.
const SPIN_NS: u64 = 100_000;
/// After a wait as short as this the next one is expected to be shorter, once nobody sleeps.
const BRISK_NS: u64 = 400_000;
/// How long not to try again after looking in vain: 1 % of a processor's time at most goes into that.
const PAUSE_NS: u64 = 100 * SPIN_NS;

/// Whether to look again and again for a while before sleeping: only while frames follow one another closely.
#[derive(Default)]
struct Spin {
    brisk: bool,
    paused_until: u64,
}

impl Spin {
    fn is_worth_it(&self, now: u64) -> bool {
        self.brisk && now >= self.paused_until
    }

    /// A wait that ended with sleep, in nanoseconds, and whether it began awake.
    fn learn(&mut self, waited: u64, spun: bool, now: u64) {
        self.brisk = waited < BRISK_NS;
        if spun {
            self.paused_until = now + PAUSE_NS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_queue_sleeps() {
        let mut spin = Spin::default();
        assert!(!spin.is_worth_it(0));
        spin.learn(BRISK_NS, false, 0);
        assert!(!spin.is_worth_it(BRISK_NS));
    }

    #[test]
    fn a_brisk_one_looks_again_and_one_look_in_vain_is_enough_for_a_while() {
        let mut spin = Spin::default();
        spin.learn(BRISK_NS - 1, false, 0);
        assert!(spin.is_worth_it(1));
        spin.learn(SPIN_NS + 1, true, 1);
        assert!(!spin.is_worth_it(PAUSE_NS));
        assert!(spin.is_worth_it(PAUSE_NS + 1));
        spin.learn(BRISK_NS, true, PAUSE_NS + 1);
        assert!(!spin.is_worth_it(3 * PAUSE_NS), "what comes rarely is slept for");
    }
}
