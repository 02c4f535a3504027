//! Sentence similarity with the real language encoder that set-up assembles.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]

mod support;

use std::{path::Path, sync::Arc};

use scenelex::{
    inference::{Bundle, Caption, ModelOptions, TextEncoder},
    pipeline::{ClassEmbeddings, PreparedVocabulary},
};
use support::*;

/// Cosines by Hugging Face's `BertModel` on the weights of all-MiniLM-L6-v2, mean of the states between `[CLS]` and `[SEP]`.
const COSINES: [(&str, &str, f32); 7] = [
    ("mug", "coffee cup", 0.6002),
    ("sofa", "couch", 0.8088),
    ("monitor", "lcd screen", 0.5405),
    ("chair", "toilet", 0.2207),
    ("traffic cone", "camel", 0.0436),
    ("clock", "timepiece", 0.5927),
    ("lamp", "red desk lamp", 0.6695),
];

fn encoder() -> Option<TextEncoder> {
    let folder = Path::new("models/sim/detector");
    if !folder.join("text_encoder.onnx").is_file() {
        eprintln!("skipped: {} has no text_encoder.onnx (make setup assembles it)", folder.display());
        return None;
    }
    Some(TextEncoder::load(&Bundle::load(folder).unwrap(), &ModelOptions::default()).unwrap())
}

fn nearest(encoder: &mut TextEncoder, prepared: &PreparedVocabulary, phrase: &str) -> (String, f32) {
    let text = encoder.encode(&Caption::of(&[phrase])).unwrap();
    let (class, cosine) = ClassEmbeddings::of(prepared).nearest(&text).unwrap();
    (prepared.vocabulary.entries[class].label.to_string(), cosine)
}

#[test]
fn cosines_are_those_of_the_original_model() {
    let Some(mut encoder) = encoder() else { return };
    for (name, phrase, expected) in COSINES {
        let alone = prepare(&mut encoder, &specs(&[name]));
        let (_, cosine) = nearest(&mut encoder, &alone, phrase);
        assert!((cosine - expected).abs() < 5e-4, "{name}, {phrase}: {cosine} instead of {expected}");
    }
    // In a caption of many, a name has the same embedding as alone.
    let names: Vec<&str> = COSINES.iter().map(|(name, ..)| *name).collect();
    let together = prepare(&mut encoder, &specs(&names));
    for (name, phrase, expected) in COSINES.iter().filter(|(.., cosine)| *cosine > 0.5) {
        let (label, cosine) = nearest(&mut encoder, &together, phrase);
        assert_eq!(label, *name);
        assert!((cosine - expected).abs() < 5e-4, "{name}, {phrase}: {cosine} instead of {expected}");
    }
}

#[test]
fn without_features_nothing_is_near() {
    let Some(mut encoder) = encoder() else { return };
    let text = encoder.encode(&Caption::of(&["mug"])).unwrap();
    assert_eq!(ClassEmbeddings::of(&PreparedVocabulary::empty()).nearest(&text), None);
    let prepared: Arc<PreparedVocabulary> = prepare(&mut encoder, &specs(&["mug"]));
    let mut fused = text;
    (fused.features, fused.feature_size) = (Vec::new(), 0);
    assert_eq!(ClassEmbeddings::of(&prepared).nearest(&fused), None);
}
