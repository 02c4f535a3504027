//! `scenelex segment`: pictures in, overlays and JSON out.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use clap::Args;
use scenelex::{
    imaging::overlay,
    inference::{Bundle, ModelOptions, Runtime, TextEncoder},
    pipeline::{Pipeline, PipelineConfig, PreparedVocabulary},
    types::{CameraImage, FrameResult, Header, ImagePayload, RgbImage, VocabularySource},
    vocabulary::{VocabularyBuilder, VocabularyLimits, parse_class_list},
};
use serde::Serialize;

use super::{INTERRUPTED, interrupt::Interrupt, models, progress::Progress, say};

/// Label pictures: an overlay (PNG) and the masks (JSON) for each.
///
/// The JSON holds every object's class, scores, box ([x0, y0, x1, y1] in pixels) and mask as COCO uncompressed run
/// lengths, which pycocotools reads as they are. A picture that cannot be read is reported; the others are still done.
#[derive(Args)]
pub struct SegmentArgs {
    /// Pictures, JPEG or PNG
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// What to look for, separated by commas
    #[arg(short, long, value_name = "\"A, B\"")]
    classes: String,
    /// Folder with the bundles detector/ and segmenter/ [default: models/sim]
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Folder for the results
    #[arg(short, long, default_value = "out/segment", value_name = "DIR")]
    out: PathBuf,
    /// Least detection score in [0, 1] [default: the detector's own]
    #[arg(long, value_name = "SCORE")]
    box_threshold: Option<f32>,
}

#[derive(Serialize)]
struct Report<'a> {
    image: String,
    width: u32,
    height: u32,
    classes: Vec<&'a str>,
    instances: Vec<Instance<'a>>,
    durations_ms: Durations,
}

#[derive(Serialize)]
struct Instance<'a> {
    instance_id: u32,
    class_id: u16,
    label: &'a str,
    phrase: &'a str,
    score: f32,
    mask_score: f32,
    r#box: [f32; 4],
    area: u64,
    segmentation: Segmentation<'a>,
}

#[derive(Serialize)]
struct Segmentation<'a> {
    /// Height, width: the order COCO has.
    size: [u32; 2],
    counts: &'a [u32],
}

#[derive(Serialize)]
struct Durations {
    total: f64,
    models: f64,
}

pub fn run(args: &SegmentArgs) -> Result<ExitCode> {
    let limits = VocabularyLimits::default();
    let classes = parse_class_list(&args.classes, &limits).context("--classes")?;
    let folder = models::folder(args.models.as_deref())?;
    let interrupt = Interrupt::install().context("cannot listen to signals")?;

    Runtime::init(None)?;
    let detector = Bundle::load(&folder.join("detector"))?;
    let segmenter = Bundle::load(&folder.join("segmenter"))?;
    let mut config = PipelineConfig::with_thresholds(&detector.thresholds);
    if let Some(threshold) = args.box_threshold {
        config.box_threshold = threshold;
    }
    let options = ModelOptions {
        intra_threads: config.execution.detector_threads,
        provider: config.execution.provider,
        ..ModelOptions::default()
    };
    let mut encoder = TextEncoder::load(&detector, &options)?;
    let vocabulary =
        VocabularyBuilder::new(limits).build(&classes, VocabularySource::Configuration, SystemTime::now())?;
    let vocabulary = Arc::new(PreparedVocabulary::encode(vocabulary, &mut encoder)?);
    drop(encoder);
    let mut pipeline = Pipeline::load(config, &detector, &segmenter)?;

    fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let mut progress = Progress::new("segmenting");
    let mut names = BTreeSet::new();
    let (mut result, mut picture) = (FrameResult::default(), RgbImage::default());
    let mut failed = 0;
    for (index, path) in args.images.iter().enumerate() {
        if interrupt.is_raised() {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        progress.show(index as f64 / args.images.len() as f64, &path.display().to_string());
        let name = unique_name(path, &mut names);
        let done = segment(path, &mut pipeline, &vocabulary, &mut result).and_then(|()| {
            overlay::draw_overlay(pipeline.rgb(), &result, &mut picture)?;
            write(&args.out, &name, path, &vocabulary, &result, &picture)
        });
        progress.clear();
        match done {
            Ok(()) => say(&describe(path, &result)),
            Err(error) => {
                failed += 1;
                tracing::error!("{}: {error:#}", path.display());
            }
        }
    }
    say(&format!(
        "{} of {} pictures labelled; results in {}",
        args.images.len() - failed,
        args.images.len(),
        args.out.display()
    ));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The picture's name without its extension, with a number where another picture has the same.
fn unique_name(path: &Path, names: &mut BTreeSet<String>) -> String {
    let stem = path.file_stem().map_or_else(|| "picture".into(), |stem| stem.to_string_lossy());
    let mut name = stem.to_string();
    let mut number = 2;
    while !names.insert(name.clone()) {
        name = format!("{stem}_{number}");
        number += 1;
    }
    name
}

fn segment(
    path: &Path,
    pipeline: &mut Pipeline,
    vocabulary: &Arc<PreparedVocabulary>,
    result: &mut FrameResult,
) -> Result<()> {
    let data = fs::read(path)?;
    let format = path.extension().map_or_else(String::new, |e| e.to_string_lossy().to_lowercase());
    let mut image = CameraImage { header: Header::default(), payload: ImagePayload::Compressed { format, data } };
    Ok(pipeline.process(&mut image, vocabulary, result)?)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn write(
    folder: &Path,
    name: &str,
    source: &Path,
    vocabulary: &PreparedVocabulary,
    result: &FrameResult,
    picture: &RgbImage,
) -> Result<()> {
    let instances = result.instances.iter().map(|found| Instance {
        instance_id: found.instance_id,
        class_id: found.class_id,
        label: &found.label,
        phrase: &found.phrase,
        score: found.score,
        mask_score: found.mask_score,
        r#box: [found.bbox.x0, found.bbox.y0, found.bbox.x1, found.bbox.y1],
        area: found.mask.area(),
        segmentation: Segmentation {
            size: [found.mask.size.height, found.mask.size.width],
            counts: &found.mask.counts,
        },
    });
    let report = Report {
        image: source.display().to_string(),
        width: result.size.width,
        height: result.size.height,
        classes: vocabulary.vocabulary.entries.iter().map(|entry| &*entry.label).collect(),
        instances: instances.collect(),
        durations_ms: Durations {
            total: milliseconds(result.durations.total),
            models: milliseconds(result.durations.models),
        },
    };
    let json = folder.join(format!("{name}.json"));
    fs::write(&json, serde_json::to_vec(&report)?).with_context(|| format!("cannot write {}", json.display()))?;
    save(&folder.join(format!("{name}_overlay.png")), picture)
}

/// Writes a picture in the format its name has.
pub fn save(path: &Path, picture: &RgbImage) -> Result<()> {
    let (width, height) = (picture.size.width, picture.size.height);
    image::save_buffer(path, &picture.data, width, height, image::ExtendedColorType::Rgb8)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn describe(path: &Path, result: &FrameResult) -> String {
    let objects: Vec<String> =
        result.instances.iter().map(|found| format!("{} {:.2}", found.label, found.score)).collect();
    let objects = if objects.is_empty() { "nothing found".to_owned() } else { objects.join(", ") };
    format!("{} ({}, {:.0} ms): {objects}", path.display(), result.size, milliseconds(result.durations.total))
}
