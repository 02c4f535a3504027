//! COCO run lengths: encoding, decoding and comparing masks without leaving the compressed form.
//!
//! Run lengths are column-major, images row-major. Instead of transposing, the encoder compares each row with the one
//! above, many bytes at a time: wherever a byte differs, a run begins. Masks have few such places, so sorting them by
//! column is cheap.

use crate::types::{BinaryMask, ImageSize, PixelRect, RunLengths};

/// Run lengths that do not describe a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected run lengths adding up to {expected} ({size}); found {found}")]
pub struct RunLengthError {
    /// Declared size.
    pub size: ImageSize,
    /// Its area.
    pub expected: u64,
    /// Sum of the runs.
    pub found: u64,
}

/// Encodes masks one after another, reusing its buffers.
#[derive(Debug, Default)]
pub struct RunLengthEncoder {
    /// Pixels (x, y) that differ from their predecessor in column-major order, found row by row.
    changes: Vec<(u32, u32)>,
    /// Where the next change of each column goes.
    slots: Vec<u32>,
    /// Rows of the changes, by column, then row.
    sorted: Vec<u64>,
    /// A row without a set pixel.
    unset: Vec<u8>,
}

impl RunLengthEncoder {
    /// Writes `mask` to `out`, whose buffer is reused.
    pub fn encode(&mut self, mask: &BinaryMask, out: &mut RunLengths) {
        let size = mask.size();
        out.size = size;
        out.counts.clear();
        let bounds = mask.bounds();
        self.changes.clear();
        if !bounds.is_empty() {
            // A column's first pixel follows the last one of the column before. Columns past the bounds differ only
            // where that last pixel is set.
            let end = (bounds.x1 + 1).min(size.width);
            let (top, bottom) = (mask.row(0), mask.row(size.height - 1));
            let bit = |row: &[u8], x: Option<u32>| x.and_then(|x| row.get(x as usize)).is_some_and(|&bit| bit != 0);
            if !(top.is_empty() && bottom.is_empty()) {
                let column = |x: u32| x.checked_sub(bounds.x0);
                let before = |x: u32| column(x.checked_sub(1)?);
                let differs = |&x: &u32| bit(top, column(x)) != bit(bottom, before(x));
                self.changes.extend((bounds.x0..end).filter(differs).map(|x| (x, 0)));
            }
            if self.unset.len() < bounds.width() as usize {
                self.unset.resize(bounds.width() as usize, 0);
            }
            let unset = &self.unset[..bounds.width() as usize];
            let mut above = if bounds.y0 == 0 { top } else { unset };
            let below = (bounds.y1 < size.height).then_some((bounds.y1, unset));
            for (y, row) in mask.rows().skip(usize::from(bounds.y0 == 0)).chain(below) {
                differences(row, above, bounds.x0 as usize, y, &mut self.changes);
                above = row;
            }
            self.sort(bounds.x0 as usize, end as usize, u64::from(size.height));
        }
        let mut last = 0;
        for &position in &self.sorted[..self.changes.len()] {
            out.counts.push((position - last) as u32);
            last = position;
        }
        let rest = size.area() as u64 - last;
        // A mask that is set to its very last pixel ends with that run; an empty image has a single empty run.
        if rest > 0 || out.counts.is_empty() {
            out.counts.push(rest as u32);
        }
    }

    /// Counting sort of the changes by column; within a column they are in order already.
    fn sort(&mut self, x0: usize, end: usize, height: u64) {
        self.slots.clear();
        self.slots.resize(end - x0 + 1, 0);
        for &(x, _) in &self.changes {
            self.slots[x as usize - x0 + 1] += 1;
        }
        for at in 1..self.slots.len() {
            self.slots[at] += self.slots[at - 1];
        }
        if self.sorted.len() < self.changes.len() {
            self.sorted.resize(self.changes.len(), 0);
        }
        for &(x, y) in &self.changes {
            let slot = &mut self.slots[x as usize - x0];
            self.sorted[*slot as usize] = u64::from(x) * height + u64::from(y);
            *slot += 1;
        }
    }
}

/// Adds `(x0 + i, y)` for every `i` where `a` and `b` differ. Bytes are 0 or 1, and both are equally long.
fn differences(a: &[u8], b: &[u8], x0: usize, y: u32, found: &mut Vec<(u32, u32)>) {
    // Long enough for vector registers, short enough that a boundary costs little.
    const BLOCK: usize = 32;
    let (blocks_a, rest_a) = a.as_chunks::<BLOCK>();
    let (blocks_b, rest_b) = b.as_chunks::<BLOCK>();
    for (block, (block_a, block_b)) in blocks_a.iter().zip(blocks_b).enumerate() {
        if block_a != block_b {
            word_differences(block_a, block_b, x0 + block * BLOCK, y, found);
        }
    }
    word_differences(rest_a, rest_b, x0 + blocks_a.len() * BLOCK, y, found);
}

/// As [`differences`], eight bytes at a time.
fn word_differences(a: &[u8], b: &[u8], x0: usize, y: u32, found: &mut Vec<(u32, u32)>) {
    let (words_a, rest_a) = a.as_chunks::<8>();
    let (words_b, rest_b) = b.as_chunks::<8>();
    for (word, (word_a, word_b)) in words_a.iter().zip(words_b).enumerate() {
        let mut bits = u64::from_le_bytes(*word_a) ^ u64::from_le_bytes(*word_b);
        while bits != 0 {
            found.push(((x0 + word * 8) as u32 + bits.trailing_zeros() / 8, y));
            bits &= bits - 1;
        }
    }
    let tail = x0 + words_a.len() * 8;
    let pairs = rest_a.iter().zip(rest_b).enumerate();
    found.extend(pairs.filter(|(_, (bit_a, bit_b))| bit_a != bit_b).map(|(i, _)| ((tail + i) as u32, y)));
}

impl RunLengths {
    /// Run lengths of `mask`. For many masks, [`RunLengthEncoder`] spares the allocations.
    #[must_use]
    pub fn from_mask(mask: &BinaryMask) -> Self {
        let mut out = Self::default();
        RunLengthEncoder::default().encode(mask, &mut out);
        out
    }

    /// Run lengths of `size.area()` row-major bytes, where every byte that is not 0 counts as set. `None` where the
    /// length does not fit.
    #[must_use]
    pub fn from_row_major(bits: &[u8], size: ImageSize) -> Option<Self> {
        BinaryMask::from_row_major(size, bits).map(|mask| Self::from_mask(&mask))
    }

    /// Checks that the runs cover the image exactly.
    ///
    /// # Errors
    /// [`RunLengthError`], where they do not.
    pub fn validate(&self) -> Result<(), RunLengthError> {
        let expected = self.size.area() as u64;
        let found = self.counts.iter().map(|&run| u64::from(run)).sum();
        if expected == found { Ok(()) } else { Err(RunLengthError { size: self.size, expected, found }) }
    }

    /// Start and end of each run of set pixels, as column-major positions.
    fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = 0;
        self.counts.chunks(2).filter_map(move |pair| {
            let start = at + u64::from(pair[0]);
            at = start + pair.get(1).map_or(0, |&ones| u64::from(ones));
            (at > start).then_some((start, at))
        })
    }

    /// Writes the mask's pixels to `out`, whose buffer is reused.
    ///
    /// # Errors
    /// [`RunLengthError`], where the runs do not cover the image exactly.
    pub fn decode_into(&self, out: &mut BinaryMask) -> Result<(), RunLengthError> {
        self.validate()?;
        out.reset(self.size);
        let Some(bounds) = self.bounding_box() else { return Ok(()) };
        let height = u64::from(self.size.height);
        // Mark where columns change, then let every row take over what the row above holds: long runs cost no more than
        // short ones, and memory is walked in order.
        out.fill_down(bounds, |set| {
            for (start, end) in self.runs() {
                let (first, last) = (start / height, (end - 1) / height);
                for column in first..=last {
                    let from = if column == first { start % height } else { 0 };
                    set(column as u32, from as u32);
                    if column == last && !end.is_multiple_of(height) {
                        set(column as u32, (end % height) as u32);
                    }
                }
            }
        });
        Ok(())
    }

    /// The smallest rectangle that holds every set pixel; `None` for an empty mask.
    #[must_use]
    pub fn bounding_box(&self) -> Option<PixelRect> {
        let height = u64::from(self.size.height);
        let mut bounds = PixelRect { x0: u32::MAX, y0: u32::MAX, x1: 0, y1: 0 };
        for (start, end) in self.runs() {
            let (first, last) = (start / height, (end - 1) / height);
            bounds.x0 = bounds.x0.min(first as u32);
            bounds.x1 = bounds.x1.max(last as u32 + 1);
            let (top, bottom) = if first == last { (start % height, (end - 1) % height + 1) } else { (0, height) };
            bounds.y0 = bounds.y0.min(top as u32);
            bounds.y1 = bounds.y1.max(bottom as u32);
        }
        (bounds.x1 > 0).then_some(bounds)
    }

    /// Number of pixels in both masks; 0 for masks of different sizes.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> u64 {
        if self.size != other.size {
            return 0;
        }
        let (mut a, mut b) = (self.runs(), other.runs());
        let (mut next_a, mut next_b) = (a.next(), b.next());
        let mut both = 0;
        while let (Some((start_a, end_a)), Some((start_b, end_b))) = (next_a, next_b) {
            both += end_a.min(end_b).saturating_sub(start_a.max(start_b));
            if end_a < end_b {
                next_a = a.next();
            } else {
                next_b = b.next();
            }
        }
        both
    }

    /// Intersection over union, in [0, 1]; 0 where both are empty or the sizes differ.
    #[must_use]
    pub fn iou(&self, other: &Self) -> f64 {
        let both = self.intersection(other);
        let either = self.area() + other.area() - both;
        if either == 0 { 0.0 } else { both as f64 / either as f64 }
    }
}
