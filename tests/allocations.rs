//! A steady stream of frames allocates no image-sized memory. Counted by the allocator itself, in a process of its own;
//! what ONNX Runtime takes comes from its arenas, which keep their blocks, and is not seen here.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use scenelex::types::{FrameResult, ImageSize};
use support::*;

/// Remembers the largest block that was asked for.
struct Watching;

static LARGEST: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

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
    let size = ImageSize::new(640, 480);
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
    const FRAMES: usize = 40;
    for from in pictures.iter().cycle().take(FRAMES) {
        refill(&mut image, from);
        pipeline.process(&mut image, &vocabulary, &mut result).unwrap();
        assert_eq!(result.instances.len(), 3);
    }
    let (largest, bytes) = (LARGEST.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed) / FRAMES);
    println!("largest block {largest} bytes, {bytes} bytes a frame");
    let image_sized = size.area() / 4;
    assert!(largest < image_sized, "a block of {largest} bytes was allocated");
    assert!(bytes < image_sized, "{bytes} bytes were allocated per frame");
}
