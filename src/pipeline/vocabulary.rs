//! The vocabulary loop: class lists in, encoded vocabularies out, off the frame path.
//!
//! One thread (`vocabulary`) owns the text encoder. It builds and encodes each requested class list and then swaps it in
//! as a whole; the frame loop picks up whatever is current when a frame starts and never waits.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::SystemTime,
};

use arc_swap::ArcSwap;
use crossbeam::{
    channel::{Receiver, Sender, TrySendError, bounded},
    select,
};

use super::{PreparedVocabulary, prepared::take_out_indistinct};
use crate::{
    inference::{Caption, EncodedText, InferenceError, TextEncoder},
    types::VocabularySource,
    vocabulary::{ClassSpec, ListError, VocabularyBuilder, VocabularyLimits},
};

/// Requests that may wait; more means that somebody floods the topic.
const WAITING_REQUESTS: usize = 8;
/// Changes a listener may be behind; older ones are dropped, the newest is what counts.
const WAITING_CHANGES: usize = 4;

/// A wish for a new class list.
#[derive(Clone, Debug, PartialEq)]
pub struct VocabularyRequest {
    /// The classes.
    pub classes: Vec<ClassSpec>,
    /// Who asks.
    pub source: VocabularySource,
    /// The version that has to be in use still; `None`: whatever is.
    pub expected: Option<u64>,
    /// The same list with its text encoded already, by somebody who has time; saves doing it here.
    pub encoded: Option<Arc<PreparedVocabulary>>,
}

impl VocabularyRequest {
    /// A wish that comes first, whatever is in use, and that nobody has worked on yet.
    #[must_use]
    pub fn new(classes: Vec<ClassSpec>, source: VocabularySource) -> Self {
        Self { classes, source, expected: None, encoded: None }
    }
}

/// Why a class list did not become a vocabulary. The one in use stays.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    /// The list itself is at fault.
    #[error(transparent)]
    List(#[from] ListError),
    /// It could not be encoded.
    #[error(transparent)]
    Encoding(#[from] InferenceError),
    /// Another list came into use meanwhile.
    #[error("version {found} came into use meanwhile, this list was made for version {expected}")]
    Superseded {
        /// The version it was made for.
        expected: u64,
        /// The version in use.
        found: u64,
    },
    /// Too many requests are waiting.
    #[error("too many vocabulary requests are waiting")]
    Busy,
    /// The worker has ended.
    #[error("the vocabulary worker has ended")]
    Closed,
}

/// What is current, for readers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct VocabularyHandle {
    shared: Arc<Shared>,
}

/// Both ends: when it is full the oldest change is taken out at the other end.
type Listener = (Sender<Arc<PreparedVocabulary>>, Receiver<Arc<PreparedVocabulary>>);

#[derive(Debug)]
struct Shared {
    current: ArcSwap<PreparedVocabulary>,
    listeners: Mutex<Vec<Listener>>,
}

impl VocabularyHandle {
    /// A handle on a vocabulary that nobody changes; for one-shot runs and tests.
    #[must_use]
    pub fn fixed(vocabulary: PreparedVocabulary) -> Self {
        let current = ArcSwap::from_pointee(vocabulary);
        Self { shared: Arc::new(Shared { current, listeners: Mutex::new(Vec::new()) }) }
    }

    /// The vocabulary for the next frame. Version 0, without classes, before the first request was served.
    #[must_use]
    pub fn current(&self) -> Arc<PreparedVocabulary> {
        self.shared.current.load_full()
    }

    /// A channel that gets every later vocabulary when it comes into use. A listener that lags behind loses the oldest.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<Arc<PreparedVocabulary>> {
        let (sender, receiver) = bounded(WAITING_CHANGES);
        let mut listeners = self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.push((sender, receiver.clone()));
        receiver
    }

    fn replace(&self, prepared: PreparedVocabulary) {
        let prepared = Arc::new(prepared);
        self.shared.current.store(Arc::clone(&prepared));
        let listeners = self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        for (sender, receiver) in listeners.iter() {
            let mut change = Arc::clone(&prepared);
            while let Err(TrySendError::Full(back)) = sender.try_send(change) {
                let _ = receiver.try_recv();
                change = back;
            }
        }
    }
}

/// What the thread is asked for, and where its answer goes.
#[derive(Debug)]
enum Work {
    List(VocabularyRequest, Sender<Result<u64, VocabularyError>>),
    Phrase(Arc<str>, Sender<Result<EncodedText, VocabularyError>>),
}

/// The thread that makes vocabularies. Ends when dropped, after the request it is at.
#[derive(Debug)]
pub struct VocabularyWorker {
    stop: Arc<AtomicBool>,
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl VocabularyWorker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(mut encoder: TextEncoder, limits: VocabularyLimits) -> std::io::Result<(Self, VocabularyHandle)> {
        let handle = VocabularyHandle::fixed(PreparedVocabulary::empty());
        let (work, incoming) = bounded(WAITING_REQUESTS);
        let published = handle.clone();
        let stop = Arc::new(AtomicBool::new(false));
        encoder.stop_when(Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("vocabulary".into()).spawn(move || {
            let mut builder = VocabularyBuilder::new(limits);
            for work in incoming {
                // Whoever asked may have stopped waiting; a vocabulary is in use all the same.
                match work {
                    Work::List(request, reply) => {
                        let _ = reply.try_send(serve(&request, &mut builder, &mut encoder, &published));
                    }
                    Work::Phrase(phrase, reply) => {
                        let text = encoder.encode(&Caption::of(&[&phrase]));
                        let _ = reply.try_send(text.map_err(VocabularyError::from));
                    }
                }
            }
        })?;
        Ok((Self { stop, work: Some(work), thread: Some(thread) }, handle))
    }

    /// Asks for a new vocabulary; the receiver gets its version, once it is in use, or why there is none.
    ///
    /// # Errors
    /// [`VocabularyError::Busy`] when too many requests wait, [`VocabularyError::Closed`] when the worker has ended.
    pub fn submit(
        &self,
        request: VocabularyRequest,
    ) -> Result<Receiver<Result<u64, VocabularyError>>, VocabularyError> {
        let (reply, receiver) = bounded(1);
        self.order(Work::List(request, reply)).map(|()| receiver)
    }

    /// Asks for the text features of a phrase.
    ///
    /// # Errors
    /// As [`VocabularyWorker::submit`].
    pub fn encode(&self, phrase: &Arc<str>) -> Result<Receiver<Result<EncodedText, VocabularyError>>, VocabularyError> {
        let (reply, receiver) = bounded(1);
        self.order(Work::Phrase(Arc::clone(phrase), reply)).map(|()| receiver)
    }

    fn order(&self, work: Work) -> Result<(), VocabularyError> {
        let queue = self.work.as_ref().ok_or(VocabularyError::Closed)?;
        queue.try_send(work).map_err(|error| match error {
            TrySendError::Full(_) => VocabularyError::Busy,
            TrySendError::Disconnected(_) => VocabularyError::Closed,
        })
    }

    /// Asks for a new vocabulary and waits until it is in use.
    ///
    /// # Errors
    /// Why there is none.
    pub fn apply(&self, request: VocabularyRequest) -> Result<u64, VocabularyError> {
        self.submit(request)?.recv().map_err(|_| VocabularyError::Closed)?
    }

    /// As [`Self::apply`], but stops when `end` is disconnected.
    ///
    /// # Errors
    /// As [`Self::apply`]; [`VocabularyError::Closed`] when it was stopped.
    pub fn apply_until(&self, request: VocabularyRequest, end: &Receiver<()>) -> Result<u64, VocabularyError> {
        select! {
            recv(self.submit(request)?) -> made => made.map_err(|_| VocabularyError::Closed)?,
            recv(end) -> _ => {
                self.stop();
                Err(VocabularyError::Closed)
            }
        }
    }

    /// Makes no vocabulary any more, not even the one it is at: who waits for it gets an error, soon.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for VocabularyWorker {
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook; there is nothing to add at the end.
            let _ = thread.join();
        }
    }
}

fn serve(
    request: &VocabularyRequest,
    builder: &mut VocabularyBuilder,
    encoder: &mut TextEncoder,
    published: &VocabularyHandle,
) -> Result<u64, VocabularyError> {
    let found = published.current().vocabulary.version;
    if let Some(expected) = request.expected.filter(|&expected| expected != found) {
        return Err(VocabularyError::Superseded { expected, found });
    }
    // The builder is only changed for good when the text could be encoded: versions have no gaps.
    let mut next = builder.clone();
    let vocabulary = if request.source == VocabularySource::Stored {
        // Kept by another version of this program, perhaps, or for another detector.
        let mut classes = request.classes.clone();
        for reason in take_out_indistinct(&mut classes, encoder)? {
            tracing::warn!(%reason, "left a class out of the kept list");
        }
        next.build(&classes, request.source, SystemTime::now())?
    } else {
        next.build(&request.classes, request.source, SystemTime::now())?
    };
    let encoded = match &request.encoded {
        Some(encoded) => encoded.for_vocabulary(vocabulary),
        None => Err(vocabulary),
    };
    let prepared = encoded.or_else(|vocabulary| PreparedVocabulary::encode(vocabulary, encoder))?;
    *builder = next;
    let version = prepared.vocabulary.version;
    published.replace(prepared);
    Ok(version)
}
