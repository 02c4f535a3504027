//! The frame loop: newest image in, results out, on a thread of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{
    convert,
    intake::{Intake, LOG_INTERVAL},
    outputs::Outputs,
    refresh::SceneTap,
    segment::SegmentJob,
    throttle::Throttle,
};
use crate::{
    pipeline::{Pipeline, PipelineConfig, Take, VocabularyHandle},
    types::FrameResult,
};

/// How long the last results get to reach their subscribers.
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
    /// Where results go.
    pub outputs: Outputs,
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
    unsent: Arc<AtomicU64>,
}

impl Frames {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(frame_loop: FrameLoop) -> std::io::Result<Self> {
        let (alive, ended) = bounded::<()>(0);
        let unsent = frame_loop.outputs.unsent();
        let thread = thread::Builder::new().name("frames".to_owned()).spawn(move || {
            let _alive: Sender<()> = alive;
            frame_loop.run();
        })?;
        Ok(Self { thread, ended, unsent })
    }

    /// Messages that could not be sent.
    pub fn unsent(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
    }

    /// Waits for the loop to end after its intake was closed, at most `timeout`.
    pub fn join(self, timeout: Duration) {
        match self.ended.recv_timeout(timeout) {
            Err(RecvTimeoutError::Timeout) => tracing::warn!("gave up a frame that takes longer than the end may"),
            _ => {
                // A panic has been reported by the panic hook and by `NodeError::FramesEnded`.
                let _ = self.thread.join();
            }
        }
    }
}

impl FrameLoop {
    fn run(self) {
        let Self { mut pipeline, mut outputs, intake, vocabulary, tuning, mut tap, segments } = self;
        let mut result = FrameResult::default();
        let mut tuned = tuning.load_full();
        let mut throttle = Throttle::new(LOG_INTERVAL);
        let gate = tap.as_ref().map(SceneTap::gate).unwrap_or_default();
        loop {
            if let Ok(job) = segments.try_recv() {
                let _under_way = gate.begin_frame();
                job.run(&mut pipeline, &result);
            }
            let mut arrived = match intake.take(Duration::from_secs(1)) {
                Take::Value(arrived) => arrived,
                Take::TimedOut => continue,
                Take::Closed => break,
            };
            if !Arc::ptr_eq(&tuned, &tuning.load()) {
                tuned = tuning.load_full();
                outputs.set_overlay_interval(tuned.overlay_interval);
                if let Err(error) = pipeline.set_config(tuned.config.clone()) {
                    tracing::warn!(%error, "went on with the settings as they were");
                }
            }
            let under_way = gate.begin_frame();
            let queued = arrived.at.elapsed();
            let prepared = vocabulary.current();
            match pipeline.process(&mut arrived.image, &prepared, &mut result) {
                Ok(()) => {
                    let largest_id = convert::largest_id(&prepared.vocabulary);
                    outputs.publish(&result, pipeline.rgb(), queued, largest_id);
                    intake.counts().count_processed(&result.durations, Instant::now());
                    drop(under_way);
                    // After publishing: what this costs never adds to a result's age.
                    if let Some(tap) = &mut tap {
                        tap.offer(pipeline.rgb(), &result);
                    }
                }
                Err(error) => {
                    intake.counts().count_bad(error.kind());
                    if let Some(held) = throttle.pass(error.kind(), Instant::now()) {
                        tracing::warn!(%error, kind = error.kind(), held_back = held, "could not process an image");
                    }
                }
            }
            intake.give_back(arrived.image);
        }
        outputs.flush(FLUSH);
    }
}
