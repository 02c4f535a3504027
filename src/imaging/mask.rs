//! From SAM's low-resolution logits to full-size binary masks, and those to the instance image.
//!
//! SAM's post-processing resizes the logits to the model's input, crops the padding, resizes to the image and
//! thresholds at 0, both resizes bilinear with `align_corners = false`. Each resize is linear and separable, so both
//! together are one weighting of at most four neighbouring logits per axis: the big intermediate is never made.

use std::ops::Range;

use super::{preprocess::Placement, simd::multiversioned};
use crate::types::{BinaryMask, ImageSize, PixelRect};

/// Logits above this are mask (SAM's `mask_threshold`).
pub const MASK_THRESHOLD: f32 = 0.0;
/// Most low-resolution samples that share in one output sample, per axis.
const TAPS: usize = 4;
/// Output columns that are made at once.
const LANES: usize = 8;

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

    /// The output samples that any of the logits `from..to` takes part in.
    fn touched(&self, from: u32, to: u32) -> Range<usize> {
        let start = self.first.partition_point(|&first| first + TAPS as u32 <= from);
        start..self.first.partition_point(|&first| first < to)
    }
}

/// Which logits make [`LANES`] neighbouring output columns.
#[derive(Debug)]
struct Columns {
    /// First of as many neighbouring logits; mostly they are all that the columns take.
    base: usize,
    /// First of [`TAPS`] neighbouring logits for each column, counted from `base`.
    offsets: [u32; LANES],
    /// By tap, then column.
    weights: [[f32; LANES]; TAPS],
}

impl Columns {
    /// The blends of rows that are `low` long. Columns past the end weigh nothing.
    fn all(blend: &Blend, low: u32) -> Vec<Self> {
        let group = |(first, weights): (&[u32], &[[f32; TAPS]])| {
            let base = first[0].min(low.saturating_sub(LANES as u32));
            let last = first[first.len() - 1] - base;
            Self {
                base: base as usize,
                offsets: std::array::from_fn(|lane| first.get(lane).map_or(last, |first| first - base)),
                weights: std::array::from_fn(|tap| {
                    std::array::from_fn(|lane| weights.get(lane).map_or(0.0, |weights| weights[tap]))
                }),
            }
        };
        blend.first.chunks(LANES).zip(blend.weights.chunks(LANES)).map(group).collect()
    }

    /// First logit that takes part.
    const fn start(&self) -> usize {
        self.base + self.offsets[0] as usize
    }

    /// Logit after the last that takes part.
    const fn end(&self) -> usize {
        self.base + self.offsets[LANES - 1] as usize + TAPS
    }

    /// Makes the columns of one row.
    fn blend(&self, row: &[f32], out: &mut [f32; LANES]) {
        for (lane, value) in out.iter_mut().enumerate() {
            let taps = &row[self.base + self.offsets[lane] as usize..][..TAPS];
            let part = |tap: usize| taps[tap] * self.weights[tap][lane];
            *value = part(0) + part(1) + part(2) + part(3);
        }
    }

    /// As [`Self::blend`], to the bit.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn blend_near(&self, row: &[f32], out: &mut [f32; LANES]) {
        use std::arch::x86_64::*;
        let near = self.end() - self.base <= LANES;
        let Some(logits) = row.get(self.base..).and_then(<[f32]>::first_chunk::<LANES>).filter(|_| near) else {
            return self.blend(row, out);
        };
        // SAFETY: every pointer is to an array of eight values of 32 bits.
        let (logits, offsets, weights) = unsafe {
            let weights = self.weights.each_ref().map(|weights| _mm256_loadu_ps(weights.as_ptr()));
            (_mm256_loadu_ps(logits.as_ptr()), _mm256_loadu_si256(self.offsets.as_ptr().cast()), weights)
        };
        let part = |tap: i32, weights| {
            let taps = _mm256_permutevar8x32_ps(logits, _mm256_add_epi32(offsets, _mm256_set1_epi32(tap)));
            _mm256_mul_ps(taps, weights)
        };
        let [a, b, c, d] = weights;
        let sum = _mm256_add_ps(_mm256_add_ps(part(0, a), part(1, b)), part(2, c));
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_add_ps(sum, part(3, d))) };
    }
}

/// Resizes a row of logits along x.
fn widen(columns: &[Columns], row: &[f32], wide: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn widen_near(columns: &[Columns], row: &[f32], wide: &mut [f32]) {
        for (columns, out) in columns.iter().zip(wide.as_chunks_mut().0) {
            columns.blend_near(row, out);
        }
    }
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { widen_near(columns, row, wide) };
    }
    for (columns, out) in columns.iter().zip(wide.as_chunks_mut().0) {
        columns.blend(row, out);
    }
}

/// Upscales masks one after another, reusing weights and buffers.
#[derive(Debug, Default)]
pub struct MaskUpscaler {
    size: ImageSize,
    placement: Option<Placement>,
    columns: Vec<Columns>,
    rows: Blend,
    /// Logits resized along x: rows of the object's width, those that the present row of the mask takes. Row `n` of the
    /// logits is at `n % TAPS`.
    wide: [Vec<f32>; TAPS],
}

impl MaskUpscaler {
    /// An upscaler; it takes its sizes from what it is given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Turns the `logits` of one mask, rows and columns of `size`, into `out`, a mask over the whole image of `placement`
    /// (whose `input` the logits cover). The time taken falls with the size of the object.
    ///
    /// # Errors
    /// [`MaskError`], where the number of logits is wrong or a size is empty.
    pub fn upscale(
        &mut self,
        logits: &[f32],
        size: ImageSize,
        placement: &Placement,
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
            let columns = Blend::new(size.width, input.width, resized.width, image.width);
            self.columns = Columns::all(&columns, size.width);
            self.rows = Blend::new(size.height, input.height, resized.height, image.height);
            self.size = size;
            self.placement = Some(*placement);
        }
        out.reset(image);
        // Every weight is positive, so only logits above the threshold can lift a pixel above it.
        let Some(positive) = positive_cells(logits, columns) else { return Ok(()) };
        let start = self.columns.partition_point(|columns| columns.end() <= positive.x0 as usize);
        let end = self.columns.partition_point(|columns| columns.start() < positive.x1 as usize);
        let rows = self.rows.touched(positive.y0, positive.y1);
        let Some(touched) = self.columns.get(start..end).filter(|touched| !touched.is_empty() && !rows.is_empty())
        else {
            return Ok(());
        };
        let width = touched.len() * LANES;
        for wide in &mut self.wide {
            wide.resize(wide.len().max(width), 0.0);
        }
        let (blend, wide) = (&self.rows, &mut self.wide);
        // The last columns may lie past the edge of the image, where the mask is cut.
        let rect = PixelRect {
            x0: (start * LANES) as u32,
            y0: rows.start as u32,
            x1: (end * LANES) as u32,
            y1: rows.end as u32,
        };
        let mut widened = 0;
        out.write_rows(rect, |y, bits| {
            let first = blend.first[y as usize] as usize;
            for row in first.max(widened)..first + TAPS {
                widen(touched, &logits[row * columns..][..columns], &mut wide[row % TAPS]);
            }
            widened = first + TAPS;
            let rows = std::array::from_fn(|tap| &wide[(first + tap) % TAPS][..width]);
            threshold_row(rows, blend.weights[y as usize], bits);
        });
        Ok(())
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
    fn find_positive(logits: &[f32], found: &mut bool) {
        *found = logits.iter().fold(false, |any, &value| any | (value > MASK_THRESHOLD));
    }
}

fn any_positive(logits: &[f32]) -> bool {
    let mut found = false;
    find_positive(logits, &mut found);
    found
}

/// The smallest rectangle around the logits above the threshold.
fn positive_cells(logits: &[f32], columns: usize) -> Option<PixelRect> {
    // Columns, then rows.
    let mut found: Option<(Range<usize>, Range<usize>)> = None;
    for (y, row) in logits.chunks_exact(columns).enumerate().filter(|(_, row)| any_positive(row)) {
        let (across, down) = found.get_or_insert((columns..0, y..y));
        down.end = y + 1;
        let above = |value: &f32| *value > MASK_THRESHOLD;
        // Most rows make it no wider.
        if any_positive(&row[..across.start]) {
            across.start = row.iter().position(above).unwrap_or(across.start);
        }
        if any_positive(&row[across.end..]) {
            across.end = row.iter().rposition(above).map_or(across.end, |last| last + 1);
        }
    }
    let side = |at: usize| at as u32;
    found.map(|(x, y)| PixelRect { x0: side(x.start), y0: side(y.start), x1: side(x.end), y1: side(y.end) })
}

/// Gives the pixels of `mask` that are free, those of id 0, to the object `id`. `ids` are those of the whole image,
/// row-major.
pub fn paint_mask(mask: &BinaryMask, id: u16, ids: &mut [u16]) {
    let PixelRect { x0, x1, .. } = mask.bounds();
    let width = mask.size().width as usize;
    for (y, bits) in mask.rows() {
        let start = y as usize * width;
        let Some(ids) = ids.get_mut(start + x0 as usize..start + x1 as usize) else { return };
        paint_row(bits, id, ids);
    }
}

multiversioned! {
    /// One row of [`paint_mask`]. Without branches, so that it becomes vector code.
    fn paint_row(bits: &[u8], with: u16, ids: &mut [u16]) {
        for (&bit, id) in bits.iter().zip(ids) {
            let taken = 0u16.wrapping_sub(u16::from((bit != 0) & (*id == 0)));
            *id |= taken & with;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// To the bit, whatever the sizes: also where columns that lie together take logits that do not.
        #[test]
        fn columns_made_together_equal_each_made_alone(
            low in 4u32..300, input in 4u32..1100, resized in 1u32..1100, image in 1u32..900, seed in any::<u64>(),
        ) {
            let blend = Blend::new(low, input, resized.min(input), image);
            let columns = Columns::all(&blend, low);
            let logit = |at: u32| (seed.wrapping_mul(u64::from(at) * 2 + 1) >> 40) as f32 / 1000.0 - 8000.0;
            let row: Vec<f32> = (0..low).map(logit).collect();
            let mut wide = vec![f32::NAN; columns.len() * LANES];
            widen(&columns, &row, &mut wide);
            for (x, (&first, weights)) in blend.first.iter().zip(&blend.weights).enumerate() {
                let taps = &row[first as usize..][..TAPS];
                let [a, b, c, d] = std::array::from_fn(|tap| taps[tap] * weights[tap]);
                prop_assert_eq!(wide[x], a + b + c + d, "column {}", x);
                let mut alone = [f32::NAN; LANES];
                columns[x / LANES].blend(&row, &mut alone);
                prop_assert_eq!(wide[x], alone[x % LANES]);
            }
        }
    }
}
