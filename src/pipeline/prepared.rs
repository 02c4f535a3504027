//! A vocabulary together with everything the detector needs of it.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
    time::SystemTime,
};

use crate::{
    inference::{EncodedText, InferenceError, TextEncoder, quoted},
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
    /// Every name of the classes; [`crate::inference::PhraseSpan::phrase`] is an index into it.
    pub phrases: Vec<Phrase>,
    /// The captions, encoded. Names that the detector could not tell from others are in none of them.
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

    /// Encodes a vocabulary: each class's label, then its synonyms, then its subclasses. A name of which the tokenizer knows
    /// no part, and a synonym or subclass with the tokens of another class's name, is left out with a warning.
    ///
    /// # Errors
    /// When the text encoder fails, a phrase is too long for it, the labels of two classes have the same tokens, or
    /// leaving out names leaves a class without any.
    pub fn encode(vocabulary: Vocabulary, encoder: &mut TextEncoder) -> Result<Self, InferenceError> {
        let phrases = phrases(&vocabulary);
        let left_out = indistinct(&vocabulary, &phrases, encoder)?;
        let asked = phrases.iter().enumerate().filter(|(index, _)| !left_out.contains(index));
        let captions = encoder.captions_of(asked.map(|(index, phrase)| (index, &*phrase.text)))?;
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

/// Indices of the names that the detector could not tell from others.
fn indistinct(
    vocabulary: &Vocabulary,
    phrases: &[Phrase],
    encoder: &TextEncoder,
) -> Result<HashSet<usize>, InferenceError> {
    let is_label = |phrase: &Phrase| vocabulary.entries.get(phrase.entry).is_some_and(|e| e.label == phrase.text);
    // Labels first: where a label and another name have the same tokens, it is the other name that goes.
    let (labels, others): (Vec<_>, Vec<_>) = phrases.iter().enumerate().partition(|(_, phrase)| is_label(phrase));
    let mut owners: HashMap<Vec<u32>, &Phrase> = HashMap::new();
    let (mut unknown, mut alike) = (Vec::new(), Vec::new());
    for (index, phrase) in labels.into_iter().chain(others) {
        let Some(tokens) = encoder.known_tokens(&phrase.text)? else {
            unknown.push((index, phrase));
            continue;
        };
        match owners.entry(tokens) {
            Entry::Vacant(place) => {
                place.insert(phrase);
            }
            // Two names of one class may be the same to the detector.
            Entry::Occupied(owner) if owner.get().entry == phrase.entry => {}
            Entry::Occupied(owner) => alike.push((index, phrase, *owner.get())),
        }
    }
    let served: HashSet<usize> = owners.values().map(|phrase| phrase.entry).collect();
    if let Some((_, phrase, owner)) = alike.iter().find(|(_, p, _)| is_label(p) || !served.contains(&p.entry)) {
        return Err(InferenceError::SameTokens { phrase: phrase.text.to_string(), other: owner.text.to_string() });
    }
    let lost = unknown.iter().filter(|(_, phrase)| !served.contains(&phrase.entry));
    let lost: Vec<String> = lost.map(|(_, phrase)| phrase.text.to_string()).collect();
    if !lost.is_empty() {
        return Err(InferenceError::UnknownPhrases { phrases: lost });
    }
    if !unknown.is_empty() {
        let names: Vec<&str> = unknown.iter().map(|(_, phrase)| &*phrase.text).collect();
        tracing::warn!(names = quoted(&names), "left out names of classes: the tokenizer knows no part of them");
    }
    if !alike.is_empty() {
        let names: Vec<&str> = alike.iter().map(|(_, phrase, _)| &*phrase.text).collect();
        tracing::warn!(names = quoted(&names), "left out names of classes: other classes' names have the same tokens");
    }
    Ok(unknown.iter().map(|(index, _)| *index).chain(alike.iter().map(|(index, ..)| *index)).collect())
}

fn phrases(vocabulary: &Vocabulary) -> Vec<Phrase> {
    let mut phrases = Vec::new();
    for (entry, class) in vocabulary.entries.iter().enumerate() {
        let names = std::iter::once(&class.label).chain(&class.synonyms).chain(&class.subclasses);
        phrases.extend(names.map(|name| Phrase { text: Arc::clone(name), entry }));
    }
    phrases
}
