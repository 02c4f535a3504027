//! Nouns in running text.

use super::{
    Lexicon,
    sense::{is_typical, visible_synsets},
};

/// Longest noun that is looked for, in words.
const MAX_WORDS: usize = 4;

impl Lexicon {
    /// The longest noun for something visible that `words`, in lower case, begin with: its singular and how many words it
    /// takes. Words that are seldom the name of a thing ("top", "sitting") are none.
    #[must_use]
    pub fn leading_noun(&self, words: &[&str]) -> Option<(String, usize)> {
        (1..=MAX_WORDS.min(words.len())).rev().find_map(|count| {
            let lemmas = self.known(words.get(..count)?)?;
            let lemma = lemmas.into_iter().find(|&lemma| {
                let first = visible_synsets(&self.store, &self.traits, lemma).first().map(|&(synset, _)| synset);
                first.is_some_and(|synset| {
                    !self.traits.is_general(synset) && is_typical(&self.store, &self.traits, lemma, synset)
                })
            })?;
            Some((self.store.name(lemma), count))
        })
    }
}
