//! From the wire to the slots in front of the frame loop: one copy per image, into a buffer that is used again.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    cdr::{CdrError, CdrView},
    messages::{CompressedImageView, Header, Image, ImageView, RosMessage as _},
    throttle::Throttle,
    transport::MessageHandler,
};
use crate::{
    pipeline::{LatestSlots, Put, Statistics, Take},
    types::{CameraImage, ImagePayload, ImageSize},
};

/// Time between two log lines about the same kind of bad image.
pub const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Longest `frame_id` of an image, in bytes. It is copied into every message about the image, and into each detection's header.
const MAX_FRAME_ID: usize = 1024;

/// Images of a camera that are in use at once: one is labelled, one waits, one arrives.
const IN_USE: usize = 3;

/// An image and when its last byte had arrived.
#[derive(Debug)]
pub struct Arrived {
    /// Which camera it comes from.
    pub camera: usize,
    /// The image.
    pub image: CameraImage,
    /// When the middleware handed it over.
    pub at: Instant,
}

/// Where the images of each camera wait for the frame loop; the newest wins.
#[derive(Debug)]
pub struct Intake {
    slots: LatestSlots<(CameraImage, Instant)>,
    /// Of each camera the images of earlier frames, for their memory. The last one is taken first: it is in the caches.
    spare: Vec<Mutex<Vec<CameraImage>>>,
    counts: Vec<Mutex<Statistics>>,
    /// Whether images are taken; set by `~/enable`.
    enabled: AtomicBool,
}

impl Intake {
    /// Nothing has arrived from as many cameras.
    #[must_use]
    pub fn new(cameras: usize) -> Self {
        Self {
            slots: LatestSlots::new(cameras),
            spare: std::iter::repeat_with(Mutex::default).take(cameras).collect(),
            counts: std::iter::repeat_with(Mutex::default).take(cameras).collect(),
            enabled: AtomicBool::new(true),
        }
    }

    /// Counts of a camera's images, over the whole frame loop.
    ///
    /// # Panics
    /// When there is no such camera.
    pub fn counts(&self, camera: usize) -> MutexGuard<'_, Statistics> {
        // Cameras are numbered by the engine, which made the intake; nothing from outside gets here.
        self.counts[camera].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spare(&self, camera: usize) -> MutexGuard<'_, Vec<CameraImage>> {
        self.spare[camera].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the samples of a camera's subscription; `compressed` for `sensor_msgs/CompressedImage`.
    pub fn handler(self: &Arc<Self>, camera: usize, compressed: bool) -> MessageHandler {
        let intake = Arc::clone(self);
        let mut throttle = Throttle::new(LOG_INTERVAL);
        Box::new(move |view| {
            if !intake.is_enabled() {
                return;
            }
            let at = Instant::now();
            let mut image = intake.spare(camera).pop().unwrap_or_default();
            match fill(view, compressed, &mut image) {
                Ok(()) => {
                    intake.counts(camera).count_received(at);
                    if let Put::Replaced((old, _)) = intake.slots.put(camera, (image, at)) {
                        intake.counts(camera).count_dropped(1);
                        intake.give_back(camera, old);
                    }
                }
                Err(error) => {
                    let mut counts = intake.counts(camera);
                    counts.count_received(at);
                    counts.count_bad("malformed");
                    drop(counts);
                    if let Some(held) = throttle.pass("malformed", at) {
                        tracing::warn!(%error, held_back = held, "skipped a message that is not an image");
                    }
                    intake.give_back(camera, image);
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

    /// Gives up the images that wait.
    pub fn discard_waiting(&self) {
        while let Some((camera, _)) = self.slots.try_take(|_| true) {
            self.counts(camera).count_dropped(1);
        }
        (0..self.counts.len()).for_each(|camera| self.counts(camera).give_up());
    }

    /// Waits for an image: the newest of a camera. Cameras that have one waiting take turns.
    pub fn take(&self, timeout: Duration) -> Take<Arrived> {
        match self.slots.take_blocking(timeout) {
            Take::Value((camera, (image, at))) => Take::Value(Arrived { camera, image, at }),
            Take::TimedOut => Take::TimedOut,
            Take::Closed => Take::Closed,
        }
    }

    /// Takes an image that waits of a camera that is none of `taken`.
    pub fn take_other(&self, taken: &[usize]) -> Option<Arrived> {
        let (camera, (image, at)) = self.slots.try_take(|camera| !taken.contains(&camera))?;
        Some(Arrived { camera, image, at })
    }

    /// Has [`Intake::take`] return without an image, once: there is something else to do.
    pub fn wake(&self) {
        self.slots.wake();
    }

    /// Returns an image whose memory may be used for the camera's next one.
    pub fn give_back(&self, camera: usize, image: CameraImage) {
        let mut spare = self.spare(camera);
        if spare.len() < IN_USE {
            spare.push(image);
        }
    }

    /// Refuses further images and gives up those that wait.
    pub fn close(&self) {
        self.slots.close();
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
        check_frame_id(&message.header)?;
        text.push_str(&message.format);
        data.extend_from_slice(message.data);
        image.header = message.header.into();
        image.payload = ImagePayload::Compressed { format: text, data };
    } else {
        let message: ImageView<'_> = view.decode()?;
        check_frame_id(&message.header)?;
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

fn check_frame_id(header: &Header) -> Result<(), CdrError> {
    let found = header.frame_id.len();
    if found <= MAX_FRAME_ID {
        return Ok(());
    }
    let reason = format!("its frame_id has {found} bytes, expected at most {MAX_FRAME_ID}");
    Err(CdrError::Decode { type_name: Header::TYPE, reason })
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
        let intake = Arc::new(Intake::new(1));
        let mut handler = intake.handler(0, false);
        for fill in 1..=3 {
            handler(CdrView::from_encapsulated(&message(fill)).unwrap());
        }
        let Take::Value(arrived) = intake.take(Duration::ZERO) else { panic!("nothing waits") };
        assert_eq!(data(&arrived), &[3; 6]);
        let address = data(&arrived).as_ptr();
        intake.give_back(0, arrived.image);
        handler(CdrView::from_encapsulated(&message(4)).unwrap());
        let Take::Value(again) = intake.take(Duration::ZERO) else { panic!("nothing waits") };
        assert_eq!((data(&again).as_ptr(), data(&again)[0]), (address, 4));
        let counts = intake.counts(0).snapshot(Instant::now());
        assert_eq!((counts.received, counts.dropped), (4, 2));
    }

    #[test]
    fn a_camera_faster_than_the_models_needs_three_images() {
        let intake = Arc::new(Intake::new(1));
        let mut handler = intake.handler(0, false);
        let mut labelled = None;
        for round in 0..10 {
            // While one is labelled, three more arrive, each in the place of the one before.
            for fill in 1..=3 {
                // They are made while the first two are labelled.
                assert!(round < 2 || !intake.spare(0).is_empty(), "one more is made in round {round}");
                handler(CdrView::from_encapsulated(&message(fill)).unwrap());
            }
            if let Some(image) = labelled.take() {
                intake.give_back(0, image);
            }
            let Take::Value(arrived) = intake.take(Duration::ZERO) else { panic!("nothing waits") };
            labelled = Some(arrived.image);
        }
    }

    #[test]
    fn what_is_no_image_is_counted_and_the_next_is_served() {
        let intake = Arc::new(Intake::new(1));
        let mut handler = intake.handler(0, false);
        let good = message(9);
        handler(CdrView::from_encapsulated(&good[..good.len() - 4]).unwrap());
        handler(CdrView::from_encapsulated(&good).unwrap());
        assert!(matches!(intake.take(Duration::ZERO), Take::Value(_)));
        let counts = intake.counts(0).snapshot(Instant::now());
        assert_eq!((counts.received, counts.bad.get("malformed")), (2, Some(&1)));
    }

    #[test]
    fn a_frame_id_beyond_all_measure_is_no_image() {
        let mut image =
            Image { header: Header { frame_id: "f".repeat(MAX_FRAME_ID), ..Header::default() }, ..Image::default() };
        let mut filled = CameraImage::default();
        fill(CdrView::from_encapsulated(&encode(&image).unwrap()).unwrap(), false, &mut filled).unwrap();
        assert_eq!(filled.header.frame_id.len(), MAX_FRAME_ID);
        image.header.frame_id.push('f');
        let error =
            fill(CdrView::from_encapsulated(&encode(&image).unwrap()).unwrap(), false, &mut filled).unwrap_err();
        assert!(error.to_string().contains("1025 bytes, expected at most 1024"), "{error}");
    }

    #[test]
    fn no_result_is_awaited_of_images_that_were_given_up() {
        let intake = Arc::new(Intake::new(1));
        let mut handler = intake.handler(0, false);
        let waiting = || intake.counts(0).snapshot(Instant::now()).waiting;
        handler(CdrView::from_encapsulated(&message(1)).unwrap());
        assert!(waiting().is_some());
        intake.enable(false);
        handler(CdrView::from_encapsulated(&message(2)).unwrap());
        assert_eq!(waiting(), None);
        intake.enable(true);
        assert_eq!(waiting(), None, "the time it was switched off does not count");
        handler(CdrView::from_encapsulated(&message(3)).unwrap());
        assert!(waiting().is_some());
    }

    #[test]
    fn closing_gives_up_the_waiting_image() {
        let intake = Arc::new(Intake::new(1));
        intake.handler(0, false)(CdrView::from_encapsulated(&message(1)).unwrap());
        intake.close();
        assert!(matches!(intake.take(Duration::ZERO), Take::Closed));
    }
}
