//! A steady stream of frames allocates no image-sized memory, alone and with everything that the node makes of them. Counted by the allocator itself, in a process of its own;
//! what ONNX Runtime takes comes from its arenas, which keep their blocks, and is not seen here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test")]

#[path = "support/frame_loop.rs"]
mod frame_loop;
mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use frame_loop::FrameLoopBetweenBytes;
use scenelex::{
    ros::{
        CdrView, cdr,
        messages::{CompressedImage, Image, LabeledMaskArray},
    },
    types::{CameraImage, FrameResult, ImagePayload, ImageSize},
};
use support::*;

/// Remembers the largest block that was asked for.
struct Watching;

static LARGEST: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
/// Held by whoever counts: tests run beside each other.
static COUNTING: Mutex<()> = Mutex::new(());
const SIZE: ImageSize = ImageSize::new(640, 480);
const FRAMES: usize = 40;

fn note(size: usize) {
    LARGEST.fetch_max(size, Ordering::Relaxed);
    BYTES.fetch_add(size, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

#[test]
fn steady_frames_allocate_nothing_image_sized() {
    let _alone = COUNTING.lock();
    let size = SIZE;
    let mut pipeline = tiny_pipeline(tiny_config());
    let vocabulary = prepare(&mut tiny_encoder(), &specs(&["red", "blue"]));
    // The same number of objects at other places: what differs from frame to frame must not need new room either.
    let pictures = [
        picture(size, &[(0, 0, RED), (2, 1, BLUE), (3, 2, RED)]),
        picture(size, &[(1, 0, BLUE), (0, 2, RED), (3, 1, BLUE)]),
    ];
    let mut result = FrameResult::default();
    LARGEST.store(0, Ordering::Relaxed);
    let mut image = pictures[0].clone();
    for from in pictures.iter().cycle().take(6) {
        refill(&mut image, from);
        pipeline.process(&mut image, &vocabulary, &mut result).unwrap();
    }
    assert!(LARGEST.load(Ordering::Relaxed) >= size.area(), "the counter works: the first frames make the buffers");

    LARGEST.store(0, Ordering::Relaxed);
    BYTES.store(0, Ordering::Relaxed);
    for from in pictures.iter().cycle().take(FRAMES) {
        refill(&mut image, from);
        pipeline.process(&mut image, &vocabulary, &mut result).unwrap();
        assert_eq!(result.instances.len(), 3);
    }
    assert_nothing_image_sized();
}

/// Of what was counted over [`FRAMES`] frames.
fn assert_nothing_image_sized() {
    let (largest, bytes) = (LARGEST.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed) / FRAMES);
    println!("largest block {largest} bytes, {bytes} bytes a frame");
    let image_sized = SIZE.area() / 4;
    assert!(largest < image_sized, "a block of {largest} bytes was allocated");
    assert!(bytes < image_sized, "{bytes} bytes were allocated per frame");
}

const TOPICS: [&str; 5] = [
    "/scenelex/masks",
    "/scenelex/detections",
    "/scenelex/semantic/image",
    "/scenelex/instances/image",
    "/scenelex/overlay/image",
];

/// The picture as an image message, or as a JPEG.
fn message(picture: &CameraImage, compressed: bool) -> Bytes {
    let ImagePayload::Raw { size, encoding, step, data, .. } = &picture.payload else { unreachable!() };
    if !compressed {
        let (height, width, encoding, step, data) = (size.height, size.width, encoding.clone(), *step, data.clone());
        return cdr::encode(&Image { height, width, encoding, step, data, ..Image::default() }).unwrap();
    }
    let mut data = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut data, 95);
    image::ImageEncoder::write_image(
        encoder,
        picture_bytes(picture),
        size.width,
        size.height,
        image::ColorType::Rgb8.into(),
    )
    .unwrap();
    cdr::encode(&CompressedImage { format: "jpeg".to_owned(), data, ..CompressedImage::default() }).unwrap()
}

fn picture_bytes(picture: &CameraImage) -> &[u8] {
    match &picture.payload {
        ImagePayload::Raw { data, .. } | ImagePayload::Compressed { data, .. } => data,
    }
}

#[test]
fn nor_does_anything_between_an_image_message_and_the_messages_about_it() {
    let _alone = COUNTING.lock();
    for compressed in [false, true] {
        let vocabulary = prepare(&mut tiny_encoder(), &specs(&["red", "blue"]));
        let pipeline = tiny_pipeline(tiny_config());
        let vocabulary = std::sync::Arc::unwrap_or_clone(vocabulary);
        let mut node = FrameLoopBetweenBytes::start(pipeline, vocabulary, &TOPICS, compressed).unwrap();
        let images = [
            message(&picture(SIZE, &[(0, 0, RED), (2, 1, BLUE), (3, 2, RED)]), compressed),
            message(&picture(SIZE, &[(1, 0, BLUE), (0, 2, RED), (3, 1, BLUE)]), compressed),
        ];
        LARGEST.store(0, Ordering::Relaxed);
        // As of a camera faster than the models, until every image is made that is in use at once.
        let (mut results, last) = (0, TOPICS[TOPICS.len() - 1]);
        while results < 6 {
            node.send(&images[results % 2]).unwrap();
            results += node.published.try_iter().filter(|published| &*published.topic == last).count();
        }
        while node.published.recv_timeout(Duration::from_secs(1)).is_ok() {}
        assert!(LARGEST.load(Ordering::Relaxed) >= SIZE.area(), "the counter works: the first frames make the buffers");
        LARGEST.store(0, Ordering::Relaxed);
        BYTES.store(0, Ordering::Relaxed);
        for image in images.iter().cycle().take(FRAMES) {
            node.send(image).unwrap();
            for topic in TOPICS {
                let published = node.published.recv().unwrap();
                assert_eq!(&*published.topic, topic);
                if topic == "/scenelex/masks" {
                    let masks: LabeledMaskArray =
                        CdrView::from_encapsulated(&published.message).unwrap().decode().unwrap();
                    assert_eq!(masks.masks.len(), 3);
                }
            }
        }
        assert_nothing_image_sized();
    }
}
