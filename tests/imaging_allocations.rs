//! After the first frames no stage of imaging allocates anything the size of an image. (What OpenCV allocates itself is
//! not seen here; it converts into our buffers.)

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use scenelex::{
    imaging::{
        DecodeLimits, ImageDecoder, MaskUpscaler, Preprocess, Preprocessor, ResizeFilter, ResizeRule, RunLengthEncoder,
        draw_overlay, paint_mask,
    },
    types::{
        BinaryMask, CameraImage, FrameResult, Header, ImagePayload, ImageSize, LabeledInstance, PixelBox, RgbImage,
        RunLengths,
    },
};

/// Far below the smallest image buffer here (a mask of 320x240), far above any bookkeeping.
const LARGE: usize = 32 * 1024;

struct Counting;

static LARGE_ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

fn count(size: usize) {
    if size >= LARGE {
        LARGE_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: the pointer came from `System`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SIZE: ImageSize = ImageSize::new(320, 240);

fn frame(encoding: &str, row_bytes: u32, rows: u32, padding: u32) -> CameraImage {
    let step = row_bytes + padding;
    let data = (0..step * rows).map(|at| (at * 7 + at / 13) as u8).collect();
    let payload = ImagePayload::Raw { size: SIZE, encoding: encoding.to_owned(), is_bigendian: false, step, data };
    CameraImage { header: Header::default(), payload }
}

fn disc(side: u32) -> Vec<f32> {
    let middle = side as f32 / 2.0;
    let distance = |at: u32| (at as f32 % side as f32 - middle).hypot((at / side) as f32 - middle * 0.7);
    (0..side * side).map(|at| middle / 3.0 - distance(at)).collect()
}

#[test]
fn steady_state_allocates_nothing_of_image_size() {
    let frames = [
        frame("bgr8", 960, 240, 0),
        frame("rgb8", 960, 240, 32),
        frame("mono16", 640, 240, 6),
        frame("nv12", 320, 360, 0),
        frame("yuyv", 640, 240, 0),
        frame("bayer_grbg8", 320, 240, 0),
    ];
    let mut decoder = ImageDecoder::new(DecodeLimits::default());
    let rules = [
        ResizeRule::Letterbox { size: ImageSize::new(416, 320) },
        ResizeRule::LongestSide { side: 128, multiple: 16 },
        ResizeRule::ShortestEdge { shortest: 300, longest: 500 },
    ];
    let mut inputs: Vec<(Preprocessor, Vec<f32>)> = rules
        .iter()
        .map(|&resize| {
            let preprocessor = Preprocessor::new(Preprocess {
                resize,
                filter: ResizeFilter::Bilinear,
                mean: [0.5; 3],
                std: [0.25; 3],
            });
            (preprocessor, vec![0.0; resize.placement(SIZE).input_len()])
        })
        .collect();
    let placement = rules[1].placement(SIZE);
    let logits = &disc(64)[..64 * 48];
    let (mut upscaler, mut encoder) = (MaskUpscaler::new(), RunLengthEncoder::default());
    let (mut image, mut overlay, mut mask) = (RgbImage::default(), RgbImage::default(), BinaryMask::default());
    let mut result = FrameResult {
        size: SIZE,
        instances: vec![LabeledInstance {
            instance_id: 1,
            class_id: 0,
            label: Arc::from("disc"),
            phrase: Arc::from("disc"),
            score: 0.5,
            mask_score: 0.5,
            bbox: PixelBox { x0: 60.0, y0: 40.0, x1: 250.0, y1: 200.0 },
            mask: RunLengths::default(),
        }],
        instance_ids: vec![0; SIZE.area()],
        ..FrameResult::default()
    };
    let mut after_warm_up = 0;
    for round in 0..6 {
        if round == 2 {
            after_warm_up = LARGE_ALLOCATIONS.load(Ordering::Relaxed);
            assert!(after_warm_up > 5, "the counter counts: the buffers themselves were allocated");
        }
        for frame in &frames {
            decoder.decode(frame, &mut image).unwrap();
            for (preprocessor, input) in &mut inputs {
                preprocessor.run(&image, input).unwrap();
            }
            upscaler.upscale(logits, ImageSize::new(64, 48), &placement, &mut mask).unwrap();
            encoder.encode(&mask, &mut result.instances[0].mask);
            result.instances[0].mask.decode_into(&mut mask).unwrap();
            paint_mask(&mask, 1, &mut result.instance_ids);
            draw_overlay(&image, &result, &mut overlay).unwrap();
        }
    }
    assert!(mask.area() > 1000);
    assert_eq!(LARGE_ALLOCATIONS.load(Ordering::Relaxed), after_warm_up);
}
