//! When to publish: the wall-clock moment of each message of a replay.

use std::time::{Duration, Instant};

/// Maps log times to moments. Every moment is computed from the start, so errors of single waits never add up.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    started: Instant,
    first_log_time: u64,
    rate: f64,
}

impl Pace {
    /// A pace in which the message logged at `first_log_time` (nanoseconds) is due at `started`, and a span of log
    /// time takes `1 / rate` of it. `None` unless `rate` is finite and above zero.
    #[must_use]
    pub fn new(started: Instant, first_log_time: u64, rate: f64) -> Option<Self> {
        (rate.is_finite() && rate > 0.0).then_some(Self { started, first_log_time, rate })
    }

    /// Time from the start to the moment the message logged at `log_time` (nanoseconds) is due; zero for messages
    /// logged before the first.
    #[must_use]
    pub fn offset(&self, log_time: u64) -> Duration {
        let nanos = log_time.saturating_sub(self.first_log_time) as f64 / self.rate;
        Duration::try_from_secs_f64(nanos * 1e-9).unwrap_or(Duration::MAX)
    }

    /// The moment the message logged at `log_time` is due; `None` when it lies beyond what the clock can express.
    #[must_use]
    pub fn due(&self, log_time: u64) -> Option<Instant> {
        self.started.checked_add(self.offset(log_time))
    }

    /// The pace that goes on behind a pause which is left out: the message logged at `after` (nanoseconds) is due when the
    /// one logged at `before` was. `None` when that lies beyond what the clock can express.
    #[must_use]
    pub fn without_pause(&self, before: u64, after: u64) -> Option<Self> {
        Some(Self { started: self.due(before)?, first_log_time: after, rate: self.rate })
    }

    /// Log time (nanoseconds) that corresponds to `now`, for `/clock`.
    #[must_use]
    pub fn log_time_at(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.started).as_secs_f64() * self.rate * 1e9;
        self.first_log_time.saturating_add(elapsed as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_follow_the_log_and_the_rate() {
        let start = Instant::now();
        let pace = Pace::new(start, 1_000_000_000, 2.0).unwrap();
        assert_eq!(pace.due(1_000_000_000), Some(start));
        assert_eq!(pace.due(3_000_000_000), Some(start + Duration::from_secs(1)));
        assert_eq!(pace.due(0), Some(start), "earlier messages are due at once");
        assert_eq!(pace.log_time_at(start + Duration::from_secs(1)), 3_000_000_000);
    }

    #[test]
    fn a_pause_can_be_left_out() {
        let start = Instant::now();
        let pace = Pace::new(start, 1_000_000_000, 2.0).unwrap();
        let later = pace.without_pause(3_000_000_000, 900_000_000_000).unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(later.due(900_000_000_000), Some(start + second));
        assert_eq!(later.due(904_000_000_000), Some(start + 3 * second), "at the same rate");
        assert_eq!(later.log_time_at(start + 2 * second), 902_000_000_000);
    }

    #[test]
    fn impossible_rates_are_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Pace::new(Instant::now(), 0, rate).is_none(), "{rate}");
        }
        let slow = Pace::new(Instant::now(), 0, 1e-300).unwrap();
        assert_eq!(slow.offset(u64::MAX), Duration::MAX);
        assert_eq!(slow.due(u64::MAX), None);
    }
}
