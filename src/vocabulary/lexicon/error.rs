//! Why a word net could not be loaded.

use std::{io, path::PathBuf};

/// Why a word net could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LexiconError {
    /// A file is absent or cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file far larger than any word net: refused before it is read.
    #[error("{path} has {found} bytes, at most {limit} are allowed", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// Bound.
        limit: u64,
    },
    /// A line that is not as wndb(5WN) describes it.
    #[error("{file}:{line}: expected {expected}, found {found:?}")]
    Format {
        /// Name of the file.
        file: &'static str,
        /// Line, counted from 1.
        line: usize,
        /// What should have been there.
        expected: &'static str,
        /// What was there, cut to a readable length.
        found: String,
    },
}

/// Longest excerpt of a bad line in an error.
const EXCERPT_CHARS: usize = 60;

impl LexiconError {
    /// A format error that quotes at most [`EXCERPT_CHARS`] of what was found, whatever its encoding.
    pub(super) fn format(file: &'static str, line: usize, expected: &'static str, found: &[u8]) -> Self {
        let start = found.get(..EXCERPT_CHARS * 4).unwrap_or(found);
        let found = String::from_utf8_lossy(start).chars().take(EXCERPT_CHARS).collect();
        Self::Format { file, line, expected, found }
    }
}
