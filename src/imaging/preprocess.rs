//! From RGB pixels to a model's input, and the map between the two coordinate frames.

use super::resize::{Affine, ResizeFilter, Resizer};
use crate::types::{ImageSize, ModelPoint, PixelPoint, RgbImage};

/// How the image is fitted to the model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeRule {
    /// Aspect kept, scaled to fit `size`, sides rounded to nearest; at the top left, the rest of `size` is padding.
    Letterbox {
        /// Size of the input.
        size: ImageSize,
    },
    /// The shorter side becomes `shortest`, unless the longer one would exceed `longest`; aspect kept, no padding.
    /// Rounded exactly as Hugging Face's `GroundingDinoImageProcessor` rounds (800 and 1333 there).
    ShortestEdge {
        /// Wanted length of the shorter side.
        shortest: u32,
        /// Limit of the longer side.
        longest: u32,
    },
    /// Resized to `size`; the aspect may change.
    Exact {
        /// Size of the input.
        size: ImageSize,
    },
    /// The longer side becomes `side`, sides rounded to nearest (SAM's `ResizeLongestSide`); at the top left of an input
    /// whose sides are rounded up to multiples of `multiple`, and at most `side`.
    LongestSide {
        /// Longer side of the resized image.
        side: u32,
        /// With `side` itself the input is SAM's square.
        multiple: u32,
    },
}

/// A model's preprocessing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocess {
    /// How the image is fitted.
    pub resize: ResizeRule,
    /// How samples between pixels are made.
    pub filter: ResizeFilter,
    /// Subtracted from each channel (RGB, 0..1 scale).
    pub mean: [f32; 3],
    /// Divides each channel afterwards (RGB, 0..1 scale).
    pub std: [f32; 3],
}

/// Where an image lies in a model's input: resized to `resized`, in the top-left corner of `input`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Size of the image.
    pub image: ImageSize,
    /// Size of the image after resizing, the valid part of the input.
    pub resized: ImageSize,
    /// Size of the input, padding included.
    pub input: ImageSize,
}

/// Why an image could not be preprocessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PreprocessError {
    /// An image or an input without pixels.
    #[error("expected an image and an input with pixels; found image {image} and input {input}")]
    Empty {
        /// Size of the image.
        image: ImageSize,
        /// Size of the input by the rule.
        input: ImageSize,
    },
    /// The resized image does not fit.
    #[error("expected an image that is at most {input} after resizing, found one of {image}, which becomes {resized}")]
    TooLarge {
        /// Size of the image.
        image: ImageSize,
        /// Its size after resizing.
        resized: ImageSize,
        /// Size of the input.
        input: ImageSize,
    },
    /// The image's buffer does not match its size.
    #[error("expected {expected} bytes of RGB pixels; found {found}")]
    ImageLength {
        /// Bytes for its size.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// The output buffer does not match the input's size.
    #[error("expected room for {expected} values (3 planes of {input}); found {found}")]
    OutputLength {
        /// Size of the input.
        input: ImageSize,
        /// Values needed.
        expected: usize,
        /// Room there is.
        found: usize,
    },
}

/// `value` rounded half up, as a side of at least one pixel.
fn side(value: f64) -> u32 {
    ((value + 0.5).floor() as u32).max(1)
}

impl ResizeRule {
    /// Where an image of size `image` goes. Sides of the result are at least 1 for images that have pixels.
    #[must_use]
    pub fn placement(&self, image: ImageSize) -> Placement {
        let (width, height) = (f64::from(image.width), f64::from(image.height));
        let (resized, input) = match *self {
            Self::Exact { size } => (size, size),
            Self::Letterbox { size } => {
                let scale = (f64::from(size.width) / width).min(f64::from(size.height) / height);
                let fitted = ImageSize::new(side(width * scale).min(size.width), side(height * scale).min(size.height));
                (fitted, size)
            }
            Self::LongestSide { side: longest, multiple } => {
                let scale = f64::from(longest) / width.max(height);
                let fitted = ImageSize::new(side(width * scale).min(longest), side(height * scale).min(longest));
                let padded = |side: u32| side.div_ceil(multiple.max(1)).saturating_mul(multiple.max(1)).min(longest);
                (fitted, ImageSize::new(padded(fitted.width), padded(fitted.height)))
            }
            Self::ShortestEdge { shortest, longest } => {
                let resized = shortest_edge(image, shortest, longest);
                (resized, resized)
            }
        };
        Placement { image, resized, input }
    }
}

/// Hugging Face's `get_size_with_aspect_ratio`: the limited short side is rounded half to even, the other side is
/// computed from the unrounded one and truncated.
fn shortest_edge(image: ImageSize, shortest: u32, longest: u32) -> ImageSize {
    let (width, height) = (f64::from(image.width), f64::from(image.height));
    let (short, long) = (width.min(height), width.max(height));
    let mut raw = f64::from(shortest);
    let mut size = shortest;
    if long / short * raw > f64::from(longest) {
        raw = f64::from(longest) * short / long;
        size = raw.round_ties_even() as u32;
    }
    let other = |length: f64, across: f64| ((raw * length / across) as u32).max(1);
    let size = size.max(1);
    if image.width.min(image.height) == size {
        image
    } else if image.width < image.height {
        ImageSize::new(size, other(height, width))
    } else {
        ImageSize::new(other(width, height), size)
    }
}

impl Placement {
    /// A point of the image in the model's input, scaled per axis (as SAM's `apply_coords`).
    #[must_use]
    pub fn to_model(&self, point: PixelPoint) -> ModelPoint {
        ModelPoint {
            x: scaled(point.x, self.resized.width, self.image.width),
            y: scaled(point.y, self.resized.height, self.image.height),
        }
    }

    /// A point of the model's input in the image; the inverse of [`Self::to_model`]. Points in the padding fall outside
    /// the image.
    #[must_use]
    pub fn to_image(&self, point: ModelPoint) -> PixelPoint {
        PixelPoint {
            x: scaled(point.x, self.image.width, self.resized.width),
            y: scaled(point.y, self.image.height, self.resized.height),
        }
    }

    /// Writes Grounding DINO's `pixel_mask` (`[H, W]` of the input): 1 where the image is, 0 in the padding. Values
    /// beyond the input's area are left alone.
    pub fn fill_pixel_mask(&self, mask: &mut [i64]) {
        let width = self.resized.width as usize;
        for (y, row) in mask.chunks_exact_mut((self.input.width as usize).max(1)).enumerate() {
            let valid = if y < self.resized.height as usize { width } else { 0 };
            let (image, padding) = row.split_at_mut(valid.min(row.len()));
            image.fill(1);
            padding.fill(0);
        }
    }

    /// Values of the model's input: three planes of `input`.
    #[must_use]
    pub const fn input_len(&self) -> usize {
        3 * self.input.area()
    }
}

fn scaled(value: f32, to: u32, from: u32) -> f32 {
    (f64::from(value) * (f64::from(to) / f64::from(from))) as f32
}

/// Preprocesses images one after another, reusing weights and buffers.
#[derive(Debug)]
pub struct Preprocessor {
    config: Preprocess,
    affine: Affine,
    resizer: Resizer,
}

impl Preprocessor {
    /// A preprocessor for one model.
    #[must_use]
    pub fn new(config: Preprocess) -> Self {
        // (v/255 - mean)/std in one multiplication and one addition, rounded once each from f64.
        let mut affine = Affine { scale: [0.0; 3], offset: [0.0; 3] };
        for channel in 0..3 {
            let (mean, std) = (f64::from(config.mean[channel]), f64::from(config.std[channel]));
            affine.scale[channel] = (1.0 / (255.0 * std)) as f32;
            affine.offset[channel] = (-mean / std) as f32;
        }
        Self { config, affine, resizer: Resizer::new(config.filter) }
    }

    /// Shares every image among `threads`, the caller's included; what they make does not depend on their number.
    ///
    /// # Errors
    /// When a thread cannot start.
    pub fn with_threads(self, threads: usize) -> std::io::Result<Self> {
        Ok(Self { resizer: self.resizer.with_threads(threads)?, ..self })
    }

    /// What it was made with.
    #[must_use]
    pub const fn config(&self) -> &Preprocess {
        &self.config
    }

    /// Resizes `image` (as Pillow's antialiased resampling, to the bit, but for bilinear reductions, where a level may differ
    /// by one: they begin with the other axis), normalises it and writes it to `out` as
    /// `[3, H, W]` in RGB order; padding is 0 after normalising. `H` and `W` are those of
    /// [`ResizeRule::placement`]'s `input`, and `out` must have exactly that room.
    ///
    /// # Errors
    /// [`PreprocessError`], where a size is empty or a buffer has another length.
    pub fn run(&mut self, image: &RgbImage, out: &mut [f32]) -> Result<Placement, PreprocessError> {
        self.run_in(image, self.config.resize.placement(image.size).input, out, None)
    }

    /// As [`Self::run`], with an input of another size than the rule's: for files that only take one, and for images
    /// of different shapes that are to be run together. Where the image lies as it does in `before`, the result that is
    /// still in `out`, the padding is left alone.
    ///
    /// # Errors
    /// As [`Self::run`], and where the resized image does not fit into `input`.
    pub fn run_in(
        &mut self,
        image: &RgbImage,
        input: ImageSize,
        out: &mut [f32],
        before: Option<Placement>,
    ) -> Result<Placement, PreprocessError> {
        let placement = Placement { input, ..self.config.resize.placement(image.size) };
        let resized = placement.resized;
        if image.size.area() == 0 || resized.area() == 0 {
            return Err(PreprocessError::Empty { image: image.size, input });
        }
        if resized.width > input.width || resized.height > input.height {
            return Err(PreprocessError::TooLarge { image: image.size, resized, input });
        }
        let expected = image.size.area() * 3;
        if image.data.len() != expected {
            return Err(PreprocessError::ImageLength { expected, found: image.data.len() });
        }
        if out.len() != placement.input_len() {
            let expected = placement.input_len();
            return Err(PreprocessError::OutputLength { input, expected, found: out.len() });
        }
        self.resizer.prepare(image.size, resized);
        let (stride, plane) = (input.width as usize, input.area());
        self.resizer.run(&image.data, &self.affine, out, stride, plane);
        if resized != input && before != Some(placement) {
            for plane in out.chunks_exact_mut(plane) {
                let (valid, below) = plane.split_at_mut(resized.height as usize * stride);
                below.fill(0.0);
                for row in valid.chunks_exact_mut(stride) {
                    row[resized.width as usize..].fill(0.0);
                }
            }
        }
        Ok(placement)
    }
}
