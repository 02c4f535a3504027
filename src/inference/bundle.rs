//! Model bundles: a folder with `bundle.toml` beside the files it names.
//!
//! The manifest is read in two stages: raw (unknown keys are errors), then validated, so that no later code has to check
//! again. Files are checked against their SHA-256 when the bundle is loaded.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::InferenceError;
use crate::{
    imaging::{Preprocess, ResizeRule},
    types::ImageSize,
};

/// Contract the files of a bundle follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BundleKind {
    /// Grounding DINO, split (text encoder and detector) or fused (one file with the text inside).
    GroundingDino,
    /// Segment Anything: image encoder and mask decoder.
    Sam,
}

impl BundleKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::GroundingDino => "grounding_dino",
            Self::Sam => "sam",
        }
    }
}

/// Thresholds a detector ships with.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Scores above it are kept.
    #[serde(rename = "box")]
    pub box_threshold: f32,
    /// Tokens above it make the label.
    #[serde(rename = "text")]
    pub text_threshold: f32,
    /// Boxes of one class that overlap more are one object.
    pub nms_iou: f32,
}

impl Default for Thresholds {
    /// Grounding DINO's own demo: 0.35 and 0.25; NMS at 0.5.
    fn default() -> Self {
        Self { box_threshold: 0.35, text_threshold: 0.25, nms_iou: 0.5 }
    }
}

/// A validated bundle.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// Name of the model.
    pub name: String,
    /// Contract of its files.
    pub kind: BundleKind,
    /// SPDX expression.
    pub licence: String,
    /// Where it came from.
    pub source: String,
    /// What it is.
    pub description: String,
    /// How images are brought to the model's input. Without a `resize` rule in the manifest (SAM) the longest side is
    /// scaled to the input size, which is read from the model file; `None` until then.
    pub resize: Option<ResizeRule>,
    /// Mean per channel (RGB) on the 0..1 scale.
    pub mean: [f32; 3],
    /// Standard deviation per channel (RGB) on the 0..1 scale.
    pub std: [f32; 3],
    /// Most tokens of one caption.
    pub max_tokens: usize,
    /// Thresholds the model was tuned for.
    pub thresholds: Thresholds,
    files: BTreeMap<String, PathBuf>,
    manifest: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBundle {
    name: String,
    kind: BundleKind,
    #[serde(alias = "license")]
    licence: String,
    source: String,
    #[serde(default)]
    description: String,
    files: BTreeMap<String, RawFile>,
    preprocessing: RawPreprocessing,
    #[serde(default)]
    text: RawText,
    #[serde(default)]
    thresholds: Option<Thresholds>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    path: PathBuf,
    sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPreprocessing {
    resize: Option<String>,
    width: Option<u32>,
    height: Option<u32>,
    shortest: Option<u32>,
    longest: Option<u32>,
    mean: [f32; 3],
    std: [f32; 3],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawText {
    #[serde(default = "default_max_tokens")]
    max_tokens: usize,
}

impl Default for RawText {
    fn default() -> Self {
        Self { max_tokens: default_max_tokens() }
    }
}

/// Columns of Grounding DINO's logits.
pub(crate) const LOGIT_COLUMNS: usize = 256;

fn default_max_tokens() -> usize {
    LOGIT_COLUMNS
}

/// The longest image side a manifest may ask for; more is a slip of the pen.
const MAX_SIDE: u32 = 8192;

impl Bundle {
    /// Reads `dir/bundle.toml` and checks every file it names.
    ///
    /// # Errors
    /// When the manifest or a file cannot be read, the manifest is malformed or contradicts itself, or a file's SHA-256
    /// is not the manifest's.
    pub fn load(dir: &Path) -> Result<Self, InferenceError> {
        let manifest = dir.join("bundle.toml");
        let text = std::fs::read_to_string(&manifest)
            .map_err(|source| InferenceError::Io { path: manifest.clone(), source })?;
        let invalid = |reason: String| InferenceError::Manifest { path: manifest.clone(), reason };
        let raw: RawBundle = toml::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        let resize = raw.preprocessing.rule().map_err(invalid)?;
        if raw.preprocessing.std.iter().any(|&s| !(s.is_finite() && s > 0.0))
            || raw.preprocessing.mean.iter().any(|m| !m.is_finite())
        {
            return Err(invalid("preprocessing: std must be positive, mean finite".into()));
        }
        if raw.kind == BundleKind::GroundingDino && resize.is_none() {
            return Err(invalid("preprocessing: a detector needs `resize`".into()));
        }
        if !(4..=LOGIT_COLUMNS).contains(&raw.text.max_tokens) {
            return Err(invalid(format!("text: max_tokens must be 4 to {LOGIT_COLUMNS}, is {}", raw.text.max_tokens)));
        }
        let thresholds = raw.thresholds.unwrap_or_default();
        for (name, value) in
            [("box", thresholds.box_threshold), ("text", thresholds.text_threshold), ("nms_iou", thresholds.nms_iou)]
        {
            if !(0.0..=1.0).contains(&value) {
                return Err(invalid(format!("thresholds: {name} must be in [0, 1], is {value}")));
            }
        }
        let mut files = BTreeMap::new();
        for (role, file) in raw.files {
            if file.path.is_absolute() || file.path.components().any(|c| matches!(c, std::path::Component::ParentDir)) {
                return Err(invalid(format!("files: {role} must lie in the bundle, is {}", file.path.display())));
            }
            let path = dir.join(&file.path);
            let found = sha256(&path)?;
            if !found.eq_ignore_ascii_case(&file.sha256) {
                return Err(InferenceError::Checksum { path, expected: file.sha256, found });
            }
            files.insert(role, path);
        }
        Ok(Self {
            name: raw.name,
            kind: raw.kind,
            licence: raw.licence,
            source: raw.source,
            description: raw.description,
            resize,
            mean: raw.preprocessing.mean,
            std: raw.preprocessing.std,
            max_tokens: raw.text.max_tokens,
            thresholds,
            files,
            manifest,
        })
    }

    /// The file with a role (`detector`, `text_encoder`, `tokenizer`, `image_encoder`, `mask_decoder`).
    ///
    /// # Errors
    /// When the manifest does not name one.
    pub fn file(&self, role: &str) -> Result<&Path, InferenceError> {
        self.optional_file(role).ok_or_else(|| InferenceError::Manifest {
            path: self.manifest.clone(),
            reason: format!("files: {role} is missing"),
        })
    }

    /// The file with a role, if the manifest names one.
    #[must_use]
    pub fn optional_file(&self, role: &str) -> Option<&Path> {
        self.files.get(role).map(PathBuf::as_path)
    }

    /// Checks the kind.
    ///
    /// # Errors
    /// When the bundle is of another kind.
    pub fn expect_kind(&self, kind: BundleKind) -> Result<(), InferenceError> {
        if self.kind == kind {
            return Ok(());
        }
        Err(InferenceError::Manifest {
            path: self.manifest.clone(),
            reason: format!("kind: expected {}, found {}", kind.as_str(), self.kind.as_str()),
        })
    }

    /// The preprocessing with `rule` where the manifest leaves the rule to the model file.
    #[must_use]
    pub fn preprocess(&self, rule: ResizeRule) -> Preprocess {
        Preprocess { resize: self.resize.unwrap_or(rule), mean: self.mean, std: self.std }
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
        let sides = [("shortest", self.shortest), ("longest", self.longest)];
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
                let (shortest, longest) = (side("shortest", self.shortest)?, side("longest", self.longest)?);
                if shortest > longest {
                    return Err(format!("preprocessing: shortest {shortest} is longer than longest {longest}"));
                }
                Ok(Some(ResizeRule::ShortestEdge { shortest, longest }))
            }
            Some(other) => {
                Err(format!("preprocessing: resize must be letterbox, exact or shortest_edge, is {other:?}"))
            }
        }
    }
}

/// SHA-256 of a file, in lower-case hexadecimal.
fn sha256(path: &Path) -> Result<String, InferenceError> {
    let failed = |source| InferenceError::Io { path: path.to_path_buf(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 16];
    loop {
        let read = file.read(&mut buffer).map_err(failed)?;
        let Some(chunk) = buffer.get(..read).filter(|c| !c.is_empty()) else { break };
        hasher.update(chunk);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
