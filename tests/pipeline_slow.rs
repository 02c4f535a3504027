//! A model slower than the camera lowers the rate of results, never their freshness.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use scenelex::{
    inference::{
        Detector, EncodedText, GroundingDino, InferenceError, ModelOptions, RawDetections, SamImageEncoder,
        SamMaskDecoder,
    },
    pipeline::{LatestSlots, Models, Pipeline, Put, Take},
    types::{CameraImage, FrameResult, ImageSize, RgbImage, Stamp},
};
use support::*;

/// The tiny detector, but each run takes as long as the camera needs for `frames` pictures. The camera is a counter that
/// the detector itself turns, so the test depends on no clock.
struct Slow {
    inner: GroundingDino,
    camera: Arc<Camera>,
    frames: u64,
}

struct Camera {
    slot: LatestSlots<CameraImage>,
    /// Number of the last picture taken.
    taken: AtomicU64,
    /// Pictures replaced by newer ones.
    dropped: AtomicU64,
}

impl Camera {
    fn take_pictures(&self, count: u64) {
        for _ in 0..count {
            let number = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
            let mut image = picture(ImageSize::new(64, 48), &[((number % 4) as u32, 1, RED)]);
            image.header.stamp = Stamp::from_nanos(i64::try_from(number).unwrap());
            match self.slot.put(0, image) {
                Put::Stored => {}
                Put::Replaced(_) => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
                Put::Closed(_) => panic!("the slot is open"),
            }
        }
    }
}

impl Detector for Slow {
    fn max_batch(&self) -> usize {
        1
    }

    fn prepare(&mut self, images: &[&RgbImage]) -> Result<(), InferenceError> {
        self.inner.prepare(images)
    }

    fn detect(&mut self, text: &EncodedText, out: &mut Vec<RawDetections>) -> Result<(), InferenceError> {
        self.camera.take_pictures(self.frames);
        self.inner.detect(text, out)
    }
}

#[test]
fn a_result_is_one_model_period_old() {
    /// Pictures per run of the detector: the model's period, in pictures.
    const PERIOD: u64 = 7;
    const RESULTS: u64 = 50;
    let options = ModelOptions::default();
    let segmenter = tiny_bundle("segmenter");
    let camera = Arc::new(Camera { slot: LatestSlots::new(1), taken: AtomicU64::new(0), dropped: AtomicU64::new(0) });
    let models = Models {
        detector: Box::new(Slow {
            inner: GroundingDino::load(&tiny_bundle("detector"), &options).unwrap(),
            camera: Arc::clone(&camera),
            frames: PERIOD,
        }),
        image_encoder: Box::new(SamImageEncoder::load(&segmenter, &options).unwrap()),
        mask_decoder: Box::new(SamMaskDecoder::load(&segmenter, &options).unwrap()),
        more_mask_decoders: Vec::new(),
    };
    let mut pipeline = Pipeline::with_models(tiny_config(), models).unwrap();
    let vocabulary = prepare(&mut tiny_encoder(), &specs(&["red"]));
    camera.take_pictures(1);
    let mut result = FrameResult::default();
    let mut last = 0;
    for _ in 0..RESULTS {
        let Take::Value((_, mut image)) = camera.slot.take_blocking(Duration::from_secs(10)) else {
            panic!("no picture")
        };
        pipeline.process(&mut image, &vocabulary, &mut result).unwrap();
        let number = u64::try_from(result.header.stamp.as_nanos()).unwrap();
        let age = camera.taken.load(Ordering::Relaxed) - number;
        // It was the newest when its run began, and the camera took a period's pictures meanwhile.
        assert_eq!(age, PERIOD, "pictures taken since that of the result");
        assert!(number > last, "results go forward in time");
        // It is the picture it says it is.
        let x = (number % 4) as f32 * 16.0 + 8.0;
        assert!(result.instances[0].bbox.x0 < x && result.instances[0].bbox.x1 > x);
        last = number;
    }
    let taken = camera.taken.load(Ordering::Relaxed);
    // Every picture was seen, replaced by a newer one, or is waiting.
    assert_eq!(taken, RESULTS + camera.dropped.load(Ordering::Relaxed) + 1);
}

/// The same in real time and on two threads, as a node has it. Nothing is said about how long anything takes, only that a
/// run never starts with a picture older than the newest that the slot had got by then.
#[test]
fn a_run_starts_with_the_newest_picture() {
    let slot = Arc::new(LatestSlots::new(1));
    let dropped = Arc::new(AtomicU64::new(0));
    let newest = Arc::new(AtomicU64::new(0));
    let (source, replaced, put) = (Arc::clone(&slot), Arc::clone(&dropped), Arc::clone(&newest));
    let camera = std::thread::Builder::new().name("camera".into()).spawn(move || {
        for number in 0_u64.. {
            match source.put(0, number) {
                Put::Stored => {}
                Put::Replaced(_) => {
                    replaced.fetch_add(1, Ordering::Relaxed);
                }
                Put::Closed(_) => return number,
            }
            put.store(number, Ordering::Release);
            std::thread::yield_now();
        }
        0
    });
    let mut seen = 0;
    for _ in 0..50 {
        let newest = newest.load(Ordering::Acquire);
        let Take::Value((_, number)) = slot.take_blocking(Duration::from_secs(10)) else { panic!("no picture") };
        assert!(number >= newest, "picture {number} was taken although number {newest} was there");
        // A model at work: long enough for pictures to come in between.
        let until = dropped.load(Ordering::Relaxed) + 5;
        while dropped.load(Ordering::Relaxed) < until {
            std::thread::yield_now();
        }
        seen += 1;
    }
    slot.close();
    let sent = camera.unwrap().join().unwrap();
    let waiting = u64::from(slot.try_take(|_| true).is_some());
    assert_eq!(sent, seen + dropped.load(Ordering::Relaxed) + waiting);
}
