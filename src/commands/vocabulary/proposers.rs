//! Who proposes labels for a recording's images.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use scenelex::{
    inference::{Bundle, ModelOptions, Runtime, Sampling, TextEncoder},
    pipeline::{CaptionConfig, CaptionProposer, DetectorProbe, Grid, TagProposer},
    vocabulary::{VocabularyLimits, caption::PhraseProbability, lexicon::Lexicon, normalise_label, proposer::Proposer},
};

use crate::commands::models;

/// What they are and what they look at.
#[derive(Args)]
pub struct ProposerArgs {
    /// Who proposes labels [default: the tagger and the captioner that are given, else the probe]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES")]
    proposals: Vec<Source>,
    /// Bundle of an image tagger (kind ram or classifier)
    #[arg(long, value_name = "DIR")]
    tagger: Option<PathBuf>,
    /// Bundle of a captioner (kind blip)
    #[arg(long, value_name = "DIR")]
    captioner: Option<PathBuf>,
    /// Captions sampled for each view
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    samples: u8,
    /// Nucleus sampling of captions: probability that the tokens drawn from have together
    #[arg(long, default_value_t = 0.9, value_name = "P")]
    top_p: f32,
    /// Divides the captioner's logits before sampling
    #[arg(long, default_value_t = 1.0, value_name = "T")]
    temperature: f32,
    /// Words the probe asks the detector for [default: the commonest nouns of the lexicon]
    #[arg(long, value_name = "\"A, B\"")]
    words: Option<String>,
    /// How many nouns of the lexicon are asked for
    #[arg(long, default_value_t = 1200, value_name = "N")]
    count: usize,
    /// Which parts of each image are looked at
    #[arg(long, value_enum, default_value_t = GridArg::Whole)]
    grid: GridArg,
    /// Score from which on a box proposes its word [default: the detector's own]
    #[arg(long, value_name = "SCORE")]
    box_threshold: Option<f32>,
    /// Folder with the bundle detector/, for the probe [default: models/sim]
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
}

/// A source of proposals.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    /// The detector, asked for many words
    Probe,
    /// An image tagger
    Tags,
    /// A captioner
    Caption,
}

#[derive(Clone, Copy, ValueEnum)]
enum GridArg {
    Whole,
    Cells,
    Both,
}

impl From<GridArg> for Grid {
    fn from(grid: GridArg) -> Self {
        match grid {
            GridArg::Whole => Self::Whole,
            GridArg::Cells => Self::Cells,
            GridArg::Both => Self::Both,
        }
    }
}

/// The proposers, and how many words the probe asks for.
pub struct Proposers {
    pub all: Vec<Box<dyn Proposer>>,
    pub words: usize,
}

impl ProposerArgs {
    /// Loads everyone who was asked for.
    pub fn load(&self, limits: &VocabularyLimits, lexicon: Option<&Arc<Lexicon>>) -> Result<Proposers> {
        Runtime::init(None)?;
        let (given_tagger, given_captioner) = (self.tagger.is_some(), self.captioner.is_some());
        let asked = |source: Source, given: bool| match self.proposals.is_empty() {
            true => given,
            false => self.proposals.contains(&source),
        };
        let mut proposers = Proposers { all: Vec::new(), words: 0 };
        if asked(Source::Probe, !given_tagger && !given_captioner) {
            let words = self.words(limits, lexicon.map(AsRef::as_ref))?;
            proposers.words = words.len();
            proposers.all.push(Box::new(self.probe(words)?));
        }
        if asked(Source::Tags, given_tagger) {
            let folder = self.tagger.as_deref().context("tags need --tagger, the folder of a bundle")?;
            proposers.all.push(Box::new(TagProposer::load(folder, self.grid.into())?));
        }
        if asked(Source::Caption, given_captioner) {
            let folder = self.captioner.as_deref().context("captions need --captioner, the folder of a bundle")?;
            let config = CaptionConfig {
                samples: usize::from(self.samples),
                sampling: Sampling { temperature: self.temperature, top_p: self.top_p },
                probability: PhraseProbability::Product,
                grid: self.grid.into(),
            };
            proposers.all.push(Box::new(CaptionProposer::load(folder, lexicon.cloned(), config)?));
        }
        Ok(proposers)
    }

    fn words(&self, limits: &VocabularyLimits, lexicon: Option<&Lexicon>) -> Result<Vec<String>> {
        if let Some(words) = &self.words {
            let words = words.split([',', '\n']).filter(|word| !word.trim().is_empty());
            let words = words.map(|word| normalise_label(word, limits).map(|label| label.to_string()));
            return words.collect::<Result<Vec<_>, _>>().context("--words");
        }
        let Some(lexicon) = lexicon else {
            bail!("no WordNet: install the Debian package wordnet-base, name a folder with --lexicon, or give --words");
        };
        Ok(lexicon.nouns_for_probe(self.count))
    }

    fn probe(&self, words: Vec<String>) -> Result<DetectorProbe> {
        let folder = models::folder(self.models.as_deref())?;
        let detector = Bundle::load(&folder.join("detector"))?;
        let mut encoder = TextEncoder::load(&detector, &ModelOptions::default())?;
        let threshold = self.box_threshold.unwrap_or(detector.thresholds.box_threshold);
        Ok(DetectorProbe::load(&detector, &mut encoder, words, threshold, self.grid.into())?)
    }
}
