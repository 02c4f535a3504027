//! Camera images as they arrive, before and after decoding.

use super::geometry::ImageSize;

/// ROS time stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Seconds since the epoch of the clock in use.
    pub sec: i32,
    /// Nanoseconds, below 1e9.
    pub nanosec: u32,
}

impl Stamp {
    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.sec as i64 * 1_000_000_000 + self.nanosec as i64
    }

    /// The stamp `nanos` nanoseconds after the epoch (saturating at the range of `builtin_interfaces/Time`).
    #[must_use]
    pub fn from_nanos(nanos: i64) -> Self {
        let sec = nanos.div_euclid(1_000_000_000).clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        Self { sec: sec as i32, nanosec: nanos.rem_euclid(1_000_000_000) as u32 }
    }
}

/// Stamp and coordinate frame of a message; copied from the image to every result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Acquisition time of the image.
    pub stamp: Stamp,
    /// Optical frame of the camera.
    pub frame_id: String,
}

/// Pixel encodings accepted on `image`, named as in `sensor_msgs/image_encodings.hpp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the ROS encodings themselves")]
pub enum Encoding {
    Rgb8,
    Bgr8,
    Rgba8,
    Bgra8,
    Mono8,
    Mono16,
    Type8UC1,
    /// Three 8-bit channels without a declared order; read as BGR, as OpenCV and cv_bridge do.
    Type8UC3,
    /// UYVY byte order (`yuv422`, `uyvy`).
    Uyvy,
    /// YUYV byte order (`yuv422_yuy2`, `yuyv`).
    Yuyv,
    Nv12,
    Nv21,
    BayerRggb8,
    BayerBggr8,
    BayerGbrg8,
    BayerGrbg8,
}

/// What an image message carries, before decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImagePayload {
    /// `sensor_msgs/Image`.
    Raw {
        /// Declared size.
        size: ImageSize,
        /// Encoding string as received; turned into [`Encoding`] by the decoder.
        encoding: String,
        /// Whether multi-byte samples are big endian.
        is_bigendian: bool,
        /// Bytes per row, padding included.
        step: u32,
        /// `step * rows` bytes.
        data: Vec<u8>,
    },
    /// `sensor_msgs/CompressedImage` (JPEG or PNG).
    Compressed {
        /// Format string as received, for messages only; the data decide.
        format: String,
        /// The file's bytes.
        data: Vec<u8>,
    },
}

impl Default for ImagePayload {
    /// No bytes at all.
    fn default() -> Self {
        Self::Compressed { format: String::new(), data: Vec::new() }
    }
}

/// One received image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CameraImage {
    /// Stamp and frame as received.
    pub header: Header,
    /// Pixels, still encoded.
    pub payload: ImagePayload,
}

/// A decoded image: RGB, 8 bits per channel, rows without padding. Its buffer is reused between frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RgbImage {
    /// Size in pixels.
    pub size: ImageSize,
    /// `height * width * 3` bytes, row-major.
    pub data: Vec<u8>,
}

impl RgbImage {
    /// Gives the image `size`, keeping the allocation where it is large enough; pixel values are unspecified.
    pub fn reset(&mut self, size: ImageSize) {
        self.size = size;
        self.data.resize(size.area() * 3, 0);
    }
}
