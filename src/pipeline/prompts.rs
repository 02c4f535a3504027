//! Prompts for the mask decoder.

use crate::{
    imaging::Placement,
    inference::PromptBatch,
    types::{PixelBox, PixelPoint},
};

/// SAM's point labels.
mod label {
    pub const PADDING: f32 = -1.0;
    pub const BACKGROUND: f32 = 0.0;
    pub const FOREGROUND: f32 = 1.0;
    pub const BOX_TOP_LEFT: f32 = 2.0;
    pub const BOX_BOTTOM_RIGHT: f32 = 3.0;
}

/// Empties `batch` for objects with `points` points each, and a box each or none.
///
/// All objects of a batch are alike in that. SAM attends to padding points, so filling up an object's points would
/// change its mask; and whether a single point leaves open what is meant is decided for the whole batch.
pub fn begin(batch: &mut PromptBatch, points: usize, with_box: bool) {
    batch.reset(points + if with_box { 2 } else { 1 }, !with_box && points == 1);
}

/// Adds an object to `batch`: its points, and whether they are on it, then the corners of its box or, without one, a
/// padding point, as SAM was trained. As many points, and a box or none, as [`begin`] was told.
pub fn push(
    batch: &mut PromptBatch,
    points: impl IntoIterator<Item = (PixelPoint, bool)>,
    bbox: Option<PixelBox>,
    placement: &Placement,
) {
    let mut push = |point: PixelPoint, label: f32| {
        let point = placement.to_model(point);
        batch.coords.extend([point.x, point.y]);
        batch.labels.push(label);
    };
    for (point, on_it) in points {
        push(point, if on_it { label::FOREGROUND } else { label::BACKGROUND });
    }
    match bbox {
        Some(bbox) => {
            push(PixelPoint { x: bbox.x0, y: bbox.y0 }, label::BOX_TOP_LEFT);
            push(PixelPoint { x: bbox.x1, y: bbox.y1 }, label::BOX_BOTTOM_RIGHT);
        }
        None => {
            batch.coords.extend([0.0, 0.0]);
            batch.labels.push(label::PADDING);
        }
    }
    batch.prompts += 1;
}
