//! Joining proposed labels into synsets and a hierarchy (LLM2Labels), using only what was proposed.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    Lexicon,
    phrase::{self, Reading},
    sense::Meaning,
    store::Synset,
};

/// Most labels whose meanings are weighed against each other; bounds the work, which grows with the square.
const MAX_CONTEXT: usize = 256;
/// Number of related labels that decide on a meaning. More would let many loosely related labels outvote a close one.
const NEIGHBOURS: usize = 3;
/// Weight of how common a meaning is against how close it lies to the other labels.
const PRIOR: f32 = 0.3;
/// Farthest a common hypernym may lie above the labels it joins.
const MAX_STEPS: u32 = 4;

/// What a group is a kind of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parent {
    /// Another group, by index.
    Group(usize),
    /// A name that was not proposed but is above several groups, such as "furniture".
    Hypernym(String),
}

/// Labels that mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Indices into the proposed labels, rising; the first names the group.
    pub members: Vec<usize>,
    /// What it is a kind of.
    pub parent: Option<Parent>,
}

/// Whether groups may get a parent that was not proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypernyms {
    /// Only what was proposed, as the paper demands.
    ProposedOnly,
    /// The nearest useful name above at least two groups without another parent.
    Add,
}

/// A group in the making.
struct Draft {
    key: Key,
    meaning: Option<Meaning>,
    extra: u32,
    members: Vec<usize>,
}

/// What labels of one group have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Synset(Synset),
    /// A phrase the word net does not list, by its canonical spelling.
    Text(String),
}

impl Lexicon {
    /// Joins labels that mean the same into groups, in the order of their first label, and finds each group's parent.
    /// Of several meanings of a label, the one closest to the other labels counts: "mouse" next to "keyboard" is no
    /// animal. Every label is in exactly one group, unknown ones by their spelling.
    #[must_use]
    pub fn group(&self, labels: &[&str], hypernyms: Hypernyms) -> Vec<Group> {
        let readings: Vec<Option<Reading>> = labels.iter().map(|label| self.read(label)).collect();
        let mut drafts: Vec<Draft> = Vec::new();
        for (at, (reading, label)) in readings.iter().zip(labels).enumerate() {
            let draft = self.draft(at, reading.as_ref(), label, &readings);
            match drafts.iter_mut().find(|known| known.key == draft.key) {
                Some(known) => known.members.push(at),
                None => drafts.push(draft),
            }
        }
        let mut parents: Vec<Option<Parent>> = drafts.iter().map(|draft| proposed_parent(draft, &drafts)).collect();
        if hypernyms == Hypernyms::Add {
            self.add_hypernyms(&drafts, &mut parents);
        }
        let groups = drafts.into_iter().zip(parents);
        groups.map(|(draft, parent)| Group { members: draft.members, parent }).collect()
    }

    fn draft(&self, at: usize, reading: Option<&Reading>, label: &str, all: &[Option<Reading>]) -> Draft {
        let meaning = reading.and_then(|reading| self.meaning_in_context(at, reading, all)).cloned();
        let extra = reading.map_or(0, Reading::extra);
        let key = match (reading, &meaning) {
            (Some(_), Some(meaning)) if extra == 0 => Key::Synset(meaning.synset),
            (Some(reading), _) => Key::Text(reading.text.clone()),
            (None, _) => Key::Text(phrase::normalise(label).unwrap_or_else(|| label.to_owned())),
        };
        Draft { key, meaning, extra, members: vec![at] }
    }

    /// The meaning of a label that is closest to those of the other labels, the commoner of two equally close.
    fn meaning_in_context<'a>(&self, at: usize, reading: &'a Reading, all: &[Option<Reading>]) -> Option<&'a Meaning> {
        let (first, rest) = reading.meanings.split_first()?;
        if rest.is_empty() {
            return Some(first);
        }
        let others = all.iter().take(MAX_CONTEXT).enumerate().filter(|&(other, _)| other != at);
        let others: Vec<&Reading> = others.filter_map(|(_, other)| other.as_ref()).collect();
        let mut best = (first, f32::NEG_INFINITY);
        for meaning in &reading.meanings {
            let score = self.closeness(meaning, &others) + PRIOR / (1.0 + small(meaning.penalty));
            if score > best.1 {
                best = (meaning, score);
            }
        }
        Some(best.0)
    }

    /// Mean path similarity, 1 / (1 + steps), to the closest other labels.
    fn closeness(&self, meaning: &Meaning, others: &[&Reading]) -> f32 {
        let similarity = |other: &&Reading| {
            let steps = other.meanings.iter().filter_map(|m| Some(self.meeting(meaning, m)?.1 + m.penalty)).min();
            steps.map_or(0.0, |steps| 1.0 / (1.0 + small(steps)))
        };
        let mut similarities: Vec<f32> = others.iter().map(similarity).collect();
        similarities.sort_by(|a, b| b.total_cmp(a));
        similarities.iter().take(NEIGHBOURS).sum::<f32>() / small(NEIGHBOURS.try_into().unwrap_or(1))
    }

    /// Gives groups without a parent the hypernym that is nearest to the most of them, again and again.
    fn add_hypernyms(&self, drafts: &[Draft], parents: &mut [Option<Parent>]) {
        let mut candidates: BTreeMap<Synset, Vec<(usize, u32)>> = BTreeMap::new();
        for (group, draft) in drafts.iter().enumerate().filter(|&(group, _)| parents.get(group) == Some(&None)) {
            for &(synset, steps) in draft.meaning.iter().flat_map(|meaning| &meaning.above) {
                let steps = steps + draft.extra;
                if (1..=MAX_STEPS).contains(&steps) && !self.traits.is_general(synset) {
                    candidates.entry(synset).or_default().push((group, steps));
                }
            }
        }
        candidates.retain(|_, groups| groups.len() > 1);
        loop {
            for groups in candidates.values_mut() {
                groups.retain(|&(group, _)| parents.get(group) == Some(&None));
            }
            candidates.retain(|_, groups| groups.len() > 1);
            let names = candidates.iter().filter_map(|(&synset, groups)| Some((self.useful_name(synset)?, groups)));
            // Nearness summed, in 60ths so that it is exact and the result does not depend on rounding.
            let nearness = |groups: &[(usize, u32)]| groups.iter().map(|&(_, steps)| 60 / (1 + steps)).sum::<u32>();
            let best = names.max_by_key(|(name, groups)| (nearness(groups), Reverse(name.clone())));
            let Some((name, groups)) = best else { return };
            for &(group, _) in groups {
                if let Some(parent) = parents.get_mut(group) {
                    *parent = Some(Parent::Hypernym(name.clone()));
                }
            }
        }
    }

    /// A short name of a synset that people use, if it has one.
    fn useful_name(&self, synset: Synset) -> Option<String> {
        let lemma = self.name_of(synset)?;
        let used = self.store.count(lemma, synset) > 0 || self.store.compounds(lemma) > 1;
        used.then(|| self.store.name(lemma))
    }
}

/// The nearest group above, the first of two equally near.
fn proposed_parent(draft: &Draft, drafts: &[Draft]) -> Option<Parent> {
    let meaning = draft.meaning.as_ref()?;
    let above = drafts.iter().enumerate().filter_map(|(group, other)| match &other.key {
        Key::Synset(synset) => {
            let steps = meaning.steps_to(*synset)? + draft.extra;
            (steps > 0).then_some((steps, group))
        }
        Key::Text(_) => None,
    });
    above.min().map(|(_, group)| Parent::Group(group))
}

/// Small whole numbers are exact in `f32`.
fn small(number: u32) -> f32 {
    f32::from(u16::try_from(number).unwrap_or(u16::MAX))
}
