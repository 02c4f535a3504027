//! Bundles and model files that are not what they claim to be: each is an error that says what was expected and found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]

mod support;

use std::fs;

use scenelex::inference::{
    Bundle, GroundingDino, InferenceError, Model, ModelOptions, SamImageEncoder, SamMaskDecoder, TextEncoder,
};
use support::{BundleCopy, golden, tiny_encoder};

#[test]
fn manifests_are_checked() {
    let copy = |test| BundleCopy::of("detector", test);
    let has = |copy: &BundleCopy, parts: &[&str]| {
        let error = copy.error();
        assert!(parts.iter().all(|p| error.contains(p)), "{error} does not say {parts:?}");
    };
    has(copy("unknown").edit("name =", "nmae = \"x\"\nname ="), &["bundle.toml", "nmae"]);
    has(copy("kind").edit("\"grounding_dino\"", "\"yolo\""), &["yolo", "grounding_dino"]);
    has(copy("resize").edit("\"exact\"", "\"stretch\""), &["letterbox", "stretch"]);
    has(copy("size").edit("width = 128", "shortest = 128"), &["shortest"]);
    has(copy("zero").edit("width = 128", "width = 0"), &["width", "1 to 8192"]);
    has(copy("std").edit("std = [0.25,", "std = [0.0,"), &["std"]);
    has(copy("threshold").edit("nms_iou = 0.5", "nms_iou = 1.5"), &["nms_iou", "1.5"]);
    has(copy("tokens").edit("max_tokens = 16", "max_tokens = 257"), &["max_tokens", "257"]);
    has(
        copy("outside").edit("path = \"detector.onnx\"", "path = \"../detector.onnx\""),
        &["detector", "in the bundle"],
    );
    has(copy("checksum").edit("sha256 = \"", "sha256 = \"0"), &["sha256", "the manifest says"]);
    let gone = copy("gone");
    fs::remove_file(gone.folder().join("detector.onnx")).unwrap();
    has(&gone, &["detector.onnx"]);
    assert!(matches!(Bundle::load(&golden("tiny/broken")), Err(InferenceError::Io { .. })));
}

#[test]
fn models_are_checked_against_their_contract() {
    let load = |copy: &BundleCopy| GroundingDino::load(&copy.load().unwrap(), &ModelOptions::default());
    let message = |result: Result<GroundingDino, InferenceError>| result.err().unwrap().to_string();

    let renamed = BundleCopy::of("detector", "renamed");
    let error = message(load(renamed.replace("detector.onnx", golden("tiny/broken/renamed_output.onnx"))));
    assert!(error.contains("output logits: expected to be there, found") && error.contains("class_logits"), "{error}");

    let open = BundleCopy::of("detector", "open");
    let error = message(load(open.replace("detector.onnx", golden("tiny/broken/open_width.onnx"))));
    assert!(error.contains("input pixel_values: expected f32[*,3,<fixed>,<fixed>], found"), "{error}");

    let other_size = BundleCopy::of("detector", "other_size");
    let error = message(load(other_size.edit("width = 128", "width = 256")));
    assert!(error.contains("expected 256x96") && error.contains("found 128x96"), "{error}");

    let swapped = BundleCopy::of("detector", "swapped");
    let error = message(load(swapped.replace("detector.onnx", golden("tiny/segmenter/image_encoder.onnx"))));
    assert!(error.contains("pixel_values"), "{error}");

    let broken = BundleCopy::of("detector", "broken");
    let error = message(load(broken.replace("detector.onnx", golden("tiny/detector/tokenizer.json"))));
    assert!(error.contains("detector.onnx"), "{error}");

    let segmenter = BundleCopy::of("segmenter", "segmenter");
    segmenter.replace("mask_decoder.onnx", golden("tiny/segmenter/image_encoder.onnx"));
    let bundle = segmenter.load().unwrap();
    let error = SamMaskDecoder::load(&bundle, &ModelOptions::default()).err().unwrap().to_string();
    assert!(error.contains("input image_embeddings: expected to be there"), "{error}");
    assert!(SamImageEncoder::load(&bundle, &ModelOptions::default()).is_ok());
}

#[test]
fn a_tokenizer_that_is_none_is_an_error() {
    let copy = BundleCopy::of("detector", "tokenizer");
    copy.replace("tokenizer.json", golden("tiny/detector/bundle.toml"));
    let error = TextEncoder::load(&copy.load().unwrap(), &ModelOptions::default()).err().unwrap();
    assert!(matches!(error, InferenceError::Tokenizer(_)), "{error}");
}

#[test]
fn a_provider_that_is_not_there_is_an_error() {
    // The library of the default set-up is the CPU build; with another one this test has nothing to say.
    let options = ModelOptions { provider: scenelex::inference::Provider::Cuda { device: 0 }, ..Default::default() };
    match Model::load(&golden("tiny/detector/detector.onnx"), &["logits"], &options) {
        Err(InferenceError::Provider { provider: "CUDA", .. }) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => eprintln!("skipped: this ONNX Runtime has CUDA"),
    }
}

#[test]
fn a_model_tells_where_its_nodes_run() {
    let model = Model::load(&golden("tiny/detector/detector.onnx"), &["logits"], &ModelOptions::default()).unwrap();
    let said = model.runs_on();
    let nodes = said.strip_prefix("CPUExecutionProvider (").and_then(|rest| rest.strip_suffix(" nodes)"));
    assert!(nodes.is_some_and(|nodes| nodes.parse::<usize>().unwrap() > 0), "{said}");
}

#[test]
fn captions_know_their_tokens() {
    let mut encoder = tiny_encoder();
    let captions = encoder.captions(&["a red mug", "armchair", "chair"]).unwrap();
    assert_eq!(captions.len(), 1);
    assert_eq!(captions[0].text, "a red mug. armchair. chair.");
    let text = encoder.encode(&captions[0]).unwrap();
    // [CLS] a red mug . arm ##chair . chair . [SEP]; the file's truncation to 6 tokens is switched off.
    assert_eq!(text.input_ids, [101, 1037, 2417, 14757, 1012, 2849, 25112, 1012, 3242, 1012, 102]);
    let spans: Vec<_> = text.spans.iter().map(|s| s.tokens.clone()).collect();
    assert_eq!(spans, [1..4, 5..7, 8..9]);
    assert_eq!((text.feature_size, text.features.len()), (3, 33));
    assert_eq!(&text.features[2 * 3..3 * 3], [1.0, 0.0, 0.0], "the feature of \"red\"");

    let long = "red mug ".repeat(8);
    let error = encoder.captions(&[long.trim()]).unwrap_err();
    assert!(matches!(error, InferenceError::PhraseTooLong { tokens: 19, limit: 16, .. }), "{error}");
}
