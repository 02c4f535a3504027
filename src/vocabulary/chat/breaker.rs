//! The circuit breaker: an endpoint that fails again and again is left alone for a while.

use std::time::Duration;

use tokio::time::Instant;

use super::config::DAY;

/// When the breaker opens and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failed HTTP requests in a row, repetitions included, after which it opens.
    pub failures: u32,
    /// First pause. Each failed trial doubles it.
    pub pause: Duration,
    /// Longest pause of our own choosing. A `Retry-After` may ask for more, up to a day.
    pub max_pause: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures: 5, pause: Duration::from_secs(30), max_pause: Duration::from_secs(15 * 60) }
    }
}

/// What the breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerStatus {
    /// Every request.
    Closed,
    /// None.
    Open {
        /// How long still.
        retry_in: Duration,
    },
    /// One, as a trial.
    HalfOpen,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    HalfOpen { pause: Duration },
}

/// Counts failures in a row. It need not guard the trial: at most one request is in flight.
#[derive(Clone, Debug)]
pub(super) struct Breaker {
    config: BreakerConfig,
    phase: Phase,
}

impl Breaker {
    pub(super) const fn new(config: BreakerConfig) -> Self {
        Self { config, phase: Phase::Closed { failures: 0 } }
    }

    /// Whether a request may go out at `now`, or how long none may.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        if let Phase::Open { until, pause } = self.phase {
            if now < until {
                return Err(until - now);
            }
            self.phase = Phase::HalfOpen { pause };
        }
        Ok(())
    }

    pub(super) const fn succeeded(&mut self) {
        self.phase = Phase::Closed { failures: 0 };
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.phase = match self.phase {
            Phase::Closed { failures } if failures + 1 < self.config.failures => {
                Phase::Closed { failures: failures + 1 }
            }
            Phase::Closed { .. } => self.open(now, self.config.pause),
            Phase::HalfOpen { pause } => {
                self.open(now, pause.saturating_mul(2).clamp(self.config.pause, self.config.max_pause))
            }
            open @ Phase::Open { .. } => open,
        };
    }

    /// Stays open for at least `wait`: the endpoint has asked for it. A day is believed; more may as well be a mistake.
    pub(super) fn hold(&mut self, now: Instant, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        let held = now + wait.min(DAY);
        self.phase = match self.phase {
            // No pause of ours has been served yet: a failed trial starts with the first one.
            Phase::Closed { .. } => Phase::Open { until: held, pause: Duration::ZERO },
            Phase::HalfOpen { pause } => Phase::Open { until: held, pause },
            Phase::Open { until, pause } => Phase::Open { until: until.max(held), pause },
        };
    }

    pub(super) fn status(&self, now: Instant) -> BreakerStatus {
        match self.phase {
            Phase::Closed { .. } => BreakerStatus::Closed,
            Phase::Open { until, .. } if now < until => BreakerStatus::Open { retry_in: until - now },
            Phase::Open { .. } | Phase::HalfOpen { .. } => BreakerStatus::HalfOpen,
        }
    }

    fn open(&self, now: Instant, pause: Duration) -> Phase {
        Phase::Open { until: now + pause.min(self.config.max_pause), pause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn breaker() -> (Breaker, Instant) {
        let config = BreakerConfig { failures: 3, pause: seconds(10), max_pause: seconds(35) };
        (Breaker::new(config), Instant::now())
    }

    #[test]
    fn failures_in_a_row_open_it() {
        let (mut breaker, start) = breaker();
        breaker.failed(start);
        breaker.failed(start);
        breaker.succeeded();
        breaker.failed(start);
        breaker.failed(start);
        assert_eq!(breaker.status(start), BreakerStatus::Closed);
        breaker.failed(start);
        assert_eq!(breaker.admit(start + seconds(4)), Err(seconds(6)));
        assert_eq!(breaker.status(start + seconds(4)), BreakerStatus::Open { retry_in: seconds(6) });
        assert_eq!(breaker.status(start + seconds(10)), BreakerStatus::HalfOpen);
        assert_eq!(breaker.admit(start + seconds(10)), Ok(()));
        breaker.succeeded();
        assert_eq!(breaker.status(start + seconds(10)), BreakerStatus::Closed);
    }

    #[test]
    fn failed_trials_double_the_pause() {
        let (mut breaker, mut now) = breaker();
        (0..3).for_each(|_| breaker.failed(now));
        for expected in [10, 20, 35, 35] {
            assert_eq!(breaker.admit(now), Err(seconds(expected)));
            now += seconds(expected);
            assert_eq!(breaker.admit(now), Ok(()));
            // A trial that is cancelled leaves the way free for the next.
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.failed(now);
        }
    }

    #[test]
    fn it_stays_open_as_long_as_the_endpoint_wishes() {
        let (mut breaker, start) = breaker();
        breaker.hold(start, seconds(0));
        assert_eq!(breaker.status(start), BreakerStatus::Closed);
        breaker.hold(start, seconds(20));
        assert_eq!(breaker.admit(start), Err(seconds(20)));
        breaker.hold(start, seconds(5));
        assert_eq!(breaker.admit(start), Err(seconds(20)));
        // Longer than any pause of our own.
        breaker.hold(start, seconds(3600));
        assert_eq!(breaker.admit(start), Err(seconds(3600)));
        assert_eq!(breaker.status(start), BreakerStatus::Open { retry_in: seconds(3600) });
        breaker.hold(start, seconds(1_000_000));
        assert_eq!(breaker.admit(start), Err(seconds(86_400)));
        let later = start + seconds(86_400);
        assert_eq!(breaker.admit(later), Ok(()));
        breaker.failed(later);
        assert_eq!(breaker.admit(later), Err(seconds(10)));
    }
}
