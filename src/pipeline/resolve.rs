//! From low-resolution logits to objects: masks at image size, run lengths, and the one image in which overlaps are
//! resolved.
//!
//! Bringing masks to image size is work per object, so helper threads share it, and it starts while the mask decoder is
//! still busy with the next batch.

use std::{sync::Arc, thread::JoinHandle};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::{FrameError, config::MAX_OBJECTS, error::caught};
use crate::{
    imaging::{MaskError, MaskUpscaler, Placement, RunLengthEncoder, paint_mask},
    inference::{InferenceError, LowResMasks},
    types::{BinaryMask, FrameResult, ImageSize, LabeledInstance, RunLengths},
};

/// One object on its way through the resolver. The buffers go round and round.
#[derive(Debug, Default)]
pub(super) struct ObjectMask {
    /// Index of the detection.
    pub detection: usize,
    /// Predicted IoU.
    pub score: f32,
    mask: BinaryMask,
    runs: RunLengths,
}

/// Most room that an object's mask has from the beginning: a whole image, up to 4 megapixels. It is memory only where a
/// mask was, and an object larger than all before it allocates nothing, whichever object's buffer it got.
const OBJECT_BYTES: usize = 4 << 20;
/// Bytes of masks that are kept for later objects: 64 of them, as many as a frame has by default. Beyond that every frame
/// allocates anew what it needs.
const SPARE_BYTES: usize = 64 * OBJECT_BYTES;

/// What a thread is asked to do.
enum Job {
    Mask(MaskJob),
    /// The instance image of a result is to become that of an image of this size without objects.
    Clear(ImageSize, Vec<u16>),
}

struct MaskJob {
    masks: Arc<LowResMasks>,
    prompt: usize,
    placement: Placement,
    object: ObjectMask,
}

enum Done {
    Mask(ObjectMask, Result<(), ResolveError>),
    Clear(Vec<u16>),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error(transparent)]
    Mask(#[from] MaskError),
    #[error(transparent)]
    Inference(#[from] InferenceError),
}

/// Upscales masks on several threads.
pub(super) struct Resolver {
    jobs: Option<Sender<Job>>,
    waiting: Receiver<Job>,
    done: Receiver<Done>,
    threads: Vec<JoinHandle<()>>,
    own: Worker,
    spare: Vec<ObjectMask>,
    /// Bytes of the masks in `spare`, and the most there may be.
    spare_bytes: usize,
    most_spare_bytes: usize,
    finished: Vec<ObjectMask>,
    /// Run lengths of earlier results, for their room.
    retired: Vec<RunLengths>,
    pending: usize,
}

/// What each thread needs to itself.
#[derive(Default)]
struct Worker {
    upscaler: MaskUpscaler,
    runs: RunLengthEncoder,
}

impl Worker {
    fn run(&mut self, job: Job) -> Done {
        let MaskJob { masks, prompt, placement, mut object } = match job {
            Job::Mask(job) => job,
            Job::Clear(image, mut instance_ids) => {
                instance_ids.clear();
                instance_ids.resize(image.area(), 0);
                return Done::Clear(instance_ids);
            }
        };
        let result = caught("masks", || self.resolve(&masks, prompt, &placement, &mut object));
        // Before the result is handed back: the frame loop reuses the batch once every object of it is done.
        drop(masks);
        Done::Mask(object, result)
    }

    fn resolve(
        &mut self,
        masks: &LowResMasks,
        prompt: usize,
        placement: &Placement,
        object: &mut ObjectMask,
    ) -> Result<(), ResolveError> {
        match masks.mask(prompt)? {
            Some((logits, score)) => {
                object.mask.reserve(placement.image.area().min(OBJECT_BYTES));
                self.upscaler.upscale(logits, masks.size, placement, &mut object.mask)?;
                object.score = score;
            }
            None => {
                object.mask.reset(placement.image);
                object.score = 0.0;
            }
        }
        self.runs.encode(&object.mask, &mut object.runs);
        Ok(())
    }
}

impl Resolver {
    /// `threads` includes the calling one.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let (jobs, waiting) = bounded::<Job>(MAX_OBJECTS + 1);
        let (done_sender, done) = bounded(MAX_OBJECTS + 1);
        let mut handles = Vec::new();
        for index in 1..threads {
            let (waiting, finished) = (waiting.clone(), done_sender.clone());
            let thread = std::thread::Builder::new().name(format!("mask-{index}")).spawn(move || {
                let mut worker = Worker::default();
                for job in waiting {
                    if finished.send(worker.run(job)).is_err() {
                        break;
                    }
                }
            })?;
            handles.push(thread);
        }
        Ok(Self {
            jobs: Some(jobs),
            waiting,
            done,
            threads: handles,
            own: Worker::default(),
            spare: Vec::new(),
            spare_bytes: 0,
            most_spare_bytes: SPARE_BYTES,
            finished: Vec::new(),
            retired: Vec::new(),
            pending: 0,
        })
    }

    /// Queues one object of a decoded batch; a helper thread may start on it at once.
    pub fn queue(&mut self, masks: &Arc<LowResMasks>, prompt: usize, detection: usize, placement: Placement) {
        let mut object = self.spare.pop().unwrap_or_default();
        self.spare_bytes = self.spare_bytes.saturating_sub(object.mask.capacity());
        object.detection = detection;
        let job = Job::Mask(MaskJob { masks: Arc::clone(masks), prompt, placement, object });
        // The queue holds every object of a frame (`max_objects` is bounded by the same number), so this cannot block.
        if self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok()) {
            self.pending += 1;
        }
    }

    /// Takes part in the work until every queued object is done. Fails with the first error, after all are back.
    pub fn finish(&mut self) -> Result<(), FrameError> {
        let mut failure = None;
        while self.pending > 0 {
            // Nothing else is under way: `finish_clear` came before the first object.
            let Done::Mask(object, result) = self.one_done()? else { continue };
            self.pending -= 1;
            match result {
                Ok(()) => self.finished.push(object),
                Err(error) => {
                    self.keep(object);
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            None => Ok(()),
            Some(error) => {
                self.keep_finished();
                Err(FrameError::Resolve(error.to_string()))
            }
        }
    }

    /// Does one waiting job, or waits for one that another thread is at.
    fn one_done(&mut self) -> Result<Done, FrameError> {
        match self.waiting.try_recv() {
            Ok(job) => Ok(self.own.run(job)),
            Err(_) => self.done.recv().map_err(|_| FrameError::ThreadEnded("masks")),
        }
    }

    /// Begins to make `out` the result of an image without objects, on another thread if there is one that is free: the
    /// models are still to run. [`Self::finish_clear`] must follow.
    pub fn begin_clear(&mut self, image: ImageSize, out: &mut FrameResult) {
        self.retired.extend(out.instances.drain(..).map(|instance| instance.mask));
        out.size = image;
        if let Some(jobs) = &self.jobs {
            // Cannot fail: the other end of the channel is held here, and the queue is empty between frames.
            let _ = jobs.try_send(Job::Clear(image, std::mem::take(&mut out.instance_ids)));
        }
    }

    /// Waits until `out` is cleared.
    pub fn finish_clear(&mut self, out: &mut FrameResult) -> Result<(), FrameError> {
        if let Done::Clear(instance_ids) = self.one_done()? {
            out.instance_ids = instance_ids;
        }
        Ok(())
    }

    /// Writes the finished objects to a cleared `out`: instances by falling mask score, and the instance image, in which a
    /// pixel belongs to the best mask that covers it. `instance` makes the labelled part of an object.
    ///
    /// Objects without a pixel are left out.
    pub fn assemble(
        &mut self,
        out: &mut FrameResult,
        mut instance: impl FnMut(&ObjectMask) -> Option<LabeledInstance>,
    ) {
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.detection.cmp(&b.detection)));
        for object in &mut self.finished {
            if object.runs.counts.len() < 2 {
                continue;
            }
            let Some(mut labelled) = instance(object) else { continue };
            labelled.instance_id = u32::try_from(out.instances.len() + 1).unwrap_or(u32::MAX);
            labelled.mask = std::mem::replace(&mut object.runs, self.retired.pop().unwrap_or_default());
            // Best first: a pixel already taken stays with the better mask.
            let id = u16::try_from(labelled.instance_id).unwrap_or(u16::MAX);
            paint_mask(&object.mask, id, &mut out.instance_ids);
            out.instances.push(labelled);
        }
        self.keep_finished();
    }

    /// Hands over every finished object as it is: its number, its score and its run lengths, in no particular order.
    pub fn hand_over(&mut self, mut take: impl FnMut(usize, f32, RunLengths)) {
        for object in &mut self.finished {
            take(object.detection, object.score, std::mem::take(&mut object.runs));
        }
        self.keep_finished();
    }

    fn keep_finished(&mut self) {
        while let Some(object) = self.finished.pop() {
            self.keep(object);
        }
    }

    /// Keeps the buffers of an object for later ones, as far as there is room.
    fn keep(&mut self, object: ObjectMask) {
        let bytes = self.spare_bytes + object.mask.capacity();
        if bytes <= self.most_spare_bytes {
            self.spare_bytes = bytes;
            self.spare.push(object);
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        drop(self.jobs.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::Value;

    const SIDE: usize = 8;

    /// Logits of a mask that covers cells `x0..x1` of every row, cell for cell as wide as `SCALE` image pixels.
    fn columns(x0: usize, x1: usize) -> Vec<f32> {
        (0..SIDE * SIDE).map(|i| if (x0..x1).contains(&(i % SIDE)) { 4.0 } else { -4.0 }).collect()
    }

    fn object(detection: usize) -> Option<LabeledInstance> {
        Some(LabeledInstance {
            instance_id: 0,
            class_id: 10 + detection as u16,
            label: "x".into(),
            phrase: "x".into(),
            score: 0.5,
            mask_score: 0.0,
            bbox: crate::types::PixelBox::default(),
            mask: RunLengths::default(),
        })
    }

    /// Masks of one batch of prompts, with their scores.
    fn batch(masks: &[Vec<f32>], scores: &[f32]) -> Arc<LowResMasks> {
        let logits = Value::from_f32(&[masks.len(), 1, SIDE, SIDE], masks.concat()).unwrap();
        let chosen = scores.iter().map(|&score| (0, score)).collect();
        let size = ImageSize::new(SIDE as u32, SIDE as u32);
        Arc::new(LowResMasks { size, masks: 1, logits: Some(logits), chosen })
    }

    #[test]
    fn objects_that_are_handed_over_leave_their_room_behind_but_not_without_bound() {
        let image = ImageSize::new(SIDE as u32 * 4, SIDE as u32 * 4);
        let placement = Placement { image, resized: image, input: image };
        let masks: Vec<_> = (0..6).map(|end| columns(0, end)).collect();
        let batch = batch(&masks, &[0.5; 6]);
        let mut resolver = Resolver::start(2).unwrap();
        resolver.most_spare_bytes = image.area();
        for _ in 0..2 {
            (0..6).for_each(|prompt| resolver.queue(&batch, prompt, 10 + prompt, placement));
            resolver.finish().unwrap();
            let mut areas = [None; 6];
            resolver.hand_over(|number, _, runs| areas[number - 10] = Some(runs.area()));
            // A cell is 4 pixels wide, and the mask ends where the logits of two cells cross zero: between their
            // centres.
            let expected: [_; 6] = std::array::from_fn(|end| Some(end as u64 * 4 * u64::from(image.height)));
            assert_eq!(areas, expected);
            let kept = resolver.spare.iter().map(|object| object.mask.capacity()).sum();
            assert_eq!(resolver.spare_bytes, kept);
            assert!((1..=image.area()).contains(&kept) && resolver.spare.len() < 6, "{kept}");
        }
    }

    #[test]
    fn a_pixel_belongs_to_the_best_mask_that_covers_it() {
        let image = ImageSize::new(SIDE as u32 * 4, SIDE as u32 * 4);
        let placement = Placement { image, resized: image, input: image };
        // Detection 0 covers columns 0..5 with a middling score, 1 columns 3..8 with the best, 2 all of it with the
        // worst, and 3 nothing.
        let masks = [columns(0, 5), columns(3, 8), columns(0, 8), columns(0, 0)];
        let batch = batch(&masks, &[0.7, 0.9, 0.2, 0.99]);
        for threads in [1, 3] {
            let mut resolver = Resolver::start(threads).unwrap();
            let mut out = FrameResult::default();
            for round in 0..3 {
                resolver.begin_clear(image, &mut out);
                resolver.finish_clear(&mut out).unwrap();
                for prompt in 0..4 {
                    resolver.queue(&batch, prompt, prompt, placement);
                }
                resolver.finish().unwrap();
                assert_eq!(Arc::strong_count(&batch), 1, "the batch can be reused once all objects are done");
                resolver.assemble(&mut out, |o| object(o.detection));
                let classes: Vec<u16> = out.instances.iter().map(|i| i.class_id).collect();
                assert_eq!(classes, [11, 10, 12], "by mask score, the empty one left out (round {round})");
                let width = image.width as usize;
                for (x, id, class) in [(1, 2, 10), (10, 2, 10), (15, 1, 11), (30, 1, 11)] {
                    let pixel = 16 * width + x;
                    assert_eq!((out.instance_ids[pixel], out.class_ids().nth(pixel)), (id, Some(class)), "column {x}");
                }
                let whole = &out.instances[2];
                assert_eq!(whole.mask.area() as usize, image.area(), "an object's own mask keeps its overlaps");
                assert!(!out.instance_ids.contains(&whole.instance_id.try_into().unwrap()));
            }
        }
    }
}
