//! `/rosout`: the node's log on the graph, where `rqt_console`, Foxglove and `ros2 topic echo` look for it.
//!
//! ```text
//! any thread ─▶ LogLayer (never waits) ─▶ bounded queue ─▶ "rosout" ─▶ /rosout
//! ```
//!
//! The layer stands in the log from the start of the process. What is logged before the node is on the graph waits in the
//! queue; what finds the queue full is counted, and the count is published as soon as there is room.
//!
//! As in rcl (`logging_rosout.c`) stamps are the system's time, whatever `use_sim_time` says, a line is published that has
//! passed the log level, and only the node's own: what libraries say stays on stderr. Since Jazzy it is the client library,
//! not rcl, that makes this publisher, so that there is no second one beside it on r2r.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam::{
    channel::{Receiver, Sender, TrySendError, bounded},
    select,
};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::{
    Layer,
    fmt::{
        FormatFields,
        format::{DefaultFields, Writer},
    },
    layer::Context,
};

use super::{
    arguments::NodeIdentity,
    clock::system_now,
    messages::log::{Log, level},
    node::NodeError,
    transport::{LINGER, Publisher, Qos, Transport},
};
use crate::types::Stamp;

const TOPIC: &str = "/rosout";
/// Lines that may wait: more than a start logs, and few enough to be published in no time.
const WAITING: usize = 512;
/// How long the end waits until what is queued has been published and has arrived.
const END: Duration = Duration::from_millis(500);

thread_local! {
    /// Set on the thread that publishes: what publishing logs is not published.
    static PUBLISHING: Cell<bool> = const { Cell::new(false) };
}

/// One line of the log.
struct Line {
    stamp: Stamp,
    text: String,
    metadata: &'static Metadata<'static>,
}

#[derive(Debug)]
struct Shared {
    /// Whether somebody publishes, or is going to.
    open: AtomicBool,
    /// Lines that found no room since that was last told.
    lost: AtomicU64,
}

/// Takes lines from the log; never waits, whatever becomes of them.
pub struct LogLayer {
    lines: Sender<Line>,
    shared: Arc<Shared>,
}

/// Lines on their way to `/rosout`. Once it is dropped its layer does nothing any more.
pub struct LogQueue {
    lines: Receiver<Line>,
    shared: Arc<Shared>,
}

/// A layer for the log, and the queue that it fills.
#[must_use]
pub fn channel() -> (LogLayer, LogQueue) {
    let (sender, lines) = bounded(WAITING);
    let shared = Arc::new(Shared { open: AtomicBool::new(true), lost: AtomicU64::new(0) });
    (LogLayer { lines: sender, shared: Arc::clone(&shared) }, LogQueue { lines, shared })
}

impl Drop for LogQueue {
    fn drop(&mut self) {
        self.shared.open.store(false, Ordering::Relaxed);
    }
}

/// Whether a target is this crate's, the program's included.
fn is_own(target: &str) -> bool {
    let rest = target.strip_prefix(env!("CARGO_CRATE_NAME"));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if !self.shared.open.load(Ordering::Relaxed) || !is_own(metadata.target()) || PUBLISHING.get() {
            return;
        }
        let lose = || self.shared.lost.fetch_add(1, Ordering::Relaxed);
        // Looked at first, so that a flood costs no more than counting it.
        if self.lines.is_full() {
            lose();
            return;
        }
        let mut text = String::new();
        // Fields as on stderr.
        if DefaultFields::new().format_fields(Writer::new(&mut text), event).is_err() {
            lose();
            return;
        }
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Line { stamp: system_now(), text, metadata }) {
            lose();
        }
    }
}

/// The thread `rosout`; what is queued when this is dropped is published before it ends.
pub struct Rosout {
    /// Gets the time by which the thread has to end; dropped, it ends soon.
    stop: Option<Sender<Instant>>,
    thread: Option<JoinHandle<()>>,
}

impl Rosout {
    /// Publishes what comes out of `log`.
    ///
    /// # Errors
    /// [`NodeError::Transport`] and [`NodeError::Name`] when there is no such topic, [`NodeError::Thread`] when the system
    /// gives no thread.
    pub fn start(transport: &dyn Transport, identity: &NodeIdentity, log: LogQueue) -> Result<Self, NodeError> {
        let publisher = Publisher::new(transport, &identity.resolve(TOPIC)?, Qos::ROSOUT)?;
        let console = Console { publisher, log, name: identity.logger_name() };
        let (stop, stopped) = bounded(1);
        let thread = thread::Builder::new().name("rosout".to_owned()).spawn(move || console.run(&stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Publishes what is queued, and waits until it has arrived, until `deadline` at most.
    pub fn end(self, deadline: Instant) {
        if let Some(stop) = &self.stop {
            let _ = stop.try_send(deadline);
        }
    }
}

impl Drop for Rosout {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the rosout thread panicked");
        }
    }
}

/// What the thread owns.
struct Console {
    publisher: Publisher<Log>,
    log: LogQueue,
    name: String,
}

impl Console {
    fn run(self, stopped: &Receiver<Instant>) {
        PUBLISHING.set(true);
        let mut untold = 0;
        let deadline = loop {
            // In a flood the queue is never empty: then once for as many lines as it holds.
            if self.log.lines.is_empty() || untold >= WAITING {
                self.tell_lost();
                untold = 0;
            }
            select! {
                recv(self.log.lines) -> line => match line {
                    Ok(line) => self.publish(line),
                    Err(_) => break Instant::now(),
                },
                recv(stopped) -> deadline => break deadline.unwrap_or_else(|_| Instant::now() + END + LINGER),
            }
            untold += 1;
        };
        let deadline = deadline.checked_sub(LINGER).unwrap_or(deadline);
        while Instant::now() < deadline
            && let Ok(line) = self.log.lines.try_recv()
        {
            self.publish(line);
        }
        self.tell_lost();
        self.publisher.raw().flush(deadline.saturating_duration_since(Instant::now()));
        if self.publisher.raw().subscribers() > 0 {
            thread::sleep(LINGER);
        }
    }

    fn publish(&self, Line { stamp, text, metadata }: Line) {
        let message = Log {
            stamp: stamp.into(),
            level: match *metadata.level() {
                Level::ERROR => level::ERROR,
                Level::WARN => level::WARN,
                Level::INFO => level::INFO,
                Level::DEBUG | Level::TRACE => level::DEBUG,
            },
            name: self.name.clone(),
            msg: text,
            file: metadata.file().unwrap_or_default().to_owned(),
            function: metadata.module_path().unwrap_or_default().to_owned(),
            line: metadata.line().unwrap_or_default(),
        };
        self.send(&message, 1);
    }

    /// Says how many lines are missing, if any are.
    fn tell_lost(&self) {
        let lost = self.log.shared.lost.swap(0, Ordering::Relaxed);
        if lost == 0 {
            return;
        }
        let message = Log {
            stamp: system_now().into(),
            level: level::WARN,
            name: self.name.clone(),
            msg: format!("{lost} lines of the log are missing here: they came faster than they could be published"),
            file: file!().to_owned(),
            function: module_path!().to_owned(),
            line: line!(),
        };
        self.send(&message, lost);
    }

    /// Sends a message that speaks for so many lines.
    fn send(&self, message: &Log, lines: u64) {
        if let Err(error) = self.publisher.publish(message) {
            // To stderr; nothing of this thread's own is published.
            tracing::debug!(%error, lines, "lines of the log were not published");
            self.log.shared.lost.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use tracing::{Dispatch, dispatcher::with_default};
    use tracing_subscriber::{layer::SubscriberExt, registry};

    use super::*;
    use crate::ros::{
        arguments::RosArguments,
        cdr::CdrView,
        testing::{LONG, OneWay, until},
        transport::{RawPublisher, TransportError},
    };

    /// What happens when the wire is given a message.
    type OnPublish = Box<dyn Fn() -> Result<(), TransportError> + Send + Sync>;

    /// A wire that ends here.
    #[derive(Clone)]
    struct Wire(Arc<WireState>);

    struct WireState {
        opened: Mutex<Vec<(String, String, Qos)>>,
        sent: Mutex<Vec<Log>>,
        on_publish: OnPublish,
    }

    impl Wire {
        fn new(on_publish: OnPublish) -> Self {
            Self(Arc::new(WireState { opened: Mutex::default(), sent: Mutex::default(), on_publish }))
        }

        fn sent(&self) -> Vec<Log> {
            self.0.sent.lock().unwrap().clone()
        }
    }

    impl RawPublisher for Wire {
        fn publish(&self, message: Bytes) -> Result<(), TransportError> {
            (self.0.on_publish)()?;
            self.0.sent.lock().unwrap().push(CdrView::from_encapsulated(&message)?.decode()?);
            Ok(())
        }

        fn subscribers(&self) -> usize {
            0
        }

        fn flush(&self, _: Duration) -> bool {
            true
        }
    }

    /// A log that goes nowhere but into the queue.
    fn log() -> (Dispatch, LogQueue) {
        let (layer, queue) = channel();
        (Dispatch::new(registry().with(layer)), queue)
    }

    fn start(wire: &Wire, queue: LogQueue) -> Rosout {
        let arguments = RosArguments::parse(&["--ros-args", "-r", "__ns:=/a/b", "-r", "__node:=c"]).unwrap();
        let wire = wire.clone();
        let transport = OneWay::publishing(move |topic: &str, kind: &str, qos, _| -> Arc<dyn RawPublisher> {
            wire.0.opened.lock().unwrap().push((topic.to_owned(), kind.to_owned(), qos));
            Arc::new(wire.clone())
        });
        Rosout::start(&transport, &arguments.identity("scenelex").unwrap(), queue).unwrap()
    }

    #[test]
    fn a_line_arrives_with_its_level_fields_and_place() {
        let (dispatch, queue) = log();
        let before = system_now();
        let first = with_default(&dispatch, || {
            tracing::warn!(topic = "/a", count = 3, "skipped {}", "it");
            line!() - 1
        });
        // The first came before there was a topic.
        let wire = Wire::new(Box::new(|| Ok(())));
        let rosout = start(&wire, queue);
        with_default(&dispatch, || {
            tracing::error!("e");
            tracing::info!("i");
            tracing::debug!("d");
            tracing::trace!(only = "fields");
        });
        drop(rosout);
        assert_eq!(
            *wire.0.opened.lock().unwrap(),
            [(TOPIC.to_owned(), "rcl_interfaces/msg/Log".to_owned(), Qos::ROSOUT)]
        );
        let sent = wire.sent();
        let lines: Vec<_> = sent.iter().map(|line| (line.level, line.msg.as_str())).collect();
        let expected =
            [(30, "skipped it topic=\"/a\" count=3"), (40, "e"), (20, "i"), (10, "d"), (10, "only=\"fields\"")];
        assert_eq!(lines, expected);
        let Log { stamp, name, file, function, line, .. } = &sent[0];
        assert_eq!((name.as_str(), file.as_str(), function.as_str(), *line), ("a.b.c", file!(), module_path!(), first));
        assert!((before..=system_now()).contains(&Stamp::from(*stamp)), "{stamp:?}");
    }

    #[test]
    fn only_the_nodes_own_lines_are_published() {
        let (dispatch, queue) = log();
        let wire = Wire::new(Box::new(|| Ok(())));
        let rosout = start(&wire, queue);
        with_default(&dispatch, || {
            tracing::error!(target: "rustdds::network", "a library's");
            tracing::error!(target: "scenelexicon", "another's");
            tracing::error!(target: "scenelex", "the program's");
            tracing::error!(target: "scenelex::commands", "a command's");
        });
        drop(rosout);
        with_default(&dispatch, || tracing::error!("too late"));
        let texts: Vec<_> = wire.sent().into_iter().map(|line| line.msg).collect();
        assert_eq!(texts, ["the program's", "a command's"]);
    }

    #[test]
    fn what_publishing_logs_is_not_published() {
        let (dispatch, queue) = log();
        let on_thread = dispatch.clone();
        let wire = Wire::new(Box::new(move || {
            with_default(&on_thread, || tracing::error!(target: "scenelex::ros::dds", "the wire is slow"));
            Ok(())
        }));
        let rosout = start(&wire, queue);
        with_default(&dispatch, || tracing::info!("one"));
        until("published", || !wire.sent().is_empty());
        drop(rosout);
        assert_eq!(wire.sent().len(), 1);
    }

    #[test]
    fn a_flood_waits_for_nobody_and_what_is_missing_is_told() {
        const FLOOD: u64 = 5000;
        let (dispatch, queue) = log();
        let (open, closed) = bounded::<()>(0);
        let wire = Wire::new(Box::new(move || {
            // Until it is disconnected.
            let _ = closed.recv();
            Ok(())
        }));
        let rosout = start(&wire, queue);
        let (done, flooded) = bounded(1);
        let flood = thread::Builder::new().name("flood".to_owned()).spawn(move || {
            with_default(&dispatch, || (0..FLOOD).for_each(|number| tracing::info!(number)));
            done.send(()).unwrap();
        });
        flooded.recv_timeout(LONG).expect("whoever logs waits for the wire");
        flood.unwrap().join().unwrap();
        assert!(wire.sent().is_empty());
        drop(open);
        until("told", || wire.sent().iter().any(|line| line.level == level::WARN));
        drop(rosout);
        let sent = wire.sent();
        let (told, lines): (Vec<_>, Vec<_>) = sent.iter().partition(|line| line.level == level::WARN);
        let count = |line: &&Log| line.msg.split(' ').next().unwrap().parse::<u64>().unwrap();
        assert!(lines.len() >= WAITING, "{} lines", lines.len());
        assert_eq!(told.iter().map(count).sum::<u64>() + lines.len() as u64, FLOOD);
        let numbers: Vec<_> = lines.iter().map(|line| line.msg.as_str()).collect();
        assert_eq!(numbers[..WAITING], (0..WAITING).map(|n| format!("number={n}")).collect::<Vec<_>>()[..]);
    }

    #[test]
    fn lines_that_could_not_be_sent_are_told_of_once_one_can() {
        let (dispatch, queue) = log();
        let works = Arc::new(AtomicBool::new(false));
        let (tried, tries) = bounded(64);
        let asked = Arc::clone(&works);
        let wire = Wire::new(Box::new(move || {
            let _ = tried.try_send(());
            let broken = || TransportError::Publish { topic: TOPIC.to_owned(), reason: "a reader is stuck".to_owned() };
            asked.load(Ordering::Relaxed).then_some(()).ok_or_else(broken)
        }));
        let rosout = start(&wire, queue);
        with_default(&dispatch, || tracing::info!("lost"));
        // The line, and the first message about it.
        for _ in 0..2 {
            tries.recv_timeout(LONG).unwrap();
        }
        works.store(true, Ordering::Relaxed);
        with_default(&dispatch, || tracing::info!("sent"));
        until("told", || wire.sent().len() == 2);
        drop(rosout);
        let texts: Vec<_> = wire.sent().into_iter().map(|line| line.msg).collect();
        assert_eq!(texts[0], "sent");
        assert!(texts[1].starts_with("1 lines"), "{texts:?}");
    }
}
