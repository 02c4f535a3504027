//! `/diagnostics`: what the node does, in numbers, once a second.

use std::time::{Duration, Instant};

use super::{
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

/// What a report is made of, beyond the frame loop's counts.
pub struct Report<'r> {
    /// Fully qualified name of the node.
    pub node: &'r str,
    /// Names of the loaded models.
    pub models: &'r str,
    /// The models, and the execution providers that their nodes really run on.
    pub runs_on: &'r [(&'static str, String)],
    /// Topic the images come from.
    pub image_topic: &'r str,
    /// Cameras (publishers) on that topic.
    pub publishers: usize,
    /// Counts and latencies.
    pub counts: &'r Snapshot,
    /// Results that no subscriber took in time.
    pub unsent: u64,
    /// Class list in use.
    pub vocabulary: &'r Vocabulary,
    /// The vocabulary loop; `None` where it is off.
    pub refresh: Option<RefreshStatus>,
    /// Time of the report on the node's clock.
    pub stamp: Stamp,
}

/// Makes reports; remembers the last one to tell what is new.
pub struct Diagnostics {
    received: u64,
    bad: u64,
    last_image: Option<Instant>,
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
        Self { received: 0, bad: 0, last_image: None }
    }

    /// One message for `/diagnostics`.
    pub fn report(&mut self, report: &Report<'_>, now: Instant) -> DiagnosticArray {
        let mut status = vec![self.frames(report, now), vocabulary(report)];
        status.extend(report.refresh.as_ref().map(|loop_status| refresh(report, loop_status, now)));
        DiagnosticArray { header: Header { stamp: report.stamp.into(), frame_id: String::new() }, status }
    }

    fn frames(&mut self, report: &Report<'_>, now: Instant) -> DiagnosticStatus {
        let counts = report.counts;
        if counts.received > self.received {
            self.last_image = Some(now);
        }
        let bad: u64 = counts.bad.values().sum();
        let newly_bad = bad - self.bad.min(bad);
        (self.received, self.bad) = (counts.received, bad);
        let silent = self.last_image.is_none_or(|last| now.saturating_duration_since(last) > SILENCE);
        let (level, message) = if silent && report.publishers == 0 {
            (DiagnosticStatus::STALE, format!("nobody publishes {}", report.image_topic))
        } else if silent {
            (DiagnosticStatus::STALE, format!("no image on {} for {} s or more", report.image_topic, SILENCE.as_secs()))
        } else if newly_bad > 0 {
            (DiagnosticStatus::WARN, format!("{newly_bad} images could not be processed"))
        } else {
            (DiagnosticStatus::OK, format!("{:.1} results per second", counts.rate_hz))
        };

        let mut values = vec![
            value("image_topic", &report.image_topic),
            value("image_publishers", &report.publishers),
            value("received", &counts.received),
            value("processed", &counts.processed),
            value("dropped", &counts.dropped),
            value("bad_images", &bad),
        ];
        values.extend(counts.bad.iter().map(|(kind, count)| value(&format!("bad_images.{kind}"), count)));
        values.push(value("unsent", &report.unsent));
        values.push(value("rate_hz", &format!("{:.2}", counts.rate_hz)));
        for (stage, percentiles) in &counts.stages {
            for (name, time) in [("p50", percentiles.p50), ("p90", percentiles.p90), ("p99", percentiles.p99)] {
                values
                    .push(value(&format!("{}_ms.{name}", stage.as_str()), &format!("{:.2}", time.as_secs_f64() * 1e3)));
            }
        }
        values.extend(report.runs_on.iter().map(|(model, providers)| value(&format!("{model}_runs_on"), providers)));
        status(report, "frames", level, message, values)
    }
}

fn vocabulary(report: &Report<'_>) -> DiagnosticStatus {
    let vocabulary = report.vocabulary;
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
    status(report, "vocabulary", level, message, values)
}

fn refresh(report: &Report<'_>, refresh: &RefreshStatus, now: Instant) -> DiagnosticStatus {
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
    status(report, "refresh", level, message, values)
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

fn status(report: &Report<'_>, part: &str, level: Octet, message: String, values: Vec<KeyValue>) -> DiagnosticStatus {
    let node = report.node.trim_start_matches('/');
    DiagnosticStatus { level, name: format!("{node}: {part}"), message, hardware_id: report.models.to_owned(), values }
}
