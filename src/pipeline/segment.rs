//! Promptable segmentation without the detector: somebody else says by box and points what is to be cut out.

use std::sync::Arc;

use super::{FrameError, Pipeline, prompts};
use crate::{
    inference::ImageEmbedding,
    types::{
        CameraImage, FrameResult, ImageSize, LabeledInstance, PixelBox, PixelPoint, PixelRect, RgbImage, RunLengths,
        UNLABELLED,
    },
};

/// Objects that are in the queues at the same time.
const CHUNK: usize = 32;
/// Bytes of their masks: large images go with fewer objects at a time.
const CHUNK_BYTES: usize = 128 << 20;

/// One thing to be cut out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObjectPrompt {
    /// Comes back with the mask.
    pub label: Arc<str>,
    /// Box in image pixels.
    pub bbox: Option<PixelBox>,
    /// Points in image pixels, and whether they are on the thing.
    pub points: Vec<(PixelPoint, bool)>,
}

impl Pipeline {
    /// Decodes an image for [`Self::segment_prompts`]; the buffers of frames are not touched.
    ///
    /// # Errors
    /// When it cannot be decoded.
    pub fn decode_image(&mut self, image: &mut CameraImage) -> Result<Arc<RgbImage>, FrameError> {
        let mut rgb = RgbImage::default();
        self.decoder.take(image, &mut rgb)?;
        Ok(Arc::new(rgb))
    }

    /// Segments an image by prompts. The instances of `out` are one for each prompt, in their order; their masks may
    /// overlap, one without a pixel has a mask score of 0. Where a prompt has no box, the instance's is the smallest
    /// around its mask. The instance image of `out` is empty; its header is left as it is, and so is the vocabulary.
    ///
    /// A single point without a box may mean a part as well as the whole: the mask with the best predicted IoU is taken, as
    /// SAM's own predictor does.
    ///
    /// # Errors
    /// When there is no image (one without pixels), or a model fails.
    pub fn segment_prompts(
        &mut self,
        image: Arc<RgbImage>,
        wanted: &[ObjectPrompt],
        out: &mut FrameResult,
    ) -> Result<(), FrameError> {
        let size = image.size;
        if size.area() == 0 {
            return Err(FrameError::NoImage);
        }
        self.encoder.begin(vec![image])?;
        let encoded = self.encoder.finish()?;
        let embedding = encoded.embeddings?.pop().ok_or(FrameError::ThreadEnded("image encoder"))?;

        // Prompts of one kind share runs: what makes a batch is said at `prompts::begin`.
        let kind = |index: usize| wanted.get(index).map(|prompt| (prompt.bbox.is_some(), prompt.points.len()));
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|&index| kind(index));
        let at_once = (CHUNK_BYTES / size.area()).clamp(1, CHUNK);
        let mut runs = Vec::new();
        self.mask_decoders.runs(&order, self.config().mask_batch.min(at_once), kind, &mut runs);

        let mut found = vec![None; wanted.len()];
        let mut rest = runs.as_slice();
        while !rest.is_empty() {
            let mut objects = 0;
            let fits = rest.iter().take_while(|run| {
                objects += run.len();
                objects <= at_once
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            rest = later;
            let members = now.iter().filter_map(|run| order.get(run.clone()));
            self.cut_out_prompts(&embedding, size, wanted, members, &mut found)?;
        }

        out.size = size;
        out.instance_ids.clear();
        out.instances.clear();
        out.instances.extend((1..).zip(wanted).zip(found).map(|((instance_id, prompt), found)| {
            let (mask_score, mask) = found.unwrap_or_else(|| {
                let counts = vec![u32::try_from(size.area()).unwrap_or(u32::MAX)];
                (0.0, RunLengths { size, counts })
            });
            instance(instance_id, prompt, mask_score, mask)
        }));
        Ok(())
    }

    /// Decodes `runs` of prompts, given by their places in `wanted`, into scores and masks at the same places of
    /// `found`; there is none for a mask without a pixel. Nothing is left under way, also after an error.
    fn cut_out_prompts<'a>(
        &mut self,
        embedding: &ImageEmbedding,
        size: ImageSize,
        wanted: &[ObjectPrompt],
        runs: impl Iterator<Item = &'a [usize]>,
        found: &mut [Option<(f32, RunLengths)>],
    ) -> Result<(), FrameError> {
        let placement = embedding.placement;
        self.mask_decoders.begin();
        for run in runs {
            let mut batch = self.mask_decoders.batch();
            let mut members = run.iter().filter_map(|&member| Some((member, wanted.get(member)?))).peekable();
            let Some((_, first)) = members.peek() else { continue };
            prompts::begin(&mut batch.prompts, first.points.len(), first.bbox.is_some());
            for (member, prompt) in members {
                batch.members.push(member);
                prompts::push(&mut batch.prompts, prompt.points.iter().copied(), prompt.bbox, &placement);
            }
            self.mask_decoders.queue(batch, embedding, size);
        }
        let mut failure = None;
        while let Some(decoded) = self.mask_decoders.next() {
            match decoded {
                Ok(batch) => {
                    for (prompt, &member) in batch.members.iter().enumerate() {
                        self.resolver.queue(&batch.masks, prompt, member, placement);
                    }
                    self.mask_decoders.recycle(batch);
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        let resolved = self.resolver.finish();
        self.resolver.hand_over(|member, score, mask| {
            // A single run is of zeros.
            if let Some(place) = found.get_mut(member).filter(|_| mask.counts.len() > 1) {
                *place = Some((score, mask));
            }
        });
        failure.map_or(resolved, Err)
    }
}

fn instance(instance_id: u32, prompt: &ObjectPrompt, mask_score: f32, mask: RunLengths) -> LabeledInstance {
    let around = || {
        let PixelRect { x0, y0, x1, y1 } = mask.bounding_box().unwrap_or_default();
        PixelBox { x0: x0 as f32, y0: y0 as f32, x1: x1 as f32, y1: y1 as f32 }
    };
    LabeledInstance {
        instance_id,
        class_id: UNLABELLED,
        label: Arc::clone(&prompt.label),
        phrase: Arc::from(""),
        score: 1.0,
        mask_score,
        bbox: prompt.bbox.unwrap_or_else(around),
        mask,
    }
}
