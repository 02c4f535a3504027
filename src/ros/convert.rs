//! Results as messages.

use super::messages::{
    BoundingBox2D, Detection2D, Detection2DArray, Header, LabelInfo, LabeledMask, LabeledMaskArray, ObjectHypothesis,
    ObjectHypothesisWithPose, Point2D, Pose2D, RegionOfInterest, StageDuration, VisionClass, Vocabulary,
    VocabularyEntry,
};
use crate::{
    pipeline::Stage,
    types::{self, FrameResult, ImageSize, LabeledInstance, PixelBox, Stamp, UNLABELLED},
    vocabulary::ClassSpec,
};

/// Name of the stage that is not the pipeline's: waiting for it.
const QUEUE: &str = "queue";

/// The stages `LabeledMaskArray` carries; overhead is left to whoever subtracts.
const STAGES: [Stage; 9] = [
    Stage::Decode,
    Stage::Preprocess,
    Stage::Detect,
    Stage::EncodeImage,
    Stage::Postprocess,
    Stage::DecodeMasks,
    Stage::Resolve,
    Stage::Total,
    Stage::Models,
];

/// Labels, scores, boxes and masks of a frame. `queued` is how long the image waited for its turn.
#[must_use]
pub fn labeled_masks(result: &FrameResult, queued: std::time::Duration) -> LabeledMaskArray {
    let queue = StageDuration { stage: QUEUE.to_owned(), duration: queued.into() };
    let stages = STAGES
        .into_iter()
        .map(|stage| StageDuration { stage: stage.as_str().to_owned(), duration: stage.of(&result.durations).into() });
    LabeledMaskArray {
        header: Header::from(&result.header),
        height: result.size.height,
        width: result.size.width,
        vocabulary_version: result.vocabulary_version,
        vocabulary_age: result.vocabulary_age.into(),
        masks: result.instances.iter().map(|instance| labeled_mask(instance, result.size)).collect(),
        stages: std::iter::once(queue).chain(stages).collect(),
    }
}

fn labeled_mask(instance: &LabeledInstance, size: ImageSize) -> LabeledMask {
    LabeledMask {
        instance_id: instance.instance_id,
        class_id: instance.class_id,
        label: instance.label.to_string(),
        phrase: instance.phrase.to_string(),
        score: instance.score,
        mask_score: instance.mask_score,
        bbox: region(instance.bbox, size),
        counts: instance.mask.counts.clone(),
    }
}

/// The smallest region of whole pixels that holds the part of `bbox` inside the image.
fn region(bbox: PixelBox, size: ImageSize) -> RegionOfInterest {
    let bbox = bbox.clipped(size);
    // Clipped to the image, so the casts neither wrap nor lose anything.
    let (x0, y0) = (bbox.x0.floor() as u32, bbox.y0.floor() as u32);
    let (x1, y1) = (bbox.x1.ceil() as u32, bbox.y1.ceil() as u32);
    RegionOfInterest {
        x_offset: x0,
        y_offset: y0,
        width: x1.saturating_sub(x0),
        height: y1.saturating_sub(y0),
        do_rectify: false,
    }
}

/// Boxes, classes and scores of a frame for consumers of `vision_msgs`: the class is the label, the id the instance.
#[must_use]
pub fn detections(result: &FrameResult) -> Detection2DArray {
    let header = Header::from(&result.header);
    let detections = result.instances.iter().map(|instance| {
        let (bbox, center) = (instance.bbox, instance.bbox.center());
        Detection2D {
            header: header.clone(),
            results: vec![ObjectHypothesisWithPose {
                hypothesis: ObjectHypothesis { class_id: instance.label.to_string(), score: f64::from(instance.score) },
                ..ObjectHypothesisWithPose::default()
            }],
            bbox: BoundingBox2D {
                center: Pose2D { position: Point2D { x: f64::from(center.x), y: f64::from(center.y) }, theta: 0.0 },
                size_x: f64::from(bbox.width()),
                size_y: f64::from(bbox.height()),
            },
            id: instance.instance_id.to_string(),
        }
    });
    Detection2DArray { detections: detections.collect(), header: header.clone() }
}

/// A class list as `~/vocabulary` carries it.
#[must_use]
pub fn vocabulary(vocabulary: &types::Vocabulary, stamp: Stamp) -> Vocabulary {
    Vocabulary {
        header: Header { stamp: stamp.into(), frame_id: String::new() },
        version: vocabulary.version,
        source: vocabulary.source.as_str().to_owned(),
        entries: entries(vocabulary),
    }
}

/// The classes of a vocabulary.
#[must_use]
pub fn entries(vocabulary: &types::Vocabulary) -> Vec<VocabularyEntry> {
    let texts = |names: &[std::sync::Arc<str>]| names.iter().map(ToString::to_string).collect();
    let entries = vocabulary.entries.iter().map(|entry| VocabularyEntry {
        class_id: entry.class_id,
        label: entry.label.to_string(),
        parent: entry.parent.to_string(),
        synonyms: texts(&entry.synonyms),
        subclasses: texts(&entry.subclasses),
        score: entry.score,
    });
    entries.collect()
}

/// A requested class, without what a request does not decide (id and score).
#[must_use]
pub fn class_spec(entry: VocabularyEntry) -> ClassSpec {
    ClassSpec {
        parent: entry.parent,
        synonyms: entry.synonyms,
        subclasses: entry.subclasses,
        ..ClassSpec::new(entry.label)
    }
}

/// Names of the values in the semantic image.
#[must_use]
pub fn label_info(vocabulary: &types::Vocabulary, stamp: Stamp, threshold: f32) -> LabelInfo {
    let class =
        |entry: &types::ClassEntry| VisionClass { class_id: entry.class_id, class_name: entry.label.to_string() };
    LabelInfo {
        header: Header { stamp: stamp.into(), frame_id: String::new() },
        class_map: vocabulary.entries.iter().map(class).collect(),
        threshold,
    }
}

/// Value of a pixel without a class in an 8-bit semantic image.
pub const UNLABELLED_8: u8 = u8::MAX;

/// Fills `pixels` with the semantic image and gives its encoding: `mono8` as long as every class id of the vocabulary
/// fits beside [`UNLABELLED_8`], else little-endian `mono16` with [`UNLABELLED`].
pub fn semantic_pixels(result: &FrameResult, largest_id: u16, pixels: &mut Vec<u8>) -> &'static str {
    if largest_id < u16::from(UNLABELLED_8) {
        // Ids of this vocabulary fit; the only other value is UNLABELLED.
        write_pixels(result, |class| [u8::try_from(class).unwrap_or(UNLABELLED_8)], pixels);
        "mono8"
    } else {
        write_pixels(result, u16::to_le_bytes, pixels);
        "mono16"
    }
}

/// Writes the bytes of each pixel's class; those of none are all ones.
fn write_pixels<const N: usize>(result: &FrameResult, bytes: impl Fn(u16) -> [u8; N], pixels: &mut Vec<u8>) {
    /// Pixels that are passed over together where no object is, as in most of an image.
    const BLOCK: usize = 64;
    const NONE: u8 = u8::MAX;
    let classes: Vec<[u8; N]> = result.instances.iter().map(|instance| bytes(instance.class_id)).collect();
    pixels.clear();
    pixels.resize(result.instance_ids.len() * N, NONE);
    for (ids, pixels) in result.instance_ids.chunks(BLOCK).zip(pixels.as_chunks_mut().0.chunks_mut(BLOCK)) {
        if ids.iter().fold(0, |any, id| any | id) != 0 {
            for (&id, pixel) in ids.iter().zip(pixels) {
                *pixel = classes.get(usize::from(id).wrapping_sub(1)).copied().unwrap_or([NONE; N]);
            }
        }
    }
}

/// Fills `pixels` with the instance image, little-endian `mono16`; 0 is no object.
pub fn instance_pixels(result: &FrameResult, pixels: &mut Vec<u8>) {
    pixels.clear();
    pixels.extend(result.instance_ids.iter().flat_map(|id| id.to_le_bytes()));
}

/// The largest id of a vocabulary; 0 for none.
#[must_use]
pub fn largest_id(vocabulary: &types::Vocabulary) -> u16 {
    vocabulary.entries.iter().map(|entry| entry.class_id).filter(|&id| id != UNLABELLED).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_hold_the_visible_part_of_the_box() {
        let size = ImageSize::new(640, 480);
        let found = region(PixelBox { x0: -3.5, y0: 10.2, x1: 20.1, y1: 500.0 }, size);
        assert_eq!((found.x_offset, found.y_offset, found.width, found.height), (0, 10, 21, 470));
        let outside = region(PixelBox { x0: 700.0, y0: 0.0, x1: 900.0, y1: 5.0 }, size);
        assert_eq!((outside.x_offset, outside.width), (640, 0));
    }

    #[test]
    fn semantic_images_widen_when_ids_do() {
        let mut result = FrameResult { instance_ids: vec![0; 200], ..FrameResult::default() };
        for (position, class_id) in [(70, 1), (130, 254), (199, UNLABELLED)] {
            result.instances.push(LabeledInstance { class_id, ..LabeledInstance::default() });
            result.instance_ids[position] = result.instances.len() as u16;
        }
        let expected = |at: usize| match at {
            70 => 1,
            130 => 254,
            _ => UNLABELLED,
        };
        let mut pixels = vec![7; 3];
        assert_eq!(semantic_pixels(&result, 254, &mut pixels), "mono8");
        assert_eq!(pixels, (0..200).map(|at| expected(at).min(255) as u8).collect::<Vec<_>>());
        assert_eq!(semantic_pixels(&result, 255, &mut pixels), "mono16");
        assert_eq!(pixels, (0..200).flat_map(|at| expected(at).to_le_bytes()).collect::<Vec<_>>());
        assert!(result.class_ids().eq((0..200).map(expected)));
    }
}
