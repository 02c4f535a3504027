//! The node's entry on `ros_discovery_info`, from which `ros2 node list` and `ros2 node info` are made.

use std::sync::{Mutex, PoisonError};

use ros2_client::{
    Gid, NodeName, builtin_topics,
    entities_info::{NodeEntitiesInfo, ParticipantEntitiesInfo},
};
use rustdds::{GUID, RTPSEntity, WriteOptions};

use super::{Endpoints, MAX_BLOCKING, Qos, TransportError, publisher::Writer};
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
}

impl Graph {
    /// Announces the node, as yet without topics.
    pub fn new(endpoints: &Endpoints, node: NodeName) -> Result<Self, TransportError> {
        let name = builtin_topics::ros_discovery::TOPIC_NAME;
        let topic = (name, builtin_topics::ros_discovery::TYPE_NAME);
        let writer = Writer::new(endpoints, topic, Qos::LATCHED, MAX_BLOCKING)
            .map_err(|reason| TransportError::Create { what: "publisher", name: name.to_owned(), reason })?;
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
        let mut node = NodeEntitiesInfo::new(self.node.clone());
        entities.readers.iter().for_each(|gid| node.add_reader(*gid));
        entities.writers.iter().for_each(|gid| node.add_writer(*gid));
        self.publish(vec![node]);
    }

    fn publish(&self, nodes: Vec<NodeEntitiesInfo>) {
        let sent = cdr::encode(&ParticipantEntitiesInfo::new(self.participant, nodes))
            .map_err(|e| e.to_string())
            .and_then(|message| self.writer.write(message.slice(ENCAPSULATION..), WriteOptions::default()));
        if let Err(error) = sent {
            tracing::warn!(error, "could not announce the node's topics");
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.publish(Vec::new());
        self.writer.flush(std::time::Duration::from_millis(50));
    }
}
