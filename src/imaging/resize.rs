//! Bilinear resizing with antialiasing, bit for bit as Pillow's `Image.resize(…, BILINEAR)` does it, fused with what
//! follows: normalising to `f32` and splitting into channel planes.
//!
//! The models were trained on pictures reduced this way (the Hugging Face processors call Pillow, or torchvision, which
//! is within one level of it); OpenCV's `INTER_LINEAR` is up to 87 levels off. The arithmetic follows Pillow's
//! `Resample.c`: a triangle filter as wide as the reduction, weights rounded to 22 fractional bits, along x first, rounded
//! to 8 bits, then along y. (From version 13 on, Pillow begins with y where the height shrinks much more than the width,
//! which no rule that keeps the aspect asks for; the result differs by at most one level there.)

use super::{
    resize_row::{Columns, blend, blend_many},
    simd::multiversioned,
};
use crate::types::ImageSize;

/// Fractional bits of a weight: 32 less the 8 of a sample and 2 to spare.
pub(super) const WEIGHT_BITS: u32 = 32 - 8 - 2;
/// Added before the fractional bits are dropped.
pub(super) const HALF: i32 = 1 << (WEIGHT_BITS - 1);

/// Which samples make each output sample along one axis, and by what weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Axis {
    /// First input sample for each output sample; never falls from one to the next.
    pub first: Vec<usize>,
    /// `taps` weights for each output sample; those beyond the filter's end are 0.
    pub weights: Vec<i32>,
    /// Weights for each output sample.
    pub taps: usize,
    /// Input samples.
    pub input: usize,
}

impl Axis {
    pub(super) fn new(input: u32, output: u32) -> Self {
        let scale = f64::from(input) / f64::from(output);
        let support = scale.max(1.0);
        // Multiplying by the reciprocal instead of dividing is Pillow's order; it decides some last bits.
        let narrowing = 1.0 / support;
        let mut filters = Vec::with_capacity(output as usize);
        for at in 0..output {
            let center = (f64::from(at) + 0.5) * scale;
            // Casts truncate, as Pillow's do.
            let low = (center - support + 0.5).max(0.0) as usize;
            let high = ((center + support + 0.5) as usize).min(input as usize);
            let raw: Vec<f64> =
                (low..high).map(|x| (1.0 - ((x as f64 - center + 0.5) * narrowing).abs()).max(0.0)).collect();
            let sum: f64 = raw.iter().sum();
            let fixed = |weight: &f64| (weight / sum * f64::from(1u32 << WEIGHT_BITS) + 0.5) as i32;
            let weights: Vec<i32> = raw.iter().map(fixed).collect();
            // Ends of weight 0 would only cost time.
            let start = weights.iter().position(|&weight| weight != 0).unwrap_or(0);
            let end = weights.iter().rposition(|&weight| weight != 0).map_or(0, |last| last + 1);
            filters.push((low + start, weights[start.min(end)..end].to_vec()));
        }
        let taps = filters.iter().map(|(_, weights)| weights.len()).max().unwrap_or(1);
        let mut axis = Self { first: Vec::new(), weights: Vec::new(), taps, input: input as usize };
        for (first, weights) in filters {
            axis.first.push(first);
            axis.weights.extend(weights);
            axis.weights.resize(axis.first.len() * taps, 0);
        }
        axis
    }
}

/// `level * scale + offset`, per channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Affine {
    pub scale: [f32; 3],
    pub offset: [f32; 3],
}

/// Resizes RGB images from one size to another. Holds the weights and a few rows.
#[derive(Debug, Default)]
pub(super) struct Resizer {
    from: ImageSize,
    to: ImageSize,
    columns: Columns,
    rows: Axis,
    /// The last rows that were resized along x, as three planes each: row `y` is at slot `y % rows.taps`.
    ring: Vec<u8>,
    /// Room for the last row of an image, with bytes to spare after it.
    tail: Vec<u8>,
    /// Sums of one row, where they do not fit registers.
    sums: Vec<i32>,
}

impl Resizer {
    /// Weights for `from` → `to`; does nothing where they are at hand. Neither size may be empty.
    pub(super) fn prepare(&mut self, from: ImageSize, to: ImageSize) {
        if self.from == from && self.to == to {
            return;
        }
        self.columns = Columns::new(&Axis::new(from.width, to.width));
        self.rows = Axis::new(from.height, to.height);
        self.ring.clear();
        self.ring.resize(self.rows.taps * 3 * self.columns.stride(), 0);
        (self.from, self.to) = (from, to);
    }

    /// Resizes `pixels` (RGB, of the prepared size), applies `affine` to the levels and writes the three planes to `out`:
    /// each `plane` values long, their rows `row_stride` apart.
    pub(super) fn run(&mut self, pixels: &[u8], affine: &Affine, out: &mut [f32], row_stride: usize, plane: usize) {
        let width = self.to.width as usize;
        let source_stride = self.from.width as usize * 3;
        let (stride, taps) = (self.columns.stride(), self.rows.taps);
        let slot = 3 * stride;
        let mut done = 0;
        for (y, (&first, weights)) in self.rows.first.iter().zip(self.rows.weights.chunks_exact(taps)).enumerate() {
            let needed = (first + taps).min(self.rows.input);
            for source_y in done.max(first)..needed {
                // The kernel reads whole vectors. Behind a row lies the next one, behind the last one nothing.
                let start = source_y * source_stride;
                let source = match pixels.get(start..start + self.columns.reach()) {
                    Some(row) => row,
                    None => {
                        self.tail.clear();
                        self.tail.extend_from_slice(&pixels[start..][..source_stride]);
                        self.tail.resize(self.columns.reach().max(source_stride), 0);
                        &self.tail
                    }
                };
                self.columns.resize_row(source, &mut self.ring[source_y % taps * slot..][..slot]);
            }
            done = done.max(needed);
            for channel in 0..3 {
                let target = &mut out[channel * plane + y * row_stride..][..width];
                let (scale, offset) = (affine.scale[channel], affine.offset[channel]);
                let ring = &self.ring;
                let row = |tap: usize| &ring[(first + tap) % taps * slot + channel * stride..][..width];
                match *weights {
                    [a] => blend([row(0)], [a], scale, offset, target),
                    [a, b] => blend([row(0), row(1)], [a, b], scale, offset, target),
                    [a, b, c] => blend([row(0), row(1), row(2)], [a, b, c], scale, offset, target),
                    [a, b, c, d] => blend([row(0), row(1), row(2), row(3)], [a, b, c, d], scale, offset, target),
                    _ => {
                        self.sums.clear();
                        self.sums.resize(width, HALF);
                        for (tap, &weight) in weights.iter().enumerate() {
                            blend_many(row(tap), weight, &mut self.sums);
                        }
                        finish(&self.sums, scale, offset, target);
                    }
                }
            }
        }
    }
}

multiversioned! {
    /// Turns sums into levels and those into values.
    fn finish(sums: &[i32], scale: f32, offset: f32, target: &mut [f32]) {
        for (value, sum) in target.iter_mut().zip(sums) {
            *value = (sum >> WEIGHT_BITS) as f32 * scale + offset;
        }
    }
}
