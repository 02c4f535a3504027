//! When to look again.

use std::time::{Duration, Instant};

/// How much further the share of detections without a class has to rise, where the last look left it high, to be a reason
/// again.
const FURTHER: f32 = 0.1;

/// Why a refresh is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The first image since the start.
    First,
    /// Somebody asked.
    Requested,
    /// The picture is another one than at the last refresh.
    SceneChange,
    /// More detections than before had a phrase that stands for no class.
    Unmatched,
    /// The period has passed.
    Period,
}

impl Reason {
    /// Name used in logs and diagnostics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first image",
            Self::Requested => "requested",
            Self::SceneChange => "scene change",
            Self::Unmatched => "unmatched phrases",
            Self::Period => "period",
        }
    }
}

/// The rules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Time between two refreshes of a scene that stays the same; zero: none without another reason.
    pub period: Duration,
    /// Shortest time between two refreshes, except when somebody asks.
    pub min_interval: Duration,
    /// Scene difference in [0, 1] from which on it is another scene; zero: not looked at.
    pub scene_change: f32,
    /// Share of detections without a class that is a reason to look when it is reached; zero: not looked at. Where the last
    /// look left it as high, it is one again after it was lower, or when it has risen by another 0.1.
    pub unmatched: f32,
}

/// What is known of a camera's detections without a class: as a reason to look their share has to rise, for a look that did
/// not lower it will not do so the next time either.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Unmatched {
    /// Since the last look.
    detections: u64,
    without_class: u64,
    /// The share up to the last look, or the one that it has fallen to since.
    known: f32,
}

impl Unmatched {
    /// Counts the detections of a frame, and those of them that have no class.
    pub const fn count(&mut self, detections: usize, without_class: usize) {
        self.detections += detections as u64;
        self.without_class += without_class as u64;
    }

    /// The share of detections without a class since the look at `last`, for [`Schedule::due`]; zero where it has not risen,
    /// and before the shortest interval has passed, for a few detections say little.
    pub fn risen(&mut self, schedule: &Schedule, now: Instant, last: Option<Instant>) -> f32 {
        let early = last.is_some_and(|last| now.saturating_duration_since(last) < schedule.min_interval);
        let Some(share) = self.share().filter(|_| !early) else { return 0.0 };
        if share < schedule.unmatched {
            self.known = share;
            return 0.0;
        }
        if self.known < schedule.unmatched || share >= self.known + FURTHER { share } else { 0.0 }
    }

    /// Notes that a look begins.
    pub fn looked(&mut self) {
        *self = Self { known: self.share().unwrap_or(self.known), ..Self::default() };
    }

    /// `None` where nothing was detected.
    fn share(&self) -> Option<f32> {
        (self.detections > 0).then(|| self.without_class as f32 / self.detections as f32)
    }
}

impl Schedule {
    /// Whether a refresh is due: `last` is when the last one began, `difference` how far the picture is from the one of
    /// that refresh, `unmatched` the share of detections without a class since then, as far as it [has risen](Unmatched::risen).
    #[must_use]
    pub fn due(
        &self,
        now: Instant,
        last: Option<Instant>,
        requested: bool,
        difference: f32,
        unmatched: f32,
    ) -> Option<Reason> {
        if requested {
            return Some(Reason::Requested);
        }
        let Some(last) = last else { return Some(Reason::First) };
        let since = now.saturating_duration_since(last);
        if since < self.min_interval {
            None
        } else if self.scene_change > 0.0 && difference >= self.scene_change {
            Some(Reason::SceneChange)
        } else if self.unmatched > 0.0 && unmatched >= self.unmatched {
            Some(Reason::Unmatched)
        } else if !self.period.is_zero() && since >= self.period {
            Some(Reason::Period)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_in_their_order() {
        let schedule = Schedule {
            period: Duration::from_secs(10),
            min_interval: Duration::from_secs(2),
            scene_change: 0.3,
            unmatched: 0.5,
        };
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let due = |seconds, difference, unmatched| schedule.due(at(seconds), Some(start), false, difference, unmatched);
        assert_eq!(schedule.due(start, None, false, 0.0, 0.0), Some(Reason::First));
        assert_eq!(schedule.due(at(0), Some(start), true, 0.0, 0.0), Some(Reason::Requested));
        assert_eq!(due(1, 1.0, 1.0), None, "never more often than the shortest interval");
        assert_eq!(due(2, 0.3, 1.0), Some(Reason::SceneChange));
        assert_eq!(due(2, 0.29, 0.5), Some(Reason::Unmatched));
        assert_eq!(due(9, 0.0, 0.0), None);
        assert_eq!(due(10, 0.0, 0.0), Some(Reason::Period));
        let never = Schedule { period: Duration::ZERO, scene_change: 0.0, unmatched: 0.0, ..schedule };
        assert_eq!(never.due(at(100_000), Some(start), false, 1.0, 1.0), None);
    }

    #[test]
    fn a_share_without_class_has_to_rise() {
        let schedule = Schedule {
            period: Duration::ZERO,
            min_interval: Duration::from_secs(2),
            scene_change: 0.0,
            unmatched: 0.5,
        };
        let start = Instant::now();
        let mut watched = Unmatched::default();
        let mut last = Some(start);
        // A frame of ten detections so many seconds after the last look; whether it is a reason to look.
        let mut frame = |after: u64, without_class: usize| {
            let now = last.unwrap_or(start) + Duration::from_secs(after);
            watched.count(10, without_class);
            let share = watched.risen(&schedule, now, last);
            let due = schedule.due(now, last, false, 0.0, share).is_some();
            if due {
                watched.looked();
                last = Some(now);
            }
            due
        };
        assert!(!frame(1, 0));
        assert!(!frame(2, 2), "one in ten");
        assert!(!frame(3, 10), "twelve in thirty");
        assert!(frame(4, 10), "22 in forty");
        for after in 2..100 {
            assert!(!frame(after, 6), "it stays as it was");
        }
        // 588 in 980 so far.
        for _ in 0..300 {
            assert!(!frame(100, 0));
        }
        assert!(!frame(100, 10), "it has fallen");
        for _ in 0..300 {
            if frame(100, 10) {
                return;
            }
        }
        panic!("it has risen again");
    }

    #[test]
    fn a_share_that_stayed_high_has_to_rise_further() {
        let schedule =
            Schedule { period: Duration::ZERO, min_interval: Duration::ZERO, scene_change: 0.0, unmatched: 0.5 };
        let (now, mut watched) = (Instant::now(), Unmatched::default());
        let mut share = |without_class: usize| {
            watched.looked();
            watched.count(100, without_class);
            watched.risen(&schedule, now, Some(now)) > 0.0
        };
        let found = [60, 60, 69, 75, 86, 49, 51].map(&mut share);
        assert_eq!(found, [true, false, false, false, true, false, true]);
        let nothing = Unmatched::default().risen(&schedule, now, None);
        assert!(nothing == 0.0, "no detection is no share");
    }
}
