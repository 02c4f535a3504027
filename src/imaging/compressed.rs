//! What a JPEG or PNG file says about itself, read before any decoder sees it.
//!
//! A few hundred bytes can declare billions of pixels, so the declared size is checked against the limits first, on the
//! header alone (ITU-T T.81 annex B; PNG specification §11.2.2).

use crate::types::ImageSize;

/// File format of compressed image data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// JPEG, baseline or progressive.
    Jpeg,
    /// PNG.
    Png,
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
        })
    }
}

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// A progressive JPEG of a camera has about ten scans. Each scan costs a pass over the whole picture, so a small file
/// with thousands of them would stall the node.
const MAX_SCANS: usize = 64;

impl Codec {
    /// The format of `data` by its first bytes; the message's `format` string is not trusted, because drivers disagree
    /// about it ("jpeg", "jpg", "rgb8; jpeg compressed bgr8").
    #[must_use]
    pub fn sniff(data: &[u8]) -> Option<Self> {
        if data.starts_with(&[0xff, 0xd8, 0xff]) {
            Some(Self::Jpeg)
        } else if data.starts_with(PNG_SIGNATURE) {
            Some(Self::Png)
        } else {
            None
        }
    }

    /// The size the file declares.
    ///
    /// # Errors
    /// A reason, where the header is broken or the file visibly ends before its picture does.
    pub fn declared_size(self, data: &[u8]) -> Result<ImageSize, &'static str> {
        match self {
            Self::Jpeg => jpeg_size(data),
            Self::Png => png_size(data),
        }
    }
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(data.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn png_size(data: &[u8]) -> Result<ImageSize, &'static str> {
    const SHORT: &str = "ends within its header";
    let at = PNG_SIGNATURE.len();
    if u32_at(data, at).ok_or(SHORT)? != 13 || data.get(at + 4..at + 8) != Some(b"IHDR") {
        return Err("does not begin with an IHDR chunk");
    }
    Ok(ImageSize::new(u32_at(data, at + 8).ok_or(SHORT)?, u32_at(data, at + 12).ok_or(SHORT)?))
}

fn jpeg_size(data: &[u8]) -> Result<ImageSize, &'static str> {
    const SHORT: &str = "ends within its header";
    let mut at = 2;
    let (size, progressive) = loop {
        if *data.get(at).ok_or(SHORT)? != 0xff {
            return Err("has no marker where one is due");
        }
        // Any number of fill bytes may precede a marker.
        while *data.get(at).ok_or(SHORT)? == 0xff {
            at += 1;
        }
        let marker = *data.get(at).ok_or(SHORT)?;
        at += 1;
        match marker {
            // TEM and restart markers stand alone.
            0x01 | 0xd0..=0xd7 => {}
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                let height = u16_at(data, at + 3).ok_or(SHORT)?;
                let width = u16_at(data, at + 5).ok_or(SHORT)?;
                let progressive = matches!(marker, 0xc2 | 0xc6 | 0xca | 0xce);
                break (ImageSize::new(width.into(), height.into()), progressive);
            }
            0xd8..=0xda | 0x00 => return Err("has no frame header before its data"),
            _ => {
                let length = u16_at(data, at).ok_or(SHORT)?;
                if length < 2 {
                    return Err("has a segment of impossible length");
                }
                at += usize::from(length);
            }
        }
    };
    // The decoder fills what is missing with grey and merely warns; half a picture must not reach the models.
    let body = data.get(at..).ok_or(SHORT)?;
    if !body.windows(2).rev().any(|pair| pair == [0xff, 0xd9]) {
        return Err("is cut off: no end-of-image marker");
    }
    if progressive && body.windows(2).filter(|pair| *pair == [0xff, 0xda]).count() > MAX_SCANS {
        return Err("has more scans than any camera writes");
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_hand_written_headers() {
        let mut jpeg = vec![0xff, 0xd8, 0xff, 0xe0, 0x00, 0x04, 0xab, 0xcd, 0xff, 0xff, 0xc0, 0x00, 0x0b, 8];
        jpeg.extend([0x01, 0xe0, 0x02, 0x80, 1, 1, 0x11, 0, 0xff, 0xda, 0, 2, 0xff, 0xd9]);
        assert_eq!(Codec::sniff(&jpeg), Some(Codec::Jpeg));
        assert_eq!(Codec::Jpeg.declared_size(&jpeg), Ok(ImageSize::new(640, 480)));
        let mut png = PNG_SIGNATURE.to_vec();
        png.extend(b"\0\0\0\x0dIHDR\0\0\x05\0\0\0\x02\xd0\x08\x02\0\0\0");
        assert_eq!(Codec::Png.declared_size(&png), Ok(ImageSize::new(1280, 720)));
    }

    #[test]
    fn a_header_cut_anywhere_is_an_error_and_not_a_panic() {
        let mut jpeg = vec![0xff, 0xd8, 0xff, 0xe0, 0x00, 0x04, 0xab, 0xcd, 0xff, 0xc0, 0x00, 0x0b, 8];
        jpeg.extend([0x01, 0xe0, 0x02, 0x80, 1, 1, 0x11, 0, 0xff, 0xd9]);
        for end in 0..jpeg.len() {
            assert!(Codec::Jpeg.declared_size(&jpeg[..end]).is_err(), "{end}");
        }
        let mut png = PNG_SIGNATURE.to_vec();
        png.extend(b"\0\0\0\x0dIHDR\0\0\x05\0\0\0\x02\xd0");
        for end in 0..png.len() {
            assert!(Codec::Png.declared_size(&png[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn an_end_marker_in_a_thumbnail_does_not_hide_a_cut() {
        // An APP1 segment holding ff d9, then a frame header, then nothing.
        let jpeg = [
            0xff, 0xd8, 0xff, 0xe1, 0, 4, 0xff, 0xd9, 0xff, 0xc0, 0, 0x0b, 8, 0, 8, 0, 8, 1, 1, 0x11, 0, 0xff, 0xda, 0,
            2, 1, 2, 3,
        ];
        assert_eq!(Codec::Jpeg.declared_size(&jpeg), Err("is cut off: no end-of-image marker"));
    }
}
