//! Names and layouts of the raw pixel encodings (`sensor_msgs/image_encodings.hpp`).

use std::str::FromStr;

use crate::types::{Encoding, ImageSize};

/// An encoding string this node does not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of the encodings {}; found \"{found}\"", supported())]
pub struct UnknownEncoding {
    /// The string received, escaped and cut to a length fit for a log line.
    pub found: String,
}

const NAMES: [(&str, Encoding); 18] = [
    ("rgb8", Encoding::Rgb8),
    ("bgr8", Encoding::Bgr8),
    ("rgba8", Encoding::Rgba8),
    ("bgra8", Encoding::Bgra8),
    ("mono8", Encoding::Mono8),
    ("mono16", Encoding::Mono16),
    ("8UC1", Encoding::Type8UC1),
    ("8UC3", Encoding::Type8UC3),
    ("uyvy", Encoding::Uyvy),
    ("yuv422", Encoding::Uyvy),
    ("yuyv", Encoding::Yuyv),
    ("yuv422_yuy2", Encoding::Yuyv),
    ("nv12", Encoding::Nv12),
    ("nv21", Encoding::Nv21),
    ("bayer_rggb8", Encoding::BayerRggb8),
    ("bayer_bggr8", Encoding::BayerBggr8),
    ("bayer_gbrg8", Encoding::BayerGbrg8),
    ("bayer_grbg8", Encoding::BayerGrbg8),
];

fn supported() -> String {
    NAMES.map(|(name, _)| name).join(", ")
}

impl FromStr for Encoding {
    type Err = UnknownEncoding;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|&(_, encoding)| encoding)
            .ok_or_else(|| UnknownEncoding { found: excerpt(name) })
    }
}

/// The first characters of a string from outside, escaped, so that a hostile one can neither flood nor forge the log.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 40;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

impl Encoding {
    /// Bytes of pixels in a row `width` pixels wide, without padding.
    #[must_use]
    pub const fn row_bytes(self, width: u32) -> usize {
        let width = width as usize;
        match self {
            Self::Rgb8 | Self::Bgr8 | Self::Type8UC3 => width * 3,
            Self::Rgba8 | Self::Bgra8 => width * 4,
            Self::Mono16 | Self::Uyvy | Self::Yuyv => width * 2,
            Self::Mono8
            | Self::Type8UC1
            | Self::Nv12
            | Self::Nv21
            | Self::BayerRggb8
            | Self::BayerBggr8
            | Self::BayerGbrg8
            | Self::BayerGrbg8 => width,
        }
    }

    /// Rows of data for an image `height` pixels high (NV12 and NV21 carry their half-height chroma plane below the luma plane).
    #[must_use]
    pub const fn data_rows(self, height: u32) -> usize {
        let height = height as usize;
        match self {
            Self::Nv12 | Self::Nv21 => height + height / 2,
            _ => height,
        }
    }

    /// What a size must satisfy for this encoding, where `size` does not: chroma shared by two pixels needs even sides,
    /// interpolation of a Bayer mosaic needs a whole neighbourhood.
    #[must_use]
    pub const fn size_violation(self, size: ImageSize) -> Option<&'static str> {
        let (odd_width, odd_height) = (!size.width.is_multiple_of(2), !size.height.is_multiple_of(2));
        match self {
            Self::Uyvy | Self::Yuyv if odd_width => Some("an even width"),
            Self::Nv12 | Self::Nv21 if odd_width || odd_height => Some("even width and height"),
            Self::BayerRggb8 | Self::BayerBggr8 | Self::BayerGbrg8 | Self::BayerGrbg8
                if size.width < 4 || size.height < 4 =>
            {
                Some("at least 4x4 pixels")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_is_read_and_near_misses_are_not() {
        for (name, encoding) in NAMES {
            assert_eq!(name.parse(), Ok(encoding));
        }
        for wrong in ["", "RGB8", "rgb8 ", "16UC1", "rgb", "bayer_rggb16", "yuv"] {
            assert!(wrong.parse::<Encoding>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_hostile_name_is_shortened_and_escaped() {
        let long = "\u{1b}[2J\n".repeat(100_000);
        let shown = long.parse::<Encoding>().unwrap_err().found;
        assert!(shown.len() < 300, "{}", shown.len());
        assert!(!shown.contains('\u{1b}') && !shown.contains('\n'));
    }
}
