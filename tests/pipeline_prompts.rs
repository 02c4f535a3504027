//! What the mask decoder is asked together: nobody's mask depends on whose is decoded with it. With the tiny segmenter,
//! whose answers are known (`tests/golden/make_tiny_models.py`): inside a box, all of it, with a predicted IoU of 0.9
//! less 0.001 for each point on the thing; around points without a box, a square of 12 px of its 128 px input to each
//! side, or of 8 px and an IoU of 0.8 where a single point leaves open what is meant.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use scenelex::{
    inference::{
        Detector, EncodedText, ImageEmbedding, InferenceError, LowResMasks, MaskDecoder, ModelOptions, PromptBatch,
        RawDetections, SamImageEncoder, SamMaskDecoder,
    },
    pipeline::{FrameError, Models, ObjectPrompt, Pipeline, PipelineConfig},
    types::{BinaryMask, CenterBox, FrameResult, ImageSize, LabeledInstance, PixelBox, PixelPoint, RgbImage},
};
use support::*;

const SIZE: ImageSize = ImageSize::new(320, 240);
/// Pixels of the image for one of the segmenter's input.
const SCALE: f32 = 320.0 / 128.0;

/// Puts out the same boxes for every image, each with its logit for every token.
struct Boxes(Vec<(CenterBox, f32)>);

impl Detector for Boxes {
    fn max_batch(&self) -> usize {
        1
    }

    fn prepare(&mut self, _: &[&RgbImage]) -> Result<(), InferenceError> {
        Ok(())
    }

    fn detect(&mut self, text: &EncodedText, out: &mut Vec<RawDetections>) -> Result<(), InferenceError> {
        let columns = text.input_ids.len();
        let logits = self.0.iter().flat_map(|(_, logit)| vec![*logit; columns]).collect();
        let boxes = self.0.iter().map(|(bbox, _)| *bbox).collect();
        *out = vec![RawDetections { queries: self.0.len(), columns, logits, boxes }];
        Ok(())
    }
}

/// What a decoder was asked, run by run.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<PromptBatch>>>);

impl Asked {
    fn take(&self) -> Vec<PromptBatch> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn labels(&self) -> Vec<Vec<f32>> {
        self.take().into_iter().map(|batch| batch.labels).collect()
    }
}

struct Recording(SamMaskDecoder, Asked);

impl MaskDecoder for Recording {
    fn max_batch(&self) -> usize {
        self.0.max_batch()
    }

    fn decode(
        &mut self,
        embedding: &ImageEmbedding,
        image: ImageSize,
        prompts: &PromptBatch,
        out: &mut LowResMasks,
    ) -> Result<(), InferenceError> {
        self.1.0.lock().unwrap().push(prompts.clone());
        self.0.decode(embedding, image, prompts, out)
    }
}

/// Panics as long as the switch is on.
struct Fragile(SamMaskDecoder, Arc<AtomicBool>);

impl MaskDecoder for Fragile {
    fn max_batch(&self) -> usize {
        1
    }

    fn decode(
        &mut self,
        embedding: &ImageEmbedding,
        image: ImageSize,
        prompts: &PromptBatch,
        out: &mut LowResMasks,
    ) -> Result<(), InferenceError> {
        assert!(!self.1.load(Ordering::Relaxed), "on purpose");
        self.0.decode(embedding, image, prompts, out)
    }
}

#[test]
fn a_panic_on_any_thread_is_an_error_of_its_frame() {
    let (segmenter, options) = (tiny_bundle("segmenter"), ModelOptions::default());
    let broken = Arc::new(AtomicBool::new(true));
    let decoder = || -> Box<dyn MaskDecoder> {
        Box::new(Fragile(SamMaskDecoder::load(&segmenter, &options).unwrap(), Arc::clone(&broken)))
    };
    let boxes = (0..6).map(|at| query(40.0 + 48.0 * at as f32, 120.0, 40.0, 40.0, 4.0)).collect();
    let models = Models {
        detector: Box::new(Boxes(boxes)),
        image_encoder: Box::new(SamImageEncoder::load(&segmenter, &options).unwrap()),
        mask_decoder: decoder(),
        more_mask_decoders: vec![decoder(), decoder()],
    };
    let mut pipeline = Pipeline::with_models(tiny_config(), models).unwrap();
    let vocabulary = prepare(&mut tiny_encoder(), &specs(&["red"]));
    let mut result = FrameResult::default();
    let mut run = || pipeline.process(&mut picture(SIZE, &[(1, 1, RED)]), &vocabulary, &mut result);
    let error = run().unwrap_err();
    assert!(matches!(error, FrameError::Inference(_)) && error.to_string().contains("panicked"), "{error}");
    broken.store(false, Ordering::Relaxed);
    run().unwrap();
    assert_eq!(pipeline.detections().len(), 6);
}

fn pipeline(config: PipelineConfig, boxes: &[(CenterBox, f32)]) -> (Pipeline, Asked) {
    let (segmenter, options) = (tiny_bundle("segmenter"), ModelOptions::default());
    let asked = Asked::default();
    let decoder = SamMaskDecoder::load(&segmenter, &options).unwrap();
    let models = Models {
        detector: Box::new(Boxes(boxes.to_vec())),
        image_encoder: Box::new(SamImageEncoder::load(&segmenter, &options).unwrap()),
        mask_decoder: Box::new(Recording(decoder, asked.clone())),
        more_mask_decoders: Vec::new(),
    };
    (Pipeline::with_models(config, models).unwrap(), asked)
}

/// A query's box by its centre and its size in pixels.
fn query(x: f32, y: f32, width: f32, height: f32, logit: f32) -> (CenterBox, f32) {
    let (w, h) = (SIZE.width as f32, SIZE.height as f32);
    (CenterBox { cx: x / w, cy: y / h, w: width / w, h: height / h }, logit)
}

/// A large thing with the centres of three queries in its box, and two small ones with their own only.
fn things() -> [(CenterBox, f32); 5] {
    [
        query(80.0, 120.0, 120.0, 120.0, 4.0),
        query(60.0, 100.0, 10.0, 10.0, -4.0),
        query(100.0, 140.0, 10.0, 10.0, -4.0),
        query(250.0, 60.0, 60.0, 60.0, 4.0),
        query(250.0, 180.0, 60.0, 60.0, 4.0),
    ]
}

/// What is found, from left to right and from top to bottom.
fn found(pipeline: &mut Pipeline) -> Vec<LabeledInstance> {
    let vocabulary = prepare(&mut tiny_encoder(), &specs(&["red"]));
    let mut result = FrameResult::default();
    pipeline.process(&mut picture(SIZE, &[]), &vocabulary, &mut result).unwrap();
    let place = |found: &LabeledInstance| (found.bbox.x0, found.bbox.y0);
    result.instances.sort_by(|a, b| place(a).partial_cmp(&place(b)).unwrap());
    result.instances
}

fn assert_scores(found: &[LabeledInstance], expected: &[f32]) {
    let scores: Vec<f32> = found.iter().map(|found| found.mask_score).collect();
    assert_eq!(scores.len(), expected.len());
    assert!(scores.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{scores:?} {expected:?}");
}

#[test]
fn only_objects_with_the_same_number_of_points_are_decoded_together() {
    let (mut pipeline, asked) = pipeline(tiny_config(), &things());
    assert_scores(&found(&mut pipeline), &[0.897, 0.899, 0.899]);
    // Padding is for prompts without a box: the small ones are two, the large one is alone.
    assert_eq!(asked.labels(), [vec![1.0, 2.0, 3.0, 1.0, 2.0, 3.0], vec![1.0, 1.0, 1.0, 2.0, 3.0]]);

    pipeline.set_config(PipelineConfig { use_points: false, ..tiny_config() }).unwrap();
    assert_scores(&found(&mut pipeline), &[0.9; 3]);
    assert_eq!(asked.labels(), [[2.0_f32, 3.0].repeat(3)]);
}

#[test]
fn a_single_point_is_ambiguous_whatever_it_is_decoded_with() {
    let config = PipelineConfig { use_box: false, ..tiny_config() };
    let (mut together, asked) = pipeline(config.clone(), &things());
    let objects = found(&mut together);
    assert_eq!(asked.labels(), [vec![1.0, -1.0, 1.0, -1.0], vec![1.0, 1.0, 1.0, -1.0]]);
    assert_scores(&objects, &[0.897, 0.8, 0.8]);
    for (object, reach) in objects.iter().zip([12.0, 8.0, 8.0]) {
        let (area, expected) = (object.mask.area() as f32, (2.0 * reach * SCALE).powi(2));
        assert!((area / expected - 1.0).abs() < 0.1, "{area} pixels instead of {expected}");
    }
    let alone = |boxes: &[(CenterBox, f32)]| found(&mut pipeline(config.clone(), boxes).0);
    let [large, upper, lower] = [alone(&things()[..3]), alone(&things()[3..4]), alone(&things()[4..])];
    for (alone, object) in [large, upper, lower].iter().flatten().zip(&objects) {
        assert_eq!(*alone, LabeledInstance { instance_id: 1, ..object.clone() });
    }
}

fn point(x: f32, y: f32) -> (PixelPoint, bool) {
    (PixelPoint { x, y }, true)
}

fn boxed(x0: f32, points: &[(PixelPoint, bool)]) -> ObjectPrompt {
    let bbox = Some(PixelBox { x0, y0: 40.0, x1: x0 + 80.0, y1: 120.0 });
    ObjectPrompt { label: x0.to_string().into(), bbox, points: points.to_vec() }
}

fn pointed(points: &[(PixelPoint, bool)]) -> ObjectPrompt {
    ObjectPrompt { label: "point".into(), bbox: None, points: points.to_vec() }
}

/// The smallest box around the set pixels.
fn around(instance: &LabeledInstance) -> PixelBox {
    let mut mask = BinaryMask::default();
    instance.mask.decode_into(&mut mask).unwrap();
    let set = (0..).zip(mask.to_row_major()).filter(|&(_, bit)| bit == 1);
    let set: Vec<(u32, u32)> = set.map(|(at, _)| (at % SIZE.width, at / SIZE.width)).collect();
    let (x, y) = (|| set.iter().map(|p| p.0), || set.iter().map(|p| p.1));
    PixelBox {
        x0: x().min().unwrap() as f32,
        y0: y().min().unwrap() as f32,
        x1: x().max().unwrap() as f32 + 1.0,
        y1: y().max().unwrap() as f32 + 1.0,
    }
}

#[test]
fn prompts_of_one_kind_share_runs_and_come_back_in_their_order() {
    let (mut pipeline, asked) = pipeline(tiny_config(), &[]);
    let image = pipeline.decode_image(&mut picture(SIZE, &[])).unwrap();
    let on_it = [point(150.0, 100.0)];
    let wanted = [
        boxed(0.0, &[]),
        pointed(&[point(100.0, 90.0)]),
        boxed(20.0, &[]),
        pointed(&[point(90.0, 90.0), point(130.0, 90.0)]),
        boxed(40.0, &on_it),
        boxed(60.0, &[]),
        // Beside the image: masks without a pixel.
        pointed(&[point(2000.0, 90.0)]),
        boxed(100.0, &on_it),
        boxed(120.0, &[]),
        boxed(400.0, &[]),
        boxed(140.0, &on_it),
    ];
    let mut result = FrameResult { instance_ids: vec![1; 3], ..FrameResult::default() };
    pipeline.segment_prompts(Arc::clone(&image), &wanted, &mut result).unwrap();
    let batches = asked.take();
    assert_eq!(batches.iter().map(|batch| batch.prompts).collect::<Vec<_>>(), [5, 3, 2, 1]);
    assert_eq!(batches.iter().map(|batch| batch.ambiguous).collect::<Vec<_>>(), [false, false, true, false]);
    assert_eq!((result.size, result.instance_ids.len()), (SIZE, 0));
    assert_scores(&result.instances, &[0.9, 0.8, 0.9, 0.898, 0.899, 0.9, 0.0, 0.899, 0.9, 0.0, 0.899]);

    for (index, (prompt, instance)) in wanted.iter().zip(&result.instances).enumerate() {
        assert_eq!(instance.label, prompt.label);
        instance.mask.validate().unwrap();
        let expected = match (prompt.bbox, instance.mask.area()) {
            (Some(bbox), _) => bbox,
            (None, 0) => PixelBox::default(),
            (None, _) => around(instance),
        };
        assert_eq!(instance.bbox, expected, "prompt {index}");
        let mut alone = FrameResult::default();
        pipeline.segment_prompts(Arc::clone(&image), std::slice::from_ref(prompt), &mut alone).unwrap();
        assert_eq!(alone.instances, [LabeledInstance { instance_id: 1, ..instance.clone() }]);
        assert_eq!(instance.instance_id as usize, index + 1);
    }
    asked.take();
    pipeline.set_config(PipelineConfig { mask_batch: 2, ..tiny_config() }).unwrap();
    pipeline.segment_prompts(image, &wanted, &mut FrameResult::default()).unwrap();
    assert!(asked.take().iter().all(|batch| batch.prompts <= 2));
}
