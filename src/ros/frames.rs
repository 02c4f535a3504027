//! The frame loop: newest image in, results out, on a thread of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{
    convert,
    intake::{Arrived, Intake, LOG_INTERVAL},
    looks::SceneTap,
    outputs::{Outputs, flush_all},
    segment::SegmentJob,
    throttle::Throttle,
};
use crate::{
    pipeline::{FailedBatch, Frame, Pipeline, PipelineConfig, Take, VocabularyHandle},
    types::StageDurations,
};

/// How often it is looked who listens, whether images come or not.
const WATCH: Duration = Duration::from_secs(1);

/// How long the last results of all cameras get to reach their subscribers.
const FLUSH: Duration = Duration::from_millis(100);

/// What may change between two frames.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// Thresholds, prompts and limits.
    pub config: PipelineConfig,
    /// Shortest time between two overlays.
    pub overlay_interval: Duration,
}

/// What the loop works with.
pub struct FrameLoop {
    /// The models.
    pub pipeline: Pipeline,
    /// Where each camera's results go.
    pub outputs: Vec<Outputs>,
    /// Where images come from.
    pub intake: Arc<Intake>,
    /// The class list.
    pub vocabulary: VocabularyHandle,
    /// Read before every frame.
    pub tuning: Arc<ArcSwap<Tuning>>,
    /// Takes images for the vocabulary loop.
    pub tap: Option<SceneTap>,
    /// What `~/segment` is asked for.
    pub segments: Receiver<SegmentJob>,
}

/// The frame loop on its thread.
pub struct Frames {
    thread: JoinHandle<()>,
    /// Disconnected when the thread ends.
    pub ended: Receiver<()>,
    unsent: Vec<Arc<AtomicU64>>,
    image_batch: Arc<AtomicUsize>,
}

impl Frames {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(frame_loop: FrameLoop) -> std::io::Result<Self> {
        let (alive, ended) = bounded::<()>(0);
        let unsent = frame_loop.outputs.iter().map(Outputs::unsent).collect();
        let image_batch = Arc::new(AtomicUsize::new(frame_loop.pipeline.max_batch()));
        let at_present = Arc::clone(&image_batch);
        let thread = thread::Builder::new().name("frames".to_owned()).spawn(move || {
            let _alive: Sender<()> = alive;
            frame_loop.run(&at_present);
        })?;
        Ok(Self { thread, ended, unsent, image_batch })
    }

    /// Messages of a camera that could not be sent.
    pub fn unsent(&self, camera: usize) -> u64 {
        self.unsent.get(camera).map_or(0, |unsent| unsent.load(Ordering::Relaxed))
    }

    /// Most images of one run of the models at present.
    pub fn image_batch(&self) -> usize {
        self.image_batch.load(Ordering::Relaxed)
    }

    /// Waits for the loop to end after its intake was closed, until `deadline` at most.
    pub fn join(self, deadline: Instant) {
        match self.ended.recv_deadline(deadline) {
            Err(RecvTimeoutError::Timeout) => tracing::warn!("gave up a frame that takes longer than the end may"),
            _ => {
                // A panic has been reported by the panic hook and by `NodeError::FramesEnded`.
                let _ = self.thread.join();
            }
        }
    }
}

impl FrameLoop {
    fn run(self, image_batch: &AtomicUsize) {
        let Self { mut pipeline, mut outputs, intake, vocabulary, tuning, mut tap, segments } = self;
        // One for each camera: what it found last, for its buffers and for who asks about its last image.
        let mut frames: Vec<Frame> = outputs.iter().map(|_| Frame::default()).collect();
        // How long each camera's image has waited, and how much of that the frame loop was free.
        let mut queued = vec![(Duration::ZERO, Duration::ZERO); frames.len()];
        let (mut due, mut served) = (Vec::with_capacity(frames.len()), Vec::with_capacity(frames.len()));
        let mut tuned = tuning.load_full();
        let mut throttle = Throttle::new(LOG_INTERVAL);
        let gate = tap.as_ref().map(SceneTap::gate).unwrap_or_default();
        let mut watched = Instant::now();
        loop {
            if watched.elapsed() >= WATCH {
                outputs.iter_mut().for_each(Outputs::watch);
                watched = Instant::now();
            }
            if let Ok(job) = segments.try_recv() {
                let _under_way = gate.begin_frame();
                job.run(&mut pipeline, &frames);
            }
            let free = Instant::now();
            let mut next = match intake.take(WATCH) {
                Take::Value(arrived) => Some(arrived),
                Take::TimedOut => continue,
                Take::Closed => break,
            };
            if !Arc::ptr_eq(&tuned, &tuning.load()) {
                tuned = tuning.load_full();
                outputs.iter_mut().for_each(|outputs| outputs.set_overlay_interval(tuned.overlay_interval));
                if let Err(error) = pipeline.set_config(tuned.config.clone()) {
                    tracing::warn!(%error, "went on with the settings as they were");
                }
            }
            let under_way = gate.begin_frame();
            due.clear();
            while let Some(Arrived { camera, image, at }) = next {
                if let (Some(frame), Some(queued)) = (frames.get_mut(camera), queued.get_mut(camera)) {
                    frame.image = image;
                    *queued = (at.elapsed(), at.max(free).elapsed());
                    due.push(camera);
                }
                next = if due.len() < pipeline.max_batch() { intake.take_other(&due) } else { None };
            }
            let prepared = vocabulary.current();
            let largest_id = convert::largest_id(&prepared.vocabulary);
            pipeline.process_batch(&mut frames, &due, &prepared, |camera, frame, outcome| {
                let (Some(outputs), Some(&(queued, intake_time))) = (outputs.get_mut(camera), queued.get(camera))
                else {
                    return;
                };
                match outcome {
                    Ok(()) => {
                        let finished = Instant::now();
                        outputs.publish(&frame.result, &frame.rgb, queued, largest_id);
                        let publish = finished.elapsed();
                        let durations = StageDurations { intake: intake_time, publish, ..frame.result.durations };
                        intake.counts(camera).count_processed(&durations, finished + publish);
                        served.push(camera);
                    }
                    Err(error) => {
                        let (kind, below) = (error.kind(), outputs.base());
                        intake.counts(camera).count_bad(kind);
                        if let Some(held) = throttle.pass(kind, Instant::now()) {
                            tracing::warn!(below, %error, kind, held_back = held, "could not process an image");
                        }
                    }
                }
            });
            drop(under_way);
            if let Some(failed) = pipeline.take_failed_batch() {
                report(failed, &mut throttle);
            }
            image_batch.store(pipeline.max_batch(), Ordering::Relaxed);
            // After publishing: what this costs never adds to a result's age.
            for camera in served.drain(..) {
                if let (Some(tap), Some(frame)) = (&mut tap, frames.get(camera)) {
                    tap.offer(camera, &frame.rgb, &frame.result);
                }
            }
            for &camera in &due {
                if let Some(frame) = frames.get_mut(camera) {
                    intake.give_back(camera, std::mem::take(&mut frame.image));
                }
            }
        }
        flush_all(&outputs, FLUSH);
    }
}

/// Says that the models failed on several images together.
fn report(failed: FailedBatch, throttle: &mut Throttle) {
    let FailedBatch { images, error, one_by_one } = failed;
    let kind = if one_by_one { "batch given up" } else { "batch" };
    let Some(held_back) = throttle.pass(kind, Instant::now()) else { return };
    if one_by_one {
        tracing::warn!(
            images,
            %error,
            "a run of several images failed and each of them succeeded alone: the models get one at a time from now on, \
             until they are loaded anew or image_batch is set"
        );
    } else {
        tracing::warn!(images, %error, held_back, "a run of several images failed; each of them was tried alone");
    }
}
