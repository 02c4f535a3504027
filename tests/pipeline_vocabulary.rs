//! Class lists that change while frames are processed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use scenelex::{
    inference::InferenceError,
    pipeline::{VocabularyError, VocabularyRequest, VocabularyWorker, take_out_indistinct},
    types::{FrameResult, ImageSize, VocabularySource},
    vocabulary::{ClassSpec, ListError, VocabularyLimits},
};
use support::*;

fn request(labels: &[&str]) -> VocabularyRequest {
    VocabularyRequest::new(specs(labels), VocabularySource::Topic)
}

fn worker() -> (VocabularyWorker, scenelex::pipeline::VocabularyHandle) {
    VocabularyWorker::start(tiny_encoder(), VocabularyLimits::default()).unwrap()
}

#[test]
fn versions_ids_and_listeners() {
    let (worker, handle) = worker();
    assert_eq!(handle.current().vocabulary.version, 0);
    let changes = handle.subscribe();

    assert_eq!(worker.apply(request(&["red", "blue"])).unwrap(), 1);
    assert_eq!(worker.apply(request(&["Blue ", "green"])).unwrap(), 2);
    let current = handle.current();
    let ids: Vec<(&str, u16)> = current.vocabulary.entries.iter().map(|e| (&*e.label, e.class_id)).collect();
    assert_eq!(ids, [("blue", 2), ("green", 3)]);
    assert_eq!(current.vocabulary.source, VocabularySource::Topic);

    let told: Vec<u64> = changes.try_iter().map(|v| v.vocabulary.version).collect();
    assert_eq!(told, [1, 2]);
    for _ in 0..20 {
        worker.apply(request(&["red"])).unwrap();
    }
    let told: Vec<u64> = changes.try_iter().map(|v| v.vocabulary.version).collect();
    assert_eq!(told.last(), Some(&22), "a listener that lags loses the oldest, never the newest");
    assert!(told.len() < 20);
}

#[test]
fn a_bad_list_changes_nothing() {
    let (worker, handle) = worker();
    worker.apply(request(&["red"])).unwrap();
    let error = worker.apply(request(&[])).unwrap_err();
    assert!(matches!(error, VocabularyError::List(ListError::Empty)), "{error}");
    // 19 tokens, the tiny model reads 16: refused by the encoder, after the list was found good.
    let long = ["red mug red mug red mug red mug red mug red mug red mug"];
    let error = worker.apply(request(&long)).unwrap_err();
    assert!(matches!(error, VocabularyError::Encoding(_)), "{error}");
    assert_eq!(handle.current().vocabulary.version, 1);
    assert_eq!(worker.apply(request(&["blue"])).unwrap(), 2, "refused lists take no version");
    assert_eq!(handle.current().vocabulary.entries[0].class_id, 2, "and no class id");
}

#[test]
fn a_worker_that_was_stopped_makes_no_vocabulary() {
    let (worker, handle) = worker();
    worker.apply(request(&["red"])).unwrap();
    let (_alive, end) = crossbeam::channel::bounded(0);
    assert_eq!(worker.apply_until(request(&["blue"]), &end).unwrap(), 2);
    worker.stop();
    let error = worker.apply_until(request(&["green"]), &end).unwrap_err();
    assert!(matches!(error, VocabularyError::Encoding(InferenceError::Stopped)), "{error}");
    assert_eq!(handle.current().vocabulary.version, 2, "the one in use stays");
}

#[test]
fn names_that_the_detector_could_not_tell_apart_are_refused_or_left_out() {
    let (worker, handle) = worker();
    worker.apply(request(&["red"])).unwrap();
    // The tiny tokenizer has neither character.
    let error = worker.apply(request(&["杯", "blue", "椅"])).unwrap_err().to_string();
    assert!(error.contains("no part of \"杯\", \"椅\""), "{error}");
    // It does not know tea or coffee either: both names are "[UNK] mug".
    let error = worker.apply(request(&["tea mug", "coffee mug"])).unwrap_err().to_string();
    assert!(error.contains("\"coffee mug\" and \"tea mug\""), "{error}");
    // Nor does it see accents.
    let error = worker.apply(request(&["mug", "múg"])).unwrap_err().to_string();
    assert!(error.contains("\"múg\" and \"mug\""), "{error}");
    let spec = |label: &str, synonyms: &[&str]| ClassSpec {
        synonyms: synonyms.iter().map(|&name| name.to_owned()).collect(),
        ..ClassSpec::new(label)
    };
    let taken = vec![spec("red mug", &[]), spec("杯", &["red múg", "椅"])];
    let error = worker.apply(VocabularyRequest::new(taken, VocabularySource::Topic)).unwrap_err().to_string();
    assert!(error.contains("\"red múg\" and \"red mug\""), "no name of its own is left: {error}");
    assert_eq!(handle.current().vocabulary.version, 1);

    let known = vec![spec("杯", &["red mug"]), spec("blue ball", &["red múg", "椅", "blue báll"])];
    worker.apply(VocabularyRequest::new(known, VocabularySource::Topic)).unwrap();
    let current = handle.current();
    let spans = current.captions.iter().flat_map(|caption| &caption.spans);
    let asked: Vec<&str> = spans.map(|span| &*current.phrases[span.phrase].text).collect();
    assert_eq!(asked, ["red mug", "blue ball", "blue báll"], "two names of one class may have the same tokens");
    let mut result = FrameResult::default();
    let mut image = picture(ImageSize::new(64, 48), &[(0, 0, RED)]);
    tiny_pipeline(tiny_config()).process(&mut image, &current, &mut result).unwrap();
    assert_eq!((&*result.instances[0].label, &*result.instances[0].phrase), ("杯", "red mug"));
}

#[test]
fn one_odd_label_does_not_keep_the_others_out() {
    let encoder = tiny_encoder();
    let spec = |label: &str, parent: &str, synonyms: &[&str]| ClassSpec {
        parent: parent.to_owned(),
        synonyms: synonyms.iter().map(|&name| name.to_owned()).collect(),
        ..ClassSpec::new(label)
    };
    let mut classes = vec![
        spec("杯", "", &["椅"]),
        spec("mug", "杯", &[]),
        spec("múg", "", &["red mug"]),
        // Can be told from the rest when "múg" is gone.
        spec("工", "", &["red múg"]),
    ];
    let reasons = take_out_indistinct(&mut classes, &encoder).unwrap();
    assert_eq!(classes, [spec("mug", "", &[]), spec("工", "", &["red múg"])]);
    let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    assert!(reasons[0].contains("\"múg\" and \"mug\""), "{reasons:?}");
    assert!(reasons[1].contains("no part of \"杯\""), "{reasons:?}");
    assert_eq!(reasons.len(), 2);
    assert!(take_out_indistinct(&mut classes, &encoder).unwrap().is_empty());

    // A kept list may be of another version or for another detector.
    let (worker, handle) = worker();
    worker.apply(VocabularyRequest::new(specs(&["red", "杯", "blue"]), VocabularySource::Stored)).unwrap();
    let current = handle.current();
    let labels: Vec<&str> = current.vocabulary.entries.iter().map(|entry| &*entry.label).collect();
    assert_eq!(labels, ["red", "blue"]);
}

#[test]
fn floods_are_refused_and_the_rest_is_served() {
    let (worker, handle) = worker();
    let mut waiting = Vec::new();
    let mut refused = 0;
    for _ in 0..200 {
        match worker.submit(request(&["red", "blue", "green", "yellow"])) {
            Ok(reply) => waiting.push(reply),
            Err(VocabularyError::Busy) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    let versions: Vec<u64> =
        waiting.iter().map(|w| w.recv_timeout(Duration::from_secs(30)).unwrap().unwrap()).collect();
    assert_eq!(versions, (1..=versions.len() as u64).collect::<Vec<_>>());
    assert_eq!(versions.len() + refused, 200);
    assert_eq!(handle.current().vocabulary.version, versions.len() as u64);
    drop(worker);
    assert_eq!(handle.current().vocabulary.version, versions.len() as u64, "the last one stays in use");
}

#[test]
fn every_frame_sees_one_whole_vocabulary() {
    let (worker, handle) = worker();
    // Odd versions know red under one name, even ones blue under another.
    let lists = [
        ClassSpec { synonyms: vec!["red cup".into()], ..ClassSpec::new("red mug") },
        ClassSpec { synonyms: vec!["blue cup".into()], ..ClassSpec::new("blue ball") },
    ];
    let list = move |version: u64| {
        VocabularyRequest::new(vec![lists[usize::from(version.is_multiple_of(2))].clone()], VocabularySource::Service)
    };
    worker.apply(list(1)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let changing = std::thread::Builder::new().name("changes".into()).spawn(move || {
        let mut version = 1;
        while !stopping.load(Ordering::Relaxed) {
            version += 1;
            assert_eq!(worker.apply(list(version)).unwrap(), version);
        }
    });

    let mut pipeline = tiny_pipeline(tiny_config());
    let image = picture(ImageSize::new(64, 48), &[(0, 0, RED), (3, 2, BLUE)]);
    let mut result = FrameResult::default();
    let mut versions = Vec::new();
    // Until enough changes fell between frames, whatever the speed of either side.
    while versions.len() < 10 {
        pipeline.process(&mut image.clone(), &handle.current(), &mut result).unwrap();
        let (label, id) = if result.vocabulary_version % 2 == 1 { ("red mug", 1) } else { ("blue ball", 2) };
        assert_eq!(result.instances.len(), 1, "version {}", result.vocabulary_version);
        assert_eq!((&*result.instances[0].label, result.instances[0].class_id), (label, id));
        assert!(versions.last().is_none_or(|&last| last <= result.vocabulary_version), "versions never go back");
        if versions.last() != Some(&result.vocabulary_version) {
            versions.push(result.vocabulary_version);
        }
    }
    stop.store(true, Ordering::Relaxed);
    changing.unwrap().join().unwrap();
}

#[test]
fn a_list_made_for_an_older_version_comes_too_late() {
    let (worker, handle) = worker();
    worker.apply(request(&["red"])).unwrap();
    worker.apply(request(&["green"])).unwrap();
    let late = worker.apply(VocabularyRequest { expected: Some(1), ..request(&["blue"]) });
    assert!(matches!(late, Err(VocabularyError::Superseded { expected: 1, found: 2 })));
    assert_eq!(&*handle.current().vocabulary.entries[0].label, "green");
    worker.apply(VocabularyRequest { expected: Some(2), ..request(&["blue"]) }).unwrap();
    assert_eq!(&*handle.current().vocabulary.entries[0].label, "blue");
}
