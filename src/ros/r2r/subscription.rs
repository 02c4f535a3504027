//! The caller's side of a subscription; its samples are handed out by the `ros` thread.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crossbeam::channel::Sender;

use super::owner::{Task, ask};
use crate::ros::transport::RawSubscription;

pub struct R2rSubscription {
    pub topic: String,
    pub tasks: Sender<Task>,
    pub stop: Arc<AtomicBool>,
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
