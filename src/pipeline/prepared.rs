//! A vocabulary together with everything the detector needs of it.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
    time::SystemTime,
};

use crate::{
    inference::{EncodedText, InferenceError, TextEncoder, quoted},
    types::{ClassEntry, Vocabulary, VocabularySource},
    vocabulary::{ClassSpec, refine::reply::repair_parents},
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

/// Takes the classes out of a list that could not be encoded with it: those of which the tokenizer knows no name, and
/// those it cannot tell from one before. Says of each why. For lists that nobody waits for: one odd label, of a model's
/// proposals say, is not to keep the others out.
///
/// # Errors
/// When the tokenizer fails.
pub fn take_out_indistinct(
    classes: &mut Vec<ClassSpec>,
    encoder: &TextEncoder,
) -> Result<Vec<InferenceError>, InferenceError> {
    let mut reasons = Vec::new();
    loop {
        let all = classes.iter().enumerate().flat_map(|(class, spec)| {
            let others = spec.synonyms.iter().chain(&spec.subclasses).map(|name| (&**name, false));
            std::iter::once((&*spec.label, true)).chain(others).map(move |(text, is_label)| Name {
                text,
                class,
                is_label,
            })
        });
        let refused = Indistinct::of(&all.collect::<Vec<_>>(), encoder)?.refused;
        // One at a time: without it, another may be told from the rest.
        let Some(first) = refused.first() else { break };
        classes.remove(first.class);
        reasons.extend(Refused::error(std::slice::from_ref(first)));
    }
    if !reasons.is_empty() {
        repair_parents(classes);
    }
    Ok(reasons)
}

/// A name of a class.
struct Name<'a> {
    text: &'a str,
    class: usize,
    is_label: bool,
}

/// A name that its class cannot do without, and the other class's that has the same tokens; none where the tokenizer knows
/// no part of it.
struct Refused {
    class: usize,
    name: String,
    other: Option<String>,
}

impl Refused {
    /// What is wrong with a list, if anything is.
    fn error(refused: &[Self]) -> Option<InferenceError> {
        let same = refused.iter().find_map(|refused| Some((refused.name.clone(), refused.other.clone()?)));
        if let Some((phrase, other)) = same {
            return Some(InferenceError::SameTokens { phrase, other });
        }
        let phrases: Vec<String> = refused.iter().map(|refused| refused.name.clone()).collect();
        (!phrases.is_empty()).then_some(InferenceError::UnknownPhrases { phrases })
    }
}

/// Names that the detector could not tell from others, as indices.
struct Indistinct {
    unknown: Vec<usize>,
    alike: Vec<usize>,
    /// Those of them that their classes cannot do without.
    refused: Vec<Refused>,
}

impl Indistinct {
    fn of(names: &[Name<'_>], encoder: &TextEncoder) -> Result<Self, InferenceError> {
        // Labels first: where a label and another name have the same tokens, it is the other name that goes.
        let (labels, others): (Vec<_>, Vec<_>) = names.iter().enumerate().partition(|(_, name)| name.is_label);
        let mut owners: HashMap<Vec<u32>, &Name<'_>> = HashMap::new();
        let (mut unknown, mut alike) = (Vec::new(), Vec::new());
        for (index, name) in labels.into_iter().chain(others) {
            let Some(tokens) = encoder.known_tokens(name.text)? else {
                unknown.push((index, name));
                continue;
            };
            match owners.entry(tokens) {
                Entry::Vacant(place) => {
                    place.insert(name);
                }
                // Two names of one class may be the same to the detector.
                Entry::Occupied(owner) if owner.get().class == name.class => {}
                Entry::Occupied(owner) => alike.push((index, name, *owner.get())),
            }
        }
        let served: HashSet<usize> = owners.values().map(|name| name.class).collect();
        let refused = |name: &Name<'_>, other: Option<&Name<'_>>| {
            let needed = other.is_some() && name.is_label || !served.contains(&name.class);
            let (class, other) = (name.class, other.map(|other| other.text.to_owned()));
            needed.then(|| Refused { class, name: name.text.to_owned(), other })
        };
        let of_alike = alike.iter().filter_map(|(_, name, owner)| refused(name, Some(owner)));
        Ok(Self {
            refused: of_alike.chain(unknown.iter().filter_map(|(_, name)| refused(name, None))).collect(),
            unknown: unknown.iter().map(|(index, _)| *index).collect(),
            alike: alike.iter().map(|(index, ..)| *index).collect(),
        })
    }
}

/// Indices of the names that the captions do without.
fn indistinct(
    vocabulary: &Vocabulary,
    phrases: &[Phrase],
    encoder: &TextEncoder,
) -> Result<HashSet<usize>, InferenceError> {
    let names: Vec<Name<'_>> = phrases
        .iter()
        .map(|Phrase { text, entry }| {
            let is_label = vocabulary.entries.get(*entry).is_some_and(|class| class.label == *text);
            Name { text, class: *entry, is_label }
        })
        .collect();
    let Indistinct { unknown, alike, refused } = Indistinct::of(&names, encoder)?;
    if let Some(error) = Refused::error(&refused) {
        return Err(error);
    }
    for (left_out, why) in [
        (&unknown, "left out names of classes: the tokenizer knows no part of them"),
        (&alike, "left out names of classes: other classes' names have the same tokens"),
    ] {
        let names: Vec<&str> = left_out.iter().filter_map(|&index| Some(&*phrases.get(index)?.text)).collect();
        if !names.is_empty() {
            tracing::warn!(names = quoted(&names), "{why}");
        }
    }
    Ok(unknown.into_iter().chain(alike).collect())
}

fn phrases(vocabulary: &Vocabulary) -> Vec<Phrase> {
    let mut phrases = Vec::new();
    for (entry, class) in vocabulary.entries.iter().enumerate() {
        let names = std::iter::once(&class.label).chain(&class.synonyms).chain(&class.subclasses);
        phrases.extend(names.map(|name| Phrase { text: Arc::clone(name), entry }));
    }
    phrases
}
