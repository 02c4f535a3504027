//! The detector itself as a source of proposals: asked for a large lexicon, piece by piece, it says which of the words it
//! sees. Runs on sessions of its own, never on those of the frame loop.

use super::postprocess::{self, Candidate};
use crate::{
    inference::{
        Bundle, Detector, EncodedText, GroundingDino, InferenceError, ModelOptions, RawDetections, TextEncoder,
    },
    types::{ImageSize, RgbImage},
    vocabulary::{
        proposals::Proposal,
        refresh::{GoOn, ProposeError, Proposer},
    },
};

/// Boxes that overlap by more are the same object, whatever they are called; the best name stays.
const SAME_OBJECT: f32 = 0.6;

/// The parts of an image that are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grid {
    /// The whole image.
    #[default]
    Whole,
    /// The four cells of a 2×2 grid (SG in LLM2Labels).
    Cells,
    /// Both (SGC).
    Both,
}

/// Proposes what a detector finds of a lexicon.
pub struct DetectorProbe {
    detector: Box<dyn Detector>,
    words: Vec<String>,
    captions: Vec<EncodedText>,
    /// Boxes below this score propose nothing.
    threshold: f32,
    grid: Grid,
    raw: RawDetections,
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
        let (raw, candidates, cell) = (RawDetections::default(), Vec::new(), RgbImage::default());
        Self { detector, words, captions, threshold, grid, raw, candidates, cell }
    }

    /// What is seen in one view. A word's probability is the best score among the boxes that no better name covers.
    fn view(&mut self, image: &RgbImage, go_on: GoOn<'_>) -> Result<Vec<Proposal>, ProposeError> {
        let failed = |error: InferenceError| ProposeError { proposer: "probe", reason: error.to_string() };
        self.detector.prepare(image).map_err(failed)?;
        self.candidates.clear();
        for (caption, text) in self.captions.iter().enumerate() {
            if !go_on() {
                break;
            }
            self.detector.detect(text, &mut self.raw).map_err(failed)?;
            postprocess::phrase_spans(&self.raw, text, caption, self.threshold, image.size, &mut self.candidates);
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
    fn propose(&mut self, image: &RgbImage, go_on: GoOn<'_>) -> Result<Vec<Vec<Proposal>>, ProposeError> {
        let mut samples = Vec::new();
        if self.grid != Grid::Cells {
            samples.push(self.view(image, go_on)?);
        }
        if self.grid != Grid::Whole {
            let mut cell = std::mem::take(&mut self.cell);
            for quarter in 0..4 {
                crop_quarter(image, quarter, &mut cell);
                if cell.size.area() > 0 {
                    samples.push(self.view(&cell, go_on)?);
                }
            }
            self.cell = cell;
        }
        Ok(samples)
    }
}

/// One of the four quarters: 0 and 1 above, 2 and 3 below.
fn crop_quarter(image: &RgbImage, quarter: u32, out: &mut RgbImage) {
    let (half_width, half_height) = (image.size.width / 2, image.size.height / 2);
    out.size = ImageSize::new(half_width, half_height);
    out.data.clear();
    let (x, y) = ((quarter % 2) * half_width, (quarter / 2) * half_height);
    let row_bytes = image.size.width as usize * 3;
    let (start, length) = (x as usize * 3, half_width as usize * 3);
    for row in image.data.chunks_exact(row_bytes.max(1)).skip(y as usize).take(half_height as usize) {
        out.data.extend_from_slice(row.get(start..start + length).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarters_tile_the_image() {
        let (width, height) = (6u32, 4u32);
        let data = (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, 0])).collect();
        let image = RgbImage { size: ImageSize::new(width, height), data };
        let mut cell = RgbImage::default();
        for (quarter, corner) in [(0, [0, 0]), (1, [3, 0]), (2, [0, 2]), (3, [3, 2])] {
            crop_quarter(&image, quarter, &mut cell);
            assert_eq!((cell.size, cell.data.len()), (ImageSize::new(3, 2), 18));
            assert_eq!(cell.data[..2], corner);
            assert_eq!(cell.data[15..17], [corner[0] + 2, corner[1] + 1]);
        }
        crop_quarter(&RgbImage { size: ImageSize::new(1, 1), data: vec![0; 3] }, 3, &mut cell);
        assert_eq!(cell.size.area(), 0);
    }
}
