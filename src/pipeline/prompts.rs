//! Prompts for the mask decoder.

use super::segment::ObjectPrompt;
use crate::{
    imaging::Placement,
    inference::PromptBatch,
    types::{Detection, PixelPoint},
};

/// SAM's point labels.
mod label {
    pub const PADDING: f32 = -1.0;
    pub const BACKGROUND: f32 = 0.0;
    pub const FOREGROUND: f32 = 1.0;
    pub const BOX_TOP_LEFT: f32 = 2.0;
    pub const BOX_BOTTOM_RIGHT: f32 = 3.0;
}

/// Fills `batch` with the prompts of `detections`: their points, then, with `use_box`, the corners of their box.
///
/// Objects with fewer points than the others of the batch are filled up with padding points. Without a box there is
/// always one padding point at the end, as SAM was trained.
pub fn fill<'a>(
    batch: &mut PromptBatch,
    detections: impl Iterator<Item = &'a Detection> + Clone,
    placement: &Placement,
    (use_points, use_box): (bool, bool),
) {
    let points = |detection: &Detection| if use_points { detection.points.len() } else { 0 };
    let most = detections.clone().map(points).max().unwrap_or(0);
    batch.reset(most + if use_box { 2 } else { 1 }, !use_box && most == 1);
    for detection in detections {
        let mut push = |point: PixelPoint, label: f32| {
            let point = placement.to_model(point);
            batch.coords.extend([point.x, point.y]);
            batch.labels.push(label);
        };
        let own = points(detection);
        for &point in detection.points.iter().take(own) {
            push(point, label::FOREGROUND);
        }
        if use_box {
            push(PixelPoint { x: detection.bbox.x0, y: detection.bbox.y0 }, label::BOX_TOP_LEFT);
            push(PixelPoint { x: detection.bbox.x1, y: detection.bbox.y1 }, label::BOX_BOTTOM_RIGHT);
        }
        let padding = most - own + usize::from(!use_box);
        batch.coords.extend(std::iter::repeat_n(0.0, 2 * padding));
        batch.labels.extend(std::iter::repeat_n(label::PADDING, padding));
        batch.prompts += 1;
    }
}

/// Fills `batch` with one object's prompt: its points, then the corners of its box or, without one, a padding point.
pub fn fill_one(batch: &mut PromptBatch, prompt: &ObjectPrompt, placement: &Placement) {
    let closing = if prompt.bbox.is_some() { 2 } else { 1 };
    batch.reset(prompt.points.len() + closing, prompt.bbox.is_none() && prompt.points.len() == 1);
    let mut push = |point: PixelPoint, label: f32| {
        let point = placement.to_model(point);
        batch.coords.extend([point.x, point.y]);
        batch.labels.push(label);
    };
    for &(point, on_it) in &prompt.points {
        push(point, if on_it { label::FOREGROUND } else { label::BACKGROUND });
    }
    match prompt.bbox {
        Some(bbox) => {
            push(PixelPoint { x: bbox.x0, y: bbox.y0 }, label::BOX_TOP_LEFT);
            push(PixelPoint { x: bbox.x1, y: bbox.y1 }, label::BOX_BOTTOM_RIGHT);
        }
        None => {
            batch.coords.extend([0.0, 0.0]);
            batch.labels.push(label::PADDING);
        }
    }
    batch.prompts = 1;
}
