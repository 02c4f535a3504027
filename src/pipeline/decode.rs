//! Mask decoding, shared out over several sessions.
//!
//! On a processor two sessions of one thread each decode two batches in less time than one session of two threads
//! decodes both, because the decoder's operators are small. The calling thread owns the first session; each further one
//! belongs to a thread of its own.

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::{FrameError, config::MAX_OBJECTS};
use crate::{
    inference::{ImageEmbedding, InferenceError, LowResMasks, MaskDecoder, PromptBatch},
    types::ImageSize,
};

/// Objects that are decoded in one run. The buffers go round and round.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Indices of the detections.
    pub members: Vec<usize>,
    pub prompts: PromptBatch,
    /// Nobody else holds it while the batch is being decoded.
    pub masks: Arc<LowResMasks>,
}

struct Job {
    embedding: ImageEmbedding,
    image: ImageSize,
    batch: Batch,
}

struct Done {
    worker: usize,
    batch: Batch,
    took: Duration,
    result: Result<(), InferenceError>,
}

/// The sessions of the mask decoder.
pub(super) struct DecoderPool {
    own: Box<dyn MaskDecoder>,
    jobs: Option<Sender<Job>>,
    waiting: Receiver<Job>,
    done: Receiver<Done>,
    threads: Vec<JoinHandle<()>>,
    spare: Vec<Batch>,
    /// Time each session was busy with the present frame; the caller's comes first.
    busy: Vec<Duration>,
    pending: usize,
}

impl DecoderPool {
    /// One session for the calling thread, the others on threads of their own.
    pub fn start(own: Box<dyn MaskDecoder>, others: Vec<Box<dyn MaskDecoder>>) -> std::io::Result<Self> {
        let (jobs, waiting) = bounded::<Job>(MAX_OBJECTS);
        let (finished, done) = bounded(MAX_OBJECTS);
        let busy = vec![Duration::ZERO; others.len() + 1];
        let mut threads = Vec::with_capacity(others.len());
        for (index, mut decoder) in others.into_iter().enumerate() {
            let (waiting, finished) = (waiting.clone(), finished.clone());
            let name = format!("mask-decoder-{}", index + 1);
            let thread = std::thread::Builder::new().name(name).spawn(move || {
                for job in waiting {
                    if finished.send(run(decoder.as_mut(), index + 1, job)).is_err() {
                        break;
                    }
                }
            })?;
            threads.push(thread);
        }
        Ok(Self { own, jobs: Some(jobs), waiting, done, threads, spare: Vec::new(), busy, pending: 0 })
    }

    /// Into how many runs `objects` are to be divided, given the most that one may take: as few as possible, but so that
    /// every session has the same number.
    pub fn batches(&self, objects: usize, largest: usize) -> usize {
        let sessions = self.busy.len();
        let largest = largest.min(self.own.max_batch()).max(1);
        objects.div_ceil(largest).next_multiple_of(sessions).min(objects)
    }

    /// Forgets how busy the sessions were.
    pub fn begin(&mut self) {
        self.busy.fill(Duration::ZERO);
    }

    /// An empty batch.
    pub fn batch(&mut self) -> Batch {
        let mut batch = self.spare.pop().unwrap_or_default();
        batch.members.clear();
        if Arc::get_mut(&mut batch.masks).is_none() {
            batch.masks = Arc::default();
        }
        batch
    }

    /// Queues a batch for whichever session is free first.
    pub fn queue(&mut self, batch: Batch, embedding: &ImageEmbedding, image: ImageSize) {
        let job = Job { embedding: embedding.clone(), image, batch };
        // There are never more batches than objects, and the queue holds as many as a frame may have.
        if self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok()) {
            self.pending += 1;
        }
    }

    /// The next batch that is decoded; `None` when all are. The calling thread's session takes part. An error stands for
    /// its batch only.
    pub fn next(&mut self) -> Option<Result<Batch, FrameError>> {
        if self.pending == 0 {
            return None;
        }
        self.pending -= 1;
        let done = match self.done.try_recv() {
            Ok(done) => done,
            Err(_) => match self.waiting.try_recv() {
                Ok(job) => run(self.own.as_mut(), 0, job),
                Err(_) => match self.done.recv() {
                    Ok(done) => done,
                    Err(_) => return Some(Err(FrameError::ThreadEnded("mask decoder"))),
                },
            },
        };
        if let Some(busy) = self.busy.get_mut(done.worker) {
            *busy += done.took;
        }
        Some(match done.result {
            Ok(()) => Ok(done.batch),
            Err(error) => {
                self.spare.push(done.batch);
                Err(error.into())
            }
        })
    }

    /// Gives a batch back once its masks are no longer needed here.
    pub fn recycle(&mut self, batch: Batch) {
        self.spare.push(batch);
    }

    /// How long the busiest session ran: the decoder's part of the models' critical path.
    pub fn critical_path(&self) -> Duration {
        self.busy.iter().max().copied().unwrap_or_default()
    }
}

fn run(decoder: &mut dyn MaskDecoder, worker: usize, job: Job) -> Done {
    let Job { embedding, image, mut batch } = job;
    let start = Instant::now();
    let result = match Arc::get_mut(&mut batch.masks) {
        Some(masks) => decoder.decode(&embedding, image, &batch.prompts, masks),
        None => Err(InferenceError::Session { model: "mask decoder".into(), reason: "the batch is in use".into() }),
    };
    Done { worker, batch, took: start.elapsed(), result }
}

impl Drop for DecoderPool {
    fn drop(&mut self) {
        drop(self.jobs.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
