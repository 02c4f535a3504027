//! The receiving side of a topic: a named thread that shows every sample to the handler in place.

use std::{
    cell::RefCell,
    collections::HashMap,
    iter,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant, SystemTime},
};

use rustdds::{
    GUID, StatusEvented,
    no_key::{DeserializerAdapter, SimpleDataReader},
};

use super::{
    End, Endpoints, Qos, TransportError,
    graph::Graph,
    names, not_a_type,
    peers::{Event, Peers, Side},
    policies,
    raw::{Seen, SeenAdapter, Show},
};
use crate::ros::{
    throttle::Throttle,
    transport::{MessageHandler, Mismatch, Missed, RawSubscription, Reliability},
};

/// How often a waiting thread looks up although nothing arrived, to notice matched publishers.
const LOOK_UP: Duration = Duration::from_millis(100);

/// A DDS reader of raw bytes on its own named thread.
pub struct ReaderThread {
    stop: Arc<AtomicBool>,
    matched: Arc<AtomicUsize>,
    side: Arc<Side>,
    subscriber: rustdds::Subscriber,
    thread: Option<JoinHandle<()>>,
}

/// A system clock that is set back by less is of no account: what waits comes then.
const SET_BACK: Duration = Duration::from_millis(500);

/// Notices when the system clock is set back. RustDDS sorts what a best-effort reader has by that clock and hands out
/// nothing of a time that is yet to come.
struct Clock {
    wall: SystemTime,
    steady: Instant,
}

impl Clock {
    fn new() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }

    /// How far it was set back since the last call, if at all.
    fn set_back(&mut self, wall: SystemTime, steady: Instant) -> Option<Duration> {
        let expected = self.wall + steady.saturating_duration_since(self.steady);
        (self.wall, self.steady) = (wall, steady);
        expected.duration_since(wall).ok().filter(|by| *by >= SET_BACK)
    }
}

/// Wakes the reader's thread when RustDDS has a sample.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl ReaderThread {
    /// Makes a reader of `topic` (DDS names) and calls `drain` with it on a thread called `name` whenever samples may
    /// have come. `drain` takes until there is no more.
    pub fn spawn<D, A, F>(
        endpoints: &Endpoints,
        name: &str,
        (topic, type_name): (&str, &str),
        qos: Qos,
        mut drain: F,
    ) -> Result<Self, String>
    where
        D: Send + 'static,
        A: DeserializerAdapter<D> + Send + 'static,
        F: FnMut(&SimpleDataReader<D, A>, &AtomicBool) + Send + 'static,
    {
        let policies = policies(qos, End::Reader);
        let on = endpoints.topic(topic, type_name, &policies)?;
        let subscriber = endpoints.subscriber.clone();
        let reader = subscriber
            .create_simple_datareader_no_key::<D, A>(&on, Some(policies.clone()))
            .map_err(|e| e.to_string())?;
        let (own, topic, type_name) = (reader.guid(), topic.to_owned(), type_name.to_owned());
        let side = Arc::new(Side { own, topic, type_name, policies });
        let best_effort = qos.reliability == Reliability::BestEffort;
        let stop = Arc::new(AtomicBool::new(false));
        let matched = Arc::new(AtomicUsize::new(0));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&matched));
        let (of, asked) = (subscriber.clone(), Arc::clone(&side));
        // Linux shows 15 characters of a thread's name: the end of the topic says more than its beginning.
        let short: String = name.chars().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect();
        let thread = thread::Builder::new()
            .name(format!("rx {short}"))
            .spawn(move || {
                let waker = Waker::from(Arc::new(Unpark(thread::current())));
                let mut writers = Peers::new(own);
                let mut clock = Clock::new();
                while !stopped.load(Ordering::Acquire) {
                    // The waker is set before draining, so that nothing can slip in between unnoticed.
                    reader.set_waker(Some(waker.clone()));
                    reader.drain_read_notifications();
                    let events = iter::from_fn(|| reader.try_recv_status()).map(Event::from);
                    writers.update(events, || Some(asked.writers(&of.participant()?)), |_, _| {});
                    drain(&reader, &stopped);
                    // Only now, so that whoever sees a publisher gone has seen its samples.
                    count.store(writers.count(), Ordering::Release);
                    if let Some(by) = clock.set_back(SystemTime::now(), Instant::now()).filter(|_| best_effort) {
                        tracing::error!(
                            topic = asked.topic,
                            "the system clock was set back by {:.1} s, and for so long nothing comes of a best-effort \
                             subscription: start the node again, or subscribe reliably (qos.image.reliability)",
                            by.as_secs_f64()
                        );
                    }
                    if !stopped.load(Ordering::Acquire) {
                        thread::park_timeout(LOOK_UP);
                    }
                }
                // What has arrived before the end is not lost.
                drain(&reader, &AtomicBool::new(false));
            })
            .map_err(|e| e.to_string())?;
        Ok(Self { stop, matched, side, subscriber, thread: Some(thread) })
    }

    pub fn guid(&self) -> GUID {
        self.side.own
    }

    pub fn matched(&self) -> usize {
        self.matched.load(Ordering::Acquire)
    }

    /// Why no writer that discovery knows is heard.
    pub fn mismatch(&self) -> Option<Mismatch> {
        self.side.mismatch(&self.subscriber.participant()?)
    }
}

impl Drop for ReaderThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("a receiving thread ended with a panic");
            }
        }
    }
}

/// Time between two log lines about samples that cannot be handed out.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Publishers whose numbers are remembered: more than a topic has, unless they come and go.
const MOST_WRITERS: usize = 64;

/// Counts what does not come, by the numbers that each publisher gives its samples.
#[derive(Default)]
struct Gaps {
    last: HashMap<GUID, i64>,
}

impl Gaps {
    /// How many are missing before this sample. What came before the first is not for us.
    fn before(&mut self, writer: GUID, number: i64) -> u64 {
        if self.last.len() >= MOST_WRITERS && !self.last.contains_key(&writer) {
            self.last.clear();
        }
        let last = self.last.entry(writer).or_insert(number.saturating_sub(1));
        let skipped = number.saturating_sub(*last).saturating_sub(1);
        *last = number.max(*last);
        u64::try_from(skipped).unwrap_or(0)
    }
}

/// Counts of [`Missed`], while it goes on.
#[derive(Default)]
struct Missing {
    /// Numbers that were skipped, those of `refused` among them.
    skipped: AtomicU64,
    refused: AtomicU64,
}

/// A subscription on a ROS topic.
pub struct DdsSubscription {
    missing: Arc<Missing>,
    reader: ReaderThread,
    graph: Arc<Graph>,
}

impl DdsSubscription {
    pub fn new(
        endpoints: &Endpoints,
        graph: &Arc<Graph>,
        topic: &str,
        type_name: &str,
        qos: Qos,
        handler: MessageHandler,
    ) -> Result<Self, TransportError> {
        let create = |reason| TransportError::Create { what: "subscription", name: topic.to_owned(), reason };
        let dds_type = names::dds_type(type_name).ok_or_else(|| not_a_type("subscription", topic, type_name))?;
        let dds_topic = names::dds_topic(topic);
        let (handler, name) = (RefCell::new(handler), topic.to_owned());
        let missing = Arc::new(Missing::default());
        let counts = Arc::clone(&missing);
        let (mut gaps, mut throttle) = (Gaps::default(), Throttle::new(LOG_INTERVAL));
        let drain = move |reader: &SimpleDataReader<Seen, SeenAdapter>, stop: &AtomicBool| {
            while !stop.load(Ordering::Acquire) {
                match reader.try_take_one_with(Show(&handler)) {
                    Ok(Some(seen)) => {
                        let skipped = gaps.before(seen.writer_guid(), i64::from(seen.sequence_number));
                        counts.skipped.fetch_add(skipped, Ordering::Relaxed);
                    }
                    Ok(None) => break,
                    // RustDDS steps over a sample it cannot hand out (an encapsulation that is not plain CDR, say).
                    Err(error) => {
                        counts.refused.fetch_add(1, Ordering::Relaxed);
                        if let Some(held_back) = throttle.pass("refused", Instant::now()) {
                            tracing::warn!(topic = name, %error, held_back, "skipped a sample");
                        }
                    }
                }
            }
        };
        let reader = ReaderThread::spawn(endpoints, topic, (&dds_topic, &dds_type), qos, drain).map_err(create)?;
        graph.add_reader(reader.guid());
        Ok(Self { missing, reader, graph: Arc::clone(graph) })
    }
}

impl RawSubscription for DdsSubscription {
    fn publishers(&self) -> usize {
        self.reader.matched()
    }

    fn mismatch(&self) -> Option<Mismatch> {
        self.reader.mismatch()
    }

    fn missed(&self) -> Missed {
        let refused = self.missing.refused.load(Ordering::Relaxed);
        Missed { lost: self.missing.skipped.load(Ordering::Relaxed).saturating_sub(refused), refused }
    }
}

impl Drop for DdsSubscription {
    fn drop(&mut self) {
        self.graph.remove_reader(self.reader.guid());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_between_samples_of_a_publisher_is_counted() {
        let (one, other) = (GUID::GUID_UNKNOWN, GUID::new_participant_guid());
        let mut gaps = Gaps::default();
        assert_eq!(gaps.before(one, 1000), 0, "what was sent before is not for us");
        assert_eq!(gaps.before(one, 1001), 0);
        assert_eq!(gaps.before(other, 7), 0);
        assert_eq!(gaps.before(one, 1005), 3);
        assert_eq!(gaps.before(one, 1004), 0, "late, and not counted twice");
        assert_eq!(gaps.before(one, 1006), 0);
        assert_eq!(gaps.before(other, 9), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_is_noticed_once() {
        let (start, seconds) = (SystemTime::UNIX_EPOCH + Duration::from_secs(1000), Duration::from_secs);
        let steady = Instant::now();
        let mut clock = Clock { wall: start, steady };
        assert_eq!(clock.set_back(start + seconds(10), steady + seconds(10)), None);
        assert_eq!(clock.set_back(start + seconds(50), steady + seconds(20)), None, "set forward");
        assert_eq!(clock.set_back(start + seconds(13), steady + seconds(21)), Some(seconds(38)));
        assert_eq!(clock.set_back(start + seconds(14), steady + seconds(22)), None);
    }
}
