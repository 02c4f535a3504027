//! From samples of proposed labels to ranked candidates (LLM2Labels, sections 3.3 and 3.3.1).
//!
//! Every look at an image (a tagger's run, a sampled caption, a probe of the detector, on the whole image or on a cell of
//! a grid) is one *sample*. A label that several samples propose counts for more than one that is proposed once, and a
//! label that the model itself found improbable counts for less: its score is occurrences × probability.

use std::{collections::HashMap, sync::Arc};

use super::parse::{VocabularyLimits, normalise_label};

/// Most labels of one sample that are read; what comes after is dropped and counted.
const MAX_PER_SAMPLE: usize = 1024;

/// A label proposed by one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// As the model put it; normalised later.
    pub label: String,
    /// Probability in [0, 1], as far as the model tells; 1 where it does not.
    pub probability: f32,
}

/// How the probabilities of several occurrences of a label become one (paper, eq. 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregation {
    /// Their mean.
    #[default]
    Average,
    /// Their product.
    Product,
    /// The smallest.
    Minimum,
    /// The greatest.
    Maximum,
}

impl Aggregation {
    fn of(self, probabilities: &[f32]) -> f32 {
        match self {
            Self::Average => probabilities.iter().sum::<f32>() / probabilities.len().max(1) as f32,
            Self::Product => probabilities.iter().product(),
            Self::Minimum => probabilities.iter().copied().fold(1.0, f32::min),
            Self::Maximum => probabilities.iter().copied().fold(0.0, f32::max),
        }
    }
}

/// Which candidates are kept. Both bounds may be set; a candidate has to pass both.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Filter {
    /// Share of the lowest-ranked labels that is discarded, in [0, 1); the paper's main results use 0.68.
    pub percentile: f32,
    /// Labels whose aggregated probability is below it are discarded, however many samples proposed them. In [0, 1]; the
    /// paper has 0.68.
    pub threshold: f32,
}

/// A label with everything its occurrences say.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Normalised.
    pub label: Arc<str>,
    /// Samples that proposed it.
    pub occurrences: usize,
    /// Aggregated probability in [0, 1].
    pub probability: f32,
    /// Share of the samples that proposed it × probability, in [0, 1].
    pub score: f32,
}

/// Candidates by falling score, and how many proposals were not labels at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranking {
    /// By falling score, then by label, so that equal input gives equal output.
    pub candidates: Vec<Candidate>,
    /// Proposals that were refused: too long, empty, with characters no label has, or beyond what one sample may hold.
    pub refused: usize,
}

impl Ranking {
    /// Ranks the labels of `samples`. A label counts once per sample, with its best probability there.
    #[must_use]
    pub fn of(samples: &[Vec<Proposal>], aggregation: Aggregation, limits: &VocabularyLimits) -> Self {
        let mut refused = 0;
        let mut found: HashMap<Arc<str>, Vec<f32>> = HashMap::new();
        for sample in samples {
            let mut here: HashMap<Arc<str>, f32> = HashMap::new();
            refused += sample.len().saturating_sub(MAX_PER_SAMPLE);
            for proposal in sample.iter().take(MAX_PER_SAMPLE) {
                match normalise_label(&proposal.label, limits) {
                    Ok(label) if proposal.probability.is_finite() => {
                        let probability = proposal.probability.clamp(0.0, 1.0);
                        let best = here.entry(label).or_insert(probability);
                        *best = best.max(probability);
                    }
                    _ => refused += 1,
                }
            }
            for (label, probability) in here {
                found.entry(label).or_default().push(probability);
            }
        }
        let all = samples.len().max(1) as f32;
        let mut candidates: Vec<Candidate> = found
            .into_iter()
            .map(|(label, mut probabilities)| {
                // Sums of floats depend on their order, and a map's order is different in every run.
                probabilities.sort_by(f32::total_cmp);
                let (occurrences, probability) = (probabilities.len(), aggregation.of(&probabilities));
                Candidate { label, occurrences, probability, score: occurrences as f32 / all * probability }
            })
            .collect();
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.label.cmp(&b.label)));
        Self { candidates, refused }
    }

    /// Discards what `filter` does not let pass.
    pub fn filter(&mut self, filter: Filter) {
        let all = self.candidates.len();
        let discarded = (all as f32 * filter.percentile.clamp(0.0, 1.0)).floor() as usize;
        self.candidates.truncate(all.saturating_sub(discarded));
        self.candidates.retain(|candidate| candidate.probability >= filter.threshold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(labels: &[(&str, f32)]) -> Vec<Proposal> {
        labels.iter().map(|&(label, probability)| Proposal { label: label.to_owned(), probability }).collect()
    }

    fn ranked(samples: &[Vec<Proposal>], aggregation: Aggregation) -> Vec<(String, usize, f32)> {
        let ranking = Ranking::of(samples, aggregation, &VocabularyLimits::default());
        ranking.candidates.iter().map(|c| (c.label.to_string(), c.occurrences, c.score)).collect()
    }

    #[test]
    fn a_score_is_occurrences_times_probability() {
        let samples = [sample(&[("Mug", 0.8), ("mug ", 0.5), ("ball", 1.0)]), sample(&[("mug", 0.4)])];
        let close = |aggregation, mug: f32| {
            let ranked = ranked(&samples, aggregation);
            let (_, occurrences, score) = ranked.iter().find(|r| r.0 == "mug").unwrap();
            assert_eq!(*occurrences, 2);
            assert!((score - mug).abs() < 1e-6, "{aggregation:?}: {score} instead of {mug}");
            let (_, occurrences, score) = ranked.iter().find(|r| r.0 == "ball").unwrap();
            assert!(*occurrences == 1 && (score - 0.5).abs() < 1e-6);
        };
        close(Aggregation::Average, 0.6);
        close(Aggregation::Product, 0.32);
        close(Aggregation::Minimum, 0.4);
        close(Aggregation::Maximum, 0.8);
    }

    #[test]
    fn filters_cut_by_rank_and_by_probability() {
        let labels: Vec<(String, f32)> = (0..100).map(|i| (format!("thing {i}"), i as f32 / 100.0)).collect();
        let sample: Vec<Proposal> =
            labels.iter().map(|(label, p)| Proposal { label: label.clone(), probability: *p }).collect();
        let ranking = Ranking::of(&[sample], Aggregation::Average, &VocabularyLimits::default());
        let kept = |percentile, threshold| {
            let mut ranking = ranking.clone();
            ranking.filter(Filter { percentile, threshold });
            ranking.candidates.len()
        };
        assert_eq!(kept(0.0, 0.0), 100);
        assert_eq!(kept(0.68, 0.0), 32);
        assert_eq!(kept(0.0, 0.9), 10);
        assert_eq!(kept(0.95, 0.9), 5);
    }

    #[test]
    fn the_threshold_is_about_probability_and_the_percentile_about_the_score() {
        // The mug is in half of the eight samples (score 0.45), the ghost in all of them (score 0.6).
        let samples: Vec<Vec<Proposal>> = (0..8)
            .map(|i| if i % 2 == 0 { sample(&[("mug", 0.9), ("ghost", 0.6)]) } else { sample(&[("ghost", 0.6)]) })
            .collect();
        let kept = |percentile, threshold| {
            let mut ranking = Ranking::of(&samples, Aggregation::Average, &VocabularyLimits::default());
            ranking.filter(Filter { percentile, threshold });
            ranking.candidates.iter().map(|c| c.label.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(kept(0.0, 0.68), ["mug"]);
        assert_eq!(kept(0.5, 0.0), ["ghost"]);
        assert!(kept(0.5, 0.68).is_empty());
    }

    #[test]
    fn what_is_no_label_is_refused_and_counted() {
        let long = "x".repeat(1000);
        let bad = [("", 1.0), ("what? a mug", 1.0), (long.as_str(), 1.0), ("mug", f32::NAN), ("mug", 7.0)];
        let ranking = Ranking::of(&[sample(&bad)], Aggregation::Average, &VocabularyLimits::default());
        assert_eq!(ranking.refused, 4);
        assert_eq!(ranking.candidates.len(), 1);
        assert_eq!(ranking.candidates[0].score, 1.0);
        let many = vec![Proposal { label: "mug".to_owned(), probability: 1.0 }; MAX_PER_SAMPLE + 5];
        assert_eq!(Ranking::of(&[many], Aggregation::Average, &VocabularyLimits::default()).refused, 5);
    }

    proptest! {
        #[test]
        fn scores_are_shares_and_order_is_the_same_each_time(
            samples in prop::collection::vec(prop::collection::vec(("[a-d ]{0,2}", -0.5f32..1.5), 0..8), 0..5),
        ) {
            let samples: Vec<Vec<Proposal>> = samples
                .into_iter()
                .map(|s| s.into_iter().map(|(label, probability)| Proposal { label, probability }).collect())
                .collect();
            let first = Ranking::of(&samples, Aggregation::Average, &VocabularyLimits::default());
            prop_assert!(first.candidates.iter().all(|c| (0.0..=1.0).contains(&c.score)));
            prop_assert!(first.candidates.is_sorted_by(|a, b| a.score >= b.score));
            prop_assert_eq!(&first, &Ranking::of(&samples, Aggregation::Average, &VocabularyLimits::default()));
        }
    }
}
