//! Confusion matrices against scikit-learn's (`tests/golden/score/make.py`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};

use scenelex::replay::{LabelImage, SemanticScorer, score::ScoreError};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    true_names: BTreeMap<u16, String>,
    predicted_names: BTreeMap<u16, String>,
    ignore: u16,
    frames: Vec<Frame>,
    classes: Vec<String>,
    confusion_matrix: Vec<Vec<u64>>,
    iou: BTreeMap<String, f64>,
    mean_iou: f64,
}

#[derive(Deserialize)]
struct Frame {
    vocabulary: BTreeSet<String>,
    truth: Vec<u16>,
    predicted: Vec<u16>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/score/score.json")).unwrap()
}

fn add(scorer: &mut SemanticScorer, golden: &Golden, frame: &Frame) {
    let truth = LabelImage { values: &frame.truth, names: &golden.true_names };
    let predicted = LabelImage { values: &frame.predicted, names: &golden.predicted_names };
    scorer.add_frame(truth, predicted, &frame.vocabulary, golden.ignore).unwrap();
}

#[test]
fn counts_and_iou_equal_scikit_learn() {
    let golden = golden();
    let mut scorer = SemanticScorer::default();
    for frame in &golden.frames {
        add(&mut scorer, &golden, frame);
    }
    assert_eq!(scorer.frames(), golden.frames.len() as u64);
    for (truth, row) in golden.classes.iter().zip(&golden.confusion_matrix) {
        for (predicted, &count) in golden.classes.iter().zip(row) {
            assert_eq!(scorer.matrix().count(truth, predicted), count, "truth `{truth}`, predicted `{predicted}`");
        }
    }
    let report = scorer.matrix().report();
    let names: Vec<_> = report.classes.iter().map(|class| &class.name).collect();
    assert_eq!(names, golden.iou.keys().collect::<Vec<_>>());
    for class in &report.classes {
        assert!((class.iou - golden.iou[&class.name]).abs() < 1e-12, "{class:?}");
    }
    assert!((report.mean.unwrap() - golden.mean_iou).abs() < 1e-12);
}

#[test]
fn shards_add_up_in_any_order() {
    let golden = golden();
    let shards: Vec<SemanticScorer> = golden
        .frames
        .iter()
        .map(|frame| {
            let mut shard = SemanticScorer::default();
            add(&mut shard, &golden, frame);
            shard
        })
        .collect();
    let mut merged = scenelex::replay::ConfusionMatrix::default();
    for shard in shards.iter().rev() {
        merged.merge(shard.matrix());
    }
    let report = merged.report();
    assert!((report.mean.unwrap() - golden.mean_iou).abs() < 1e-12);
    let total: u64 = golden.confusion_matrix.iter().flatten().sum();
    let classes = &golden.classes;
    let merged_total: u64 = classes.iter().flat_map(|t| classes.iter().map(|p| merged.count(t, p))).sum();
    assert_eq!(merged_total, total);
}

#[test]
fn images_of_different_size_are_refused() {
    let names = BTreeMap::new();
    let (small, large) = (vec![0; 3], vec![0; 4]);
    let result = SemanticScorer::default().add_frame(
        LabelImage { values: &small, names: &names },
        LabelImage { values: &large, names: &names },
        &BTreeSet::new(),
        255,
    );
    assert_eq!(result, Err(ScoreError::Size { expected: 4, found: 3 }));
}

#[test]
fn nothing_seen_has_no_mean() {
    assert_eq!(scenelex::replay::ConfusionMatrix::default().report().mean, None);
}
