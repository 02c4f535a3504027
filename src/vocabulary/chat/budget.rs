//! How many requests an hour may see.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3600);

/// Counts requests in a window that slides, so that the turn of an hour does not allow twice as many.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    limit: u32,
    sent: VecDeque<Instant>,
}

impl Budget {
    pub(super) const fn new(limit: u32) -> Self {
        Self { limit, sent: VecDeque::new() }
    }

    pub(super) const fn limit(&self) -> u32 {
        self.limit
    }

    /// Takes one request at `now`, or says when one will be left.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.forget(now);
        match self.sent.front() {
            Some(oldest) if self.left() == 0 => Err(HOUR.saturating_sub(now.saturating_duration_since(*oldest))),
            _ => {
                self.sent.push_back(now);
                Ok(())
            }
        }
    }

    /// Requests that may still go out in the hour that ends at `now`.
    pub(super) fn left_at(&mut self, now: Instant) -> u32 {
        self.forget(now);
        self.left()
    }

    fn left(&self) -> u32 {
        self.limit.saturating_sub(u32::try_from(self.sent.len()).unwrap_or(u32::MAX))
    }

    fn forget(&mut self, now: Instant) {
        while self.sent.front().is_some_and(|sent| now.saturating_duration_since(*sent) >= HOUR) {
            self.sent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_slides() {
        let mut budget = Budget::new(2);
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        assert_eq!(budget.take(at(0)), Ok(()));
        assert_eq!(budget.take(at(50)), Ok(()));
        assert_eq!(budget.left_at(at(55)), 0);
        assert_eq!(budget.take(at(55)), Err(Duration::from_secs(300)));
        assert_eq!(budget.take(at(60)), Ok(()));
        assert_eq!(budget.take(at(61)), Err(Duration::from_secs(49 * 60)));
        assert_eq!(budget.left_at(at(200)), 2);
    }
}
