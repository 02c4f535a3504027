//! The node's frame loop between the two ends of a middleware that is not there: images go in as bytes, messages come out as
//! bytes. For a test that counts allocations and a bench that takes times.
#![allow(dead_code, reason = "each of them uses a part of it")]

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, bounded, never};
use scenelex::{
    pipeline::{Pipeline, PreparedVocabulary, VocabularyHandle},
    ros::{
        CdrView, Qos, Transport, TransportError,
        arguments::RosArguments,
        frames::{FrameLoop, Frames, Tuning},
        intake::Intake,
        outputs::Outputs,
        transport::{MessageHandler, RawClient, RawPublisher, RawServer, RawSubscription, ServiceHandler, TopicInfo},
    },
};

/// Messages that may wait: those of a frame.
const WAITING: usize = 16;

/// A message that was published.
pub struct Published {
    /// As in `/scenelex/masks`.
    pub topic: Arc<str>,
    /// When the middleware got it.
    pub at: Instant,
    pub message: Bytes,
}

/// A middleware with one node, and a subscriber on some of its topics.
struct Wire {
    subscribed: &'static [&'static str],
    published: Sender<Published>,
}

/// A topic, and where its messages go if somebody subscribes.
struct Topic {
    name: Arc<str>,
    published: Option<Sender<Published>>,
}

impl RawPublisher for Topic {
    fn publish(&self, message: Bytes) -> Result<(), TransportError> {
        if let Some(published) = &self.published {
            let _ = published.send(Published { topic: Arc::clone(&self.name), at: Instant::now(), message });
        }
        Ok(())
    }

    fn subscribers(&self) -> usize {
        usize::from(self.published.is_some())
    }

    fn flush(&self, _: Duration) -> bool {
        true
    }
}

const UNSUPPORTED: TransportError = TransportError::Unsupported { transport: "test", ability: "do that" };

impl Transport for Wire {
    fn node_name(&self) -> &str {
        "/scenelex"
    }

    fn advertise(&self, topic: &str, _: &str, _: Qos) -> Result<Arc<dyn RawPublisher>, TransportError> {
        let published = self.subscribed.contains(&topic).then(|| self.published.clone());
        Ok(Arc::new(Topic { name: topic.into(), published }))
    }

    fn subscribe(
        &self,
        _: &str,
        _: &str,
        _: Qos,
        _: MessageHandler,
    ) -> Result<Box<dyn RawSubscription>, TransportError> {
        Err(UNSUPPORTED)
    }

    fn serve(&self, _: &str, _: &str, _: ServiceHandler) -> Result<Box<dyn RawServer>, TransportError> {
        Err(UNSUPPORTED)
    }

    fn client(&self, _: &str, _: &str) -> Result<Box<dyn RawClient>, TransportError> {
        Err(UNSUPPORTED)
    }

    fn topics(&self) -> Vec<TopicInfo> {
        Vec::new()
    }
}

/// The frame loop on its thread, its camera and its subscriber.
pub struct FrameLoopBetweenBytes {
    pub intake: Arc<Intake>,
    /// What was published on the topics that are subscribed to.
    pub published: Receiver<Published>,
    camera: MessageHandler,
    frames: Option<Frames>,
}

impl FrameLoopBetweenBytes {
    /// `subscribed` are the topics that somebody subscribes to, `compressed` whether images are.
    pub fn start(
        pipeline: Pipeline,
        vocabulary: PreparedVocabulary,
        subscribed: &'static [&'static str],
        compressed: bool,
    ) -> Result<Self, Box<dyn Error>> {
        let (sender, published) = bounded(WAITING);
        let wire = Wire { subscribed, published: sender };
        let identity = RosArguments::default().identity("scenelex")?;
        let outputs = Outputs::new(&wire, &identity, "~", Qos::RELIABLE, Duration::ZERO)?;
        let intake = Arc::new(Intake::new(1));
        let tuning = Tuning { config: pipeline.config().clone(), overlay_interval: Duration::ZERO };
        let frames = Frames::start(FrameLoop {
            pipeline,
            outputs: vec![outputs],
            intake: Arc::clone(&intake),
            vocabulary: VocabularyHandle::fixed(vocabulary),
            tuning: Arc::new(ArcSwap::from_pointee(tuning)),
            tap: None,
            segments: never(),
        })?;
        let camera = intake.handler(0, compressed);
        Ok(Self { intake, published, camera, frames: Some(frames) })
    }

    /// An image arrives, encapsulation header included.
    pub fn send(&mut self, image: &Bytes) -> Result<(), Box<dyn Error>> {
        (self.camera)(CdrView::from_encapsulated(image)?);
        Ok(())
    }
}

impl Drop for FrameLoopBetweenBytes {
    fn drop(&mut self) {
        self.intake.close();
        if let Some(frames) = self.frames.take() {
            frames.join(Instant::now() + Duration::from_secs(10));
        }
    }
}
