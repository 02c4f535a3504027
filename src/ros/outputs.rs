//! What a frame's result becomes on the wire. Nothing is made that nobody subscribes to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    arguments::NodeIdentity,
    buffers::MessageBuffers,
    cdr, convert,
    intake::LOG_INTERVAL,
    messages::{Detection2DArray, Header, Image, ImageView, LabeledMaskArray, RosMessage},
    names::InvalidName,
    throttle::Throttle,
    transport::{LINGER, Mismatch, Qos, RawPublisher, Transport, TransportError},
};
use crate::{
    imaging::draw_overlay,
    types::{FrameResult, ImageSize, RgbImage},
};

/// A topic could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Its name is impossible.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The transport refused.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// One output topic with the buffers of its messages.
struct Output {
    topic: String,
    publisher: Arc<dyn RawPublisher>,
    buffers: MessageBuffers,
    /// Whether it was said that a subscriber asks for too much.
    told: bool,
}

impl Output {
    fn new<M: RosMessage>(
        transport: &dyn Transport,
        node: &NodeIdentity,
        topic: &str,
        qos: Qos,
    ) -> Result<Self, OutputError> {
        let topic = node.resolve(topic)?;
        // The next frame hardly waits for who is slow to take this one's results.
        let publisher = transport.advertise_in_haste(&topic, M::TYPE, qos)?;
        Ok(Self { topic, publisher, buffers: MessageBuffers::new(), told: false })
    }

    fn wanted(&self) -> bool {
        self.publisher.subscribers() > 0
    }

    /// Takes note of who came and went, frees memory where nobody is left, and says once that somebody cannot be served.
    fn watch(&mut self) {
        if !self.wanted() {
            self.buffers.release();
        }
        if !self.told
            && let Some(Mismatch::Policy(policy)) = self.publisher.mismatch()
        {
            self.told = true;
            let remedy = match policy {
                "reliability" => "set qos.results.reliability to reliable, or have it ask for best effort",
                _ => "have it ask for less",
            };
            let topic = &self.topic;
            tracing::warn!(topic, policy, "a subscriber gets nothing: its QoS asks for more than is offered; {remedy}");
        }
    }

    fn publish<T: Serialize>(&mut self, message: &T) -> Result<(), TransportError> {
        let mut buffer = self.buffers.take();
        cdr::encode_into(message, &mut buffer)?;
        self.publisher.publish(self.buffers.finish(buffer))
    }
}

/// Every per-frame topic of a camera.
pub struct Outputs {
    base: String,
    masks: Output,
    detections: Output,
    semantic: Output,
    instances: Output,
    overlay: Output,
    overlay_interval: Duration,
    last_overlay: Option<Instant>,
    overlay_image: RgbImage,
    pixels: Vec<u8>,
    unsent: Arc<AtomicU64>,
    throttle: Throttle,
}

impl Outputs {
    /// Puts the topics on the graph, below `base`, which is relative to the node's namespace.
    ///
    /// # Errors
    /// [`OutputError`] for the first that cannot be set up.
    pub fn new(
        transport: &dyn Transport,
        node: &NodeIdentity,
        base: &str,
        qos: Qos,
        overlay_interval: Duration,
    ) -> Result<Self, OutputError> {
        let topic = |name: &str| format!("{base}/{name}");
        Ok(Self {
            base: base.to_owned(),
            masks: Output::new::<LabeledMaskArray>(transport, node, &topic("masks"), qos)?,
            detections: Output::new::<Detection2DArray>(transport, node, &topic("detections"), qos)?,
            semantic: Output::new::<Image>(transport, node, &topic("semantic/image"), qos)?,
            instances: Output::new::<Image>(transport, node, &topic("instances/image"), qos)?,
            overlay: Output::new::<Image>(transport, node, &topic("overlay/image"), qos)?,
            overlay_interval,
            last_overlay: None,
            overlay_image: RgbImage::default(),
            pixels: Vec::new(),
            unsent: Arc::default(),
            throttle: Throttle::new(LOG_INTERVAL),
        })
    }

    /// What the topics are below.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// From now on at most one overlay in this time.
    pub const fn set_overlay_interval(&mut self, interval: Duration) {
        self.overlay_interval = interval;
    }

    /// Number of messages that could not be sent because a subscriber did not keep up.
    #[must_use]
    pub fn unsent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.unsent)
    }

    /// Takes note of who came and went. Between frames that may be far apart, as a transport keeps such news only so long.
    pub fn watch(&mut self) {
        let Self { masks, detections, semantic, instances, overlay, .. } = self;
        for output in [masks, detections, semantic, instances, overlay] {
            output.watch();
        }
    }

    /// Publishes a result. `rgb` is the image it was made from, `queued` how long that waited, `largest_id` the
    /// largest class id of its vocabulary.
    pub fn publish(&mut self, result: &FrameResult, rgb: &RgbImage, queued: Duration, largest_id: u16) {
        if self.masks.wanted() {
            let sent = self.masks.publish(&convert::labeled_masks(result, queued));
            self.note("masks", sent);
        }
        if self.detections.wanted() {
            let sent = self.detections.publish(&convert::detections(result));
            self.note("detections", sent);
        }
        if self.semantic.wanted() {
            let encoding = convert::semantic_pixels(result, largest_id, &mut self.pixels);
            let sent = self.semantic.publish(&image(result, result.size, encoding, &self.pixels));
            self.note("semantic", sent);
        }
        if self.instances.wanted() {
            convert::instance_pixels(result, &mut self.pixels);
            let sent = self.instances.publish(&image(result, result.size, "mono16", &self.pixels));
            self.note("instances", sent);
        }
        let now = Instant::now();
        let due = self.last_overlay.is_none_or(|last| now.saturating_duration_since(last) >= self.overlay_interval);
        if due && self.overlay.wanted() {
            self.last_overlay = Some(now);
            match draw_overlay(rgb, result, &mut self.overlay_image) {
                Ok(()) => {
                    let picture = image(result, self.overlay_image.size, "rgb8", &self.overlay_image.data);
                    let sent = self.overlay.publish(&picture);
                    self.note("overlay", sent);
                }
                Err(error) => {
                    if let Some(held) = self.throttle.pass("drawing", now) {
                        tracing::warn!(below = self.base, %error, held_back = held, "an overlay was not drawn");
                    }
                }
            }
        }
    }

    fn all(&self) -> [&Output; 5] {
        [&self.masks, &self.detections, &self.semantic, &self.instances, &self.overlay]
    }

    fn note(&mut self, topic: &'static str, sent: Result<(), TransportError>) {
        if let Err(error) = sent {
            self.unsent.fetch_add(1, Ordering::Relaxed);
            if let Some(held) = self.throttle.pass(topic, Instant::now()) {
                tracing::warn!(below = self.base, %error, held_back = held, "a result was not sent");
            }
        }
    }

    /// Waits until subscribers have the last result, at most until `deadline`.
    fn flush(&self, deadline: Instant) {
        for output in self.all() {
            if !output.publisher.flush(deadline.saturating_duration_since(Instant::now())) {
                tracing::warn!("a subscriber did not confirm the last result");
            }
        }
    }
}

/// Waits until subscribers have the last results of every camera, at most `timeout` for all of them together, and then for
/// [`LINGER`], once.
pub fn flush_all(outputs: &[Outputs], timeout: Duration) {
    let deadline = Instant::now() + timeout;
    outputs.iter().for_each(|outputs| outputs.flush(deadline));
    if outputs.iter().any(|outputs| outputs.all().into_iter().any(Output::wanted)) {
        std::thread::sleep(LINGER);
    }
}

/// A tightly packed image message; two-byte samples are little endian.
fn image<'a>(result: &FrameResult, size: ImageSize, encoding: &'static str, data: &'a [u8]) -> ImageView<'a> {
    ImageView {
        header: Header::from(&result.header),
        height: size.height,
        width: size.width,
        encoding: encoding.into(),
        is_bigendian: 0,
        step: u32::try_from(data.len() / (size.height.max(1) as usize)).unwrap_or(0),
        data,
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Mutex};

    use bytes::Bytes;
    use tracing::{Dispatch, dispatcher::with_default};

    use super::*;
    use crate::ros::{arguments::RosArguments, testing::OneWay};

    /// A wire that ends here, with a subscriber on every topic that asks for too much.
    #[derive(Clone, Default)]
    struct Wire(Arc<Seen>);

    #[derive(Default)]
    struct Seen {
        /// Topics, and whether in haste.
        advertised: Mutex<Vec<(String, bool)>>,
        asked: AtomicU64,
        /// Subscribers on every topic that can be served, and never confirm anything.
        silent: usize,
        /// How long it was waited for them.
        waited: Mutex<Duration>,
    }

    impl RawPublisher for Wire {
        fn publish(&self, _: Bytes) -> Result<(), TransportError> {
            Ok(())
        }

        fn subscribers(&self) -> usize {
            self.0.asked.fetch_add(1, Ordering::Relaxed);
            self.0.silent
        }

        fn mismatch(&self) -> Option<Mismatch> {
            Some(Mismatch::Policy("reliability"))
        }

        fn flush(&self, timeout: Duration) -> bool {
            if self.0.silent > 0 {
                *self.0.waited.lock().unwrap() += timeout;
                std::thread::sleep(timeout);
            }
            self.0.silent == 0
        }
    }

    /// Where log lines go.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn outputs(wire: &Wire) -> Outputs {
        let node = RosArguments::default().identity("scenelex").unwrap();
        let wire = wire.clone();
        let transport = OneWay::publishing(move |topic: &str, _: &str, _, haste| -> Arc<dyn RawPublisher> {
            wire.0.advertised.lock().unwrap().push((topic.to_owned(), haste));
            Arc::new(wire.clone())
        });
        Outputs::new(&transport, &node, "~", Qos::RELIABLE, Duration::ZERO).unwrap()
    }

    #[test]
    fn no_topic_of_a_frame_waits_for_its_subscribers() {
        let wire = Wire::default();
        let _outputs = outputs(&wire);
        let topics = ["masks", "detections", "semantic/image", "instances/image", "overlay/image"];
        assert_eq!(*wire.0.advertised.lock().unwrap(), topics.map(|topic| (format!("/scenelex/{topic}"), true)));
    }

    #[test]
    fn the_end_takes_no_longer_with_more_cameras() {
        let timeout = Duration::from_millis(100);
        let wire = Wire(Arc::new(Seen { silent: 1, ..Seen::default() }));
        let cameras: Vec<Outputs> = (0..12).map(|_| outputs(&wire)).collect();
        flush_all(&cameras, timeout);
        let waited = *wire.0.waited.lock().unwrap();
        assert!(!waited.is_zero() && waited <= timeout, "{waited:?}");
    }

    #[test]
    fn every_topic_is_watched_and_what_cannot_be_served_is_said_once() {
        let (wire, lines) = (Wire::default(), Lines::default());
        let mut outputs = outputs(&wire);
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        with_default(&Dispatch::new(log), || {
            outputs.watch();
            outputs.watch();
        });
        assert_eq!(wire.0.asked.load(Ordering::Relaxed), 10);
        let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(log.matches("qos.results.reliability").count(), 5, "{log}");
        assert!(log.contains("/scenelex/semantic/image") && log.contains("policy=\"reliability\""), "{log}");
    }
}
