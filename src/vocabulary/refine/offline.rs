//! Pre-refinement without a network: WordNet in the language model's place.

use super::reply::repair_parents;
use crate::vocabulary::{ClassSpec, lexicon::Lexicon, proposals::Candidate};

/// With targets: each proposal becomes the target it means. Scores are the best of those.
#[must_use]
pub fn select(lexicon: &Lexicon, candidates: &[Candidate], targets: &[String]) -> Vec<ClassSpec> {
    let names: Vec<&str> = targets.iter().map(String::as_str).collect();
    let mut scores: Vec<Option<f32>> = vec![None; targets.len()];
    for candidate in candidates {
        let exact = names.iter().position(|name| *name == &*candidate.label);
        let target = exact.or_else(|| lexicon.to_targets(&candidate.label, &names).first().map(|found| found.target));
        if let Some(score) = target.and_then(|target| scores.get_mut(target)) {
            *score = Some(score.unwrap_or(0.0).max(candidate.score));
        }
    }
    let found = targets.iter().zip(scores);
    found.filter_map(|(label, score)| Some(ClassSpec { score: score?, ..ClassSpec::new(label) })).collect()
}

/// Without targets: an open list with synonyms and parents, only of what was proposed.
#[must_use]
pub fn group(lexicon: &Lexicon, candidates: &[Candidate]) -> Vec<ClassSpec> {
    let labels: Vec<&str> = candidates.iter().map(|candidate| &*candidate.label).collect();
    let groups = lexicon.group(&labels);
    let name = |group: usize| {
        let first = groups.get(group).and_then(|group| group.members.first());
        first.and_then(|&member| labels.get(member)).map(|label| (*label).to_owned())
    };
    let mut classes: Vec<ClassSpec> = Vec::new();
    for group in &groups {
        let members = || group.members.iter().filter_map(|&member| candidates.get(member));
        let mut names = members().map(|candidate| candidate.label.to_string());
        let Some(label) = names.next() else { continue };
        let parent = group.parent.and_then(name).unwrap_or_default();
        let score = members().map(|candidate| candidate.score).fold(0.0, f32::max);
        classes.push(ClassSpec { score, synonyms: names.collect(), parent, ..ClassSpec::new(label) });
    }
    repair_parents(&mut classes);
    classes
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::vocabulary::lexicon::DEBIAN_DIR;

    fn candidates(labels: &[(&str, f32)]) -> Vec<Candidate> {
        let candidate = |&(label, score): &(&str, f32)| Candidate {
            label: Arc::from(label),
            occurrences: 1,
            probability: score,
            score,
        };
        labels.iter().map(candidate).collect()
    }

    #[test]
    fn words_for_a_target_become_it_and_groups_hold_what_was_proposed() {
        let Ok(lexicon) = Lexicon::open(Path::new(DEBIAN_DIR)) else {
            return eprintln!("skipped: {DEBIAN_DIR} is absent (apt-get install wordnet-base)");
        };
        let seen = candidates(&[("couch", 0.9), ("sofa", 0.4), ("mugs", 0.5), ("giraffe", 0.8)]);
        let targets = ["sofa".to_owned(), "mug".into(), "chair".into()];
        let selected: Vec<(String, f32)> =
            select(&lexicon, &seen, &targets).into_iter().map(|class| (class.label, class.score)).collect();
        assert_eq!(selected, [("sofa".to_owned(), 0.9), ("mug".into(), 0.5)]);

        let seen = candidates(&[("couch", 0.9), ("furniture", 0.6), ("sofa", 0.4), ("giraffe", 0.3)]);
        let groups = group(&lexicon, &seen);
        let couch = groups.iter().find(|class| class.label == "couch").unwrap();
        assert_eq!((couch.synonyms.as_slice(), couch.parent.as_str()), (&["sofa".to_owned()][..], "furniture"));
        let all: usize = groups.iter().map(|class| 1 + class.synonyms.len()).sum();
        assert_eq!(all, seen.len(), "nothing is lost and nothing is added");
    }
}
