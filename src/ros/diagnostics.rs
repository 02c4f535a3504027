//! `/diagnostics`: what the node does, in numbers, once a second.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    lifecycle::State,
    messages::{CompressedImage, DiagnosticArray, DiagnosticStatus, Header, Image, KeyValue, Octet, RosMessage as _},
    refresh::RefreshStatus,
    transport::{Mismatch, Missed, RawSubscription},
};
use crate::{
    pipeline::{Percentiles, Snapshot, Stage},
    types::{Stamp, Vocabulary},
    vocabulary::chat::BreakerStatus,
};

/// Without an image for this long the camera counts as silent; without a result for this long and the time that results
/// take of late, the node does.
const SILENCE: Duration = Duration::from_secs(3);

/// What a report is made of.
pub struct Report<'r> {
    /// Fully qualified name of the node.
    pub node: &'r str,
    /// Where it stands in its life cycle.
    pub state: State,
    /// Why the last transition failed.
    pub trouble: Option<&'r str>,
    /// What it does while it is configured.
    pub working: Option<Working<'r>>,
    /// Time of the report on the node's clock.
    pub stamp: Stamp,
}

/// A configured node, in numbers.
pub struct Working<'r> {
    /// Names of the loaded models.
    pub models: &'r str,
    /// The models, and the execution providers that their nodes really run on.
    pub runs_on: &'r [(&'static str, String)],
    /// Every camera.
    pub cameras: Vec<CameraReport<'r>>,
    /// Whether images are taken, by `~/enable`.
    pub enabled: bool,
    /// Most images of one run of the models at present.
    pub image_batch: usize,
    /// Class list in use.
    pub vocabulary: Arc<Vocabulary>,
    /// Runs of the detector that it takes for each image (or batch of them): one for every caption.
    pub detector_runs: usize,
    /// The vocabulary loop; `None` where it is off.
    pub refresh: Option<RefreshStatus>,
}

/// A camera and what became of its images.
pub struct CameraReport<'r> {
    /// Empty for a single one without a name.
    pub name: &'r str,
    /// Topic the images come from.
    pub image_topic: &'r str,
    /// Publishers on that topic; `None` while it is not subscribed to.
    pub publishers: Option<usize>,
    /// Images that never came out of the middleware.
    pub missed: Missed,
    /// Why they are not heard, while no image comes.
    pub mismatch: Option<Mismatch>,
    /// Counts and latencies.
    pub counts: Snapshot,
    /// Results that no subscriber took in time.
    pub unsent: u64,
}

impl<'r> CameraReport<'r> {
    /// Of a camera whose images come through `images`, where it is subscribed to.
    #[must_use]
    pub fn new(
        name: &'r str,
        image_topic: &'r str,
        images: Option<&dyn RawSubscription>,
        counts: Snapshot,
        unsent: u64,
    ) -> Self {
        Self {
            name,
            image_topic,
            publishers: images.map(RawSubscription::publishers),
            missed: images.map_or_else(Missed::default, RawSubscription::missed),
            // Asked only where the answer is shown: it goes through everything on the graph.
            mismatch: images.filter(|_| is_silent(&counts)).and_then(RawSubscription::mismatch),
            counts,
            unsent,
        }
    }

    /// How long images have been coming without a result, where that is longer than it should be.
    fn overdue(&self, cameras: usize) -> Option<Duration> {
        // Every camera's image may have its turn before this one's.
        let turns = u32::try_from(cameras).unwrap_or(u32::MAX);
        let usual = self.counts.stages.get(&Stage::Total).map_or(Duration::ZERO, |total| total.p50);
        self.counts.waiting.filter(|waiting| *waiting > SILENCE.saturating_add(usual.saturating_mul(turns)))
    }
}

fn is_silent(counts: &Snapshot) -> bool {
    counts.image_age.is_none_or(|age| age > SILENCE)
}

/// Makes reports; remembers the last one to tell what is new.
pub struct Diagnostics {
    /// Every camera.
    known: Vec<Known>,
}

/// What was said of a camera up to the last report.
#[derive(Default)]
struct Known {
    bad: u64,
    mismatch: Option<Mismatch>,
}

impl Default for Diagnostics {
    fn default() -> Self {
        Self::new()
    }
}

impl Diagnostics {
    /// Nothing reported yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { known: Vec::new() }
    }

    /// One message for `/diagnostics`.
    pub fn report(&mut self, report: &Report<'_>, now: Instant) -> DiagnosticArray {
        let mut status = vec![lifecycle(report)];
        if let Some(working) = &report.working {
            let part = Part { node: report.node, models: working.models };
            self.known.resize_with(working.cameras.len(), Known::default);
            for (camera, known) in working.cameras.iter().zip(&mut self.known) {
                status.push(frames(&part, working, camera, known));
            }
            status.push(vocabulary(&part, working));
            status.extend(working.refresh.as_ref().map(|loop_status| refresh(&part, loop_status, now)));
        }
        DiagnosticArray { header: Header { stamp: report.stamp.into(), frame_id: String::new() }, status }
    }
}

/// How a camera's images fare.
fn frames(part: &Part<'_>, working: &Working<'_>, camera: &CameraReport<'_>, known: &mut Known) -> DiagnosticStatus {
    let counts = &camera.counts;
    let bad = counts.bad.values().sum::<u64>() + camera.missed.refused;
    let newly_bad = bad - bad.min(known.bad);
    known.bad = bad;
    let silent = is_silent(counts);
    let (level, message) = if camera.publishers.is_none() {
        (DiagnosticStatus::OK, "inactive: images are not taken".to_owned())
    } else if !working.enabled {
        (DiagnosticStatus::OK, "switched off by ~/enable: images are let pass".to_owned())
    } else if silent && let Some(mismatch) = &camera.mismatch {
        let message = unheard(camera.image_topic, mismatch);
        if known.mismatch.as_ref() != Some(mismatch) {
            known.mismatch = Some(mismatch.clone());
            tracing::warn!("{message}");
        }
        (DiagnosticStatus::STALE, message)
    } else if silent && camera.publishers == Some(0) {
        (DiagnosticStatus::STALE, format!("nobody publishes {}", camera.image_topic))
    } else if silent {
        (DiagnosticStatus::STALE, format!("no image on {} for {} s or more", camera.image_topic, SILENCE.as_secs()))
    } else if let Some(overdue) = camera.overdue(working.cameras.len()) {
        (DiagnosticStatus::WARN, format!("no result for {} s although images arrive", overdue.as_secs()))
    } else if newly_bad > 0 {
        (DiagnosticStatus::WARN, format!("{newly_bad} images could not be processed"))
    } else {
        // Slow models have a rate too.
        let decimals = if counts.rate_hz < 1.0 { 2 } else { 1 };
        (DiagnosticStatus::OK, format!("{:.decimals$} results per second", counts.rate_hz))
    };

    let mut values = vec![
        value("image_topic", &camera.image_topic),
        value("image_publishers", &camera.publishers.unwrap_or(0)),
        value("received", &counts.received),
        value("processed", &counts.processed),
        value("dropped", &counts.dropped),
        value("lost", &camera.missed.lost),
        value("bad_images", &bad),
    ];
    values.extend(counts.bad.iter().map(|(kind, count)| value(&format!("bad_images.{kind}"), count)));
    if camera.missed.refused > 0 {
        values.push(value("bad_images.encapsulation", &camera.missed.refused));
    }
    values.push(value("unsent", &camera.unsent));
    if let Some(age) = counts.image_age {
        values.push(value("image_age_s", &format!("{:.3}", age.as_secs_f64())));
    }
    values.push(value("rate_hz", &format!("{:.2}", counts.rate_hz)));
    for (stage, percentiles) in &counts.stages {
        let Percentiles { p50, p90, p99, max } = *percentiles;
        for (name, time) in [("p50", p50), ("p90", p90), ("p99", p99), ("max", max)] {
            values.push(value(&format!("{}_ms.{name}", stage.as_str()), &format!("{:.2}", time.as_secs_f64() * 1e3)));
        }
    }
    values.push(value("image_batch", &working.image_batch));
    values.extend(working.runs_on.iter().map(|(model, providers)| value(&format!("{model}_runs_on"), providers)));
    let name = if camera.name.is_empty() { "frames".to_owned() } else { format!("frames of {}", camera.name) };
    part.status(&name, level, message, values)
}

/// Why images that are published do not come, and what helps.
fn unheard(topic: &str, mismatch: &Mismatch) -> String {
    match mismatch {
        Mismatch::Policy(policy) => {
            let remedy = if *policy == "reliability" { ": set qos.image.reliability to best_effort" } else { "" };
            format!("a publisher of {topic} is there, but its QoS does not fit ({policy}){remedy}")
        }
        Mismatch::Type(other) => {
            let remedy = match other.as_str() {
                Image::TYPE => "set image_transport to raw",
                CompressedImage::TYPE => "set image_transport to compressed",
                _ => "remap image to a topic of images",
            };
            format!("{topic} is published as {other}: {remedy}")
        }
    }
}

/// Where the node stands in its life cycle, and why not further.
fn lifecycle(report: &Report<'_>) -> DiagnosticStatus {
    let state = report.state.label();
    let (level, message) = match report.trouble {
        Some(trouble) => (DiagnosticStatus::ERROR, format!("{state}: {trouble}")),
        None => (DiagnosticStatus::OK, state.to_owned()),
    };
    let part = Part { node: report.node, models: report.working.as_ref().map_or("", |working| working.models) };
    part.status("life cycle", level, message, vec![value("state", &state)])
}

fn vocabulary(part: &Part<'_>, report: &Working<'_>) -> DiagnosticStatus {
    let vocabulary = &report.vocabulary;
    let (level, message) = match vocabulary.entries.len() {
        0 => (DiagnosticStatus::WARN, "no classes: nothing is looked for".to_owned()),
        classes => (DiagnosticStatus::OK, format!("{classes} classes, version {}", vocabulary.version)),
    };
    let age = vocabulary.created.elapsed().unwrap_or_default();
    let values = vec![
        value("version", &vocabulary.version),
        value("classes", &vocabulary.entries.len()),
        value("detector_runs_per_frame", &report.detector_runs),
        value("source", &vocabulary.source.as_str()),
        value("age_s", &format!("{:.1}", age.as_secs_f64())),
    ];
    part.status("vocabulary", level, message, values)
}

fn refresh(part: &Part<'_>, refresh: &RefreshStatus, now: Instant) -> DiagnosticStatus {
    let (level, message) = match &refresh.last {
        _ if refresh.dead => (DiagnosticStatus::ERROR, "the refresh thread has ended; the log says why".to_owned()),
        None => (DiagnosticStatus::OK, "no image looked at yet".to_owned()),
        Some(last) => match (&last.outcome, &last.trouble) {
            (Err(error), _) => (DiagnosticStatus::WARN, format!("the list stays as it is: {error}")),
            (Ok(_), Some(trouble)) => (DiagnosticStatus::WARN, format!("went on without: {trouble}")),
            (Ok(outcome), None) => (DiagnosticStatus::OK, outcome.clone()),
        },
    };
    let mut values = vec![
        value("refreshes", &refresh.refreshes),
        value("changes", &refresh.changes),
        value("refused_labels", &refresh.refused),
    ];
    values.extend(refresh.failures.iter().map(|(kind, count)| value(&format!("failures.{kind}"), count)));
    if let Some(last) = &refresh.last {
        values.extend([
            value("last.reason", &last.reason.as_str()),
            value("last.refined_by", &last.refinement),
            value("last.took_s", &format!("{:.3}", last.took.as_secs_f64())),
            value("last.age_s", &format!("{:.1}", now.saturating_duration_since(last.at).as_secs_f64())),
        ]);
    }
    if let Some(chat) = &refresh.chat {
        values.extend([
            value("llm.requests", &chat.requests),
            value("llm.replies", &chat.replies),
            value("llm.replayed", &chat.replayed),
            value("llm.unrecorded", &chat.unrecorded),
            value("llm.breaker", &breaker(chat.breaker)),
            value("llm.requests_left_this_hour", &chat.requests_left_this_hour),
        ]);
        values.extend(chat.failures.iter().map(|(kind, count)| value(&format!("llm.failures.{kind}"), count)));
        values.extend(chat.last_error.iter().map(|error| value("llm.last_error", error)));
    }
    part.status("refresh", level, message, values)
}

fn breaker(breaker: BreakerStatus) -> String {
    match breaker {
        BreakerStatus::Closed => "closed".to_owned(),
        BreakerStatus::HalfOpen => "half open".to_owned(),
        BreakerStatus::Open { retry_in } => format!("open for another {:.0} s", retry_in.as_secs_f64().ceil()),
    }
}

fn value(key: &str, value: &impl ToString) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value.to_string() }
}

/// What the names of statuses are made of.
struct Part<'r> {
    node: &'r str,
    models: &'r str,
}

impl Part<'_> {
    fn status(&self, part: &str, level: Octet, message: String, values: Vec<KeyValue>) -> DiagnosticStatus {
        let node = self.node.trim_start_matches('/');
        DiagnosticStatus {
            level,
            name: format!("{node}: {part}"),
            message,
            hardware_id: self.models.to_owned(),
            values,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        pipeline::Statistics,
        types::{StageDurations, VocabularySource},
    };

    fn seconds(value: u64) -> Duration {
        Duration::from_secs(value)
    }

    fn camera(counts: Snapshot) -> CameraReport<'static> {
        let (name, image_topic) = ("", "/camera");
        let missed = Missed::default();
        CameraReport { name, image_topic, publishers: Some(1), missed, mismatch: None, counts, unsent: 0 }
    }

    /// The status of this name in a report of a node with one camera.
    fn status(diagnostics: &mut Diagnostics, enabled: bool, camera: CameraReport<'_>, name: &str) -> DiagnosticStatus {
        let vocabulary = Vocabulary {
            version: 1,
            source: VocabularySource::Configuration,
            created: SystemTime::UNIX_EPOCH,
            entries: Vec::new(),
        };
        let working = Working {
            models: "tiny",
            runs_on: &[],
            cameras: vec![camera],
            enabled,
            image_batch: 3,
            vocabulary: Arc::new(vocabulary),
            detector_runs: 4,
            refresh: None,
        };
        let report = Report {
            node: "/scenelex",
            state: State::Active,
            trouble: None,
            working: Some(working),
            stamp: Stamp::default(),
        };
        let array = diagnostics.report(&report, Instant::now());
        array.status.into_iter().find(|status| status.name == name).unwrap()
    }

    /// Level and message of the only camera.
    fn said(diagnostics: &mut Diagnostics, enabled: bool, camera: CameraReport<'_>) -> (Octet, String) {
        let frames = status(diagnostics, enabled, camera, "scenelex: frames");
        (frames.level, frames.message)
    }

    #[test]
    fn what_a_frame_costs_is_told() {
        for (name, key, expected) in
            [("scenelex: frames", "image_batch", "3"), ("scenelex: vocabulary", "detector_runs_per_frame", "4")]
        {
            let camera = camera(Statistics::new().snapshot(Instant::now()));
            let status = status(&mut Diagnostics::new(), true, camera, name);
            let found: Vec<_> = status.values.iter().filter(|pair| pair.key == key).map(|pair| &*pair.value).collect();
            assert_eq!(found, [expected]);
        }
    }

    #[test]
    fn what_never_came_out_of_the_middleware_is_told() {
        let mut statistics = Statistics::new();
        statistics.count_received(Instant::now());
        statistics.count_bad("codec");
        let missed = Missed { lost: 7, refused: 2 };
        let camera = CameraReport { missed, ..camera(statistics.snapshot(Instant::now())) };
        let status = status(&mut Diagnostics::new(), true, camera, "scenelex: frames");
        assert_eq!((status.level, &*status.message), (DiagnosticStatus::WARN, "3 images could not be processed"));
        let told = |key: &str| status.values.iter().find(|pair| pair.key == key).map(|pair| &*pair.value);
        assert_eq!((told("lost"), told("bad_images")), (Some("7"), Some("3")));
        assert_eq!((told("bad_images.codec"), told("bad_images.encapsulation")), (Some("1"), Some("2")));
    }

    #[test]
    fn images_without_results_are_a_warning() {
        let mut diagnostics = Diagnostics::new();
        let start = Instant::now();
        let mut statistics = Statistics::new();
        let mut after = |statistics: &mut Statistics, at: u64, enabled, publishers| {
            let now = start + seconds(at);
            statistics.count_received(now);
            let camera = CameraReport { publishers, ..camera(statistics.snapshot(now)) };
            said(&mut diagnostics, enabled, camera)
        };
        // The first result may take a while.
        assert_eq!(after(&mut statistics, 100, true, Some(1)).0, DiagnosticStatus::OK);
        assert_eq!(after(&mut statistics, 103, true, Some(1)).0, DiagnosticStatus::OK);
        let warning = (DiagnosticStatus::WARN, "no result for 4 s although images arrive".to_owned());
        assert_eq!(after(&mut statistics, 104, true, Some(1)), warning);
        assert_eq!(after(&mut statistics, 104, false, Some(1)).0, DiagnosticStatus::OK, "switched off");
        assert_eq!(after(&mut statistics, 104, true, None).0, DiagnosticStatus::OK, "inactive");
        // Where results take 10 s, 13 s without one are no news.
        let slow = StageDurations { total: seconds(10), ..StageDurations::default() };
        statistics.count_processed(&slow, start + seconds(110));
        assert_eq!(after(&mut statistics, 110, true, Some(1)).0, DiagnosticStatus::OK);
        assert_eq!(after(&mut statistics, 123, true, Some(1)).0, DiagnosticStatus::OK);
        assert_eq!(after(&mut statistics, 124, true, Some(1)).1, "no result for 14 s although images arrive");
        statistics.count_processed(&slow, start + seconds(125));
        assert_eq!(after(&mut statistics, 126, true, Some(1)).1, "0.06 results per second", "two in the last 16 s");
        statistics.count_bad("codec");
        assert_eq!(after(&mut statistics, 124, true, Some(1)).1, "1 images could not be processed");
    }

    #[test]
    fn a_camera_that_is_silent_but_there_is_not_called_absent() {
        let mut diagnostics = Diagnostics::new();
        let mut of = |publishers, mismatch| {
            let camera = CameraReport { publishers, mismatch, ..camera(Statistics::new().snapshot(Instant::now())) };
            let (level, message) = said(&mut diagnostics, true, camera);
            assert_eq!(level, DiagnosticStatus::STALE);
            message
        };
        assert_eq!(of(Some(0), None), "nobody publishes /camera");
        assert_eq!(of(Some(1), None), "no image on /camera for 3 s or more");
        let expected = "a publisher of /camera is there, but its QoS does not fit (reliability): \
                        set qos.image.reliability to best_effort";
        assert_eq!(of(Some(0), Some(Mismatch::Policy("reliability"))), expected);
        let other = Mismatch::Type("sensor_msgs/msg/CompressedImage".to_owned());
        let expected = "/camera is published as sensor_msgs/msg/CompressedImage: set image_transport to compressed";
        assert_eq!(of(Some(1), Some(other)), expected);
    }
}
