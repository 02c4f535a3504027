//! The overlay picture: tinted inside, untouched outside, and always the same size as the image.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::HashSet, sync::Arc};

use scenelex::{
    imaging::{
        DecodeError, DecodeLimits, ImageDecoder, OverlayError, PictureFormat, class_color, draw_overlay, encode_jpeg,
        encode_picture,
    },
    types::{BinaryMask, FrameResult, ImageSize, LabeledInstance, PixelBox, RgbImage, RunLengths},
};

const SIZE: ImageSize = ImageSize::new(320, 240);

fn gray() -> RgbImage {
    RgbImage { size: SIZE, data: vec![100; SIZE.area() * 3] }
}

/// One object, a rectangle in the middle.
fn result(bbox: PixelBox, label: &str) -> FrameResult {
    let bits: Vec<u8> = (0..SIZE.area() as u32)
        .map(|at| u8::from((100..200).contains(&(at % SIZE.width)) && (80..180).contains(&(at / SIZE.width))))
        .collect();
    let mask = RunLengths::from_mask(&BinaryMask::from_row_major(SIZE, &bits).unwrap());
    FrameResult {
        size: SIZE,
        instances: vec![LabeledInstance {
            instance_id: 1,
            class_id: 3,
            label: Arc::from(label),
            phrase: Arc::from(label),
            score: 0.87,
            mask_score: 0.9,
            bbox,
            mask,
        }],
        instance_ids: bits.iter().map(|&bit| u16::from(bit)).collect(),
        ..FrameResult::default()
    }
}

fn pixel(image: &RgbImage, x: usize, y: usize) -> [u8; 3] {
    image.data.as_chunks::<3>().0[y * image.size.width as usize + x]
}

#[test]
fn masks_are_tinted_and_outlined_and_the_rest_is_left_alone() {
    let mut out = RgbImage::default();
    let bbox = PixelBox { x0: 100.0, y0: 80.0, x1: 200.0, y1: 180.0 };
    draw_overlay(&gray(), &result(bbox, "mug"), &mut out).unwrap();
    assert_eq!(out.size, SIZE);
    let color = class_color(3);
    let inside = pixel(&out, 150, 130);
    for channel in 0..3 {
        let (low, high) = (color[channel].min(100), color[channel].max(100));
        assert!((low..=high).contains(&inside[channel]) && inside != [100; 3], "{inside:?} of {color:?}");
    }
    for (x, y) in [(10, 10), (310, 230), (99, 130), (150, 200)] {
        assert_eq!(pixel(&out, x, y), [100; 3], "({x}, {y})");
    }
    assert_ne!(pixel(&out, 100, 130), inside, "an outline parts the mask from the background");
}

#[test]
fn odd_boxes_labels_and_missing_masks_do_no_harm() {
    let boxes = [
        PixelBox { x0: -1e9, y0: -50.0, x1: 1e9, y1: 1e9 },
        PixelBox { x0: 319.0, y0: 239.0, x1: 320.0, y1: 240.0 },
        PixelBox { x0: f32::NAN, y0: f32::INFINITY, x1: 0.0, y1: f32::NEG_INFINITY },
        PixelBox::default(),
    ];
    let long = "very ".repeat(200);
    for bbox in boxes {
        for label in ["", "mug", "Käsereibe 芝士", long.as_str()] {
            let mut frame = result(bbox, label);
            let mut out = RgbImage::default();
            draw_overlay(&gray(), &frame, &mut out).unwrap();
            assert_eq!(out.data.len(), SIZE.area() * 3);
            frame.instance_ids.clear();
            draw_overlay(&gray(), &frame, &mut out).unwrap();
        }
    }
    let broken = RgbImage { size: SIZE, data: vec![0; 5] };
    assert!(draw_overlay(&broken, &FrameResult::default(), &mut RgbImage::default()).is_err());
    assert!(encode_jpeg(&broken, 90).is_err());
}

#[test]
fn neighbouring_classes_have_colours_that_differ() {
    let colors: Vec<[u8; 3]> = (0..40).map(class_color).collect();
    assert_eq!(colors.iter().collect::<HashSet<_>>().len(), colors.len());
    for pair in colors.windows(2) {
        let distance: u32 = (0..3).map(|c| u32::from(pair[0][c].abs_diff(pair[1][c]))).sum();
        assert!(distance > 120, "{pair:?}");
    }
}

#[test]
fn written_pictures_read_back() {
    let mut image = gray();
    for (at, byte) in image.data.iter_mut().enumerate() {
        *byte = (at / 3 % 320 / 2 + at % 3 * 40) as u8;
    }
    let mut decoder = ImageDecoder::new(DecodeLimits::default());
    let mut out = RgbImage::default();
    decoder.decode_file("png", &encode_picture(&image, PictureFormat::Png).unwrap(), &mut out).unwrap();
    assert_eq!(out, image);
    decoder.decode_file("jpeg", &encode_jpeg(&image, 95).unwrap(), &mut out).unwrap();
    let worst = out.data.iter().zip(&image.data).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst < 24, "{worst}");
}

#[test]
fn what_opencv_says_is_in_the_message() {
    let reason = || opencv::Error::new(opencv::core::StsBadArg, "the paint is dry");
    assert!(OverlayError::from(reason()).to_string().starts_with("drawing failed: the paint is dry"));
    assert!(DecodeError::from(reason()).to_string().starts_with("colour conversion failed: the paint is dry"));
}
