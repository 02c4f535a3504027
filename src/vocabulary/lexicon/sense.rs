//! Which meanings of a noun a camera can see, how likely each is, and what lies above them.

use std::cmp::Reverse;

use super::store::{Kind, Lemma, Store, Synset};

/// Most meanings of a noun that are looked at, unless more are about as common as the first.
const MAX_MEANINGS: usize = 4;
/// A meaning at least this fraction (1 : 4) as common as the first is always looked at.
const COMMON_FRACTION: u32 = 4;
/// A noun said alone means a thing if at least this fraction (1 : 4) of its uses do, as with "table".
const TYPICAL_FRACTION: u32 = 4;

/// Concepts too general to say anything about a picture. Neither is a thing called by such a name, nor are two things
/// alike because they meet below it.
const GENERAL: [&str; 50] = [
    "area",
    "article",
    "artifact",
    "attachment",
    "block",
    "body_part",
    "causal_agent",
    "commodity",
    "connection",
    "consumer_goods",
    "conveyance",
    "covering",
    "creation",
    "decoration",
    "device",
    "durables",
    "entity",
    "equipment",
    "facility",
    "fluid",
    "implement",
    "instrument",
    "instrumentality",
    "layer",
    "line",
    "living_thing",
    "material",
    "matter",
    "mechanism",
    "natural_object",
    "nutrient",
    "object",
    "organism",
    "part",
    "physical_entity",
    "piece",
    "plant_organ",
    "plant_part",
    "product",
    "restraint",
    "sheet",
    "solid",
    "strip",
    "structure",
    "substance",
    "support",
    "system",
    "thing",
    "way",
    "whole",
];

/// Unique beginners below one of these are tangible.
const TANGIBLE: [&str; 2] = ["physical_object", "matter"];

/// What is known about synsets beyond the files.
#[derive(Clone, Debug)]
pub(super) struct Traits {
    /// By synset: a camera can see it.
    visible: Vec<bool>,
    /// By synset: too general to say anything.
    general: Vec<bool>,
}

/// One visible meaning of a noun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) synset: Synset,
    /// How far behind the commonest meaning: 0 for that and for those about as common.
    pub(super) penalty: u32,
    /// The synset itself and all above it with the number of steps, in order of the synsets.
    pub(super) above: Vec<(Synset, u32)>,
}

impl Meaning {
    /// Steps up to a synset.
    pub(super) fn steps_to(&self, synset: Synset) -> Option<u32> {
        let at = self.above.binary_search_by_key(&synset, |&(above, _)| above).ok()?;
        self.above.get(at).map(|&(_, steps)| steps)
    }
}

impl Traits {
    pub(super) fn new(store: &Store) -> Self {
        let mut general = vec![false; store.kinds.len()];
        for lemma in GENERAL.iter().filter_map(|name| store.find(name)) {
            let senses = store.senses(lemma).iter().map(|sense| sense.synset);
            // The first word names the concept; "line" as a synonym of "telephone line" must not make that general.
            for synset in senses.filter(|&synset| store.words(synset).first().is_some_and(|w| w.lemma == lemma)) {
                if let Some(flag) = general.get_mut(synset.0 as usize) {
                    *flag = true;
                }
            }
        }
        let roots: Vec<Lemma> = TANGIBLE.iter().filter_map(|name| store.find(name)).collect();
        let is_root = |synset| store.words(synset).iter().any(|word| roots.contains(&word.lemma));
        let visible = (0..store.words.len()).map(Synset).map(|synset| match store.kind(synset) {
            _ if store.is_named(synset) => false,
            Kind::Unseen => false,
            // A book is filed under communication, yet is a physical object; a question is none.
            Kind::Top | Kind::Communication => above(store, synset).iter().any(|&(above, _)| is_root(above)),
            _ => true,
        });
        Self { visible: visible.collect(), general }
    }

    pub(super) fn is_visible(&self, synset: Synset) -> bool {
        self.visible.get(synset.0 as usize).copied().unwrap_or(false)
    }

    pub(super) fn is_general(&self, synset: Synset) -> bool {
        self.general.get(synset.0 as usize).copied().unwrap_or(false)
    }
}

/// A synset and all above it with the least number of steps, in order of the synsets.
pub(super) fn above(store: &Store, synset: Synset) -> Vec<(Synset, u32)> {
    let mut found = vec![(synset, 0)];
    let mut next = 0;
    while let Some(&(synset, steps)) = found.get(next) {
        next += 1;
        for &hypernym in store.hypernyms(synset) {
            if !found.iter().any(|&(known, _)| known == hypernym) {
                found.push((hypernym, steps + 1));
            }
        }
    }
    found.sort_unstable();
    found
}

/// The visible synsets of a noun with their penalties, likeliest first.
///
/// People, parts of the body and substances come after things that are as common ("mug" is also a face and a victim),
/// and only count besides a thing when they are common themselves: a chair is no chairperson.
pub(super) fn visible_synsets(store: &Store, traits: &Traits, lemma: Lemma) -> Vec<(Synset, u32)> {
    let senses = store.senses(lemma).iter().filter(|sense| traits.is_visible(sense.synset));
    let is_figurative = |synset| matches!(store.kind(synset), Kind::Person | Kind::Body | Kind::Substance);
    let mut found: Vec<(Synset, u32)> = senses.map(|sense| (sense.synset, sense.count)).collect();
    found.sort_by_key(|&(synset, count)| (Reverse(count), is_figurative(synset)));
    let Some(&(first, most)) = found.first() else { return found };
    let is_common = |count: u32| count > 0 && count.saturating_mul(COMMON_FRACTION) >= most;
    let likely = found.into_iter().filter(|&(synset, count)| {
        synset == first || !is_figurative(synset) || is_figurative(first) || is_common(count)
    });
    let ranked = likely.enumerate().filter(|&(rank, (_, count))| rank < MAX_MEANINGS || is_common(count));
    ranked
        .map(|(rank, (synset, count))| {
            let ratio = most.saturating_add(1) / count.saturating_add(1);
            // Meanings that the tagged texts lack are rarer than the first even where they lack that, too.
            (synset, ratio.max(1).ilog2().max(u32::from(count == 0 && rank > 0)))
        })
        .collect()
}

/// Whether a noun, said alone, means this synset: its likeliest visible meaning, and not almost always something unseen.
pub(super) fn is_typical(store: &Store, traits: &Traits, lemma: Lemma, synset: Synset) -> bool {
    let first = visible_synsets(store, traits, lemma).first().is_some_and(|&(first, _)| first == synset);
    let total: u32 = store.senses(lemma).iter().fold(0, |sum, sense| sum.saturating_add(sense.count));
    first && store.count(lemma, synset).saturating_mul(TYPICAL_FRACTION) >= total
}
