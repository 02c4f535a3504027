//! Models: loading them, checking that they are what they claim to be, and running them.
//!
//! Nothing about a model file is assumed. Names, element types and shapes are read from the session and compared with
//! the contract of the bundle's kind; a difference is an error that says what was expected and what was found.
//! Reading order: [`bundle`] → [`ort`] → [`text`] → [`grounding_dino`] and [`sam`]; [`tagger`] and [`blip`] (with [`sampling`])
//! propose labels beside the frame loop; the traits behind which the models sit are in [`backend`].

pub mod backend;
pub mod blip;
pub mod bundle;
mod contract;
mod declared;
mod error;
pub mod grounding_dino;
mod image_input;
mod manifest;
pub mod ort;
pub mod prune;
pub mod sam;
pub mod sampling;
pub mod tagger;
pub mod text;

pub use backend::{
    Captioner, Detector, ImageEmbedding, ImageEncoder, LowResMasks, MaskDecoder, PromptBatch, RawDetections, Tag,
    Tagger,
};
pub use blip::BlipCaptioner;
pub use bundle::{Activation, Bundle, BundleKind, CaptionRules, TagRules, Thresholds};
pub use error::InferenceError;
pub(crate) use error::quoted;
pub use grounding_dino::GroundingDino;
pub use ort::{Model, ModelOptions, Provider, Runtime, Value};
pub use sam::{SamImageEncoder, SamMaskDecoder};
pub use sampling::{Sampler, Sampling};
pub use tagger::ImageTagger;
pub use text::{Caption, EncodedText, PhraseSpan, TextEncoder};
