//! The frame loop's work, without any middleware: image and vocabulary in, labelled masks out.
//!
//! Reading order: [`frame`] (one frame from start to end) → [`postprocess`] (which queries are kept and what they are
//! called) → [`prompts`] → `decode` (the mask decoder's sessions) → `resolve` (masks to images). [`vocabulary`] is the
//! second, slow loop; [`latest`] the slots through which cameras feed the first. [`probe`], [`tags`] and [`caption`]
//! propose labels for it.

pub mod background;
pub mod caption;
mod config;
mod decode;
mod encoder;
mod error;
pub mod frame;
pub mod grid;
pub mod latest;
pub mod phrases;
pub mod postprocess;
mod prepared;
pub mod probe;
pub mod prompts;
mod resolve;
mod segment;
mod similarity;
pub mod statistics;
pub mod tags;
pub mod vocabulary;

pub use background::FrameGate;
pub use caption::{CaptionConfig, CaptionProposer};
pub use config::{ConfigError, Execution, LabelRule, MAX_POINTS, MAX_RESOLVE_THREADS, PipelineConfig};
pub use error::{FrameError, PipelineError};
pub use frame::{FailedBatch, Frame, Models, Pipeline};
pub use grid::Grid;
pub use latest::{LatestSlots, Put, Take};
pub use phrases::{PhraseTable, UnknownPhrase};
pub use prepared::{Phrase, PreparedVocabulary, take_out_indistinct};
pub use probe::DetectorProbe;
pub use segment::ObjectPrompt;
pub use similarity::ClassEmbeddings;
pub use statistics::{Percentiles, Snapshot, Stage, Statistics};
pub use tags::TagProposer;
pub use vocabulary::{VocabularyError, VocabularyHandle, VocabularyRequest, VocabularyWorker};
