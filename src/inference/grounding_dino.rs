//! Grounding DINO (Liu et al. 2023) through ONNX, in the two forms its exports take.
//!
//! - *split*: `pixel_values` f32[b,3,H,W], `pixel_mask` i64[b,H,W], `input_ids` and `attention_mask` i64[b,T],
//!   `text_features` f32[b,T,D]; the text was encoded before, by a file of its own.
//! - *fused*: the same without `text_features` but with `token_type_ids`; the text runs with every frame.
//!
//! Both give `logits` f32[b,Q,256] (−∞ beyond T) and `pred_boxes` f32[b,Q,4], cx, cy, w, h relative to the unpadded
//! image. Exporters bake H and W into the graph (other sizes run, and give wrong boxes), so both must be fixed in the
//! file, and the manifest's preprocessing must produce them.

use super::{
    Bundle, BundleKind, Detector, EncodedText, InferenceError, RawDetections, contract,
    contract::Dim,
    manifest::LOGIT_COLUMNS,
    ort::{Element, Input, Model, ModelOptions},
};
use crate::{
    imaging::{Placement, Preprocessor, ResizeRule},
    types::{CenterBox, ImageSize, RgbImage},
};

/// A Grounding DINO detector.
pub struct GroundingDino {
    model: Model,
    preprocessor: Preprocessor,
    input: ImageSize,
    pixels: Vec<f32>,
    pixel_mask: Vec<i64>,
    /// What `pixel_mask` was filled for; cameras keep their size, so it is filled once.
    masked: Option<Placement>,
    /// D of a split detector.
    feature_size: Option<usize>,
}

impl GroundingDino {
    /// Loads the `detector` file of a bundle and checks it.
    ///
    /// # Errors
    /// When the bundle is of another kind, or the file is missing, broken or against the contract.
    pub fn load(bundle: &Bundle, options: &ModelOptions) -> Result<Self, InferenceError> {
        bundle.expect_kind(BundleKind::GroundingDino)?;
        let model = Model::load(bundle.file("detector")?, &["logits", "pred_boxes"], options)?;
        let pixels =
            contract::input(&model, "pixel_values", Element::F32, &[Dim::Any, Dim::Is(3), Dim::Fixed, Dim::Fixed])?;
        let fixed = |axis: usize| pixels.shape.get(axis).copied().flatten().unwrap_or_default();
        let (height, width) = (fixed(2), fixed(3));
        let input = ImageSize::new(u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0));
        contract::input(&model, "pixel_mask", Element::I64, &[Dim::Any, Dim::Is(height), Dim::Is(width)])?;
        for name in ["input_ids", "attention_mask"] {
            contract::input(&model, name, Element::I64, &[Dim::Any, Dim::Any])?;
        }
        let fused = model.inputs().iter().any(|i| i.name == "token_type_ids");
        let feature_size = if fused {
            contract::input(&model, "token_type_ids", Element::I64, &[Dim::Any, Dim::Any])?;
            contract::no_other_inputs(
                &model,
                &["pixel_values", "pixel_mask", "input_ids", "attention_mask", "token_type_ids"],
            )?;
            None
        } else {
            let features = contract::input(&model, "text_features", Element::F32, &[Dim::Any, Dim::Any, Dim::Fixed])?;
            let size = features.shape.last().copied().flatten();
            contract::no_other_inputs(
                &model,
                &["pixel_values", "pixel_mask", "input_ids", "attention_mask", "text_features"],
            )?;
            size
        };
        contract::output(&model, "logits", Element::F32, &[Dim::Any, Dim::Any, Dim::Is(LOGIT_COLUMNS)])?;
        contract::output(&model, "pred_boxes", Element::F32, &[Dim::Any, Dim::Any, Dim::Is(4)])?;

        let rule = bundle.resize.unwrap_or(ResizeRule::Letterbox { size: input });
        if let ResizeRule::Letterbox { size } | ResizeRule::Exact { size } = rule
            && size != input
        {
            return Err(InferenceError::Contract {
                model: model.name().to_owned(),
                what: "input size".into(),
                expected: format!("{size} (the manifest's preprocessing)"),
                found: input.to_string(),
            });
        }
        Ok(Self {
            preprocessor: Preprocessor::new(bundle.preprocess(rule)),
            pixels: vec![0.0; 3 * input.area()],
            pixel_mask: vec![0; input.area()],
            masked: None,
            model,
            input,
            feature_size,
        })
    }

    /// Size of the detector's input.
    #[must_use]
    pub fn input_size(&self) -> ImageSize {
        self.input
    }
}

impl Detector for GroundingDino {
    fn runs_on(&self) -> &str {
        self.model.runs_on()
    }

    fn prepare(&mut self, image: &RgbImage) -> Result<(), InferenceError> {
        let placement = self
            .preprocessor
            .run(image, &mut self.pixels)
            .map_err(|e| InferenceError::Preprocess(format!("{}: {e}", self.model.name())))?;
        if self.masked != Some(placement) {
            placement.fill_pixel_mask(&mut self.pixel_mask);
            self.masked = Some(placement);
        }
        Ok(())
    }

    fn detect(&mut self, text: &EncodedText, out: &mut RawDetections) -> Result<(), InferenceError> {
        let (height, width) = (self.input.height as usize, self.input.width as usize);
        let tokens = [1, text.len()];
        let features = [1, text.len(), text.feature_size];
        if self.feature_size.is_some_and(|size| size != text.feature_size) {
            return Err(InferenceError::Contract {
                model: self.model.name().to_owned(),
                what: "width of text_features".into(),
                expected: self.feature_size.unwrap_or_default().to_string(),
                found: format!("{} from the text encoder", text.feature_size),
            });
        }
        let last = match self.feature_size {
            Some(_) => ("text_features", Input::F32(&features, &text.features)),
            None => ("token_type_ids", Input::I64(&tokens, &text.token_type_ids)),
        };
        let outputs = self.model.run(&[
            ("pixel_values", Input::F32(&[1, 3, height, width], &self.pixels)),
            ("pixel_mask", Input::I64(&[1, height, width], &self.pixel_mask)),
            ("input_ids", Input::I64(&tokens, &text.input_ids)),
            ("attention_mask", Input::I64(&tokens, &text.attention_mask)),
            last,
        ])?;
        let (logits_shape, logits) = outputs.f32("logits")?;
        let (boxes_shape, boxes) = outputs.f32("pred_boxes")?;
        let queries = boxes_shape.get(1).map_or(0, |&q| usize::try_from(q).unwrap_or(0));
        contract::shape(outputs.model(), "logits", logits_shape, &[1, queries, LOGIT_COLUMNS])?;
        contract::shape(outputs.model(), "pred_boxes", boxes_shape, &[1, queries, 4])?;
        out.queries = queries;
        out.columns = text.len().min(LOGIT_COLUMNS);
        out.logits.clear();
        for row in logits.chunks_exact(LOGIT_COLUMNS) {
            out.logits.extend_from_slice(row.get(..out.columns).unwrap_or_default());
        }
        out.boxes.clear();
        out.boxes.extend(boxes.as_chunks::<4>().0.iter().map(|&[cx, cy, w, h]| CenterBox { cx, cy, w, h }));
        Ok(())
    }
}
