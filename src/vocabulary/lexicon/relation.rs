//! How the meanings of two phrases lie to each other: pre- and post-refinement without a language model.

use std::cmp::Ordering;

use super::{Lexicon, phrase::Reading, sense::Meaning, store::Synset};

/// Farthest a tag may lie above a target it is replaced by: "table" becomes "dining table", "furniture" becomes
/// "table", but "equipment" becomes nothing.
const MAX_BROADER: u32 = 2;
/// Farthest a tag may lie from a target whose noun both are kinds of; see [`Lexicon::to_targets`].
const MAX_SIBLING: u32 = 4;
/// Cost of an answer that is only likely, in steps of half an edge.
const SIBLING_COST: u32 = 4;

/// What one phrase means relative to another. Distances count steps in the hierarchy, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Both mean the same.
    Same,
    /// The first is more general: "furniture" to "chair".
    Broader {
        /// Steps between them.
        distance: u32,
    },
    /// The first is a kind of the second: "armchair" to "chair".
    Narrower {
        /// Steps between them.
        distance: u32,
    },
    /// Both are kinds of a third thing that is not over-general: "stool" to "chair".
    Sibling {
        /// Steps up to the third thing and down again.
        distance: u32,
    },
    /// Nothing useful in common, or one of them is unknown.
    None,
}

impl Relation {
    /// Steps between the two, `None` where they are unrelated.
    #[must_use]
    pub fn distance(self) -> Option<u32> {
        match self {
            Self::Same => Some(0),
            Self::Broader { distance } | Self::Narrower { distance } | Self::Sibling { distance } => Some(distance),
            Self::None => None,
        }
    }
}

/// A target that a tag may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Index into the list of targets.
    pub target: usize,
    /// What the tag means relative to the target.
    pub relation: Relation,
    /// Order of preference: 0 is exact; grows with the distance and with the rarity of the meanings compared.
    pub cost: u32,
}

/// A relation between two meanings, and how.
#[derive(Clone, Copy)]
struct Link {
    relation: Relation,
    cost: u32,
    /// What the second phrase's noun means is above the first phrase; with words cut off, that is all that is known.
    meets_at_head: bool,
    /// This is not the commonest meaning of the second phrase.
    rare: bool,
}

impl Lexicon {
    /// What `phrase` means relative to `other`. Phrases the word net does not list are a kind of what their last words
    /// name; meanings a camera cannot see are left out.
    #[cfg(test)]
    pub(super) fn relation(&self, phrase: &str, other: &str) -> Relation {
        match (self.read(phrase), self.read(other)) {
            (Some(phrase), Some(other)) => self.link(&phrase, &other).map_or(Relation::None, |link| link.relation),
            _ => Relation::None,
        }
    }

    /// The targets a tag may stand for, best first: those that mean the same, all that the tag is a kind of, and those
    /// at most two steps below it.
    ///
    /// A target that the word net does not list as a whole ("traffic cone") only says that it is a kind of its noun
    /// ("cone"), so tags near below that noun ("street cone") come last, as siblings. Other siblings are none: "cup" is no
    /// "box" although both are containers.
    #[must_use]
    pub fn to_targets(&self, tag: &str, targets: &[&str]) -> Vec<Match> {
        let Some(tag) = self.read(tag) else { return Vec::new() };
        let mut matches = Vec::new();
        for (target, text) in targets.iter().enumerate() {
            let Some(link) = self.read(text).and_then(|text| self.link(&tag, &text)) else { continue };
            let found = Match { target, relation: link.relation, cost: link.cost };
            match link.relation {
                Relation::Same | Relation::Narrower { .. } => matches.push(found),
                // A guess, so only with what the target commonly means: a "shrub" is hardly a box tree.
                Relation::Broader { distance } if distance <= MAX_BROADER && !link.rare => matches.push(found),
                Relation::Sibling { distance } if link.meets_at_head && distance <= MAX_SIBLING => matches.push(found),
                Relation::Broader { .. } | Relation::Sibling { .. } | Relation::None => {}
            }
        }
        matches.sort_by_key(|found| (found.cost, found.target));
        matches
    }

    /// The closest relation between any meanings of two phrases.
    fn link(&self, phrase: &Reading, other: &Reading) -> Option<Link> {
        if same_text(phrase, other) {
            return Some(Link { relation: Relation::Same, cost: 0, meets_at_head: false, rare: false });
        }
        let pairs = phrase.meanings.iter().flat_map(|a| other.meanings.iter().map(move |b| (a, b)));
        // Two rare meanings are too far-fetched: "pot" and "can" both name a toilet, too.
        let links = pairs.filter(|(a, b)| a.penalty.min(b.penalty) == 0).filter_map(|(a, b)| {
            let link = self.link_meanings((a, phrase.extra()), (b, other.extra()))?;
            // A "salad bowl" is listed as a plate, too; its name decides.
            let named = match link.relation {
                Relation::Narrower { .. } => self.store.is_compound_of(phrase.lemma, other.lemma),
                Relation::Broader { .. } => self.store.is_compound_of(other.lemma, phrase.lemma),
                Relation::Same | Relation::Sibling { .. } | Relation::None => false,
            };
            Some(Link { cost: if named { 1 } else { link.cost + a.penalty + b.penalty }, ..link })
        });
        links.min_by_key(|link| link.cost)
    }

    /// The relation of two meanings, each with the steps from its phrase down to the phrase as it was said.
    fn link_meanings(&self, (a, extra_a): (&Meaning, u32), (b, extra_b): (&Meaning, u32)) -> Option<Link> {
        let link = |relation: Relation, extra| {
            let cost = relation.distance().unwrap_or(0) * 2 + extra;
            Some(Link { relation, cost, meets_at_head: false, rare: b.penalty > 0 })
        };
        if extra_b == 0
            && let Some(steps) = a.steps_to(b.synset)
        {
            let distance = steps + extra_a;
            return link(if distance == 0 { Relation::Same } else { Relation::Narrower { distance } }, 0);
        }
        if extra_a == 0
            && !self.traits.is_general(a.synset)
            && let Some(steps) = b.steps_to(a.synset)
        {
            return link(Relation::Broader { distance: steps + extra_b }, 1);
        }
        let (meeting, steps) = self.meeting(a, b)?;
        let found = link(Relation::Sibling { distance: steps + extra_a + extra_b }, SIBLING_COST)?;
        Some(Link { meets_at_head: extra_b > 0 && meeting == b.synset, ..found })
    }

    /// The synset above both meanings with the fewest steps between them, unless it is over-general.
    pub(super) fn meeting(&self, a: &Meaning, b: &Meaning) -> Option<(Synset, u32)> {
        let (mut left, mut right) = (a.above.iter().peekable(), b.above.iter().peekable());
        let mut best: Option<(Synset, u32)> = None;
        while let (Some(&&(x, up)), Some(&&(y, down))) = (left.peek(), right.peek()) {
            match x.cmp(&y) {
                Ordering::Less => {
                    left.next();
                }
                Ordering::Greater => {
                    right.next();
                }
                Ordering::Equal => {
                    let steps = up + down;
                    if !self.traits.is_general(x) && best.is_none_or(|(_, least)| steps < least) {
                        best = Some((x, steps));
                    }
                    left.next();
                    right.next();
                }
            }
        }
        best
    }
}

fn same_text(a: &Reading, b: &Reading) -> bool {
    a.text == b.text
}
