//! Promptable segmentation without the detector: somebody else says by box and points what is to be cut out.

use std::sync::Arc;

use super::{FrameError, Pipeline, prompts};
use crate::types::{CameraImage, FrameResult, LabeledInstance, PixelBox, PixelPoint, RgbImage, RunLengths, UNLABELLED};

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

    /// Segments an image by prompts. The instances of `out` are one for each prompt, in their order; their masks may overlap,
    /// one without a pixel has a mask score of 0. The header of `out` is left as it is, and so is the vocabulary.
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
        self.resolver.begin_clear(size, out);
        let cleared = self.resolver.finish_clear(out);
        let encoded = self.encoder.finish()?;
        cleared?;
        let embedding = encoded.embeddings?.pop().ok_or(FrameError::ThreadEnded("image encoder"))?;
        let placement = embedding.placement;

        self.mask_decoders.begin();
        let mut failure = None;
        // Few at a time: the queues hold the objects of a frame. Each is a batch of its own, because what a single point
        // means is decided for a whole batch.
        for (chunk, first) in wanted.chunks(CHUNK).zip((0..).step_by(CHUNK)) {
            for (index, prompt) in chunk.iter().enumerate() {
                let mut batch = self.mask_decoders.batch();
                batch.members.push(first + index);
                prompts::fill_one(&mut batch.prompts, prompt, &placement);
                self.mask_decoders.queue(batch, &embedding, size);
            }
            while let Some(decoded) = self.mask_decoders.next() {
                match decoded {
                    Ok(batch) => {
                        for &member in &batch.members {
                            self.resolver.queue(&batch.masks, 0, member, placement);
                        }
                        self.mask_decoders.recycle(batch);
                    }
                    Err(error) => {
                        failure.get_or_insert(error);
                    }
                }
            }
        }
        self.resolver.finish()?;
        let mut members = Vec::with_capacity(wanted.len());
        self.resolver.assemble(out, |object| {
            members.push(object.detection);
            Some(instance(wanted.get(object.detection)?, object.score))
        });
        failure.map_or(Ok(()), Err)?;

        let mut found: Vec<Option<LabeledInstance>> = vec![None; wanted.len()];
        for (member, instance) in members.into_iter().zip(out.instances.drain(..)) {
            if let Some(place) = found.get_mut(member) {
                *place = Some(instance);
            }
        }
        for ((index, prompt), instance_found) in wanted.iter().enumerate().zip(found) {
            let empty = || {
                let counts = vec![u32::try_from(size.area()).unwrap_or(u32::MAX)];
                LabeledInstance { mask: RunLengths { size, counts }, ..instance(prompt, 0.0) }
            };
            let instance_id = u32::try_from(index + 1).unwrap_or(u32::MAX);
            out.instances.push(LabeledInstance { instance_id, ..instance_found.unwrap_or_else(empty) });
        }
        Ok(())
    }
}

/// Objects that are in the queues at the same time.
const CHUNK: usize = 32;

fn instance(prompt: &ObjectPrompt, mask_score: f32) -> LabeledInstance {
    LabeledInstance {
        instance_id: 0,
        class_id: UNLABELLED,
        label: Arc::clone(&prompt.label),
        phrase: Arc::from(""),
        score: 1.0,
        mask_score,
        bbox: prompt.bbox.unwrap_or_default(),
        mask: RunLengths::default(),
    }
}
