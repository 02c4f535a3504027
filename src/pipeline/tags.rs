//! An image tagger as a source of proposals (LLM refinement: RAM++ before pre-refinement).

use std::path::Path;

use super::grid::Grid;
use crate::{
    inference::{Bundle, ImageTagger, InferenceError, ModelOptions, Tag, Tagger},
    types::RgbImage,
    vocabulary::{
        proposals::Proposal,
        proposer::{GoOn, Look, ProposeError, Proposer},
    },
};

/// Proposes an image's tags, one sample for each view.
pub struct TagProposer {
    tagger: Box<dyn Tagger>,
    grid: Grid,
    tags: Vec<Tag>,
    cell: RgbImage,
}

impl TagProposer {
    /// Loads the bundle of an image tagger, on one thread.
    ///
    /// # Errors
    /// When the bundle or its model cannot be used.
    pub fn load(bundle: &Path, grid: Grid) -> Result<Self, InferenceError> {
        let bundle = Bundle::load(bundle)?;
        Ok(Self::new(Box::new(ImageTagger::load(&bundle, &ModelOptions::default())?), grid))
    }

    /// Proposals by `tagger` for the parts of an image that `grid` says.
    #[must_use]
    pub fn new(tagger: Box<dyn Tagger>, grid: Grid) -> Self {
        Self { tagger, grid, tags: Vec::new(), cell: RgbImage::default() }
    }
}

impl Proposer for TagProposer {
    fn propose(&mut self, image: &RgbImage, go_on: GoOn<'_>) -> Result<Look, ProposeError> {
        let failed = |error: InferenceError| ProposeError { proposer: "tags", reason: error.to_string() };
        let Self { tagger, grid, tags, cell } = self;
        let mut samples = Vec::new();
        grid.each(image, cell, |view| {
            // A view that was not looked at is no sample: it would lower every score.
            if go_on() {
                tagger.tag(view, tags).map_err(failed)?;
                let proposal = |tag: &Tag| Proposal { label: tag.label.to_string(), probability: tag.probability };
                samples.push(tags.iter().map(proposal).collect());
            }
            Ok(())
        })?;
        Ok(Look { samples, caption: None })
    }
}
