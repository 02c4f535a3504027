//! The demo's summary: as JSON for programs, as a table for people.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result};
use scenelex::{pipeline::Percentiles, replay::IouReport};
use serde::Serialize;

/// Everything the demo found out. Durations are in milliseconds.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Images on the wire.
    pub frames_in: u64,
    /// Results on the wire.
    pub frames_out: u64,
    /// Images without a result.
    pub dropped: u64,
    /// Results per second, from the first to the last.
    pub fps: Option<f64>,
    /// From the arrival of the image to the arrival of its masks, both at the recorder.
    pub latency_ms: Option<Spread>,
    /// What the node took beyond its models' critical path, from an image's arrival to its published masks, as it says itself.
    pub overhead_ms: Option<Spread>,
    /// Every stage the node reports.
    pub stages_ms: BTreeMap<String, Spread>,
    /// Mean of `iou`.
    pub miou: Option<f64>,
    /// By class seen in the ground truth while it was asked for.
    pub iou: BTreeMap<String, f64>,
    /// Ground-truth pixels behind each of them.
    pub truth_pixels: BTreeMap<String, u64>,
    /// Frames that were compared with the ground truth.
    pub scored_frames: u64,
    /// Labelled objects in all results.
    pub objects: u64,
    /// Versions of the class list, in order.
    pub vocabulary_versions: Vec<u64>,
    /// What each version held, and how many results were made with it.
    pub vocabularies: Vec<VocabularyUse>,
    /// Messages in the recorded bag.
    pub recorded_messages: u64,
    /// Messages the recorder was too slow for.
    pub recorder_lost: u64,
    /// The bag that was played.
    pub bag: String,
    /// The ROS domain it happened on.
    pub domain_id: u16,
    /// The last `/diagnostics`, by status name.
    pub diagnostics: BTreeMap<String, BTreeMap<String, String>>,
}

/// A class list in use.
#[derive(Debug, Serialize)]
pub struct VocabularyUse {
    /// Its number.
    pub version: u64,
    /// Who asked for it.
    pub source: String,
    /// Its classes.
    pub classes: Vec<String>,
    /// Results made with it.
    pub frames: u64,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Spread {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Spread {
    fn of(samples: &mut [Duration]) -> Option<Self> {
        if samples.is_empty() {
            return None;
        }
        let percentiles = Percentiles::of(samples);
        let milliseconds = |duration: Duration| round(duration.as_secs_f64() * 1e3, 3);
        Some(Self {
            p50: milliseconds(percentiles.p50),
            p90: milliseconds(percentiles.p90),
            p99: milliseconds(percentiles.p99),
            max: milliseconds(percentiles.max),
        })
    }

    /// Of a stage in a status of `/diagnostics`.
    fn told(status: &BTreeMap<String, String>, stage: &str) -> Option<Self> {
        let value = |percentile: &str| status.get(&format!("{stage}_ms.{percentile}"))?.parse().ok();
        Some(Self { p50: value("p50")?, p90: value("p90")?, p99: value("p99")?, max: value("max")? })
    }
}

/// The status of a single camera in the node's diagnostics.
const FRAMES: &str = "scenelex: frames";

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// Counts the watcher kept.
pub struct Observed {
    pub bag: String,
    pub domain: u16,
    pub frames_in: u64,
    pub frames_out: u64,
    pub objects: u64,
    pub rate: Option<f64>,
    pub scored: u64,
    pub messages: u64,
    pub messages_lost: u64,
    pub vocabularies: Vec<VocabularyUse>,
    pub diagnostics: BTreeMap<String, BTreeMap<String, String>>,
}

impl Summary {
    pub fn new(
        observed: Observed,
        iou: &IouReport,
        latencies: &mut [Duration],
        stages: BTreeMap<String, Vec<Duration>>,
    ) -> Self {
        let spreads = stages.into_iter().filter_map(|(name, mut samples)| Some((name, Spread::of(&mut samples)?)));
        Self {
            frames_in: observed.frames_in,
            frames_out: observed.frames_out,
            dropped: observed.frames_in.saturating_sub(observed.frames_out),
            fps: observed.rate.map(|rate| round(rate, 2)),
            latency_ms: Spread::of(latencies),
            overhead_ms: observed.diagnostics.get(FRAMES).and_then(|frames| Spread::told(frames, "overhead")),
            stages_ms: spreads.collect(),
            miou: iou.mean.map(|mean| round(mean, 4)),
            iou: iou.classes.iter().map(|class| (class.name.clone(), round(class.iou, 4))).collect(),
            truth_pixels: iou.classes.iter().map(|class| (class.name.clone(), class.pixels)).collect(),
            scored_frames: observed.scored,
            objects: observed.objects,
            vocabulary_versions: observed.vocabularies.iter().map(|list| list.version).collect(),
            vocabularies: observed.vocabularies,
            recorded_messages: observed.messages,
            recorder_lost: observed.messages_lost,
            bag: observed.bag,
            domain_id: observed.domain,
            diagnostics: observed.diagnostics,
        }
    }
}

/// Writes the summary as JSON.
pub fn write(path: &Path, summary: &Summary) -> Result<()> {
    let mut text = serde_json::to_string_pretty(summary)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// How the vocabulary loop fared, of its diagnostics.
fn looks(refresh: &BTreeMap<String, String>) -> String {
    let value = |key: &str| refresh.get(key).map_or("", String::as_str);
    let last = match value("last.refined_by") {
        "" => "the last one failed".to_owned(),
        refined => format!("the last refined by {refined}"),
    };
    let replayed = refresh.get("llm.replayed").map(|count| format!(", {count} recorded answers"));
    format!("{}, {last}{}", value("refreshes"), replayed.unwrap_or_default())
}

/// The summary for people.
pub fn table(summary: &Summary, folder: &Path) -> String {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    row("frames in / out / dropped", format!("{} / {} / {}", summary.frames_in, summary.frames_out, summary.dropped));
    row("frames per second", summary.fps.map_or_else(|| "-".to_owned(), |fps| format!("{fps:.1}")));
    let spread = |spread: Option<Spread>| {
        spread.map_or_else(|| "-".to_owned(), |s| format!("{:.1} / {:.1} / {:.1} ms", s.p50, s.p90, s.p99))
    };
    row("latency p50 / p90 / p99", spread(summary.latency_ms));
    row("overhead p50 / p90 / p99", spread(summary.overhead_ms));
    row("objects labelled", summary.objects.to_string());
    for list in &summary.vocabularies {
        let classes = list.classes.len();
        row(
            &format!("vocabulary {}", list.version),
            format!("{classes} classes, {} frames, by {}", list.frames, list.source),
        );
    }
    if let Some(refresh) = summary.diagnostics.get("scenelex: refresh") {
        row("looks for classes", looks(refresh));
    }
    match summary.miou {
        Some(miou) => row("mean IoU", format!("{miou:.3} over {} frames", summary.scored_frames)),
        None => row("mean IoU", "- (no ground truth on the wire)".to_owned()),
    }
    for (class, iou) in &summary.iou {
        row(&format!("  {class}"), format!("{iou:.3}"));
    }
    if summary.recorder_lost > 0 {
        row("messages the recorder lost", summary.recorder_lost.to_string());
    }
    row("results in", folder.display().to_string());
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<width$}  {value}")).collect();
    lines.join("\n")
}
