//! When to look again.

use std::time::{Duration, Instant};

/// Why a refresh is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The first image since the start.
    First,
    /// Somebody asked.
    Requested,
    /// The picture is another one than at the last refresh.
    SceneChange,
    /// Too many detections had a phrase that stands for no class.
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
    /// Share of detections without a class from which on the list is looked at again; zero: not looked at.
    pub unmatched: f32,
}

impl Schedule {
    /// Whether a refresh is due: `last` is when the last one began, `difference` how far the picture is from the one of
    /// that refresh, `unmatched` the share of detections without a class since then.
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
}
