//! From a received image message to RGB pixels, trusting nothing the message declares.

use opencv::{
    boxed_ref::BoxedRef,
    core::{Mat, MatTrait as _, MatTraitConst as _, Rect},
    imgcodecs, imgproc,
};

use super::{
    compressed::Codec,
    encoding::{UnknownEncoding, excerpt},
};
use crate::types::{CameraImage, Encoding, ImagePayload, ImageSize, RgbImage};

/// Largest images accepted. What is larger is refused before a byte is allocated for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Longest side, pixels.
    pub max_side: u32,
    /// Most pixels.
    pub max_pixels: usize,
}

impl Default for DecodeLimits {
    /// 16,384 pixels a side, 64 megapixels: above every robot camera, at most 192 MiB of RGB.
    fn default() -> Self {
        Self { max_side: 16_384, max_pixels: 1 << 26 }
    }
}

/// Why an image could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No pixels, or more than the limits allow.
    #[error("expected an image of 1x1 to {max_pixels} pixels with sides of at most {max_side}; found {found}")]
    Size {
        /// Declared size.
        found: ImageSize,
        /// Longest side allowed.
        max_side: u32,
        /// Most pixels allowed.
        max_pixels: usize,
    },
    /// A size the encoding cannot have.
    #[error("expected {expected} for {encoding:?}; found {found}")]
    SizeForEncoding {
        /// Declared encoding.
        encoding: Encoding,
        /// What the encoding needs.
        expected: &'static str,
        /// Declared size.
        found: ImageSize,
    },
    /// An encoding this node does not read.
    #[error(transparent)]
    Encoding(#[from] UnknownEncoding),
    /// `step` is shorter than a row of pixels.
    #[error("expected a step of at least {expected} bytes for {encoding:?} at {size}; found {found}")]
    Step {
        /// Declared encoding.
        encoding: Encoding,
        /// Declared size.
        size: ImageSize,
        /// Bytes a row needs.
        expected: usize,
        /// Declared step.
        found: u32,
    },
    /// Less data than `step` and the size ask for.
    #[error("expected {expected} bytes ({rows} rows of {step}); found {found}")]
    ShortData {
        /// Bytes needed.
        expected: usize,
        /// Rows of data.
        rows: usize,
        /// Declared step.
        step: u32,
        /// Bytes received.
        found: usize,
    },
    /// Compressed data that is neither JPEG nor PNG.
    #[error("expected JPEG or PNG data; found format \"{format}\" with first bytes {first:02x?}")]
    UnknownCodec {
        /// The message's `format`, escaped and cut.
        format: String,
        /// First bytes of the data.
        first: Vec<u8>,
    },
    /// A JPEG or PNG file that is broken.
    #[error("the {codec} data {reason}")]
    Corrupt {
        /// File format.
        codec: Codec,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// OpenCV refused a conversion whose arguments had been checked.
    #[error("colour conversion failed: {0}")]
    Conversion(#[from] opencv::Error),
}

impl DecodeError {
    /// Short stable name, for counting in diagnostics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Size { .. } | Self::SizeForEncoding { .. } => "size",
            Self::Encoding(_) => "encoding",
            Self::Step { .. } => "step",
            Self::ShortData { .. } => "short_data",
            Self::UnknownCodec { .. } | Self::Corrupt { .. } => "codec",
            Self::Conversion(_) => "conversion",
        }
    }
}

/// Decodes images one after another, reusing its buffers.
#[derive(Debug)]
pub struct ImageDecoder {
    limits: DecodeLimits,
    /// What OpenCV decoded, BGR.
    bgr: Mat,
    /// High bytes of 16-bit samples.
    gray: Vec<u8>,
}

/// Raw pixels whose layout has been checked: `rows` rows of `step` bytes, the first `row_bytes` of each being pixels.
struct RawPixels<'a> {
    encoding: Encoding,
    size: ImageSize,
    data: &'a [u8],
    step: usize,
    row_bytes: usize,
    rows: usize,
}

impl ImageDecoder {
    /// A decoder that refuses images above `limits`.
    #[must_use]
    pub fn new(limits: DecodeLimits) -> Self {
        without_pool();
        Self { limits, bgr: Mat::default(), gray: Vec::new() }
    }

    /// Decodes `image` into `out`, whose buffer is reused. After an error the pixels of `out` are unspecified.
    ///
    /// `8UC3` is read as BGR, as `cv_bridge` does. YUV is BT.601 with limited range, also as OpenCV and `cv_bridge`
    /// have it. Of 16-bit samples the high byte is kept. EXIF orientation is ignored: `CameraInfo` describes the pixels
    /// as stored.
    ///
    /// # Errors
    /// [`DecodeError`], where the message contradicts itself or the limits, or its data is broken.
    pub fn decode(&mut self, image: &CameraImage, out: &mut RgbImage) -> Result<(), DecodeError> {
        match &image.payload {
            ImagePayload::Raw { size, encoding, is_bigendian, step, data } => {
                let raw = self.check_raw(*size, encoding, *step, data)?;
                self.convert(&raw, *is_bigendian, out)
            }
            ImagePayload::Compressed { format, data } => self.decode_file(format, data, out),
        }
    }

    /// As [`Self::decode`], but where the message holds just the pixels wanted (rgb8, rows without padding) its buffer and
    /// that of `out` change places: nothing is copied, and `image` keeps a buffer for the next message.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn take(&mut self, image: &mut CameraImage, out: &mut RgbImage) -> Result<(), DecodeError> {
        if let ImagePayload::Raw { size, encoding, step, data, .. } = &mut image.payload {
            let RawPixels { encoding, step, row_bytes, rows, .. } = self.check_raw(*size, encoding, *step, data)?;
            if encoding == Encoding::Rgb8 && step == row_bytes && data.len() == step * rows {
                out.size = *size;
                std::mem::swap(data, &mut out.data);
                return Ok(());
            }
        }
        self.decode(image, out)
    }

    fn check_size(&self, found: ImageSize) -> Result<(), DecodeError> {
        let DecodeLimits { max_side, max_pixels } = self.limits;
        let within = found.width.max(found.height) <= max_side && found.area() <= max_pixels;
        if found.area() > 0 && within { Ok(()) } else { Err(DecodeError::Size { found, max_side, max_pixels }) }
    }

    fn check_raw<'a>(
        &self,
        size: ImageSize,
        encoding: &str,
        step: u32,
        data: &'a [u8],
    ) -> Result<RawPixels<'a>, DecodeError> {
        self.check_size(size)?;
        let encoding: Encoding = encoding.parse()?;
        if let Some(expected) = encoding.size_violation(size) {
            return Err(DecodeError::SizeForEncoding { encoding, expected, found: size });
        }
        let row_bytes = encoding.row_bytes(size.width);
        if (step as usize) < row_bytes {
            return Err(DecodeError::Step { encoding, size, expected: row_bytes, found: step });
        }
        let rows = encoding.data_rows(size.height);
        // The limits keep rows below 2^15, so the product cannot overflow.
        let expected = rows * step as usize;
        let Some(used) = data.get(..expected) else {
            return Err(DecodeError::ShortData { expected, rows, step, found: data.len() });
        };
        Ok(RawPixels { encoding, size, data: used, step: step as usize, row_bytes, rows })
    }

    fn convert(&mut self, raw: &RawPixels<'_>, is_bigendian: bool, out: &mut RgbImage) -> Result<(), DecodeError> {
        out.reset(raw.size);
        let (channels, code) = match raw.encoding {
            Encoding::Rgb8 => {
                copy_rows(raw, &mut out.data);
                return Ok(());
            }
            Encoding::Mono16 => {
                let high_byte = usize::from(!is_bigendian);
                self.gray.resize(raw.size.area(), 0);
                let rows = raw.data.chunks_exact(raw.step).map(|row| &row[..raw.row_bytes]);
                for (to, from) in self.gray.chunks_exact_mut(raw.size.width as usize).zip(rows) {
                    for (high, sample) in to.iter_mut().zip(from.as_chunks::<2>().0) {
                        *high = sample[high_byte];
                    }
                }
                let gray =
                    Mat::new_rows_cols_with_data(raw.size.height as i32, raw.size.width as i32, self.gray.as_slice())?;
                return convert_into(&gray, imgproc::COLOR_GRAY2RGB, out);
            }
            Encoding::Bgr8 | Encoding::Type8UC3 => (3, imgproc::COLOR_BGR2RGB),
            Encoding::Rgba8 => (4, imgproc::COLOR_RGBA2RGB),
            Encoding::Bgra8 => (4, imgproc::COLOR_BGRA2RGB),
            Encoding::Mono8 | Encoding::Type8UC1 => (1, imgproc::COLOR_GRAY2RGB),
            Encoding::Uyvy => (2, imgproc::COLOR_YUV2RGB_UYVY),
            Encoding::Yuyv => (2, imgproc::COLOR_YUV2RGB_YUY2),
            Encoding::Nv12 => (1, imgproc::COLOR_YUV2RGB_NV12),
            Encoding::Nv21 => (1, imgproc::COLOR_YUV2RGB_NV21),
            // OpenCV names a mosaic after the second row's second and third pixel, ROS after the first two rows' first.
            Encoding::BayerRggb8 => (1, imgproc::COLOR_BayerBG2RGB),
            Encoding::BayerBggr8 => (1, imgproc::COLOR_BayerRG2RGB),
            Encoding::BayerGbrg8 => (1, imgproc::COLOR_BayerGR2RGB),
            Encoding::BayerGrbg8 => (1, imgproc::COLOR_BayerGB2RGB),
        };
        let bytes = Mat::new_rows_cols_with_data(raw.rows as i32, raw.step as i32, raw.data)?;
        let pixels = bytes.roi(Rect::new(0, 0, raw.row_bytes as i32, raw.rows as i32))?;
        convert_into(&pixels.reshape(channels, 0)?, code, out)
    }

    /// Decodes the bytes of a JPEG or PNG file; `format` is only quoted in errors.
    ///
    /// # Errors
    /// [`DecodeError`], where the file is of another kind, larger than the limits, cut off or broken.
    pub fn decode_file(&mut self, format: &str, data: &[u8], out: &mut RgbImage) -> Result<(), DecodeError> {
        let codec = Codec::sniff(data).ok_or_else(|| DecodeError::UnknownCodec {
            format: excerpt(format),
            first: data.iter().copied().take(8).collect(),
        })?;
        let corrupt = |reason| DecodeError::Corrupt { codec, reason };
        let size = codec.declared_size(data).map_err(corrupt)?;
        self.check_size(size)?;
        if i32::try_from(data.len()).is_err() {
            return Err(corrupt("is larger than 2 GiB"));
        }
        let bytes: BoxedRef<'_, Mat> = Mat::from_slice(data)?;
        let flags = imgcodecs::IMREAD_COLOR | imgcodecs::IMREAD_IGNORE_ORIENTATION;
        // OpenCV reports a broken file either by an exception or by an empty picture.
        let decoded = imgcodecs::imdecode_to(&bytes, flags, &mut self.bgr).map_err(|_| corrupt("cannot be decoded"))?;
        if decoded.rows() != size.height as i32 || decoded.cols() != size.width as i32 || decoded.channels() != 3 {
            return Err(corrupt("cannot be decoded"));
        }
        out.reset(size);
        convert_into(&self.bgr, imgproc::COLOR_BGR2RGB, out)
    }
}

/// Keeps OpenCV from working on threads of its own: conversions take a fraction of a millisecond, and its pool would be
/// nameless threads that compete with inference for the cores. Should it refuse, only that is lost.
///
/// Once in a process: two calls of `cv::setNumThreads` at a time free the same pool, which crashes (OpenCV 4.6 with TBB).
fn without_pool() {
    static DONE: std::sync::Once = std::sync::Once::new();
    DONE.call_once(|| {
        if let Err(error) = opencv::core::set_num_threads(1) {
            tracing::debug!(%error, "OpenCV keeps its thread pool");
        }
    });
}

fn copy_rows(raw: &RawPixels<'_>, out: &mut [u8]) {
    if raw.step == raw.row_bytes {
        out.copy_from_slice(raw.data);
        return;
    }
    for (to, from) in out.chunks_exact_mut(raw.row_bytes).zip(raw.data.chunks_exact(raw.step)) {
        to.copy_from_slice(&from[..raw.row_bytes]);
    }
}

/// Converts `source` straight into the buffer of `out`, which has the right size already.
fn convert_into(source: &impl opencv::core::ToInputArray, code: i32, out: &mut RgbImage) -> Result<(), DecodeError> {
    let (rows, cols) = (out.size.height as i32, out.size.width as i32);
    let mut bytes = Mat::new_rows_cols_with_data_mut(rows, cols * 3, out.data.as_mut_slice())?;
    let mut rgb = bytes.reshape_mut(3, 0)?;
    let target = rgb.data();
    imgproc::cvt_color_def(source, &mut rgb, code)?;
    // OpenCV reallocates an output of the wrong shape, which would leave `out` unwritten.
    if rgb.data() == target {
        Ok(())
    } else {
        Err(opencv::Error::new(opencv::core::StsUnmatchedSizes, "the output was reallocated").into())
    }
}
