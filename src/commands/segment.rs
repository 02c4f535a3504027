//! `scenelex segment`: pictures in, overlays and JSON out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use image::{DynamicImage, ImageDecoder as _, ImageReader, metadata::Orientation};
use scenelex::{
    imaging::{DecodeLimits, ImageDecoder, overlay},
    inference::{Bundle, ModelOptions, Runtime, TextEncoder},
    pipeline::{Pipeline, PipelineConfig, PreparedVocabulary},
    types::{CameraImage, FrameResult, Header, ImagePayload, ImageSize, RgbImage, VocabularySource},
    vocabulary::{VocabularyBuilder, VocabularyLimits, parse_class_list},
};
use serde::Serialize;

use super::{INTERRUPTED, interrupt::Interrupt, models, progress::Progress, say};

/// Label pictures: an overlay (PNG) and the masks (JSON) for each.
///
/// The JSON holds every object's class, scores, box ([x0, y0, x1, y1] in pixels) and mask as COCO uncompressed run
/// lengths, which pycocotools reads as they are. A picture with an EXIF orientation is turned upright first, and size, boxes
/// and masks are those of the upright picture. A picture that cannot be read is reported; the others are still done.
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
    let names = names(&args.images);
    refuse_to_overwrite(&args.images, &names, &args.out)?;
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
    let (mut result, mut picture) = (FrameResult::default(), RgbImage::default());
    let mut failed = 0;
    for (index, (path, name)) in args.images.iter().zip(&names).enumerate() {
        if interrupt.is_raised() {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        progress.show(index as f64 / args.images.len() as f64, &path.display().to_string());
        let done = segment(path, &mut pipeline, &vocabulary, &mut result).and_then(|()| {
            overlay::draw_overlay(pipeline.rgb(), &result, &mut picture)?;
            write(&args.out, name, path, &vocabulary, &result, &picture)
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

/// Each picture's name without its extension, with a number where another picture has the same.
fn names(pictures: &[PathBuf]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let unique = |path: &PathBuf| {
        let stem = path.file_stem().map_or_else(|| "picture".into(), |stem| stem.to_string_lossy());
        let mut name = stem.to_string();
        let mut number = 2;
        while !taken.insert(name.clone()) {
            name = format!("{stem}_{number}");
            number += 1;
        }
        name
    };
    pictures.iter().map(unique).collect()
}

/// The files made of the picture called `name`: JSON and overlay.
fn outputs(folder: &Path, name: &str) -> [PathBuf; 2] {
    [folder.join(format!("{name}.json")), folder.join(format!("{name}_overlay.png"))]
}

/// Where a file is or would be, whatever names lead to it; `None` where its folder does not exist.
fn place(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().or_else(|| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        Some(folder.unwrap_or(Path::new(".")).canonicalize().ok()?.join(path.file_name()?))
    })
}

/// An error where a result would take the place of one of the pictures.
fn refuse_to_overwrite(pictures: &[PathBuf], names: &[String], folder: &Path) -> Result<()> {
    let places: BTreeMap<PathBuf, &PathBuf> =
        pictures.iter().filter_map(|picture| Some((place(picture)?, picture))).collect();
    for (source, name) in pictures.iter().zip(names) {
        for output in outputs(folder, name) {
            if let Some(picture) = place(&output).and_then(|place| places.get(&place)) {
                bail!(
                    "{}: what is made of {} would be written over it; name another folder with --out",
                    picture.display(),
                    source.display()
                );
            }
        }
    }
    Ok(())
}

fn segment(
    path: &Path,
    pipeline: &mut Pipeline,
    vocabulary: &Arc<PreparedVocabulary>,
    result: &mut FrameResult,
) -> Result<()> {
    let data = fs::read(path)?;
    let format = path.extension().map_or_else(String::new, |e| e.to_string_lossy().to_lowercase());
    let payload = match orientation(&data) {
        Orientation::NoTransforms => ImagePayload::Compressed { format, data },
        turned => upright(&format, &data, turned)?,
    };
    let mut image = CameraImage { header: Header::default(), payload };
    Ok(pipeline.process(&mut image, vocabulary, result)?)
}

/// How the picture is to be turned, as its EXIF data say. Whatever cannot be read is left as it is: the decoder, which
/// knows better what a picture is, says what is wrong with it.
fn orientation(data: &[u8]) -> Orientation {
    let reader = ImageReader::new(Cursor::new(data)).with_guessed_format().ok();
    let decoder = reader.and_then(|reader| reader.into_decoder().ok());
    decoder.and_then(|mut decoder| decoder.orientation().ok()).unwrap_or(Orientation::NoTransforms)
}

/// The pixels of the picture, turned.
fn upright(format: &str, data: &[u8], orientation: Orientation) -> Result<ImagePayload> {
    let mut rgb = RgbImage::default();
    ImageDecoder::new(DecodeLimits::default()).decode_file(format, data, &mut rgb)?;
    let stored = image::RgbImage::from_raw(rgb.size.width, rgb.size.height, rgb.data);
    let mut picture = DynamicImage::ImageRgb8(stored.context("the decoded picture does not have its size")?);
    picture.apply_orientation(orientation);
    let picture = picture.into_rgb8();
    let size = ImageSize::new(picture.width(), picture.height());
    Ok(ImagePayload::Raw {
        size,
        encoding: "rgb8".to_owned(),
        is_bigendian: false,
        step: 3 * size.width,
        data: picture.into_raw(),
    })
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
    let [json, overlay] = outputs(folder, name);
    fs::write(&json, serde_json::to_vec(&report)?).with_context(|| format!("cannot write {}", json.display()))?;
    save(&overlay, picture)
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
