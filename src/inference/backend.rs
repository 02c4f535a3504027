//! What the pipeline asks of models. Implementations live in files of their own; tests put doubles in their place.

use super::{EncodedText, InferenceError, Value};
use crate::{
    imaging::Placement,
    types::{CenterBox, ImageSize, RgbImage},
};

/// What a detector of the Grounding DINO family puts out for one image and one caption. Buffers are reused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawDetections {
    /// Number of queries Q.
    pub queries: usize,
    /// Columns of `logits` per query: the T tokens of the caption (what models put beyond is −∞ and left out).
    pub columns: usize,
    /// Logits f32[Q, T].
    pub logits: Vec<f32>,
    /// One box per query, relative to the unpadded image.
    pub boxes: Vec<CenterBox>,
}

/// An open-vocabulary detector.
pub trait Detector: Send {
    /// Resizes and normalises `image` into the detector's own input.
    ///
    /// # Errors
    /// When the image cannot be brought to the input.
    fn prepare(&mut self, image: &RgbImage) -> Result<(), InferenceError>;

    /// Runs on the image last prepared. May be called several times, once per caption.
    ///
    /// # Errors
    /// When the model fails or puts out something else than its contract says.
    fn detect(&mut self, text: &EncodedText, out: &mut RawDetections) -> Result<(), InferenceError>;

    /// The execution providers that its nodes really run on; empty where it has none.
    fn runs_on(&self) -> &str {
        ""
    }
}

/// An image as the mask decoder takes it.
#[derive(Debug)]
pub struct ImageEmbedding {
    /// f32[1, C, E, E].
    pub value: Value,
    /// How image pixels map to the encoder's input.
    pub placement: Placement,
}

/// The image side of a promptable segmenter.
pub trait ImageEncoder: Send {
    /// Resizes and normalises `image` into the encoder's own input.
    ///
    /// # Errors
    /// When the image cannot be brought to the input.
    fn prepare(&mut self, image: &RgbImage) -> Result<(), InferenceError>;

    /// Runs on the image last prepared.
    ///
    /// # Errors
    /// When the model fails or nothing was prepared.
    fn encode(&mut self) -> Result<ImageEmbedding, InferenceError>;

    /// The execution providers that its nodes really run on; empty where it has none.
    fn runs_on(&self) -> &str {
        ""
    }
}

/// Prompts of several objects of one image, each with the same number of points. Buffers are reused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PromptBatch {
    /// Objects B.
    pub prompts: usize,
    /// Points per object N.
    pub points: usize,
    /// f32[B, N, 2], x and y in the encoder's resized frame (pixels, outer corner of the first pixel is 0).
    pub coords: Vec<f32>,
    /// f32[B, N]: −1 padding, 0 background, 1 foreground, 2 and 3 the box's top-left and bottom-right corner.
    pub labels: Vec<f32>,
    /// Whether each object is given by a single point, which may mean a part as well as the whole.
    pub ambiguous: bool,
}

impl PromptBatch {
    /// Empties the batch and sets the number of points of the objects to come.
    pub fn reset(&mut self, points: usize, ambiguous: bool) {
        self.prompts = 0;
        self.points = points;
        self.coords.clear();
        self.labels.clear();
        self.ambiguous = ambiguous;
    }
}

/// The masks chosen for a batch of prompts, before they are brought to image size. Holds the decoder's output as it is:
/// copying it would cost more than choosing from it.
#[derive(Debug, Default)]
pub struct LowResMasks {
    /// Side L of a mask.
    pub side: usize,
    /// Masks per object M in `logits`.
    pub masks: usize,
    /// Logits f32[B, M, L, L] over the encoder's padded input.
    pub logits: Option<Value>,
    /// For each object the mask that was chosen and its predicted IoU.
    pub chosen: Vec<(usize, f32)>,
}

impl LowResMasks {
    /// Logits f32[L, L] and predicted IoU of an object's mask.
    ///
    /// # Errors
    /// When the logits are not an f32 tensor in main memory.
    pub fn mask(&self, prompt: usize) -> Result<Option<(&[f32], f32)>, InferenceError> {
        let (Some(logits), Some(&(mask, score))) = (&self.logits, self.chosen.get(prompt)) else { return Ok(None) };
        let (_, logits) = logits.as_f32()?;
        let area = self.side * self.side;
        let start = (prompt * self.masks + mask) * area;
        Ok(logits.get(start..start + area).map(|logits| (logits, score)))
    }
}

/// The prompt side of a promptable segmenter.
pub trait MaskDecoder: Send {
    /// Most prompts one call takes; 1 where the file's batch is fixed.
    fn max_batch(&self) -> usize;

    /// One mask for every prompt of the batch.
    ///
    /// # Errors
    /// When the model fails or puts out something else than its contract says.
    fn decode(
        &mut self,
        embedding: &ImageEmbedding,
        image: ImageSize,
        prompts: &PromptBatch,
        out: &mut LowResMasks,
    ) -> Result<(), InferenceError>;

    /// The execution providers that its nodes really run on; empty where it has none.
    fn runs_on(&self) -> &str {
        ""
    }
}
