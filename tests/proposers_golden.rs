//! Taggers and captioners against what PyTorch and Transformers make of the same picture with the same weights
//! (`golden/make_proposer_golden.py`), and bundles of theirs that are not what they claim to be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use std::{cell::Cell, fs};

use scenelex::{
    imaging::{DecodeLimits, ImageDecoder},
    inference::{BlipCaptioner, Captioner, ImageTagger, InferenceError, ModelOptions, Sampler, Sampling, Tagger},
    pipeline::{CaptionConfig, CaptionProposer, Grid, TagProposer},
    types::RgbImage,
    vocabulary::{
        caption::PhraseProbability,
        proposer::{Look, Proposer},
    },
};
use serde_json::Value;
use support::{BundleCopy, golden, tiny_bundle};

fn expected() -> Value {
    serde_json::from_slice(&fs::read(golden("proposers.json")).unwrap()).unwrap()
}

fn picture() -> RgbImage {
    let mut image = RgbImage::default();
    let file = fs::read(golden("proposers.png")).unwrap();
    ImageDecoder::new(DecodeLimits::default()).decode_file("png", &file, &mut image).unwrap();
    image
}

fn tagger() -> ImageTagger {
    ImageTagger::load(&tiny_bundle("ram"), &ModelOptions::default()).unwrap()
}

fn captioner() -> BlipCaptioner {
    BlipCaptioner::load(&tiny_bundle("blip"), &ModelOptions::default()).unwrap()
}

fn number(value: &Value) -> f32 {
    value.as_f64().unwrap() as f32
}

fn close(found: f32, expected: f32) -> bool {
    (found - expected).abs() < 2e-5
}

#[test]
fn tags_equal_those_of_torch() {
    let expected = &expected()["ram"];
    let mut tagger = tagger();
    let mut tags = Vec::new();
    // Twice, since buffers are kept.
    for _ in 0..2 {
        tagger.tag(&picture(), &mut tags).unwrap();
    }
    let probabilities = expected["probabilities"].as_array().unwrap();
    assert_eq!(tagger.probabilities().len(), probabilities.len());
    for (found, expected) in tagger.probabilities().iter().zip(probabilities) {
        assert!(close(*found, number(expected)), "{found} instead of {expected}");
    }
    let wanted = expected["tags"].as_array().unwrap();
    assert!(!wanted.is_empty() && wanted.len() < probabilities.len());
    let labels: Vec<&str> = tags.iter().map(|tag| &*tag.label).collect();
    let wanted: Vec<&str> = wanted.iter().map(|tag| tag[0].as_str().unwrap()).collect();
    assert_eq!(labels, wanted);
}

/// Feeds the captioner the tokens that Transformers wrote, and compares what it thinks of each.
fn check_steps(captioner: &mut BlipCaptioner, steps: &Value, sampling: Sampling) {
    let mut tokens = captioner.prompt().to_vec();
    let mut logits = Vec::new();
    for step in steps.as_array().unwrap() {
        captioner.next_token(&tokens, &mut logits).unwrap();
        let token = step["token"].as_u64().unwrap() as usize;
        let most = logits.iter().copied().fold(f32::MIN, f32::max);
        let sum: f32 = logits.iter().map(|logit| (logit - most).exp()).sum();
        assert!(close((logits[token] - most).exp() / sum, number(&step["probability"])));
        if let Some(wanted) = step["nucleus"].as_array() {
            let mut sampler = Sampler::new(sampling, 0);
            let nucleus = sampler.nucleus(&logits);
            assert_eq!(nucleus.len(), wanted.len());
            for (&(token, share), wanted) in nucleus.iter().zip(wanted) {
                assert_eq!(token as u64, wanted[0].as_u64().unwrap());
                assert!((share - number(&wanted[1])).abs() < 1e-4, "{share} instead of {}", wanted[1]);
            }
        }
        tokens.push(token as i64);
    }
}

#[test]
fn token_probabilities_and_nuclei_equal_those_of_transformers() {
    let expected = &expected()["blip"];
    let without_mask = BundleCopy::of("blip", "mask");
    without_mask.replace("textual_decoder.onnx", golden("tiny/blip/textual_decoder_without_mask.onnx"));
    let without_mask = BlipCaptioner::load(&without_mask.load().unwrap(), &ModelOptions::default()).unwrap();
    for captioner in [captioner(), without_mask] {
        check_captioner(captioner, expected);
    }
}

fn check_captioner(mut captioner: BlipCaptioner, expected: &Value) {
    let prompt: Vec<i64> = expected["prompt"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
    assert_eq!(captioner.prompt(), prompt);
    captioner.look(&picture()).unwrap();
    let sampling = Sampling { temperature: number(&expected["temperature"]), top_p: number(&expected["top_p"]) };
    check_steps(&mut captioner, &expected["greedy"]["steps"], sampling);
    for sampled in expected["sampled"].as_array().unwrap() {
        check_steps(&mut captioner, &sampled["steps"], sampling);
    }
}

fn proposer(temperature: f32, samples: usize, grid: Grid) -> CaptionProposer {
    let sampling = Sampling { temperature, top_p: 0.9 };
    let probability = PhraseProbability::Product;
    CaptionProposer::new(Box::new(captioner()), None, CaptionConfig { samples, sampling, probability, grid })
}

#[test]
fn the_likeliest_tokens_give_transformers_greedy_caption() {
    let greedy = &expected()["blip"]["greedy"];
    let Look { samples, caption } = proposer(0.0, 1, Grid::Whole).propose(&picture(), &|| true).unwrap();
    assert_eq!(caption.as_deref(), greedy["text"].as_str());
    assert_eq!(samples.len(), 1);
}

#[test]
fn captions_are_sampled_alike_each_time_and_bounded() {
    let look = |samples, grid| proposer(1.0, samples, grid).propose(&picture(), &|| true).unwrap();
    let first = look(6, Grid::Both);
    assert_eq!(first, look(6, Grid::Both));
    assert_eq!(first.samples.len(), 6 * 5);
    let distinct = first.samples.iter().filter(|sample| **sample != first.samples[0]).count();
    assert!(distinct > 0, "captions are sampled");
    // Those of the whole image come first, and one of them speaks for it.
    let whole = look(6, Grid::Whole);
    assert_eq!(whole.samples, first.samples[..6]);
    assert_eq!(whole.caption, first.caption);
    let proposals = first.samples.iter().flatten();
    assert!(proposals.clone().count() > 0);
    assert!(proposals.into_iter().all(|p| (0.0..=1.0).contains(&p.probability) && !p.label.is_empty()));
}

#[test]
fn proposers_ask_before_each_run_and_end_with_what_they_have() {
    let runs = Cell::new(0);
    let most = |limit: usize| {
        runs.set(0);
        let runs = &runs;
        move || {
            runs.set(runs.get() + 1);
            runs.get() <= limit
        }
    };
    let mut captions = proposer(0.0, 3, Grid::Whole);
    let all = captions.propose(&picture(), &most(usize::MAX)).unwrap();
    assert_eq!(all.samples.len(), 3);
    // One run for the image, then one for each token and for the end.
    let steps = (runs.get() - 1) / 3;
    assert!(steps > 1 && runs.get() == 1 + 3 * steps);
    let cut = captions.propose(&picture(), &most(1 + steps + 1)).unwrap();
    assert_eq!((cut.samples.len(), cut.caption), (1, all.caption));
    assert_eq!(captions.propose(&picture(), &|| false).unwrap(), Look::default());

    let mut tags = TagProposer::new(Box::new(tagger()), Grid::Both);
    assert_eq!(tags.propose(&picture(), &most(usize::MAX)).unwrap().samples.len(), 5);
    assert_eq!(runs.get(), 5);
    assert_eq!(tags.propose(&picture(), &most(2)).unwrap().samples.len(), 2);
}

#[test]
fn taggers_are_checked_against_their_files() {
    let load = |copy: &BundleCopy| ImageTagger::load(&copy.load()?, &ModelOptions::default()).map(|_| ());
    let says = |result: Result<(), InferenceError>, parts: &[&str]| {
        let error = result.unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error} does not say {parts:?}");
    };
    let copy = |test| BundleCopy::of("ram", test);

    let short = copy("labels");
    short.rewrite("labels.txt", "dog\ncat\n");
    says(load(&short), &["labels file", "expected 12", "found 2"]);
    let more = copy("thresholds");
    more.rewrite("thresholds.txt", &"0.5\n".repeat(13));
    says(load(&more), &["thresholds file", "expected 12", "found 13"]);
    let words = copy("words");
    words.rewrite("thresholds.txt", &"0.5\nhigh\n".repeat(6));
    says(load(&words), &["thresholds.txt", "line 2", "number in [0, 1]", "\"high\""]);
    let large = copy("size");
    large.edit("[preprocessing]", "[preprocessing]\nresize = \"exact\"\nwidth = 224\nheight = 224");
    says(load(&large), &["input size", "expected 224x224", "found 384x384"]);
    let swapped = copy("swapped");
    swapped.replace("tagger.onnx", golden("tiny/blip/textual_decoder.onnx"));
    says(load(&swapped), &["inputs", "exactly one", "attention_mask"]);
    let other = copy("other");
    other.replace("tagger.onnx", golden("tiny/detector/text_encoder.onnx"));
    says(load(&other), &["inputs", "exactly one"]);
    let kind = copy("kind");
    kind.edit("kind = \"ram\"", "kind = \"sam\"");
    says(load(&kind), &["kind", "expected classifier", "found sam"]);
    let softmax = copy("softmax");
    softmax.edit("[preprocessing]", "[tags]\nactivation = \"softmax\"\n[preprocessing]");
    says(load(&softmax), &["ram", "sigmoid"]);
    let plain = copy("plain");
    plain.edit("kind = \"ram\"", "kind = \"classifier\"");
    says(load(&plain), &["classifier needs `activation`"]);
    let misplaced = copy("misplaced");
    misplaced.edit("[preprocessing]", "[caption]\nprompt = \"x\"\n[preprocessing]");
    says(load(&misplaced), &["caption has no meaning for kind ram"]);
    let filter = copy("filter");
    filter.edit("[preprocessing]", "[preprocessing]\nfilter = \"lanczos\"");
    says(load(&filter), &["bilinear or bicubic", "lanczos"]);
}

#[test]
fn a_classifier_takes_the_likeliest_classes_and_leaves_out_the_ignored() {
    let copy = BundleCopy::of("ram", "classifier");
    copy.edit("kind = \"ram\"", "kind = \"classifier\"");
    copy.edit(
        "[preprocessing]",
        "[tags]\nactivation = \"softmax\"\nthreshold = 0.0\ntop_k = 3\nignore = [\"kite\"]\n[preprocessing]",
    );
    copy.drop_line("thresholds = ");
    let mut tagger = ImageTagger::load(&copy.load().unwrap(), &ModelOptions::default()).unwrap();
    let mut tags = Vec::new();
    tagger.tag(&picture(), &mut tags).unwrap();
    // Softmax of the logits, which the sigmoids tell.
    let logits: Vec<f64> =
        expected()["ram"]["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
    let odds: Vec<f64> = logits.iter().map(|p| p / (1.0 - p)).collect();
    let sum: f64 = odds.iter().sum();
    for (found, odds) in tagger.probabilities().iter().zip(&odds) {
        assert!((f64::from(*found) - odds / sum).abs() < 1e-4);
    }
    let labels: Vec<&str> = tags.iter().map(|tag| &*tag.label).collect();
    assert_eq!(labels, ["grass", "road", "house"]);
}

#[test]
fn captioners_are_checked_against_their_files() {
    let load = |copy: &BundleCopy| BlipCaptioner::load(&copy.load()?, &ModelOptions::default()).map(|_| ());
    let says = |result: Result<(), InferenceError>, parts: &[&str]| {
        let error = result.unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error} does not say {parts:?}");
    };
    let copy = |test| BundleCopy::of("blip", test);
    let token = copy("token");
    token.edit("start_token = 45", "start_token = 30522");
    says(load(&token), &["start_token is 30522", "47 tokens"]);
    let long = copy("long");
    long.edit(
        "start_token",
        "prompt = \"a red dog and a blue cat on the green boat near two wooden road\"\nstart_token",
    );
    says(load(&long), &["max_tokens is 16", "prompt alone has"]);
    let swapped = copy("decoder");
    swapped.replace("textual_decoder.onnx", golden("tiny/blip/visual_encoder.onnx"));
    says(load(&swapped), &["expected input_ids, attention_mask", "found pixel_values"]);
    let visual = copy("visual");
    visual.replace("visual_encoder.onnx", golden("tiny/blip/textual_decoder.onnx"));
    says(load(&visual), &["inputs", "exactly one", "input_ids"]);
    let words = copy("words");
    let many: String = (0..60).map(|at| format!("word{at}\n")).collect();
    words.rewrite("vocab.txt", &format!("[UNK]\n{many}"));
    says(load(&words), &["width of the logits", "61 tokens", "found 47"]);
    let same = copy("same");
    same.edit("start_token = 45", "start_token = 3");
    says(load(&same), &["start_token and end_token are both 3"]);
    let mut captioner = captioner();
    let error = captioner.next_token(&[45], &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("no image was encoded"), "{error}");
}
