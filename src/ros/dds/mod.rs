//! The pure-Rust transport: ROS 2's wire protocol on RustDDS, no ROS 2 installation needed.
//!
//! The node is built on RustDDS itself and announces itself on `ros_discovery_info` with the types of `ros2-client`.
//! That crate's own node cannot be used as it is: it copies every message through serde, puts a `/clock` reader of a
//! wrong type on the graph and ties its services to one vendor's mapping.

mod environment;
mod graph;
mod names;
mod peers;
mod publisher;
mod raw;
mod service;
mod subscription;

use std::sync::Arc;

use ros2_client::NodeName;
use rustdds::{
    DomainParticipant, DomainParticipantBuilder, QosPolicies, QosPolicyBuilder, RTPSEntity, Topic, TopicKind,
    policy::{self, ResourceLimits},
};

pub use environment::{DiscoveryRange, Environment};
use graph::Graph;

use super::transport::{
    self, Durability, History, MessageHandler, Qos, RawClient, RawPublisher, RawServer, RawSubscription, Reliability,
    ServiceHandler, TopicInfo, Transport, TransportError,
};

/// What a reliable writer does about readers that do not keep up.
#[derive(Clone, Copy)]
struct Backlog {
    /// How long a write waits for room.
    patience: rustdds::Duration,
    /// Unacknowledged samples that there is room for, or as many as the history keeps, where that is more.
    room: i32,
}

/// How long a reliable write waits for room, where it may wait.
const MAX_BLOCKING: rustdds::Duration = rustdds::Duration::from_millis(100);

/// The usual. The crate's own room, for 8192 images, would not fit in memory.
const USUAL: Backlog = Backlog { patience: MAX_BLOCKING, room: 16 };

/// Where a frame waits. Not without patience: a reliable reader that comes leaves no room until it has acknowledged what
/// was sent before, and what is refused meanwhile nobody gets.
const IN_HASTE: Backlog = Backlog { patience: rustdds::Duration::from_millis(10), ..USUAL };

/// For small messages to many readers, of which one that has vanished must not keep them from the others.
const SMALL: Backlog = Backlog { room: 512, ..USUAL };

/// The graph's: as [`SMALL`], but whoever changes it must not be held up. What is refused is published later.
const GRAPH: Backlog = Backlog { patience: rustdds::Duration::ZERO, ..SMALL };

/// For state of which only the newest counts: the more room there is, the more of the past gets whoever comes late
/// ([`policies`]). What is refused is published again.
const STATE: Backlog = Backlog { room: 1, ..USUAL };

/// No network at all, for a node that must not be found.
const NOBODY: [std::net::Ipv4Addr; 0] = [];

/// One node on the embedded transport.
pub struct DdsTransport {
    // Field order is drop order: the graph says goodbye before the participant goes.
    graph: Arc<Graph>,
    endpoints: Endpoints,
    node_name: String,
}

/// What publishers and subscriptions are made from.
#[derive(Clone)]
struct Endpoints {
    publisher: rustdds::Publisher,
    subscriber: rustdds::Subscriber,
    participant: DomainParticipant,
}

impl Endpoints {
    fn topic(&self, dds_name: &str, dds_type: &str, qos: &QosPolicies) -> Result<Topic, String> {
        self.participant
            .create_topic(dds_name.to_owned(), dds_type.to_owned(), qos, TopicKind::NoKey)
            .map_err(|e| e.to_string())
    }
}

impl DdsTransport {
    /// Joins the domain `environment` names, as node `name` in `namespace` (`/` or `/a/b`).
    ///
    /// # Errors
    /// [`TransportError::Start`] when the sockets cannot be opened, [`TransportError::Create`] for an invalid name.
    pub fn new(namespace: &str, name: &str, environment: &Environment) -> Result<Self, TransportError> {
        let node = NodeName::new(namespace, name).map_err(|e| TransportError::Create {
            what: "node",
            name: format!("{namespace}/{name}"),
            reason: format!("{e:?}"),
        })?;
        let start = |reason: String| TransportError::Start { domain: environment.domain, reason };
        let builder = DomainParticipantBuilder::new(environment.domain);
        let builder = match environment.range {
            DiscoveryRange::Subnet => builder,
            DiscoveryRange::Localhost => builder.with_only_networks([std::net::Ipv4Addr::LOCALHOST]),
            DiscoveryRange::Off => builder.with_only_networks(NOBODY).same_host_loopback(false),
        };
        let participant = builder.build().map_err(|e| start(e.to_string()))?;
        let qos = QosPolicies::qos_none();
        let endpoints = Endpoints {
            publisher: participant.create_publisher(&qos).map_err(|e| start(e.to_string()))?,
            subscriber: participant.create_subscriber(&qos).map_err(|e| start(e.to_string()))?,
            participant,
        };
        let node_name = node.fully_qualified_name();
        let graph = Arc::new(Graph::new(&endpoints, node)?);
        Ok(Self { graph, endpoints, node_name })
    }

    fn publisher(
        &self,
        topic: &str,
        type_name: &str,
        qos: Qos,
        backlog: Backlog,
    ) -> Result<publisher::DdsPublisher, TransportError> {
        publisher::DdsPublisher::new(&self.endpoints, &self.graph, (topic, type_name), qos, backlog)
    }
}

impl Transport for DdsTransport {
    fn node_name(&self) -> &str {
        &self.node_name
    }

    fn advertise(&self, topic: &str, type_name: &str, qos: Qos) -> Result<Arc<dyn RawPublisher>, TransportError> {
        Ok(Arc::new(self.publisher(topic, type_name, qos, USUAL)?))
    }

    fn advertise_in_haste(
        &self,
        topic: &str,
        type_name: &str,
        qos: Qos,
    ) -> Result<Arc<dyn RawPublisher>, TransportError> {
        Ok(Arc::new(self.publisher(topic, type_name, qos, IN_HASTE)?))
    }

    fn advertise_state(&self, topic: &str, type_name: &str) -> Result<Arc<dyn RawPublisher>, TransportError> {
        Ok(Arc::new(self.publisher(topic, type_name, Qos::LATCHED, STATE)?.of_state()))
    }

    fn subscribe(
        &self,
        topic: &str,
        type_name: &str,
        qos: Qos,
        handler: MessageHandler,
    ) -> Result<Box<dyn RawSubscription>, TransportError> {
        Ok(Box::new(subscription::DdsSubscription::new(&self.endpoints, &self.graph, topic, type_name, qos, handler)?))
    }

    fn serve(
        &self,
        service: &str,
        type_name: &str,
        handler: ServiceHandler,
    ) -> Result<Box<dyn RawServer>, TransportError> {
        Ok(Box::new(service::DdsServer::new(&self.endpoints, &self.graph, service, type_name, handler)?))
    }

    fn client(&self, service: &str, type_name: &str) -> Result<Box<dyn RawClient>, TransportError> {
        Ok(Box::new(service::DdsClient::new(&self.endpoints, &self.graph, service, type_name)?))
    }

    fn topics(&self) -> Vec<TopicInfo> {
        let own = self.endpoints.participant.guid();
        let writers = self.endpoints.participant.discovered_writers();
        let foreign =
            writers.iter().map(|writer| &writer.publication_topic_data).filter(|d| d.key.prefix != own.prefix);
        let topics = foreign.filter_map(|data| {
            Some(TopicInfo {
                name: names::ros_topic(&data.topic_name)?,
                type_name: names::ros_type(&data.type_name)?,
                // What is not announced is as DDS has it by default: writers are reliable and volatile.
                reliability: match data.reliability {
                    Some(policy::Reliability::BestEffort) => Reliability::BestEffort,
                    Some(policy::Reliability::Reliable { .. }) | None => Reliability::Reliable,
                },
                durability: match data.durability {
                    Some(policy::Durability::Volatile) | None => Durability::Volatile,
                    Some(_) => Durability::TransientLocal,
                },
            })
        });
        transport::merged(topics.collect())
    }
}

/// The error about a type whose name is not `package/msg/Name`; more than the name is not asked for here.
fn not_a_type(what: &'static str, name: &str, type_name: &str) -> TransportError {
    let (name, type_name) = (name.to_owned(), type_name.to_owned());
    TransportError::UnknownType { what, name, type_name, reason: "is not a ROS type" }
}

/// Which end of a topic a QoS is for.
#[derive(Clone, Copy)]
enum End {
    Writer(Backlog),
    Reader,
}

/// The DDS policies of `qos`.
fn policies(qos: Qos, end: End) -> QosPolicies {
    let builder = match (qos.reliability, end) {
        (Reliability::BestEffort, _) => QosPolicyBuilder::new().best_effort(),
        (Reliability::Reliable, End::Writer(backlog)) => QosPolicyBuilder::new().reliable(backlog.patience),
        (Reliability::Reliable, End::Reader) => QosPolicyBuilder::new().reliable(MAX_BLOCKING),
    };
    let builder = builder.durability(match qos.durability {
        Durability::Volatile => policy::Durability::Volatile,
        Durability::TransientLocal => policy::Durability::TransientLocal,
    });
    let depth = match qos.history {
        History::KeepLast(depth) => Some(i32::try_from(depth.max(1)).unwrap_or(i32::MAX)),
        History::KeepAll => None,
    };
    let builder = builder.history(depth.map_or(policy::History::KeepAll, |depth| policy::History::KeepLast { depth }));
    // RustDDS announces it and throws nothing away itself: what is too old is the reader's to see.
    let builder = match qos.lifespan {
        Some(lifespan) if matches!(end, End::Writer(_)) => {
            builder.lifespan(policy::Lifespan { duration: lifespan.into() })
        }
        _ => builder,
    };
    // RustDDS readers queue up to the resource limit whatever the history depth says: the limit is what makes KEEP_LAST
    // true. Of a reliable writer's samples it bounds those that a reader has not acknowledged. All others stay too where a
    // reliable reader is matched, and where a late one would get them (transient local), until the writer cleans up, every
    // 6 s. What it keeps then is the history's depth or, while no reliable reader is there, one sample more than the limit.
    let limit = match (end, depth) {
        (End::Reader, Some(depth)) => depth,
        (End::Writer(backlog), Some(depth)) => depth.max(backlog.room),
        (_, None) => 1024,
    };
    builder
        .resource_limits(ResourceLimits { max_samples: limit, max_instances: 1, max_samples_per_instance: limit })
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_has_room_for_its_history_and_its_backlog() {
        let limit = |qos, end| policies(qos, end).resource_limits().unwrap().max_samples;
        assert_eq!(limit(Qos::RELIABLE, End::Writer(USUAL)), 16);
        assert_eq!(limit(Qos::RELIABLE, End::Writer(SMALL)), 512, "services");
        assert_eq!(limit(Qos::LATCHED, End::Writer(GRAPH)), 512);
        assert_eq!(limit(Qos::LATCHED, End::Writer(STATE)), 1, "who comes late gets little else than the newest");
        assert_eq!(limit(Qos::ROSOUT, End::Writer(USUAL)), 1000);
        assert_eq!(limit(Qos::LATEST, End::Reader), 1);
    }
}
