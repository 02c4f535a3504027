//! Pictures of what was labelled, made from the camera's message and the node's masks alone.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use scenelex::{
    imaging::{DecodeLimits, ImageDecoder, overlay, paint_mask},
    ros::{
        CdrView,
        messages::{CompressedImage, CompressedImageView, Image, ImageView, LabeledMaskArray},
    },
    types::{
        BinaryMask, CameraImage, FrameResult, ImagePayload, ImageSize, LabeledInstance, PixelBox, RgbImage, RunLengths,
        Stamp,
    },
};

/// A frame with and without its labels.
pub struct Picture {
    /// As the camera gave it.
    pub camera: RgbImage,
    /// With masks, boxes and names.
    pub overlay: RgbImage,
}

/// Makes pictures.
pub struct Painter {
    compressed: bool,
    decoder: ImageDecoder,
    pictures: Vec<Picture>,
}

impl Painter {
    pub fn new(compressed: bool) -> Self {
        Self { compressed, decoder: ImageDecoder::new(DecodeLimits::default()), pictures: Vec::new() }
    }

    /// Number of pictures made.
    pub const fn count(&self) -> u64 {
        self.pictures.len() as u64
    }

    /// Stamp of a camera message.
    pub fn stamp(&self, view: CdrView<'_>) -> Result<Stamp> {
        let header = if self.compressed {
            view.decode::<CompressedImageView<'_>>()?.header
        } else {
            view.decode::<ImageView<'_>>()?.header
        };
        Ok(header.stamp.into())
    }

    /// Draws `result` on the camera message `message`.
    pub fn paint(&mut self, message: &[u8], result: &LabeledMaskArray) -> Result<()> {
        let view = CdrView::from_encapsulated(message)?;
        let image = if self.compressed {
            let image: CompressedImage = view.decode()?;
            CameraImage {
                header: image.header.into(),
                payload: ImagePayload::Compressed { format: image.format, data: image.data },
            }
        } else {
            let image: Image = view.decode()?;
            CameraImage {
                header: image.header.into(),
                payload: ImagePayload::Raw {
                    size: ImageSize::new(image.width, image.height),
                    encoding: image.encoding,
                    is_bigendian: image.is_bigendian != 0,
                    step: image.step,
                    data: image.data,
                },
            }
        };
        let (mut camera, mut drawn) = (RgbImage::default(), RgbImage::default());
        self.decoder.decode(&image, &mut camera)?;
        overlay::draw_overlay(&camera, &to_result(result, camera.size)?, &mut drawn)?;
        self.pictures.push(Picture { camera, overlay: drawn });
        Ok(())
    }

    /// The pictures, in order.
    pub fn into_pictures(self) -> Vec<Picture> {
        self.pictures
    }
}

/// What an overlay needs of a result received for an image of `size`.
fn to_result(message: &LabeledMaskArray, size: ImageSize) -> Result<FrameResult> {
    let found = ImageSize::new(message.width, message.height);
    ensure!(found == size, "masks for an image of {size} have size {found}");
    let mut result = FrameResult {
        header: message.header.clone().into(),
        size,
        vocabulary_version: message.vocabulary_version,
        instance_ids: vec![0; size.area()],
        ..FrameResult::default()
    };
    let mut pixels = BinaryMask::default();
    // The surest masks come first and keep their pixels, as in the node's own images.
    for mask in &message.masks {
        let runs = RunLengths { size, counts: mask.counts.clone() };
        runs.decode_into(&mut pixels)?;
        let id = u16::try_from(mask.instance_id).context("an instance id does not fit 16 bits")?;
        paint_mask(&pixels, id, &mut result.instance_ids);
        let (x0, y0) = (mask.bbox.x_offset as f32, mask.bbox.y_offset as f32);
        result.instances.push(LabeledInstance {
            instance_id: mask.instance_id,
            class_id: mask.class_id,
            label: Arc::from(mask.label.as_str()),
            phrase: Arc::from(mask.phrase.as_str()),
            score: mask.score,
            mask_score: mask.mask_score,
            bbox: PixelBox { x0, y0, x1: x0 + mask.bbox.width as f32, y1: y0 + mask.bbox.height as f32 },
            mask: runs,
        });
    }
    Ok(result)
}
