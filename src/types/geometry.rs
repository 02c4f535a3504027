//! Sizes, boxes and points. Image and model coordinates have different types, because swapping them (or height and
//! width) is the field's classic bug.

use serde::{Deserialize, Serialize};

/// Size of an image in whole pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageSize {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl ImageSize {
    /// A size of `width` columns and `height` rows.
    #[must_use]
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// Number of pixels; cannot overflow for `u32` sides on a 64-bit machine.
    #[must_use]
    pub const fn area(self) -> usize {
        self.width as usize * self.height as usize
    }
}

impl std::fmt::Display for ImageSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// A point in continuous image coordinates: pixels, origin at the outer corner of the top-left pixel, x to the right,
/// y down (the centre of the first pixel is (0.5, 0.5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PixelPoint {
    /// Pixels from the left edge.
    pub x: f32,
    /// Pixels from the top edge.
    pub y: f32,
}

/// A point in continuous coordinates of a model's input, before padding: pixels of the resized image, origin and axes as
/// for [`PixelPoint`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ModelPoint {
    /// Pixels from the left edge.
    pub x: f32,
    /// Pixels from the top edge.
    pub y: f32,
}

/// A rectangle of whole pixels: columns `x0..x1`, rows `y0..y1` (ends excluded). Empty where an end does not exceed its
/// start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PixelRect {
    /// First column.
    pub x0: u32,
    /// First row.
    pub y0: u32,
    /// Column after the last.
    pub x1: u32,
    /// Row after the last.
    pub y1: u32,
}

impl PixelRect {
    /// The whole of an image of `size`.
    #[must_use]
    pub const fn full(size: ImageSize) -> Self {
        Self { x0: 0, y0: 0, x1: size.width, y1: size.height }
    }

    /// The smallest rectangle of whole pixels around `bbox`, clipped to an image of `size`. Coordinates that are not
    /// numbers count as 0.
    #[must_use]
    pub fn around(bbox: &PixelBox, size: ImageSize) -> Self {
        // Float to integer casts saturate, and turn NaN into 0.
        Self {
            x0: (bbox.x0.floor() as u32).min(size.width),
            y0: (bbox.y0.floor() as u32).min(size.height),
            x1: (bbox.x1.ceil() as u32).min(size.width),
            y1: (bbox.y1.ceil() as u32).min(size.height),
        }
    }

    /// Whether there is no pixel in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.x1 <= self.x0 || self.y1 <= self.y0
    }

    /// Columns.
    #[must_use]
    pub const fn width(&self) -> u32 {
        self.x1.saturating_sub(self.x0)
    }

    /// Rows.
    #[must_use]
    pub const fn height(&self) -> u32 {
        self.y1.saturating_sub(self.y0)
    }

    /// The pixels in both rectangles.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self {
            x0: self.x0.max(other.x0),
            y0: self.y0.max(other.y0),
            x1: self.x1.min(other.x1),
            y1: self.y1.min(other.y1),
        }
    }
}

/// An axis-aligned box in continuous image coordinates (pixels, see [`PixelPoint`]), `x0 <= x1`, `y0 <= y1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PixelBox {
    /// Left edge.
    pub x0: f32,
    /// Top edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Bottom edge.
    pub y1: f32,
}

impl PixelBox {
    /// Width in pixels, never negative.
    #[must_use]
    pub fn width(&self) -> f32 {
        (self.x1 - self.x0).max(0.0)
    }

    /// Height in pixels, never negative.
    #[must_use]
    pub fn height(&self) -> f32 {
        (self.y1 - self.y0).max(0.0)
    }

    /// Area in square pixels.
    #[must_use]
    pub fn area(&self) -> f32 {
        self.width() * self.height()
    }

    /// Middle of the box.
    #[must_use]
    pub fn center(&self) -> PixelPoint {
        PixelPoint { x: 0.5 * (self.x0 + self.x1), y: 0.5 * (self.y0 + self.y1) }
    }

    /// Whether `point` lies in the box (edges included).
    #[must_use]
    pub fn contains(&self, point: PixelPoint) -> bool {
        point.x >= self.x0 && point.x <= self.x1 && point.y >= self.y0 && point.y <= self.y1
    }

    /// Intersection over union with `other`, in [0, 1]; 0 when both are empty.
    #[must_use]
    pub fn iou(&self, other: &Self) -> f32 {
        let w = (self.x1.min(other.x1) - self.x0.max(other.x0)).max(0.0);
        let h = (self.y1.min(other.y1) - self.y0.max(other.y0)).max(0.0);
        let inter = w * h;
        let union = self.area() + other.area() - inter;
        if union > 0.0 { inter / union } else { 0.0 }
    }

    /// The part of the box inside an image of `size`.
    #[must_use]
    pub fn clipped(&self, size: ImageSize) -> Self {
        let (w, h) = (size.width as f32, size.height as f32);
        Self {
            x0: self.x0.clamp(0.0, w),
            y0: self.y0.clamp(0.0, h),
            x1: self.x1.clamp(0.0, w),
            y1: self.y1.clamp(0.0, h),
        }
    }
}

/// A box as detectors of the DETR family give it: centre and size, each in [0, 1] of the unpadded image region.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CenterBox {
    /// Centre, share of the image width.
    pub cx: f32,
    /// Centre, share of the image height.
    pub cy: f32,
    /// Width, share of the image width.
    pub w: f32,
    /// Height, share of the image height.
    pub h: f32,
}

impl CenterBox {
    /// The same box in pixels of an image of `size`; not clipped (as Hugging Face's Grounding DINO post-processing).
    #[must_use]
    pub fn to_pixels(self, size: ImageSize) -> PixelBox {
        let (w, h) = (size.width as f32, size.height as f32);
        PixelBox {
            x0: (self.cx - 0.5 * self.w) * w,
            y0: (self.cy - 0.5 * self.h) * h,
            x1: (self.cx + 0.5 * self.w) * w,
            y1: (self.cy + 0.5 * self.h) * h,
        }
    }
}
