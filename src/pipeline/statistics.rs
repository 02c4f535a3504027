//! Counts, rates and stage latencies of the frame loop, as diagnostics and summaries show them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::types::StageDurations;

/// Frames over which percentiles and rates are taken.
const WINDOW: usize = 512;

/// A stage of [`StageDurations`], plus what lies beyond the models' critical path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "named as the fields of StageDurations")]
pub enum Stage {
    Intake,
    Decode,
    Preprocess,
    Detect,
    EncodeImage,
    Postprocess,
    DecodeMasks,
    Resolve,
    Total,
    Publish,
    Models,
    /// `intake + total + publish - models`: from the image's arrival to its published masks, beyond the models.
    Overhead,
}

impl Stage {
    /// Every stage, in the order of the frame.
    pub const ALL: [Self; 12] = [
        Self::Intake,
        Self::Decode,
        Self::Preprocess,
        Self::Detect,
        Self::EncodeImage,
        Self::Postprocess,
        Self::DecodeMasks,
        Self::Resolve,
        Self::Total,
        Self::Publish,
        Self::Models,
        Self::Overhead,
    ];

    /// Name in diagnostics and summaries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Decode => "decode",
            Self::Preprocess => "preprocess",
            Self::Detect => "detect",
            Self::EncodeImage => "encode_image",
            Self::Postprocess => "postprocess",
            Self::DecodeMasks => "decode_masks",
            Self::Resolve => "resolve",
            Self::Total => "total",
            Self::Publish => "publish",
            Self::Models => "models",
            Self::Overhead => "overhead",
        }
    }

    /// The stage's part of `durations`.
    #[must_use]
    pub fn of(self, durations: &StageDurations) -> Duration {
        match self {
            Self::Intake => durations.intake,
            Self::Decode => durations.decode,
            Self::Preprocess => durations.preprocess,
            Self::Detect => durations.detect,
            Self::EncodeImage => durations.encode_image,
            Self::Postprocess => durations.postprocess,
            Self::DecodeMasks => durations.decode_masks,
            Self::Resolve => durations.resolve,
            Self::Total => durations.total,
            Self::Publish => durations.publish,
            Self::Models => durations.models,
            Self::Overhead => (durations.intake + durations.total + durations.publish).saturating_sub(durations.models),
        }
    }
}

/// Percentiles of one stage over the last frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Median.
    pub p50: Duration,
    /// 90th percentile.
    pub p90: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// Longest.
    pub max: Duration,
}

impl Percentiles {
    /// Nearest-rank percentiles of `samples`, which get sorted; zeros for none.
    #[must_use]
    pub fn of(samples: &mut [Duration]) -> Self {
        samples.sort_unstable();
        let rank = |percent: usize| {
            let index = (samples.len() * percent).div_ceil(100).saturating_sub(1);
            samples.get(index).copied().unwrap_or_default()
        };
        Self { p50: rank(50), p90: rank(90), p99: rank(99), max: rank(100) }
    }
}

/// Counts and timings of one frame loop. Cheap to update; allocates only on the first frames and for new kinds of
/// errors.
#[derive(Clone, Debug)]
pub struct Statistics {
    received: u64,
    last_received: Option<Instant>,
    waiting_since: Option<Instant>,
    processed: u64,
    dropped: u64,
    bad: BTreeMap<&'static str, u64>,
    frames: Vec<StageDurations>,
    finished: Vec<Instant>,
    next: usize,
}

/// [`Statistics`] at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Images that arrived.
    pub received: u64,
    /// Time since the last of them.
    pub image_age: Option<Duration>,
    /// Time since the first image that arrived after the last result or refusal; `None` where none did.
    pub waiting: Option<Duration>,
    /// Images that became a result.
    pub processed: u64,
    /// Images replaced by newer ones before their turn.
    pub dropped: u64,
    /// Images that could not be processed, by the kind of error.
    pub bad: BTreeMap<&'static str, u64>,
    /// Results per second over the last frames: those of the last 10 s, at most 512, but the last two in any case; 0 for fewer
    /// than two.
    pub rate_hz: f64,
    /// Percentiles over the last frames (at most 512), by stage.
    pub stages: BTreeMap<Stage, Percentiles>,
}

impl Default for Statistics {
    fn default() -> Self {
        Self::new()
    }
}

impl Statistics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            received: 0,
            last_received: None,
            waiting_since: None,
            processed: 0,
            dropped: 0,
            bad: BTreeMap::new(),
            frames: Vec::with_capacity(WINDOW),
            finished: Vec::with_capacity(WINDOW),
            next: 0,
        }
    }

    /// Counts an image that arrived.
    pub fn count_received(&mut self, arrived: Instant) {
        self.received += 1;
        self.last_received = Some(arrived);
        self.waiting_since.get_or_insert(arrived);
    }

    /// No result is awaited any more of the images that have arrived.
    pub const fn give_up(&mut self) {
        self.waiting_since = None;
    }

    /// Counts images replaced by newer ones.
    pub fn count_dropped(&mut self, images: u64) {
        self.dropped += images;
    }

    /// Counts an image that could not be processed. `kind` comes from the error ([`crate::pipeline::FrameError::kind`]).
    pub fn count_bad(&mut self, kind: &'static str) {
        *self.bad.entry(kind).or_default() += 1;
        self.waiting_since = None;
    }

    /// Counts a result and remembers where its time went.
    pub fn count_processed(&mut self, durations: &StageDurations, finished: Instant) {
        self.processed += 1;
        self.waiting_since = None;
        match (self.frames.get_mut(self.next), self.finished.get_mut(self.next)) {
            (Some(frame), Some(time)) => (*frame, *time) = (*durations, finished),
            _ => {
                self.frames.push(*durations);
                self.finished.push(finished);
            }
        }
        self.next = (self.next + 1) % WINDOW;
    }

    /// What was counted so far, with rates as of `now`.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let mut samples = Vec::with_capacity(self.frames.len());
        let stages = Stage::ALL.into_iter().map(|stage| {
            samples.clear();
            samples.extend(self.frames.iter().map(|frame| stage.of(frame)));
            (stage, Percentiles::of(&mut samples))
        });
        Snapshot {
            received: self.received,
            image_age: self.last_received.map(|last| now.saturating_duration_since(last)),
            waiting: self.waiting_since.map(|since| now.saturating_duration_since(since)),
            processed: self.processed,
            dropped: self.dropped,
            bad: self.bad.clone(),
            rate_hz: self.rate(now),
            stages: stages.collect(),
        }
    }

    fn rate(&self, now: Instant) -> f64 {
        const RECENT: Duration = Duration::from_secs(10);
        let mut ages: Vec<Duration> = self.finished.iter().map(|t| now.saturating_duration_since(*t)).collect();
        ages.sort_unstable();
        // Slow models finish fewer in that time, and yet work.
        let count = ages.partition_point(|age| *age <= RECENT).max(2);
        let Some(span) = ages.get(count - 1).map(Duration::as_secs_f64) else { return 0.0 };
        if span <= 0.0 { 0.0 } else { (count - 1) as f64 / span }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut samples: Vec<Duration> = (1..=100).rev().map(ms).collect();
        let found = Percentiles::of(&mut samples);
        assert_eq!(found, Percentiles { p50: ms(50), p90: ms(90), p99: ms(99), max: ms(100) });
        assert_eq!(Percentiles::of(&mut []), Percentiles::default());
        assert_eq!(Percentiles::of(&mut [ms(7)]), Percentiles { p50: ms(7), p90: ms(7), p99: ms(7), max: ms(7) });
    }

    #[test]
    fn the_window_keeps_the_last_frames() {
        let mut statistics = Statistics::new();
        let start = Instant::now();
        for i in 0..600_u64 {
            let durations = StageDurations {
                total: ms(i),
                models: ms(i / 2),
                publish: ms(3),
                intake: ms(2),
                ..StageDurations::default()
            };
            statistics.count_processed(&durations, start + ms(100 * i));
        }
        let snapshot = statistics.snapshot(start + ms(59_900));
        assert_eq!(snapshot.processed, 600);
        assert_eq!(snapshot.stages[&Stage::Total].max, ms(599));
        assert_eq!(snapshot.stages[&Stage::Total].p50, ms(343), "frames 88 to 599 are kept");
        assert_eq!(snapshot.stages[&Stage::Overhead].max, ms(305));
        assert!((snapshot.rate_hz - 10.0).abs() < 1e-9, "{}", snapshot.rate_hz);
    }

    #[test]
    fn a_result_in_twelve_seconds_is_a_rate_too() {
        let mut statistics = Statistics::new();
        let start = Instant::now();
        let rate = |statistics: &Statistics, now: u64| statistics.snapshot(start + ms(now)).rate_hz;
        statistics.count_processed(&StageDurations::default(), start);
        assert!(rate(&statistics, 1000) == 0.0, "one says nothing");
        for finished in [12_000, 24_000] {
            statistics.count_processed(&StageDurations::default(), start + ms(finished));
        }
        assert!((rate(&statistics, 24_000) - 1.0 / 12.0).abs() < 1e-9);
        assert!((rate(&statistics, 32_000) - 1.0 / 20.0).abs() < 1e-9, "it falls while nothing comes");
    }

    #[test]
    fn it_is_waited_from_the_first_image_after_a_result() {
        let mut statistics = Statistics::new();
        let start = Instant::now();
        let waiting = |statistics: &Statistics, now: u64| statistics.snapshot(start + ms(now)).waiting;
        assert_eq!(waiting(&statistics, 5000), None, "nothing has come yet");
        for arrived in [5000, 5100] {
            statistics.count_received(start + ms(arrived));
        }
        assert_eq!(waiting(&statistics, 5200), Some(ms(200)));
        statistics.count_processed(&StageDurations::default(), start + ms(5300));
        assert_eq!(waiting(&statistics, 60_000), None, "no image, no result");
        statistics.count_received(start + ms(60_000));
        statistics.count_bad("codec");
        assert_eq!(waiting(&statistics, 60_100), None, "a refusal is an answer too");
        statistics.count_received(start + ms(60_200));
        statistics.count_dropped(1);
        assert_eq!(waiting(&statistics, 60_300), Some(ms(100)), "a newer one took its place");
        statistics.give_up();
        assert_eq!(waiting(&statistics, 60_300), None);
    }

    #[test]
    fn errors_are_counted_by_kind() {
        let mut statistics = Statistics::new();
        statistics.count_received(Instant::now());
        statistics.count_bad("step");
        statistics.count_bad("step");
        statistics.count_bad("codec");
        statistics.count_dropped(3);
        let snapshot = statistics.snapshot(Instant::now());
        assert_eq!(snapshot.bad, BTreeMap::from([("step", 2), ("codec", 1)]));
        assert_eq!((snapshot.received, snapshot.dropped, snapshot.processed), (1, 3, 0));
        assert!(snapshot.rate_hz == 0.0);
    }
}
