//! What a configured node is made of: models, topics, the frame loop and the vocabulary loop. Made by the life cycle's
//! transition `configure`, dropped by `cleanup`; takes images between `activate` and `deactivate`.

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use crossbeam::channel::Receiver;

use super::{
    Qos,
    announcer::Announcer,
    arguments::NodeIdentity,
    clock::NodeTime,
    diagnostics::{CameraReport, Working},
    frames::{FrameLoop, Frames, Tuning},
    intake::Intake,
    messages::{CompressedImage, Image, RosMessage},
    models::Loaded,
    node::NodeError,
    outputs::Outputs,
    parameter_store::Apply,
    refresh::RefreshLoop,
    refresh_settings::RefreshSettings,
    requests::{Enabling, Refreshing, VocabularyRequests},
    segment::Segmenting,
    settings::Settings,
    transport::{History, MessageHandler, RawSubscription, Transport, TransportError},
};
use crate::{
    inference::Thresholds,
    pipeline::{PipelineConfig, PreparedVocabulary, VocabularyHandle, VocabularyRequest, VocabularyWorker},
    types::VocabularySource,
    vocabulary::{ClassSpec, VocabularyLimits, names::add_fixed},
};

/// Images of a subscription that the middleware keeps.
const MOST_IMAGES: u32 = 4;

/// A camera's place on the graph.
struct Camera {
    /// Empty for a single one without a name.
    name: String,
    topic: String,
    /// `None` while inactive.
    images: Option<Box<dyn RawSubscription>>,
}

impl Camera {
    /// Where its results are: beside each other below the node, or for several cameras below their names.
    fn base(name: &str) -> String {
        if name.is_empty() { "~".to_owned() } else { format!("~/{name}") }
    }

    fn new(identity: &NodeIdentity, name: &str) -> Result<Self, NodeError> {
        let topic = if name.is_empty() { "image".to_owned() } else { format!("{name}/image") };
        Ok(Self { name: name.to_owned(), topic: identity.resolve(&topic)?, images: None })
    }
}

/// Subscribes to the images of all `cameras` or, where that fails for one, of none.
fn take_images(
    cameras: &mut [Camera],
    on: &dyn Transport,
    (image_type, qos): (&str, Qos),
    handler: impl Fn(usize) -> MessageHandler,
) -> Result<(), TransportError> {
    let taken: Result<(), TransportError> = cameras.iter_mut().enumerate().try_for_each(|(index, camera)| {
        camera.images = Some(on.subscribe(&camera.topic, image_type, qos, handler(index))?);
        Ok(())
    });
    if taken.is_err() {
        cameras.iter_mut().for_each(|camera| camera.images = None);
    }
    taken
}

/// A configured node.
pub struct Engine {
    cameras: Vec<Camera>,
    image_qos: Qos,
    compressed: bool,
    models: String,
    runs_on: Vec<(&'static str, String)>,
    thresholds: Thresholds,
    tuning: Arc<ArcSwap<Tuning>>,
    intake: Arc<Intake>,
    frames: Frames,
    vocabulary: VocabularyHandle,
    worker: Arc<VocabularyWorker>,
    /// Vocabularies that come into use.
    pub changes: Receiver<Arc<PreparedVocabulary>>,
    requests: Option<VocabularyRequests>,
    enabling: Enabling,
    segmenting: Segmenting,
    refresh: Option<Refreshing>,
    announcer: Arc<Announcer>,
}

impl Engine {
    /// Puts everything but the image subscription and `~/set_vocabulary` on the graph. Stops when `end` is disconnected.
    ///
    /// # Errors
    /// [`NodeError`]; nothing is left running then.
    pub fn configure(
        on: &dyn Transport,
        identity: &NodeIdentity,
        settings: &Settings,
        loaded: Loaded,
        time: NodeTime,
        end: &Receiver<()>,
    ) -> Result<Self, NodeError> {
        let Loaded { mut pipeline, worker, vocabulary, refresh, thresholds, names } = loaded;
        // Names first: nothing runs yet that would have to be stopped.
        let unnamed = [String::new()];
        let names_of = if settings.cameras.is_empty() { &unnamed[..] } else { &settings.cameras };
        let cameras = names_of.iter().map(|name| Camera::new(identity, name)).collect::<Result<Vec<_>, _>>()?;
        let worker = Arc::new(worker);
        let changes = vocabulary.subscribe();
        set_first_classes(settings, &worker, end)?;
        let tuning = Tuning { config: pipeline.config().clone(), overlay_interval: settings.overlay_interval };
        let tuning = Arc::new(ArcSwap::from_pointee(tuning));
        let runs_on = pipeline.runs_on().to_vec();
        let (qos, interval) = (settings.results_qos, settings.overlay_interval);
        let outputs = |camera: &Camera| Outputs::new(on, identity, &Camera::base(&camera.name), qos, interval);
        let outputs = cameras.iter().map(outputs).collect::<Result<Vec<_>, _>>()?;
        let bases = cameras.iter().map(|camera| Camera::base(&camera.name));
        let announcer = Announcer::new(on, identity, bases, vocabulary.clone(), Arc::clone(&tuning), time)?;

        let (refresh, tap) = match refresh {
            Some(parts) => {
                let (running, taps) =
                    RefreshLoop::start(parts, cameras.len(), Arc::clone(&worker), vocabulary.clone())?;
                if let Some(phrases) = taps.phrases {
                    pipeline.set_phrases(phrases);
                }
                (Some(Refreshing::start(on, identity, running)?), Some(taps.scene))
            }
            None => (None, None),
        };

        let intake = Arc::new(Intake::new(cameras.len()));
        let enabling = Enabling::start(on, identity, &intake)?;
        let (segmenting, segments) = Segmenting::start(on, identity, &intake, &settings.cameras)?;
        let frames = Frames::start(FrameLoop {
            pipeline,
            outputs,
            intake: Arc::clone(&intake),
            vocabulary: vocabulary.clone(),
            tuning: Arc::clone(&tuning),
            tap,
            segments,
        })?;
        let engine = Self {
            cameras,
            image_qos: few(settings.image_qos),
            compressed: settings.compressed,
            models: names,
            runs_on,
            thresholds,
            tuning,
            intake,
            frames,
            vocabulary,
            worker,
            changes,
            requests: None,
            enabling,
            segmenting,
            refresh,
            announcer: Arc::new(announcer),
        };
        // Those that came into use already are announced here, once.
        while engine.changes.try_recv().is_ok() {}
        engine.announce(&engine.vocabulary.current());
        Ok(engine)
    }

    /// Takes class lists by `~/set_vocabulary` from now on. To be called when parameters that were set meanwhile are in
    /// force, or an older list of theirs would replace one that was taken here.
    ///
    /// # Errors
    /// [`NodeError`] when they cannot be offered.
    pub fn take_class_lists(
        &mut self,
        on: &dyn Transport,
        identity: &NodeIdentity,
        settings: &Settings,
    ) -> Result<(), NodeError> {
        let limits = VocabularyLimits { max_classes: settings.max_classes, ..VocabularyLimits::default() };
        self.requests = Some(VocabularyRequests::start(on, identity, &self.worker, &self.vocabulary, limits)?);
        Ok(())
    }

    /// Takes images from now on.
    ///
    /// # Errors
    /// [`TransportError::Create`].
    pub fn activate(&mut self, on: &dyn Transport) -> Result<(), TransportError> {
        let image_type = if self.compressed { CompressedImage::TYPE } else { Image::TYPE };
        let handler = |camera| self.intake.handler(camera, self.compressed);
        if let Err(error) = take_images(&mut self.cameras, on, (image_type, self.image_qos), handler) {
            // Of the cameras that were heard meanwhile.
            self.intake.discard_waiting();
            return Err(error);
        }
        for camera in &self.cameras {
            tracing::info!(topic = %camera.topic, r#type = image_type, models = %self.models, "waiting for images");
        }
        Ok(())
    }

    /// Takes no image any more; the one under way is still published.
    pub fn deactivate(&mut self) {
        for camera in &mut self.cameras {
            camera.images = None;
        }
        self.intake.discard_waiting();
    }

    /// Disconnected when the frame loop has ended.
    pub fn ended(&self) -> &Receiver<()> {
        &self.frames.ended
    }

    /// Publishes a vocabulary that came into use.
    pub fn announce(&self, prepared: &PreparedVocabulary) {
        let vocabulary = &prepared.vocabulary;
        self.announcer.vocabulary(vocabulary);
        let (version, classes, source) = (vocabulary.version, vocabulary.entries.len(), vocabulary.source.as_str());
        // One for each caption: what a long list costs in every frame.
        let detector_runs_per_frame = prepared.captions.len();
        tracing::info!(version, classes, source, detector_runs_per_frame, "vocabulary in use");
    }

    /// Publishes what [`Self::announce`] could not send. To be called every now and then.
    pub fn catch_up(&self) {
        self.announcer.catch_up();
    }

    /// What brings parameters into force that are set from now on.
    pub fn apply(&self) -> Apply {
        let (worker, tuning, thresholds) = (Arc::clone(&self.worker), Arc::clone(&self.tuning), self.thresholds);
        let (vocabulary, announcer) = (self.vocabulary.clone(), Arc::clone(&self.announcer));
        Box::new(move |settings, changed| {
            let next = tuned(settings, &thresholds, &tuning.load());
            next.config.validate().map_err(|error| error.to_string())?;
            // An empty list cannot come into use, but where none is in use there is nothing to do.
            let none = || settings.classes.is_empty() && vocabulary.current().vocabulary.entries.is_empty();
            if changed.contains(&"classes") && !none() {
                let classes = settings.classes.iter().map(ClassSpec::new).collect();
                let request = VocabularyRequest::new(classes, VocabularySource::Configuration);
                worker.apply(request).map_err(|error| format!("classes: {error}"))?;
            }
            tuning.store(Arc::new(next));
            // It carries the threshold, and who comes late gets the last one.
            if changed.contains(&"box_threshold") {
                announcer.labels();
            }
            Ok(())
        })
    }

    /// What diagnostics tell of it.
    pub fn working(&self, now: Instant) -> Working<'_> {
        let prepared = self.vocabulary.current();
        Working {
            models: &self.models,
            runs_on: &self.runs_on,
            cameras: self.cameras.iter().enumerate().map(|(index, camera)| self.watched(index, camera, now)).collect(),
            enabled: self.intake.is_enabled(),
            image_batch: self.frames.image_batch(),
            vocabulary: Arc::clone(&prepared.vocabulary),
            detector_runs: prepared.captions.len(),
            refresh: self.refresh.as_ref().map(|refresh| refresh.running.status()),
        }
    }

    fn watched<'e>(&self, index: usize, camera: &'e Camera, now: Instant) -> CameraReport<'e> {
        let counts = self.intake.counts(index).snapshot(now);
        CameraReport::new(&camera.name, &camera.topic, camera.images.as_deref(), counts, self.frames.unsent(index))
    }

    /// Has everything end that somebody may be waiting for. [`Self::stop`] must follow.
    pub fn begin_stop(&mut self) {
        self.deactivate();
        self.intake.close();
        self.worker.stop();
        if let Some(refresh) = &self.refresh {
            refresh.running.handle().stop();
        }
    }

    /// Stops input, lets the frame under way be published, takes everything off the graph. What still runs at `deadline` is
    /// left alone.
    pub fn stop(mut self, deadline: Instant) {
        self.begin_stop();
        let Self { cameras, intake, frames, requests, enabling, segmenting, mut refresh, .. } = self;
        frames.join(deadline);
        if let Some(refresh) = &mut refresh {
            refresh.running.end_by(deadline);
        }
        drop((requests, enabling, segmenting, refresh));
        for (index, camera) in cameras.iter().enumerate() {
            let counts = intake.counts(index).snapshot(Instant::now());
            tracing::info!(
                topic = %camera.topic,
                received = counts.received,
                processed = counts.processed,
                dropped = counts.dropped,
                bad = counts.bad.values().sum::<u64>(),
                "stopped"
            );
        }
    }
}

/// As `qos`, with room for a few samples at most. All that wait are taken at once and the newest wins, so more of them would
/// only take memory: RustDDS keeps what was taken until others need its place.
fn few(qos: Qos) -> Qos {
    let depth = match qos.history {
        History::KeepLast(depth) => depth.min(MOST_IMAGES),
        History::KeepAll => MOST_IMAGES,
    };
    Qos { history: History::KeepLast(depth), ..qos }
}

/// What `settings` make of the next frames. Threads and provider stay those that the models were loaded with: where the
/// threads follow the number of cores, that may be another one by now.
fn tuned(settings: &Settings, shipped: &Thresholds, running: &Tuning) -> Tuning {
    let config = PipelineConfig { execution: running.config.execution, ..settings.pipeline(shipped) };
    Tuning { config, overlay_interval: settings.overlay_interval }
}

/// Brings the list in force that the node starts with: the kept one where there is one, else the `classes` parameter; the
/// refresh loop's fixed classes are in either.
fn set_first_classes(settings: &Settings, worker: &VocabularyWorker, end: &Receiver<()>) -> Result<(), NodeError> {
    let fixed = settings.refresh.as_ref().map_or(&[][..], RefreshSettings::fixed);
    let apply = |mut classes: Vec<ClassSpec>, source: VocabularySource| {
        add_fixed(&mut classes, fixed);
        worker.apply_until(VocabularyRequest::new(classes, source), end)
    };
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
    if !(settings.classes.is_empty() && fixed.is_empty()) {
        let classes = settings.classes.iter().map(ClassSpec::new).collect();
        apply(classes, VocabularySource::Configuration).map_err(NodeError::Classes)?;
    } else if settings.refresh.is_none() {
        tracing::warn!("no classes are set: nothing is looked for until ~/set_vocabulary says what");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;
    use crate::{
        pipeline::Execution,
        ros::{arguments::RosArguments, cdr::CdrView, parameter_table::TABLE, parameters::Values, testing::OneWay},
    };

    /// A subscription to nothing.
    struct Nothing(Arc<()>);

    impl RawSubscription for Nothing {
        fn publishers(&self) -> usize {
            Arc::strong_count(&self.0)
        }
    }

    #[test]
    fn an_activation_that_fails_half_way_takes_no_images() {
        let identity = RosArguments::default().identity("scenelex").unwrap();
        let mut cameras = ["left", "right"].map(|name| Camera::new(&identity, name).unwrap());
        let (kept, asked) = (Arc::new(()), Arc::new(AtomicUsize::new(0)));
        let (given, count) = (Arc::downgrade(&kept), Arc::clone(&asked));
        // The first is granted, the next refused.
        let transport = OneWay::subscribing(move || match count.fetch_add(1, Ordering::Relaxed) {
            0 => Some(Box::new(Nothing(given.upgrade()?))),
            _ => None,
        });
        let kind = (Image::TYPE, Qos::LATEST);
        take_images(&mut cameras, &transport, kind, |_| Box::new(|_: CdrView<'_>| ())).unwrap_err();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert!(cameras.iter().all(|camera| camera.images.is_none()));
        assert_eq!(Arc::strong_count(&kept), 1, "the subscription is gone");
    }

    #[test]
    fn the_middleware_keeps_a_few_images_at_most() {
        let few = |history| super::few(Qos { history, ..Qos::LATEST }).history;
        assert_eq!(few(History::KeepLast(1)), History::KeepLast(1));
        assert_eq!(few(History::KeepLast(1000)), History::KeepLast(MOST_IMAGES));
        assert_eq!(few(History::KeepAll), History::KeepLast(MOST_IMAGES));
    }

    #[test]
    fn threads_stay_those_that_the_models_were_loaded_with() {
        let (settings, shipped) = (Settings::from_values(&Values::new(TABLE)).unwrap(), Thresholds::default());
        // As if there had been other cores then.
        let execution = Execution { detector_threads: 99, resolve_threads: 7, ..Execution::default() };
        let config = PipelineConfig { execution, box_threshold: 0.9, ..settings.pipeline(&shipped) };
        let running = Tuning { config, overlay_interval: Duration::from_secs(9) };
        let config = PipelineConfig { execution, ..settings.pipeline(&shipped) };
        let expected = Tuning { config, overlay_interval: settings.overlay_interval };
        assert_eq!(tuned(&settings, &shipped, &running), expected);
    }
}
