//! Who proposes labels: the parameters `refresh.proposals`, `refresh.probe.*`, `refresh.tag*` and `refresh.caption*`, and
//! the proposers made of them.

use std::{path::PathBuf, sync::Arc};

use super::{refresh_settings::RefreshSetupError, settings::Reader};
use crate::{
    inference::{Bundle, Sampling, TextEncoder},
    pipeline::{CaptionConfig, CaptionProposer, ConfigError, DetectorProbe, Grid, TagProposer},
    vocabulary::{caption::PhraseProbability, lexicon::Lexicon, proposer::Proposer},
};

/// What `refresh.proposals` may hold.
const KNOWN: [&str; 4] = ["probe", "look", "tags", "caption"];

/// The proposers that were asked for, checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ProposerSettings {
    /// Whether a vision language model looks at the image.
    pub looks: bool,
    probe: Option<ProbeSettings>,
    /// Bundle and views.
    tagger: Option<(PathBuf, Grid)>,
    captioner: Option<(PathBuf, CaptionConfig)>,
}

#[derive(Clone, Debug, PartialEq)]
struct ProbeSettings {
    words: Vec<String>,
    count: usize,
    threshold: Option<f32>,
    grid: Grid,
}

impl ProposerSettings {
    /// Settings of the parameter table's values; `probe_words` are those of `refresh.probe.words`, normalised.
    pub fn from_values(read: &Reader<'_>, probe_words: Vec<String>) -> Result<Self, ConfigError> {
        let proposals = read.texts("refresh.proposals");
        if let Some(other) = proposals.iter().find(|p| !KNOWN.contains(&p.as_str())) {
            let reason = format!("must be probe, look, tags or caption; is {other:?}");
            return Err(ConfigError { name: "refresh.proposals", reason });
        }
        let asked = |name: &str| proposals.iter().any(|p| p == name);
        let bundle = |name: &'static str, proposer: &str| {
            let reason = || format!("the folder of a bundle is needed, since refresh.proposals has {proposer}");
            read.path(name).ok_or_else(|| ConfigError { name, reason: reason() })
        };
        let probe = ProbeSettings {
            words: probe_words,
            count: read.integer("refresh.probe.count"),
            threshold: read.threshold("refresh.probe.threshold")?,
            grid: grid(read, "refresh.probe.grid"),
        };
        let caption = CaptionConfig {
            samples: read.integer("refresh.caption.samples"),
            sampling: Sampling {
                temperature: read.double("refresh.caption.temperature") as f32,
                top_p: read.double("refresh.caption.top_p") as f32,
            },
            probability: match read.text("refresh.caption.probability").as_str() {
                "geometric_mean" => PhraseProbability::GeometricMean,
                _ => PhraseProbability::Product,
            },
            grid: grid(read, "refresh.caption.grid"),
        };
        let tags = asked("tags").then(|| bundle("refresh.tagger", "tags")).transpose()?;
        let captions = asked("caption").then(|| bundle("refresh.captioner", "caption")).transpose()?;
        Ok(Self {
            looks: asked("look"),
            probe: asked("probe").then_some(probe),
            tagger: tags.map(|bundle| (bundle, grid(read, "refresh.tags.grid"))),
            captioner: captions.map(|bundle| (bundle, caption)),
        })
    }

    /// Whether nobody at all was asked for.
    pub fn is_empty(&self) -> bool {
        !self.looks && self.probe.is_none() && self.tagger.is_none() && self.captioner.is_none()
    }

    /// Loads sessions of their own for everyone but the vision language model.
    pub fn load(
        &self,
        detector: &Bundle,
        encoder: &mut TextEncoder,
        box_threshold: f32,
        targets: &[String],
        lexicon: Option<&Arc<Lexicon>>,
    ) -> Result<Vec<Box<dyn Proposer>>, RefreshSetupError> {
        let mut proposers: Vec<Box<dyn Proposer>> = Vec::new();
        if let Some(probe) = &self.probe {
            let words = probe.words(targets, lexicon.map(AsRef::as_ref));
            if words.is_empty() {
                return Err(RefreshSetupError::NoWords);
            }
            tracing::info!(words = words.len(), "the detector is asked for words, off the frame path");
            let threshold = probe.threshold.unwrap_or(box_threshold);
            proposers.push(Box::new(DetectorProbe::load(detector, encoder, words, threshold, probe.grid)?));
        }
        if let Some((folder, grid)) = &self.tagger {
            proposers.push(Box::new(TagProposer::load(folder, *grid)?));
            tracing::info!(bundle = %folder.display(), "a tagger proposes labels, off the frame path");
        }
        if let Some((folder, config)) = &self.captioner {
            proposers.push(Box::new(CaptionProposer::load(folder, lexicon.cloned(), *config)?));
            tracing::info!(bundle = %folder.display(), "a captioner proposes labels, off the frame path");
        }
        Ok(proposers)
    }
}

impl ProbeSettings {
    fn words(&self, targets: &[String], lexicon: Option<&Lexicon>) -> Vec<String> {
        if !self.words.is_empty() {
            return self.words.clone();
        }
        if !targets.is_empty() {
            return targets.to_vec();
        }
        lexicon.map(|lexicon| lexicon.nouns_for_probe(self.count)).unwrap_or_default()
    }
}

fn grid(read: &Reader<'_>, name: &str) -> Grid {
    match read.text(name).as_str() {
        "cells" => Grid::Cells,
        "both" => Grid::Both,
        _ => Grid::Whole,
    }
}
