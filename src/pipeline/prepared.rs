//! A vocabulary together with everything the detector needs of it.

use std::{sync::Arc, time::SystemTime};

use crate::{
    inference::{EncodedText, InferenceError, TextEncoder},
    types::{ClassEntry, Vocabulary, VocabularySource},
};

/// A phrase the detector is prompted with.
#[derive(Clone, Debug, PartialEq)]
pub struct Phrase {
    /// As prompted.
    pub text: Arc<str>,
    /// Index of its class in [`Vocabulary::entries`].
    pub entry: usize,
}

/// An immutable vocabulary with its text already encoded, swapped as a whole between frames.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedVocabulary {
    /// The class list.
    pub vocabulary: Arc<Vocabulary>,
    /// Every phrase the detector is prompted with; [`crate::inference::PhraseSpan::phrase`] is an index into it.
    pub phrases: Vec<Phrase>,
    /// The captions, encoded.
    pub captions: Vec<EncodedText>,
}

impl PreparedVocabulary {
    /// Version 0: no class, nothing to detect.
    #[must_use]
    pub fn empty() -> Self {
        let vocabulary = Vocabulary {
            version: 0,
            source: VocabularySource::Configuration,
            created: SystemTime::now(),
            entries: Vec::new(),
        };
        Self { vocabulary: Arc::new(vocabulary), phrases: Vec::new(), captions: Vec::new() }
    }

    /// Encodes a vocabulary: each class's label, then its synonyms, then its subclasses.
    ///
    /// # Errors
    /// When the text encoder fails or a phrase is too long for it.
    pub fn encode(vocabulary: Vocabulary, encoder: &mut TextEncoder) -> Result<Self, InferenceError> {
        let phrases = phrases(&vocabulary);
        let texts: Vec<&str> = phrases.iter().map(|p| &*p.text).collect();
        let captions = encoder.captions(&texts)?;
        let captions = captions.iter().map(|caption| encoder.encode(caption)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { vocabulary: Arc::new(vocabulary), phrases, captions })
    }

    /// `vocabulary` with the captions of `self`, where those were made of the same phrases in the same order.
    ///
    /// # Errors
    /// `vocabulary`, where its phrases are others.
    pub fn for_vocabulary(&self, vocabulary: Vocabulary) -> Result<Self, Vocabulary> {
        let phrases = phrases(&vocabulary);
        if phrases != self.phrases {
            return Err(vocabulary);
        }
        Ok(Self { vocabulary: Arc::new(vocabulary), phrases, captions: self.captions.clone() })
    }

    /// The phrase with an index, and its class.
    #[must_use]
    pub fn phrase(&self, index: usize) -> Option<(&Phrase, &ClassEntry)> {
        let phrase = self.phrases.get(index)?;
        Some((phrase, self.vocabulary.entries.get(phrase.entry)?))
    }
}

fn phrases(vocabulary: &Vocabulary) -> Vec<Phrase> {
    let mut phrases = Vec::new();
    for (entry, class) in vocabulary.entries.iter().enumerate() {
        let names = std::iter::once(&class.label).chain(&class.synonyms).chain(&class.subclasses);
        phrases.extend(names.map(|name| Phrase { text: Arc::clone(name), entry }));
    }
    phrases
}
