//! How much memory a call of `~/segment` with many prompts takes, and keeps. Counted by the allocator itself, in a
//! process of its own; what ONNX Runtime takes is not seen here.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use scenelex::{
    pipeline::ObjectPrompt,
    types::{FrameResult, ImageSize, PixelBox},
};
use support::*;

/// Remembers what is allocated, and the most that ever was.
struct Watching;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grow(size: usize) {
    let live = LIVE.fetch_add(size, Ordering::Relaxed) + size;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) };
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

#[test]
fn many_prompts_take_the_memory_of_few() {
    let size = ImageSize::new(640, 480);
    let mut pipeline = tiny_pipeline(tiny_config());
    let image = pipeline.decode_image(&mut picture(size, &[])).unwrap();
    let prompt = |number: usize| {
        let x0 = number as f32;
        ObjectPrompt { bbox: Some(PixelBox { x0, y0: 50.0, x1: x0 + 200.0, y1: 400.0 }), ..ObjectPrompt::default() }
    };
    let mut result = FrameResult::default();
    pipeline.segment_prompts(image.clone(), &[prompt(0)], &mut result).unwrap();

    let wanted: Vec<_> = (0..256).map(prompt).collect();
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    pipeline.segment_prompts(image, &wanted, &mut result).unwrap();
    assert_eq!(result.instances.len(), 256);
    assert!(result.instances.iter().all(|instance| instance.mask.area() > 50_000));
    let masks = |bytes: usize| bytes.saturating_sub(before) / size.area();
    let (peak, kept) = (masks(PEAK.load(Ordering::Relaxed)), masks(LIVE.load(Ordering::Relaxed)));
    println!("the room of {peak} masks at most, of {kept} afterwards");
    assert!(peak < 64, "256 prompts took the room of {peak} masks");
    assert!(kept < 48, "256 prompts keep the room of {kept} masks");
}
