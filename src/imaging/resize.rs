//! Bilinear and bicubic resizing with antialiasing, with the arithmetic of Pillow's `Image.resize`, fused with what
//! follows: normalising to `f32` and splitting into channel planes.
//!
//! The models were trained on pictures reduced this way (the Hugging Face processors call Pillow, or torchvision, which
//! is within one level of it); OpenCV's `INTER_LINEAR` is up to 87 levels off. The arithmetic is that of Pillow's
//! `Resample.c`: a triangle (or Keys' cubic, a = −0.5) as wide as the reduction, weights rounded to 22 fractional bits, one
//! axis first, rounded to 8 bits, then the other.
//!
//! Pillow and torchvision begin with x (Pillow, from version 13 on, with y where the height shrinks much more than the
//! width). The order decides how what lies between is rounded, which moves a level by one with the triangle and by a few with
//! the cubic, whose overshoot is cut off in between. Here a triangle that makes the picture lower begins with y: whole rows are
//! blended without sorting samples by colour, and fewer are left for the costly pass along x. That is what Pillow makes in two
//! calls, one for each axis, to the bit; everything else is what it makes in one.

use std::{
    ops::Range,
    slice::IterMut,
    sync::{Mutex, PoisonError},
};

use super::{
    helpers::Helpers,
    resize_blend::{Blending, scale_levels},
    resize_row::Columns,
};
use crate::types::ImageSize;

/// How samples between pixels are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResizeFilter {
    /// A triangle, one pixel to each side (Pillow's `BILINEAR`).
    #[default]
    Bilinear,
    /// Keys' cubic with a = −0.5, two pixels to each side (Pillow's `BICUBIC`). Overshoots at edges; clamped to a level.
    Bicubic,
}

impl ResizeFilter {
    /// Pixels to each side that the filter reaches when nothing is reduced.
    const fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    /// Weight at `distance` ≥ 0 from the centre.
    fn weight(self, distance: f64) -> f64 {
        const A: f64 = -0.5;
        match self {
            Self::Bilinear => (1.0 - distance).max(0.0),
            Self::Bicubic if distance < 1.0 => ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0,
            Self::Bicubic if distance < 2.0 => (((distance - 5.0) * distance + 8.0) * distance - 4.0) * A,
            Self::Bicubic => 0.0,
        }
    }
}

/// Fractional bits of a weight: 32 less the 8 of a sample and 2 to spare.
pub(super) const WEIGHT_BITS: u32 = 32 - 8 - 2;
/// Added before the fractional bits are dropped.
pub(super) const HALF: i32 = 1 << (WEIGHT_BITS - 1);

/// Rows resized along x in one pass.
const TOGETHER: usize = 4;
/// Where x comes first, those of them that are not needed yet.
const AHEAD: usize = TOGETHER - 1;

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
    pub(super) fn new(filter: ResizeFilter, input: u32, output: u32) -> Self {
        let scale = f64::from(input) / f64::from(output);
        let support = filter.support() * scale.max(1.0);
        // Multiplying by the reciprocal instead of dividing is Pillow's order; it decides some last bits.
        let narrowing = 1.0 / scale.max(1.0);
        let mut filters = Vec::with_capacity(output as usize);
        for at in 0..output {
            let center = (f64::from(at) + 0.5) * scale;
            // Casts truncate, as Pillow's do.
            let low = (center - support + 0.5).max(0.0) as usize;
            let high = ((center + support + 0.5) as usize).min(input as usize);
            let distance = |x: usize| ((x as f64 - center + 0.5) * narrowing).abs();
            let raw: Vec<f64> = (low..high).map(|x| filter.weight(distance(x))).collect();
            let sum: f64 = raw.iter().sum();
            let one = f64::from(1u32 << WEIGHT_BITS);
            let fixed = |weight: &f64| (weight / sum * one + 0.5_f64.copysign(*weight)) as i32;
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

/// Pairs of sizes whose weights are kept: those of a few cameras that take turns.
const KEPT: usize = 4;

/// What is needed to resize images of one size to another.
#[derive(Debug)]
struct Prepared {
    from: ImageSize,
    to: ImageSize,
    columns: Columns,
    rows: Axis,
}

/// What each of the threads that share an image needs to itself.
#[derive(Debug, Default)]
struct Scratch {
    /// Where x comes first, the last rows that were resized along x, as three planes each: row `y` is at slot
    /// `y % (rows.taps + AHEAD)`. Where y comes first, [`TOGETHER`] rows that were blended along y, then their planes.
    levels: Vec<u8>,
    /// Sums of one row, where they do not fit registers.
    sums: Vec<i32>,
}

/// Fewest rows of the result that a thread takes at once.
const FEWEST_ROWS: usize = 32;

/// Resizes RGB images from one size to another. Holds weights and a few rows.
#[derive(Debug, Default)]
pub(super) struct Resizer {
    filter: ResizeFilter,
    /// The last one is in use.
    prepared: Vec<Prepared>,
    /// One for the caller and one for each helper.
    scratch: Vec<Scratch>,
    helpers: Helpers,
}

/// Three planes of values to write to, or as many whole rows of each.
struct Planes<'o> {
    channels: [&'o mut [f32]; 3],
    row_stride: usize,
}

impl Planes<'_> {
    /// Takes the first `rows` away.
    fn take(&mut self, rows: usize) -> Self {
        let length = rows * self.row_stride;
        let channels = self.channels.each_mut().map(|channel| {
            let (these, others) = std::mem::take(channel).split_at_mut(length);
            *channel = others;
            these
        });
        Self { channels, row_stride: self.row_stride }
    }
}

/// What is left to do of an image that threads share.
struct Left<'o> {
    rows: Range<usize>,
    planes: Planes<'o>,
    scratch: IterMut<'o, Scratch>,
}

impl<'o> Left<'o> {
    /// The rows that one of `threads` does next: the fewer, the less is left, so that all end together.
    fn next(&mut self, threads: usize) -> Option<(Range<usize>, Planes<'o>)> {
        let left = self.rows.len();
        let share = if threads == 1 { left } else { (left / (2 * threads)).next_multiple_of(TOGETHER) };
        let count = share.max(FEWEST_ROWS).min(left);
        let rows = self.rows.start..self.rows.start + count;
        self.rows.start = rows.end;
        (count > 0).then(|| (rows, self.planes.take(count)))
    }
}

impl Resizer {
    pub(super) fn new(filter: ResizeFilter) -> Self {
        Self { filter, scratch: vec![Scratch::default()], ..Self::default() }
    }

    /// Shares every image among `threads`, the caller's included.
    pub(super) fn with_threads(mut self, threads: usize) -> std::io::Result<Self> {
        self.helpers = Helpers::start(threads.saturating_sub(1), "resize")?;
        self.scratch.resize_with(threads.max(1), Scratch::default);
        Ok(self)
    }

    /// Weights for `from` → `to`; does nothing where they are at hand. Neither size may be empty.
    pub(super) fn prepare(&mut self, from: ImageSize, to: ImageSize) {
        if let Some(found) = self.prepared.iter().position(|prepared| prepared.from == from && prepared.to == to) {
            self.prepared[found..].rotate_left(1);
            return;
        }
        let columns = Columns::new(&Axis::new(self.filter, from.width, to.width));
        let rows = Axis::new(self.filter, from.height, to.height);
        if self.prepared.len() == KEPT {
            self.prepared.remove(0);
        }
        self.prepared.push(Prepared { from, to, columns, rows });
    }

    /// Resizes `pixels` (RGB, of the prepared size), applies `affine` to the levels and writes the three planes to `out`:
    /// each `plane` values long, their rows `row_stride` apart.
    pub(super) fn run(&mut self, pixels: &[u8], affine: &Affine, out: &mut [f32], row_stride: usize, plane: usize) {
        let Self { filter, prepared, scratch, helpers } = self;
        let filter = *filter;
        let Some(prepared) = prepared.last() else { return };
        let resize = |rows: Range<usize>, scratch: &mut Scratch, out: Planes<'_>| {
            if filter == ResizeFilter::Bilinear && prepared.to.height < prepared.from.height {
                prepared.rows_first(rows, pixels, affine, scratch, out);
            } else {
                prepared.columns_first(filter, rows, pixels, affine, scratch, out);
            }
        };
        let (red, green_and_blue) = out.split_at_mut(plane);
        let (green, blue) = green_and_blue.split_at_mut(plane);
        let planes = Planes { channels: [red, green, blue], row_stride };
        let height = prepared.to.height as usize;
        let threads = (height / FEWEST_ROWS).clamp(1, scratch.len());
        let left = Mutex::new(Left { rows: 0..height, planes, scratch: scratch.iter_mut() });
        let lock = || left.lock().unwrap_or_else(PoisonError::into_inner);
        let next = || lock().next(threads);
        helpers.share(threads - 1, &|| {
            let Some(scratch) = lock().scratch.next() else { return };
            while let Some((rows, planes)) = next() {
                resize(rows, scratch, planes);
            }
        });
    }
}

impl Prepared {
    /// Makes `rows` of the result, the first of which is the first of `out`, along y first.
    fn rows_first(
        &self,
        rows: Range<usize>,
        pixels: &[u8],
        affine: &Affine,
        Scratch { levels, sums }: &mut Scratch,
        mut out: Planes<'_>,
    ) {
        let (width, row_bytes) = (self.to.width as usize, self.from.width as usize * 3);
        let (stride, taps) = (self.columns.stride(), self.rows.taps);
        // The kernel reads whole vectors.
        let length = self.columns.reach().max(row_bytes);
        levels.resize(levels.len().max(TOGETHER * (length + 3 * stride)), 0);
        let (blended, levels) = levels.split_at_mut(TOGETHER * length);
        for start in rows.clone().step_by(TOGETHER) {
            let count = TOGETHER.min(rows.end - start);
            for (row, y) in blended.chunks_exact_mut(length).zip(start..start + count) {
                let blending = Blending::new(ResizeFilter::Bilinear, &self.rows.weights[y * taps..][..taps]);
                // Taps beyond the end weigh nothing.
                let source = |tap: usize| (self.rows.first[y] + tap).min(self.rows.input - 1) * row_bytes;
                blending.blend_levels(|tap| &pixels[source(tap)..][..row_bytes], sums, &mut row[..row_bytes]);
            }
            let sources = std::array::from_fn::<_, TOGETHER, _>(|row| &blended[row * length..][..length]);
            let mut planes = levels.chunks_exact_mut(3 * stride);
            let mut planes = std::array::from_fn::<_, TOGETHER, _>(|_| planes.next().unwrap_or_default());
            self.columns.resize_rows(sources, &mut planes);
            for (at, planes) in (start - rows.start..).zip(planes.iter().take(count)) {
                for (channel, plane) in out.channels.iter_mut().enumerate() {
                    let (scale, offset) = (affine.scale[channel], affine.offset[channel]);
                    let target = &mut plane[at * out.row_stride..][..width];
                    scale_levels(&planes[channel * stride..][..width], scale, offset, target);
                }
            }
        }
    }

    /// As [`Self::rows_first`], along x first.
    fn columns_first(
        &self,
        filter: ResizeFilter,
        rows: Range<usize>,
        pixels: &[u8],
        affine: &Affine,
        Scratch { levels: ring, sums }: &mut Scratch,
        mut out: Planes<'_>,
    ) {
        let (width, row_bytes) = (self.to.width as usize, self.from.width as usize * 3);
        let (stride, taps) = (self.columns.stride(), self.rows.taps);
        let slots = taps + AHEAD;
        ring.resize(ring.len().max(slots * 3 * stride), 0);
        let mut done = 0;
        let filters = self.rows.first.iter().zip(self.rows.weights.chunks_exact(taps));
        for (at, (&first, weights)) in filters.skip(rows.start).take(rows.len()).enumerate() {
            let needed = (first + taps).min(self.rows.input);
            done = done.max(first);
            while done < needed {
                done += resize_along_x(&self.columns, pixels, row_bytes, done, ring, slots);
            }
            let blending = Blending::new(filter, weights);
            for (channel, plane) in out.channels.iter_mut().enumerate() {
                let target = &mut plane[at * out.row_stride..][..width];
                let row = |tap: usize| &ring[((first + tap) % slots * 3 + channel) * stride..][..width];
                blending.blend_values(row, affine.scale[channel], affine.offset[channel], sums, target);
            }
        }
    }
}

/// Brings rows of `pixels`, from row `y` on, to their slots of the ring: as many as one pass takes, or the one there is
/// before the end. Returns how many.
fn resize_along_x(
    columns: &Columns,
    pixels: &[u8],
    row_bytes: usize,
    y: usize,
    ring: &mut [u8],
    slots: usize,
) -> usize {
    let slot = 3 * columns.stride();
    let place = |y: usize| y % slots * slot..(y % slots + 1) * slot;
    // The kernel reads whole vectors. Behind a row lies the next one, behind the last one nothing.
    let row = |y: usize| pixels.get(y * row_bytes..)?.get(..columns.reach().max(row_bytes));
    if let [Some(a), Some(b), Some(c), Some(d)] = [row(y), row(y + 1), row(y + 2), row(y + 3)]
        && let Ok(mut places) = ring.get_disjoint_mut([place(y), place(y + 1), place(y + 2), place(y + 3)])
    {
        columns.resize_rows([a, b, c, d], &mut places);
        return TOGETHER;
    }
    let target = &mut ring[place(y)];
    if let Some(row) = row(y) {
        columns.resize_rows([row], &mut [target]);
    } else {
        columns.resize_row_scalar(&pixels[y * row_bytes..][..row_bytes], target);
    }
    1
}
