//! The `ros` thread: the one that owns the rcl node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use futures::{FutureExt, Stream, StreamExt};
use r2r::{Context, Node};

use crate::ros::{cdr::CdrView, transport::MessageHandler};

/// How long rcl waits for something to happen before others may ask for the node; r2r offers no way to wake it.
const SPIN: Duration = Duration::from_millis(10);
/// The same while there is nothing that rcl could wait for, when it returns at once.
const IDLE: Duration = Duration::from_millis(100);
/// How long an answer of the `ros` thread may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something to be done by the thread that owns the node.
pub type Task = Box<dyn FnOnce(&mut Owned) + Send>;

/// Runs `task` on the thread that owns the node and waits for its result; `None` when it does not answer.
pub fn ask<T: Send + 'static>(tasks: &Sender<Task>, task: impl FnOnce(&mut Owned) -> T + Send + 'static) -> Option<T> {
    let (sender, answer) = bounded(1);
    let boxed: Task = Box::new(move |owned| {
        let _ = sender.send(task(owned));
    });
    tasks.send_timeout(boxed, PATIENCE).ok()?;
    answer.recv_timeout(PATIENCE).ok()
}

/// What the `ros` thread owns.
pub struct Owned {
    /// The rcl node.
    pub node: Node,
    /// Set to leave the graph.
    pub ending: bool,
    /// Whether rcl has services to wait for.
    pub serving: bool,
    subscriptions: Vec<Subscribed>,
}

struct Subscribed {
    stream: Box<dyn Stream<Item = Vec<u8>> + Unpin>,
    handler: MessageHandler,
    topic: String,
    stop: Arc<AtomicBool>,
}

impl Owned {
    /// Creates the node; gives its full name too.
    pub fn create(namespace: &str, name: &str) -> Result<(Self, String), String> {
        let context = Context::create().map_err(|e| e.to_string())?;
        let node = Node::create(context, name, namespace).map_err(|e| e.to_string())?;
        let full_name = node.fully_qualified_name().map_err(|e| e.to_string())?;
        Ok((Self { node, ending: false, serving: false, subscriptions: Vec::new() }, full_name))
    }

    /// Calls `handler` for what comes out of `stream` until `stop` is set.
    pub fn subscribed(
        &mut self,
        stream: Box<dyn Stream<Item = Vec<u8>> + Unpin>,
        handler: MessageHandler,
        topic: String,
        stop: Arc<AtomicBool>,
    ) {
        self.subscriptions.push(Subscribed { stream, handler, topic, stop });
    }

    /// Until somebody sets `ending`, or every sender of tasks is gone.
    pub fn spin(mut self, tasks: &Receiver<Task>) {
        loop {
            loop {
                match tasks.try_recv() {
                    Ok(task) => task(&mut self),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            if self.ending {
                return;
            }
            self.subscriptions.retain(|subscribed| !subscribed.stop.load(Ordering::Acquire));
            if self.subscriptions.is_empty() && !self.serving {
                match tasks.recv_timeout(IDLE) {
                    Ok(task) => task(&mut self),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                continue;
            }
            self.node.spin_once(SPIN);
            for subscribed in &mut self.subscriptions {
                subscribed.drain();
            }
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
