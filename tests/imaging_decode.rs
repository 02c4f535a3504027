//! Raw encodings against their definitions, and messages that lie about themselves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use scenelex::{
    imaging::{DecodeLimits, ImageDecoder},
    types::{CameraImage, Header, ImagePayload, ImageSize, RgbImage},
};

struct Raw {
    size: (u32, u32),
    encoding: &'static str,
    is_bigendian: bool,
    step: u32,
    data: Vec<u8>,
}

fn decode(raw: Raw) -> Result<RgbImage, &'static str> {
    let image = CameraImage {
        header: Header::default(),
        payload: ImagePayload::Raw {
            size: ImageSize::new(raw.size.0, raw.size.1),
            encoding: raw.encoding.to_owned(),
            is_bigendian: raw.is_bigendian,
            step: raw.step,
            data: raw.data,
        },
    };
    let mut out = RgbImage::default();
    let result = ImageDecoder::new(DecodeLimits::default()).decode(&image, &mut out);
    result.map(|()| out).map_err(|error| error.kind())
}

/// `row_bytes` of pixels in each row, then padding that must not be read as pixels.
fn padded(rows: &[Vec<u8>], padding: usize) -> (u32, Vec<u8>) {
    let step = rows[0].len() + padding;
    let data = rows.iter().flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0xaa, padding))).collect();
    (step as u32, data)
}

/// A small pattern in which no two neighbours are equal.
fn sample(x: u32, y: u32, channel: u32) -> u8 {
    (x * 37 + y * 59 + channel * 83 + x * y * 7) as u8
}

const SIZE: (u32, u32) = (6, 4);

/// Decodes rows of `SIZE`, with and without padding, and compares each pixel with `expected`.
fn check(encoding: &'static str, is_bigendian: bool, rows: &[Vec<u8>], expected: impl Fn(u32, u32) -> [u8; 3]) {
    for padding in [0, 1, 13] {
        let (step, data) = padded(rows, padding);
        let image = decode(Raw { size: SIZE, encoding, is_bigendian, step, data }).unwrap();
        assert_eq!(image.size, ImageSize::new(SIZE.0, SIZE.1));
        for (at, pixel) in image.data.as_chunks::<3>().0.iter().enumerate() {
            let (x, y) = (at as u32 % SIZE.0, at as u32 / SIZE.0);
            assert_eq!(*pixel, expected(x, y), "{encoding} with {padding} bytes of padding at ({x}, {y})");
        }
    }
}

fn rows(channels: u32) -> Vec<Vec<u8>> {
    let row = |y| (0..SIZE.0).flat_map(|x| (0..channels).map(move |c| sample(x, y, c))).collect();
    (0..SIZE.1).map(row).collect()
}

#[test]
fn colour_orders_and_gray() {
    let rgb = |x, y| [0, 1, 2].map(|c| sample(x, y, c));
    let bgr = |x, y| [2, 1, 0].map(|c| sample(x, y, c));
    let gray = |x, y| [sample(x, y, 0); 3];
    check("rgb8", false, &rows(3), rgb);
    check("bgr8", false, &rows(3), bgr);
    check("8UC3", false, &rows(3), bgr);
    check("rgba8", false, &rows(4), rgb);
    check("bgra8", true, &rows(4), bgr);
    check("mono8", false, &rows(1), gray);
    check("8UC1", true, &rows(1), gray);
    // Two bytes a sample; the high one comes last in little endian.
    check("mono16", false, &rows(2), |x, y| [sample(x, y, 1); 3]);
    check("mono16", true, &rows(2), |x, y| [sample(x, y, 0); 3]);
}

/// ITU-R BT.601, limited range.
fn yuv_to_rgb(y: u8, u: u8, v: u8) -> [f64; 3] {
    let (y, u, v) = (1.164_383_56 * (f64::from(y) - 16.0), f64::from(u) - 128.0, f64::from(v) - 128.0);
    [y + 1.596_026_78 * v, y - 0.391_762_29 * u - 0.812_967_65 * v, y + 2.017_232_14 * u].map(|c| c.clamp(0.0, 255.0))
}

fn check_yuv(encoding: &'static str, rows: &[Vec<u8>], yuv: impl Fn(u32, u32) -> (u8, u8, u8)) {
    for padding in [0, 3] {
        let (step, data) = padded(rows, padding);
        let image = decode(Raw { size: SIZE, encoding, is_bigendian: false, step, data }).unwrap();
        for (at, pixel) in image.data.as_chunks::<3>().0.iter().enumerate() {
            let (x, y) = (at as u32 % SIZE.0, at as u32 / SIZE.0);
            let (luma, u, v) = yuv(x, y);
            for (value, expected) in pixel.iter().zip(yuv_to_rgb(luma.max(16), u, v)) {
                assert!((f64::from(*value) - expected).abs() <= 1.5, "{encoding} ({x}, {y}): {value}, {expected}");
            }
        }
    }
}

#[test]
fn packed_and_planar_yuv() {
    let luma = |x: u32, y: u32| sample(x, y, 0);
    let u = |x: u32, y: u32| 100 + sample(x / 2, y, 1) % 60;
    let v = |x: u32, y: u32| 90 + sample(x / 2, y, 2) % 70;
    let packed = |order: fn([u8; 4]) -> [u8; 4]| -> Vec<Vec<u8>> {
        let pair = |x, y| order([luma(2 * x, y), u(2 * x, y), luma(2 * x + 1, y), v(2 * x, y)]);
        (0..SIZE.1).map(|y| (0..SIZE.0 / 2).flat_map(|x| pair(x, y)).collect()).collect()
    };
    for name in ["yuv422", "uyvy"] {
        check_yuv(name, &packed(|[y0, u, y1, v]| [u, y0, v, y1]), |x, y| (luma(x, y), u(x, y), v(x, y)));
    }
    for name in ["yuv422_yuy2", "yuyv"] {
        check_yuv(name, &packed(|yuyv| yuyv), |x, y| (luma(x, y), u(x, y), v(x, y)));
    }
    for (name, swapped) in [("nv12", false), ("nv21", true)] {
        let mut planes: Vec<Vec<u8>> = (0..SIZE.1).map(|y| (0..SIZE.0).map(|x| luma(x, y)).collect()).collect();
        let chroma = |x, y| if swapped { [v(x, y), u(x, y)] } else { [u(x, y), v(x, y)] };
        planes.extend((0..SIZE.1 / 2).map(|y| (0..SIZE.0 / 2).flat_map(|x| chroma(2 * x, y)).collect()));
        check_yuv(name, &planes, |x, y| (luma(x, y), u(x, y / 2), v(x, y / 2)));
    }
}

#[test]
fn bayer_mosaics_of_a_known_picture() {
    // Linear gradients are reproduced exactly by any linear interpolation, away from the border.
    let picture = |x: u32, y: u32| [20 + 4 * x + 6 * y, 200 - 6 * x - 2 * y, 90 + 2 * x + 4 * y].map(|c| c as u8);
    let size = (12, 10);
    for (encoding, order) in [
        ("bayer_rggb8", [0, 1, 1, 2]),
        ("bayer_bggr8", [2, 1, 1, 0]),
        ("bayer_gbrg8", [1, 2, 0, 1]),
        ("bayer_grbg8", [1, 0, 2, 1]),
    ] {
        let pixel = |x: u32, y: u32| picture(x, y)[order[(y % 2 * 2 + x % 2) as usize]];
        let rows: Vec<Vec<u8>> = (0..size.1).map(|y| (0..size.0).map(|x| pixel(x, y)).collect()).collect();
        let (step, data) = padded(&rows, 5);
        let image = decode(Raw { size, encoding, is_bigendian: false, step, data }).unwrap();
        for y in 1..size.1 - 1 {
            for x in 1..size.0 - 1 {
                let at = (y * size.0 + x) as usize * 3;
                for (value, expected) in image.data[at..at + 3].iter().zip(picture(x, y)) {
                    assert!(value.abs_diff(expected) <= 1, "{encoding} ({x}, {y}): {value}, {expected}");
                }
            }
        }
    }
}

#[test]
fn each_kind_of_lie_has_its_own_kind_of_error() {
    let raw = |size, encoding, step, length| Raw { size, encoding, is_bigendian: false, step, data: vec![7; length] };
    for (case, kind) in [
        (raw((0, 4), "rgb8", 0, 0), "size"),
        (raw((4, 0), "rgb8", 12, 0), "size"),
        (raw((u32::MAX, u32::MAX), "rgb8", u32::MAX, 100), "size"),
        (raw((16_385, 1), "mono8", 16_385, 16_385), "size"),
        (raw((16_000, 16_000), "mono8", 16_000, 100), "size"),
        (raw((5, 4), "yuyv", 10, 40), "size"),
        (raw((4, 3), "nv12", 4, 100), "size"),
        (raw((2, 2), "bayer_rggb8", 2, 4), "size"),
        (raw((4, 4), "rgb16", 24, 96), "encoding"),
        (raw((4, 4), "", 12, 48), "encoding"),
        (raw((4, 4), "rgb8", 11, 48), "step"),
        (raw((4, 4), "rgb8", 0, 48), "step"),
        (raw((4, 4), "rgb8", 12, 47), "short_data"),
        (raw((4, 4), "rgb8", u32::MAX, 48), "short_data"),
        (raw((4, 4), "nv12", 4, 16), "short_data"),
        (raw((4, 4), "rgb8", 12, 0), "short_data"),
    ] {
        let label = format!("{:?} {} step {} with {} bytes", case.size, case.encoding, case.step, case.data.len());
        assert_eq!(decode(case).map(|image| image.size), Err(kind), "{label}");
    }
}

fn decode_file(data: &[u8]) -> Result<RgbImage, &'static str> {
    let image = CameraImage {
        header: Header::default(),
        payload: ImagePayload::Compressed { format: "rgb8; jpeg compressed bgr8".to_owned(), data: data.to_vec() },
    };
    let mut out = RgbImage::default();
    let result = ImageDecoder::new(DecodeLimits::default()).decode(&image, &mut out);
    result.map(|()| out).map_err(|error| error.kind())
}

#[test]
fn small_files_that_declare_huge_pictures_are_refused_by_their_header() {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    png.extend([0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 8, 2, 0, 0, 0]);
    png.resize(4000, 0);
    assert_eq!(decode_file(&png), Err("size"));
    let mut jpeg =
        vec![0xff, 0xd8, 0xff, 0xc2, 0, 17, 8, 0xff, 0xff, 0xff, 0xff, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1];
    jpeg.extend([0xff, 0xd9]);
    assert_eq!(decode_file(&jpeg), Err("size"));
    assert_eq!(decode_file(b"GIF89a\x01\0\x01\0"), Err("codec"));
    assert_eq!(decode_file(b""), Err("codec"));
}

proptest! {
    /// Whatever a message says, the answer is pixels of its size or an error, never a panic.
    #[test]
    fn arbitrary_messages_never_panic(
        width in 0u32..40, height in 0u32..40, step in 0u32..200, length in 0usize..4000, bigendian in any::<bool>(),
        encoding in prop::sample::select(vec![
            "rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "8UC1", "8UC3", "yuv422", "yuyv", "nv12", "nv21",
            "bayer_rggb8", "bayer_gbrg8", "32FC1",
        ]),
    ) {
        let raw = Raw { size: (width, height), encoding, is_bigendian: bigendian, step, data: vec![99; length] };
        if let Ok(image) = decode(raw) {
            prop_assert_eq!(image.size, ImageSize::new(width, height));
            prop_assert_eq!(image.data.len(), (width * height * 3) as usize);
        }
    }

    #[test]
    fn arbitrary_bytes_with_a_file_s_first_bytes_never_panic(
        jpeg in any::<bool>(), tail in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut data = if jpeg { vec![0xff, 0xd8, 0xff] } else { b"\x89PNG\r\n\x1a\n".to_vec() };
        data.extend(tail);
        let _outcome = decode_file(&data);
    }
}

#[test]
fn pixels_that_are_as_wanted_are_taken_without_a_copy() {
    let camera = |padding: usize, encoding: &str| {
        let (step, data) = padded(&[vec![1, 2, 3, 4, 5, 6], vec![7, 8, 9, 10, 11, 12]], padding);
        let size = ImageSize::new(2, 2);
        let payload = ImagePayload::Raw { size, encoding: encoding.to_owned(), is_bigendian: false, step, data };
        CameraImage { header: Header::default(), payload }
    };
    let address = |image: &CameraImage| match &image.payload {
        ImagePayload::Raw { data, .. } | ImagePayload::Compressed { data, .. } => data.as_ptr(),
    };
    let mut decoder = ImageDecoder::new(DecodeLimits::default());
    for (padding, encoding, taken) in [(0, "rgb8", true), (2, "rgb8", false), (0, "bgr8", false)] {
        let mut image = camera(padding, encoding);
        let (mut expected, mut out) = (RgbImage::default(), RgbImage::default());
        decoder.decode(&image, &mut expected).unwrap();
        let before = address(&image);
        decoder.take(&mut image, &mut out).unwrap();
        assert_eq!(out, expected, "{encoding} with {padding} bytes of padding");
        assert_eq!(out.data.as_ptr() == before, taken, "{encoding} with {padding} bytes of padding");
    }
    let mut short = camera(0, "rgb8");
    if let ImagePayload::Raw { data, .. } = &mut short.payload {
        data.pop();
    }
    assert_eq!(decoder.take(&mut short, &mut RgbImage::default()).unwrap_err().kind(), "short_data");
}

/// Decoders are made on several threads of one process (frames, `~/segment`), and each once reset OpenCV's pool.
#[test]
fn decoders_are_made_on_many_threads_at_once() {
    let start = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..200 {
                    let decoder = ImageDecoder::new(DecodeLimits::default());
                    drop(decoder);
                }
            });
        }
    });
}
