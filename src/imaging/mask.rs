//! From SAM's low-resolution logits to full-size binary masks.
//!
//! SAM's post-processing resizes the logits to the model's input, crops the padding, resizes to the image and
//! thresholds at 0, both resizes bilinear with `align_corners = false`. Each resize is linear and separable, so both
//! together are one weighting of at most four neighbouring logits per axis: the big intermediate is never made.

use super::{preprocess::Placement, simd::multiversioned};
use crate::types::{BinaryMask, ImageSize, PixelRect};

/// Logits above this are mask (SAM's `mask_threshold`).
pub const MASK_THRESHOLD: f32 = 0.0;
/// Most low-resolution samples that share in one output sample, per axis.
const TAPS: usize = 4;

/// Logits that cannot be upscaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// Too few logits, or not as many as declared.
    #[error("expected {size} logits with sides of at least {TAPS}; found {found} values")]
    LogitsLength {
        /// Declared size.
        size: ImageSize,
        /// Values there are.
        found: usize,
    },
    /// An image or an input without pixels.
    #[error("expected an image with pixels; found image {image}, resized {resized}")]
    Empty {
        /// Size of the image.
        image: ImageSize,
        /// Its size in the input.
        resized: ImageSize,
    },
}

/// Which logits make each output sample along one axis.
#[derive(Debug, Default)]
struct Blend {
    /// First of `TAPS` neighbouring logits.
    first: Vec<u32>,
    weights: Vec<[f32; TAPS]>,
}

/// Source samples and their share for output sample `at` (PyTorch's `area_pixel_compute_source_index`, in f32 as there).
fn bilinear(at: u32, input: u32, output: u32) -> [(u32, f32); 2] {
    let scale = input as f32 / output as f32;
    let source = (scale * (at as f32 + 0.5) - 0.5).max(0.0);
    let low = (source as u32).min(input - 1);
    let share = (source - low as f32).clamp(0.0, 1.0);
    [(low, 1.0 - share), ((low + 1).min(input - 1), share)]
}

impl Blend {
    /// Logits → input → cropped to `resized` → image, along one axis. No argument may be 0, `low` at least [`TAPS`].
    fn new(low: u32, input: u32, resized: u32, image: u32) -> Self {
        let mut blend = Self::default();
        for at in 0..image {
            let [near, far] = bilinear(at, resized, image);
            let sources = [(bilinear(near.0, low, input), near.1), (bilinear(far.0, low, input), far.1)];
            let first = sources[0].0[0].0.min(low - TAPS as u32);
            let mut weights = [0.0; TAPS];
            for (pair, share) in sources {
                for (sample, weight) in pair {
                    // Inputs smaller than the logits would spread wider than the taps; the end ones stand in.
                    weights[((sample - first) as usize).min(TAPS - 1)] += share * weight;
                }
            }
            blend.first.push(first);
            blend.weights.push(weights);
        }
        blend
    }

    /// The output samples that any of the logits `from..to` takes part in, within `limit`.
    fn touched(&self, from: u32, to: u32, limit: (u32, u32)) -> (u32, u32) {
        let start = self.first.partition_point(|&first| first + TAPS as u32 <= from) as u32;
        let end = self.first.partition_point(|&first| first < to) as u32;
        (start.max(limit.0), end.min(limit.1))
    }
}

/// Upscales masks one after another, reusing weights and buffers.
#[derive(Debug, Default)]
pub struct MaskUpscaler {
    size: ImageSize,
    placement: Option<Placement>,
    columns: Blend,
    rows: Blend,
    /// Logits resized along x: rows of the region's width.
    wide: Vec<f32>,
}

impl MaskUpscaler {
    /// An upscaler; it takes its sizes from what it is given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Turns the `logits` of one mask, rows and columns of `size`, into `out`, a mask over the whole image of `placement`
    /// (whose `input` the logits cover). Pixels outside `region` stay unset; `None` is the whole image. The time taken
    /// falls with the size of the object.
    ///
    /// # Errors
    /// [`MaskError`], where the number of logits is wrong or a size is empty.
    pub fn upscale(
        &mut self,
        logits: &[f32],
        size: ImageSize,
        placement: &Placement,
        region: Option<PixelRect>,
        out: &mut BinaryMask,
    ) -> Result<(), MaskError> {
        let columns = size.width as usize;
        if columns.min(size.height as usize) < TAPS || logits.len() != size.area() {
            return Err(MaskError::LogitsLength { size, found: logits.len() });
        }
        let Placement { image, resized, input } = *placement;
        if image.area() == 0 || resized.area() == 0 || input.area() == 0 {
            return Err(MaskError::Empty { image, resized });
        }
        if self.size != size || self.placement != Some(*placement) {
            self.columns = Blend::new(size.width, input.width, resized.width, image.width);
            self.rows = Blend::new(size.height, input.height, resized.height, image.height);
            self.size = size;
            self.placement = Some(*placement);
        }
        out.reset(image);
        // Every weight is positive, so only logits above the threshold can lift a pixel above it.
        let Some(positive) = positive_cells(logits, columns) else { return Ok(()) };
        let limit = region.unwrap_or(PixelRect::full(image)).intersection(&PixelRect::full(image));
        let (x0, x1) = self.columns.touched(positive.x0, positive.x1, (limit.x0, limit.x1));
        let (y0, y1) = self.rows.touched(positive.y0, positive.y1, (limit.y0, limit.y1));
        let rect = PixelRect { x0, y0, x1, y1 };
        if rect.is_empty() {
            return Ok(());
        }
        let width = rect.width() as usize;
        let first_row = self.rows.first[y0 as usize] as usize;
        let last_row = self.rows.first[y1 as usize - 1] as usize + TAPS;
        self.widen(&logits[first_row * columns..last_row * columns], columns, rect);
        let (blend, wide) = (&self.rows, &self.wide);
        out.write_rows(rect, |y, bits| {
            let start = blend.first[y as usize] as usize - first_row;
            let rows = std::array::from_fn(|tap| &wide[(start + tap) * width..][..width]);
            threshold_row(rows, blend.weights[y as usize], bits);
        });
        Ok(())
    }

    /// Resizes rows of logits along x to the columns of `rect`.
    fn widen(&mut self, logits: &[f32], columns: usize, rect: PixelRect) {
        let width = rect.width() as usize;
        let rows = logits.len() / columns;
        if self.wide.len() < rows * width {
            self.wide.resize(rows * width, 0.0);
        }
        let span = rect.x0 as usize..rect.x1 as usize;
        for (wide, row) in self.wide.chunks_exact_mut(width).zip(logits.chunks_exact(columns)) {
            let blends = self.columns.first[span.clone()].iter().zip(&self.columns.weights[span.clone()]);
            for (value, (&first, weights)) in wide.iter_mut().zip(blends) {
                let taps = &row[first as usize..][..TAPS];
                *value = taps[0] * weights[0] + taps[1] * weights[1] + taps[2] * weights[2] + taps[3] * weights[3];
            }
        }
    }
}

multiversioned! {
    /// Blends rows of logits and marks what is above the threshold. All rows are as long as `bits`.
    fn threshold_row(rows: [&[f32]; TAPS], weights: [f32; TAPS], bits: &mut [u8]) {
        let [a, b, c, d] = rows.map(|row| &row[..bits.len()]);
        for (x, bit) in bits.iter_mut().enumerate() {
            let value = a[x] * weights[0] + b[x] * weights[1] + c[x] * weights[2] + d[x] * weights[3];
            *bit = u8::from(value > MASK_THRESHOLD);
        }
    }
}

multiversioned! {
    /// Whether any logit is above the threshold. Looks at all of them: that is faster than stopping early.
    fn any_positive(logits: &[f32], any: &mut bool) {
        *any = logits.iter().fold(false, |any, &value| any | (value > MASK_THRESHOLD));
    }
}

/// The smallest rectangle around the logits above the threshold.
fn positive_cells(logits: &[f32], columns: usize) -> Option<PixelRect> {
    let mut found: Option<PixelRect> = None;
    for (y, row) in logits.chunks_exact(columns).enumerate() {
        let mut any = false;
        any_positive(row, &mut any);
        let above = |value: &f32| *value > MASK_THRESHOLD;
        if any && let (Some(first), Some(last)) = (row.iter().position(above), row.iter().rposition(above)) {
            let (x0, x1, y) = (first as u32, last as u32 + 1, y as u32);
            let rect = found.get_or_insert(PixelRect { x0, y0: y, x1, y1: y + 1 });
            rect.x0 = rect.x0.min(x0);
            rect.x1 = rect.x1.max(x1);
            rect.y1 = y + 1;
        }
    }
    found
}
