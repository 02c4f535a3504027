//! Preprocessing, masks and file decoding against what Hugging Face's processors, Pillow, PyTorch and pycocotools made
//! of the same inputs (`golden/make_imaging_golden.py`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

use scenelex::{
    imaging::{
        DecodeLimits, ImageDecoder, MaskUpscaler, Placement, Preprocess, Preprocessor, ResizeFilter, ResizeRule,
    },
    types::{BinaryMask, ImageSize, RgbImage, RunLengths},
};
use serde_json::Value;

struct Golden {
    cases: Value,
    blob: Vec<u8>,
}

impl Golden {
    fn load() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        Self {
            cases: serde_json::from_slice(&fs::read(folder.join("imaging.json")).unwrap()).unwrap(),
            blob: fs::read(folder.join("imaging.bin")).unwrap(),
        }
    }

    /// The cases of a group; a group that went missing must not pass as one without failures.
    fn group(&self, name: &str) -> &[Value] {
        let cases = self.cases[name].as_array().unwrap();
        assert!(!cases.is_empty());
        cases
    }

    fn shape(array: &Value) -> Vec<usize> {
        array["shape"].as_array().unwrap().iter().map(|side| side.as_u64().unwrap() as usize).collect()
    }

    fn bytes(&self, array: &Value) -> &[u8] {
        let width = if array["dtype"] == "u1" { 1 } else { 4 };
        let offset = array["offset"].as_u64().unwrap() as usize;
        &self.blob[offset..][..width * Self::shape(array).iter().product::<usize>()]
    }

    fn floats(&self, array: &Value) -> Vec<f32> {
        assert_eq!(array["dtype"], "<f4");
        self.bytes(array).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn image(&self, array: &Value) -> RgbImage {
        let shape = Self::shape(array);
        RgbImage { size: ImageSize::new(shape[1] as u32, shape[0] as u32), data: self.bytes(array).to_vec() }
    }
}

fn triple(case: &Value) -> [f32; 3] {
    std::array::from_fn(|at| case[at].as_f64().unwrap() as f32)
}

fn size(case: &Value) -> ImageSize {
    ImageSize::new(case[0].as_u64().unwrap() as u32, case[1].as_u64().unwrap() as u32)
}

fn number(case: &Value) -> u32 {
    case.as_u64().unwrap() as u32
}

/// Planes of levels from the identity normalisation.
fn levels(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .map(|value| {
            let level = value * 255.0;
            assert!((level - level.round()).abs() < 1e-3, "{value} is no 8-bit level");
            level.round() as u8
        })
        .collect()
}

const IDENTITY: ([f32; 3], [f32; 3]) = ([0.0; 3], [1.0; 3]);

/// A resize rule and its filter.
type Resize = (ResizeRule, ResizeFilter);

fn run((resize, filter): Resize, (mean, std): ([f32; 3], [f32; 3]), image: &RgbImage) -> (Placement, Vec<f32>) {
    let mut out = vec![f32::NAN; resize.placement(image.size).input_len()];
    let placement = Preprocessor::new(Preprocess { resize, filter, mean, std }).run(image, &mut out).unwrap();
    (placement, out)
}

#[test]
fn resizing_equals_pillow_to_the_bit_and_a_level_in_the_other_order() {
    let golden = Golden::load();
    for (group, filter) in [("pillow_resize", ResizeFilter::Bilinear), ("pillow_bicubic", ResizeFilter::Bicubic)] {
        for case in golden.group(group) {
            let image = golden.image(&case["image"]);
            let expected = golden.image(&case["resized"]);
            let (_, values) = run((ResizeRule::Exact { size: expected.size }, filter), IDENTITY, &image);
            let planes = levels(&values);
            let area = expected.size.area();
            let interleaved: Vec<u8> = (0..area * 3).map(|at| planes[at % 3 * area + at / 3]).collect();
            let check = |expected: &RgbImage, tolerance: u8| {
                let worst = interleaved.iter().zip(&expected.data).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                assert!(worst <= tolerance, "{filter:?}: {} to {}, {worst} off", image.size, expected.size);
            };
            if case["rows_first"].is_object() {
                check(&golden.image(&case["rows_first"]), 0);
                check(&expected, 1);
            } else {
                check(&expected, 0);
            }
        }
    }
}

/// Checks pixel values of both backends: Pillow's exactly, or to within one of 255 levels where a bilinear reduction begins
/// with y, torchvision's to within one level (two for the cubic).
fn check_values(golden: &Golden, case: &Value, (rule, filter): Resize) -> usize {
    let image = golden.image(&case["image"]);
    let (mean, std) = (triple(&case["mean"]), triple(&case["std"]));
    let (placement, values) = run((rule, filter), (mean, std), &image);
    let rows_first = filter == ResizeFilter::Bilinear && placement.resized.height < image.size.height;
    let area = values.len() / 3;
    if case["pillow"].is_object() {
        let expected = golden.floats(&case["pillow"]);
        assert_eq!(values.len(), expected.len());
        for (at, (value, expected)) in values.iter().zip(&expected).enumerate() {
            let level = if rows_first { 1.0 / (255.0 * std[at / area]) } else { 0.0 };
            let tolerance = level + 2e-6 * expected.abs().max(1.0);
            assert!((value - expected).abs() < tolerance, "{rule:?} {at}: {value}, {expected}");
        }
    }
    let (_, plain) = run((rule, filter), IDENTITY, &image);
    let plain = levels(&plain);
    let mut checked = usize::from(case["pillow"].is_object());
    // Torchvision's weights are coarser (16 bits), which the cubic's greater ones show: two levels where noise is enlarged.
    let coarse = if filter == ResizeFilter::Bicubic { 2 } else { 1 };
    for (name, tolerance) in [("pillow_levels", u8::from(rows_first)), ("torchvision_levels", coarse)] {
        if !case[name].is_object() {
            continue;
        }
        checked += 1;
        let shape = Golden::shape(&case[name]);
        assert_eq!(shape[1] * shape[2], area, "{rule:?} of {}", image.size);
        for (at, (&level, &expected)) in plain.iter().zip(golden.bytes(&case[name])).enumerate() {
            assert!(level.abs_diff(expected) <= tolerance, "{name} of {} at {at}: {level}, {expected}", image.size);
        }
    }
    checked
}

#[test]
fn grounding_dino_values_equal_hugging_face() {
    let golden = Golden::load();
    for case in golden.group("grounding_dino") {
        let rule = ResizeRule::ShortestEdge { shortest: number(&case["shortest"]), longest: number(&case["longest"]) };
        assert_eq!(check_values(&golden, case, (rule, ResizeFilter::Bilinear)), 2);
    }
}

#[test]
fn grounding_dino_sizes_equal_hugging_face() {
    let golden = Golden::load();
    let rule = ResizeRule::ShortestEdge { shortest: 800, longest: 1333 };
    for case in golden.group("grounding_dino_sizes") {
        let image = ImageSize::new(number(&case["width"]), number(&case["height"]));
        let placement = rule.placement(image);
        assert_eq!(placement.resized, size(&case["resized"]), "{image}");
        assert_eq!(placement.input, placement.resized);
    }
}

#[test]
fn sam_values_equal_hugging_face() {
    let golden = Golden::load();
    for case in ["sam", "sam_trimmed"].iter().flat_map(|group| golden.group(group)) {
        let rule = ResizeRule::LongestSide { side: number(&case["side"]), multiple: number(&case["multiple"]) };
        let image = golden.image(&case["image"]);
        assert_eq!(rule.placement(image.size).resized, size(&case["resized"]), "{}", image.size);
        assert_eq!(check_values(&golden, case, (rule, ResizeFilter::Bilinear)), 2);
    }
}

#[test]
fn blip_values_equal_hugging_face() {
    let golden = Golden::load();
    for case in golden.group("blip") {
        let side = number(&case["side"]);
        let rule = ResizeRule::Exact { size: ImageSize::new(side, side) };
        assert_eq!(check_values(&golden, case, (rule, ResizeFilter::Bicubic)), 2);
    }
}

#[test]
fn upscaled_masks_equal_hugging_face() {
    let golden = Golden::load();
    let mut upscaler = MaskUpscaler::new();
    let mut mask = BinaryMask::default();
    for case in ["sam_masks", "sam_trimmed_masks"].iter().flat_map(|group| golden.group(group)) {
        let logits = golden.floats(&case["logits"]);
        let [rows, columns] = [0, 1].map(|axis| Golden::shape(&case["logits"])[axis] as u32);
        let low_res = ImageSize::new(columns, rows);
        let image = size(&case["size"]);
        let rule = ResizeRule::LongestSide { side: number(&case["side"]), multiple: number(&case["multiple"]) };
        let placement = rule.placement(image);
        assert_eq!(placement.resized, size(&case["resized"]));
        upscaler.upscale(&logits, low_res, &placement, &mut mask).unwrap();
        let packed = golden.bytes(&case["mask_bits"]);
        let expected: Vec<u8> = (0..image.area()).map(|at| packed[at / 8] >> (at % 8) & 1).collect();
        assert_eq!(expected.iter().map(|&bit| u32::from(bit)).sum::<u32>(), number(&case["area"]));
        let wrong = mask.to_row_major().iter().zip(&expected).filter(|(a, b)| a != b).count();
        // Rounding in another order decides pixels whose logit is 0 to seven digits.
        assert!(wrong * 2000 <= image.area(), "{image}: {wrong} pixels differ");
    }
}

#[test]
fn run_lengths_equal_pycocotools() {
    let golden = Golden::load();
    for case in golden.group("run_lengths") {
        let shape = Golden::shape(&case["mask"]);
        let size = ImageSize::new(shape[1] as u32, shape[0] as u32);
        let runs = RunLengths::from_row_major(golden.bytes(&case["mask"]), size).unwrap();
        let counts: Vec<u32> = case["counts"].as_array().unwrap().iter().map(number).collect();
        assert_eq!(runs.counts, counts);
        assert_eq!(runs.area(), u64::from(number(&case["area"])));
        let other = RunLengths::from_row_major(golden.bytes(&case["other"]), size).unwrap();
        assert!((runs.iou(&other) - case["iou"].as_f64().unwrap()).abs() < 1e-12);
        let bbox: Vec<u32> = case["bbox"].as_array().unwrap().iter().map(number).collect();
        let found = runs.bounding_box().unwrap_or_default();
        assert_eq!([found.x0, found.y0, found.width(), found.height()], bbox[..]);
    }
}

#[test]
fn files_are_decoded_as_pillow_decodes_them() {
    let golden = Golden::load();
    let mut decoder = ImageDecoder::new(DecodeLimits::default());
    let mut out = RgbImage::default();
    for case in golden.group("files") {
        let name = case["name"].as_str().unwrap();
        decoder.decode_file("", golden.bytes(&case["file"]), &mut out).unwrap();
        let expected = golden.image(&case["pixels"]);
        assert_eq!(out.size, expected.size, "{name}");
        // Two JPEG decoders may round the colour conversion differently; PNG is lossless.
        let tolerance = if name.starts_with("jpeg") { 2 } else { 0 };
        let worst = out.data.iter().zip(&expected.data).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= tolerance, "{name}: off by {worst}");
    }
}

#[test]
fn broken_files_are_errors_and_the_next_good_one_is_served() {
    let golden = Golden::load();
    let mut decoder = ImageDecoder::new(DecodeLimits::default());
    let mut out = RgbImage::default();
    for case in golden.group("files") {
        let name = case["name"].as_str().unwrap();
        let file = golden.bytes(&case["file"]);
        for end in [0, 1, 7, 20, file.len() / 2, file.len() * 9 / 10] {
            let error = decoder.decode_file(name, &file[..end], &mut out).unwrap_err();
            assert_eq!(error.kind(), "codec", "{name} cut at {end}: {error}");
        }
        // Bytes changed at random may decode to something, but must never panic or change the size beyond the limits.
        for seed in 0..40usize {
            let mut damaged = file.to_vec();
            for step in 0..4 {
                let at = (seed * 7919 + step * 104_729) % damaged.len();
                damaged[at] = damaged[at].wrapping_add((seed * 31 + step * 17) as u8 | 1);
            }
            if decoder.decode_file(name, &damaged, &mut out).is_ok() {
                assert_eq!(out.data.len(), out.size.area() * 3);
            }
        }
        decoder.decode_file(name, file, &mut out).unwrap();
        assert_eq!(out.size, golden.image(&case["pixels"]).size);
    }
}
