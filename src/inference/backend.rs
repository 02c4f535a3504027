//! What the pipeline asks of models. Implementations live in files of their own; tests put doubles in their place.

use std::sync::Arc;

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
    /// Most images one run takes; 1 where the file's batch is fixed.
    fn max_batch(&self) -> usize;

    /// Resizes and normalises `images` into the detector's own input. They may differ in size.
    ///
    /// # Errors
    /// When an image cannot be brought to the input.
    fn prepare(&mut self, images: &[&RgbImage]) -> Result<(), InferenceError>;

    /// Runs on the images last prepared, all at once; `out` gets one element for each. May be called several times, once
    /// per caption.
    ///
    /// # Errors
    /// When the model fails or puts out something else than its contract says.
    fn detect(&mut self, text: &EncodedText, out: &mut Vec<RawDetections>) -> Result<(), InferenceError>;

    /// The execution providers that its nodes really run on; empty where it has none.
    fn runs_on(&self) -> &str {
        ""
    }
}

/// An image as the mask decoder takes it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ImageEmbedding {
    /// f32[b, C, rows, columns], of all images that were encoded together.
    pub batch: Arc<Value>,
    /// Which of them it is.
    pub index: usize,
    /// How image pixels map to the encoder's input.
    pub placement: Placement,
}

/// The image side of a promptable segmenter.
pub trait ImageEncoder: Send {
    /// Most images one run takes; 1 where the file's batch is fixed.
    fn max_batch(&self) -> usize;

    /// Resizes and normalises `images` into the encoder's own input. They may differ in size.
    ///
    /// # Errors
    /// When an image cannot be brought to the input.
    fn prepare(&mut self, images: &[&RgbImage]) -> Result<(), InferenceError>;

    /// Runs on the images last prepared, all at once, and gives an embedding for each.
    ///
    /// # Errors
    /// When the model fails or nothing was prepared.
    fn encode(&mut self) -> Result<Vec<ImageEmbedding>, InferenceError>;

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
    /// Rows and columns of a mask.
    pub size: ImageSize,
    /// Masks per object M in `logits`.
    pub masks: usize,
    /// Logits f32[B, M, rows, columns] over the encoder's padded input.
    pub logits: Option<Value>,
    /// For each object the mask that was chosen and its predicted IoU.
    pub chosen: Vec<(usize, f32)>,
}

impl LowResMasks {
    /// Logits f32[rows, columns] and predicted IoU of an object's mask.
    ///
    /// # Errors
    /// When the logits are not an f32 tensor in main memory.
    pub fn mask(&self, prompt: usize) -> Result<Option<(&[f32], f32)>, InferenceError> {
        let (Some(logits), Some(&(mask, score))) = (&self.logits, self.chosen.get(prompt)) else { return Ok(None) };
        let (_, logits) = logits.as_f32()?;
        let area = self.size.area();
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

/// A label that a tagger gives an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Tag {
    /// As the model's list has it.
    pub label: Arc<str>,
    /// Probability in [0, 1].
    pub probability: f32,
}

/// An image tagger: labels of a fixed list, each with a probability.
pub trait Tagger: Send {
    /// Puts the image's tags into `tags`, likeliest first, in place of what is there. One run of the model.
    ///
    /// # Errors
    /// When the image cannot be brought to the input, or the model fails or puts out something else than its contract
    /// says.
    fn tag(&mut self, image: &RgbImage, tags: &mut Vec<Tag>) -> Result<(), InferenceError>;
}

/// An image captioner that writes token by token. Which token is taken is the caller's choice.
pub trait Captioner: Send {
    /// Encodes an image; captions are about it from now on. One run of a model.
    ///
    /// # Errors
    /// When the image cannot be brought to the input, or the model fails or puts out something else than its contract
    /// says.
    fn look(&mut self, image: &RgbImage) -> Result<(), InferenceError>;

    /// Puts the logits f32[V] of the token that follows `tokens` into `logits`. One run of a model.
    ///
    /// # Errors
    /// When no image was encoded, or the model fails or puts out something else than its contract says.
    fn next_token(&mut self, tokens: &[i64], logits: &mut Vec<f32>) -> Result<(), InferenceError>;

    /// The tokens every caption begins with.
    fn prompt(&self) -> &[i64];

    /// The token that ends a caption.
    fn end_token(&self) -> i64;

    /// Most tokens of a caption, the prompt's included.
    fn max_tokens(&self) -> usize;

    /// A token as the tokenizer spells it (WordPiece: `##` continues a word); `None` for tokens that are no text.
    fn piece(&self, token: i64) -> Option<&str>;
}
