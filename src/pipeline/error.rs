//! Why a frame has no result.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{imaging::DecodeError, inference::InferenceError, pipeline::ConfigError};

/// An error of one frame. The pipeline is ready for the next one afterwards.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The image cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A model failed.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// A mask could not be brought to image size.
    #[error("mask: {0}")]
    Resolve(String),
    /// No image was processed yet.
    #[error("no image has come from the camera yet")]
    NoImage,
    /// A thread of the pipeline is gone.
    #[error("the thread of the {0} has ended")]
    ThreadEnded(&'static str),
}

impl FrameError {
    /// Name of the kind of error, for counting.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Decode(error) => error.kind(),
            Self::Inference(_) => "inference",
            Self::Resolve(_) => "resolve",
            Self::NoImage => "no_image",
            Self::ThreadEnded(_) => "thread",
        }
    }
}

/// A part of a frame. A panic in it is this frame's error, wherever the part runs: nobody would notice the end of one of
/// several threads, and wait for what it had taken.
pub(super) fn caught<T, E: From<InferenceError>>(part: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let reason = "panicked; its message is above".to_owned();
        Err(InferenceError::Session { model: part.to_owned(), reason }.into())
    })
}

/// Why a pipeline could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A model could not be loaded.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A thread could not be started.
    #[error("thread: {0}")]
    Thread(#[from] std::io::Error),
}
