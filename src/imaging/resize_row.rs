//! The inner loops of [`super::resize`] along x.

use super::resize::{Axis, HALF, WEIGHT_BITS};
#[cfg(target_arch = "x86_64")]
use super::{
    resize_avx2::{halves, level_of},
    resize_vnni::{self, Quads},
};

/// Output pixels made in one step of the vector kernels; rows are padded to a multiple.
pub(super) const LANES: usize = 8;

/// The weights of two output pixels and a pair of taps: the high halves, then the low halves, each as 16 values
/// `[a0, a1] * 4, [b0, b1] * 4`. Aligned, for no load of it to cross a cache line.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Debug)]
#[repr(align(64))]
struct PackedPair {
    high: [i16; 16],
    low: [i16; 16],
}

#[cfg(target_arch = "x86_64")]
impl PackedPair {
    /// For `pixels`, a multiple of two; `weight` is that of a pixel's tap, or 0 where there is none.
    fn all(pixels: usize, pairs: usize, weight: impl Fn(usize, usize) -> i32) -> Vec<Self> {
        let mut packed = Vec::with_capacity(pixels / 2 * pairs);
        for x in (0..pixels).step_by(2) {
            for pair in 0..pairs {
                let part = |lane: usize| halves(weight(x + lane / 8, pair * 2 + lane % 2));
                packed.push(Self {
                    high: std::array::from_fn(|lane| part(lane)[0]),
                    low: std::array::from_fn(|lane| part(lane)[1]),
                });
            }
        }
        packed
    }
}

/// What rows are resized with. All of them make the same levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Kernel {
    /// Those that this processor runs, the fastest for many taps last.
    pub(super) fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        let vector =
            [is_x86_feature_detected!("avx2").then_some(Self::Avx2), resize_vnni::available().then_some(Self::Vnni)];
        #[cfg(not(target_arch = "x86_64"))]
        let vector: [Option<Self>; 0] = [];
        std::iter::once(Self::Scalar).chain(vector.into_iter().flatten()).collect()
    }
}

/// Weights as a kernel takes them.
#[derive(Clone, Debug)]
enum Layout {
    /// As the axis has them.
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2 {
        /// Pairs of taps that cover the filter.
        pairs: usize,
        /// Ordered by pixel, then pair.
        packed: Vec<PackedPair>,
    },
    #[cfg(target_arch = "x86_64")]
    Vnni(Quads),
}

/// The filter along x, laid out for a kernel.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    axis: Axis,
    /// Byte at which each output pixel's filter begins, padded to a multiple of [`LANES`].
    offsets: Vec<usize>,
    layout: Layout,
    /// Bytes a source row must have for a vector kernel.
    reach: usize,
}

impl Columns {
    /// For the kernel of this processor that is fastest for the axis.
    pub(super) fn new(axis: &Axis) -> Self {
        let pays = |kernel: &Kernel| match kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Vnni => axis.taps >= resize_vnni::FEWEST_TAPS,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => true,
            Kernel::Scalar => true,
        };
        Self::for_kernel(axis, Kernel::available().into_iter().rfind(pays).unwrap_or(Kernel::Scalar))
    }

    /// For a kernel that is available.
    fn for_kernel(axis: &Axis, kernel: Kernel) -> Self {
        let padded = axis.first.len().next_multiple_of(LANES);
        let last = axis.first.last().copied().unwrap_or(0);
        let offsets: Vec<usize> = (0..padded).map(|x| axis.first.get(x).copied().unwrap_or(last) * 3).collect();
        #[cfg(target_arch = "x86_64")]
        let (width, taps) = (axis.first.len(), axis.taps);
        #[cfg(target_arch = "x86_64")]
        let weight = |x: usize, tap: usize| if x < width && tap < taps { axis.weights[x * taps + tap] } else { 0 };
        let (layout, from_an_offset) = match kernel {
            Kernel::Scalar => (Layout::Scalar, 0),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => {
                let pairs = taps.div_ceil(2).max(1);
                (Layout::Avx2 { pairs, packed: PackedPair::all(padded, pairs, weight) }, (pairs - 1) * 6 + 16)
            }
            #[cfg(target_arch = "x86_64")]
            Kernel::Vnni => {
                let quads = Quads::new(padded, taps, weight);
                let reach = quads.reach();
                (Layout::Vnni(quads), reach)
            }
        };
        let reach = offsets.iter().max().copied().unwrap_or(0) + from_an_offset;
        Self { axis: axis.clone(), offsets, layout, reach }
    }

    /// Values between the planes of a resized row.
    pub(super) fn stride(&self) -> usize {
        self.offsets.len()
    }

    /// Bytes [`Self::resize_rows`] may read from the start of a row.
    pub(super) fn reach(&self) -> usize {
        self.reach
    }

    /// Resizes `R` rows of RGB pixels to three planes of [`Self::stride`] levels each. A source has at least its row's
    /// bytes and [`Self::reach`] bytes; what lies behind the row does not matter. Several rows at once are faster: the
    /// weights, which do not fit the first-level cache, are read once for all.
    pub(super) fn resize_rows<const R: usize>(&self, sources: [&[u8]; R], planes: &mut [&mut [u8]; R]) {
        let whole = sources.iter().all(|source| source.len() >= self.reach)
            && planes.iter().all(|planes| planes.len() == 3 * self.stride());
        assert!(whole, "rows have their full length");
        match &self.layout {
            Layout::Scalar => {
                for (source, planes) in sources.into_iter().zip(planes) {
                    self.resize_row_scalar(source, planes);
                }
            }
            // SAFETY: a layout is only made where its kernel is available, the lengths were checked above, and the number
            // of pairs is that of the type.
            #[cfg(target_arch = "x86_64")]
            Layout::Avx2 { pairs, packed } => unsafe {
                match pairs {
                    1 => self.resize_rows_avx2::<R, 1>(1, packed, sources, planes),
                    2 => self.resize_rows_avx2::<R, 2>(2, packed, sources, planes),
                    3 => self.resize_rows_avx2::<R, 3>(3, packed, sources, planes),
                    4 => self.resize_rows_avx2::<R, 4>(4, packed, sources, planes),
                    &pairs => self.resize_rows_avx2::<R, 0>(pairs, packed, sources, planes),
                }
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Layout::Vnni(quads) => unsafe { quads.resize_rows(&self.offsets, sources, planes) },
        }
    }

    /// As [`Self::resize_rows`] on any processor, for a row behind which there may be nothing.
    pub(super) fn resize_row_scalar(&self, source: &[u8], planes: &mut [u8]) {
        let (stride, taps) = (self.stride(), self.axis.taps);
        for (x, (&first, weights)) in self.axis.first.iter().zip(self.axis.weights.chunks_exact(taps)).enumerate() {
            let mut sums = [HALF; 3];
            for (pixel, &weight) in source[first * 3..].as_chunks::<3>().0.iter().zip(weights) {
                for (sum, &sample) in sums.iter_mut().zip(pixel) {
                    *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(sample)));
                }
            }
            for (channel, sum) in sums.iter().enumerate() {
                planes[channel * stride + x] = (sum >> WEIGHT_BITS).clamp(0, 255) as u8;
            }
        }
    }

    /// The same sums, two pixels to a vector. A 128-bit lane holds one pixel's pair of taps as `[r0 r1 g0 g1 b0 b1 0 0]`,
    /// which `pmaddwd` multiplies and adds in pairs; with the weights in two 16-bit halves every product is exact. `PAIRS`
    /// is `pairs`, for the loop over them to be unrolled, or 0 for any number.
    ///
    /// # Safety
    /// The processor has AVX2, every source has at least `reach` bytes, the planes of every row have `3 * stride`, and
    /// `PAIRS` is as above.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn resize_rows_avx2<const R: usize, const PAIRS: usize>(
        &self,
        pairs: usize,
        packed: &[PackedPair],
        sources: [&[u8]; R],
        planes: &mut [&mut [u8]; R],
    ) {
        use std::arch::x86_64::*;

        let pairs = if PAIRS == 0 { pairs } else { PAIRS };
        let stride = self.stride();
        // 16 bytes of a row hold two pairs of taps: bytes 0 to 5 and 6 to 11.
        let spread = [
            _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1)),
            _mm256_broadcastsi128_si256(_mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1)),
        ];
        let half = _mm256_set1_epi32(HALF);
        let steps = self.offsets.as_chunks::<LANES>().0.iter().zip(packed.chunks_exact(LANES / 2 * pairs));
        for (step, (offsets, weights)) in steps.enumerate() {
            for row in 0..R {
                let source = sources[row].as_ptr();
                let mut levels = [half; LANES / 2];
                for (two, level) in levels.iter_mut().enumerate() {
                    let (mut high, mut low) = (_mm256_setzero_si256(), half);
                    let mut pair = 0;
                    while pair < pairs {
                        // SAFETY: `reach` is at least every offset plus the pairs before this one plus these 16 bytes.
                        let pixels = unsafe {
                            let from = source.add(pair.wrapping_mul(6));
                            let a = _mm_loadu_si128(from.add(offsets[2 * two]).cast());
                            let b = _mm_loadu_si128(from.add(offsets[2 * two + 1]).cast());
                            _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1)
                        };
                        for (next, spread) in spread.into_iter().enumerate().take(pairs.wrapping_sub(pair)) {
                            let samples = _mm256_shuffle_epi8(pixels, spread);
                            // SAFETY: there are `pairs` entries for each two pixels, aligned to 64 bytes.
                            let (high_weights, low_weights) = unsafe {
                                let weights = weights.get_unchecked(two.wrapping_mul(pairs) + pair + next);
                                (
                                    _mm256_load_si256(weights.high.as_ptr().cast()),
                                    _mm256_load_si256(weights.low.as_ptr().cast()),
                                )
                            };
                            high = _mm256_add_epi32(high, _mm256_madd_epi16(samples, high_weights));
                            low = _mm256_add_epi32(low, _mm256_madd_epi16(samples, low_weights));
                        }
                        pair = pair.wrapping_add(spread.len());
                    }
                    // Negative sums, which cubic weights make, stay negative and are packed to 0 below.
                    *level = level_of([high, low]);
                }
                // SAFETY: there are `stride / LANES` steps, and three planes of `stride`.
                unsafe { store_levels(levels, planes[row].as_mut_ptr().add(step.wrapping_mul(LANES)), stride) }
            }
        }
    }
}

/// Writes the levels of eight pixels A to H, [`r g b` and what does not matter of A, then of B], [C D], [E F] and [G H], to
/// three planes, `stride` apart. Below 0 becomes 0, above 255 becomes 255.
///
/// # Safety
/// The processor has AVX2, and `target` room for eight bytes in each of three planes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn store_levels(levels: [std::arch::x86_64::__m256i; LANES / 2], target: *mut u8, stride: usize) {
    use std::arch::x86_64::*;

    let gather = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    // Lanes [A C E G] and [B D F H] of rgb0, then the same as r r r r g g g g b b b b.
    let bytes =
        _mm256_packus_epi16(_mm256_packus_epi32(levels[0], levels[1]), _mm256_packus_epi32(levels[2], levels[3]));
    let sorted = _mm256_shuffle_epi8(bytes, gather);
    let (even, odd) = (_mm256_castsi256_si128(sorted), _mm256_extracti128_si256(sorted, 1));
    let red_green = _mm_unpacklo_epi8(even, odd);
    // SAFETY: there is room for eight bytes in each plane.
    unsafe {
        _mm_storel_epi64(target.cast(), red_green);
        _mm_storel_epi64(target.add(stride).cast(), _mm_srli_si128(red_green, 8));
        _mm_storel_epi64(target.add(2 * stride).cast(), _mm_unpackhi_epi8(even, odd));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::resize::ResizeFilter, *};

    proptest! {
        /// The kernels agree to the bit, whatever the sizes, and read nothing that matters behind the row.
        #[test]
        fn the_vector_kernels_equal_the_scalar_one(
            input in 1u32..300, output in 1u32..300, seed in any::<u64>(), behind in any::<u8>(), cubic in any::<bool>(),
        ) {
            let filter = if cubic { ResizeFilter::Bicubic } else { ResizeFilter::Bilinear };
            let axis = Axis::new(filter, input, output);
            let bytes = input as usize * 3;
            let sample = |at: usize| (seed.wrapping_mul(at as u64 * 2 + 1) >> 40) as u8;
            for kernel in Kernel::available() {
                let columns = Columns::for_kernel(&axis, kernel);
                let mut source: Vec<u8> = (0..bytes).map(sample).collect();
                source.resize(columns.reach().max(bytes), behind);
                let mut expected = vec![0; 3 * columns.stride()];
                columns.resize_row_scalar(&source, &mut expected);
                let mut others = vec![vec![0; 3 * columns.stride()]; 3];
                let [one, two, three] = &mut others[..] else { unreachable!() };
                columns.resize_rows([&source], &mut [one]);
                columns.resize_rows([&source, &source], &mut [two, three]);
                for found in &others {
                    for channel in 0..3 {
                        let plane = channel * columns.stride()..channel * columns.stride() + output as usize;
                        prop_assert_eq!(&found[plane.clone()], &expected[plane], "{:?}", kernel);
                    }
                }
            }
        }
    }
}
