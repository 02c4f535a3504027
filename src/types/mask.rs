//! Binary masks, as pixels and as COCO run lengths.

use super::geometry::{ImageSize, PixelRect};

/// A binary mask over a whole image, of which only a rectangle around the object is kept, one byte per pixel: an object
/// that fills a fiftieth of the picture takes a fiftieth of its memory. Its buffer is reused between frames.
#[derive(Clone, Debug, Default)]
pub struct BinaryMask {
    size: ImageSize,
    bounds: PixelRect,
    /// The rows of `bounds`, one behind the other.
    data: Vec<u8>,
}

impl BinaryMask {
    /// A mask from `size.area()` row-major bytes, where every byte that is not 0 counts as set. `None` where the length
    /// does not fit.
    #[must_use]
    pub fn from_row_major(size: ImageSize, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == size.area()).then(|| Self {
            size,
            bounds: PixelRect::full(size),
            data: bytes.iter().map(|&byte| u8::from(byte != 0)).collect(),
        })
    }

    /// `size.area()` bytes, row-major, 0 or 1.
    #[must_use]
    pub fn to_row_major(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size.area()];
        let columns = self.bounds.x0 as usize..self.bounds.x1 as usize;
        for (y, row) in self.rows() {
            let start = y as usize * self.size.width as usize;
            bytes[start + columns.start..start + columns.end].copy_from_slice(row);
        }
        bytes
    }

    /// Size of the image the mask covers.
    #[must_use]
    pub const fn size(&self) -> ImageSize {
        self.size
    }

    /// Bytes that it keeps allocated.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.data.capacity()
    }

    /// Makes room for so many bytes of pixels: a mask that is larger than all before it needs no more then.
    pub fn reserve(&mut self, bytes: usize) {
        self.data.reserve_exact(bytes.saturating_sub(self.data.len()));
    }

    /// A rectangle outside which no pixel is set (not always the smallest one).
    #[must_use]
    pub const fn bounds(&self) -> PixelRect {
        self.bounds
    }

    /// The rows of [`Self::bounds`], each with its `y`: a byte, 0 or 1, for each of its columns.
    pub fn rows(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (self.bounds.y0..).zip(self.data.chunks_exact(self.bounds.width().max(1) as usize))
    }

    /// Row `y` of [`Self::bounds`]; empty outside.
    #[must_use]
    pub fn row(&self, y: u32) -> &[u8] {
        let width = self.bounds.width() as usize;
        let start = y.checked_sub(self.bounds.y0).map(|row| row as usize * width);
        start.and_then(|start| self.data.get(start..start + width)).unwrap_or_default()
    }

    /// Number of set pixels.
    #[must_use]
    pub fn area(&self) -> u64 {
        self.data.iter().map(|&bit| u64::from(bit)).sum()
    }

    /// Gives the mask `size` with no pixel set.
    pub fn reset(&mut self, size: ImageSize) {
        *self = Self { size, bounds: PixelRect::default(), data: std::mem::take(&mut self.data) };
        self.data.clear();
    }

    /// Fills the mask within `rect`, clipped to the image, and leaves nothing outside: `mark` names the pixels `(x, y)` at
    /// which a column changes, read from the top, between unset and set. A pixel named twice cancels itself out; pixels
    /// outside `rect` are ignored.
    pub fn fill_down(&mut self, rect: PixelRect, mark: impl FnOnce(&mut dyn FnMut(u32, u32))) {
        self.write_rows(rect, |_, _| {});
        let (rect, width) = (self.bounds, self.bounds.width() as usize);
        mark(&mut |x, y| {
            if (rect.x0..rect.x1).contains(&x) && (rect.y0..rect.y1).contains(&y) {
                self.data[(y - rect.y0) as usize * width + (x - rect.x0) as usize] ^= 1;
            }
        });
        for start in (0..self.data.len()).step_by(width.max(1)).skip(1) {
            let (above, below) = self.data.split_at_mut(start);
            for (bit, over) in below[..width].iter_mut().zip(&above[start - width..]) {
                *bit ^= over;
            }
        }
    }

    /// Calls `write(y, columns)` for each row of `rect`, clipped to the image, and leaves nothing outside; `columns` are the
    /// bytes of `rect` in that row, 0 at first, to be left at 0 or 1.
    pub fn write_rows(&mut self, rect: PixelRect, mut write: impl FnMut(u32, &mut [u8])) {
        let rect = rect.intersection(&PixelRect::full(self.size));
        self.bounds = if rect.is_empty() { PixelRect::default() } else { rect };
        let width = self.bounds.width() as usize;
        self.data.clear();
        self.data.resize(width * self.bounds.height() as usize, 0);
        for (y, row) in (self.bounds.y0..).zip(self.data.chunks_exact_mut(width.max(1))) {
            write(y, row);
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
