//! Where images go in a model's input, and the way back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use scenelex::{
    imaging::{Preprocess, PreprocessError, Preprocessor, ResizeFilter, ResizeRule},
    types::{ImageSize, PixelPoint, RgbImage},
};

fn sizes() -> impl Strategy<Value = ImageSize> {
    (1u32..4000, 1u32..4000).prop_map(|(width, height)| ImageSize::new(width, height))
}

fn rules() -> impl Strategy<Value = ResizeRule> {
    prop_oneof![
        sizes().prop_map(|size| ResizeRule::Letterbox { size }),
        sizes().prop_map(|size| ResizeRule::Exact { size }),
        (1u32..60, 1u32..60).prop_map(|(times, multiple)| ResizeRule::LongestSide { side: times * multiple, multiple }),
        (1u32..1000, 1u32..2000).prop_map(|(shortest, longest)| ResizeRule::ShortestEdge { shortest, longest }),
    ]
}

proptest! {
    #[test]
    fn coordinate_maps_are_inverses_and_keep_the_image_inside(
        rule in rules(), image in sizes(), x in 0.0f32..1.0, y in 0.0f32..1.0,
    ) {
        let placement = rule.placement(image);
        let point = PixelPoint { x: x * image.width as f32, y: y * image.height as f32 };
        let there = placement.to_model(point);
        let slack = 1e-3;
        prop_assert!(there.x >= 0.0 && there.x <= placement.resized.width as f32 + slack);
        prop_assert!(there.y >= 0.0 && there.y <= placement.resized.height as f32 + slack);
        let back = placement.to_image(there);
        prop_assert!((back.x - point.x).abs() <= 1e-6 * image.width as f32 + 1e-6);
        prop_assert!((back.y - point.y).abs() <= 1e-6 * image.height as f32 + 1e-6);
    }

    #[test]
    fn fitted_images_keep_their_aspect_and_touch_a_side(image in sizes(), size in sizes()) {
        let placement = ResizeRule::Letterbox { size }.placement(image);
        let fitted = placement.resized;
        prop_assert_eq!(placement.input, size);
        prop_assert!(fitted.width >= 1 && fitted.height >= 1);
        prop_assert!(fitted.width <= size.width && fitted.height <= size.height);
        prop_assert!(fitted.width == size.width || fitted.height == size.height);
        // Both sides are within half a pixel of the same scale (a side of one pixel may have been rounded up to it).
        let scale = (f64::from(size.width) / f64::from(image.width)).min(f64::from(size.height) / f64::from(image.height));
        for (got, from) in [(fitted.width, image.width), (fitted.height, image.height)] {
            prop_assert!(got == 1 || (f64::from(got) - scale * f64::from(from)).abs() <= 0.5 + 1e-9);
        }
    }

    #[test]
    fn the_longest_side_is_padded_to_a_multiple_and_never_beyond_the_square(
        image in sizes(), times in 1u32..60, multiple in 1u32..60,
    ) {
        let side = times * multiple;
        let square = ResizeRule::LongestSide { side, multiple: side }.placement(image);
        prop_assert_eq!(square.input, ImageSize::new(side, side));
        let trimmed = ResizeRule::LongestSide { side, multiple }.placement(image);
        prop_assert_eq!(trimmed.resized, square.resized);
        prop_assert!(trimmed.input.width == side || trimmed.input.height == side);
        for (input, resized) in [(trimmed.input.width, trimmed.resized.width), (trimmed.input.height, trimmed.resized.height)] {
            prop_assert!(input % multiple == 0 && (resized..resized + multiple).contains(&input), "{resized} in {input}");
        }
    }

    #[test]
    fn the_pixel_mask_counts_the_valid_pixels(image in sizes(), width in 1u32..90, height in 1u32..90) {
        let placement = ResizeRule::Letterbox { size: ImageSize::new(width, height) }.placement(image);
        let mut mask = vec![-1; placement.input.area()];
        placement.fill_pixel_mask(&mut mask);
        prop_assert!(mask.iter().all(|&value| value == 0 || value == 1));
        prop_assert_eq!(mask.iter().sum::<i64>(), placement.resized.area() as i64);
        let corner = (placement.resized.height as usize - 1) * width as usize + placement.resized.width as usize - 1;
        prop_assert_eq!((mask[0], mask[corner]), (1, 1));
    }
}

#[test]
fn padding_is_zero_after_normalising_and_everything_is_written() {
    let image = RgbImage { size: ImageSize::new(10, 4), data: vec![200; 120] };
    let resize = ResizeRule::Letterbox { size: ImageSize::new(16, 12) };
    let mut preprocessor =
        Preprocessor::new(Preprocess { resize, filter: ResizeFilter::Bilinear, mean: [0.5; 3], std: [0.25, 0.5, 1.0] });
    let mut out = vec![f32::NAN; 3 * 16 * 12];
    let placement = preprocessor.run(&image, &mut out).unwrap();
    assert_eq!(placement.resized, ImageSize::new(16, 6));
    for (at, value) in out.iter().enumerate() {
        let (channel, y) = (at / (16 * 12), at / 16 % 12);
        let expected = if y < 6 { (200.0 / 255.0 - 0.5) / [0.25, 0.5, 1.0][channel] } else { 0.0 };
        assert!((value - expected).abs() < 1e-6, "{at}: {value}");
    }
}

/// More cameras than sizes that are kept take turns, twice.
#[test]
fn images_of_changing_size_are_resized_as_if_each_were_the_first() {
    let resize = ResizeRule::Letterbox { size: ImageSize::new(24, 20) };
    let config = Preprocess { resize, filter: ResizeFilter::Bilinear, mean: [0.0; 3], std: [1.0; 3] };
    let mut kept = Preprocessor::new(config);
    for (width, height) in [(30, 20), (64, 48), (9, 31), (30, 20), (8, 8), (100, 3), (57, 41)].repeat(2) {
        let size = ImageSize::new(width, height);
        let image = RgbImage { size, data: (0..size.area() * 3).map(|at| (at * 31 % 253) as u8).collect() };
        let run = |preprocessor: &mut Preprocessor| {
            let mut out = vec![f32::NAN; 3 * 24 * 20];
            preprocessor.run(&image, &mut out).unwrap();
            out
        };
        assert_eq!(run(&mut kept), run(&mut Preprocessor::new(config)), "{size}");
    }
}

/// As in a stream of images of one size, where the padding is left as it is; and when the size changes.
#[test]
fn neither_threads_nor_padding_that_is_left_alone_change_a_value() {
    let rules = [
        ResizeRule::Letterbox { size: ImageSize::new(240, 200) },
        ResizeRule::LongestSide { side: 256, multiple: 16 },
        ResizeRule::ShortestEdge { shortest: 131, longest: 300 },
    ];
    for resize in rules {
        let config = Preprocess { resize, filter: ResizeFilter::Bilinear, mean: [0.4; 3], std: [0.2, 0.3, 0.4] };
        let mut alone = Preprocessor::new(config);
        for threads in [0, 1, 2, 3, 64] {
            let mut shared = Preprocessor::new(config).with_threads(threads).unwrap();
            let mut out = Vec::new();
            let mut before = None;
            for (index, (width, height)) in
                [(320, 180), (320, 180), (90, 301), (301, 90), (320, 180)].iter().enumerate()
            {
                let size = ImageSize::new(*width, *height);
                let data = (0..size.area() * 3).map(|at| (at * 31 % 253 + index) as u8).collect();
                let image = RgbImage { size, data };
                let input = resize.placement(size).input;
                let mut expected = vec![f32::NAN; 3 * input.area()];
                alone.run(&image, &mut expected).unwrap();
                out.resize(expected.len(), f32::NAN);
                before = Some(shared.run_in(&image, input, &mut out, before).unwrap());
                assert_eq!(out, expected, "{size}, {threads} threads");
            }
        }
    }
}

#[test]
fn buffers_of_the_wrong_length_are_errors() {
    let resize = ResizeRule::Exact { size: ImageSize::new(4, 4) };
    let mut preprocessor =
        Preprocessor::new(Preprocess { resize, filter: ResizeFilter::Bilinear, mean: [0.0; 3], std: [1.0; 3] });
    let image = |width, height, length| RgbImage { size: ImageSize::new(width, height), data: vec![0; length] };
    let mut run = |image: RgbImage, room: usize| preprocessor.run(&image, &mut vec![0.0; room]).unwrap_err();
    assert!(matches!(run(image(0, 3, 0), 48), PreprocessError::Empty { .. }));
    assert!(matches!(run(image(2, 2, 11), 48), PreprocessError::ImageLength { expected: 12, found: 11 }));
    assert!(matches!(run(image(2, 2, 12), 47), PreprocessError::OutputLength { expected: 48, found: 47, .. }));
}

#[test]
fn an_input_larger_than_the_rules_is_padded_and_a_smaller_one_refused() {
    let picture = |width, height| {
        let size = ImageSize::new(width, height);
        RgbImage { size, data: vec![255; 3 * size.area()] }
    };
    let resize = ResizeRule::ShortestEdge { shortest: 4, longest: 6 };
    let (mean, std) = ([0.0; 3], [1.0; 3]);
    let mut preprocessor = Preprocessor::new(Preprocess { resize, filter: ResizeFilter::Bilinear, mean, std });
    let input = ImageSize::new(6, 4);
    let mut out = vec![-1.0; 3 * input.area()];
    // 6x4, 4x4 and 6x2 after resizing.
    for (width, height, valid) in [(3, 2, (6, 4)), (2, 2, (4, 4)), (6, 2, (6, 2))] {
        let placement = preprocessor.run_in(&picture(width, height), input, &mut out, None).unwrap();
        assert_eq!(placement.resized, ImageSize::new(valid.0, valid.1));
        assert_eq!((placement.image, placement.input), (ImageSize::new(width, height), input));
        let mut mask = vec![7; input.area()];
        placement.fill_pixel_mask(&mut mask);
        for plane in out.chunks_exact(input.area()) {
            for (at, (value, inside)) in plane.iter().zip(&mask).enumerate() {
                let (x, y) = (at as u32 % input.width, at as u32 / input.width);
                let expected = x < valid.0 && y < valid.1;
                assert_eq!(*inside, i64::from(expected), "{width}x{height}: {x}, {y}");
                // White is 1, and padding is 0 after normalising.
                let level = if expected { 1.0 } else { 0.0 };
                assert!((value - level).abs() < 1e-6, "{width}x{height}: {value} at {x}, {y}");
            }
        }
    }
    // As many pixels as the input, but upright.
    let error = preprocessor.run_in(&picture(2, 3), input, &mut out, None).unwrap_err().to_string();
    assert!(error.contains("at most 6x4") && error.contains("one of 2x3, which becomes 4x6"), "{error}");
}
