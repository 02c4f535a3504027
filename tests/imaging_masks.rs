//! Masks: run lengths against counting pixels one by one, and the set operations built on them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use scenelex::{
    imaging::RunLengthEncoder,
    types::{BinaryMask, ImageSize, PixelRect, RunLengths},
};

/// Run lengths by the definition: walk the columns, count.
fn count_runs(bits: &[u8], size: ImageSize) -> Vec<u32> {
    let (mut counts, mut run, mut value) = (Vec::new(), 0, 0);
    for x in 0..size.width {
        for y in 0..size.height {
            let bit = bits[(y * size.width + x) as usize];
            if bit != value {
                counts.push(run);
                (run, value) = (0, bit);
            }
            run += 1;
        }
    }
    counts.push(run);
    counts
}

/// Blobs, noise, full and empty masks of all shapes.
fn masks() -> impl Strategy<Value = (ImageSize, Vec<u8>)> {
    (1u32..70, 1u32..40, 0u8..4).prop_flat_map(|(width, height, style)| {
        let size = ImageSize::new(width, height);
        let noise = prop::collection::vec(0u8..2, size.area());
        let rect = (0..width, 0..height, 1..=width, 1..=height);
        (noise, rect).prop_map(move |(noise, (x0, y0, w, h))| {
            let bits = (0..size.area() as u32).map(|at| {
                let (x, y) = (at % width, at / width);
                let inside = (x0..x0.saturating_add(w)).contains(&x) && (y0..y0.saturating_add(h)).contains(&y);
                match style {
                    0 => noise[at as usize],
                    1 => u8::from(inside),
                    2 => u8::from(!inside),
                    _ => u8::from(inside) & noise[at as usize],
                }
            });
            (size, bits.collect())
        })
    })
}

proptest! {
    #[test]
    fn run_lengths_equal_counting_pixels((size, bits) in masks()) {
        let runs = RunLengths::from_row_major(&bits, size).unwrap();
        prop_assert_eq!(&runs.counts, &count_runs(&bits, size));
        prop_assert!(runs.validate().is_ok());
        prop_assert_eq!(runs.area(), bits.iter().map(|&bit| u64::from(bit)).sum::<u64>());
    }

    #[test]
    fn decoding_gives_the_pixels_back_even_into_a_used_buffer(
        (size, bits) in masks(), (old_size, old_bits) in masks(),
    ) {
        let mut mask = BinaryMask::from_row_major(old_size, &old_bits).unwrap();
        RunLengths::from_row_major(&bits, size).unwrap().decode_into(&mut mask).unwrap();
        prop_assert_eq!(mask.to_row_major(), &bits[..]);
        prop_assert_eq!(mask.area(), bits.iter().map(|&bit| u64::from(bit)).sum::<u64>());
        // And the tight bounds it now has do not lead the encoder astray.
        prop_assert_eq!(RunLengths::from_mask(&mask).counts, count_runs(&bits, size));
    }

    #[test]
    fn one_encoder_serves_masks_of_all_sizes(masks in prop::collection::vec(masks(), 1..5)) {
        let mut encoder = RunLengthEncoder::default();
        let mut runs = RunLengths::default();
        for (size, bits) in masks {
            encoder.encode(&BinaryMask::from_row_major(size, &bits).unwrap(), &mut runs);
            prop_assert_eq!(&runs.counts, &count_runs(&bits, size));
        }
    }

    #[test]
    fn overlap_and_bounds_equal_those_of_the_pixels((size, a) in masks(), seed in any::<u64>()) {
        let b: Vec<u8> = (0..size.area() as u64).map(|at| (seed.rotate_left((at % 64) as u32) & 1) as u8).collect();
        let runs_a = RunLengths::from_row_major(&a, size).unwrap();
        let runs_b = RunLengths::from_row_major(&b, size).unwrap();
        let both = a.iter().zip(&b).filter(|(a, b)| **a + **b == 2).count() as u64;
        let either = a.iter().zip(&b).filter(|(a, b)| **a + **b > 0).count() as u64;
        prop_assert_eq!(runs_a.intersection(&runs_b), both);
        let iou = if either == 0 { 0.0 } else { both as f64 / either as f64 };
        prop_assert_eq!(runs_a.iou(&runs_b), iou);
        let set: Vec<(u32, u32)> = (0..size.area() as u32)
            .filter(|&at| a[at as usize] == 1)
            .map(|at| (at % size.width, at / size.width))
            .collect();
        let bounds = (!set.is_empty()).then(|| PixelRect {
            x0: set.iter().map(|p| p.0).min().unwrap(),
            y0: set.iter().map(|p| p.1).min().unwrap(),
            x1: set.iter().map(|p| p.0).max().unwrap() + 1,
            y1: set.iter().map(|p| p.1).max().unwrap() + 1,
        });
        prop_assert_eq!(runs_a.bounding_box(), bounds);
    }
}

#[test]
fn run_lengths_with_empty_runs_inside_still_decode() {
    let size = ImageSize::new(3, 2);
    let runs = RunLengths { size, counts: vec![1, 2, 0, 1, 2] };
    let mut mask = BinaryMask::default();
    runs.decode_into(&mut mask).unwrap();
    assert_eq!(mask.to_row_major(), [0, 1, 0, 1, 1, 0]);
    assert_eq!(runs.bounding_box(), Some(PixelRect { x0: 0, y0: 0, x1: 2, y1: 2 }));
}

#[test]
fn run_lengths_that_do_not_cover_the_image_are_refused() {
    let size = ImageSize::new(3, 2);
    for counts in [vec![], vec![5], vec![1, 6], vec![u32::MAX, u32::MAX]] {
        let runs = RunLengths { size, counts };
        assert!(runs.validate().is_err());
        assert!(runs.decode_into(&mut BinaryMask::default()).is_err());
    }
}
