//! The node inside a sourced ROS 2 workspace: the port on rcl, through the `r2r` crate, with raw bytes both ways.
//!
//! One thread, `ros`, owns the rcl node: it spins, drains every subscription after each wake-up (r2r queues ten samples
//! and then drops the newest) and carries out what others ask of the node in between. rcl reads the process's arguments
//! itself, so parameter and remapping rules are known to ROS 2's tools too. r2r has no raw services yet: services are
//! refused with [`TransportError::Unsupported`].

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, bounded};
use futures::{FutureExt, Stream, StreamExt};
use r2r::{
    Context, Node, PublisherUntyped, QosProfile,
    qos::{DurabilityPolicy, ReliabilityPolicy},
};

use super::{
    cdr::CdrView,
    transport::{
        self, Durability, History, MessageHandler, Qos, RawClient, RawPublisher, RawServer, RawSubscription,
        Reliability, ServiceHandler, TopicInfo, Transport, TransportError,
    },
};

/// How long rcl waits for something to happen before others may ask for the node.
const SPIN: Duration = Duration::from_millis(2);
/// Pause between two looks while there is nothing that rcl could wait for.
const IDLE: Duration = Duration::from_millis(5);
/// How long an answer of the `ros` thread may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time the middleware gets to send what was published, as rcl cannot say when it has.
const SETTLE: Duration = Duration::from_millis(50);

/// Something to be done by the thread that owns the node.
type Task = Box<dyn FnOnce(&mut Owned) + Send>;

/// What the `ros` thread owns.
struct Owned {
    node: Node,
    subscriptions: Vec<Subscribed>,
}

struct Subscribed {
    stream: Box<dyn Stream<Item = Vec<u8>> + Unpin>,
    handler: MessageHandler,
    topic: String,
    stop: Arc<AtomicBool>,
}

/// One node on rcl.
pub struct R2rTransport {
    node_name: String,
    tasks: Sender<Task>,
    thread: Option<JoinHandle<()>>,
}

impl R2rTransport {
    /// Creates node `name` in `namespace` (`/` or `/a/b`) on the domain that rcl finds in the environment.
    ///
    /// # Errors
    /// [`TransportError::Start`].
    pub fn new(namespace: &str, name: &str) -> Result<Self, TransportError> {
        let (tasks, incoming) = bounded::<Task>(64);
        let (ready, is_ready) = bounded(1);
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let start = |reason: String| TransportError::Start { domain: 0, reason };
        let thread = thread::Builder::new()
            .name("ros".to_owned())
            .spawn(move || match create(&namespace, &name) {
                Ok((node, full_name)) => {
                    let _ = ready.send(Ok(full_name));
                    spin(Owned { node, subscriptions: Vec::new() }, &incoming);
                }
                Err(reason) => {
                    let _ = ready.send(Err(reason));
                }
            })
            .map_err(|e| start(e.to_string()))?;
        let node_name = is_ready.recv().unwrap_or_else(|_| Err("the ros thread ended".to_owned())).map_err(start)?;
        Ok(Self { node_name, tasks, thread: Some(thread) })
    }

    /// Runs `task` on the thread that owns the node and waits for its result.
    fn ask<T: Send + 'static>(&self, task: impl FnOnce(&mut Owned) -> T + Send + 'static) -> Option<T> {
        ask(&self.tasks, task)
    }
}

fn ask<T: Send + 'static>(tasks: &Sender<Task>, task: impl FnOnce(&mut Owned) -> T + Send + 'static) -> Option<T> {
    let (sender, answer) = bounded(1);
    let boxed: Task = Box::new(move |owned| {
        let _ = sender.send(task(owned));
    });
    tasks.send_timeout(boxed, PATIENCE).ok()?;
    answer.recv_timeout(PATIENCE).ok()
}

fn create(namespace: &str, name: &str) -> Result<(Node, String), String> {
    let context = Context::create().map_err(|e| e.to_string())?;
    let node = Node::create(context, name, namespace).map_err(|e| e.to_string())?;
    let full_name = node.fully_qualified_name().map_err(|e| e.to_string())?;
    Ok((node, full_name))
}

/// The `ros` thread: until every sender of tasks is gone.
fn spin(mut owned: Owned, tasks: &Receiver<Task>) {
    loop {
        loop {
            match tasks.try_recv() {
                Ok(task) => task(&mut owned),
                Err(crossbeam::channel::TryRecvError::Empty) => break,
                Err(crossbeam::channel::TryRecvError::Disconnected) => return,
            }
        }
        owned.subscriptions.retain(|subscribed| !subscribed.stop.load(Ordering::Acquire));
        if owned.subscriptions.is_empty() {
            // rcl returns at once when there is nothing to wait for.
            owned.node.spin_once(Duration::ZERO);
            thread::sleep(IDLE);
        } else {
            owned.node.spin_once(SPIN);
        }
        for subscribed in &mut owned.subscriptions {
            subscribed.drain();
        }
    }
}

impl Subscribed {
    fn drain(&mut self) {
        while let Some(Some(message)) = self.stream.next().now_or_never() {
            match CdrView::from_encapsulated(&message) {
                Ok(view) => (self.handler)(view),
                Err(error) => tracing::warn!(topic = self.topic, %error, "skipped a sample"),
            }
        }
    }
}

/// The rmw profile of `qos`.
fn profile(qos: Qos) -> QosProfile {
    let profile = match qos.history {
        History::KeepLast(depth) => QosProfile::default().keep_last(depth.max(1) as usize),
        History::KeepAll => QosProfile::default().keep_all(),
    };
    let profile = match qos.reliability {
        Reliability::BestEffort => profile.best_effort(),
        Reliability::Reliable => profile.reliable(),
    };
    match qos.durability {
        Durability::Volatile => profile.volatile(),
        Durability::TransientLocal => profile.transient_local(),
    }
}

const GONE: &str = "the ros thread does not answer";

impl Transport for R2rTransport {
    fn node_name(&self) -> &str {
        &self.node_name
    }

    fn advertise(&self, topic: &str, type_name: &str, qos: Qos) -> Result<Arc<dyn RawPublisher>, TransportError> {
        let (name, kind) = (topic.to_owned(), type_name.to_owned());
        let made = self.ask(move |owned| {
            owned.node.create_publisher_untyped(&name, &kind, profile(qos)).map_err(|e| e.to_string())
        });
        let create = |reason| TransportError::Create { what: "publisher", name: topic.to_owned(), reason };
        let publisher = made.ok_or_else(|| create(GONE.to_owned()))?.map_err(create)?;
        Ok(Arc::new(R2rPublisher {
            publisher: Mutex::new(Some(publisher)),
            topic: topic.to_owned(),
            tasks: self.tasks.clone(),
        }))
    }

    fn subscribe(
        &self,
        topic: &str,
        type_name: &str,
        qos: Qos,
        handler: MessageHandler,
    ) -> Result<Box<dyn RawSubscription>, TransportError> {
        let (name, kind) = (topic.to_owned(), type_name.to_owned());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let made = self.ask(move |owned| {
            let stream = owned.node.subscribe_raw(&name, &kind, profile(qos)).map_err(|e| e.to_string())?;
            owned.subscriptions.push(Subscribed { stream: Box::new(stream), handler, topic: name, stop: stopped });
            Ok(())
        });
        let create = |reason| TransportError::Create { what: "subscription", name: topic.to_owned(), reason };
        made.ok_or_else(|| create(GONE.to_owned()))?.map_err(create)?;
        Ok(Box::new(R2rSubscription { topic: topic.to_owned(), tasks: self.tasks.clone(), stop }))
    }

    fn serve(
        &self,
        _service: &str,
        _type_name: &str,
        _handler: ServiceHandler,
    ) -> Result<Box<dyn RawServer>, TransportError> {
        Err(TransportError::Unsupported { transport: "r2r", ability: "offer raw services" })
    }

    fn client(&self, _service: &str, _type_name: &str) -> Result<Box<dyn RawClient>, TransportError> {
        Err(TransportError::Unsupported { transport: "r2r", ability: "call raw services" })
    }

    fn topics(&self) -> Vec<TopicInfo> {
        let own = self.node_name.clone();
        let found = self.ask(move |owned| {
            let known = owned.node.get_topic_names_and_types().unwrap_or_default();
            let published = known.into_iter().filter_map(|(name, types)| {
                let publishers = owned.node.get_publishers_info_by_topic(&name, false).ok()?;
                let foreign = publishers
                    .iter()
                    .filter(|p| format!("{}/{}", p.node_namespace.trim_end_matches('/'), p.node_name) != own);
                let type_name = types.into_iter().next()?;
                let topics = foreign.map(|publisher| TopicInfo {
                    name: name.clone(),
                    type_name: type_name.clone(),
                    reliability: match publisher.qos_profile.reliability {
                        ReliabilityPolicy::Reliable => Reliability::Reliable,
                        _ => Reliability::BestEffort,
                    },
                    durability: match publisher.qos_profile.durability {
                        DurabilityPolicy::TransientLocal => Durability::TransientLocal,
                        _ => Durability::Volatile,
                    },
                });
                Some(topics.collect::<Vec<_>>())
            });
            transport::merged(published.flatten().collect())
        });
        found.unwrap_or_default()
    }
}

impl Drop for R2rTransport {
    fn drop(&mut self) {
        // Publishers and subscriptions hold senders of their own: without a farewell the thread would wait for them.
        let (nobody, _) = bounded(1);
        drop(std::mem::replace(&mut self.tasks, nobody));
        if let Some(thread) = self.thread.take().filter(JoinHandle::is_finished) {
            let _ = thread.join();
        }
    }
}

struct R2rPublisher {
    publisher: Mutex<Option<PublisherUntyped>>,
    topic: String,
    tasks: Sender<Task>,
}

impl RawPublisher for R2rPublisher {
    fn publish(&self, message: Bytes) -> Result<(), TransportError> {
        CdrView::from_encapsulated(&message)?;
        let publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = publisher.as_ref().map(|publisher| publisher.publish_raw(&message));
        sent.transpose()
            .map(|_| ())
            .map_err(|e| TransportError::Publish { topic: self.topic.clone(), reason: e.to_string() })
    }

    fn subscribers(&self) -> usize {
        let publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        publisher.as_ref().and_then(|p| p.get_inter_process_subscription_count().ok()).unwrap_or(0)
    }

    fn flush(&self, timeout: Duration) -> bool {
        if self.subscribers() > 0 {
            thread::sleep(SETTLE.min(timeout));
        }
        true
    }
}

impl Drop for R2rPublisher {
    fn drop(&mut self) {
        let publisher = self.publisher.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(publisher) = publisher {
            let destroy: Task = Box::new(move |owned| owned.node.destroy_publisher_untyped(publisher));
            // The thread is gone at the end of the process; rcl then cleans up with the node.
            let _ = self.tasks.send_timeout(destroy, SETTLE);
        }
    }
}

struct R2rSubscription {
    topic: String,
    tasks: Sender<Task>,
    stop: Arc<AtomicBool>,
}

impl RawSubscription for R2rSubscription {
    fn publishers(&self) -> usize {
        let topic = self.topic.clone();
        let count = ask(&self.tasks, move |owned| {
            owned.node.get_publishers_info_by_topic(&topic, false).map_or(0, |publishers| publishers.len())
        });
        count.unwrap_or(0)
    }
}

impl Drop for R2rSubscription {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Until the thread has passed the flag once, the handler may still be called.
        let _ = ask(&self.tasks, |_| ());
    }
}
