//! Warnings that may come with every image, said once in a while.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Lets one message of each kind through per interval and counts the rest.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    kinds: BTreeMap<&'static str, (Instant, u64)>,
}

impl Throttle {
    /// One message of each kind per `interval`.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self { interval, kinds: BTreeMap::new() }
    }

    /// Whether a message of this kind may be said at `now`: if so, how many were held back since the last one.
    pub fn pass(&mut self, kind: &'static str, now: Instant) -> Option<u64> {
        match self.kinds.get_mut(kind) {
            Some((last, held)) if now.saturating_duration_since(*last) < self.interval => {
                *held += 1;
                None
            }
            Some((last, held)) => {
                *last = now;
                Some(std::mem::take(held))
            }
            None => {
                self.kinds.insert(kind, (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_throttled_apart() {
        let mut throttle = Throttle::new(Duration::from_secs(5));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(throttle.pass("step", at(0)), Some(0));
        assert_eq!(throttle.pass("step", at(1)), None);
        assert_eq!(throttle.pass("size", at(1)), Some(0));
        assert_eq!(throttle.pass("step", at(4)), None);
        assert_eq!(throttle.pass("step", at(5)), Some(2));
        assert_eq!(throttle.pass("step", at(20)), Some(0));
    }
}
