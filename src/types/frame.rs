//! The result of one frame.

use std::{sync::Arc, time::Duration};

use super::{
    camera::Header,
    geometry::{ImageSize, PixelBox},
    mask::RunLengths,
};

/// Class id of a pixel or object without a class, as `vision_msgs` has it.
pub const UNLABELLED: u16 = 65535;

/// One labelled object and its mask.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabeledInstance {
    /// 1-based, unique within the frame; the value in the instance image.
    pub instance_id: u32,
    /// Class of the vocabulary, or [`UNLABELLED`].
    pub class_id: u16,
    /// Canonical class name.
    pub label: Arc<str>,
    /// What the detector matched, before post-refinement.
    pub phrase: Arc<str>,
    /// Detection score in [0, 1].
    pub score: f32,
    /// IoU predicted by the mask decoder.
    pub mask_score: f32,
    /// Detection box in image pixels. Of something cut out by prompt: the prompt's, or the smallest around the mask.
    pub bbox: PixelBox,
    /// The object's own mask over the full image (before overlaps are resolved).
    pub mask: RunLengths,
}

/// Time spent in each stage of one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageDurations {
    /// Until the image is where `decode` begins, but for waiting until the frame loop is free: out of the middleware, and the
    /// frame loop woken. Known to the frame loop only.
    pub intake: Duration,
    /// From bytes to RGB.
    pub decode: Duration,
    /// Resizing and normalising for both models.
    pub preprocess: Duration,
    /// The detector's run.
    pub detect: Duration,
    /// The SAM image encoder's run (beside `detect`).
    pub encode_image: Duration,
    /// Boxes, phrases, NMS, point prompts.
    pub postprocess: Duration,
    /// The SAM mask decoder's runs.
    pub decode_masks: Duration,
    /// Up-scaling, run lengths, overlap resolution.
    pub resolve: Duration,
    /// From the start of `decode` to the finished result.
    pub total: Duration,
    /// From there until every message about it is handed to the middleware. Known to the frame loop only.
    pub publish: Duration,
    /// Length of the models' own critical path: `max(detect, encode_image) + decode_masks`.
    pub models: Duration,
}

/// Everything one frame yields. The buffers are reused between frames.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrameResult {
    /// Copied from the image.
    pub header: Header,
    /// Size of the image and of every mask.
    pub size: ImageSize,
    /// Version of the vocabulary the frame was made with.
    pub vocabulary_version: u64,
    /// Age of that vocabulary when the frame was finished.
    pub vocabulary_age: Duration,
    /// Objects, ordered by falling mask score; their ids count from 1.
    pub instances: Vec<LabeledInstance>,
    /// Instance id per pixel, row-major, 0 where no object is.
    pub instance_ids: Vec<u16>,
    /// Where the time went.
    pub durations: StageDurations,
}

impl FrameResult {
    /// Class id per pixel, row-major, [`UNLABELLED`] where no object is.
    pub fn class_ids(&self) -> impl Iterator<Item = u16> {
        let class = |id: u16| self.instances.get(usize::from(id).checked_sub(1)?).map(|instance| instance.class_id);
        self.instance_ids.iter().map(move |&id| class(id).unwrap_or(UNLABELLED))
    }
}
