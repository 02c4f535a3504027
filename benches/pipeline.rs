//! The node's frame loop with the shipped models: how much time a frame takes beyond the models' own critical path.
//!
//! `pipeline/total/SIZE` is the time from when the middleware hands an image over until it is given the masks,
//! `pipeline/overhead/SIZE` what of that is beyond `max(detect, encode_image) + decode_masks` of the same frame: the image
//! copied, the frame loop woken, decoding, both models' inputs, everything after them, and the messages. The middleware is
//! left out: the image is there as bytes, and the messages end as bytes. Somebody subscribes to masks and detections. Every
//! image comes when the one before is done. The pictures are those of the demo bag, brought to the size as raw rgb8. Skips,
//! saying so, where the models are not assembled.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, missing_docs, reason = "a bench")]

#[path = "../tests/support/frame_loop.rs"]
mod frame_loop;

use std::{
    error::Error,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use frame_loop::FrameLoopBetweenBytes;
use scenelex::{
    imaging::{DecodeLimits, ImageDecoder},
    inference::{Bundle, InferenceError, ModelOptions, TextEncoder},
    pipeline::{Execution, Pipeline, PipelineConfig, PreparedVocabulary, Stage, Statistics},
    replay::bag::{Bag, MessageQuery},
    ros::{
        CdrView, cdr,
        messages::{Image, LabeledMaskArray},
    },
    types::{ImageSize, RgbImage, VocabularySource},
    vocabulary::{VocabularyBuilder, VocabularyLimits, parse_class_list},
};

const SIZES: [ImageSize; 2] = [ImageSize::new(640, 480), ImageSize::new(1280, 720)];
const CLASSES: &str =
    "mug, bottle, bowl, ball, box, can, chair, potted plant, monitor, traffic cone, stool, lamp, book, laptop";
const FRAMES: usize = 16;
const SUBSCRIBED: [&str; 2] = ["/scenelex/masks", "/scenelex/detections"];

fn models() -> PathBuf {
    std::env::var_os("SCENELEX_MODELS").map_or_else(|| PathBuf::from("models/sim"), PathBuf::from)
}

/// What became of an image.
struct Seen {
    /// From the middleware and back to it.
    total: Duration,
    models: Duration,
    objects: usize,
}

/// Has an image labelled.
fn label(node: &mut FrameLoopBetweenBytes, image: &Bytes) -> Result<Seen, Box<dyn Error>> {
    let arrived = Instant::now();
    node.send(image)?;
    let masks = node.published.recv()?;
    // The detections, which come after them.
    node.published.recv()?;
    let result: LabeledMaskArray = CdrView::from_encapsulated(&masks.message)?.decode()?;
    let models = result.stages.iter().find(|stage| stage.stage == Stage::Models.as_str()).ok_or("no such stage")?;
    Ok(Seen { total: masks.at.duration_since(arrived), models: models.duration.into(), objects: result.masks.len() })
}

fn load(models: &Path) -> Result<(Pipeline, PreparedVocabulary), Box<dyn Error>> {
    let detector = Bundle::load(&models.join("detector"))?;
    let segmenter = Bundle::load(&models.join("segmenter"))?;
    let mut config = PipelineConfig::with_thresholds(&detector.thresholds);
    // For a model that finds nothing (or everything) at its shipped threshold, such as an untrained one.
    if let Some(threshold) = std::env::var("SCENELEX_BENCH_THRESHOLD").ok().and_then(|t| t.parse().ok()) {
        config.box_threshold = threshold;
    }
    if let Some(objects) = std::env::var("SCENELEX_BENCH_OBJECTS").ok().and_then(|t| t.parse().ok()) {
        config.max_objects = objects;
    }
    // "detector,encoder,decoder,resolve" for trying out.
    if let Ok(threads) = std::env::var("SCENELEX_BENCH_THREADS") {
        let threads: Vec<usize> = threads.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let &[detector_threads, encoder_threads, decoder_threads, resolve_threads] = &threads[..] else {
            return Err("SCENELEX_BENCH_THREADS: four numbers".into());
        };
        let provider = config.execution.provider;
        config.execution = Execution { detector_threads, encoder_threads, decoder_threads, resolve_threads, provider };
    }
    let limits = VocabularyLimits::default();
    let classes = parse_class_list(CLASSES, &limits)?;
    let vocabulary =
        VocabularyBuilder::new(limits).build(&classes, VocabularySource::Configuration, SystemTime::now())?;
    let mut encoder = TextEncoder::load(&detector, &ModelOptions::default())?;
    let vocabulary = PreparedVocabulary::encode(vocabulary, &mut encoder)?;
    Ok((Pipeline::load(config, &detector, &segmenter)?, vocabulary))
}

/// Pictures of the demo bag, evenly spread over it.
fn demo_pictures() -> Result<Vec<RgbImage>, Box<dyn Error>> {
    let bag = Bag::open(Path::new("models/sim/demo_bag"))?;
    let mut files = Vec::new();
    for message in bag.messages(&MessageQuery::default())? {
        let message = message?;
        if bag.topics()[message.topic].name.ends_with("/compressed") {
            // The picture is the last field of a CompressedImage.
            let start = message.data.windows(2).position(|w| w == [0xFF, 0xD8]).ok_or("no JPEG in the message")?;
            files.push(message.data[start..].to_vec());
        }
    }
    let mut decoder = ImageDecoder::new(DecodeLimits::default());
    let step = (files.len() / FRAMES).max(1);
    let decode = |file: &Vec<u8>| {
        let mut image = RgbImage::default();
        decoder.decode_file("jpeg", file, &mut image)?;
        Ok(image)
    };
    files.iter().step_by(step).map(decode).collect()
}

/// `image` at `size` by nearest neighbour, as a raw camera message.
fn camera_image(image: &RgbImage, size: ImageSize) -> Bytes {
    let mut data = Vec::with_capacity(size.area() * 3);
    for y in 0..size.height {
        for x in 0..size.width {
            let (sx, sy) = (x * image.size.width / size.width, y * image.size.height / size.height);
            let at = (sy * image.size.width + sx) as usize * 3;
            data.extend_from_slice(&image.data[at..at + 3]);
        }
    }
    let ImageSize { width, height } = size;
    let message = Image { width, height, encoding: "rgb8".to_owned(), step: width * 3, data, ..Image::default() };
    cdr::encode(&message).expect("an image message")
}

/// A part of what became of an image.
type Part = fn(&Seen) -> Duration;

fn pipeline(c: &mut Criterion) {
    let (pipeline, vocabulary) = match load(&models()) {
        Ok(loaded) => loaded,
        Err(error) => {
            let missing =
                error.downcast_ref::<InferenceError>().is_some_and(|e| matches!(e, InferenceError::Io { .. }));
            assert!(missing, "{error}");
            eprintln!("pipeline/* skipped: {error}");
            return;
        }
    };
    let mut node = FrameLoopBetweenBytes::start(pipeline, vocabulary, &SUBSCRIBED, false).expect("the frame loop");
    let pictures = demo_pictures().expect("demo bag");
    let mut group = c.benchmark_group("pipeline");
    group.sample_size(20).warm_up_time(Duration::from_secs(2)).measurement_time(Duration::from_secs(10));
    for size in SIZES {
        let images: Vec<Bytes> = pictures.iter().map(|picture| camera_image(picture, size)).collect();
        *node.intake.counts(0) = Statistics::new();
        let mut objects = 0;
        let parts: [(&str, Part); 2] =
            [("total", |seen| seen.total), ("overhead", |seen| seen.total.saturating_sub(seen.models))];
        for (name, part) in parts {
            group.bench_function(format!("{name}/{size}"), |b| {
                b.iter_custom(|iterations| {
                    let mut time = Duration::ZERO;
                    for image in images.iter().cycle().take(iterations as usize) {
                        let seen = label(&mut node, image).expect("a result");
                        objects += seen.objects;
                        time += part(&seen);
                    }
                    time
                });
            });
        }
        let snapshot = node.intake.counts(0).snapshot(Instant::now());
        if snapshot.processed == 0 {
            continue;
        }
        println!("{size}: {:.1} objects a frame", objects as f64 / snapshot.processed as f64);
        for (stage, times) in &snapshot.stages {
            println!(
                "  {:<14} p50 {:>9.3?}  p90 {:>9.3?}  p99 {:>9.3?}",
                stage.as_str(),
                times.p50,
                times.p90,
                times.p99
            );
        }
        let share =
            snapshot.stages[&Stage::Overhead].p50.as_secs_f64() / snapshot.stages[&Stage::Models].p50.as_secs_f64();
        println!("  overhead is {:.1} % of the models' critical path (medians)", 100.0 * share);
    }
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
