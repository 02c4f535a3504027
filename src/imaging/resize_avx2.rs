//! The inner loops of [`super::resize`] along y for processors with AVX2 and no AVX-512 VNNI.
//!
//! `pmaddwd` multiplies pairs of signed 16-bit numbers and adds the two products. A weight of 22 fractional bits is two such
//! numbers, `high * 2^11 + low`, so that two instructions do for two taps of eight levels, all of it exactly.

use std::arch::x86_64::*;

use super::resize::{HALF, WEIGHT_BITS};

/// Bits of the lower part of a weight.
const LOW_BITS: u32 = 11;
/// Most taps along y.
const MOST_ROWS: usize = 16;
/// Levels that [`Rows`] makes at once.
const BLOCK: usize = 32;

/// `weight` as `high * 2^11 + low`. Weights are little more than 2^22 at most, so high is about 2^11 and low below it.
pub(super) fn halves(weight: i32) -> [i16; 2] {
    [(weight >> LOW_BITS) as i16, (weight & ((1 << LOW_BITS) - 1)) as i16]
}

/// Sums by half, put together and rounded down to a level; below 0 and above 255 where a cubic overshoots.
#[target_feature(enable = "avx2")]
pub(super) fn level_of([high, low]: [__m256i; 2]) -> __m256i {
    _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(high, LOW_BITS as i32), low), WEIGHT_BITS as i32)
}

/// The filter of one output row along y.
#[derive(Debug)]
pub(super) struct Rows {
    taps: usize,
    /// Of each pair of taps the high halves of both, then the low ones.
    packed: [[i32; 2]; MOST_ROWS / 2],
}

impl Rows {
    /// `None` for too many weights, and on another processor.
    pub(super) fn new(weights: &[i32]) -> Option<Self> {
        if !(1..=MOST_ROWS).contains(&weights.len()) || !is_x86_feature_detected!("avx2") {
            return None;
        }
        let mut packed = [[0; 2]; MOST_ROWS / 2];
        for (packed, weights) in packed.iter_mut().zip(weights.chunks(2)) {
            let [a, b] = [weights[0], weights.get(1).copied().unwrap_or(0)].map(halves);
            *packed = std::array::from_fn(|half| i32::from(b[half]) << 16 | i32::from(a[half] as u16));
        }
        Some(Self { taps: weights.len(), packed })
    }

    /// Blends rows of levels and rounds to a level, for the whole [`BLOCK`]s of `target`. Returns how many levels that are.
    pub(super) fn blend_levels<'a>(&self, row: impl Fn(usize) -> &'a [u8], target: &mut [u8]) -> usize {
        let (blocks, _) = target.as_chunks_mut();
        let rows: [&[u8]; MOST_ROWS] = std::array::from_fn(|tap| row(tap.min(self.taps - 1)));
        let whole = rows.iter().all(|row| row.len() >= blocks.len() * BLOCK);
        assert!(whole, "rows have their full length");
        // SAFETY: `new` has found AVX2, the rows were checked, and the number of pairs is that of the type.
        unsafe {
            match self.taps.div_ceil(2) {
                1 => self.levels::<1>(&rows, blocks),
                2 => self.levels::<2>(&rows, blocks),
                3 => self.levels::<3>(&rows, blocks),
                4 => self.levels::<4>(&rows, blocks),
                _ => self.levels::<0>(&rows, blocks),
            }
        }
        blocks.len() * BLOCK
    }

    /// `PAIRS` is the number of pairs of taps, or 0 for any number.
    ///
    /// # Safety
    /// The processor has AVX2; every row is as long as all blocks.
    #[target_feature(enable = "avx2")]
    unsafe fn levels<const PAIRS: usize>(&self, rows: &[&[u8]; MOST_ROWS], blocks: &mut [[u8; BLOCK]]) {
        for (index, target) in blocks.iter_mut().enumerate() {
            let from = index.wrapping_mul(BLOCK);
            // SAFETY: as the caller promises, and the block has 32 bytes. The sums and weights of all 32 do not fit the registers.
            unsafe {
                let (low, high) = (self.half::<PAIRS, false>(rows, from), self.half::<PAIRS, true>(rows, from));
                _mm256_storeu_si256(target.as_mut_ptr().cast(), _mm256_packus_epi16(low, high));
            }
        }
    }

    /// Of the block at `from`, in each 128-bit lane, the lower or the `UPPER` eight levels, before they are clamped.
    ///
    /// # Safety
    /// The processor has AVX2; every row has a block from there on.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn half<const PAIRS: usize, const UPPER: bool>(&self, rows: &[&[u8]; MOST_ROWS], from: usize) -> __m256i {
        let pairs = if PAIRS == 0 { self.taps.div_ceil(2) } else { PAIRS };
        let (half, none) = (_mm256_set1_epi32(HALF), _mm256_setzero_si256());
        let mut sums = [[none, half]; 2];
        for (rows, weights) in rows.as_chunks::<2>().0.iter().zip(&self.packed).take(pairs) {
            // SAFETY: as the caller promises. The row of the last tap stands in for one that is not there, and weighs nothing.
            let [a, b] = rows.map(|row| unsafe { _mm256_loadu_si256(row.as_ptr().add(from).cast()) });
            let both = if UPPER { _mm256_unpackhi_epi8(a, b) } else { _mm256_unpacklo_epi8(a, b) };
            // Two taps of each level.
            let levels = [_mm256_unpacklo_epi8(both, none), _mm256_unpackhi_epi8(both, none)];
            let weights = weights.map(|weights| _mm256_set1_epi32(weights));
            for (sums, levels) in sums.iter_mut().zip(levels) {
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(levels, weights));
                }
            }
        }
        let [low, high] = sums.map(|sums| level_of(sums));
        _mm256_packs_epi32(low, high)
    }
}
