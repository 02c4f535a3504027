//! The node's entry on `ros_discovery_info`, from which `ros2 node list` and `ros2 node info` are made.

use std::sync::{Mutex, PoisonError, TryLockError};

use ros2_client::{
    Gid, NodeName, builtin_topics,
    entities_info::{NodeEntitiesInfo, ParticipantEntitiesInfo},
};
use rustdds::{GUID, RTPSEntity, WriteOptions};

use super::{Endpoints, GRAPH, Qos, TransportError, publisher::Writer};
use crate::ros::cdr::{self, ENCAPSULATION};

/// Which readers and writers belong to the node.
pub struct Graph {
    participant: Gid,
    node: NodeName,
    writer: Writer,
    entities: Mutex<Entities>,
}

#[derive(Default)]
struct Entities {
    readers: Vec<Gid>,
    writers: Vec<Gid>,
    /// The last change could not be published.
    unpublished: bool,
}

impl Graph {
    /// Announces the node, as yet without topics.
    pub fn new(endpoints: &Endpoints, node: NodeName) -> Result<Self, TransportError> {
        let name = builtin_topics::ros_discovery::TOPIC_NAME;
        let topic = (name, builtin_topics::ros_discovery::TYPE_NAME);
        let create = |reason| TransportError::Create { what: "publisher", name: name.to_owned(), reason };
        let writer = Writer::new(endpoints, topic, Qos::LATCHED, GRAPH).map_err(create)?;
        let graph = Self {
            participant: Gid::from(endpoints.participant.guid()),
            node,
            writer,
            entities: Mutex::new(Entities::default()),
        };
        graph.change(|_| {});
        Ok(graph)
    }

    pub fn add_reader(&self, guid: GUID) {
        self.change(|entities| entities.readers.push(guid.into()));
    }

    pub fn add_writer(&self, guid: GUID) {
        self.change(|entities| entities.writers.push(guid.into()));
    }

    pub fn remove_reader(&self, guid: GUID) {
        self.change(|entities| entities.readers.retain(|gid| *gid != Gid::from(guid)));
    }

    pub fn remove_writer(&self, guid: GUID) {
        self.change(|entities| entities.writers.retain(|gid| *gid != Gid::from(guid)));
    }

    /// Applies `change` and publishes the new state; the lock keeps the order of changes and publications the same.
    fn change(&self, change: impl FnOnce(&mut Entities)) {
        let mut entities = self.entities.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut entities);
        self.announce(&mut entities);
    }

    /// Publishes a change that could not be published when it was made. Never waits.
    pub fn catch_up(&self) {
        let mut entities = match self.entities.try_lock() {
            Ok(entities) => entities,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            // Whoever changes something publishes all of it.
            Err(TryLockError::WouldBlock) => return,
        };
        if entities.unpublished {
            self.announce(&mut entities);
        }
    }

    fn announce(&self, entities: &mut Entities) {
        let mut node = NodeEntitiesInfo::new(self.node.clone());
        entities.readers.iter().for_each(|gid| node.add_reader(*gid));
        entities.writers.iter().for_each(|gid| node.add_writer(*gid));
        let published = self.publish(vec![node]);
        if let Err(error) = &published
            && !entities.unpublished
        {
            tracing::warn!(error, "could not announce the node's topics; it is tried again with every message");
        }
        entities.unpublished = published.is_err();
    }

    fn publish(&self, nodes: Vec<NodeEntitiesInfo>) -> Result<(), String> {
        let message = cdr::encode(&ParticipantEntitiesInfo::new(self.participant, nodes)).map_err(|e| e.to_string())?;
        self.writer.write(message.slice(ENCAPSULATION..), WriteOptions::default()).map(|_| ())
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Err(error) = self.publish(Vec::new()) {
            tracing::warn!(error, "could not announce that the node has left");
        }
        self.writer.flush(std::time::Duration::from_millis(50));
    }
}
