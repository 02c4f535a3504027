//! The time of the node's own stamps: the system's, or the simulation's from `/clock`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    arguments::NodeIdentity,
    messages::Clock,
    node::NodeError,
    transport::{Qos, RawSubscription, Transport, subscribe},
};
use crate::types::Stamp;

/// Where the node's time comes from, for whoever reads it. Cheap to clone.
#[derive(Clone)]
pub struct NodeTime {
    /// Simulated time, nanoseconds; 0 before the first message.
    simulated: Option<Arc<AtomicI64>>,
}

impl NodeTime {
    /// Now. Zero while simulated time has not begun, as rclcpp has it.
    #[must_use]
    pub fn now(&self) -> Stamp {
        match &self.simulated {
            Some(nanos) => Stamp::from_nanos(nanos.load(Ordering::Relaxed)),
            None => system_now(),
        }
    }
}

/// The system's time, whatever the node goes by.
pub fn system_now() -> Stamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Stamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Keeps the node's time going.
pub struct NodeClock {
    time: NodeTime,
    _subscription: Option<Box<dyn RawSubscription>>,
}

impl NodeClock {
    /// The system's clock, or `/clock`, remapped as every name, when `use_sim_time`.
    ///
    /// # Errors
    /// [`NodeError`] when there is no such topic.
    pub fn new(transport: &dyn Transport, identity: &NodeIdentity, use_sim_time: bool) -> Result<Self, NodeError> {
        if !use_sim_time {
            return Ok(Self { time: NodeTime { simulated: None }, _subscription: None });
        }
        let nanos = Arc::new(AtomicI64::new(0));
        let target = Arc::clone(&nanos);
        let topic = identity.resolve("/clock")?;
        let subscription = subscribe::<Clock, _>(transport, &topic, Qos::LATEST, move |message| {
            target.store(Stamp::from(message.clock).as_nanos(), Ordering::Relaxed);
        })?;
        Ok(Self { time: NodeTime { simulated: Some(nanos) }, _subscription: Some(subscription) })
    }

    /// The time it keeps.
    #[must_use]
    pub fn time(&self) -> NodeTime {
        self.time.clone()
    }
}
