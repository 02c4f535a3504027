//! Lists of nouns to prompt a detector with: kinds of a thing, and the commonest things there are.

use std::{cmp::Reverse, collections::HashSet};

use super::{
    Lexicon, sense,
    store::{Kind, Lemma, Synset, Word},
};

/// Most words of a proposed name.
const MAX_NAME_WORDS: usize = 3;
/// Occurrences beyond which one kind of evidence for a noun's familiarity counts no more.
const MAX_EVIDENCE: u32 = 50;
/// Added to counts, as the tagged texts are too few to tell a noun they lack from one they have once or twice.
const UNSEEN_COUNT: u32 = 4;
/// Kinds of people that look different; professions do not.
const PEOPLE: [&str; 7] = ["baby", "boy", "child", "girl", "man", "person", "woman"];
/// What lies below one of these has no outline of its own, or is not one thing.
const NOT_COUNTABLE: [&str; 24] = [
    "body_of_water",
    "celestial_body",
    "drug",
    "meat",
    "microorganism",
    "molecule",
    "particle",
    "universe",
    "beverage",
    "course",
    "creation",
    "fabric",
    "facility",
    "flavorer",
    "foodstuff",
    "geological_formation",
    "ingredient",
    "land",
    "meal",
    "product",
    "region",
    "room",
    "surface",
    "way",
];
/// Names of things seen as such only in their kinds, or of many at once.
const NOT_NAMES: [&str; 24] = [
    "agent",
    "ammunition",
    "apparatus",
    "architecture",
    "arms",
    "bark",
    "cattle",
    "cell",
    "clothes",
    "clothing",
    "crop",
    "diet",
    "dwelling",
    "feed",
    "holder",
    "load",
    "machinery",
    "mammal",
    "recording",
    "round",
    "shelter",
    "sky",
    "vessel",
    "young",
];

impl Lexicon {
    /// At most `n` kinds of what `label` means, commonest first; of those the tagged texts lack, names that end in the
    /// label come first, then nearer ones. The offline stand-in for asking a language model for subclasses. Only names
    /// that mostly mean this, of at most three words.
    #[must_use]
    pub fn subclasses(&self, label: &str, n: usize) -> Vec<String> {
        let Some(reading) = self.read(label).filter(|reading| reading.cut.is_empty()) else { return Vec::new() };
        let kinds = reading.meanings.iter().map(|meaning| self.kinds_of(meaning.synset, reading.lemma));
        // The commonest meaning that has kinds: a banana is a plant first, but nobody names its kinds.
        let mut kinds = kinds.into_iter().find(|kinds| !kinds.is_empty()).unwrap_or_default();
        kinds.sort_by_cached_key(|&(lemma, synset, depth)| {
            let plain = !self.store.is_compound_of(lemma, reading.lemma);
            (Reverse(self.store.count(lemma, synset)), plain, depth, Reverse(self.store.compounds(lemma)), lemma)
        });
        let mut seen = HashSet::new();
        let names = kinds.into_iter().map(|(lemma, ..)| lemma).filter(|&lemma| seen.insert(lemma));
        names.take(n).map(|lemma| self.store.name(lemma)).collect()
    }

    /// At most `n` of the commonest nouns for separate things that can be seen and pointed at, one for each thing.
    #[must_use]
    pub fn nouns_for_probe(&self, n: usize) -> Vec<String> {
        let [barred, barred_names, people]: [Vec<Lemma>; 3] = [&NOT_COUNTABLE[..], &NOT_NAMES, &PEOPLE]
            .map(|names| names.iter().filter_map(|name| self.store.find(name)).collect());
        let is_barred = |synset| {
            let first = |synset| self.store.words(synset).first().map(|word| word.lemma);
            sense::above(&self.store, synset).iter().any(|&(s, _)| first(s).is_some_and(|l| barred.contains(&l)))
        };
        let mut found: Vec<(Lemma, Synset)> = Vec::new();
        for lemma in (0..self.store.lemmas.len()).map(Lemma) {
            let Some(synset) = self.store.senses(lemma).iter().map(|sense| sense.synset).find(|&synset| {
                self.traits.is_visible(synset) && sense::is_typical(&self.store, &self.traits, lemma, synset)
            }) else {
                continue;
            };
            if barred_names.contains(&lemma) {
                continue;
            }
            let fits = match self.store.kind(synset) {
                Kind::Animal | Kind::Artifact | Kind::Food | Kind::Plant | Kind::Object => true,
                Kind::Top | Kind::Person => people.contains(&lemma),
                Kind::Body | Kind::Communication | Kind::Substance | Kind::Unseen => false,
            };
            let word = self.store.words(synset).iter().find(|word| word.lemma == lemma);
            if fits && word.is_some_and(|word| self.is_proposable(*word, synset)) && !self.traits.is_general(synset) {
                found.push((lemma, synset));
            }
        }
        found.sort_by_cached_key(|&(lemma, synset)| (Reverse(self.familiarity(lemma, synset)), lemma));
        let mut seen = HashSet::new();
        let things = found.into_iter().filter(|&(_, synset)| seen.insert(synset) && !is_barred(synset));
        things.take(n).map(|(lemma, _)| self.store.name(lemma)).collect()
    }

    /// How well people know a noun in this meaning. The tagged texts are few, so one article on electrolysis makes
    /// "anode" look commoner than "bicycle", and "mug" is absent. A word in general use has more meanings, and is made
    /// into more nouns ("coffee mug").
    fn familiarity(&self, lemma: Lemma, synset: Synset) -> u32 {
        let count = self.store.count(lemma, synset).min(MAX_EVIDENCE);
        let meanings = u32::try_from(self.store.senses(lemma).len()).unwrap_or(u32::MAX);
        let compounds = u32::from(self.store.compounds(lemma));
        (UNSEEN_COUNT + count) * meanings.saturating_add(compounds).min(MAX_EVIDENCE)
    }

    /// All below a synset that have a name to propose, with the number of steps. `noun` is the name of the synset.
    fn kinds_of(&self, synset: Synset, noun: Lemma) -> Vec<(Lemma, Synset, u32)> {
        let mut seen = HashSet::from([synset]);
        let mut level = vec![synset];
        let mut kinds = Vec::new();
        let mut depth = 0;
        while !level.is_empty() {
            depth += 1;
            let below = level.iter().flat_map(|&synset| self.store.hyponyms(synset)).copied();
            level = below.filter(|&synset| seen.insert(synset)).collect();
            for &synset in level.iter().filter(|&&synset| self.traits.is_visible(synset)) {
                if let Some(lemma) = self.compound_of(synset, noun).or_else(|| self.name_of(synset)) {
                    kinds.push((lemma, synset, depth));
                }
            }
        }
        kinds
    }

    /// The word of a synset that ends in a noun: "electric car" rather than "electric" for a kind of car.
    fn compound_of(&self, synset: Synset, noun: Lemma) -> Option<Lemma> {
        let mut words = self.store.words(synset).iter().filter(|word| self.store.is_compound_of(word.lemma, noun));
        words.find(|word| self.is_proposable(**word, synset)).map(|word| word.lemma)
    }

    /// The first word of a synset that says what it is without misunderstanding.
    pub(super) fn name_of(&self, synset: Synset) -> Option<Lemma> {
        let words = self.store.words(synset).iter();
        let mut names = words.filter(|word| self.is_proposable(**word, synset)).map(|word| word.lemma);
        names.find(|&lemma| sense::is_typical(&self.store, &self.traits, lemma, synset))
    }

    fn is_proposable(&self, word: Word, synset: Synset) -> bool {
        let name = self.store.lemma(word.lemma);
        // Breeds and species keep their place names ("Siamese cat"); other capitals are brands and peoples.
        let capital = word.capital && !matches!(self.store.kind(synset), Kind::Animal | Kind::Plant | Kind::Food);
        let letters = name.chars().all(|c| c.is_alphabetic() || "_-'".contains(c));
        !word.marked && !capital && letters && name.len() > 2 && name.split('_').count() <= MAX_NAME_WORDS
    }
}
