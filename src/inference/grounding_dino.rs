//! Grounding DINO (Liu et al. 2023) through ONNX, in the two forms its exports take.
//!
//! - *split*: `pixel_values` f32[b,3,H,W], `pixel_mask` i64[b,H,W], `input_ids` and `attention_mask` i64[b,T],
//!   `text_features` f32[b,T,D]; the text was encoded before, by a file of its own.
//! - *fused*: the same without `text_features` but with `token_type_ids`; the text runs with every frame.
//!
//! Both give `logits` f32[b,Q,256] (−∞ beyond T) and `pred_boxes` f32[b,Q,4], cx, cy, w, h relative to the unpadded
//! image. Exporters bake H and W into the graph even where they leave their names open (other sizes run, and give wrong
//! boxes), so there is one size for every image: the file's where it says one, else the manifest's.

use super::{
    Bundle, BundleKind, Detector, EncodedText, InferenceError, RawDetections, contract,
    contract::Dim,
    declared,
    image_input::{self, input_size},
    manifest::LOGIT_COLUMNS,
    ort::{Element, Input, Model, ModelOptions, Provider},
};
use crate::{
    imaging::{Placement, Preprocessor, ResizeRule},
    types::{CenterBox, ImageSize, RgbImage},
};

/// A Grounding DINO detector.
pub struct GroundingDino {
    model: Model,
    preprocessor: Preprocessor,
    /// Size of the input: images that become smaller by the resize rule are padded, as Hugging Face's `pad` does it.
    input: ImageSize,
    /// Of the images prepared, one behind the other; so is `pixel_mask`. Of the largest batch so far: they never shrink.
    pixels: Vec<f32>,
    pixel_mask: Vec<i64>,
    /// What each image's part of `pixel_mask` was filled for; cameras keep their size, so it is filled once.
    masked: Vec<Option<Placement>>,
    /// Images prepared.
    prepared: usize,
    /// The caption once for each image, where there are several.
    repeated: Repeated,
    /// D of a split detector.
    feature_size: Option<usize>,
    /// Most images of one run.
    max_batch: usize,
}

/// The tensors of an [`EncodedText`], several times over.
#[derive(Default)]
struct Repeated {
    input_ids: Vec<i64>,
    attention_mask: Vec<i64>,
    token_type_ids: Vec<i64>,
    features: Vec<f32>,
}

impl Repeated {
    fn fill(&mut self, text: &EncodedText, times: usize) {
        fn repeat<T: Copy>(to: &mut Vec<T>, from: &[T], times: usize) {
            to.clear();
            for _ in 0..times {
                to.extend_from_slice(from);
            }
        }
        repeat(&mut self.input_ids, &text.input_ids, times);
        repeat(&mut self.attention_mask, &text.attention_mask, times);
        repeat(&mut self.token_type_ids, &text.token_type_ids, times);
        repeat(&mut self.features, &text.features, times);
    }
}

impl GroundingDino {
    /// Loads the `detector` file of a bundle and checks it, also against the bundle's text encoder and resize rule.
    ///
    /// # Errors
    /// When the bundle is of another kind, or the file is missing, broken or against the contract, or does not belong to
    /// the rest of the bundle.
    pub fn load(bundle: &Bundle, options: &ModelOptions) -> Result<Self, InferenceError> {
        bundle.expect_kind(BundleKind::GroundingDino)?;
        let model = Model::load(bundle.model("detector", options.provider)?, &["logits", "pred_boxes"], options)?;
        let pixels =
            contract::input(&model, "pixel_values", Element::F32, &[Dim::Batch, Dim::Is(3), Dim::Any, Dim::Any])?;
        for name in ["input_ids", "attention_mask"] {
            contract::input(&model, name, Element::I64, &[Dim::Batch, Dim::Open])?;
        }
        let fused = model.inputs().iter().any(|i| i.name == "token_type_ids");
        let feature_size = if fused {
            contract::input(&model, "token_type_ids", Element::I64, &[Dim::Batch, Dim::Open])?;
            contract::no_other_inputs(
                &model,
                &["pixel_values", "pixel_mask", "input_ids", "attention_mask", "token_type_ids"],
            )?;
            None
        } else {
            let features =
                contract::input(&model, "text_features", Element::F32, &[Dim::Batch, Dim::Open, Dim::Fixed])?;
            let size = features.shape.last().copied().flatten();
            contract::no_other_inputs(
                &model,
                &["pixel_values", "pixel_mask", "input_ids", "attention_mask", "text_features"],
            )?;
            size
        };
        let input = input_size(&model, pixels, (2, 3), bundle.resize)?;
        let (height, width) = (Dim::Is(input.height as usize), Dim::Is(input.width as usize));
        contract::input(&model, "pixel_mask", Element::I64, &[Dim::Batch, height, width])?;
        let logits = contract::output(&model, "logits", Element::F32, &[Dim::Batch, Dim::Any, Dim::Is(LOGIT_COLUMNS)])?;
        let boxes = contract::output(&model, "pred_boxes", Element::F32, &[Dim::Batch, Dim::Any, Dim::Is(4)])?;
        let max_batch = contract::max_batch(model.inputs().iter().chain([logits, boxes]));
        if let Some(size) = feature_size {
            check_text_encoder(bundle, &model, size)?;
        }

        let rule = bundle.resize.unwrap_or(ResizeRule::Letterbox { size: input });
        // The longer side never becomes shorter than that: no image would ever fit.
        if let ResizeRule::ShortestEdge { shortest, .. } = rule
            && input.width.max(input.height) < shortest
        {
            let expected = format!("a side of at least {shortest} (shortest_edge of the manifest's preprocessing)");
            return Err(contract::error(&model, "input size", &expected, &input.to_string()));
        }
        let preprocessor = image_input::preprocessor(bundle.preprocess(rule), options)?;
        Ok(Self {
            preprocessor,
            input,
            pixels: Vec::new(),
            pixel_mask: Vec::new(),
            masked: Vec::new(),
            prepared: 0,
            repeated: Repeated::default(),
            max_batch,
            model,
            feature_size,
        })
    }

    /// Size of the detector's input.
    #[must_use]
    pub fn input_size(&self) -> ImageSize {
        self.input
    }
}

/// Checks that a bundle has a text encoder that puts out what its detector, a split one, takes: features of `size`. Where
/// the text encoder's file does not say what it puts out, the first run tells.
fn check_text_encoder(bundle: &Bundle, detector: &Model, size: usize) -> Result<(), InferenceError> {
    if bundle.optional_file("text_encoder").is_none() {
        let reason = format!("files: text_encoder is missing, but {} takes text_features", detector.name());
        return Err(bundle.contradiction(reason));
    }
    // Text is encoded on the processor, wherever the detector runs.
    let path = bundle.model("text_encoder", Provider::Cpu)?;
    let shape = declared::output_shape(path, "text_features")
        .map_err(|source| InferenceError::Io { path: path.to_path_buf(), source })?;
    let found = shape.and_then(|shape| shape.last().copied().flatten());
    match found.filter(|found| *found != size) {
        None => Ok(()),
        Some(found) => {
            let found = format!("{found} in output text_features of {}", path.display());
            Err(contract::error(detector, "width of input text_features", &size.to_string(), &found))
        }
    }
}

impl Detector for GroundingDino {
    fn runs_on(&self) -> &str {
        self.model.runs_on()
    }

    fn max_batch(&self) -> usize {
        self.max_batch
    }

    fn prepare(&mut self, images: &[&RgbImage]) -> Result<(), InferenceError> {
        let area = self.input.area();
        self.prepared = 0;
        if self.masked.len() < images.len() {
            self.pixels.resize(images.len() * 3 * area, 0.0);
            self.pixel_mask.resize(images.len() * area, 0);
            self.masked.resize(images.len(), None);
        }
        let pixels = self.pixels.chunks_exact_mut(3 * area);
        let masks = self.pixel_mask.chunks_exact_mut(area).zip(&mut self.masked);
        for ((image, pixels), (mask, masked)) in images.iter().zip(pixels).zip(masks) {
            let placement = self
                .preprocessor
                .run_in(image, self.input, pixels, *masked)
                .map_err(|reason| InferenceError::Preprocess(format!("{}: {reason}", self.model.name())))?;
            if *masked != Some(placement) {
                placement.fill_pixel_mask(mask);
                *masked = Some(placement);
            }
        }
        self.prepared = images.len();
        Ok(())
    }

    fn detect(&mut self, text: &EncodedText, out: &mut Vec<RawDetections>) -> Result<(), InferenceError> {
        let (input, images) = (self.input, self.prepared);
        let (height, width) = (input.height as usize, input.width as usize);
        if images == 0 {
            return Err(InferenceError::Preprocess(format!("{}: no image was prepared", self.model.name())));
        }
        if self.feature_size.is_some_and(|size| size != text.feature_size) {
            return Err(InferenceError::Contract {
                model: self.model.name().to_owned(),
                what: "width of text_features".into(),
                expected: self.feature_size.unwrap_or_default().to_string(),
                found: format!("{} from the text encoder", text.feature_size),
            });
        }
        let (ids, mask, types, values) = if images == 1 {
            (&text.input_ids, &text.attention_mask, &text.token_type_ids, &text.features)
        } else {
            self.repeated.fill(text, images);
            let Repeated { input_ids, attention_mask, token_type_ids, features } = &self.repeated;
            (input_ids, attention_mask, token_type_ids, features)
        };
        let area = images * input.area();
        let (pixels, pixel_mask) = (&self.pixels[..3 * area], &self.pixel_mask[..area]);
        let tokens = [images, text.len()];
        let features = [images, text.len(), text.feature_size];
        let last = match self.feature_size {
            Some(_) => ("text_features", Input::F32(&features, values)),
            None => ("token_type_ids", Input::I64(&tokens, types)),
        };
        let outputs = self.model.run(&[
            ("pixel_values", Input::F32(&[images, 3, height, width], pixels)),
            ("pixel_mask", Input::I64(&[images, height, width], pixel_mask)),
            ("input_ids", Input::I64(&tokens, ids)),
            ("attention_mask", Input::I64(&tokens, mask)),
            last,
        ])?;
        let (logits_shape, logits) = outputs.f32("logits")?;
        let (boxes_shape, boxes) = outputs.f32("pred_boxes")?;
        let queries = contract::size(boxes_shape, 1);
        contract::shape(outputs.model(), "logits", logits_shape, &[images, queries, LOGIT_COLUMNS])?;
        contract::shape(outputs.model(), "pred_boxes", boxes_shape, &[images, queries, 4])?;
        out.resize_with(images, RawDetections::default);
        let logits = logits.chunks_exact((queries * LOGIT_COLUMNS).max(1));
        let boxes = boxes.chunks_exact((queries * 4).max(1));
        for (out, (logits, boxes)) in out.iter_mut().zip(logits.zip(boxes)) {
            out.queries = queries;
            out.columns = text.len().min(LOGIT_COLUMNS);
            out.logits.clear();
            for row in logits.chunks_exact(LOGIT_COLUMNS) {
                out.logits.extend_from_slice(row.get(..out.columns).unwrap_or_default());
            }
            out.boxes.clear();
            out.boxes.extend(boxes.as_chunks::<4>().0.iter().map(|&[cx, cy, w, h]| CenterBox { cx, cy, w, h }));
        }
        Ok(())
    }
}
