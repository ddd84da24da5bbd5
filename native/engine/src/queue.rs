//! Queues of an engine, and the lane that each of them seals on.
//!
//! A machine's frames come from the TAP in queues: *express* ones (all but TCP data) that must never wait behind
//! a stream, and *bulk* ones. Each queue has a thread, a socket and a lane of its own, so a frame meets no queue of another
//! kind on its whole way. One flow stays in one queue, hence on one lane, hence in order.

/// The lane of express queues.
pub const EXPRESS_LANE: usize = 7;
/// Bulk lanes are 1 to this.
pub const MAX_BULK: usize = 6;

const BULK_LANES: u16 = 0b111_1110;

/// Where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Everything but TCP data.
    Express,
    /// TCP data; the number counts from 0.
    Bulk(usize),
}

impl Queue {
    /// The lane to seal on, given the bitmap of those that the peer receives on: the queue's own, or the next best one. A
    /// queue always gets the same lane of the same bitmap.
    #[must_use]
    pub fn lane(self, open: u16) -> usize {
        match self {
            Self::Express if open >> EXPRESS_LANE & 1 == 1 => EXPRESS_LANE,
            Self::Express => Self::Bulk(0).lane(open),
            Self::Bulk(number) => {
                let mut bulk = open & BULK_LANES;
                if bulk == 0 {
                    // Another lane is better than none; without any it is lane 0.
                    return if open == 0 { 0 } else { open.trailing_zeros() as usize };
                }
                for _ in 0..number % bulk.count_ones() as usize {
                    bulk &= bulk - 1;
                }
                bulk.trailing_zeros() as usize
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_a_lane_of_its_own_if_the_peer_has_it() {
        let all = 0b1_1111_1110;
        assert_eq!(Queue::Express.lane(all), 7);
        assert_eq!((0..6).map(|it| Queue::Bulk(it).lane(all)).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn fewer_lanes_are_shared() {
        assert_eq!(Queue::Express.lane(0b10), 1);
        assert_eq!((0..4).map(|it| Queue::Bulk(it).lane(0b1000_0110)).collect::<Vec<_>>(), [1, 2, 1, 2]);
        assert_eq!(Queue::Bulk(3).lane(0b1000_0000), 7);
    }

    #[test]
    fn without_any_it_is_the_base_lane() {
        assert_eq!((Queue::Express.lane(0), Queue::Bulk(2).lane(0)), (0, 0));
    }
}
