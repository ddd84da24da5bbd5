//! The replay window of one lane: which of the last 8,192 counters were seen (RFC 6479's ring of blocks).

const BLOCKS: usize = 129;
/// Counters that may lie behind the highest one and still be accepted. One block of the ring is always partly overwritten.
pub const WINDOW: u64 = (BLOCKS as u64 - 1) * 64;

/// Accepts every counter once, and none that fell out of the window.
pub struct ReplayWindow {
    next: u64,
    blocks: [u64; BLOCKS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { next: 0, blocks: [0; BLOCKS] }
    }
}

impl ReplayWindow {
    /// Record an authenticated counter. None: seen before, or too old. Some(true): the highest so far.
    pub fn accept(&mut self, counter: u64) -> Option<bool> {
        if !self.fresh(counter) {
            return None;
        }
        let highest = counter >= self.next;
        if highest {
            let newest = self.next.wrapping_sub(1) >> 6;
            let oldest_new = if self.next == 0 { 0 } else { newest + 1 };
            for block in oldest_new.max((counter >> 6).saturating_sub(BLOCKS as u64 - 1))..=counter >> 6 {
                self.blocks[block as usize % BLOCKS] = 0;
            }
            self.next = counter + 1;
        }
        self.blocks[(counter >> 6) as usize % BLOCKS] |= 1 << (counter & 63);
        Some(highest)
    }

    /// Whether `accept` would take the counter: asked before the expensive opening.
    #[must_use]
    pub fn fresh(&self, counter: u64) -> bool {
        if counter >= self.next {
            return counter != u64::MAX;
        }
        self.next - counter <= WINDOW && self.blocks[(counter >> 6) as usize % BLOCKS] & 1 << (counter & 63) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// The window behaves as a set of all counters with a floor.
        #[test]
        fn agrees_with_a_set(jumps in proptest::collection::vec((0u64..3, 0u64..20_000), 1..400)) {
            let (mut window, mut seen, mut highest) = (ReplayWindow::default(), BTreeSet::new(), None::<u64>);
            for (kind, distance) in jumps {
                let base = highest.unwrap_or(0);
                let counter = match kind {
                    0 => base.saturating_sub(distance),
                    1 => base + 1,
                    _ => base + distance,
                };
                let too_old = highest.is_some_and(|top| top + 1 > counter && top + 1 - counter > WINDOW);
                let expected = !too_old && !seen.contains(&counter);
                prop_assert_eq!(window.fresh(counter), expected);
                let is_highest = highest.is_none_or(|top| counter > top);
                prop_assert_eq!(window.accept(counter), expected.then_some(is_highest));
                if expected {
                    seen.insert(counter);
                    highest = Some(base.max(counter));
                }
            }
        }
    }
}
