//! The time of the node's own stamps: the system's, or the simulation's from `/clock`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    messages::Clock,
    transport::{Qos, RawSubscription, Transport, TransportError, subscribe},
};
use crate::types::Stamp;

/// Where the node's time comes from.
pub struct NodeClock {
    /// Simulated time, nanoseconds; 0 before the first message.
    simulated: Option<(Arc<AtomicI64>, Box<dyn RawSubscription>)>,
}

impl NodeClock {
    /// The system's clock, or `/clock` when `use_sim_time`.
    ///
    /// # Errors
    /// [`TransportError::Create`].
    pub fn new(transport: &dyn Transport, use_sim_time: bool) -> Result<Self, TransportError> {
        if !use_sim_time {
            return Ok(Self { simulated: None });
        }
        let nanos = Arc::new(AtomicI64::new(0));
        let target = Arc::clone(&nanos);
        let subscription = subscribe::<Clock, _>(transport, "/clock", Qos::LATEST, move |message| {
            target.store(Stamp::from(message.clock).as_nanos(), Ordering::Relaxed);
        })?;
        Ok(Self { simulated: Some((nanos, subscription)) })
    }

    /// Now. Zero while simulated time has not begun, as rclcpp has it.
    #[must_use]
    pub fn now(&self) -> Stamp {
        match &self.simulated {
            Some((nanos, _)) => Stamp::from_nanos(nanos.load(Ordering::Relaxed)),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Stamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
            }
        }
    }
}
