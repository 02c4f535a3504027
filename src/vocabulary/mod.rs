//! Class lists: from what a user or a message says to an immutable, versioned [`Vocabulary`](crate::types::Vocabulary).
//!
//! Everything here is pure: text in, values out. Encoding a vocabulary for the detector is the pipeline's business.

mod builder;
mod parse;

pub use builder::VocabularyBuilder;
pub use parse::{ClassSpec, ListError, VocabularyLimits, normalise_label, parse_class_list};
