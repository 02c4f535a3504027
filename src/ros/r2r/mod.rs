//! The node inside a sourced ROS 2 workspace: the port on rcl, through the `r2r` crate, with raw bytes both ways.
//!
//! One thread, `ros`, owns the rcl node: it spins, drains every subscription after each wake-up (r2r queues ten samples
//! and then drops the newest) and carries out what others ask of the node in between. Publishing needs no thread but
//! the publisher's own. rcl reads the process's arguments itself, so its own topics and logs follow them too; names are
//! given to it so that its remapping gives what the node has resolved already.

mod owner;
mod publisher;
mod service;
mod subscription;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use r2r::{
    QosProfile,
    qos::{DurabilityPolicy, ReliabilityPolicy},
};

use self::{
    owner::{Owned, Task, ask},
    publisher::R2rPublisher,
    service::R2rServer,
    subscription::R2rSubscription,
};
use super::{
    arguments::{NodeIdentity, RosArguments},
    transport::{
        self, Durability, History, MessageHandler, Qos, RawClient, RawPublisher, RawServer, RawSubscription,
        Reliability, ServiceHandler, TopicInfo, Transport, TransportError,
    },
};

/// How long the end of the `ros` thread may take, farewells to the graph included.
const END: Duration = Duration::from_secs(2);
/// Tasks that may wait for the `ros` thread.
const WAITING_TASKS: usize = 64;

/// One node on rcl.
pub struct R2rTransport {
    node_name: String,
    /// The rules that rcl applies to every name.
    identity: Option<NodeIdentity>,
    tasks: Sender<Task>,
    /// Disconnected when the thread ends.
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl R2rTransport {
    /// Creates node `name` in `namespace` (`/` or `/a/b`) on the domain that rcl finds in the environment.
    ///
    /// # Errors
    /// [`TransportError::Start`], [`TransportError::Environment`].
    pub fn new(namespace: &str, name: &str) -> Result<Self, TransportError> {
        let domain = domain()?;
        let (tasks, incoming) = bounded::<Task>(WAITING_TASKS);
        let (ready, is_ready) = bounded(1);
        let (alive, ended) = bounded::<()>(0);
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let identity = process_identity(&name);
        let start = |reason: String| TransportError::Start { domain, reason };
        let thread = thread::Builder::new()
            .name("ros".to_owned())
            .spawn(move || {
                // Dropped last, after the node has left the graph.
                let _alive: Sender<()> = alive;
                match Owned::create(&namespace, &name) {
                    Ok((owned, full_name)) => {
                        let _ = ready.send(Ok(full_name));
                        owned.spin(&incoming);
                    }
                    Err(reason) => {
                        let _ = ready.send(Err(reason));
                    }
                }
            })
            .map_err(|e| start(e.to_string()))?;
        let node_name = is_ready.recv().unwrap_or_else(|_| Err("the ros thread ended".to_owned())).map_err(start)?;
        Ok(Self { node_name, identity, tasks, ended, thread: Some(thread) })
    }

    /// The name to give to rcl so that it becomes `name`.
    fn rcl_name(&self, name: &str) -> String {
        self.identity.as_ref().map_or_else(|| name.to_owned(), |identity| identity.before_remapping(name))
    }

    /// Runs `make` on the thread that owns the node; its failure becomes [`TransportError::Create`] or, where r2r was not
    /// built with the type, [`TransportError::UnknownType`].
    fn create<T: Send + 'static>(
        &self,
        what: &'static str,
        name: &str,
        type_name: &str,
        make: impl FnOnce(&mut Owned) -> r2r::Result<T> + Send + 'static,
    ) -> Result<T, TransportError> {
        let reason = match ask(&self.tasks, make) {
            Some(Ok(made)) => return Ok(made),
            Some(Err(r2r::Error::InvalidMessageType { .. })) => {
                return Err(TransportError::UnknownType {
                    what,
                    name: name.to_owned(),
                    type_name: type_name.to_owned(),
                    reason: "is not among the message packages this program was built with (CMakeLists.txt)",
                });
            }
            Some(Err(error)) => error.to_string(),
            None => "the ros thread does not answer".to_owned(),
        };
        Err(TransportError::Create { what, name: name.to_owned(), reason })
    }
}

/// The node as the process's ROS arguments describe it; `None` where there are none.
fn process_identity(name: &str) -> Option<NodeIdentity> {
    let arguments: Vec<_> = std::env::args().skip_while(|argument| argument != "--ros-args").collect();
    // Wrong arguments were refused before a transport was asked for.
    RosArguments::parse(&arguments).ok()?.identity(name).ok()
}

/// Highest domain whose ports exist.
const MAX_DOMAIN: u16 = 232;

/// The domain as rcl reads it. Checked here, as r2r panics where rcl refuses it.
fn domain() -> Result<u16, TransportError> {
    let text = std::env::var("ROS_DOMAIN_ID").unwrap_or_default();
    match text.parse() {
        _ if text.is_empty() => Ok(0),
        Ok(domain) if domain <= MAX_DOMAIN => Ok(domain),
        _ => Err(TransportError::Environment {
            name: "ROS_DOMAIN_ID",
            value: text,
            reason: "must be a whole number from 0 to 232",
        }),
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
    let profile = match qos.durability {
        Durability::Volatile => profile.volatile(),
        Durability::TransientLocal => profile.transient_local(),
    };
    profile.lifespan(qos.lifespan.unwrap_or_default())
}

impl Transport for R2rTransport {
    fn node_name(&self) -> &str {
        &self.node_name
    }

    fn advertise(&self, topic: &str, type_name: &str, qos: Qos) -> Result<Arc<dyn RawPublisher>, TransportError> {
        let (name, kind) = (self.rcl_name(topic), type_name.to_owned());
        let publisher = self.create("publisher", topic, type_name, move |owned| {
            owned.node.create_publisher_untyped(&name, &kind, profile(qos))
        })?;
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
        let (name, kind, shown) = (self.rcl_name(topic), type_name.to_owned(), topic.to_owned());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let subscribed = self.create("subscription", topic, type_name, move |owned| {
            let stream = owned.node.subscribe_raw(&name, &kind, profile(qos))?;
            owned.subscribed(Box::new(stream), handler, shown, stopped);
            Ok(())
        });
        // Where the thread did not answer in time it may still subscribe.
        subscribed.inspect_err(|_| stop.store(true, Ordering::Release))?;
        Ok(Box::new(R2rSubscription { topic: topic.to_owned(), tasks: self.tasks.clone(), stop }))
    }

    fn serve(
        &self,
        service: &str,
        type_name: &str,
        handler: ServiceHandler,
    ) -> Result<Box<dyn RawServer>, TransportError> {
        let (name, kind) = (self.rcl_name(service), type_name.to_owned());
        let requests = self.create("service", service, type_name, move |owned| {
            let opened = service::open(&mut owned.node, &name, &kind).transpose()?;
            owned.serving |= opened.is_some();
            Ok(opened)
        })?;
        let Some(requests) = requests else {
            return Err(TransportError::Unsupported { transport: "r2r", ability: "serve this service type" });
        };
        Ok(Box::new(R2rServer::start(service, requests, handler)?))
    }

    fn client(&self, _service: &str, _type_name: &str) -> Result<Box<dyn RawClient>, TransportError> {
        Err(TransportError::Unsupported { transport: "r2r", ability: "call services" })
    }

    fn topics(&self) -> Vec<TopicInfo> {
        let own = self.node_name.clone();
        let found = ask(&self.tasks, move |owned| {
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
        // Until the node has left, others see it on the graph: a process that just ends is seen for ten seconds more.
        // Publishers and subscriptions may hold senders of their own, so the thread does not end for want of them.
        let asked = ask(&self.tasks, |owned| owned.ending = true).is_some();
        let ended = asked && !matches!(self.ended.recv_timeout(END), Err(RecvTimeoutError::Timeout));
        match self.thread.take() {
            Some(thread) if ended => {
                if thread.join().is_err() {
                    tracing::error!("the ros thread panicked");
                }
            }
            _ => tracing::warn!("left without a farewell: the ros thread does not end"),
        }
    }
}
