//! `/diagnostics`: what the node does, in numbers, once a second.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    lifecycle::State,
    messages::{DiagnosticArray, DiagnosticStatus, Header, KeyValue, Octet},
    refresh::RefreshStatus,
};
use crate::{
    pipeline::Snapshot,
    types::{Stamp, Vocabulary},
    vocabulary::chat::BreakerStatus,
};

/// Without an image for this long the camera counts as silent.
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
    /// Class list in use.
    pub vocabulary: Arc<Vocabulary>,
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
    /// Counts and latencies.
    pub counts: Snapshot,
    /// Results that no subscriber took in time.
    pub unsent: u64,
}

/// Makes reports; remembers the last one to tell what is new.
pub struct Diagnostics {
    /// Bad images of each camera.
    bad: Vec<u64>,
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
        Self { bad: Vec::new() }
    }

    /// One message for `/diagnostics`.
    pub fn report(&mut self, report: &Report<'_>, now: Instant) -> DiagnosticArray {
        let mut status = vec![lifecycle(report)];
        if let Some(working) = &report.working {
            let part = Part { node: report.node, models: working.models };
            self.bad.resize(working.cameras.len(), 0);
            for (camera, known_bad) in working.cameras.iter().zip(&mut self.bad) {
                status.push(frames(&part, working, camera, known_bad));
            }
            status.push(vocabulary(&part, working));
            status.extend(working.refresh.as_ref().map(|loop_status| refresh(&part, loop_status, now)));
        }
        DiagnosticArray { header: Header { stamp: report.stamp.into(), frame_id: String::new() }, status }
    }
}

/// How a camera's images fare; `known_bad` is how many could not be processed up to the last report.
fn frames(part: &Part<'_>, working: &Working<'_>, camera: &CameraReport<'_>, known_bad: &mut u64) -> DiagnosticStatus {
    let counts = &camera.counts;
    let bad: u64 = counts.bad.values().sum();
    let newly_bad = bad - bad.min(*known_bad);
    *known_bad = bad;
    let silent = counts.image_age.is_none_or(|age| age > SILENCE);
    let (level, message) = if camera.publishers.is_none() {
        (DiagnosticStatus::OK, "inactive: images are not taken".to_owned())
    } else if !working.enabled {
        (DiagnosticStatus::OK, "switched off by ~/enable: images are let pass".to_owned())
    } else if silent && camera.publishers == Some(0) {
        (DiagnosticStatus::STALE, format!("nobody publishes {}", camera.image_topic))
    } else if silent {
        (DiagnosticStatus::STALE, format!("no image on {} for {} s or more", camera.image_topic, SILENCE.as_secs()))
    } else if newly_bad > 0 {
        (DiagnosticStatus::WARN, format!("{newly_bad} images could not be processed"))
    } else {
        (DiagnosticStatus::OK, format!("{:.1} results per second", counts.rate_hz))
    };

    let mut values = vec![
        value("image_topic", &camera.image_topic),
        value("image_publishers", &camera.publishers.unwrap_or(0)),
        value("received", &counts.received),
        value("processed", &counts.processed),
        value("dropped", &counts.dropped),
        value("bad_images", &bad),
    ];
    values.extend(counts.bad.iter().map(|(kind, count)| value(&format!("bad_images.{kind}"), count)));
    values.push(value("unsent", &camera.unsent));
    if let Some(age) = counts.image_age {
        values.push(value("image_age_s", &format!("{:.3}", age.as_secs_f64())));
    }
    values.push(value("rate_hz", &format!("{:.2}", counts.rate_hz)));
    for (stage, percentiles) in &counts.stages {
        for (name, time) in [("p50", percentiles.p50), ("p90", percentiles.p90), ("p99", percentiles.p99)] {
            values.push(value(&format!("{}_ms.{name}", stage.as_str()), &format!("{:.2}", time.as_secs_f64() * 1e3)));
        }
    }
    values.extend(working.runs_on.iter().map(|(model, providers)| value(&format!("{model}_runs_on"), providers)));
    let name = if camera.name.is_empty() { "frames".to_owned() } else { format!("frames of {}", camera.name) };
    part.status(&name, level, message, values)
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
