//! What `bundle.toml` may say, and what of it makes sense for which kind. Unknown keys are errors.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use super::bundle::{Activation, BundleKind, CaptionRules, TagRules, Thresholds};
use crate::{
    imaging::{ResizeFilter, ResizeRule},
    types::ImageSize,
};

/// Columns of Grounding DINO's logits.
pub(crate) const LOGIT_COLUMNS: usize = 256;
/// The longest image side a manifest may ask for; more is a slip of the pen.
const MAX_SIDE: u32 = 8192;
/// Tokens of a caption, start and prompt included, where the manifest says nothing. BLIP's own default is 20 new ones.
const CAPTION_TOKENS: usize = 32;
/// Most tags of one view.
const MAX_TAGS: usize = 1024;

/// The manifest as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBundle {
    pub name: String,
    pub kind: BundleKind,
    #[serde(alias = "license")]
    pub licence: String,
    pub source: String,
    #[serde(default)]
    pub description: String,
    pub files: BTreeMap<String, RawFile>,
    #[serde(default)]
    pub cpu_files: BTreeMap<String, RawFile>,
    pub preprocessing: RawPreprocessing,
    #[serde(default)]
    text: RawText,
    thresholds: Option<Thresholds>,
    tags: Option<RawTags>,
    caption: Option<RawCaption>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    pub path: PathBuf,
    pub sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPreprocessing {
    resize: Option<String>,
    width: Option<u32>,
    height: Option<u32>,
    shortest: Option<u32>,
    longest: Option<u32>,
    multiple: Option<u32>,
    filter: Option<String>,
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawText {
    max_tokens: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTags {
    activation: Option<Activation>,
    threshold: Option<f32>,
    top_k: Option<usize>,
    #[serde(default)]
    ignore: Vec<String>,
    scale: Option<f32>,
    zero_point: Option<u8>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCaption {
    prompt: Option<String>,
    start_token: Option<u32>,
    end_token: Option<u32>,
}

/// The rules of a manifest, checked.
pub(super) struct Rules {
    pub resize: Option<ResizeRule>,
    pub filter: ResizeFilter,
    pub max_tokens: usize,
    pub thresholds: Thresholds,
    pub tags: TagRules,
    pub caption: CaptionRules,
}

impl RawBundle {
    /// The checked rules, or what is wrong with them.
    pub fn rules(&self) -> Result<Rules, String> {
        let pre = &self.preprocessing;
        if pre.std.iter().any(|&s| !(s.is_finite() && s > 0.0)) || pre.mean.iter().any(|m| !m.is_finite()) {
            return Err("preprocessing: std must be positive, mean finite".into());
        }
        let resize = pre.rule()?;
        match (self.kind, resize) {
            (BundleKind::GroundingDino, None) => return Err("preprocessing: a detector needs `resize`".into()),
            (
                BundleKind::Sam | BundleKind::Ram | BundleKind::Classifier | BundleKind::Blip,
                Some(ResizeRule::ShortestEdge { .. }),
            )
            | (
                BundleKind::GroundingDino | BundleKind::Ram | BundleKind::Classifier | BundleKind::Blip,
                Some(ResizeRule::LongestSide { .. }),
            ) => {
                let known = match self.kind {
                    BundleKind::GroundingDino => "exact, letterbox or shortest_edge",
                    BundleKind::Sam => "exact, letterbox or longest_side",
                    BundleKind::Ram | BundleKind::Classifier | BundleKind::Blip => "exact or letterbox",
                };
                return Err(format!("preprocessing: resize must be {known} for kind {}", self.kind.as_str()));
            }
            _ => {}
        }
        let kinds = [
            ("thresholds", self.thresholds.is_some(), self.kind == BundleKind::GroundingDino),
            ("tags", self.tags.is_some(), matches!(self.kind, BundleKind::Ram | BundleKind::Classifier)),
            ("caption", self.caption.is_some(), self.kind == BundleKind::Blip),
        ];
        if let Some((name, ..)) = kinds.iter().find(|(_, given, wanted)| *given && !wanted) {
            return Err(format!("{name} has no meaning for kind {}", self.kind.as_str()));
        }
        Ok(Rules {
            resize,
            filter: match (pre.filter.as_deref(), self.kind) {
                (Some("bilinear"), _) => ResizeFilter::Bilinear,
                (Some("bicubic"), _) | (None, BundleKind::Blip) => ResizeFilter::Bicubic,
                (None, _) => ResizeFilter::Bilinear,
                (Some(other), _) => {
                    return Err(format!("preprocessing: filter must be bilinear or bicubic, is {other:?}"));
                }
            },
            max_tokens: self.max_tokens()?,
            thresholds: self.thresholds()?,
            tags: self.tags()?,
            caption: self.caption()?,
        })
    }

    fn max_tokens(&self) -> Result<usize, String> {
        let usual = if self.kind == BundleKind::Blip { CAPTION_TOKENS } else { LOGIT_COLUMNS };
        let tokens = self.text.max_tokens.unwrap_or(usual);
        if (4..=LOGIT_COLUMNS).contains(&tokens) {
            return Ok(tokens);
        }
        Err(format!("text: max_tokens must be 4 to {LOGIT_COLUMNS}, is {tokens}"))
    }

    fn thresholds(&self) -> Result<Thresholds, String> {
        let thresholds = self.thresholds.unwrap_or_default();
        for (name, value) in
            [("box", thresholds.box_threshold), ("text", thresholds.text_threshold), ("nms_iou", thresholds.nms_iou)]
        {
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("thresholds: {name} must be in [0, 1], is {value}"));
            }
        }
        Ok(thresholds)
    }

    fn tags(&self) -> Result<TagRules, String> {
        let none = RawTags::default();
        let raw = self.tags.as_ref().unwrap_or(&none);
        let activation = match (raw.activation, self.kind) {
            (Some(activation), BundleKind::Classifier) => activation,
            (None, BundleKind::Classifier) => {
                return Err("tags: a classifier needs `activation` (softmax, sigmoid or none)".into());
            }
            (Some(Activation::Softmax | Activation::None), BundleKind::Ram) => {
                return Err("tags: the scores of kind ram are sigmoids".into());
            }
            _ => Activation::Sigmoid,
        };
        let shipped = TagRules::default();
        let rules = TagRules {
            activation,
            threshold: raw.threshold.unwrap_or(shipped.threshold),
            top_k: raw.top_k.unwrap_or(shipped.top_k),
            ignore: raw.ignore.clone(),
            scale: raw.scale.unwrap_or(shipped.scale),
            zero_point: raw.zero_point.unwrap_or(shipped.zero_point),
        };
        if !(0.0..=1.0).contains(&rules.threshold) {
            return Err(format!("tags: threshold must be in [0, 1], is {}", rules.threshold));
        }
        if !(1..=MAX_TAGS).contains(&rules.top_k) {
            return Err(format!("tags: top_k must be 1 to {MAX_TAGS}, is {}", rules.top_k));
        }
        if !(rules.scale.is_finite() && rules.scale > 0.0) {
            return Err(format!("tags: scale must be positive, is {}", rules.scale));
        }
        Ok(rules)
    }

    fn caption(&self) -> Result<CaptionRules, String> {
        let none = RawCaption::default();
        let raw = self.caption.as_ref().unwrap_or(&none);
        let shipped = CaptionRules::default();
        let rules = CaptionRules {
            prompt: raw.prompt.clone().unwrap_or(shipped.prompt),
            start_token: raw.start_token.unwrap_or(shipped.start_token),
            end_token: raw.end_token.unwrap_or(shipped.end_token),
        };
        if rules.start_token == rules.end_token {
            return Err(format!("caption: start_token and end_token are both {}", rules.start_token));
        }
        Ok(rules)
    }
}

impl RawPreprocessing {
    fn rule(&self) -> Result<Option<ResizeRule>, String> {
        let side = |name: &str, value: Option<u32>| match value {
            Some(side) if (1..=MAX_SIDE).contains(&side) => Ok(side),
            Some(side) => Err(format!("preprocessing: {name} must be 1 to {MAX_SIDE}, is {side}")),
            None => Err(format!("preprocessing: {name} is missing")),
        };
        let unused = |names: &[(&str, Option<u32>)]| match names.iter().find(|(_, value)| value.is_some()) {
            Some((name, _)) => Err(format!("preprocessing: {name} has no meaning for this resize rule")),
            None => Ok(()),
        };
        let size = || Ok::<_, String>(ImageSize::new(side("width", self.width)?, side("height", self.height)?));
        let sides = [("shortest", self.shortest), ("longest", self.longest), ("multiple", self.multiple)];
        let extent = [("width", self.width), ("height", self.height)];
        match self.resize.as_deref() {
            None => {
                unused(&sides)?;
                unused(&extent)?;
                Ok(None)
            }
            Some("letterbox") => {
                unused(&sides)?;
                Ok(Some(ResizeRule::Letterbox { size: size()? }))
            }
            Some("exact") => {
                unused(&sides)?;
                Ok(Some(ResizeRule::Exact { size: size()? }))
            }
            Some("shortest_edge") => {
                unused(&extent)?;
                unused(&[("multiple", self.multiple)])?;
                let (shortest, longest) = (side("shortest", self.shortest)?, side("longest", self.longest)?);
                if shortest > longest {
                    return Err(format!("preprocessing: shortest {shortest} is longer than longest {longest}"));
                }
                Ok(Some(ResizeRule::ShortestEdge { shortest, longest }))
            }
            Some("longest_side") => {
                unused(&extent)?;
                unused(&[("shortest", self.shortest)])?;
                let longest = side("longest", self.longest)?;
                let multiple = side("multiple", self.multiple.or(self.longest))?;
                if !longest.is_multiple_of(multiple) {
                    return Err(format!("preprocessing: longest {longest} is no multiple of {multiple}"));
                }
                Ok(Some(ResizeRule::LongestSide { side: longest, multiple }))
            }
            Some(other) => {
                let known = "letterbox, exact, shortest_edge or longest_side";
                Err(format!("preprocessing: resize must be {known}, is {other:?}"))
            }
        }
    }
}
