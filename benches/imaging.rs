//! Pictures to tensors on all cores, and mask logits to run lengths on one. `benches/compare.py` sets these beside Hugging
//! Face's processors and pycocotools, with the same sizes and the same object.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use scenelex::{
    imaging::{
        DecodeLimits, ImageDecoder, MaskUpscaler, Preprocess, Preprocessor, ResizeFilter, ResizeRule, RunLengthEncoder,
        SceneSignature,
    },
    types::{BinaryMask, CameraImage, Header, ImagePayload, ImageSize, RgbImage, RunLengths},
};

const SIZES: [ImageSize; 2] = [ImageSize::new(640, 480), ImageSize::new(1280, 720)];
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];
/// SAM's input and low-resolution masks.
const SAM_SIDE: u32 = 1024;
const LOW_RES_SIDE: u32 = 256;
const LOW_RES: ImageSize = ImageSize::new(LOW_RES_SIDE, LOW_RES_SIDE);

/// The shipped detector's input (models/sim/detector), Grounding DINO's and SAM's.
const RULES: [(&str, ResizeRule); 3] = [
    ("letterbox_416x320", ResizeRule::Letterbox { size: ImageSize::new(416, 320) }),
    ("shortest_edge_800", ResizeRule::ShortestEdge { shortest: 800, longest: 1333 }),
    ("longest_side_1024", ResizeRule::LongestSide { side: SAM_SIDE, multiple: SAM_SIDE }),
];

/// A picture with smooth and rough parts.
fn picture(size: ImageSize) -> RgbImage {
    let mut image = RgbImage::default();
    image.reset(size);
    for (index, value) in image.data.iter_mut().enumerate() {
        let (pixel, channel) = (index / 3, index % 3);
        let (x, y) = (pixel % size.width as usize, pixel / size.width as usize);
        *value = ((x * (channel + 1) / 4) ^ (y / 2) ^ (x * y / 977)) as u8;
    }
    image
}

/// Logits of a disc of a third of the image's height, as SAM's decoder gives them.
fn disc(size: ImageSize) -> Vec<f32> {
    let scale = LOW_RES_SIDE as f32 / size.width.max(size.height) as f32;
    let (width, height) = (size.width as f32, size.height as f32);
    let logit = |x: u32, y: u32| {
        let distance = (x as f32 / scale - width * 0.4).hypot(y as f32 / scale - height * 0.5);
        (height / 6.0 - distance) / (height / 20.0)
    };
    (0..LOW_RES_SIDE).flat_map(|y| (0..LOW_RES_SIDE).map(move |x| logit(x, y))).collect()
}

/// What a frame pays for knowing whether the scene has changed.
fn scene(criterion: &mut Criterion) {
    for size in SIZES {
        let image = picture(size);
        criterion
            .bench_function(&format!("scene/signature/{size}"), |b| b.iter(|| SceneSignature::of(black_box(&image))));
    }
}

fn preprocess(criterion: &mut Criterion) {
    let cores = std::thread::available_parallelism().unwrap().get();
    for (name, resize) in RULES {
        for size in SIZES {
            let image = picture(size);
            let input = resize.placement(size).input;
            let mut tensor = vec![0.0; 3 * input.area()];
            let config = Preprocess { resize, filter: ResizeFilter::Bilinear, mean: MEAN, std: STD };
            let mut preprocessor = Preprocessor::new(config).with_threads(cores).unwrap();
            // As in a stream of images of one size.
            let mut before = None;
            criterion.bench_function(&format!("preprocess/{name}/{size}"), |b| {
                b.iter(|| {
                    before = Some(preprocessor.run_in(black_box(&image), input, &mut tensor, before).unwrap());
                });
            });
        }
    }
}

fn masks(criterion: &mut Criterion) {
    for size in SIZES {
        let logits = disc(size);
        let placement = ResizeRule::LongestSide { side: SAM_SIDE, multiple: SAM_SIDE }.placement(size);
        let (mut upscaler, mut mask) = (MaskUpscaler::new(), BinaryMask::default());
        criterion.bench_function(&format!("masks/upscale/{size}"), |b| {
            b.iter(|| upscaler.upscale(black_box(&logits), LOW_RES, &placement, &mut mask).unwrap());
        });
        let (mut encoder, mut runs) = (RunLengthEncoder::default(), RunLengths::default());
        criterion.bench_function(&format!("masks/run_lengths/{size}"), |b| {
            b.iter(|| encoder.encode(black_box(&mask), &mut runs));
        });
        criterion.bench_function(&format!("masks/upscale_and_run_lengths/{size}"), |b| {
            b.iter(|| {
                upscaler.upscale(black_box(&logits), LOW_RES, &placement, &mut mask).unwrap();
                encoder.encode(&mask, &mut runs);
            });
        });
    }
}

fn decode(criterion: &mut Criterion) {
    for size in SIZES {
        let image = picture(size);
        let pixels: Vec<u8> = image.data.as_chunks().0.iter().flat_map(|&[r, g, b]| [b, g, r]).collect();
        let payload = ImagePayload::Raw {
            size,
            encoding: "bgr8".to_owned(),
            is_bigendian: false,
            step: 3 * size.width,
            data: pixels,
        };
        let message = CameraImage { header: Header::default(), payload };
        let (mut decoder, mut out) = (ImageDecoder::new(DecodeLimits::default()), RgbImage::default());
        criterion.bench_function(&format!("decode/bgr8/{size}"), |b| {
            b.iter(|| decoder.decode(black_box(&message), &mut out).unwrap());
        });
    }
}

criterion_group!(benches, decode, scene, preprocess, masks);
criterion_main!(benches);
