//! The receiving side of a topic: a named thread that shows every sample to the handler in place.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

use rustdds::{
    DataReaderStatus, GUID, StatusEvented,
    no_key::{DeserializerAdapter, SimpleDataReader},
};

use super::{
    End, Endpoints, Qos, TransportError,
    graph::Graph,
    names, not_a_type, policies,
    raw::{Seen, SeenAdapter, Show},
};
use crate::ros::transport::{MessageHandler, RawSubscription};

/// How often a waiting thread looks up although nothing arrived, to notice matched publishers.
const LOOK_UP: Duration = Duration::from_millis(100);

/// A DDS reader of raw bytes on its own named thread.
pub struct ReaderThread {
    stop: Arc<AtomicBool>,
    matched: Arc<AtomicUsize>,
    guid: GUID,
    thread: Option<JoinHandle<()>>,
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
        let topic = endpoints.topic(topic, type_name, &policies)?;
        let reader = endpoints
            .subscriber
            .create_simple_datareader_no_key::<D, A>(&topic, Some(policies))
            .map_err(|e| e.to_string())?;
        let guid = reader.guid();
        let stop = Arc::new(AtomicBool::new(false));
        let matched = Arc::new(AtomicUsize::new(0));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&matched));
        // Linux shows 15 characters of a thread's name: the end of the topic says more than its beginning.
        let short: String = name.chars().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect();
        let thread = thread::Builder::new()
            .name(format!("rx {short}"))
            .spawn(move || {
                let waker = Waker::from(Arc::new(Unpark(thread::current())));
                while !stopped.load(Ordering::Acquire) {
                    // The waker is set before draining, so that nothing can slip in between unnoticed.
                    reader.set_waker(Some(waker.clone()));
                    reader.drain_read_notifications();
                    let mut current_count = None;
                    while let Some(status) = reader.try_recv_status() {
                        if let DataReaderStatus::SubscriptionMatched { current, .. } = status {
                            current_count = Some(usize::try_from(current.count()).unwrap_or(0));
                        }
                    }
                    drain(&reader, &stopped);
                    // Only now, so that whoever sees a publisher gone has seen its samples.
                    if let Some(current) = current_count {
                        count.store(current, Ordering::Release);
                    }
                    if !stopped.load(Ordering::Acquire) {
                        thread::park_timeout(LOOK_UP);
                    }
                }
                // What has arrived before the end is not lost.
                drain(&reader, &AtomicBool::new(false));
            })
            .map_err(|e| e.to_string())?;
        Ok(Self { stop, matched, guid, thread: Some(thread) })
    }

    pub fn guid(&self) -> GUID {
        self.guid
    }

    pub fn matched(&self) -> usize {
        self.matched.load(Ordering::Acquire)
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

/// A subscription on a ROS topic.
pub struct DdsSubscription {
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
        let drain = move |reader: &SimpleDataReader<Seen, SeenAdapter>, stop: &AtomicBool| {
            take_all(reader, stop, &handler, &name);
        };
        let reader = ReaderThread::spawn(endpoints, topic, (&dds_topic, &dds_type), qos, drain).map_err(create)?;
        graph.add_reader(reader.guid());
        Ok(Self { reader, graph: Arc::clone(graph) })
    }
}

fn take_all(
    reader: &SimpleDataReader<Seen, SeenAdapter>,
    stop: &AtomicBool,
    handler: &RefCell<MessageHandler>,
    topic: &str,
) {
    while !stop.load(Ordering::Acquire) {
        match reader.try_take_one_with(Show(handler)) {
            Ok(Some(_)) => {}
            Ok(None) => break,
            // RustDDS steps over a sample it cannot hand out (an encapsulation that is not plain CDR, say).
            Err(error) => tracing::warn!(topic, %error, "skipped a sample"),
        }
    }
}

impl RawSubscription for DdsSubscription {
    fn publishers(&self) -> usize {
        self.reader.matched()
    }
}

impl Drop for DdsSubscription {
    fn drop(&mut self) {
        self.graph.remove_reader(self.reader.guid());
    }
}
