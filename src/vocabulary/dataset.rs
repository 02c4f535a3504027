//! A vocabulary for a whole recording (LLM2Labels): rankings of single images added up, and how good a ranking is.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde::Serialize;

use super::proposals::{Candidate, Ranking};

/// Labels remembered at most; when there are more, the weaker half is forgotten. Memory then depends on how much there is
/// to see, not on how long the recording is.
const REMEMBERED: usize = 20_000;

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    images: usize,
    probability: f32,
    score: f32,
}

/// Adds up the candidates of many images.
#[derive(Clone, Debug, Default)]
pub struct DatasetRanking {
    tallies: HashMap<Arc<str>, Tally>,
    images: usize,
}

impl DatasetRanking {
    /// Images added.
    #[must_use]
    pub fn images(&self) -> usize {
        self.images
    }

    /// Adds one image's candidates.
    pub fn add(&mut self, ranking: &Ranking) {
        self.images += 1;
        for candidate in &ranking.candidates {
            let tally = self.tallies.entry(Arc::clone(&candidate.label)).or_default();
            tally.images += 1;
            tally.probability += candidate.probability;
            tally.score += candidate.score;
        }
        if self.tallies.len() > REMEMBERED {
            let mut scores: Vec<f32> = self.tallies.values().map(|tally| tally.score).collect();
            scores.sort_by(f32::total_cmp);
            let median = scores.get(scores.len() / 2).copied().unwrap_or(0.0);
            self.tallies.retain(|_, tally| tally.score > median);
        }
    }

    /// Candidates of the whole recording, best first: occurrences are images, the score is the mean over all images.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        let all = self.images.max(1) as f32;
        let mut candidates: Vec<Candidate> = self
            .tallies
            .iter()
            .map(|(label, tally)| Candidate {
                label: Arc::clone(label),
                occurrences: tally.images,
                probability: tally.probability / tally.images.max(1) as f32,
                score: tally.score / all,
            })
            .collect();
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.label.cmp(&b.label)));
        candidates
    }
}

/// Quality of a ranking up to rank K.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AtK {
    /// Ranks looked at.
    pub k: usize,
    /// Share of the first K labels that are true.
    pub precision: f64,
    /// Share of the true classes among the first K labels.
    pub recall: f64,
}

/// P@K and R@K for K = 1 to the length of `ranked`, given the true classes with all their names. A class counts once,
/// whichever of its names is found first; its other names are then neither right nor wrong, but take their ranks.
#[must_use]
pub fn precision_recall(ranked: &[Arc<str>], truth: &[Vec<Arc<str>>]) -> Vec<AtK> {
    let owner: HashMap<&str, usize> =
        truth.iter().enumerate().flat_map(|(class, names)| names.iter().map(move |name| (&**name, class))).collect();
    let mut found: HashSet<usize> = HashSet::new();
    let mut curve = Vec::with_capacity(ranked.len());
    for (index, label) in ranked.iter().enumerate() {
        found.extend(owner.get(&**label).copied());
        let (k, right) = (index + 1, found.len() as f64);
        curve.push(AtK { k, precision: right / k as f64, recall: right / truth.len().max(1) as f64 });
    }
    curve
}

/// AUC(PR@K): the area under precision over recall for all K, by trapezoids, from recall 0 at the first precision.
#[must_use]
pub fn area(curve: &[AtK]) -> f64 {
    let Some(first) = curve.first() else { return 0.0 };
    let mut before = AtK { k: 0, precision: first.precision, recall: 0.0 };
    let mut area = 0.0;
    for &at in curve {
        area += (at.recall - before.recall) * (at.precision + before.precision) / 2.0;
        before = at;
    }
    area
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::{
        VocabularyLimits,
        proposals::{Aggregation, Proposal},
    };

    fn ranking(labels: &[(&str, f32)]) -> Ranking {
        let sample = labels.iter().map(|&(label, probability)| Proposal { label: label.to_owned(), probability });
        Ranking::of(&[sample.collect()], Aggregation::Average, &VocabularyLimits::default())
    }

    #[test]
    fn what_is_seen_often_ranks_before_what_is_seen_surely_once() {
        let mut all = DatasetRanking::default();
        all.add(&ranking(&[("mug", 0.5), ("ghost", 0.9)]));
        all.add(&ranking(&[("mug", 0.5)]));
        all.add(&ranking(&[("mug", 0.5)]));
        let candidates = all.candidates();
        assert_eq!((&*candidates[0].label, candidates[0].occurrences), ("mug", 3));
        assert!((candidates[0].score - 0.5).abs() < 1e-6 && (candidates[1].score - 0.3).abs() < 1e-6);
    }

    #[test]
    fn memory_is_bounded_and_the_best_stay() {
        let mut all = DatasetRanking::default();
        for image in 0..50 {
            let fleeting: Vec<(String, f32)> = (0..1000).map(|i| (format!("thing {image} {i}"), 0.1)).collect();
            let mut labels: Vec<(&str, f32)> = fleeting.iter().map(|(label, p)| (label.as_str(), *p)).collect();
            labels.push(("mug", 0.9));
            all.add(&ranking(&labels));
            assert!(all.tallies.len() <= REMEMBERED + 1001);
        }
        assert_eq!(&*all.candidates()[0].label, "mug");
        assert_eq!(all.candidates()[0].occurrences, 50);
    }

    #[test]
    fn a_class_counts_once_whatever_it_is_called() {
        let ranked: Vec<Arc<str>> = ["mug", "cup", "ghost", "ball"].map(Arc::from).to_vec();
        let truth = vec![vec![Arc::from("mug"), Arc::from("cup")], vec![Arc::from("ball")]];
        let curve = precision_recall(&ranked, &truth);
        let found: Vec<(f64, f64)> = curve.iter().map(|at| (at.precision, at.recall)).collect();
        assert_eq!(found, [(1.0, 0.5), (0.5, 0.5), (1.0 / 3.0, 0.5), (0.5, 1.0)]);
        assert!((area(&curve) - (0.5 + 0.5 * (1.0 / 3.0 + 0.5) / 2.0)).abs() < 1e-12);
        assert_eq!(area(&[]), 0.0);
    }
}
