//! `~/segment`: requests are checked where they arrive and carried out by the frame loop between two frames, on the models
//! it has.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam::{
    channel::{Receiver, Sender, at, bounded},
    select,
};

use super::{
    arguments::NodeIdentity,
    convert,
    intake::{self, Intake},
    messages::{LabeledMaskArray, Segment, SegmentPrompt, SegmentRequest, SegmentResponse},
    node::NodeError,
    transport::{RawServer, Transport, serve},
};
use crate::{
    pipeline::{Frame, FrameError, MAX_POINTS, ObjectPrompt, Pipeline},
    types::{CameraImage, FrameResult, PixelBox, PixelPoint},
};

/// Prompts of one request.
const MAX_PROMPTS: usize = 256;
/// How long a caller is kept waiting.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request on its way to the frame loop.
pub struct SegmentJob {
    source: Source,
    prompts: Vec<ObjectPrompt>,
    reply: Sender<Result<LabeledMaskArray, String>>,
    /// When its caller stops waiting.
    until: Instant,
}

/// What is to be segmented.
enum Source {
    /// An image that came with the request.
    Given(CameraImage),
    /// The last image of a camera.
    Last(usize),
}

impl SegmentJob {
    /// Carries it out and answers, unless its caller has given up by now. `frames` are the last ones of each camera.
    pub fn run(self, pipeline: &mut Pipeline, frames: &[Frame]) {
        let Self { source, prompts, reply, until } = self;
        if Instant::now() >= until {
            return;
        }
        let segmented = || -> Result<LabeledMaskArray, FrameError> {
            let mut result = FrameResult::default();
            let image = match source {
                Source::Given(mut image) => {
                    let rgb = pipeline.decode_image(&mut image)?;
                    result.header = image.header;
                    rgb
                }
                Source::Last(camera) => {
                    let last = frames.get(camera).ok_or(FrameError::NoImage)?;
                    result.header.clone_from(&last.result.header);
                    Arc::clone(&last.rgb)
                }
            };
            pipeline.segment_prompts(image, &prompts, &mut result)?;
            Ok(convert::labeled_masks(&result, Duration::ZERO))
        };
        // Who has gone meanwhile needs no answer.
        let _ = reply.try_send(segmented().map_err(|error| error.to_string()));
    }
}

/// The service.
pub struct Segmenting {
    // Field order is drop order: who waits for an answer is sent away before the service waits for its last call.
    _stop: Sender<()>,
    _service: Box<dyn RawServer>,
}

impl Segmenting {
    /// Offers the service; the receiver is the frame loop's end.
    ///
    /// # Errors
    /// [`NodeError`] when it cannot be made.
    pub fn start(
        transport: &dyn Transport,
        identity: &NodeIdentity,
        intake: &Arc<Intake>,
        cameras: &[String],
    ) -> Result<(Self, Receiver<SegmentJob>), NodeError> {
        let (sender, jobs) = bounded(1);
        let (stop, stopped) = bounded::<()>(0);
        let (intake, cameras) = (Arc::clone(intake), cameras.to_vec());
        let service = serve::<Segment, _>(transport, &identity.resolve("~/segment")?, move |request| {
            match answer(request, &sender, &stopped, &intake, &cameras) {
                Ok(masks) => SegmentResponse { success: true, message: String::new(), masks },
                Err(message) => {
                    tracing::warn!(message, "refused to segment");
                    SegmentResponse { success: false, message, masks: LabeledMaskArray::default() }
                }
            }
        })?;
        Ok((Self { _stop: stop, _service: service }, jobs))
    }
}

fn answer(
    request: SegmentRequest,
    jobs: &Sender<SegmentJob>,
    stopped: &Receiver<()>,
    intake: &Intake,
    cameras: &[String],
) -> Result<LabeledMaskArray, String> {
    let SegmentRequest { image, camera, prompts } = request;
    if prompts.is_empty() || prompts.len() > MAX_PROMPTS {
        return Err(format!("1 to {MAX_PROMPTS} prompts are expected, found {}", prompts.len()));
    }
    let numbered = prompts.into_iter().enumerate();
    let prompts = numbered.map(|(index, prompt)| checked(prompt).map_err(|error| format!("prompt {index}: {error}")));
    let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
    let source = if image.width > 0 || image.height > 0 {
        Source::Given(intake::camera_image(image))
    } else {
        Source::Last(numbered_camera(&camera, cameras)?)
    };
    let (reply, answer) = bounded(1);
    let until = Instant::now() + PATIENCE;
    // One call at a time: the job before has been taken, or its caller would still wait.
    jobs.try_send(SegmentJob { source, prompts, reply, until })
        .map_err(|_| "the frame loop is busy or has ended".to_owned())?;
    intake.wake();
    select! {
        recv(answer) -> answered => answered.unwrap_or_else(|_| Err("the node is stopping".to_owned())),
        recv(stopped) -> _ => Err("the node is stopping".to_owned()),
        recv(at(until)) -> _ => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The place of a camera among `cameras`, which are empty for a single one without a name.
fn numbered_camera(camera: &str, cameras: &[String]) -> Result<usize, String> {
    match (cameras.iter().position(|name| name == camera), cameras.len()) {
        (Some(found), _) => Ok(found),
        (None, 0 | 1) if camera.is_empty() => Ok(0),
        (None, 0) => Err(format!("there is one camera, which has no name, and not {camera:?}")),
        (None, _) => Err(format!("a camera is expected, one of {}; found {camera:?}", cameras.join(", "))),
    }
}

fn checked(prompt: SegmentPrompt) -> Result<ObjectPrompt, String> {
    let SegmentPrompt { label, bbox, points, point_labels } = prompt;
    if points.len() != point_labels.len() {
        return Err(format!("{} points have {} labels", points.len(), point_labels.len()));
    }
    if points.len() > MAX_POINTS {
        return Err(format!("at most {MAX_POINTS} points are expected, found {}", points.len()));
    }
    let point = |(point, label): (_, u8)| {
        let super::messages::Point { x, y, .. } = point;
        if !x.is_finite() || !y.is_finite() {
            return Err(format!("a point at ({x}, {y})"));
        }
        match label {
            0 | 1 => Ok((PixelPoint { x: x as f32, y: y as f32 }, label == 1)),
            other => Err(format!("a point label is 1 (on the thing) or 0 (beside it), found {other}")),
        }
    };
    let points = points.into_iter().zip(point_labels).map(point).collect::<Result<Vec<_>, _>>()?;
    let bbox = (bbox.width > 0 && bbox.height > 0).then(|| {
        let (x0, y0) = (bbox.x_offset as f32, bbox.y_offset as f32);
        PixelBox { x0, y0, x1: x0 + bbox.width as f32, y1: y0 + bbox.height as f32 }
    });
    if bbox.is_none() && !points.iter().any(|(_, on_it)| *on_it) {
        return Err("neither a box nor a point on the thing".to_owned());
    }
    Ok(ObjectPrompt { label: label.into(), bbox, points })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{
        inference::{
            Detector, EncodedText, ImageEmbedding, ImageEncoder, InferenceError, LowResMasks, MaskDecoder, PromptBatch,
            RawDetections,
        },
        pipeline::{Models, PipelineConfig},
        types::{ImageSize, RgbImage},
    };

    /// All the models; fails, and counts how often it was asked for an embedding.
    #[derive(Clone, Default)]
    struct Failing(Arc<AtomicUsize>);

    fn failure<T>() -> Result<T, InferenceError> {
        Err(InferenceError::Preprocess("as it should".to_owned()))
    }

    impl Detector for Failing {
        fn max_batch(&self) -> usize {
            1
        }

        fn prepare(&mut self, _: &[&RgbImage]) -> Result<(), InferenceError> {
            failure()
        }

        fn detect(&mut self, _: &EncodedText, _: &mut Vec<RawDetections>) -> Result<(), InferenceError> {
            failure()
        }
    }

    impl ImageEncoder for Failing {
        fn max_batch(&self) -> usize {
            1
        }

        fn prepare(&mut self, _: &[&RgbImage]) -> Result<(), InferenceError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            failure()
        }

        fn encode(&mut self) -> Result<Vec<ImageEmbedding>, InferenceError> {
            failure()
        }
    }

    impl MaskDecoder for Failing {
        fn max_batch(&self) -> usize {
            1
        }

        fn decode(
            &mut self,
            _: &ImageEmbedding,
            _: ImageSize,
            _: &PromptBatch,
            _: &mut LowResMasks,
        ) -> Result<(), InferenceError> {
            failure()
        }
    }

    #[test]
    fn a_job_that_nobody_waits_for_any_more_is_not_run() {
        let models = Failing::default();
        let mut pipeline = Pipeline::with_models(
            PipelineConfig::default(),
            Models {
                detector: Box::new(models.clone()),
                image_encoder: Box::new(models.clone()),
                mask_decoder: Box::new(models.clone()),
                more_mask_decoders: Vec::new(),
            },
        )
        .unwrap();
        let size = ImageSize::new(4, 4);
        let frame = Frame { rgb: Arc::new(RgbImage { size, data: vec![0; 48] }), ..Frame::default() };
        let now = Instant::now();
        for (until, runs) in [(now, 0), (now + PATIENCE, 1)] {
            let (reply, answer) = bounded(1);
            let prompts = vec![ObjectPrompt { bbox: Some(PixelBox::default()), ..ObjectPrompt::default() }];
            let job = SegmentJob { source: Source::Last(0), prompts, reply, until };
            job.run(&mut pipeline, std::slice::from_ref(&frame));
            assert_eq!(models.0.load(Ordering::Relaxed), runs);
            let expected = (runs > 0).then(|| Err("preprocessing: as it should".to_owned()));
            assert_eq!(answer.try_recv().ok(), expected);
        }
    }
}
