//! Binary masks, as pixels and as COCO run lengths.

use super::geometry::{ImageSize, PixelRect};

/// A binary mask over a whole image, one byte per pixel. Its buffer is reused between frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BinaryMask {
    size: ImageSize,
    data: Vec<u8>,
    bounds: PixelRect,
}

impl BinaryMask {
    /// A mask from `size.area()` row-major bytes, where every byte that is not 0 counts as set. `None` where the length
    /// does not fit.
    #[must_use]
    pub fn from_row_major(size: ImageSize, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == size.area()).then(|| Self {
            size,
            data: bytes.iter().map(|&byte| u8::from(byte != 0)).collect(),
            bounds: PixelRect::full(size),
        })
    }

    /// Size of the image the mask covers.
    #[must_use]
    pub const fn size(&self) -> ImageSize {
        self.size
    }

    /// `size.area()` bytes, row-major, 0 or 1.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Bytes that it keeps allocated.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.data.capacity()
    }

    /// A rectangle outside which no pixel is set (not always the smallest one).
    #[must_use]
    pub const fn bounds(&self) -> PixelRect {
        self.bounds
    }

    /// The bytes of row `y` within the columns of [`Self::bounds`]; empty outside the image.
    #[must_use]
    pub fn row_in_bounds(&self, y: u32) -> &[u8] {
        let row = y as usize * self.size.width as usize;
        self.data.get(row + self.bounds.x0 as usize..row + self.bounds.x1 as usize).unwrap_or_default()
    }

    /// Number of set pixels.
    #[must_use]
    pub fn area(&self) -> u64 {
        (self.bounds.y0..self.bounds.y1)
            .map(|y| self.row_in_bounds(y).iter().map(|&bit| u64::from(bit)).sum::<u64>())
            .sum()
    }

    /// Gives the mask `size` with no pixel set, keeping the allocation where it is large enough; only the pixels that
    /// can be set are cleared.
    pub fn reset(&mut self, size: ImageSize) {
        if size == self.size {
            let (width, bounds) = (size.width as usize, self.bounds);
            for y in bounds.y0..bounds.y1 {
                let row = y as usize * width;
                if let Some(bits) = self.data.get_mut(row + bounds.x0 as usize..row + bounds.x1 as usize) {
                    bits.fill(0);
                }
            }
        } else {
            self.data.clear();
            self.data.resize(size.area(), 0);
            self.size = size;
        }
        self.bounds = PixelRect::default();
    }

    /// Fills a mask that is empty within `rect` (clipped to the image): `mark` names the pixels `(x, y)` at which a column
    /// changes, read from the top, between unset and set. A pixel named twice cancels itself out; pixels outside `rect`
    /// are ignored. Widens [`Self::bounds`] by `rect`.
    pub fn fill_down(&mut self, rect: PixelRect, mark: impl FnOnce(&mut dyn FnMut(u32, u32))) {
        let rect = rect.intersection(&PixelRect::full(self.size));
        self.write_rows(rect, |_, _| {});
        let width = self.size.width as usize;
        mark(&mut |x, y| {
            if (rect.x0..rect.x1).contains(&x) && (rect.y0..rect.y1).contains(&y) {
                self.data[y as usize * width + x as usize] ^= 1;
            }
        });
        for y in rect.y0 as usize + 1..rect.y1 as usize {
            let (above, below) = self.data.split_at_mut(y * width);
            let above = &above[(y - 1) * width..];
            let columns = rect.x0 as usize..rect.x1 as usize;
            for (bit, over) in below[columns.clone()].iter_mut().zip(&above[columns]) {
                *bit ^= over;
            }
        }
    }

    /// Calls `write(y, columns)` for each row of `rect`, clipped to the image; `columns` are the bytes of `rect` in that
    /// row, to be left at 0 or 1. Widens [`Self::bounds`] by `rect`.
    pub fn write_rows(&mut self, rect: PixelRect, mut write: impl FnMut(u32, &mut [u8])) {
        let rect = rect.intersection(&PixelRect::full(self.size));
        if rect.is_empty() {
            return;
        }
        self.bounds = if self.bounds.is_empty() {
            rect
        } else {
            PixelRect {
                x0: self.bounds.x0.min(rect.x0),
                y0: self.bounds.y0.min(rect.y0),
                x1: self.bounds.x1.max(rect.x1),
                y1: self.bounds.y1.max(rect.y1),
            }
        };
        let width = self.size.width as usize;
        let rows = self.data.chunks_exact_mut(width).enumerate().take(rect.y1 as usize).skip(rect.y0 as usize);
        for (y, row) in rows {
            write(y as u32, &mut row[rect.x0 as usize..rect.x1 as usize]);
        }
    }
}

/// A binary mask over a whole image as COCO *uncompressed run lengths*: alternating counts of 0s and 1s, starting with
/// 0s (which may be an empty run), in column-major order. `pycocotools.mask.frPyObjects` reads
/// `{"size": [height, width], "counts": counts}` as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunLengths {
    /// Size of the image the mask covers.
    pub size: ImageSize,
    /// Run lengths; they add up to `size.area()`.
    pub counts: Vec<u32>,
}

impl RunLengths {
    /// Number of pixels in the mask.
    #[must_use]
    pub fn area(&self) -> u64 {
        self.counts.iter().skip(1).step_by(2).map(|&run| u64::from(run)).sum()
    }
}
