//! The detector itself as a source of proposals: asked for a large lexicon, piece by piece, it says which of the words it
//! sees. Runs on sessions of its own, never on those of the frame loop.

use super::{
    grid::Grid,
    postprocess::{self, Candidate},
};
use crate::{
    inference::{
        Bundle, Detector, EncodedText, GroundingDino, InferenceError, ModelOptions, RawDetections, TextEncoder,
    },
    types::RgbImage,
    vocabulary::{
        proposals::Proposal,
        proposer::{GoOn, Look, ProposeError, Proposer},
    },
};

/// Boxes that overlap by more are the same object, whatever they are called; the best name stays.
const SAME_OBJECT: f32 = 0.6;

/// Proposes what a detector finds of a lexicon.
pub struct DetectorProbe {
    detector: Box<dyn Detector>,
    words: Vec<String>,
    captions: Vec<EncodedText>,
    /// Boxes below this score propose nothing.
    threshold: f32,
    grid: Grid,
    raw: Vec<RawDetections>,
    candidates: Vec<Candidate>,
    cell: RgbImage,
}

impl DetectorProbe {
    /// Loads a further session of the bundle's detector, on one thread, and encodes `words`.
    ///
    /// # Errors
    /// When the model cannot be loaded or a word cannot be encoded.
    pub fn load(
        bundle: &Bundle,
        encoder: &mut TextEncoder,
        words: Vec<String>,
        threshold: f32,
        grid: Grid,
    ) -> Result<Self, InferenceError> {
        let detector = Box::new(GroundingDino::load(bundle, &ModelOptions::default())?);
        let phrases: Vec<&str> = words.iter().map(String::as_str).collect();
        let captions = encoder.captions(&phrases)?;
        let captions = captions.iter().map(|caption| encoder.encode(caption)).collect::<Result<_, _>>()?;
        Ok(Self::new(detector, words, captions, threshold, grid))
    }

    /// A probe of models already loaded; `captions` hold the encoded `words`.
    #[must_use]
    pub fn new(
        detector: Box<dyn Detector>,
        words: Vec<String>,
        captions: Vec<EncodedText>,
        threshold: f32,
        grid: Grid,
    ) -> Self {
        let (raw, candidates, cell) = (Vec::new(), Vec::new(), RgbImage::default());
        Self { detector, words, captions, threshold, grid, raw, candidates, cell }
    }

    /// What is seen in one view. A word's probability is the best score among the boxes that no better name covers.
    fn view(&mut self, image: &RgbImage, go_on: GoOn<'_>) -> Result<Vec<Proposal>, ProposeError> {
        let failed = |error: InferenceError| ProposeError { proposer: "probe", reason: error.to_string() };
        self.detector.prepare(&[image]).map_err(failed)?;
        self.candidates.clear();
        for (caption, text) in self.captions.iter().enumerate() {
            if !go_on() {
                break;
            }
            self.detector.detect(text, &mut self.raw).map_err(failed)?;
            for raw in &self.raw {
                postprocess::phrase_spans(raw, text, caption, self.threshold, image.size, &mut self.candidates);
            }
        }
        postprocess::suppress(&mut self.candidates, SAME_OBJECT, |_| ());
        let mut proposals: Vec<Proposal> = Vec::new();
        // By falling score: the first of each word is its best.
        for candidate in &self.candidates {
            let Some(word) = candidate.phrase.and_then(|index| self.words.get(index)) else { continue };
            if !proposals.iter().any(|proposal| proposal.label == *word) {
                proposals.push(Proposal { label: word.clone(), probability: candidate.score });
            }
        }
        Ok(proposals)
    }
}

impl Proposer for DetectorProbe {
    fn propose(&mut self, image: &RgbImage, go_on: GoOn<'_>) -> Result<Look, ProposeError> {
        let mut samples = Vec::new();
        let mut cell = std::mem::take(&mut self.cell);
        let done = self.grid.each(image, &mut cell, |view| {
            samples.push(self.view(view, go_on)?);
            Ok(())
        });
        self.cell = cell;
        done.map(|()| Look { samples, caption: None })
    }
}
