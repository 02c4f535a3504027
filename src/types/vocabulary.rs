//! The class list: an immutable, versioned value swapped between frames.

use std::{sync::Arc, time::SystemTime};

/// Where a vocabulary came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VocabularySource {
    /// The `classes` parameter or the command line.
    Configuration,
    /// The `~/set_vocabulary` topic.
    Topic,
    /// The `~/set_vocabulary` service.
    Service,
    /// The vocabulary loop.
    Refresh,
    /// The file in which the vocabulary loop keeps its last good list.
    Stored,
}

impl VocabularySource {
    /// Name used in messages and diagnostics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Topic => "topic",
            Self::Service => "service",
            Self::Refresh => "refresh",
            Self::Stored => "stored",
        }
    }
}

/// One class of a vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassEntry {
    /// The same for the same label in version after version, also after some without it, until it is forgotten for the
    /// sake of new labels (an id above 254 as soon as two versions in a row lack the label); below [`crate::types::UNLABELLED`].
    pub class_id: u16,
    /// Canonical name, normalised (lower case, single spaces).
    pub label: Arc<str>,
    /// Label of the parent class, or empty.
    pub parent: Arc<str>,
    /// Other names the detector is prompted with; results carry `label`.
    pub synonyms: Vec<Arc<str>>,
    /// More special names the detector is prompted with; results carry `label`.
    pub subclasses: Vec<Arc<str>>,
    /// Confidence in [0, 1] that the class is in the scene; 1 for given lists.
    pub score: f32,
}

/// A class list. Never changed once made.
#[derive(Clone, Debug, PartialEq)]
pub struct Vocabulary {
    /// Rises by one with every accepted change; the first is 1.
    pub version: u64,
    /// Who asked for it.
    pub source: VocabularySource,
    /// When it was made.
    pub created: SystemTime,
    /// Classes in the order given.
    pub entries: Vec<ClassEntry>,
}
