//! Segment Anything (Kirillov et al. 2023) through ONNX: image encoder and mask decoder.
//!
//! - encoder: one input, whatever its name, f32[b,3,S,S] → `image_embeddings` f32[b,C,E,E];
//! - decoder (`export_onnx_model.py` of the authors): `image_embeddings` f32[1,C,E,E], `point_coords` f32[B,N,2],
//!   `point_labels` f32[B,N], `mask_input` f32[·,1,L,L], `has_mask_input` f32[·], `orig_im_size` f32[2] →
//!   `masks` f32[B,M,H,W], `iou_predictions` f32[B,M], `low_res_masks` f32[B,M,L,L].
//!
//! M is 1 or 4. Sizes are read from the files; S is the manifest's where the file leaves it open. Files that leave all of
//! S, E and L open may be given less than a square (`longest_side` of the manifest): the resized image without most of
//! the padding. Along each axis L is then 4 E, as in the authors' files. `masks` is never computed (see
//! [`super::prune`]): bringing M masks to image size inside the graph costs more than all the rest, bringing the one that
//! is wanted there ourselves costs little.

use std::sync::Arc;

use super::{
    Bundle, BundleKind, ImageEmbedding, ImageEncoder, InferenceError, LowResMasks, MaskDecoder, PromptBatch, contract,
    contract::Dim,
    image_input::{self, input_size},
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
    /// What it puts out, as the file declares it.
    embeddings: TensorSpec,
    /// Of the images prepared, one behind the other. Of the largest batch so far: it never shrinks.
    pixels: Vec<f32>,
    /// The input that all of them fit in.
    size: ImageSize,
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
        let model = Model::load(bundle.model("image_encoder", options.provider)?, &["image_embeddings"], options)?;
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
        let rule = ResizeRule::LongestSide { side: size.width, multiple: size.width };
        Ok(Self {
            preprocessor: image_input::preprocessor(bundle.preprocess(rule), options)?,
            input: pixels.name.clone(),
            embeddings: embeddings.clone(),
            pixels: Vec::new(),
            placements: Vec::new(),
            max_batch: contract::max_batch([pixels, embeddings]),
            size,
            model,
        })
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
        let before = std::mem::take(&mut self.placements);
        let rule = self.preprocessor.config().resize;
        let inputs = images.iter().map(|image| rule.placement(image.size).input);
        self.size = inputs.fold(ImageSize::default(), |all, one| {
            ImageSize::new(all.width.max(one.width), all.height.max(one.height))
        });
        let length = 3 * self.size.area();
        self.pixels.resize(self.pixels.len().max(images.len() * length), 0.0);
        for (at, (image, pixels)) in images.iter().zip(self.pixels.chunks_exact_mut(length.max(1))).enumerate() {
            match self.preprocessor.run_in(image, self.size, pixels, before.get(at).copied()) {
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
        let shape = [images, 3, self.size.height as usize, self.size.width as usize];
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
    /// C, rows and columns of the embedding it takes, where the file says.
    embedding: [Option<usize>; 3],
    /// Rows and columns of the low-resolution masks, where the file says.
    low_res: [Option<usize>; 2],
    /// Masks per prompt M, where the file says.
    masks: Option<usize>,
    /// Most prompts of one run.
    max_batch: usize,
    /// Zeros f32[1,1,L,L]: no mask prompt. Of the largest so far: it never shrinks.
    mask_input: Vec<f32>,
}

/// Places of a low-resolution mask for one of the embedding, along each axis (256 and 64 in the authors' files).
const LOW_RES_PER_CELL: usize = 4;

const DECODER_INPUTS: [&str; 6] =
    ["image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"];

impl SamMaskDecoder {
    /// Loads the `mask_decoder` file of a bundle and checks it.
    ///
    /// # Errors
    /// When the bundle is of another kind, or the file is missing, broken or against the contract.
    pub fn load(bundle: &Bundle, options: &ModelOptions) -> Result<Self, InferenceError> {
        bundle.expect_kind(BundleKind::Sam)?;
        let model = Model::load(
            bundle.model("mask_decoder", options.provider)?,
            &["low_res_masks", "iou_predictions"],
            options,
        )?;
        let taken =
            contract::input(&model, "image_embeddings", Element::F32, &[Dim::Is(1), Dim::Fixed, Dim::Any, Dim::Any])?;
        let embedding = [1, 2, 3].map(|axis| taken.shape.get(axis).copied().flatten());
        let coords = contract::input(&model, "point_coords", Element::F32, &[Dim::Batch, Dim::Open, Dim::Is(2)])?;
        let labels = contract::input(&model, "point_labels", Element::F32, &[Dim::Batch, Dim::Open])?;
        let mask = contract::input(&model, "mask_input", Element::F32, &[Dim::Is(1), Dim::Is(1), Dim::Any, Dim::Any])?;
        let low_res = [2, 3].map(|axis| mask.shape.get(axis).copied().flatten());
        let [rows, columns] = low_res.map(|side| side.map_or(Dim::Any, Dim::Is));
        contract::input(&model, "has_mask_input", Element::F32, &[Dim::Is(1)])?;
        contract::input(&model, "orig_im_size", Element::F32, &[Dim::Is(2)])?;
        contract::no_other_inputs(&model, &DECODER_INPUTS)?;
        let scores = contract::output(&model, "iou_predictions", Element::F32, &[Dim::Batch, Dim::Any])?;
        let masks = scores.shape.get(1).copied().flatten();
        let logits = contract::output(
            &model,
            "low_res_masks",
            Element::F32,
            &[Dim::Batch, masks.map_or(Dim::Any, Dim::Is), rows, columns],
        )?;
        let max_batch = contract::max_batch([coords, labels, scores, logits]);
        let masks = masks.or_else(|| logits.shape.get(1).copied().flatten());
        if let Some(masks) = masks {
            check_masks(model.name(), masks)?;
        }
        Ok(Self { model, embedding, low_res, masks, max_batch, mask_input: Vec::new() })
    }

    /// Checks that `encoder` puts out what this decoder takes. What one of the files leaves open is checked with every run.
    ///
    /// # Errors
    /// When it does not, or may put out other shapes than the one that this decoder takes.
    pub fn check_encoder(&self, encoder: &SamImageEncoder) -> Result<(), InferenceError> {
        let taken = self.embedding.map(|size| size.map_or_else(|| "*".to_owned(), |size| size.to_string())).join(",");
        let declared = encoder.embeddings.shape.iter().skip(1);
        if !declared.zip(self.embedding).all(|(found, taken)| found.zip(taken).is_none_or(|(f, t)| f == t)) {
            let expected = format!("[*,{taken}], which {} takes", self.model.name());
            return Err(contract::error(
                &encoder.model,
                "output image_embeddings",
                &expected,
                &encoder.embeddings.described,
            ));
        }
        let [_, rows, columns] = self.embedding;
        let fixed = [rows, columns, self.low_res[0], self.low_res[1]].iter().any(Option::is_some);
        match encoder.preprocessor.config().resize {
            ResizeRule::LongestSide { side, multiple } if multiple < side && fixed => {
                let expected =
                    format!("rows and columns left open (multiple = {multiple} of the manifest's preprocessing)");
                let found = format!("[1,{taken}], masks of {:?}", self.low_res);
                Err(contract::error(&self.model, "inputs image_embeddings and mask_input", &expected, &found))
            }
            _ => Ok(()),
        }
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
        let (shape, values) = embedding.batch.as_f32()?;
        let [channels, rows, columns] =
            [0, 1, 2].map(|at| self.embedding[at].unwrap_or_else(|| contract::size(shape, at + 1)));
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
        let [high, wide] = [(0, rows), (1, columns)]
            .map(|(axis, cells)| self.low_res[axis].unwrap_or(cells.saturating_mul(LOW_RES_PER_CELL)));
        self.mask_input.resize(self.mask_input.len().max(high * wide), 0.0);
        let mut outputs = self.model.run(&[
            ("image_embeddings", Input::F32(&one, values)),
            ("point_coords", Input::F32(&[prompts.prompts, prompts.points, 2], &prompts.coords)),
            ("point_labels", Input::F32(&[prompts.prompts, prompts.points], &prompts.labels)),
            ("mask_input", Input::F32(&[1, 1, high, wide], &self.mask_input[..high * wide])),
            ("has_mask_input", Input::F32(&[1], &[0.0])),
            ("orig_im_size", Input::F32(&[2], &[image.height as f32, image.width as f32])),
        ])?;
        let (scores_shape, scores) = outputs.f32("iou_predictions")?;
        let masks = self.masks.unwrap_or_else(|| contract::size(scores_shape, 1));
        check_masks(outputs.model(), masks)?;
        contract::shape(outputs.model(), "iou_predictions", scores_shape, &[prompts.prompts, masks])?;
        let (masks_shape, _) = outputs.f32("low_res_masks")?;
        contract::shape(outputs.model(), "low_res_masks", masks_shape, &[prompts.prompts, masks, high, wide])?;
        out.size = ImageSize::new(wide as u32, high as u32);
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
