//! The inner loops of [`super::resize`] along y.

use super::{
    resize::{HALF, ResizeFilter, WEIGHT_BITS},
    simd::multiversioned,
};
#[cfg(target_arch = "x86_64")]
use super::{resize_avx2, resize_vnni};

/// How rows become one output row. All ways make the same values.
pub(super) struct Blending<'w> {
    weights: &'w [i32],
    /// Whether sums may be no level, and have to be clamped.
    overshoots: bool,
    /// Where the processor has it.
    #[cfg(target_arch = "x86_64")]
    vnni: Option<resize_vnni::Rows>,
}

impl<'w> Blending<'w> {
    /// With a weight for each row.
    pub(super) fn new(filter: ResizeFilter, weights: &'w [i32]) -> Self {
        // Ends of no weight would only cost time.
        let weights = &weights[..weights.iter().rposition(|&weight| weight != 0).map_or(1, |last| last + 1)];
        Self {
            weights,
            overshoots: filter == ResizeFilter::Bicubic,
            #[cfg(target_arch = "x86_64")]
            vnni: resize_vnni::Rows::new(weights),
        }
    }

    /// Blends rows of levels and rounds to a level. A row is at least as long as `target`; `sums` is for those that do not
    /// fit registers.
    pub(super) fn blend_levels<'a>(&self, row: impl Fn(usize) -> &'a [u8], sums: &mut Vec<i32>, target: &mut [u8]) {
        #[cfg(target_arch = "x86_64")]
        let done = match &self.vnni {
            Some(vnni) => vnni.blend_levels(&row, target),
            None => resize_avx2::Rows::new(self.weights).map_or(0, |avx2| avx2.blend_levels(&row, target)),
        };
        #[cfg(not(target_arch = "x86_64"))]
        let done = 0;
        let (row, target) = (|tap: usize| &row(tap)[done..], &mut target[done..]);
        match self.weights.len() {
            _ if target.is_empty() => {}
            // The short ways do not clamp.
            length if self.overshoots || length > 8 => {
                self.sum(row, sums, target.len());
                round(sums, target);
            }
            0..=2 => self.blend_tap_levels::<2>(row, target),
            3..=4 => self.blend_tap_levels::<4>(row, target),
            5..=6 => self.blend_tap_levels::<6>(row, target),
            _ => self.blend_tap_levels::<8>(row, target),
        }
    }

    /// Blends up to `N` taps to levels; the row of the first stands in for those that are not there.
    fn blend_tap_levels<'a, const N: usize>(&self, row: impl Fn(usize) -> &'a [u8], target: &mut [u8]) {
        let weight = |tap: usize| self.weights.get(tap).copied().unwrap_or(0);
        let there = |tap: usize| row(if tap < self.weights.len() { tap } else { 0 });
        blend_levels::<N>(std::array::from_fn(there), std::array::from_fn(weight), target);
    }

    /// As [`Self::blend_levels`], and turns a level into a value. To do that in a second step, as where y comes first, took a
    /// quarter longer for enlarged pictures.
    pub(super) fn blend_values<'a>(
        &self,
        row: impl Fn(usize) -> &'a [u8],
        scale: f32,
        offset: f32,
        sums: &mut Vec<i32>,
        target: &mut [f32],
    ) {
        #[cfg(target_arch = "x86_64")]
        let done = self.vnni.as_ref().map_or(0, |vnni| vnni.blend_values(&row, scale, offset, target));
        #[cfg(not(target_arch = "x86_64"))]
        let done = 0;
        self.blend_plainly(|tap| &row(tap)[done..], (scale, offset), sums, &mut target[done..]);
    }

    fn blend_plainly<'a>(
        &self,
        row: impl Fn(usize) -> &'a [u8],
        affine: (f32, f32),
        sums: &mut Vec<i32>,
        target: &mut [f32],
    ) {
        match self.weights.len() {
            _ if target.is_empty() => {}
            // The short ways do not clamp.
            _ if self.overshoots => self.blend_all(row, affine, sums, target),
            1 => self.blend_taps::<1>(row, affine, target),
            2 => self.blend_taps::<2>(row, affine, target),
            3 => self.blend_taps::<3>(row, affine, target),
            4 => self.blend_taps::<4>(row, affine, target),
            5 => self.blend_taps::<5>(row, affine, target),
            6 => self.blend_taps::<6>(row, affine, target),
            7 => self.blend_taps::<7>(row, affine, target),
            8 => self.blend_taps::<8>(row, affine, target),
            _ => self.blend_all(row, affine, sums, target),
        }
    }

    /// Blends `N` taps.
    fn blend_taps<'a, const N: usize>(
        &self,
        row: impl Fn(usize) -> &'a [u8],
        (scale, offset): (f32, f32),
        target: &mut [f32],
    ) {
        let weight = |tap: usize| self.weights.get(tap).copied().unwrap_or(0);
        blend::<N>(std::array::from_fn(row), std::array::from_fn(weight), scale, offset, target);
    }

    /// Blends any number of taps, by way of `sums`.
    fn blend_all<'a>(
        &self,
        row: impl Fn(usize) -> &'a [u8],
        (scale, offset): (f32, f32),
        sums: &mut Vec<i32>,
        target: &mut [f32],
    ) {
        self.sum(row, sums, target.len());
        finish(sums, scale, offset, target);
    }

    /// Weighted sums of the first `length` levels of the rows.
    fn sum<'a>(&self, row: impl Fn(usize) -> &'a [u8], sums: &mut Vec<i32>, length: usize) {
        sums.clear();
        sums.resize(length, HALF);
        for (tap, &weight) in self.weights.iter().enumerate() {
            blend_many(row(tap), weight, sums);
        }
    }
}

multiversioned! {
    /// Blends rows, each at least as long as `target`.
    fn blend<const N: usize>(rows: [&[u8]; N], weights: [i32; N], scale: f32, offset: f32, target: &mut [f32]) {
        let rows = rows.map(|row| &row[..target.len()]);
        for (x, value) in target.iter_mut().enumerate() {
            let mut sum = HALF;
            for (row, weight) in rows.iter().zip(weights) {
                sum = sum.wrapping_add(weight.wrapping_mul(i32::from(row[x])));
            }
            *value = (sum >> WEIGHT_BITS) as f32 * scale + offset;
        }
    }
}

multiversioned! {
    /// As [`blend`], but leaves it at levels.
    fn blend_levels<const N: usize>(rows: [&[u8]; N], weights: [i32; N], target: &mut [u8]) {
        let rows = rows.map(|row| &row[..target.len()]);
        for (x, level) in target.iter_mut().enumerate() {
            let mut sum = HALF;
            for (row, weight) in rows.iter().zip(weights) {
                sum = sum.wrapping_add(weight.wrapping_mul(i32::from(row[x])));
            }
            *level = (sum >> WEIGHT_BITS) as u8;
        }
    }
}

multiversioned! {
    /// Adds a weighted row of levels to `sums`.
    fn blend_many(row: &[u8], weight: i32, sums: &mut [i32]) {
        for (sum, &level) in sums.iter_mut().zip(row) {
            *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(level)));
        }
    }
}

multiversioned! {
    /// Turns sums into levels and those into values.
    fn finish(sums: &[i32], scale: f32, offset: f32, target: &mut [f32]) {
        for (value, sum) in target.iter_mut().zip(sums) {
            *value = (sum >> WEIGHT_BITS).clamp(0, 255) as f32 * scale + offset;
        }
    }
}

multiversioned! {
    /// Turns sums into levels.
    fn round(sums: &[i32], target: &mut [u8]) {
        for (level, sum) in target.iter_mut().zip(sums) {
            *level = (sum >> WEIGHT_BITS).clamp(0, 255) as u8;
        }
    }
}

multiversioned! {
    /// Turns levels into values.
    pub(super) fn scale_levels(levels: &[u8], scale: f32, offset: f32, target: &mut [f32]) {
        for (value, &level) in target.iter_mut().zip(levels) {
            *value = f32::from(level) * scale + offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::resize::Axis, *};

    proptest! {
        /// The ways agree to the bit, whatever the number of rows and their length.
        #[test]
        fn the_vector_kernel_equals_the_plain_one(
            width in 1usize..200, input in 1u32..400, output in 1u32..40, seed in any::<u64>(), cubic in any::<bool>(),
        ) {
            let filter = if cubic { ResizeFilter::Bicubic } else { ResizeFilter::Bilinear };
            let axis = Axis::new(filter, input, output);
            let level = |at: usize| (seed.wrapping_mul(at as u64 * 2 + 1) >> 40) as u8;
            let rows: Vec<Vec<u8>> =
                (0..axis.taps).map(|tap| (0..width).map(|x| level(tap * width + x)).collect()).collect();
            let (mut found, mut expected) = (vec![f32::NAN; width], vec![0.0; width]);
            let (mut sums, mut levels) = (Vec::new(), vec![0; width]);
            for weights in axis.weights.chunks_exact(axis.taps) {
                let mut blending = Blending::new(filter, weights);
                for _ in 0..2 {
                    blending.blend_values(|tap| &rows[tap], 0.3, -7.5, &mut sums, &mut found);
                    blending.blend_plainly(|tap| &rows[tap], (0.3, -7.5), &mut sums, &mut expected);
                    prop_assert_eq!(&found, &expected);
                    blending.blend_levels(|tap| &rows[tap], &mut sums, &mut levels);
                    scale_levels(&levels, 0.3, -7.5, &mut found);
                    prop_assert_eq!(&found, &expected);
                    // Then as where there is nothing better than AVX2.
                    #[cfg(target_arch = "x86_64")]
                    {
                        blending.vnni = None;
                    }
                }
            }
        }
    }
}
