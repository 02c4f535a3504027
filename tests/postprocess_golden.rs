//! Post-processing against Hugging Face's, on the outputs recorded by `tests/golden/make_postprocess_golden.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]

mod support;

use proptest::prelude::*;
use scenelex::{
    inference::{Caption, EncodedText, RawDetections},
    pipeline::postprocess::{self, Candidate},
    types::{CenterBox, ImageSize, PixelBox},
};
use serde::Deserialize;
use support::{golden, tiny_encoder};

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    caption: String,
    input_ids: Vec<i64>,
    height: u32,
    width: u32,
    logits: Vec<Vec<f32>>,
    boxes: Vec<[f32; 4]>,
    results: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    box_threshold: f32,
    text_threshold: f32,
    scores: Vec<f32>,
    boxes: Vec<[f32; 4]>,
    labels: Vec<String>,
}

fn cases() -> Vec<(Case, EncodedText, RawDetections)> {
    let text = std::fs::read_to_string(golden("postprocess.json")).unwrap();
    let golden: Golden = serde_json::from_str(&text).unwrap();
    let mut encoder = tiny_encoder();
    let mut cases = Vec::new();
    for case in golden.cases {
        // Phrases end at full stops and question marks.
        let mut phrases = Vec::new();
        let mut start = 0;
        for (at, _) in case.caption.match_indices(['.', '?']) {
            let begin = start + case.caption[start..at].len() - case.caption[start..at].trim_start().len();
            phrases.push((phrases.len(), begin..at));
            start = at + 1;
        }
        let encoded = encoder.encode(&Caption { text: case.caption.clone(), phrases }).unwrap();
        let raw = RawDetections {
            queries: case.logits.len(),
            columns: encoded.len(),
            logits: case.logits.concat(),
            boxes: case.boxes.iter().map(|&[cx, cy, w, h]| CenterBox { cx, cy, w, h }).collect(),
        };
        cases.push((case, encoded, raw));
    }
    cases
}

#[test]
fn token_labels_equal_hugging_face() {
    let mut compared = 0;
    for (case, text, raw) in cases() {
        assert_eq!(text.input_ids, case.input_ids);
        for expected in &case.results {
            let mut found = Vec::new();
            let size = ImageSize::new(case.width, case.height);
            let thresholds = (expected.box_threshold, expected.text_threshold);
            postprocess::token_labels(&raw, &text, 0, thresholds, size, &mut found);
            assert_eq!(found.len(), expected.scores.len(), "{}", case.caption);
            for (index, candidate) in found.iter().enumerate() {
                assert!((candidate.score - expected.scores[index]).abs() < 1e-6);
                let [x0, y0, x1, y1] = expected.boxes[index];
                let PixelBox { x0: a, y0: b, x1: c, y1: d } = candidate.bbox;
                for (found, expected) in [(a, x0), (b, y0), (c, x1), (d, y1)] {
                    assert!((found - expected).abs() < 1e-3, "{:?} {:?}", candidate.bbox, expected);
                }
                assert_eq!(candidate.token_label.as_deref(), Some(expected.labels[index].as_str()));
                compared += 1;
            }
        }
    }
    assert!(compared > 100, "{compared} detections compared");
}

/// The phrase a label belongs to, decided another way than by token positions: from the caption's words.
#[test]
fn a_label_belongs_to_a_phrase_only_if_all_its_tokens_do() {
    let mut tied = 0;
    for (case, text, raw) in cases() {
        let mut found: Vec<Candidate> = Vec::new();
        postprocess::token_labels(&raw, &text, 0, (0.5, 0.75), ImageSize::new(10, 10), &mut found);
        for candidate in found {
            let row = &case.logits[candidate.query];
            // 0.75 = sigmoid(ln 3).
            let mut owners: Vec<usize> = Vec::new();
            for (position, &logit) in row.iter().enumerate().skip(1) {
                if logit > 3.0_f32.ln() && !matches!(case.input_ids[position], 101 | 102 | 1012 | 1029) {
                    let ends = case.input_ids[..position].iter().filter(|id| matches!(id, 1012 | 1029)).count();
                    owners.push(ends);
                }
            }
            owners.dedup();
            let expected = if owners.len() == 1 { Some(owners[0]) } else { None };
            assert_eq!(candidate.phrase, expected, "{:?}", candidate.token_label);
            tied += usize::from(expected.is_some());
        }
    }
    assert!(tied >= 10, "{tied} labels were tied to a phrase");
}

#[test]
fn chair_is_never_read_out_of_armchair() {
    let mut encoder = tiny_encoder();
    let caption = encoder.captions(&["armchair", "chair"]).unwrap().remove(0);
    // [CLS] arm ##chair . chair . [SEP]
    let text = encoder.encode(&caption).unwrap();
    let raw = |logits: [f32; 7]| RawDetections {
        queries: 1,
        columns: 7,
        logits: logits.to_vec(),
        boxes: vec![CenterBox { cx: 0.5, cy: 0.5, w: 0.5, h: 0.5 }],
    };
    let size = ImageSize::new(100, 100);
    for (logits, phrase) in [
        ([-9., -9., 3., -9., -9., -9., -9.], Some(0)), // "##chair" alone
        ([-9., 3., 3., 3., -9., -9., 3.], Some(0)),
        ([-9., -9., -9., -9., 3., 3., -9.], Some(1)),
        ([-9., -9., 3., -9., 3., -9., -9.], None),
        ([3., -9., -9., 3., -9., -9., 3.], None), // nothing but special tokens
    ] {
        let mut found = Vec::new();
        postprocess::token_labels(&raw(logits), &text, 0, (0.5, 0.5), size, &mut found);
        assert_eq!(found[0].phrase, phrase, "{:?}", found[0].token_label);
    }
    let mut found = Vec::new();
    postprocess::phrase_spans(&raw([9., 1., 2., 9., 0.5, 9., 9.]), &text, 0, 0.5, size, &mut found);
    assert_eq!(found[0].phrase, Some(0));
    assert!((found[0].score - 0.880_797).abs() < 1e-5, "sigmoid(2), special tokens do not count");
}

#[test]
fn suppression_is_per_class_and_keeps_the_best() {
    let candidate = |phrase: usize, score: f32, x0: f32| Candidate {
        caption: 0,
        query: 0,
        phrase: Some(phrase),
        entry: None,
        token_label: None,
        score,
        bbox: PixelBox { x0, y0: 0.0, x1: x0 + 10.0, y1: 10.0 },
    };
    let mut candidates = vec![
        candidate(0, 0.5, 1.0),
        candidate(0, 0.9, 0.0),
        candidate(1, 0.8, 0.0),
        candidate(0, 0.7, 20.0),
        candidate(0, 0.6, 8.0),
    ];
    // IoU of boxes shifted by 1 is 9/11, by 8 is 2/18.
    postprocess::suppress(&mut candidates, 0.5, |c| c.phrase);
    let kept: Vec<(usize, f32)> = candidates.iter().map(|c| (c.phrase.unwrap(), c.score)).collect();
    assert_eq!(kept, [(0, 0.9), (1, 0.8), (0, 0.7), (0, 0.6)]);
}

#[test]
fn points_are_the_most_probable_centres_in_the_box() {
    let mut encoder = tiny_encoder();
    let caption = encoder.captions(&["red mug", "ball"]).unwrap().remove(0);
    // [CLS] red mug . ball . [SEP]
    let text = encoder.encode(&caption).unwrap();
    let mut raw = RawDetections { queries: 0, columns: 7, ..RawDetections::default() };
    // Centre x in percent, logits of "red", "mug" and "ball".
    for (x, red, mug, ball) in
        [(10, 5.0, 0.0, 9.0), (20, 1.0, 4.0, 9.0), (30, 0.0, 3.0, 0.0), (60, 9.0, 9.0, 0.0), (40, -5.0, -1.0, 9.0)]
    {
        raw.queries += 1;
        raw.logits.extend([9.0, red, mug, 9.0, ball, 9.0, 9.0]);
        raw.boxes.push(CenterBox { cx: x as f32 / 100.0, cy: 0.5, w: 0.1, h: 0.1 });
    }
    let candidate = Candidate {
        caption: 0,
        query: 0,
        phrase: Some(0),
        entry: None,
        token_label: None,
        score: 0.9,
        bbox: PixelBox { x0: 0.0, y0: 0.0, x1: 100.0, y1: 100.0 },
    };
    let (mut scratch, mut points) = (Vec::new(), Vec::new());
    let size = ImageSize::new(200, 100);
    postprocess::prompt_points(&raw, &text, &candidate, 3, size, &mut scratch, &mut points);
    let found: Vec<f32> = points.iter().map(|p| p.x.round()).collect();
    assert_eq!(found, [20.0, 40.0, 60.0], "the query at 120 px lies outside; logits 5, 4, 3");
    assert!(points.iter().all(|p| (p.y - 50.0).abs() < 1e-6));
}

proptest! {
    #[test]
    fn suppression_keeps_an_independent_and_covering_set(
        given in prop::collection::vec((0..3_usize, 0.0..1.0_f32, 0.0..50.0_f32, 0.0..50.0_f32, 1.0..40.0_f32, 1.0..40.0_f32), 0..40),
        iou in 0.0..1.0_f32,
    ) {
        let candidates: Vec<Candidate> = given
            .iter()
            .enumerate()
            .map(|(query, &(phrase, score, x0, y0, w, h))| Candidate {
                caption: 0,
                query,
                phrase: Some(phrase),
                entry: None,
        token_label: None,
                score,
                bbox: PixelBox { x0, y0, x1: x0 + w, y1: y0 + h },
            })
            .collect();
        let mut kept = candidates.clone();
        postprocess::suppress(&mut kept, iou, |c| c.phrase);
        prop_assert!(kept.is_sorted_by(|a, b| a.score >= b.score));
        for (index, one) in kept.iter().enumerate() {
            for other in &kept[index + 1..] {
                prop_assert!(one.phrase != other.phrase || one.bbox.iou(&other.bbox) <= iou);
            }
        }
        for candidate in &candidates {
            let stays = kept.iter().any(|k| k.query == candidate.query);
            let covered = kept.iter().any(|k| {
                k.query != candidate.query
                    && k.phrase == candidate.phrase
                    && k.score >= candidate.score
                    && k.bbox.iou(&candidate.bbox) > iou
            });
            prop_assert!(stays || covered);
        }
    }
}
