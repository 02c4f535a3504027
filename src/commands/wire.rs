//! Joining the ROS graph.

use std::sync::Arc;

use anyhow::Result;
use scenelex::{
    replay::{Durability, History, OfferedQos, Reliability},
    ros::{self, Qos, Transport, transport},
};

/// A node called `name` on the domain that the environment names.
pub fn join(name: &str) -> Result<Arc<dyn Transport>> {
    Ok(ros::connect("/", name)?)
}

/// A bag's quality of service in the transport's words.
pub const fn to_transport(qos: OfferedQos) -> Qos {
    Qos {
        reliability: match qos.reliability {
            Reliability::Reliable => transport::Reliability::Reliable,
            Reliability::BestEffort => transport::Reliability::BestEffort,
        },
        durability: match qos.durability {
            Durability::TransientLocal => transport::Durability::TransientLocal,
            Durability::Volatile => transport::Durability::Volatile,
        },
        history: match qos.history {
            History::KeepLast => transport::History::KeepLast(qos.depth),
            History::KeepAll => transport::History::KeepAll,
        },
        lifespan: None,
    }
}

/// The transport's quality of service in a bag's words.
pub const fn to_bag(qos: Qos) -> OfferedQos {
    let (history, depth) = match qos.history {
        transport::History::KeepLast(depth) => (History::KeepLast, depth),
        transport::History::KeepAll => (History::KeepAll, 0),
    };
    OfferedQos {
        reliability: match qos.reliability {
            transport::Reliability::Reliable => Reliability::Reliable,
            transport::Reliability::BestEffort => Reliability::BestEffort,
        },
        durability: match qos.durability {
            transport::Durability::TransientLocal => Durability::TransientLocal,
            transport::Durability::Volatile => Durability::Volatile,
        },
        history,
        depth,
    }
}
