//! The node: wires the transport to the pipeline and knows nothing of either's insides.
//!
//! ```text
//! rx thread ─▶ Intake (newest wins) ─▶ "frames": Pipeline::process ─▶ Outputs
//! ~/set_vocabulary (topic, service) ─▶ "vocabulary" worker ─▶ swapped in between frames
//! now and then an image ─▶ "refresh" (proposals, language model) ─▶ "vocabulary" worker
//! calling thread: ~/vocabulary and label info on change, /diagnostics, shutdown
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam::{
    channel::{Receiver, RecvTimeoutError, Sender, bounded, tick},
    select,
};

use super::{
    Qos,
    arguments::{ArgumentError, NodeIdentity, RosArguments},
    clock::NodeClock,
    connect, convert,
    diagnostics::{Diagnostics, Report},
    host,
    intake::{Intake, LOG_INTERVAL},
    messages::{CompressedImage, DiagnosticArray, Image, LabelInfo, RosMessage, Vocabulary},
    models::{self, Loaded, ModelsError},
    names::InvalidName,
    outputs::{OutputError, Outputs},
    parameter_table::TABLE,
    parameters::{ParameterError, Values},
    refresh::{RefreshLoop, SceneTap},
    refresh_settings::RefreshSettings,
    requests::{Refreshing, VocabularyRequests},
    settings::Settings,
    throttle::Throttle,
    transport::{Publisher, RawSubscription, Transport, TransportError},
};
use crate::{
    pipeline::{
        ConfigError, Pipeline, PreparedVocabulary, Take, VocabularyError, VocabularyHandle, VocabularyRequest,
        VocabularyWorker,
    },
    types::{FrameResult, VocabularySource},
    vocabulary::{ClassSpec, VocabularyLimits},
};

/// Name of the node where `__node` does not say otherwise.
const DEFAULT_NAME: &str = "scenelex";
/// How long the end may take: what is under way gets this long to be published.
const GRACE: Duration = Duration::from_millis(800);
/// How long the last results get to reach their subscribers.
const FLUSH: Duration = Duration::from_millis(100);

/// Why the node cannot run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The command line.
    #[error(transparent)]
    Arguments(#[from] ArgumentError),
    /// A name of a node, topic or service.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A parameter.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// Parameters that contradict each other.
    #[error("parameter {0}")]
    Settings(#[from] ConfigError),
    /// The middleware.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The models.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// The `classes` parameter.
    #[error("parameter classes: {0}")]
    Classes(VocabularyError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The frame loop ended by itself.
    #[error("the frame loop has ended; its panic message is above")]
    FramesEnded,
}

impl From<OutputError> for NodeError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Name(error) => Self::Name(error),
            OutputError::Transport(error) => Self::Transport(error),
        }
    }
}

/// Runs the node until `shutdown` is disconnected. `arguments` are those after `scenelex node`.
///
/// # Errors
/// [`NodeError`]; nothing is left running then.
pub fn run<S: AsRef<str>>(arguments: &[S], shutdown: &Receiver<()>) -> Result<(), NodeError> {
    let arguments = RosArguments::parse(arguments)?;
    let identity = arguments.identity(DEFAULT_NAME)?;
    let mut values = Values::new(TABLE);
    values.apply(&arguments.parameters, &identity)?;
    let settings = Settings::from_values(&values)?;
    host::check();

    let transport = connect(&identity.namespace, &identity.name)?;
    let Some(loaded) = load(&settings, shutdown)? else { return Ok(()) };
    Node::start(&identity, &settings, transport, loaded)?.spin(shutdown)
}

/// Loads the models on a thread of their own, so that a signal is heard meanwhile; `None` when one came.
fn load(settings: &Settings, shutdown: &Receiver<()>) -> Result<Option<Loaded>, NodeError> {
    let (sender, receiver) = bounded(1);
    let wanted = settings.clone();
    let loader = move || {
        let _ = sender.send(models::load(&wanted));
    };
    thread::Builder::new().name("loader".to_owned()).spawn(loader)?;
    select! {
        recv(receiver) -> loaded => match loaded {
            Ok(loaded) => Ok(Some(loaded?)),
            Err(_) => Err(NodeError::FramesEnded),
        },
        recv(shutdown) -> _ => {
            let _ = receiver.recv_timeout(GRACE);
            Ok(None)
        }
    }
}

/// The running node.
struct Node {
    name: String,
    image_topic: String,
    models: String,
    runs_on: Vec<(&'static str, String)>,
    period: Duration,
    box_threshold: f32,
    image: Box<dyn RawSubscription>,
    intake: Arc<Intake>,
    frames: Frames,
    vocabulary: VocabularyHandle,
    requests: VocabularyRequests,
    refresh: Option<Refreshing>,
    clock: NodeClock,
    vocabulary_topic: Publisher<Vocabulary>,
    label_info: Publisher<LabelInfo>,
    diagnostics: Publisher<DiagnosticArray>,
    // Last, so that everything above is off the wire before the participant goes.
    _transport: Arc<dyn Transport>,
}

impl Node {
    fn start(
        identity: &NodeIdentity,
        settings: &Settings,
        transport: Arc<dyn Transport>,
        loaded: Loaded,
    ) -> Result<Self, NodeError> {
        let Loaded { mut pipeline, worker, vocabulary, refresh, names } = loaded;
        let limits = VocabularyLimits { max_classes: settings.max_classes, ..VocabularyLimits::default() };
        let worker = Arc::new(worker);
        set_first_classes(settings, &worker)?;
        let on = &*transport;
        let box_threshold = pipeline.config().box_threshold;
        let runs_on = pipeline.runs_on().to_vec();
        let outputs = Outputs::new(on, identity, settings.results_qos, settings.overlay_interval)?;
        let vocabulary_topic = Publisher::new(on, &identity.resolve("~/vocabulary")?, Qos::LATCHED)?;
        let label_info = Publisher::new(on, &identity.resolve("~/semantic/label_info")?, Qos::LATCHED)?;
        let diagnostics = Publisher::new(on, &identity.resolve("/diagnostics")?, Qos::RELIABLE)?;
        let clock = NodeClock::new(on, settings.use_sim_time)?;
        let requests = VocabularyRequests::start(on, identity, &worker, &vocabulary, limits)?;

        let (refresh, tap) = match refresh {
            Some(parts) => {
                let (running, taps) = RefreshLoop::start(parts, Arc::clone(&worker), vocabulary.clone())?;
                if let Some(phrases) = taps.phrases {
                    pipeline.set_phrases(phrases);
                }
                (Some(Refreshing::start(on, identity, running)?), Some(taps.scene))
            }
            None => (None, None),
        };

        let intake = Arc::new(Intake::new());
        let frames = Frames::start(pipeline, outputs, Arc::clone(&intake), vocabulary.clone(), tap)?;
        let image_topic = identity.resolve("image")?;
        let image_type = if settings.compressed { CompressedImage::TYPE } else { Image::TYPE };
        let image = on.subscribe(&image_topic, image_type, settings.image_qos, intake.handler(settings.compressed))?;
        tracing::info!(node = %identity.full_name(), topic = %image_topic, r#type = image_type, models = %names, "waiting for images");
        Ok(Self {
            name: identity.full_name(),
            image_topic,
            models: names,
            runs_on,
            period: settings.diagnostics_period,
            box_threshold,
            image,
            intake,
            frames,
            vocabulary,
            requests,
            refresh,
            clock,
            vocabulary_topic,
            label_info,
            diagnostics,
            _transport: transport,
        })
    }

    fn spin(self, shutdown: &Receiver<()>) -> Result<(), NodeError> {
        let changes = self.vocabulary.subscribe();
        self.announce(&self.vocabulary.current());
        let mut diagnostics = Diagnostics::new();
        let ticks = tick(self.period);
        let outcome = loop {
            select! {
                recv(shutdown) -> _ => break Ok(()),
                recv(self.frames.ended) -> _ => break Err(NodeError::FramesEnded),
                recv(changes) -> change => {
                    if let Ok(change) = change {
                        self.announce(&change);
                    }
                }
                recv(ticks) -> _ => self.report(&mut diagnostics),
            }
        };
        self.stop();
        outcome
    }

    /// Publishes a vocabulary that came into use.
    fn announce(&self, prepared: &PreparedVocabulary) {
        let vocabulary = &prepared.vocabulary;
        let stamp = self.clock.now();
        let sent = self
            .vocabulary_topic
            .publish(&convert::vocabulary(vocabulary, stamp))
            .and_then(|()| self.label_info.publish(&convert::label_info(vocabulary, stamp, self.box_threshold)));
        if let Err(error) = sent {
            tracing::warn!(%error, "could not announce the vocabulary");
        }
        let (version, classes) = (vocabulary.version, vocabulary.entries.len());
        tracing::info!(version, classes, source = vocabulary.source.as_str(), "vocabulary in use");
    }

    fn report(&self, diagnostics: &mut Diagnostics) {
        let now = Instant::now();
        let counts = self.intake.counts().snapshot(now);
        let report = Report {
            node: &self.name,
            models: &self.models,
            runs_on: &self.runs_on,
            image_topic: &self.image_topic,
            publishers: self.image.publishers(),
            counts: &counts,
            unsent: self.frames.unsent.load(Ordering::Relaxed),
            vocabulary: &self.vocabulary.current().vocabulary,
            refresh: self.refresh.as_ref().map(|refresh| refresh.running.status()),
            stamp: self.clock.now(),
        };
        if let Err(error) = self.diagnostics.publish(&diagnostics.report(&report, now)) {
            tracing::warn!(%error, "could not publish diagnostics");
        }
    }

    /// Stops input, lets the frame under way be published, takes everything off the graph.
    fn stop(self) {
        let Self { image, intake, frames, requests, refresh, .. } = self;
        drop(image);
        intake.close();
        if let Some(refresh) = &refresh {
            refresh.running.handle().stop();
        }
        frames.join(GRACE);
        drop((requests, refresh));
        let counts = intake.counts().snapshot(Instant::now());
        tracing::info!(
            received = counts.received,
            processed = counts.processed,
            dropped = counts.dropped,
            bad = counts.bad.values().sum::<u64>(),
            "stopped"
        );
    }
}

/// The frame loop on its thread.
struct Frames {
    thread: JoinHandle<()>,
    /// Disconnected when the thread ends.
    ended: Receiver<()>,
    unsent: Arc<AtomicU64>,
}

impl Frames {
    fn start(
        pipeline: Pipeline,
        outputs: Outputs,
        intake: Arc<Intake>,
        vocabulary: VocabularyHandle,
        tap: Option<SceneTap>,
    ) -> std::io::Result<Self> {
        let (alive, ended) = bounded::<()>(0);
        let unsent = outputs.unsent();
        let thread = thread::Builder::new().name("frames".to_owned()).spawn(move || {
            let alive: Sender<()> = alive;
            frame_loop(pipeline, outputs, &intake, &vocabulary, tap);
            drop(alive);
        })?;
        Ok(Self { thread, ended, unsent })
    }

    /// Waits for the loop to end after its intake was closed, at most `timeout`.
    fn join(self, timeout: Duration) {
        match self.ended.recv_timeout(timeout) {
            Err(RecvTimeoutError::Timeout) => tracing::warn!("gave up a frame that takes longer than the end may"),
            _ => {
                // A panic has been reported by the panic hook and by `NodeError::FramesEnded`.
                let _ = self.thread.join();
            }
        }
    }
}

fn frame_loop(
    mut pipeline: Pipeline,
    mut outputs: Outputs,
    intake: &Intake,
    vocabulary: &VocabularyHandle,
    mut tap: Option<SceneTap>,
) {
    let mut result = FrameResult::default();
    let mut throttle = Throttle::new(LOG_INTERVAL);
    let gate = tap.as_ref().map(SceneTap::gate).unwrap_or_default();
    loop {
        let mut arrived = match intake.take(Duration::from_secs(1)) {
            Take::Value(arrived) => arrived,
            Take::TimedOut => continue,
            Take::Closed => break,
        };
        let under_way = gate.begin_frame();
        let queued = arrived.at.elapsed();
        let prepared = vocabulary.current();
        match pipeline.process(&mut arrived.image, &prepared, &mut result) {
            Ok(()) => {
                let largest_id = convert::largest_id(&prepared.vocabulary);
                outputs.publish(&result, pipeline.rgb(), queued, largest_id);
                intake.counts().count_processed(&result.durations, Instant::now());
                drop(under_way);
                // After publishing: what this costs never adds to a result's age.
                if let Some(tap) = &mut tap {
                    tap.offer(pipeline.rgb(), &result);
                }
            }
            Err(error) => {
                intake.counts().count_bad(error.kind());
                if let Some(held) = throttle.pass(error.kind(), Instant::now()) {
                    tracing::warn!(%error, kind = error.kind(), held_back = held, "could not process an image");
                }
            }
        }
        intake.give_back(arrived.image);
    }
    outputs.flush(FLUSH);
}

/// Brings the list in force that the node starts with: the kept one where there is one, else the `classes` parameter.
fn set_first_classes(settings: &Settings, worker: &VocabularyWorker) -> Result<(), NodeError> {
    let apply =
        |classes: Vec<ClassSpec>, source: VocabularySource| worker.apply(VocabularyRequest::new(classes, source));
    if let Some(store) = settings.refresh.as_ref().and_then(RefreshSettings::store) {
        let kept = store.load().map_err(|error| error.to_string());
        let applied = kept.and_then(|kept| {
            kept.map(|classes| apply(classes, VocabularySource::Stored).map_err(|e| e.to_string())).transpose()
        });
        match applied {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
            Err(error) => tracing::warn!(error, "the kept class list cannot be used"),
        }
    }
    if !settings.classes.is_empty() {
        let classes = settings.classes.iter().map(ClassSpec::new).collect();
        apply(classes, VocabularySource::Configuration).map_err(NodeError::Classes)?;
    } else if settings.refresh.is_none() {
        tracing::warn!("no classes are set: nothing is looked for until ~/set_vocabulary says what");
    }
    Ok(())
}
