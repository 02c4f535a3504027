//! `~/segment`: requests are checked where they arrive and carried out by the frame loop between two frames, on the models
//! it has.

use std::{sync::Arc, time::Duration};

use crossbeam::{
    channel::{Receiver, Sender, bounded},
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
    pipeline::{MAX_POINTS, ObjectPrompt, Pipeline},
    types::{CameraImage, FrameResult, PixelBox, PixelPoint},
};

/// Prompts of one request.
const MAX_PROMPTS: usize = 256;
/// How long a caller is kept waiting.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request on its way to the frame loop.
pub struct SegmentJob {
    /// `None`: the last image.
    image: Option<CameraImage>,
    prompts: Vec<ObjectPrompt>,
    reply: Sender<Result<LabeledMaskArray, String>>,
}

impl SegmentJob {
    /// Carries it out and answers. `last` is the result of the last image, whose header its copy gets.
    pub fn run(mut self, pipeline: &mut Pipeline, last: &FrameResult) {
        let mut result = FrameResult { header: last.header.clone(), ..FrameResult::default() };
        let outcome = pipeline.segment_prompts(self.image.as_mut(), &self.prompts, &mut result);
        let answer =
            outcome.map_err(|error| error.to_string()).map(|()| convert::labeled_masks(&result, Duration::ZERO));
        // Who has gone meanwhile needs no answer.
        let _ = self.reply.try_send(answer);
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
    ) -> Result<(Self, Receiver<SegmentJob>), NodeError> {
        let (sender, jobs) = bounded(1);
        let (stop, stopped) = bounded::<()>(0);
        let intake = Arc::clone(intake);
        let service = serve::<Segment, _>(transport, &identity.resolve("~/segment")?, move |request| {
            match answer(request, &sender, &stopped, &intake) {
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
) -> Result<LabeledMaskArray, String> {
    let SegmentRequest { image, prompts } = request;
    if prompts.is_empty() || prompts.len() > MAX_PROMPTS {
        return Err(format!("1 to {MAX_PROMPTS} prompts are expected, found {}", prompts.len()));
    }
    let numbered = prompts.into_iter().enumerate();
    let prompts = numbered.map(|(index, prompt)| checked(prompt).map_err(|error| format!("prompt {index}: {error}")));
    let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
    let image = (image.width > 0 || image.height > 0).then(|| intake::camera_image(image));
    let (reply, answer) = bounded(1);
    // One call at a time: the job before has been taken, or its caller would still wait.
    jobs.try_send(SegmentJob { image, prompts, reply })
        .map_err(|_| "the frame loop is busy or has ended".to_owned())?;
    intake.wake();
    select! {
        recv(answer) -> answered => answered.unwrap_or_else(|_| Err("the node is stopping".to_owned())),
        recv(stopped) -> _ => Err("the node is stopping".to_owned()),
        default(PATIENCE) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
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
