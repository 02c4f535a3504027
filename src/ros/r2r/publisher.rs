//! Publishing bytes that are encoded already.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use bytes::Bytes;
use crossbeam::channel::Sender;
use r2r::PublisherUntyped;

use super::owner::Task;
use crate::ros::{
    cdr::CdrView,
    transport::{RawPublisher, TransportError},
};

/// Time the middleware gets to send what was published, as r2r cannot say when it has.
const SETTLE: Duration = Duration::from_millis(50);

pub struct R2rPublisher {
    /// Taken when this is dropped.
    pub publisher: Mutex<Option<PublisherUntyped>>,
    pub topic: String,
    pub tasks: Sender<Task>,
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
            // Where the thread has ended, rcl has cleaned up with the node.
            let _ = self.tasks.send_timeout(destroy, SETTLE);
        }
    }
}
