//! Mask decoding, shared out over several sessions.
//!
//! On a processor two sessions of one thread each decode two batches in less time than one session of two threads
//! decodes both, because the decoder's operators are small. The calling thread owns the first session; each further one
//! belongs to a thread of its own.

use std::{
    cmp::Reverse,
    ops::Range,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::{FrameError, config::MAX_OBJECTS, error::caught};
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

    /// Into how many runs `objects` that are all alike are to be divided, given the most that one may take: as few as
    /// possible, but so that every session has the same number.
    fn batches(&self, objects: usize, largest: usize) -> usize {
        let sessions = self.busy.len();
        let largest = largest.min(self.own.max_batch()).max(1);
        objects.div_ceil(largest).next_multiple_of(sessions).min(objects)
    }

    /// Cuts `order` into the parts that are decoded in one run each: at most `largest` objects, all of one `kind`.
    /// Objects of one kind lie beside each other in `order`.
    ///
    /// Every kind gets its share of the runs that as many objects of a single kind would take, rounded up: no run is
    /// larger than it would be then, and the sessions have something to share where one kind is common. The largest
    /// come first, so that the last to be taken are short.
    pub fn runs<K: PartialEq>(
        &self,
        order: &[usize],
        largest: usize,
        kind: impl Fn(usize) -> K,
        out: &mut Vec<Range<usize>>,
    ) {
        out.clear();
        let batches = self.batches(order.len(), largest);
        let mut start = 0;
        for alike in order.chunk_by(|&a, &b| kind(a) == kind(b)) {
            let end = start + alike.len();
            for left in (1..=(alike.len() * batches).div_ceil(order.len())).rev() {
                let next = start + (end - start).div_ceil(left);
                out.push(start..next);
                start = next;
            }
        }
        out.sort_by_key(|run| Reverse(run.len()));
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
        Some(masks) => caught("mask decoder", || decoder.decode(&embedding, image, &batch.prompts, masks)),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A session that nobody asks for a mask.
    struct Idle;

    impl MaskDecoder for Idle {
        fn max_batch(&self) -> usize {
            16
        }

        fn decode(
            &mut self,
            _: &ImageEmbedding,
            _: ImageSize,
            _: &PromptBatch,
            _: &mut LowResMasks,
        ) -> Result<(), InferenceError> {
            Ok(())
        }
    }

    fn pool(sessions: usize) -> DecoderPool {
        let others = (1..sessions).map(|_| Box::new(Idle) as Box<dyn MaskDecoder>).collect();
        DecoderPool::start(Box::new(Idle), others).unwrap()
    }

    /// Sizes of the runs of objects of these kinds.
    fn sizes(sessions: usize, largest: usize, kinds: &[u32]) -> Vec<usize> {
        let order: Vec<usize> = (0..kinds.len()).collect();
        let mut runs = Vec::new();
        pool(sessions).runs(&order, largest, |index| kinds[index], &mut runs);
        runs.iter().map(Range::len).collect()
    }

    #[test]
    fn objects_that_are_alike_are_divided_evenly() {
        assert_eq!(sizes(1, 8, &[20; 8]), [8]);
        assert_eq!(sizes(2, 8, &[20; 8]), [4, 4]);
        assert_eq!(sizes(2, 8, &[20; 17]), [5, 4, 4, 4]);
        assert_eq!(sizes(4, 3, &[20; 9]), [3, 2, 2, 2]);
        assert_eq!(sizes(1, 64, &[20; 17]), [9, 8], "16 is what the file takes");
        assert!(sizes(2, 8, &[]).is_empty());
    }

    #[test]
    fn a_kind_that_is_common_is_shared_by_the_sessions() {
        assert_eq!(sizes(2, 8, &[20, 20, 20, 20, 20, 20, 20, 3]), [4, 3, 1]);
        assert_eq!(sizes(2, 8, &[20, 20, 20, 20, 3, 3, 3, 3]), [4, 4]);
        assert_eq!(sizes(1, 8, &[20, 20, 20, 3, 3, 2]), [3, 2, 1], "one session: no more runs than kinds");
    }

    proptest! {
        #[test]
        fn every_object_is_in_one_run_with_others_of_its_kind(
            mut kinds in prop::collection::vec(0u32..6, 0..80), sessions in 1usize..5, largest in 1usize..20,
        ) {
            kinds.sort_unstable();
            // Objects are numbered otherwise than they are ordered.
            let order: Vec<usize> = (0..kinds.len()).rev().collect();
            let mut runs = Vec::new();
            pool(sessions).runs(&order, largest, |index| kinds[index], &mut runs);
            let mut seen = vec![0; kinds.len()];
            for run in &runs {
                prop_assert!((1..=largest.min(16)).contains(&run.len()));
                let members = &order[run.clone()];
                prop_assert!(members.iter().all(|&member| kinds[member] == kinds[members[0]]));
                members.iter().for_each(|&member| seen[member] += 1);
            }
            prop_assert!(seen.iter().all(|&times| times == 1), "{seen:?}");
            // Short ones are taken by whoever is free: no session has more than the others by more than one run.
            let mut busy = vec![0_usize; sessions];
            for run in &runs {
                *busy.iter_mut().min().unwrap() += run.len();
            }
            let (most, least) = (busy.iter().max().unwrap(), busy.iter().min().unwrap());
            prop_assert!(most - least <= runs.first().map_or(0, Range::len), "{busy:?}");
            prop_assert!(runs.first().map_or(0, Range::len) <= kinds.len().div_ceil(sessions));
        }
    }
}
