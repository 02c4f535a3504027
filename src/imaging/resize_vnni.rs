//! The inner loops of [`super::resize`] for processors with AVX-512 VNNI: Intel's for servers since 2019, AMD's since 2022.
//!
//! `vpdpbusd` multiplies four levels by four signed 8-bit weights and adds the products to a 32-bit sum, all of it exactly.
//! A weight of 22 fractional bits is three digits to base 256, each from −128 to 127, so that three such instructions do
//! for four taps what takes eight with `pmaddwd` and `paddd`.

use std::arch::x86_64::*;

use super::{
    resize::{HALF, WEIGHT_BITS},
    resize_row::{LANES, store_levels},
};

/// Taps of one step.
const TAPS: usize = 4;
const DIGITS: usize = 3;
/// Fewest taps for which all this pays.
pub(super) const FEWEST_TAPS: usize = 3;
/// Most taps along y.
const MOST_ROWS: usize = 16;
/// Values that [`Rows`] makes at once.
const BLOCK: usize = 64;

/// Whether this processor runs these loops.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// `weight` as digits to base 256, the lowest first. Weights are below 2^23.
fn digits(weight: i32) -> [i8; DIGITS] {
    let low = weight as i8;
    let rest = weight.wrapping_sub(i32::from(low)) >> 8;
    let middle = rest as i8;
    [low, middle, (rest.wrapping_sub(i32::from(middle)) >> 8) as i8]
}

/// Weights of two output pixels and four taps along x: of each digit `[w0 w1 w2 w3]` three times, for red, green and blue,
/// and four zeros; a 128-bit lane for each pixel.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Quad([[i8; 32]; DIGITS]);

/// The filter along x.
#[derive(Clone, Debug)]
pub(super) struct Quads {
    /// Quads of taps that cover the filter.
    quads: usize,
    /// Ordered by pair of pixels, then quad.
    packed: Vec<Quad>,
}

impl Quads {
    /// For `pixels`, a multiple of [`LANES`]; `weight` is that of a pixel's tap, or 0 where there is none.
    pub(super) fn new(pixels: usize, taps: usize, weight: impl Fn(usize, usize) -> i32) -> Self {
        let quads = taps.div_ceil(TAPS).max(1);
        let mut packed = Vec::with_capacity(pixels / 2 * quads);
        for x in (0..pixels).step_by(2) {
            for quad in 0..quads {
                packed.push(Quad(std::array::from_fn(|digit| {
                    std::array::from_fn(|byte| {
                        let colour = byte % 16 < 12;
                        let weight = weight(x + byte / 16, quad * TAPS + byte % TAPS);
                        if colour { digits(weight)[digit] } else { 0 }
                    })
                })));
            }
        }
        Self { quads, packed }
    }

    /// Bytes read from the start of a pixel's filter.
    pub(super) fn reach(&self) -> usize {
        (self.quads - 1) * 3 * TAPS + 16
    }

    /// Resizes rows; see [`super::resize_row::Columns::resize_rows`].
    ///
    /// # Safety
    /// [`available`]; there are as many `offsets` as pixels, every source has [`Self::reach`] bytes from each of them on,
    /// and every row has three planes of as many bytes.
    pub(super) unsafe fn resize_rows<const R: usize>(
        &self,
        offsets: &[usize],
        sources: [&[u8]; R],
        planes: &mut [&mut [u8]; R],
    ) {
        // SAFETY: as the caller promises; the number of quads is that of the type.
        unsafe {
            match self.quads {
                1 => self.few::<R, 1>(offsets, sources, planes),
                2 => self.few::<R, 2>(offsets, sources, planes),
                _ => self.many(offsets, sources, planes),
            }
        }
    }

    /// For a number of quads whose samples fit the registers: a weight is loaded once for all rows, and the digits, highest
    /// first, are summed as Horner's rule has it.
    ///
    /// # Safety
    /// As for [`Self::resize_rows`], with as many quads as the type says.
    #[target_feature(enable = "avx2,avx512vl,avx512vnni")]
    unsafe fn few<const R: usize, const QUADS: usize>(
        &self,
        offsets: &[usize],
        sources: [&[u8]; R],
        planes: &mut [&mut [u8]; R],
    ) {
        let zero = _mm256_setzero_si256();
        let first = _mm256_set1_epi32(HALF >> (8 * (DIGITS - 1)));
        let steps = offsets.as_chunks::<LANES>().0.iter().zip(self.packed.chunks_exact(LANES / 2 * QUADS));
        for (step, (step_offsets, weights)) in steps.enumerate() {
            let mut levels = [[zero; LANES / 2]; R];
            for (two, weights) in weights.as_chunks::<QUADS>().0.iter().enumerate() {
                let pair = [step_offsets[2 * two], step_offsets[2 * two + 1]];
                let samples: [[_; QUADS]; R] = std::array::from_fn(|row| {
                    // SAFETY: `reach` bytes can be read from every offset on.
                    std::array::from_fn(|quad| unsafe { samples(sources[row], pair, quad) })
                });
                let mut sums = [first; R];
                for digit in (0..DIGITS).rev() {
                    for (quad, Quad(weights)) in weights.iter().enumerate() {
                        // SAFETY: 32 bytes, and aligned to as many.
                        let weights = unsafe { _mm256_load_si256(weights[digit].as_ptr().cast()) };
                        for (sum, samples) in sums.iter_mut().zip(&samples) {
                            *sum = _mm256_dpbusd_epi32(*sum, samples[quad], weights);
                        }
                    }
                    if digit > 0 {
                        sums = sums.map(|sum| _mm256_slli_epi32(sum, 8));
                    }
                }
                for (levels, sum) in levels.iter_mut().zip(sums) {
                    levels[two] = _mm256_srai_epi32(sum, WEIGHT_BITS as i32);
                }
            }
            for (levels, planes) in levels.into_iter().zip(planes.iter_mut()) {
                // SAFETY: there is a step for each `LANES` offsets, and three planes of as many bytes as offsets.
                unsafe { store_levels(levels, planes.as_mut_ptr().add(step.wrapping_mul(LANES)), offsets.len()) };
            }
        }
    }

    /// For any number of quads.
    ///
    /// # Safety
    /// As for [`Self::resize_rows`].
    #[target_feature(enable = "avx2,avx512vl,avx512vnni")]
    unsafe fn many<const R: usize>(&self, offsets: &[usize], sources: [&[u8]; R], planes: &mut [&mut [u8]; R]) {
        let (half, zero) = (_mm256_set1_epi32(HALF), _mm256_setzero_si256());
        let steps = offsets.as_chunks::<LANES>().0.iter().zip(self.packed.chunks_exact(LANES / 2 * self.quads));
        for (step, (step_offsets, weights)) in steps.enumerate() {
            for row in 0..R {
                let mut levels = [half; LANES / 2];
                for (two, (level, weights)) in levels.iter_mut().zip(weights.chunks_exact(self.quads)).enumerate() {
                    let pair = [step_offsets[2 * two], step_offsets[2 * two + 1]];
                    let mut sums = [half, zero, zero];
                    for (quad, Quad(weights)) in weights.iter().enumerate() {
                        // SAFETY: `reach` bytes can be read from every offset on; the weights are aligned to 32 bytes.
                        unsafe {
                            let samples = samples(sources[row], pair, quad);
                            for (sum, weights) in sums.iter_mut().zip(weights) {
                                *sum = _mm256_dpbusd_epi32(*sum, samples, _mm256_load_si256(weights.as_ptr().cast()));
                            }
                        }
                    }
                    *level = level_of(sums);
                }
                // SAFETY: there is a step for each `LANES` offsets, and three planes of as many bytes as offsets.
                unsafe { store_levels(levels, planes[row].as_mut_ptr().add(step.wrapping_mul(LANES)), offsets.len()) };
            }
        }
    }
}

/// The quad of samples, counted from the offset of each of two pixels: a 128-bit lane for each pixel, of four reds, four
/// greens, four blues and four zeros.
///
/// # Safety
/// 16 bytes can be read from there.
#[target_feature(enable = "avx2")]
unsafe fn samples(source: &[u8], offsets: [usize; 2], quad: usize) -> __m256i {
    let spread = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1));
    // SAFETY: as the caller promises.
    let [a, b] = offsets.map(|offset| unsafe {
        let from = source.as_ptr().add(quad.wrapping_mul(3 * TAPS));
        _mm_loadu_si128(from.add(offset).cast())
    });
    _mm256_shuffle_epi8(_mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1), spread)
}

/// Sums by digit, put together and rounded down to a level; below 0 and above 255 where a cubic overshoots.
#[target_feature(enable = "avx2")]
fn level_of([low, middle, high]: [__m256i; DIGITS]) -> __m256i {
    let sum = _mm256_add_epi32(_mm256_slli_epi32(high, 16), _mm256_add_epi32(_mm256_slli_epi32(middle, 8), low));
    _mm256_srai_epi32(sum, WEIGHT_BITS as i32)
}

/// The filter of one output row along y.
#[derive(Debug)]
pub(super) struct Rows {
    taps: usize,
    /// Of each quad of taps the digits `[w0 w1 w2 w3]`.
    packed: [[i32; DIGITS]; MOST_ROWS / TAPS],
}

impl Rows {
    /// `None` for too few or too many weights, and on another processor.
    pub(super) fn new(weights: &[i32]) -> Option<Self> {
        if !(FEWEST_TAPS..=MOST_ROWS).contains(&weights.len()) || !available() {
            return None;
        }
        let mut packed = [[0; DIGITS]; MOST_ROWS / TAPS];
        for (packed, weights) in packed.iter_mut().zip(weights.chunks(TAPS)) {
            let digits: [_; TAPS] = std::array::from_fn(|tap| digits(weights.get(tap).copied().unwrap_or(0)));
            *packed = std::array::from_fn(|digit| i32::from_le_bytes(digits.map(|digits| digits[digit] as u8)));
        }
        Some(Self { taps: weights.len(), packed })
    }

    /// Blends rows of levels, rounds to a level, and turns it into a value, for the whole [`BLOCK`]s of `target`. Returns
    /// how many values that are.
    pub(super) fn blend_values<'a>(
        &self,
        row: impl Fn(usize) -> &'a [u8],
        scale: f32,
        offset: f32,
        target: &mut [f32],
    ) -> usize {
        let (blocks, _) = target.as_chunks_mut();
        let rows = self.rows(row, blocks.len() * BLOCK);
        // SAFETY: the rows were checked.
        unsafe {
            match self.taps.div_ceil(TAPS) {
                1 => self.values::<1>(&rows, scale, offset, blocks),
                2 => self.values::<2>(&rows, scale, offset, blocks),
                _ => self.values::<0>(&rows, scale, offset, blocks),
            }
        }
        blocks.len() * BLOCK
    }

    /// As [`Self::blend_values`], but leaves it at levels.
    pub(super) fn blend_levels<'a>(&self, row: impl Fn(usize) -> &'a [u8], target: &mut [u8]) -> usize {
        let (blocks, _) = target.as_chunks_mut();
        let rows = self.rows(row, blocks.len() * BLOCK);
        // SAFETY: the rows were checked.
        unsafe {
            match self.taps.div_ceil(TAPS) {
                1 => self.levels::<1>(&rows, blocks),
                2 => self.levels::<2>(&rows, blocks),
                _ => self.levels::<0>(&rows, blocks),
            }
        }
        blocks.len() * BLOCK
    }

    /// The rows of all taps, once they are found to be `length` long at least.
    fn rows<'a>(&self, row: impl Fn(usize) -> &'a [u8], length: usize) -> [&'a [u8]; MOST_ROWS] {
        let rows: [&[u8]; MOST_ROWS] = std::array::from_fn(|tap| if tap < self.taps { row(tap) } else { &[] });
        let whole = rows.iter().take(self.taps).all(|row| row.len() >= length);
        assert!(whole && available(), "rows have their full length");
        rows
    }

    /// # Safety
    /// As for [`Self::block`], for every block.
    #[target_feature(enable = "avx2,avx512bw,avx512vl,avx512vnni")]
    unsafe fn values<const QUADS: usize>(
        &self,
        rows: &[&[u8]; MOST_ROWS],
        scale: f32,
        offset: f32,
        blocks: &mut [[f32; BLOCK]],
    ) {
        let (scale, offset) = (_mm512_set1_ps(scale), _mm512_set1_ps(offset));
        let (none, most) = (_mm512_setzero_si512(), _mm512_set1_epi32(255));
        for (index, target) in blocks.iter_mut().enumerate() {
            // SAFETY: as the caller promises.
            let levels = unsafe { self.block::<QUADS>(rows, index.wrapping_mul(BLOCK)) };
            for (part, level) in levels.into_iter().enumerate() {
                let level = _mm512_max_epi32(_mm512_min_epi32(level, most), none);
                let value = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(level), scale), offset);
                // SAFETY: the block has four quarters of 16 values, and there are four parts of four in each.
                unsafe {
                    let at = target.as_mut_ptr().add(part.wrapping_mul(4));
                    _mm_storeu_ps(at, _mm512_castps512_ps128(value));
                    _mm_storeu_ps(at.add(BLOCK / 4), _mm512_extractf32x4_ps(value, 1));
                    _mm_storeu_ps(at.add(BLOCK / 2), _mm512_extractf32x4_ps(value, 2));
                    _mm_storeu_ps(at.add(BLOCK / 4 * 3), _mm512_extractf32x4_ps(value, 3));
                }
            }
        }
    }

    /// # Safety
    /// As for [`Self::block`], for every block.
    #[target_feature(enable = "avx2,avx512bw,avx512vl,avx512vnni")]
    unsafe fn levels<const QUADS: usize>(&self, rows: &[&[u8]; MOST_ROWS], blocks: &mut [[u8; BLOCK]]) {
        for (index, target) in blocks.iter_mut().enumerate() {
            // SAFETY: as the caller promises, and the block has 64 bytes.
            unsafe {
                let [a, b, c, d] = self.block::<QUADS>(rows, index.wrapping_mul(BLOCK));
                let bytes = _mm512_packus_epi16(_mm512_packus_epi32(a, b), _mm512_packus_epi32(c, d));
                _mm512_storeu_si512(target.as_mut_ptr().cast(), bytes);
            }
        }
    }

    /// The blended levels from `from` on, below 0 and above 255 where a cubic overshoots: of each quarter of the block the
    /// first four, then the second four of each, and so on. `QUADS` is the number of quads, or 0 for any number.
    ///
    /// # Safety
    /// [`available`]; each of the first `taps` rows has [`BLOCK`] bytes from there on.
    #[target_feature(enable = "avx2,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn block<const QUADS: usize>(&self, rows: &[&[u8]; MOST_ROWS], from: usize) -> [__m512i; 4] {
        let quads = if QUADS == 0 { self.taps.div_ceil(TAPS) } else { QUADS };
        let none = _mm512_setzero_si512();
        // By digit.
        let mut sums = [[_mm512_set1_epi32(HALF), none, none]; 4];
        for quad in 0..quads {
            let load = |tap: usize| {
                let at = quad.wrapping_mul(TAPS).wrapping_add(tap);
                if at < self.taps {
                    // SAFETY: as the caller promises.
                    unsafe { _mm512_loadu_si512(rows.get_unchecked(at).as_ptr().add(from).cast()) }
                } else {
                    none
                }
            };
            let [a, b, c, d] = [load(0), load(1), load(2), load(3)];
            let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
            let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
            // Four taps of each level.
            let levels = [
                _mm512_unpacklo_epi16(ab, cd),
                _mm512_unpackhi_epi16(ab, cd),
                _mm512_unpacklo_epi16(ab_high, cd_high),
                _mm512_unpackhi_epi16(ab_high, cd_high),
            ];
            let weights = self.packed[quad].map(|digits| _mm512_set1_epi32(digits));
            for (sums, levels) in sums.iter_mut().zip(levels) {
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_dpbusd_epi32(*sum, levels, weights);
                }
            }
        }
        sums.map(|[low, middle, high]| {
            let rest = _mm512_add_epi32(_mm512_slli_epi32(middle, 8), low);
            _mm512_srai_epi32(_mm512_add_epi32(_mm512_slli_epi32(high, 16), rest), WEIGHT_BITS)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn digits_make_the_weight(weight in -(1_i32 << 22)..(1 << 23) - (1 << 16)) {
            let [low, middle, high] = digits(weight).map(i32::from);
            prop_assert_eq!(low + (middle << 8) + (high << 16), weight);
        }
    }
}
