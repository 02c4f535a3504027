//! The whole pipeline through ONNX Runtime, with models whose right answer is known (`tests/golden/make_tiny_models.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]

mod support;

use std::sync::{Arc, Mutex};

use scenelex::{
    inference::{InferenceError, ModelOptions, TextEncoder},
    pipeline::{Frame, FrameError, LabelRule, Models, Pipeline, PipelineConfig},
    types::{BinaryMask, FrameResult, ImagePayload, ImageSize, RgbImage, UNLABELLED},
    vocabulary::ClassSpec,
};
use support::*;

const SIZE: ImageSize = ImageSize::new(320, 240);

/// IoU of an instance's mask with a cell, pixel by pixel.
fn iou_with_cell(result: &FrameResult, instance: usize, column: u32, row: u32) -> f64 {
    let mut mask = BinaryMask::default();
    result.instances[instance].mask.decode_into(&mut mask).unwrap();
    let bbox = cell(result.size, column, row);
    let (mut both, mut either) = (0_u32, 0_u32);
    for (index, &bit) in mask.to_row_major().iter().enumerate() {
        let (x, y) = (index as u32 % result.size.width, index as u32 / result.size.width);
        let (x, y) = (x as f32 + 0.5, y as f32 + 0.5);
        let inside = x > bbox.x0 && x < bbox.x1 && y > bbox.y0 && y < bbox.y1;
        both += u32::from(inside && bit != 0);
        either += u32::from(inside || bit != 0);
    }
    f64::from(both) / f64::from(either)
}

fn run(pipeline: &mut Pipeline, cells: &[(u32, u32, [u8; 3])], classes: &[ClassSpec]) -> FrameResult {
    let vocabulary = prepare(&mut tiny_encoder(), classes);
    let mut result = FrameResult::default();
    pipeline.process(&mut picture(SIZE, cells), &vocabulary, &mut result).unwrap();
    result
}

#[test]
fn colours_become_labelled_masks() {
    let mut pipeline = tiny_pipeline(tiny_config());
    let cells = [(0, 0, RED), (2, 1, BLUE), (3, 2, YELLOW), (1, 2, GREEN)];
    let result = run(&mut pipeline, &cells, &specs(&["red mug", "blue ball", "yellow"]));

    let mut found: Vec<(&str, u16)> = result.instances.iter().map(|i| (&*i.label, i.class_id)).collect();
    found.sort_unstable();
    assert_eq!(found, [("blue ball", 2), ("red mug", 1), ("yellow", 3)], "green was not asked for");
    for (index, instance) in result.instances.iter().enumerate() {
        let (column, row) = match &*instance.label {
            "red mug" => (0, 0),
            "blue ball" => (2, 1),
            _ => (3, 2),
        };
        assert_eq!(instance.instance_id as usize, index + 1);
        assert_eq!(instance.phrase, instance.label);
        assert!(instance.score > 0.9, "{instance:?}");
        let expected = cell(SIZE, column, row);
        assert!(instance.bbox.iou(&expected) > 0.999, "{:?} {expected:?}", instance.bbox);
        let iou = iou_with_cell(&result, index, column, row);
        assert!(iou > 0.95, "{}: mask and cell overlap by {iou}", instance.label);
        instance.mask.validate().unwrap();

        // The images show the same thing at the middle of the cell.
        let middle = expected.center();
        let pixel = middle.y as usize * SIZE.width as usize + middle.x as usize;
        assert_eq!(u32::from(result.instance_ids[pixel]), instance.instance_id);
        assert_eq!(result.class_ids().nth(pixel), Some(instance.class_id));
    }
    let grey = cell(SIZE, 0, 2).center();
    let pixel = grey.y as usize * SIZE.width as usize + grey.x as usize;
    assert_eq!((result.class_ids().nth(pixel), result.instance_ids[pixel]), (Some(UNLABELLED), 0));
    assert_eq!(result.size, SIZE);
    assert_eq!(result.header.frame_id, "camera");
    assert_eq!(result.vocabulary_version, 1);
    assert!(result.durations.total >= result.durations.models);
    assert_eq!(pipeline.rgb().size, SIZE);
}

#[test]
fn fused_and_split_detectors_agree() {
    let cells = [(0, 1, RED), (3, 0, BLUE)];
    let split = run(&mut tiny_pipeline(tiny_config()), &cells, &specs(&["red", "blue"]));

    let bundle = tiny_bundle("fused");
    let mut encoder = TextEncoder::load(&bundle, &ModelOptions::default()).unwrap();
    let vocabulary = prepare(&mut encoder, &specs(&["red", "blue"]));
    assert!(vocabulary.captions.iter().all(|c| c.features.is_empty()));
    let mut pipeline = Pipeline::load(tiny_config(), &bundle, &tiny_bundle("segmenter")).unwrap();
    let mut fused = FrameResult::default();
    pipeline.process(&mut picture(SIZE, &cells), &vocabulary, &mut fused).unwrap();

    assert_eq!(split.instances.len(), 2);
    assert_eq!(fused.instances, split.instances);
    assert_eq!(fused.instance_ids, split.instance_ids);
}

#[test]
fn synonyms_carry_the_class_and_compete_with_it() {
    let mut pipeline = tiny_pipeline(tiny_config());
    // Both phrases score the same on the red cell; one object must remain.
    let mug = ClassSpec { synonyms: vec!["red cup".into()], ..ClassSpec::new("red mug") };
    let result = run(&mut pipeline, &[(1, 1, RED)], &[mug]);
    assert_eq!(result.instances.len(), 1);
    assert_eq!(&*result.instances[0].label, "red mug");

    let other = ClassSpec { synonyms: vec!["blue cup".into()], ..ClassSpec::new("green mug") };
    let result = run(&mut pipeline, &[(1, 1, BLUE)], &[other]);
    assert_eq!(result.instances.len(), 1);
    assert_eq!((&*result.instances[0].label, &*result.instances[0].phrase), ("green mug", "blue cup"));
}

#[test]
fn vocabularies_longer_than_the_model_reads_are_cut_into_captions() {
    let labels = ["mug", "ball", "traffic cone", "chair", "cup", "box", "red", "blue"];
    let vocabulary = prepare(&mut tiny_encoder(), &specs(&labels));
    assert!(vocabulary.captions.len() > 1);
    assert!(vocabulary.captions.iter().all(|c| c.len() <= 16));
    let mut phrases: Vec<usize> = vocabulary.captions.iter().flat_map(|c| &c.spans).map(|s| s.phrase).collect();
    phrases.sort_unstable();
    assert_eq!(phrases, (0..labels.len()).collect::<Vec<_>>());

    let mut result = FrameResult::default();
    let mut pipeline = tiny_pipeline(tiny_config());
    pipeline.process(&mut picture(SIZE, &[(0, 0, RED), (2, 2, BLUE)]), &vocabulary, &mut result).unwrap();
    let mut found: Vec<&str> = result.instances.iter().map(|i| &*i.label).collect();
    found.sort_unstable();
    assert_eq!(found, ["blue", "red"]);
}

#[test]
fn token_labels_name_whole_phrases_or_nothing() {
    let config = PipelineConfig { label_rule: LabelRule::TokenLabels, ..tiny_config() };
    let mut pipeline = tiny_pipeline(config);
    let result = run(&mut pipeline, &[(0, 0, RED)], &specs(&["red mug", "blue ball"]));
    assert_eq!(result.instances.len(), 1);
    assert_eq!((&*result.instances[0].label, &*result.instances[0].phrase), ("red mug", "red mug"));

    // Both phrases have the token that fires: the label "red red" belongs to neither.
    let result = run(&mut pipeline, &[(0, 0, RED)], &specs(&["red mug", "red ball"]));
    assert_eq!(result.instances.len(), 1);
    assert_eq!(result.instances[0].class_id, UNLABELLED);
    assert_eq!((&*result.instances[0].label, &*result.instances[0].phrase), ("", "red red"));
}

#[test]
fn points_and_box_can_be_switched() {
    let cells = [(1, 1, RED)];
    let both = run(&mut tiny_pipeline(tiny_config()), &cells, &specs(&["red"]));
    // One query's centre lies in the box; the decoder takes 0.001 off for each foreground point.
    assert!((both.instances[0].mask_score - 0.899).abs() < 1e-6);

    let mut pipeline = tiny_pipeline(PipelineConfig { use_points: false, ..tiny_config() });
    let only_box = run(&mut pipeline, &cells, &specs(&["red"]));
    assert!((only_box.instances[0].mask_score - 0.9).abs() < 1e-6);
    assert!(iou_with_cell(&only_box, 0, 1, 1) > 0.95);

    // A single point is ambiguous: the best of masks 1 to 3 by predicted IoU is the second, 24 - 2 * 4 px wide at the
    // encoder's scale of 128/320.
    pipeline.set_config(PipelineConfig { use_box: false, ..tiny_config() }).unwrap();
    let only_point = run(&mut pipeline, &cells, &specs(&["red"]));
    assert!((only_point.instances[0].mask_score - 0.8).abs() < 1e-6);
    let area = only_point.instances[0].mask.area() as f64;
    let side = (24.0 - 8.0) * 320.0 / 128.0;
    assert!((area / (side * side) - 1.0).abs() < 0.1, "{area} pixels for a square of {side}");
}

#[test]
fn configuration_changes_between_frames() {
    let mut pipeline = tiny_pipeline(tiny_config());
    let cells = [(0, 0, RED), (2, 1, RED)];
    assert_eq!(run(&mut pipeline, &cells, &specs(&["red"])).instances.len(), 2);
    pipeline.set_config(PipelineConfig { max_objects: 1, ..tiny_config() }).unwrap();
    assert_eq!(run(&mut pipeline, &cells, &specs(&["red"])).instances.len(), 1);
    pipeline.set_config(PipelineConfig { box_threshold: 0.99, ..tiny_config() }).unwrap();
    let none = run(&mut pipeline, &cells, &specs(&["red"]));
    assert!(none.instances.is_empty());
    assert!(none.instance_ids.iter().all(|&id| id == 0), "nothing is left of the frame before");

    let wrong = PipelineConfig { nms_iou: f32::NAN, ..tiny_config() };
    assert_eq!(pipeline.set_config(wrong).unwrap_err().name, "nms_iou");
    let mut threads = tiny_config();
    threads.execution.detector_threads += 1;
    assert_eq!(pipeline.set_config(threads).unwrap_err().name, "execution");
    assert!((pipeline.config().box_threshold - 0.99).abs() < 1e-6, "a refused configuration changes nothing");
}

#[test]
fn image_size_may_change_from_frame_to_frame() {
    let mut pipeline = tiny_pipeline(tiny_config());
    let vocabulary = prepare(&mut tiny_encoder(), &specs(&["red"]));
    let mut result = FrameResult::default();
    for (width, height) in [(320, 240), (641, 359), (64, 48), (320, 240)] {
        let size = ImageSize::new(width, height);
        pipeline.process(&mut picture(size, &[(1, 1, RED)]), &vocabulary, &mut result).unwrap();
        assert_eq!(result.size, size);
        assert_eq!(result.instances.len(), 1);
        assert_eq!(result.instance_ids.len(), size.area());
        assert!(iou_with_cell(&result, 0, 1, 1) > 0.85, "{size}");
    }
}

#[test]
fn one_query_is_one_object() {
    // Both phrases fit the red cell, but a query takes one phrase only.
    let mut pipeline = tiny_pipeline(tiny_config());
    let result = run(&mut pipeline, &[(1, 1, RED)], &specs(&["red mug", "red ball"]));
    assert_eq!(result.instances.len(), 1);
    let ids: std::collections::BTreeSet<u16> = result.instance_ids.iter().copied().collect();
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_broken_image_is_an_error_and_the_next_one_is_served() {
    let mut pipeline = tiny_pipeline(tiny_config());
    let vocabulary = prepare(&mut tiny_encoder(), &specs(&["red"]));
    let mut result = FrameResult::default();
    let mut good = picture(SIZE, &[(0, 0, RED)]);
    let mut bad = good.clone();
    if let ImagePayload::Raw { data, .. } = &mut bad.payload {
        data.truncate(100);
    }
    let error = pipeline.process(&mut bad, &vocabulary, &mut result).unwrap_err();
    assert!(matches!(error, FrameError::Decode(_)), "{error}");
    assert_eq!(error.kind(), "short_data");
    pipeline.process(&mut good, &vocabulary, &mut result).unwrap();
    assert_eq!(result.instances.len(), 1);
}

#[test]
fn a_failing_model_is_an_error_and_the_next_frame_is_served() {
    /// Fails on every other image.
    struct Moody(Box<dyn scenelex::inference::Detector>, u32);
    impl scenelex::inference::Detector for Moody {
        fn max_batch(&self) -> usize {
            self.0.max_batch()
        }
        fn prepare(&mut self, images: &[&scenelex::types::RgbImage]) -> Result<(), InferenceError> {
            self.1 += 1;
            self.0.prepare(images)
        }
        fn detect(
            &mut self,
            text: &scenelex::inference::EncodedText,
            out: &mut Vec<scenelex::inference::RawDetections>,
        ) -> Result<(), InferenceError> {
            if self.1 % 2 == 1 {
                return Err(InferenceError::Session { model: "moody".into(), reason: "not today".into() });
            }
            self.0.detect(text, out)
        }
    }
    use scenelex::inference::{GroundingDino, SamImageEncoder, SamMaskDecoder};
    let options = ModelOptions::default();
    let segmenter = tiny_bundle("segmenter");
    let detector = GroundingDino::load(&tiny_bundle("detector"), &options).unwrap();
    let models = Models {
        detector: Box::new(Moody(Box::new(detector), 0)),
        image_encoder: Box::new(SamImageEncoder::load(&segmenter, &options).unwrap()),
        mask_decoder: Box::new(SamMaskDecoder::load(&segmenter, &options).unwrap()),
        more_mask_decoders: Vec::new(),
    };
    let mut pipeline = Pipeline::with_models(tiny_config(), models).unwrap();
    let vocabulary = prepare(&mut tiny_encoder(), &specs(&["red"]));
    let mut result = FrameResult::default();
    for (cells, ok) in [([(0, 0, RED)], false), ([(1, 1, RED)], true), ([(2, 2, RED)], false), ([(3, 1, RED)], true)] {
        let outcome = pipeline.process(&mut picture(SIZE, &cells), &vocabulary, &mut result);
        assert_eq!(outcome.is_ok(), ok);
        if ok {
            // The mask is the right frame's: the encoder's result of the failed frame was not left behind.
            assert!(iou_with_cell(&result, 0, cells[0].0, cells[0].1) > 0.95);
        }
    }
    // Of several images together, all are tried again one by one: now every other one of those fails.
    let config = PipelineConfig { image_batch: 3, ..tiny_config() };
    pipeline.set_config(config).unwrap();
    let mut frames: Vec<Frame> = (0..3).map(|column| frame(SIZE, &[(column, 0, RED)])).collect();
    let mut outcomes = Vec::new();
    pipeline
        .process_batch(&mut frames, &[0, 1, 2], &vocabulary, |camera, _, done| outcomes.push((camera, done.is_ok())));
    assert_eq!(outcomes, [(0, true), (1, false), (2, true)]);
    for camera in [0, 2] {
        assert!(iou_with_cell(&frames[camera].result, 0, camera as u32, 0) > 0.95);
    }
    let failed = pipeline.take_failed_batch().unwrap();
    assert!(failed.error.to_string().contains("not today"), "{}", failed.error);
    // An image was to blame, as it seems: the next ones are tried together again.
    assert_eq!((failed.images, failed.one_by_one, pipeline.max_batch()), (3, false, 3));
    assert!(pipeline.take_failed_batch().is_none(), "it is told once");
}

#[test]
fn models_that_fail_on_several_images_only_get_one_at_a_time_from_then_on() {
    use scenelex::inference::{Detector, EncodedText, GroundingDino, RawDetections, SamImageEncoder, SamMaskDecoder};

    /// Fails on more than one image, as where memory is short; remembers how many it was given.
    struct Narrow(GroundingDino, Arc<Mutex<Vec<usize>>>);

    impl Detector for Narrow {
        fn max_batch(&self) -> usize {
            self.0.max_batch()
        }
        fn prepare(&mut self, images: &[&RgbImage]) -> Result<(), InferenceError> {
            self.1.lock().unwrap().push(images.len());
            if images.len() > 1 {
                return Err(InferenceError::Session { model: "narrow".into(), reason: "out of memory".into() });
            }
            self.0.prepare(images)
        }
        fn detect(&mut self, text: &EncodedText, out: &mut Vec<RawDetections>) -> Result<(), InferenceError> {
            self.0.detect(text, out)
        }
    }

    let (options, segmenter) = (ModelOptions::default(), tiny_bundle("segmenter"));
    let detector = GroundingDino::load(&tiny_bundle("detector"), &options).unwrap();
    let given = Arc::new(Mutex::new(Vec::new()));
    let models = Models {
        detector: Box::new(Narrow(detector, Arc::clone(&given))),
        image_encoder: Box::new(SamImageEncoder::load(&segmenter, &options).unwrap()),
        mask_decoder: Box::new(SamMaskDecoder::load(&segmenter, &options).unwrap()),
        more_mask_decoders: Vec::new(),
    };
    let mut pipeline = Pipeline::with_models(PipelineConfig { image_batch: 2, ..tiny_config() }, models).unwrap();
    let vocabulary = prepare(&mut tiny_encoder(), &specs(&["red"]));
    for _ in 0..2 {
        let mut frames: Vec<Frame> = (0..4).map(|column| frame(SIZE, &[(column, 0, RED)])).collect();
        let mut served = 0;
        pipeline.process_batch(&mut frames, &[0, 1, 2, 3], &vocabulary, |camera, frame, done| {
            done.unwrap();
            assert!(iou_with_cell(&frame.result, 0, camera as u32, 0) > 0.95);
            served += 1;
        });
        assert_eq!(served, 4);
    }
    assert_eq!(*given.lock().unwrap(), [2, 1, 1, 1, 1, 1, 1, 1, 1], "two together once, then each alone");
    let failed = pipeline.take_failed_batch().unwrap();
    assert_eq!((failed.images, failed.one_by_one, pipeline.max_batch()), (2, true, 1));
    let again = PipelineConfig { box_threshold: 0.9, ..pipeline.config().clone() };
    pipeline.set_config(again.clone()).unwrap();
    assert_eq!(pipeline.max_batch(), 1);
    pipeline.set_config(PipelineConfig { image_batch: 3, ..again }).unwrap();
    assert_eq!(pipeline.max_batch(), 3, "who sets it wants it tried");
}

fn frame(size: ImageSize, cells: &[(u32, u32, [u8; 3])]) -> Frame {
    Frame { image: picture(size, cells), ..Frame::default() }
}

#[test]
fn images_of_several_cameras_are_labelled_together_as_they_are_alone() {
    let mut pipeline = tiny_pipeline(PipelineConfig { image_batch: 8, ..tiny_config() });
    assert_eq!(pipeline.max_batch(), 8, "the tiny files have a free batch dimension");
    // Several captions, and objects whose number differs from image to image.
    let vocabulary = prepare(&mut tiny_encoder(), &specs(&["red mug", "blue ball", "yellow"]));
    let (wide, tall) = (ImageSize::new(320, 180), ImageSize::new(120, 200));
    let scenes = [
        (SIZE, vec![(0, 0, RED), (2, 1, BLUE)]),
        (wide, vec![(3, 2, YELLOW)]),
        (tall, vec![]),
        (SIZE, vec![(1, 1, BLUE), (2, 2, RED), (3, 0, YELLOW)]),
    ];
    let mut frames: Vec<Frame> = scenes.iter().map(|(size, cells)| frame(*size, cells)).collect();
    // A broken one between them, and one that is not due.
    let mut broken = frame(SIZE, &[(0, 0, RED)]);
    if let ImagePayload::Raw { data, .. } = &mut broken.image.payload {
        data.pop();
    }
    frames.insert(1, broken);
    frames.push(frame(SIZE, &[(0, 0, RED)]));
    let mut outcomes = Vec::new();
    pipeline.process_batch(&mut frames, &[4, 1, 0, 3, 2], &vocabulary, |camera, frame, done| {
        assert_eq!(frame.result.durations.total.is_zero(), done.is_err());
        outcomes.push((camera, done.map_err(|error| error.kind())));
    });
    assert_eq!(outcomes, [(1, Err("short_data")), (4, Ok(())), (0, Ok(())), (3, Ok(())), (2, Ok(()))]);
    assert_eq!(frames[5].result, FrameResult::default());

    let mut alone = tiny_pipeline(tiny_config());
    for (camera, (size, cells)) in [0, 2, 3, 4].into_iter().zip(&scenes) {
        let mut expected = FrameResult::default();
        alone.process(&mut picture(*size, cells), &vocabulary, &mut expected).unwrap();
        let found = &frames[camera].result;
        assert_eq!(found.instances.len(), cells.len(), "camera {camera}");
        let comparable = |result: &FrameResult| {
            let masks: Vec<_> = result.instances.iter().map(|i| (i.label.clone(), i.bbox, i.mask.clone())).collect();
            (result.header.clone(), result.size, masks, result.instance_ids.clone())
        };
        assert_eq!(comparable(found), comparable(&expected), "camera {camera}");
    }
}

#[test]
fn an_empty_vocabulary_gives_an_empty_result() {
    let mut pipeline = tiny_pipeline(tiny_config());
    let vocabulary = Arc::new(scenelex::pipeline::PreparedVocabulary::empty());
    let mut result = FrameResult::default();
    pipeline.process(&mut picture(SIZE, &[(0, 0, RED)]), &vocabulary, &mut result).unwrap();
    assert_eq!((result.size, result.vocabulary_version, result.instances.len()), (SIZE, 0, 0));
    assert_eq!(result.instance_ids.len(), SIZE.area());
}

#[test]
fn a_bundle_of_the_wrong_kind_is_refused() {
    let swapped: Result<Pipeline, _> =
        Pipeline::load(tiny_config(), &tiny_bundle("segmenter"), &tiny_bundle("detector"));
    let message = swapped.err().unwrap().to_string();
    assert!(message.contains("expected grounding_dino, found sam"), "{message}");
}
