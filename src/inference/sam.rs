//! Segment Anything (Kirillov et al. 2023) through ONNX: image encoder and mask decoder.
//!
//! - encoder: one input, whatever its name, f32[b,3,S,S] → `image_embeddings` f32[b,C,E,E];
//! - decoder (`export_onnx_model.py` of the authors): `image_embeddings` f32[1,C,E,E], `point_coords` f32[B,N,2],
//!   `point_labels` f32[B,N], `mask_input` f32[·,1,L,L], `has_mask_input` f32[·], `orig_im_size` f32[2] →
//!   `masks` f32[B,M,H,W], `iou_predictions` f32[B,M], `low_res_masks` f32[B,M,L,L].
//!
//! M is 1 or 4. Sizes are read from the files; S is the manifest's where the file leaves it open. `masks` is never
//! computed (see [`super::prune`]): bringing M masks to image size inside the graph costs more than all the rest, bringing
//! the one that is wanted there ourselves costs little.

use std::sync::Arc;

use super::{
    Bundle, BundleKind, ImageEmbedding, ImageEncoder, InferenceError, LowResMasks, MaskDecoder, PromptBatch, contract,
    contract::Dim,
    image_input::input_size,
    ort::{Element, Input, Model, ModelOptions, TensorSpec},
};
use crate::{
    imaging::{Placement, Preprocessor, ResizeRule},
    types::{ImageSize, RgbImage},
};

/// SAM's image encoder.
pub struct SamImageEncoder {
    model: Model,
    preprocessor: Preprocessor,
    /// Name of the image input.
    input: String,
    side: usize,
    /// What it puts out, as the file declares it.
    embeddings: TensorSpec,
    /// Of the images prepared, one behind the other. Of the largest batch so far: it never shrinks.
    pixels: Vec<f32>,
    /// Where each of them is; empty when none is prepared.
    placements: Vec<Placement>,
    /// Most images of one run.
    max_batch: usize,
}

impl SamImageEncoder {
    /// Loads the `image_encoder` file of a bundle and checks it.
    ///
    /// # Errors
    /// When the bundle is of another kind, or the file is missing, broken or against the contract.
    pub fn load(bundle: &Bundle, options: &ModelOptions) -> Result<Self, InferenceError> {
        bundle.expect_kind(BundleKind::Sam)?;
        let model = Model::load(bundle.file("image_encoder")?, &["image_embeddings"], options)?;
        let [image] = model.inputs() else {
            return Err(contract::error(&model, "inputs", "exactly one", &contract::names(model.inputs())));
        };
        let pixels = contract::input(&model, &image.name, Element::F32, &[Dim::Batch, Dim::Is(3), Dim::Any, Dim::Any])?;
        let size = input_size(&model, pixels, (2, 3), bundle.resize)?;
        if size.width != size.height {
            return Err(contract::error(&model, "input size", "a square", &size.to_string()));
        }
        let embeddings =
            contract::output(&model, "image_embeddings", Element::F32, &[Dim::Batch, Dim::Any, Dim::Any, Dim::Any])?;
        let rule = ResizeRule::LongestSide { side: size.width };
        Ok(Self {
            preprocessor: Preprocessor::new(bundle.preprocess(rule)),
            input: pixels.name.clone(),
            embeddings: embeddings.clone(),
            pixels: Vec::new(),
            placements: Vec::new(),
            max_batch: contract::max_batch([pixels, embeddings]),
            side: size.width as usize,
            model,
        })
    }

    /// Side of the encoder's square input.
    #[must_use]
    pub fn side(&self) -> usize {
        self.side
    }
}

impl ImageEncoder for SamImageEncoder {
    fn runs_on(&self) -> &str {
        self.model.runs_on()
    }

    fn max_batch(&self) -> usize {
        self.max_batch
    }

    fn prepare(&mut self, images: &[&RgbImage]) -> Result<(), InferenceError> {
        let size = 3 * self.side * self.side;
        self.placements.clear();
        self.pixels.resize(self.pixels.len().max(images.len() * size), 0.0);
        for (image, pixels) in images.iter().zip(self.pixels.chunks_exact_mut(size)) {
            match self.preprocessor.run(image, pixels) {
                Ok(placement) => self.placements.push(placement),
                Err(error) => {
                    self.placements.clear();
                    return Err(InferenceError::Preprocess(format!("{}: {error}", self.model.name())));
                }
            }
        }
        Ok(())
    }

    fn encode(&mut self) -> Result<Vec<ImageEmbedding>, InferenceError> {
        let images = self.placements.len();
        if images == 0 {
            return Err(InferenceError::Preprocess(format!("{}: no image was prepared", self.model.name())));
        }
        let shape = [images, 3, self.side, self.side];
        let pixels = &self.pixels[..shape.iter().product()];
        let mut outputs = self.model.run(&[(self.input.as_str(), Input::F32(&shape, pixels))])?;
        let batch = Arc::new(outputs.take("image_embeddings")?);
        let embedding = |(index, &placement)| ImageEmbedding { batch: Arc::clone(&batch), index, placement };
        Ok(self.placements.iter().enumerate().map(embedding).collect())
    }
}

/// SAM's prompt encoder and mask decoder.
pub struct SamMaskDecoder {
    model: Model,
    /// C, E and E of the embedding it takes.
    embedding: [usize; 3],
    /// Side L of the low-resolution masks.
    low_res: usize,
    /// Masks per prompt M, where the file says.
    masks: Option<usize>,
    /// Most prompts of one run.
    max_batch: usize,
    /// Zeros f32[1,1,L,L]: no mask prompt.
    mask_input: Vec<f32>,
}

const DECODER_INPUTS: [&str; 6] =
    ["image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"];

impl SamMaskDecoder {
    /// Loads the `mask_decoder` file of a bundle and checks it.
    ///
    /// # Errors
    /// When the bundle is of another kind, or the file is missing, broken or against the contract.
    pub fn load(bundle: &Bundle, options: &ModelOptions) -> Result<Self, InferenceError> {
        bundle.expect_kind(BundleKind::Sam)?;
        let model = Model::load(bundle.file("mask_decoder")?, &["low_res_masks", "iou_predictions"], options)?;
        let taken = contract::input(
            &model,
            "image_embeddings",
            Element::F32,
            &[Dim::Is(1), Dim::Fixed, Dim::Fixed, Dim::Fixed],
        )?;
        let embedding = [1, 2, 3].map(|axis| taken.shape.get(axis).copied().flatten().unwrap_or_default());
        let coords = contract::input(&model, "point_coords", Element::F32, &[Dim::Batch, Dim::Open, Dim::Is(2)])?;
        let labels = contract::input(&model, "point_labels", Element::F32, &[Dim::Batch, Dim::Open])?;
        let mask =
            contract::input(&model, "mask_input", Element::F32, &[Dim::Any, Dim::Is(1), Dim::Fixed, Dim::Fixed])?;
        let low_res = mask.shape.get(2).copied().flatten().unwrap_or_default();
        contract::input(
            &model,
            "mask_input",
            Element::F32,
            &[Dim::Is(1), Dim::Is(1), Dim::Is(low_res), Dim::Is(low_res)],
        )?;
        contract::input(&model, "has_mask_input", Element::F32, &[Dim::Is(1)])?;
        contract::input(&model, "orig_im_size", Element::F32, &[Dim::Is(2)])?;
        contract::no_other_inputs(&model, &DECODER_INPUTS)?;
        let scores = contract::output(&model, "iou_predictions", Element::F32, &[Dim::Batch, Dim::Any])?;
        let masks = scores.shape.get(1).copied().flatten();
        let logits = contract::output(
            &model,
            "low_res_masks",
            Element::F32,
            &[Dim::Batch, masks.map_or(Dim::Any, Dim::Is), Dim::Is(low_res), Dim::Is(low_res)],
        )?;
        let max_batch = contract::max_batch([coords, labels, scores, logits]);
        let masks = masks.or_else(|| logits.shape.get(1).copied().flatten());
        if let Some(masks) = masks {
            check_masks(model.name(), masks)?;
        }
        Ok(Self { model, embedding, low_res, masks, max_batch, mask_input: vec![0.0; low_res * low_res] })
    }

    /// Checks that `encoder` puts out what this decoder takes. What the encoder's file leaves open is checked with every
    /// run.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_encoder(&self, encoder: &SamImageEncoder) -> Result<(), InferenceError> {
        let declared = encoder.embeddings.shape.iter().skip(1);
        if declared.zip(self.embedding).all(|(found, taken)| found.is_none_or(|found| found == taken)) {
            return Ok(());
        }
        let [channels, rows, columns] = self.embedding;
        let expected = format!("[*,{channels},{rows},{columns}], which {} takes", self.model.name());
        Err(contract::error(&encoder.model, "output image_embeddings", &expected, &encoder.embeddings.described))
    }
}

/// Checks the number of masks a prompt: [`choose_mask`] knows what they stand for where there is 1, or the 4 of SAM's
/// authors.
fn check_masks(model: &str, found: usize) -> Result<(), InferenceError> {
    if matches!(found, 1 | 4) {
        return Ok(());
    }
    Err(InferenceError::Contract {
        model: model.to_owned(),
        what: "output iou_predictions".into(),
        expected: "1 or 4 masks a prompt".into(),
        found: found.to_string(),
    })
}

impl MaskDecoder for SamMaskDecoder {
    fn runs_on(&self) -> &str {
        self.model.runs_on()
    }

    fn max_batch(&self) -> usize {
        self.max_batch
    }

    fn decode(
        &mut self,
        embedding: &ImageEmbedding,
        image: ImageSize,
        prompts: &PromptBatch,
        out: &mut LowResMasks,
    ) -> Result<(), InferenceError> {
        let side = self.low_res;
        let (shape, values) = embedding.batch.as_f32()?;
        let [channels, rows, columns] = self.embedding;
        contract::shape(
            self.model.name(),
            "image_embeddings",
            shape,
            &[contract::size(shape, 0), channels, rows, columns],
        )?;
        let one = [1, channels, rows, columns];
        let size = one.iter().product::<usize>();
        let Some(values) = values.get(embedding.index * size..(embedding.index + 1) * size) else {
            return Err(InferenceError::Contract {
                model: self.model.name().to_owned(),
                what: "batch of image_embeddings".into(),
                expected: format!("more than {}", embedding.index),
                found: contract::size(shape, 0).to_string(),
            });
        };
        let mut outputs = self.model.run(&[
            ("image_embeddings", Input::F32(&one, values)),
            ("point_coords", Input::F32(&[prompts.prompts, prompts.points, 2], &prompts.coords)),
            ("point_labels", Input::F32(&[prompts.prompts, prompts.points], &prompts.labels)),
            ("mask_input", Input::F32(&[1, 1, side, side], &self.mask_input)),
            ("has_mask_input", Input::F32(&[1], &[0.0])),
            ("orig_im_size", Input::F32(&[2], &[image.height as f32, image.width as f32])),
        ])?;
        let (scores_shape, scores) = outputs.f32("iou_predictions")?;
        let masks = self.masks.unwrap_or_else(|| contract::size(scores_shape, 1));
        check_masks(outputs.model(), masks)?;
        contract::shape(outputs.model(), "iou_predictions", scores_shape, &[prompts.prompts, masks])?;
        let (masks_shape, _) = outputs.f32("low_res_masks")?;
        contract::shape(outputs.model(), "low_res_masks", masks_shape, &[prompts.prompts, masks, side, side])?;
        out.side = side;
        out.masks = masks;
        out.chosen.clear();
        out.chosen.extend(scores.chunks_exact(masks.max(1)).map(|scores| {
            let mask = choose_mask(scores, prompts.ambiguous);
            (mask, scores.get(mask).copied().unwrap_or_default())
        }));
        out.logits = Some(outputs.take("low_res_masks")?);
        Ok(())
    }
}

/// Which of a prompt's masks to take, as SAM's authors advise: the first (trained for unambiguous prompts) for a box or
/// several points, and the best by predicted IoU of the others for a single, ambiguous point. Files with a single mask
/// leave no choice.
#[must_use]
pub fn choose_mask(scores: &[f32], ambiguous: bool) -> usize {
    if !ambiguous || scores.len() < 2 {
        return 0;
    }
    let best = scores.iter().enumerate().skip(1).max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(index, _)| index)
}
