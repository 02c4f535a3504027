//! What the node says of its classes: `~/vocabulary`, and the label info of every camera.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use serde::Serialize;

use super::{
    arguments::NodeIdentity,
    clock::NodeTime,
    convert,
    frames::Tuning,
    messages::{self, LabelInfo, RosMessage},
    node::NodeError,
    transport::{Publisher, Transport},
};
use crate::{pipeline::VocabularyHandle, types::Vocabulary};

/// Publishes it. Whoever comes late gets what was published last, so one thread at a time reads what is in force and
/// publishes it.
pub struct Announcer {
    topics: Mutex<Topics>,
    vocabulary: VocabularyHandle,
    tuning: Arc<ArcSwap<Tuning>>,
    time: NodeTime,
}

struct Topics {
    vocabulary: Topic<messages::Vocabulary>,
    /// One for each camera.
    label_info: Vec<Topic<LabelInfo>>,
}

/// A topic that has to carry the newest message.
struct Topic<M> {
    publisher: Publisher<M>,
    /// The newest, where it could not be sent.
    unsent: Option<M>,
}

impl<M: RosMessage + Serialize> Topic<M> {
    fn new(on: &dyn Transport, identity: &NodeIdentity, name: &str) -> Result<Self, NodeError> {
        Ok(Self { publisher: Publisher::of_state(on, &identity.resolve(name)?)?, unsent: None })
    }

    fn publish(&mut self, message: M) {
        match self.publisher.publish(&message) {
            Ok(()) => self.unsent = None,
            Err(error) => {
                if self.unsent.replace(message).is_none() {
                    tracing::warn!(%error, "could not announce the classes; it is tried again");
                }
            }
        }
    }

    fn catch_up(&mut self) {
        if let Some(message) = &self.unsent
            && self.publisher.publish(message).is_ok()
        {
            self.unsent = None;
        }
    }
}

impl Announcer {
    /// Puts `~/vocabulary` on the graph, and `semantic/label_info` below each of `bases`. Publishes nothing yet.
    ///
    /// # Errors
    /// [`NodeError`] for the first topic that cannot be made.
    pub fn new(
        on: &dyn Transport,
        identity: &NodeIdentity,
        bases: impl Iterator<Item = String>,
        vocabulary: VocabularyHandle,
        tuning: Arc<ArcSwap<Tuning>>,
        time: NodeTime,
    ) -> Result<Self, NodeError> {
        let label_info = bases.map(|base| Topic::new(on, identity, &format!("{base}/semantic/label_info")));
        let label_info = label_info.collect::<Result<Vec<_>, _>>()?;
        let topics = Topics { vocabulary: Topic::new(on, identity, "~/vocabulary")?, label_info };
        Ok(Self { topics: Mutex::new(topics), vocabulary, tuning, time })
    }

    /// Publishes a vocabulary that came into use, and the label info.
    pub fn vocabulary(&self, vocabulary: &Vocabulary) {
        let mut topics = self.topics();
        topics.vocabulary.publish(convert::vocabulary(vocabulary, self.time.now()));
        self.publish_labels(&mut topics);
    }

    /// Publishes the label info: the classes and the threshold in force now.
    pub fn labels(&self) {
        self.publish_labels(&mut self.topics());
    }

    /// Publishes what could not be sent, as far as that goes by now. To be called every now and then.
    pub fn catch_up(&self) {
        let mut topics = self.topics();
        topics.vocabulary.catch_up();
        topics.label_info.iter_mut().for_each(Topic::catch_up);
    }

    fn publish_labels(&self, topics: &mut Topics) {
        let (current, box_threshold) = (self.vocabulary.current(), self.tuning.load().config.box_threshold);
        let message = convert::label_info(&current.vocabulary, self.time.now(), box_threshold);
        for topic in &mut topics.label_info {
            topic.publish(message.clone());
        }
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };

    use bytes::Bytes;

    use super::*;
    use crate::{
        inference::Thresholds,
        pipeline::{PipelineConfig, PreparedVocabulary},
        ros::{
            Qos, TransportError, arguments::RosArguments, cdr::CdrView, clock::NodeClock, testing::OneWay,
            transport::RawPublisher,
        },
    };

    fn tuning(box_threshold: f32) -> Arc<Tuning> {
        let config = PipelineConfig { box_threshold, ..PipelineConfig::with_thresholds(&Thresholds::default()) };
        Arc::new(Tuning { config, overlay_interval: Duration::ZERO })
    }

    /// A wire that ends here.
    #[derive(Default)]
    struct Wire {
        full: AtomicBool,
        sent: Mutex<Vec<Bytes>>,
        /// Set by somebody else while a message is being published.
        meanwhile: Option<(Arc<ArcSwap<Tuning>>, f32)>,
    }

    impl Wire {
        /// Thresholds of the label info that came.
        fn thresholds(&self) -> Vec<f32> {
            let sent = self.sent.lock().unwrap();
            let decoded = sent.iter().map(|message| CdrView::from_encapsulated(message).unwrap().decode::<LabelInfo>());
            decoded.map(|message| message.unwrap().threshold).collect()
        }
    }

    impl RawPublisher for Wire {
        fn publish(&self, message: Bytes) -> Result<(), TransportError> {
            if self.full.load(Ordering::Relaxed) {
                return Err(TransportError::Publish { topic: String::new(), reason: "no room".to_owned() });
            }
            self.sent.lock().unwrap().push(message);
            if let Some((tuned, box_threshold)) = &self.meanwhile {
                tuned.store(tuning(*box_threshold));
            }
            Ok(())
        }

        fn subscribers(&self) -> usize {
            0
        }

        fn flush(&self, _: Duration) -> bool {
            true
        }
    }

    /// Of one camera; `~/vocabulary` goes to the first wire.
    fn announcer(vocabulary: &Arc<Wire>, labels: &Arc<Wire>, tuned: &Arc<ArcSwap<Tuning>>) -> Announcer {
        let wires = [Arc::clone(vocabulary), Arc::clone(labels)];
        let transport = OneWay::publishing(move |topic: &str, _: &str, qos: Qos, _: bool| -> Arc<dyn RawPublisher> {
            assert_eq!(qos, Qos::LATCHED, "{topic}");
            let [vocabulary, labels] = wires.clone();
            if topic.ends_with("/vocabulary") { vocabulary } else { labels }
        });
        let identity = RosArguments::default().identity("scenelex").unwrap();
        let time = NodeClock::new(&transport, &identity, false).unwrap().time();
        let handle = VocabularyHandle::fixed(PreparedVocabulary::empty());
        let bases = ["~".to_owned()].into_iter();
        Announcer::new(&transport, &identity, bases, handle, Arc::clone(tuned), time).unwrap()
    }

    #[test]
    fn the_threshold_that_is_latched_is_the_one_in_force() {
        let tuned = Arc::new(ArcSwap::new(tuning(0.25)));
        let vocabulary = Arc::new(Wire { meanwhile: Some((Arc::clone(&tuned), 0.5)), ..Wire::default() });
        let labels = Arc::new(Wire::default());
        let announcer = announcer(&vocabulary, &labels, &tuned);
        announcer.vocabulary(&PreparedVocabulary::empty().vocabulary);
        assert_eq!(labels.thresholds(), [0.5], "it was set after the vocabulary had begun to be announced");
    }

    #[test]
    fn what_could_not_be_sent_is_sent_later_and_only_the_newest() {
        let (tuned, wire) = (Arc::new(ArcSwap::new(tuning(0.25))), Arc::new(Wire::default()));
        let announcer = announcer(&Arc::default(), &wire, &tuned);
        announcer.labels();
        wire.full.store(true, Ordering::Relaxed);
        for box_threshold in [0.5, 0.75] {
            tuned.store(tuning(box_threshold));
            announcer.labels();
        }
        announcer.catch_up();
        assert_eq!(wire.thresholds(), [0.25], "there is no room yet");
        wire.full.store(false, Ordering::Relaxed);
        announcer.catch_up();
        announcer.catch_up();
        assert_eq!(wire.thresholds(), [0.25, 0.75]);
    }
}
