//! From the wire to the slot in front of the frame loop: one copy per image, into a buffer that is used again.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    cdr::{CdrError, CdrView},
    messages::{CompressedImageView, Image, ImageView},
    throttle::Throttle,
    transport::MessageHandler,
};
use crate::{
    pipeline::{LatestSlot, Put, Statistics, Take},
    types::{CameraImage, ImagePayload, ImageSize},
};

/// Time between two log lines about the same kind of bad image.
pub const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// An image and when its last byte had arrived.
#[derive(Debug)]
pub struct Arrived {
    /// The image.
    pub image: CameraImage,
    /// When the middleware handed it over.
    pub at: Instant,
}

/// Where images wait for the frame loop; the newest wins.
#[derive(Debug)]
pub struct Intake {
    slot: LatestSlot<Arrived>,
    /// The image of an earlier frame, for its memory.
    spare: LatestSlot<CameraImage>,
    counts: Mutex<Statistics>,
    /// Whether images are taken; set by `~/enable`.
    enabled: AtomicBool,
}

impl Default for Intake {
    fn default() -> Self {
        Self::new()
    }
}

impl Intake {
    /// Nothing has arrived.
    #[must_use]
    pub fn new() -> Self {
        Self {
            slot: LatestSlot::new(),
            spare: LatestSlot::new(),
            counts: Mutex::new(Statistics::new()),
            enabled: AtomicBool::new(true),
        }
    }

    /// Counts of the whole frame loop.
    pub fn counts(&self) -> MutexGuard<'_, Statistics> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the samples of an image subscription; `compressed` for `sensor_msgs/CompressedImage`.
    pub fn handler(self: &Arc<Self>, compressed: bool) -> MessageHandler {
        let intake = Arc::clone(self);
        let mut throttle = Throttle::new(LOG_INTERVAL);
        Box::new(move |view| {
            if !intake.is_enabled() {
                return;
            }
            let at = Instant::now();
            let mut image = intake.spare.try_take().unwrap_or_default();
            match fill(view, compressed, &mut image) {
                Ok(()) => {
                    intake.counts().count_received();
                    if let Put::Replaced(old) = intake.slot.put(Arrived { image, at }) {
                        intake.counts().count_dropped(1);
                        intake.give_back(old.image);
                    }
                }
                Err(error) => {
                    let mut counts = intake.counts();
                    counts.count_received();
                    counts.count_bad("malformed");
                    drop(counts);
                    if let Some(held) = throttle.pass("malformed", at) {
                        tracing::warn!(%error, held_back = held, "skipped a message that is not an image");
                    }
                    intake.give_back(image);
                }
            }
        })
    }

    /// Whether images are taken.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// Takes images or lets them pass.
    pub fn enable(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Release);
        if !enabled {
            self.discard_waiting();
        }
    }

    /// Gives up the image that waits.
    pub fn discard_waiting(&self) {
        if self.slot.try_take().is_some() {
            self.counts().count_dropped(1);
        }
    }

    /// Waits for the newest image.
    pub fn take(&self, timeout: Duration) -> Take<Arrived> {
        self.slot.take_blocking(timeout)
    }

    /// Has [`Intake::take`] return without an image, once: there is something else to do.
    pub fn wake(&self) {
        self.slot.wake();
    }

    /// Returns an image whose memory may be used for the next one.
    pub fn give_back(&self, image: CameraImage) {
        let _ = self.spare.put(image);
    }

    /// Refuses further images and gives up the one that waits.
    pub fn close(&self) {
        self.slot.close();
        self.discard_waiting();
    }
}

/// An image message as the decoder takes it.
pub fn camera_image(message: Image) -> CameraImage {
    CameraImage {
        header: message.header.into(),
        payload: ImagePayload::Raw {
            size: ImageSize::new(message.width, message.height),
            encoding: message.encoding,
            is_bigendian: message.is_bigendian != 0,
            step: message.step,
            data: message.data,
        },
    }
}

/// Reads a `sensor_msgs/Image` or, with `compressed`, `sensor_msgs/CompressedImage` into `image`, keeping its buffers. What
/// the message declares is checked by the decoder later.
///
/// # Errors
/// [`CdrError`] for what is no such message; `image` is empty then.
pub fn fill(view: CdrView<'_>, compressed: bool, image: &mut CameraImage) -> Result<(), CdrError> {
    let (mut text, mut data) = match std::mem::take(&mut image.payload) {
        ImagePayload::Raw { encoding, data, .. } => (encoding, data),
        ImagePayload::Compressed { format, data } => (format, data),
    };
    text.clear();
    data.clear();
    if compressed {
        let message: CompressedImageView<'_> = view.decode()?;
        text.push_str(&message.format);
        data.extend_from_slice(message.data);
        image.header = message.header.into();
        image.payload = ImagePayload::Compressed { format: text, data };
    } else {
        let message: ImageView<'_> = view.decode()?;
        text.push_str(&message.encoding);
        data.extend_from_slice(message.data);
        image.header = message.header.into();
        image.payload = ImagePayload::Raw {
            size: ImageSize { width: message.width, height: message.height },
            encoding: text,
            is_bigendian: message.is_bigendian != 0,
            step: message.step,
            data,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ros::cdr::encode;

    fn message(fill: u8) -> bytes::Bytes {
        let image = Image {
            height: 2,
            width: 3,
            encoding: "mono8".to_owned(),
            step: 3,
            data: vec![fill; 6],
            ..Image::default()
        };
        encode(&image).unwrap()
    }

    fn data(arrived: &Arrived) -> &Vec<u8> {
        match &arrived.image.payload {
            ImagePayload::Raw { data, .. } => data,
            ImagePayload::Compressed { .. } => panic!("a raw image was sent"),
        }
    }

    #[test]
    fn the_newest_image_waits_and_memory_goes_round() {
        let intake = Arc::new(Intake::new());
        let mut handler = intake.handler(false);
        for fill in 1..=3 {
            handler(CdrView::from_encapsulated(&message(fill)).unwrap());
        }
        let Take::Value(arrived) = intake.take(Duration::ZERO) else { panic!("nothing waits") };
        assert_eq!(data(&arrived), &[3; 6]);
        let address = data(&arrived).as_ptr();
        intake.give_back(arrived.image);
        handler(CdrView::from_encapsulated(&message(4)).unwrap());
        let Take::Value(again) = intake.take(Duration::ZERO) else { panic!("nothing waits") };
        assert_eq!((data(&again).as_ptr(), data(&again)[0]), (address, 4));
        let counts = intake.counts().snapshot(Instant::now());
        assert_eq!((counts.received, counts.dropped), (4, 2));
    }

    #[test]
    fn what_is_no_image_is_counted_and_the_next_is_served() {
        let intake = Arc::new(Intake::new());
        let mut handler = intake.handler(false);
        let good = message(9);
        handler(CdrView::from_encapsulated(&good[..good.len() - 4]).unwrap());
        handler(CdrView::from_encapsulated(&good).unwrap());
        assert!(matches!(intake.take(Duration::ZERO), Take::Value(_)));
        let counts = intake.counts().snapshot(Instant::now());
        assert_eq!((counts.received, counts.bad.get("malformed")), (2, Some(&1)));
    }

    #[test]
    fn closing_gives_up_the_waiting_image() {
        let intake = Arc::new(Intake::new());
        intake.handler(false)(CdrView::from_encapsulated(&message(1)).unwrap());
        intake.close();
        assert!(matches!(intake.take(Duration::ZERO), Take::Closed));
    }
}
