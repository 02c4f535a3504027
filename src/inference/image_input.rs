//! Image inputs: their size, and for models with no other input the layout and element type too, as the file has them.

use super::{
    Bundle, InferenceError, contract,
    ort::{Element, Input, Model, ModelOptions, TensorSpec},
};
use crate::{
    imaging::{Preprocess, Preprocessor, ResizeRule},
    types::{ImageSize, RgbImage},
};

const CHANNELS: usize = 3;

/// Width and height of the image input `spec` of `model`, whose rows and columns are the axes `rows` and `columns`: as
/// the file fixes them, else as the manifest's resize rule gives them.
///
/// # Errors
/// When the file and the rule contradict each other, or neither of them says.
pub(super) fn input_size(
    model: &Model,
    spec: &TensorSpec,
    (rows, columns): (usize, usize),
    rule: Option<ResizeRule>,
) -> Result<ImageSize, InferenceError> {
    let side = |axis: usize| spec.shape.get(axis).copied().flatten().and_then(|side| u32::try_from(side).ok());
    let (width, height) = (side(columns), side(rows));
    let declared = width.zip(height).map(|(width, height)| ImageSize::new(width, height));
    let asked = match rule {
        Some(ResizeRule::Exact { size } | ResizeRule::Letterbox { size }) => size,
        Some(ResizeRule::LongestSide { side, multiple }) if multiple == side => ImageSize::new(side, side),
        // As many sizes as cameras have shapes: the largest of them.
        Some(ResizeRule::LongestSide { side, .. }) if width.is_none() && height.is_none() => {
            return Ok(ImageSize::new(side, side));
        }
        Some(ResizeRule::LongestSide { multiple, .. }) => {
            let expected =
                format!("height and width left open (multiple = {multiple} of the manifest's preprocessing)");
            return Err(contract::error(model, &format!("input {}", spec.name), &expected, &spec.described));
        }
        Some(ResizeRule::ShortestEdge { .. }) | None => {
            return declared.ok_or_else(|| {
                let expected = "a height and width, in the file or as the manifest's preprocessing";
                contract::error(model, &format!("input {}", spec.name), expected, &spec.described)
            });
        }
    };
    if width.is_none_or(|width| width == asked.width) && height.is_none_or(|height| height == asked.height) {
        return Ok(asked);
    }
    let expected = format!("{asked} (the manifest's preprocessing)");
    let found = declared.map_or_else(|| spec.described.clone(), |size| size.to_string());
    Err(contract::error(model, "input size", &expected, &found))
}

/// Preprocessing on as many threads as it is given.
///
/// # Errors
/// When a thread cannot start.
pub(super) fn preprocessor(config: Preprocess, options: &ModelOptions) -> Result<Preprocessor, InferenceError> {
    let threads = options.preprocess_threads;
    Preprocessor::new(config)
        .with_threads(threads)
        .map_err(|error| InferenceError::Preprocess(format!("{threads} threads: {error}")))
}

/// Order of a tensor's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// [b, 3, H, W]
    ChannelsFirst,
    /// [b, H, W, 3]
    ChannelsLast,
}

/// An image input: f32 or u8, [b,3,H,W] or [b,H,W,3]. A u8 input takes the levels 0 to 255 as they are.
pub(super) struct ImageInput {
    name: String,
    model: String,
    layout: Layout,
    bytes: bool,
    size: ImageSize,
    preprocessor: Preprocessor,
    planes: Vec<f32>,
    /// The planes in the file's layout and element type, where that is not theirs.
    interleaved: Vec<f32>,
    levels: Vec<u8>,
}

impl ImageInput {
    /// Checks `spec`, an input of `model`, against the bundle's preprocessing. Without a resize rule there the whole image
    /// is resized to the input.
    pub fn new(model: &Model, spec: &TensorSpec, bundle: &Bundle) -> Result<Self, InferenceError> {
        let what = format!("input {}", spec.name);
        let channels = |axis: usize| spec.shape.get(axis).copied().flatten() == Some(CHANNELS);
        let known = matches!(spec.element, Element::F32 | Element::U8) && spec.shape.len() == 4;
        let layout = match (known, channels(1), channels(3)) {
            (true, true, _) => Layout::ChannelsFirst,
            (true, false, true) => Layout::ChannelsLast,
            _ => {
                let expected = "f32 or u8, [*,3,H,W] or [*,H,W,3]";
                return Err(contract::error(model, &what, expected, &spec.described));
            }
        };
        if spec.shape.first().copied().flatten().is_some_and(|batch| batch != 1) {
            return Err(contract::error(model, &what, "a batch of 1, or one left open", &spec.described));
        }
        let axes = if layout == Layout::ChannelsFirst { (2, 3) } else { (1, 2) };
        let size = input_size(model, spec, axes, bundle.resize)?;
        let bytes = spec.element == Element::U8;
        if bytes && (bundle.mean != [0.0; 3] || bundle.std != [1.0; 3]) {
            let reason = "preprocessing: the model takes levels as they are (u8), so mean must be 0 and std 1";
            return Err(bundle.contradiction(reason.into()));
        }
        Ok(Self {
            name: spec.name.clone(),
            model: model.name().to_owned(),
            layout,
            bytes,
            size,
            preprocessor: Preprocessor::new(bundle.preprocess(ResizeRule::Exact { size })),
            planes: vec![0.0; CHANNELS * size.area()],
            interleaved: Vec::new(),
            levels: Vec::new(),
        })
    }

    /// Resizes and normalises `image`.
    pub fn prepare(&mut self, image: &RgbImage) -> Result<(), InferenceError> {
        self.preprocessor
            .run(image, &mut self.planes)
            .map_err(|e| InferenceError::Preprocess(format!("{}: {e}", self.model)))?;
        let area = self.size.area();
        if self.layout == Layout::ChannelsLast {
            let pixels = (0..area).flat_map(|at| (0..CHANNELS).map(move |channel| channel * area + at));
            self.interleaved.clear();
            self.interleaved.extend(pixels.filter_map(|at| self.planes.get(at)));
        }
        if self.bytes {
            let values = if self.layout == Layout::ChannelsLast { &self.interleaved } else { &self.planes };
            self.levels.clear();
            self.levels.extend(values.iter().map(|value| (value * 255.0).round() as u8));
        }
        Ok(())
    }

    /// Runs `look` with the input's name and tensor.
    pub fn with_tensor<T>(&self, look: impl FnOnce(&str, Input<'_>) -> T) -> T {
        let (height, width) = (self.size.height as usize, self.size.width as usize);
        let shape = match self.layout {
            Layout::ChannelsFirst => [1, CHANNELS, height, width],
            Layout::ChannelsLast => [1, height, width, CHANNELS],
        };
        let floats = if self.layout == Layout::ChannelsLast { &self.interleaved } else { &self.planes };
        let tensor = if self.bytes { Input::U8(&shape, &self.levels) } else { Input::F32(&shape, floats) };
        look(&self.name, tensor)
    }
}
