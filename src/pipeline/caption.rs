//! A captioner as a source of proposals: several captions are sampled for each view, their nouns are proposed (LLM2Labels,
//! section 3.3), and the likeliest caption goes to pre-refinement (LLM refinement).

use std::{path::Path, sync::Arc};

use super::grid::Grid;
use crate::{
    inference::{BlipCaptioner, Bundle, Captioner, InferenceError, ModelOptions, Sampler, Sampling},
    types::RgbImage,
    vocabulary::{
        caption::{CaptionText, PhraseProbability},
        lexicon::Lexicon,
        proposer::{GoOn, Look, ProposeError, Proposer},
    },
};

/// Captions are the same each time the same image is looked at.
const SEED: u64 = 3;

/// How captions are sampled and what is made of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CaptionConfig {
    /// Captions for each view, at least 1.
    pub samples: usize,
    /// How their tokens are drawn.
    pub sampling: Sampling,
    /// How probable a phrase of theirs is.
    pub probability: PhraseProbability,
    /// The parts of an image that are captioned.
    pub grid: Grid,
}

/// Proposes the nouns of sampled captions, one sample for each caption.
pub struct CaptionProposer {
    captioner: Box<dyn Captioner>,
    lexicon: Option<Arc<Lexicon>>,
    config: CaptionConfig,
    tokens: Vec<i64>,
    logits: Vec<f32>,
    cell: RgbImage,
}

impl CaptionProposer {
    /// Loads the bundle of a captioner, on one thread.
    ///
    /// # Errors
    /// When the bundle or its models cannot be used.
    pub fn load(bundle: &Path, lexicon: Option<Arc<Lexicon>>, config: CaptionConfig) -> Result<Self, InferenceError> {
        let bundle = Bundle::load(bundle)?;
        Ok(Self::new(Box::new(BlipCaptioner::load(&bundle, &ModelOptions::default())?), lexicon, config))
    }

    /// Proposals by `captioner`; nouns are found through the lexicon, where there is one.
    #[must_use]
    pub fn new(captioner: Box<dyn Captioner>, lexicon: Option<Arc<Lexicon>>, config: CaptionConfig) -> Self {
        let (tokens, logits, cell) = (Vec::new(), Vec::new(), RgbImage::default());
        Self { captioner, lexicon, config, tokens, logits, cell }
    }

    /// Writes one caption about what was last looked at; `None` where it had to stop on the way.
    fn write(&mut self, sampler: &mut Sampler, go_on: GoOn<'_>) -> Result<Option<CaptionText>, ProposeError> {
        let failed = |error: InferenceError| ProposeError { proposer: "caption", reason: error.to_string() };
        let mut caption = CaptionText::default();
        self.tokens.clear();
        self.tokens.extend_from_slice(self.captioner.prompt());
        while self.tokens.len() < self.captioner.max_tokens() {
            if !go_on() {
                return Ok(None);
            }
            self.captioner.next_token(&self.tokens, &mut self.logits).map_err(failed)?;
            let Some(drawn) = sampler.draw(&self.logits) else {
                let reason = "the captioner's logits are no numbers".to_owned();
                return Err(ProposeError { proposer: "caption", reason });
            };
            let token = i64::try_from(drawn.token).unwrap_or(i64::MAX);
            if token == self.captioner.end_token() {
                break;
            }
            if let Some(piece) = self.captioner.piece(token) {
                caption.push(piece, drawn.log_probability);
            }
            self.tokens.push(token);
        }
        Ok(Some(caption))
    }

    /// The captions of one view; those of a look cut short are missing.
    fn view(&mut self, image: &RgbImage, go_on: GoOn<'_>) -> Result<Vec<CaptionText>, ProposeError> {
        let failed = |error: InferenceError| ProposeError { proposer: "caption", reason: error.to_string() };
        let mut captions = Vec::new();
        if !go_on() {
            return Ok(captions);
        }
        self.captioner.look(image).map_err(failed)?;
        let mut sampler = Sampler::new(self.config.sampling, SEED);
        for _ in 0..self.config.samples {
            let Some(caption) = self.write(&mut sampler, go_on)? else { break };
            captions.push(caption);
        }
        Ok(captions)
    }
}

impl Proposer for CaptionProposer {
    fn propose(&mut self, image: &RgbImage, go_on: GoOn<'_>) -> Result<Look, ProposeError> {
        let mut views = Vec::new();
        let mut cell = std::mem::take(&mut self.cell);
        let done = self.config.grid.each(image, &mut cell, |view| {
            views.push(self.view(view, go_on)?);
            Ok(())
        });
        self.cell = cell;
        done?;
        // A cell's caption speaks for the image only where nobody looked at the whole.
        let speaking = if self.config.grid == Grid::Cells { views.len() } else { 1 };
        let best = views.iter().take(speaking).flatten().max_by(|a, b| {
            let (a, b) = (a.mean_log_probability(), b.mean_log_probability());
            a.total_cmp(&b)
        });
        let caption = best.map(CaptionText::line).filter(|line| !line.is_empty());
        let lexicon = self.lexicon.as_deref();
        let proposals = |caption: &CaptionText| caption.proposals(lexicon, self.config.probability);
        let samples = views.iter().flatten().map(proposals).collect();
        Ok(Look { samples, caption })
    }
}
