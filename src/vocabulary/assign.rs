//! Post-refinement offline: the class a phrase stands for, by word and by meaning.

use super::lexicon::{Lexicon, Relation};
use crate::types::Vocabulary;

/// The index of the class that `phrase` stands for: the one with exactly this name, else with this noun in another form
/// ("mugs", "a red mug"), else the nearest in meaning. `None` where nothing fits, and never by parts of words: "chair" is
/// not in "armchair".
#[must_use]
pub fn class_of(phrase: &str, vocabulary: &Vocabulary, lexicon: Option<&Lexicon>) -> Option<usize> {
    let phrase = phrase.trim().to_lowercase();
    let names = |index: usize| {
        let entry = vocabulary.entries.get(index);
        entry.into_iter().flat_map(|e| std::iter::once(&e.label).chain(&e.synonyms).chain(&e.subclasses))
    };
    let classes = || 0..vocabulary.entries.len();
    let named = |text: &str| classes().find(|&index| names(index).any(|name| **name == *text));
    if let Some(class) = named(&phrase) {
        return Some(class);
    }
    let lexicon = lexicon?;
    if let Some(class) = lexicon.base_form(&phrase).and_then(|form| named(&form.noun)) {
        return Some(class);
    }
    let mut owners = Vec::new();
    let mut texts = Vec::new();
    for class in classes() {
        for name in names(class) {
            owners.push(class);
            texts.push(&**name);
        }
    }
    // A less exact word for a class is fine ("table" for "dining table") unless it could be said of several.
    let found = lexicon.to_targets(&phrase, &texts);
    let best = found.first()?;
    let owner = |target: usize| owners.get(target).copied();
    let rivals = found.iter().skip(1).any(|other| other.cost == best.cost && owner(other.target) != owner(best.target));
    if rivals && matches!(best.relation, Relation::Broader { .. }) { None } else { owner(best.target) }
}
