//! A picture of what the node saw: tinted masks with crisp outlines, boxes, and labels with scores.

use opencv::{
    core::{Mat, MatTrait as _, MatTraitConst as _, Point, Rect, Scalar, Size, Vector},
    imgcodecs, imgproc,
    prelude::VectorToVec as _,
};

use crate::types::{FrameResult, ImageSize, LabeledInstance, RgbImage, UNLABELLED};

/// Share of the class colour inside a mask, of 256.
const FILL: u32 = 105;
const FONT: i32 = imgproc::FONT_HERSHEY_DUPLEX;

/// A picture could not be drawn or encoded.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The image's buffer does not match its size.
    #[error("expected {expected} bytes of RGB pixels; found {found}")]
    ImageLength {
        /// Bytes for its size.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// OpenCV refused.
    #[error("drawing failed: {0}")]
    Drawing(#[from] opencv::Error),
}

/// The colour of a class, RGB: the same for the same id in every frame and run, bright, and far from those of the ids
/// next to it.
#[must_use]
pub fn class_color(class_id: u16) -> [u8; 3] {
    if class_id == UNLABELLED {
        return [200, 200, 200];
    }
    // Steps of the golden ratio spread any number of hues evenly; brightness alternates to part close ones.
    const GOLDEN: f64 = 0.618_033_988_749_895;
    let hue = (f64::from(class_id) * GOLDEN + 0.06).fract() * 6.0;
    let (saturation, value) = [(0.78, 1.0), (0.62, 0.95), (0.88, 0.90)][usize::from(class_id % 3)];
    let channel = |offset: f64| {
        let k = (offset + hue) % 6.0;
        (255.0 * (value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0))).round() as u8
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

fn scalar([r, g, b]: [u8; 3]) -> Scalar {
    Scalar::new(r.into(), g.into(), b.into(), 255.0)
}

/// Mixes `color` into `pixel`, `share` of 256.
fn mix(pixel: [u8; 3], color: [u8; 3], share: u32) -> [u8; 3] {
    std::array::from_fn(|c| ((u32::from(pixel[c]) * (256 - share) + u32::from(color[c]) * share) >> 8) as u8)
}

/// Sizes of lines and letters for an image.
struct Style {
    outline: u32,
    thin: i32,
    font_scale: f64,
    margin: i32,
}

impl Style {
    fn new(size: ImageSize) -> Self {
        let unit = f64::from(size.width.min(size.height)) / 480.0;
        Self {
            outline: (2.0 * unit).round().clamp(1.0, 6.0) as u32,
            thin: unit.round().clamp(1.0, 4.0) as i32,
            font_scale: (0.45 * unit).clamp(0.38, 2.0),
            margin: (4.0 * unit).round().clamp(2.0, 16.0) as i32,
        }
    }
}

/// Draws `result` over `image` into `out`, whose buffer is reused. Masks are those of `result.instance_ids` (overlaps
/// resolved); where that does not cover the image, only boxes and labels are drawn.
///
/// # Errors
/// [`OverlayError`], where the image's buffer has the wrong length or OpenCV refuses.
pub fn draw_overlay(image: &RgbImage, result: &FrameResult, out: &mut RgbImage) -> Result<(), OverlayError> {
    let size = image.size;
    let expected = size.area() * 3;
    if image.data.len() != expected {
        return Err(OverlayError::ImageLength { expected, found: image.data.len() });
    }
    out.reset(size);
    out.data.copy_from_slice(&image.data);
    if size.area() == 0 {
        return Ok(());
    }
    let style = Style::new(size);
    if result.instance_ids.len() == size.area() {
        tint(result, size, style.outline as usize, &mut out.data);
    }
    let mut bytes =
        Mat::new_rows_cols_with_data_mut(size.height as i32, size.width as i32 * 3, out.data.as_mut_slice())?;
    let mut canvas = bytes.reshape_mut(3, 0)?;
    for instance in &result.instances {
        let clipped = instance.bbox.clipped(size);
        let (x0, y0) = (clipped.x0.round() as i32, clipped.y0.round() as i32);
        let rect = Rect::new(x0, y0, clipped.x1.round() as i32 - x0, clipped.y1.round() as i32 - y0);
        let color = scalar(class_color(instance.class_id));
        imgproc::rectangle(&mut canvas, rect, color, style.thin, imgproc::LINE_8, 0)?;
    }
    // Labels go on top of everything, the surest ones last.
    let mut taken: Vec<Rect> = Vec::with_capacity(result.instances.len());
    for instance in result.instances.iter().rev() {
        draw_label(&mut canvas, instance, size, &style, &mut taken)?;
    }
    Ok(())
}

/// Tints every instance and outlines it on its inner side.
fn tint(result: &FrameResult, size: ImageSize, outline: usize, pixels: &mut [u8]) {
    let mut colors: Vec<Option<[u8; 3]>> = Vec::new();
    for instance in &result.instances {
        let at = instance.instance_id as usize;
        // Instance images hold 16 bits.
        if at <= usize::from(u16::MAX) {
            colors.resize(colors.len().max(at + 1), None);
            colors[at] = Some(class_color(instance.class_id));
        }
    }
    let (width, height) = (size.width as usize, size.height as usize);
    let ids = &result.instance_ids;
    for y in 0..height {
        let row = &ids[y * width..][..width];
        let above = &ids[y.saturating_sub(outline) * width..][..width];
        let below = &ids[(y + outline).min(height - 1) * width..][..width];
        for (x, pixel) in pixels[y * width * 3..][..width * 3].as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let id = row[x];
            let Some(color) = colors.get(usize::from(id)).copied().flatten() else { continue };
            let (left, right) = (row[x.saturating_sub(outline)], row[(x + outline).min(width - 1)]);
            let inside = id == above[x] && id == below[x] && id == left && id == right;
            *pixel = if inside { mix(*pixel, color, FILL) } else { mix(color, [255; 3], 64) };
        }
    }
}

fn draw_label(
    canvas: &mut impl opencv::core::ToInputOutputArray,
    instance: &LabeledInstance,
    size: ImageSize,
    style: &Style,
    taken: &mut Vec<Rect>,
) -> Result<(), OverlayError> {
    let text = format!("{} {:.0}%", instance.label, instance.score * 100.0);
    let mut baseline = 0;
    let extent = imgproc::get_text_size(&text, FONT, style.font_scale, 1, &mut baseline)?;
    let chip = Size::new(extent.width + 2 * style.margin, extent.height + 2 * style.margin);
    let place = place_label(instance, size, chip, taken);
    taken.push(place);
    let color = class_color(instance.class_id);
    imgproc::rectangle(canvas, place, scalar(color), imgproc::FILLED, imgproc::LINE_8, 0)?;
    // Rec. 601 luma decides between dark and light letters.
    let luma = 299 * u32::from(color[0]) + 587 * u32::from(color[1]) + 114 * u32::from(color[2]);
    let ink = if luma > 130_000 { [16, 16, 16] } else { [255, 255, 255] };
    let origin = Point::new(place.x + style.margin, place.y + chip.height - style.margin);
    imgproc::put_text(canvas, &text, origin, FONT, style.font_scale, scalar(ink), 1, imgproc::LINE_AA, false)?;
    Ok(())
}

/// Above the box if there is room, else inside it; further down where another label is in the way.
fn place_label(instance: &LabeledInstance, size: ImageSize, chip: Size, taken: &[Rect]) -> Rect {
    let (width, height) = (size.width as i32, size.height as i32);
    let bbox = instance.bbox.clipped(size);
    let x = (bbox.x0.round() as i32).min(width - chip.width).max(0);
    let top = bbox.y0.round() as i32;
    let lowest = (height - chip.height).max(0);
    let start = if top >= chip.height { top - chip.height } else { top };
    let mut place = Rect::new(x, start.clamp(0, lowest), chip.width, chip.height);
    // A few steps are enough to part neighbours; a crowd may overlap.
    for _ in 0..6 {
        let Some(other) = taken.iter().find(|other| (place & **other).area() > 0) else { break };
        let down = other.y + other.height;
        if down > lowest {
            break;
        }
        place.y = down;
    }
    place
}

/// File formats pictures are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureFormat {
    /// JPEG of the given quality, 1 to 100.
    Jpeg(u8),
    /// PNG.
    Png,
}

/// Encodes `image` as a file; returns its bytes.
///
/// # Errors
/// [`OverlayError`], where the image's buffer has the wrong length or OpenCV refuses.
pub fn encode_picture(image: &RgbImage, format: PictureFormat) -> Result<Vec<u8>, OverlayError> {
    let expected = image.size.area() * 3;
    if image.data.len() != expected {
        return Err(OverlayError::ImageLength { expected, found: image.data.len() });
    }
    let (rows, cols) = (image.size.height as i32, image.size.width as i32);
    let bytes = Mat::new_rows_cols_with_data(rows, cols * 3, image.data.as_slice())?;
    let mut bgr = Mat::default();
    imgproc::cvt_color_def(&bytes.reshape(3, 0)?, &mut bgr, imgproc::COLOR_RGB2BGR)?;
    let mut file = Vector::<u8>::new();
    let (extension, options) = match format {
        PictureFormat::Jpeg(quality) => (".jpg", vec![imgcodecs::IMWRITE_JPEG_QUALITY, i32::from(quality)]),
        PictureFormat::Png => (".png", vec![imgcodecs::IMWRITE_PNG_COMPRESSION, 3]),
    };
    imgcodecs::imencode(extension, &bgr, &mut file, &Vector::from_slice(&options))?;
    Ok(file.to_vec())
}

/// Encodes `image` as a JPEG file of `quality` 1 to 100.
///
/// # Errors
/// As [`encode_picture`].
pub fn encode_jpeg(image: &RgbImage, quality: u8) -> Result<Vec<u8>, OverlayError> {
    encode_picture(image, PictureFormat::Jpeg(quality))
}
