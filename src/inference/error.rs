//! What can go wrong with a model.

use std::path::PathBuf;

/// An error of loading, checking or running a model.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// ONNX Runtime's shared library cannot be used.
    #[error("ONNX Runtime cannot be loaded: {reason}; tried {}", list(tried))]
    Runtime {
        /// What the loader said last.
        reason: String,
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// A file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// `bundle.toml` is not a valid manifest.
    #[error("{path}: {reason}", path = path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file's content is not what the manifest says.
    #[error("{path}: sha256 is {found}, the manifest says {expected}", path = path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// From the manifest.
        expected: String,
        /// Of the file.
        found: String,
    },
    /// A model does not have the inputs and outputs of its kind.
    #[error("{model}: {what}: expected {expected}, found {found}")]
    Contract {
        /// The model's file.
        model: String,
        /// Which part of the contract.
        what: String,
        /// What the contract demands.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// The tokenizer cannot be read or used.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// Names of classes of which the tokenizer knows no part, and that have no other name it knows.
    #[error("the tokenizer knows no part of {}: the detector could not tell such names apart", quoted(phrases))]
    UnknownPhrases {
        /// The names.
        phrases: Vec<String>,
    },
    /// Names of two classes that have the same tokens.
    #[error("the tokenizer makes the same tokens of {phrase:?} and {other:?}: the detector could not tell them apart")]
    SameTokens {
        /// A name.
        phrase: String,
        /// A name of another class.
        other: String,
    },
    /// A phrase does not fit into the model's text length on its own.
    #[error("the phrase {phrase:?} takes {tokens} tokens, the model reads {limit}")]
    PhraseTooLong {
        /// The phrase.
        phrase: String,
        /// Tokens it takes, delimiters included.
        tokens: usize,
        /// Tokens the model reads.
        limit: usize,
    },
    /// An execution provider was asked for that this ONNX Runtime cannot offer.
    #[error(
        "execution provider {provider}: {reason}; it needs a build of ONNX Runtime that has it (parameter onnxruntime_library)"
    )]
    Provider {
        /// The provider's name.
        provider: &'static str,
        /// What ONNX Runtime said.
        reason: String,
    },
    /// ONNX Runtime failed to load or run a model.
    #[error("{model}: {reason}")]
    Session {
        /// The model's file.
        model: String,
        /// What ONNX Runtime said.
        reason: String,
    },
    /// The text encoder is not to go on ([`super::TextEncoder::stop_when`]).
    #[error("text encoding was stopped")]
    Stopped,
    /// An image cannot be brought to the model's input.
    #[error("preprocessing: {0}")]
    Preprocess(String),
}

/// Phrases for messages; only the first of many.
pub(crate) fn quoted<S: AsRef<str>>(phrases: &[S]) -> String {
    const MOST: usize = 8;
    let mut text: Vec<String> = phrases.iter().take(MOST).map(|phrase| format!("{:?}", phrase.as_ref())).collect();
    if phrases.len() > MOST {
        text.push(format!("{} more", phrases.len() - MOST));
    }
    text.join(", ")
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}
