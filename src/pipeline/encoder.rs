//! The thread that owns the SAM image encoder, so that it runs beside the detector.

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::{FrameError, error::caught};
use crate::{
    inference::{ImageEmbedding, ImageEncoder, InferenceError},
    types::RgbImage,
};

/// What the encoder made of images that were given to it together.
pub(super) struct Encoded {
    /// One for each.
    pub embeddings: Result<Vec<ImageEmbedding>, InferenceError>,
    pub prepare: Duration,
    pub encode: Duration,
}

/// Handle on the encoder's thread. At most one batch of images is under way.
pub(super) struct EncoderThread {
    images: Option<Sender<Vec<Arc<RgbImage>>>>,
    results: Receiver<Encoded>,
    thread: Option<JoinHandle<()>>,
}

impl EncoderThread {
    pub fn start(mut encoder: Box<dyn ImageEncoder>) -> std::io::Result<Self> {
        let (images, incoming) = bounded::<Vec<Arc<RgbImage>>>(1);
        let (outgoing, results) = bounded(1);
        let thread = std::thread::Builder::new().name("sam-encoder".into()).spawn(move || {
            for images in incoming {
                let start = Instant::now();
                let of = images.iter().map(Arc::as_ref).collect::<Vec<_>>();
                let prepared = caught("image encoder", || encoder.prepare(&of));
                // Given back before the result is sent: the frame loop decodes the next images into the same buffers.
                drop(images);
                let prepare = start.elapsed();
                let embeddings = prepared.and_then(|()| caught("image encoder", || encoder.encode()));
                let encode = start.elapsed().saturating_sub(prepare);
                if outgoing.send(Encoded { embeddings, prepare, encode }).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { images: Some(images), results, thread: Some(thread) })
    }

    /// Hands images over. Every successful call must be followed by one to [`Self::finish`].
    pub fn begin(&self, images: Vec<Arc<RgbImage>>) -> Result<(), FrameError> {
        let sender = self.images.as_ref().ok_or(FrameError::ThreadEnded("image encoder"))?;
        sender.send(images).map_err(|_| FrameError::ThreadEnded("image encoder"))
    }

    /// Waits for the images under way.
    pub fn finish(&self) -> Result<Encoded, FrameError> {
        self.results.recv().map_err(|_| FrameError::ThreadEnded("image encoder"))
    }
}

impl Drop for EncoderThread {
    fn drop(&mut self) {
        drop(self.images.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
