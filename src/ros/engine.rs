//! What a configured node is made of: models, topics, the frame loop and the vocabulary loop. Made by the life cycle's
//! transition `configure`, dropped by `cleanup`; takes images between `activate` and `deactivate`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use crossbeam::channel::Receiver;

use super::{
    Qos,
    arguments::NodeIdentity,
    clock::NodeTime,
    convert,
    diagnostics::{CameraReport, Working},
    frames::{FrameLoop, Frames, Tuning},
    intake::Intake,
    messages::{CompressedImage, Image, LabelInfo, RosMessage, Vocabulary},
    models::Loaded,
    node::NodeError,
    outputs::Outputs,
    parameter_store::Apply,
    refresh::RefreshLoop,
    refresh_settings::RefreshSettings,
    requests::{Enabling, Refreshing, VocabularyRequests},
    segment::Segmenting,
    settings::Settings,
    transport::{Publisher, RawSubscription, Transport, TransportError},
};
use crate::{
    inference::Thresholds,
    pipeline::{PipelineConfig, PreparedVocabulary, VocabularyHandle, VocabularyRequest, VocabularyWorker},
    types::VocabularySource,
    vocabulary::{ClassSpec, VocabularyLimits, names::add_fixed},
};

/// How long the end may take: what is under way gets this long to be published.
const GRACE: Duration = Duration::from_millis(800);

/// A camera's place on the graph.
struct Camera {
    /// Empty for a single one without a name.
    name: String,
    topic: String,
    /// `None` while inactive.
    images: Option<Box<dyn RawSubscription>>,
    label_info: Publisher<LabelInfo>,
}

impl Camera {
    /// Where its results are: beside each other below the node, or for several cameras below their names.
    fn base(name: &str) -> String {
        if name.is_empty() { "~".to_owned() } else { format!("~/{name}") }
    }

    fn new(on: &dyn Transport, identity: &NodeIdentity, name: &str) -> Result<Self, NodeError> {
        let topic = if name.is_empty() { "image".to_owned() } else { format!("{name}/image") };
        let label_info = format!("{}/semantic/label_info", Self::base(name));
        Ok(Self {
            name: name.to_owned(),
            topic: identity.resolve(&topic)?,
            images: None,
            label_info: Publisher::new(on, &identity.resolve(&label_info)?, Qos::LATCHED)?,
        })
    }
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
    requests: VocabularyRequests,
    enabling: Enabling,
    segmenting: Segmenting,
    refresh: Option<Refreshing>,
    vocabulary_topic: Publisher<Vocabulary>,
    time: NodeTime,
}

impl Engine {
    /// Puts everything but the image subscription on the graph.
    ///
    /// # Errors
    /// [`NodeError`]; nothing is left running then.
    pub fn configure(
        on: &dyn Transport,
        identity: &NodeIdentity,
        settings: &Settings,
        loaded: Loaded,
        time: NodeTime,
    ) -> Result<Self, NodeError> {
        let Loaded { mut pipeline, worker, vocabulary, refresh, thresholds, names } = loaded;
        let limits = VocabularyLimits { max_classes: settings.max_classes, ..VocabularyLimits::default() };
        // Names first: nothing runs yet that would have to be stopped.
        let unnamed = [String::new()];
        let names_of = if settings.cameras.is_empty() { &unnamed[..] } else { &settings.cameras };
        let cameras = names_of.iter().map(|name| Camera::new(on, identity, name)).collect::<Result<Vec<_>, _>>()?;
        let worker = Arc::new(worker);
        let changes = vocabulary.subscribe();
        set_first_classes(settings, &worker)?;
        let tuning = Tuning { config: pipeline.config().clone(), overlay_interval: settings.overlay_interval };
        let tuning = Arc::new(ArcSwap::from_pointee(tuning));
        let runs_on = pipeline.runs_on().to_vec();
        let (qos, interval) = (settings.results_qos, settings.overlay_interval);
        let outputs = |camera: &Camera| Outputs::new(on, identity, &Camera::base(&camera.name), qos, interval);
        let outputs = cameras.iter().map(outputs).collect::<Result<Vec<_>, _>>()?;
        let vocabulary_topic = Publisher::new(on, &identity.resolve("~/vocabulary")?, Qos::LATCHED)?;
        let requests = VocabularyRequests::start(on, identity, &worker, &vocabulary, limits)?;

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
            image_qos: settings.image_qos,
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
            requests,
            enabling,
            segmenting,
            refresh,
            vocabulary_topic,
            time,
        };
        // Those that came into use already are announced here, once.
        while engine.changes.try_recv().is_ok() {}
        engine.announce(&engine.vocabulary.current());
        Ok(engine)
    }

    /// Takes images from now on.
    ///
    /// # Errors
    /// [`TransportError::Create`].
    pub fn activate(&mut self, on: &dyn Transport) -> Result<(), TransportError> {
        let image_type = if self.compressed { CompressedImage::TYPE } else { Image::TYPE };
        for (index, camera) in self.cameras.iter_mut().enumerate() {
            let handler = self.intake.handler(index, self.compressed);
            camera.images = Some(on.subscribe(&camera.topic, image_type, self.image_qos, handler)?);
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
        let stamp = self.time.now();
        let box_threshold = self.tuning.load().config.box_threshold;
        if let Err(error) = self.vocabulary_topic.publish(&convert::vocabulary(vocabulary, stamp)) {
            tracing::warn!(%error, "could not announce the vocabulary");
        }
        announce_labels(&self.label_info(), &convert::label_info(vocabulary, stamp, box_threshold));
        let (version, classes, source) = (vocabulary.version, vocabulary.entries.len(), vocabulary.source.as_str());
        // One for each caption: what a long list costs in every frame.
        let detector_runs_per_frame = prepared.captions.len();
        tracing::info!(version, classes, source, detector_runs_per_frame, "vocabulary in use");
    }

    fn label_info(&self) -> Vec<Publisher<LabelInfo>> {
        self.cameras.iter().map(|camera| camera.label_info.clone()).collect()
    }

    /// What brings parameters into force that are set from now on.
    pub fn apply(&self) -> Apply {
        let (worker, tuning, thresholds) = (Arc::clone(&self.worker), Arc::clone(&self.tuning), self.thresholds);
        let (vocabulary, label_info, time) = (self.vocabulary.clone(), self.label_info(), self.time.clone());
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
            let box_threshold = next.config.box_threshold;
            tuning.store(Arc::new(next));
            // It carries the threshold, and who comes late gets the last one.
            if changed.contains(&"box_threshold") {
                let message = convert::label_info(&vocabulary.current().vocabulary, time.now(), box_threshold);
                announce_labels(&label_info, &message);
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

    /// Stops input, lets the frame under way be published, takes everything off the graph.
    pub fn stop(mut self) {
        self.deactivate();
        let Self { cameras, intake, frames, requests, enabling, segmenting, refresh, .. } = self;
        intake.close();
        if let Some(refresh) = &refresh {
            refresh.running.handle().stop();
        }
        frames.join(GRACE);
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

/// What `settings` make of the next frames. Threads and provider stay those that the models were loaded with: where the
/// threads follow the number of cores, that may be another one by now.
fn tuned(settings: &Settings, shipped: &Thresholds, running: &Tuning) -> Tuning {
    let config = PipelineConfig { execution: running.config.execution, ..settings.pipeline(shipped) };
    Tuning { config, overlay_interval: settings.overlay_interval }
}

fn announce_labels(on: &[Publisher<LabelInfo>], message: &LabelInfo) {
    for publisher in on {
        if let Err(error) = publisher.publish(message) {
            tracing::warn!(%error, "could not announce the classes and their threshold");
        }
    }
}

/// Brings the list in force that the node starts with: the kept one where there is one, else the `classes` parameter; the
/// refresh loop's fixed classes are in either.
fn set_first_classes(settings: &Settings, worker: &VocabularyWorker) -> Result<(), NodeError> {
    let fixed = settings.refresh.as_ref().map_or(&[][..], RefreshSettings::fixed);
    let apply = |mut classes: Vec<ClassSpec>, source: VocabularySource| {
        add_fixed(&mut classes, fixed);
        worker.apply(VocabularyRequest::new(classes, source))
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
    use super::*;
    use crate::{
        pipeline::Execution,
        ros::{parameter_table::TABLE, parameters::Values},
    };

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
