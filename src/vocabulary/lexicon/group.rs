//! Joining proposed labels into synsets and a hierarchy (LLM2Labels), using only what was proposed.

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

/// Labels that mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Indices into the proposed labels, rising; the first names the group.
    pub members: Vec<usize>,
    /// The group, by index, that it is a kind of.
    pub parent: Option<usize>,
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
    pub fn group(&self, labels: &[&str]) -> Vec<Group> {
        let readings: Vec<Option<Reading>> = labels.iter().map(|label| self.read(label)).collect();
        let mut drafts: Vec<Draft> = Vec::new();
        for (at, (reading, label)) in readings.iter().zip(labels).enumerate() {
            let draft = self.draft(at, reading.as_ref(), label, &readings);
            match drafts.iter_mut().find(|known| known.key == draft.key) {
                Some(known) => known.members.push(at),
                None => drafts.push(draft),
            }
        }
        let parents: Vec<Option<usize>> = drafts.iter().map(|draft| proposed_parent(draft, &drafts)).collect();
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
}

/// The nearest group above, the first of two equally near.
fn proposed_parent(draft: &Draft, drafts: &[Draft]) -> Option<usize> {
    let meaning = draft.meaning.as_ref()?;
    let above = drafts.iter().enumerate().filter_map(|(group, other)| match &other.key {
        Key::Synset(synset) => {
            let steps = meaning.steps_to(*synset)? + draft.extra;
            (steps > 0).then_some((steps, group))
        }
        Key::Text(_) => None,
    });
    above.min().map(|(_, group)| group)
}

/// Small whole numbers are exact in `f32`.
fn small(number: u32) -> f32 {
    f32::from(u16::try_from(number).unwrap_or(u16::MAX))
}
