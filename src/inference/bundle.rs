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

use super::{
    InferenceError,
    manifest::{RawBundle, RawFile, Rules},
    ort::Provider,
};
use crate::imaging::{Preprocess, ResizeFilter, ResizeRule};

/// Roles of files that are run; of each there may be another one for the processor.
const MODELS: [&str; 7] =
    ["detector", "text_encoder", "image_encoder", "mask_decoder", "tagger", "visual_encoder", "textual_decoder"];

/// Contract the files of a bundle follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BundleKind {
    /// Grounding DINO, split (text encoder and detector) or fused (one file with the text inside).
    GroundingDino,
    /// Segment Anything: image encoder and mask decoder.
    Sam,
    /// RAM++ image tagger: one logit per tag, a threshold per tag.
    Ram,
    /// Image classifier: one score per class.
    Classifier,
    /// BLIP captioner: visual encoder and textual decoder.
    Blip,
}

impl BundleKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::GroundingDino => "grounding_dino",
            Self::Sam => "sam",
            Self::Ram => "ram",
            Self::Classifier => "classifier",
            Self::Blip => "blip",
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

/// What makes probabilities of a tagger's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Each on its own.
    Sigmoid,
    /// All together sum to 1.
    Softmax,
    /// They are probabilities already.
    None,
}

/// How a tagger's outputs become tags.
#[derive(Clone, Debug, PartialEq)]
pub struct TagRules {
    /// What makes probabilities of them.
    pub activation: Activation,
    /// Tags with a probability above it are kept, where the bundle has no `thresholds` file.
    pub threshold: f32,
    /// Most tags of one view, the likeliest.
    pub top_k: usize,
    /// Labels that name no thing, such as "background".
    pub ignore: Vec<String>,
    /// A quantised output `q` stands for `scale × (q − zero_point)`.
    pub scale: f32,
    /// See `scale`.
    pub zero_point: u8,
}

impl Default for TagRules {
    /// RAM++'s one threshold for all tags, 0.68; more tags than any picture has.
    fn default() -> Self {
        Self {
            activation: Activation::Sigmoid,
            threshold: 0.68,
            top_k: 256,
            ignore: Vec::new(),
            scale: 1.0 / 256.0,
            zero_point: 0,
        }
    }
}

/// What a captioner begins and ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptionRules {
    /// Words every caption begins with.
    pub prompt: String,
    /// Token before the prompt.
    pub start_token: u32,
    /// Token that ends a caption.
    pub end_token: u32,
}

impl Default for CaptionRules {
    /// BLIP's own: "a picture of", `[DEC]` and `[SEP]`.
    fn default() -> Self {
        Self { prompt: "a picture of".into(), start_token: 30522, end_token: 102 }
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
    /// How images are brought to the model's input. Without a `resize` rule in the manifest the size is read from the
    /// model file: SAM's longest side is scaled to it, for taggers and captioners the whole image. `None` until then.
    pub resize: Option<ResizeRule>,
    /// How samples between pixels are made.
    pub filter: ResizeFilter,
    /// Mean per channel (RGB) on the 0..1 scale.
    pub mean: [f32; 3],
    /// Standard deviation per channel (RGB) on the 0..1 scale.
    pub std: [f32; 3],
    /// Most tokens of one caption.
    pub max_tokens: usize,
    /// Thresholds the model was tuned for.
    pub thresholds: Thresholds,
    /// How a tagger's outputs become tags.
    pub tags: TagRules,
    /// What a captioner begins and ends with.
    pub caption: CaptionRules,
    files: BTreeMap<String, PathBuf>,
    cpu_files: BTreeMap<String, PathBuf>,
    manifest: PathBuf,
}

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
        let Rules { resize, filter, max_tokens, thresholds, tags, caption } = raw.rules().map_err(invalid)?;
        let is_model = |role: &String| MODELS.contains(&role.as_str()) && raw.files.contains_key(role);
        if let Some(role) = raw.cpu_files.keys().find(|role| !is_model(role)) {
            return Err(invalid(format!("cpu_files: {role} is not a model of files")));
        }
        let checked = |section: &str, (role, file): (String, RawFile)| {
            if file.path.is_absolute() || file.path.components().any(|c| matches!(c, std::path::Component::ParentDir)) {
                return Err(invalid(format!("{section}: {role} must lie in the bundle, is {}", file.path.display())));
            }
            let path = dir.join(&file.path);
            let found = sha256(&path)?;
            if !found.eq_ignore_ascii_case(&file.sha256) {
                return Err(InferenceError::Checksum { path, expected: file.sha256, found });
            }
            Ok((role, path))
        };
        let files = raw.files.into_iter().map(|file| checked("files", file)).collect::<Result<_, _>>()?;
        let cpu_files = raw.cpu_files.into_iter().map(|file| checked("cpu_files", file)).collect::<Result<_, _>>()?;
        Ok(Self {
            name: raw.name,
            kind: raw.kind,
            licence: raw.licence,
            source: raw.source,
            description: raw.description,
            resize,
            filter,
            mean: raw.preprocessing.mean,
            std: raw.preprocessing.std,
            max_tokens,
            thresholds,
            tags,
            caption,
            files,
            cpu_files,
            manifest,
        })
    }

    /// The file with a role (`detector`, `text_encoder`, `tokenizer`, `image_encoder`, `mask_decoder`, `tagger`, `labels`,
    /// `thresholds`, `visual_encoder`, `textual_decoder`).
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

    /// The model file with a role where the model runs on `provider`: on the processor that of the manifest's `cpu_files`, if
    /// it names one.
    ///
    /// # Errors
    /// When the manifest does not name one.
    pub fn model(&self, role: &str, provider: Provider) -> Result<&Path, InferenceError> {
        match self.cpu_files.get(role).filter(|_| provider == Provider::Cpu) {
            Some(path) => Ok(path),
            None => self.file(role),
        }
    }

    /// An error about what the manifest says.
    pub(super) fn contradiction(&self, reason: String) -> InferenceError {
        InferenceError::Manifest { path: self.manifest.clone(), reason }
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
        Preprocess { resize: self.resize.unwrap_or(rule), filter: self.filter, mean: self.mean, std: self.std }
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
