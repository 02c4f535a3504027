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
    diagnostics::Working,
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
    pipeline::{PreparedVocabulary, VocabularyHandle, VocabularyRequest, VocabularyWorker},
    types::VocabularySource,
    vocabulary::{ClassSpec, VocabularyLimits},
};

/// How long the end may take: what is under way gets this long to be published.
const GRACE: Duration = Duration::from_millis(800);

/// A configured node.
pub struct Engine {
    image_topic: String,
    image_qos: Qos,
    compressed: bool,
    models: String,
    runs_on: Vec<(&'static str, String)>,
    thresholds: Thresholds,
    tuning: Arc<ArcSwap<Tuning>>,
    /// `None` while inactive.
    image: Option<Box<dyn RawSubscription>>,
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
    label_info: Publisher<LabelInfo>,
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
        let image_topic = identity.resolve("image")?;
        let worker = Arc::new(worker);
        let changes = vocabulary.subscribe();
        set_first_classes(settings, &worker)?;
        let tuning = Tuning { config: pipeline.config().clone(), overlay_interval: settings.overlay_interval };
        let tuning = Arc::new(ArcSwap::from_pointee(tuning));
        let runs_on = pipeline.runs_on().to_vec();
        let outputs = Outputs::new(on, identity, settings.results_qos, settings.overlay_interval)?;
        let vocabulary_topic = Publisher::new(on, &identity.resolve("~/vocabulary")?, Qos::LATCHED)?;
        let label_info = Publisher::new(on, &identity.resolve("~/semantic/label_info")?, Qos::LATCHED)?;
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
        let enabling = Enabling::start(on, identity, &intake)?;
        let (segmenting, segments) = Segmenting::start(on, identity, &intake)?;
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
            image_topic,
            image_qos: settings.image_qos,
            compressed: settings.compressed,
            models: names,
            runs_on,
            thresholds,
            tuning,
            image: None,
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
            label_info,
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
        let handler = self.intake.handler(self.compressed);
        self.image = Some(on.subscribe(&self.image_topic, image_type, self.image_qos, handler)?);
        tracing::info!(topic = %self.image_topic, r#type = image_type, models = %self.models, "waiting for images");
        Ok(())
    }

    /// Takes no image any more; the one under way is still published.
    pub fn deactivate(&mut self) {
        self.image = None;
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
        let sent = self
            .vocabulary_topic
            .publish(&convert::vocabulary(vocabulary, stamp))
            .and_then(|()| self.label_info.publish(&convert::label_info(vocabulary, stamp, box_threshold)));
        if let Err(error) = sent {
            tracing::warn!(%error, "could not announce the vocabulary");
        }
        let (version, classes) = (vocabulary.version, vocabulary.entries.len());
        tracing::info!(version, classes, source = vocabulary.source.as_str(), "vocabulary in use");
    }

    /// What brings parameters into force that are set from now on.
    pub fn apply(&self) -> Apply {
        let (worker, tuning, thresholds) = (Arc::clone(&self.worker), Arc::clone(&self.tuning), self.thresholds);
        let (vocabulary, label_info, time) = (self.vocabulary.clone(), self.label_info.clone(), self.time.clone());
        Box::new(move |settings, changed| {
            let config = settings.pipeline(&thresholds);
            config.validate().map_err(|error| error.to_string())?;
            if changed.contains(&"classes") {
                let classes = settings.classes.iter().map(ClassSpec::new).collect();
                let request = VocabularyRequest::new(classes, VocabularySource::Configuration);
                worker.apply(request).map_err(|error| format!("classes: {error}"))?;
            }
            let box_threshold = config.box_threshold;
            tuning.store(Arc::new(Tuning { config, overlay_interval: settings.overlay_interval }));
            // It carries the threshold, and who comes late gets the last one.
            if changed.contains(&"box_threshold") {
                let message = convert::label_info(&vocabulary.current().vocabulary, time.now(), box_threshold);
                if let Err(error) = label_info.publish(&message) {
                    tracing::warn!(%error, "could not announce the threshold");
                }
            }
            Ok(())
        })
    }

    /// What diagnostics tell of it.
    pub fn working(&self, now: Instant) -> Working<'_> {
        Working {
            models: &self.models,
            runs_on: &self.runs_on,
            image_topic: &self.image_topic,
            publishers: self.image.as_ref().map(|image| image.publishers()),
            enabled: self.intake.is_enabled(),
            counts: self.intake.counts().snapshot(now),
            unsent: self.frames.unsent(),
            vocabulary: Arc::clone(&self.vocabulary.current().vocabulary),
            refresh: self.refresh.as_ref().map(|refresh| refresh.running.status()),
        }
    }

    /// Stops input, lets the frame under way be published, takes everything off the graph.
    pub fn stop(self) {
        let Self { image, intake, frames, requests, enabling, segmenting, refresh, .. } = self;
        drop(image);
        intake.close();
        if let Some(refresh) = &refresh {
            refresh.running.handle().stop();
        }
        frames.join(GRACE);
        drop((requests, enabling, segmenting, refresh));
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
