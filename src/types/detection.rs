//! What the detector found, after post-processing.

use std::sync::Arc;

use super::geometry::{PixelBox, PixelPoint};

/// One detected object, before segmentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Class of the vocabulary, or [`crate::types::UNLABELLED`].
    pub class_id: u16,
    /// Canonical class name.
    pub label: Arc<str>,
    /// The phrase the detector matched.
    pub phrase: Arc<str>,
    /// Detection score in [0, 1].
    pub score: f32,
    /// Box in image pixels.
    pub bbox: PixelBox,
    /// Point prompts in image pixels: centres of the queries most probable for the phrase, within the box.
    pub points: Vec<PixelPoint>,
}
