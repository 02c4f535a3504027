//! The node: its parameters, its life cycle, its diagnostics. What it does while it is configured is [`super::engine`]'s.
//!
//! ```text
//! rx threads ─▶ Intake (newest of each camera wins) ─▶ "frames": Pipeline::process_batch ─▶ Outputs
//! ~/set_vocabulary (topic, service) ─▶ "vocabulary" worker ─▶ swapped in between frames
//! now and then an image ─▶ "refresh" (proposals, language model) ─▶ "vocabulary" worker
//! every thread's log ─▶ bounded queue ─▶ "rosout" ─▶ /rosout
//! calling thread: life cycle, ~/vocabulary and label info on change, /diagnostics, shutdown
//! ```

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam::{
    channel::{Receiver, TryRecvError, at, bounded, never},
    select,
};

use super::{
    Qos,
    arguments::{ArgumentError, NodeIdentity, RosArguments},
    clock::NodeClock,
    connect,
    diagnostics::{Diagnostics, Report},
    engine::Engine,
    host,
    lifecycle::{Change, Lifecycle, State, Transition},
    messages::DiagnosticArray,
    models::{self, Loaded, ModelsError},
    names::InvalidName,
    outputs::OutputError,
    parameter_services::{ParameterServices, ParameterServicesError},
    parameter_store::ParameterStore,
    parameter_table::TABLE,
    parameters::{ParameterError, Values},
    rosout::{LogQueue, Rosout},
    settings::Settings,
    transport::{Publisher, Transport, TransportError},
};
use crate::pipeline::{ConfigError, VocabularyError};

/// Name of the node where `__node` does not say otherwise.
const DEFAULT_NAME: &str = "scenelex";
/// How long models that are being loaded are waited for at the end.
const GRACE: Duration = Duration::from_millis(500);
/// How long the end may take from then on: the frame under way, its results' way to those who subscribed, and the log's.
const END: Duration = Duration::from_millis(950);
/// What the log gets of it: [`LINGER`], and a little.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Why the node cannot run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The command line.
    #[error(transparent)]
    Arguments(#[from] ArgumentError),
    /// A name of a node, topic or service.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A parameter.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// Parameters that contradict each other.
    #[error("parameter {0}")]
    Settings(#[from] ConfigError),
    /// The middleware.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The models.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// The `classes` parameter.
    #[error("parameter classes: {0}")]
    Classes(VocabularyError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The frame loop ended by itself.
    #[error("the frame loop has ended; its panic message is above")]
    FramesEnded,
}

impl From<ParameterServicesError> for NodeError {
    fn from(error: ParameterServicesError) -> Self {
        match error {
            ParameterServicesError::Name(error) => Self::Name(error),
            ParameterServicesError::Transport(error) => Self::Transport(error),
        }
    }
}

impl From<OutputError> for NodeError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Name(error) => Self::Name(error),
            OutputError::Transport(error) => Self::Transport(error),
        }
    }
}

/// Runs the node until `shutdown` is disconnected. `arguments` are those after `scenelex node`; what comes out of `log` is
/// published on `/rosout`.
///
/// # Errors
/// [`NodeError`]; nothing is left running then. With `autostart` that includes everything that keeps the node from becoming
/// active at the start.
pub fn run<S: AsRef<str>>(arguments: &[S], log: LogQueue, shutdown: &Receiver<()>) -> Result<(), NodeError> {
    let arguments = RosArguments::parse(arguments)?;
    let identity = arguments.identity(DEFAULT_NAME)?;
    let mut values = Values::new(TABLE);
    values.apply(&arguments.parameters, &identity)?;
    let settings = Settings::from_values(&values)?;
    host::check();

    let transport = connect(&identity.namespace, &identity.name)?;
    // Before the node, so that it ends after it: the node's last words are published too.
    let rosout = match arguments.rosout_disabled {
        true => None,
        false => Some(Rosout::start(&*transport, &identity, log)?),
    };
    let mut node = Node::start(identity, values, &settings, Arc::clone(&transport))?;
    let outcome = node.live(settings.autostart, shutdown);
    let end = Instant::now() + END;
    node.clean_up(end - LAST_WORDS);
    drop(node);
    if let Some(rosout) = rosout {
        rosout.end(end);
    }
    outcome
}

/// The running node.
struct Node {
    identity: NodeIdentity,
    engine: Option<Engine>,
    lifecycle: Lifecycle,
    /// Why the last transition failed.
    trouble: Option<String>,
    diagnostics: Diagnostics,
    diagnostics_topic: Publisher<DiagnosticArray>,
    _parameter_services: ParameterServices,
    parameters: Arc<ParameterStore>,
    clock: NodeClock,
    // Last, so that everything above is off the wire before the participant goes.
    transport: Arc<dyn Transport>,
}

/// How a transition's work went.
enum Outcome {
    Done,
    Failed(NodeError),
    /// The state in force does not allow it (any more).
    Refused,
    /// The end of the process came first.
    Interrupted,
}

impl Node {
    fn start(
        identity: NodeIdentity,
        values: Values,
        settings: &Settings,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, NodeError> {
        let on = &*transport;
        let clock = NodeClock::new(on, &identity, settings.use_sim_time)?;
        let parameters = Arc::new(ParameterStore::new(values, settings.clone()));
        Ok(Self {
            engine: None,
            lifecycle: Lifecycle::start(on, &identity)?,
            trouble: None,
            diagnostics: Diagnostics::new(),
            diagnostics_topic: Publisher::new(on, &identity.resolve("/diagnostics")?, Qos::RELIABLE)?,
            _parameter_services: ParameterServices::start(on, &identity, &parameters, &clock.time())?,
            parameters,
            clock,
            identity,
            transport,
        })
    }

    fn live(&mut self, autostart: bool, shutdown: &Receiver<()>) -> Result<(), NodeError> {
        if autostart {
            for label in ["configure", "activate"] {
                let way = self.lifecycle.way(label);
                match way.map_or(Outcome::Refused, |transition| self.carry_out(transition, shutdown)) {
                    Outcome::Done | Outcome::Refused => {}
                    Outcome::Failed(error) => return Err(error),
                    Outcome::Interrupted => return Ok(()),
                }
            }
        }
        let mut due = Instant::now();
        loop {
            let engine = self.engine.as_ref();
            let changes = engine.map_or_else(never, |engine| engine.changes.clone());
            let ended = engine.map_or_else(never, |engine| engine.ended().clone());
            select! {
                recv(shutdown) -> _ => return Ok(()),
                recv(ended) -> _ => return Err(NodeError::FramesEnded),
                recv(self.lifecycle.changes) -> change => {
                    if let Ok(change) = change && self.change(&change, shutdown) {
                        return Ok(());
                    }
                }
                recv(changes) -> prepared => {
                    if let (Some(engine), Ok(prepared)) = (&self.engine, prepared) {
                        engine.announce(&prepared);
                    }
                }
                recv(at(due)) -> _ => {
                    due = Instant::now() + self.parameters.settings().diagnostics_period;
                    self.report();
                }
            }
        }
    }

    /// Does what was asked for; true when the end of the process came meanwhile.
    fn change(&mut self, change: &Change, shutdown: &Receiver<()>) -> bool {
        let outcome = self.carry_out(change.transition, shutdown);
        change.reply(matches!(outcome, Outcome::Done));
        matches!(outcome, Outcome::Interrupted)
    }

    fn carry_out(&mut self, transition: Transition, shutdown: &Receiver<()>) -> Outcome {
        if !self.lifecycle.begin(transition, self.clock.time().now()) {
            return Outcome::Refused;
        }
        let outcome = match transition.goal {
            State::Configuring => self.configure(shutdown),
            State::Activating => match &mut self.engine {
                Some(engine) => {
                    engine.activate(&*self.transport).map_or_else(|e| Outcome::Failed(e.into()), |()| Outcome::Done)
                }
                None => Outcome::Done,
            },
            State::Deactivating => {
                if let Some(engine) = &mut self.engine {
                    engine.deactivate();
                }
                Outcome::Done
            }
            _ => {
                self.clean_up(Instant::now() + END);
                Outcome::Done
            }
        };
        self.trouble = match &outcome {
            Outcome::Failed(error) => {
                tracing::error!(%error, "a transition failed");
                Some(error.to_string())
            }
            Outcome::Done | Outcome::Refused | Outcome::Interrupted => None,
        };
        self.lifecycle.end(matches!(outcome, Outcome::Done), self.clock.time().now());
        outcome
    }

    fn configure(&mut self, shutdown: &Receiver<()>) -> Outcome {
        let settings = self.parameters.begin_configuring();
        let configured = load(&settings, shutdown).and_then(|loaded| {
            let Some(loaded) = loaded else { return Ok(None) };
            let (transport, identity) = (&*self.transport, &self.identity);
            let mut engine = Engine::configure(transport, identity, &settings, loaded, self.clock.time(), shutdown)?;
            if let Err(reason) = self.parameters.configured(engine.apply()) {
                tracing::warn!(
                    reason,
                    "what was set while the node was being configured cannot be used; it is as it was before"
                );
            }
            match engine.take_class_lists(transport, identity, &settings) {
                Ok(()) => Ok(Some(engine)),
                Err(error) => {
                    engine.stop(Instant::now() + END);
                    Err(error)
                }
            }
        });
        match configured {
            Ok(Some(engine)) => {
                self.engine = Some(engine);
                Outcome::Done
            }
            unconfigured => {
                self.parameters.unconfigured();
                // Whatever failed, the end of the process made it.
                let interrupted = matches!(shutdown.try_recv(), Err(TryRecvError::Disconnected));
                unconfigured.err().filter(|_| !interrupted).map_or(Outcome::Interrupted, Outcome::Failed)
            }
        }
    }

    /// Frees models and topics; the frame under way is still published, where that is done by `deadline`.
    fn clean_up(&mut self, deadline: Instant) {
        // First: parameters may be waiting for a class list.
        if let Some(engine) = &mut self.engine {
            engine.begin_stop();
        }
        self.parameters.unconfigured();
        if let Some(engine) = self.engine.take() {
            engine.stop(deadline);
        }
    }

    /// What is due every now and then.
    fn report(&mut self) {
        if let Some(engine) = &self.engine {
            engine.catch_up();
        }
        let now = Instant::now();
        let report = Report {
            node: &self.identity.full_name(),
            state: self.lifecycle.state(),
            trouble: self.trouble.as_deref(),
            working: self.engine.as_ref().map(|engine| engine.working(now)),
            stamp: self.clock.time().now(),
        };
        if let Err(error) = self.diagnostics_topic.publish(&self.diagnostics.report(&report, now)) {
            tracing::warn!(%error, "could not publish diagnostics");
        }
    }
}

/// Loads the models on a thread of their own, so that a signal is heard meanwhile; `None` when one came.
fn load(settings: &Settings, shutdown: &Receiver<()>) -> Result<Option<Loaded>, NodeError> {
    let (sender, receiver) = bounded(1);
    let wanted = settings.clone();
    let loader = move || {
        let _ = sender.send(models::load(&wanted));
    };
    thread::Builder::new().name("loader".to_owned()).spawn(loader)?;
    select! {
        recv(receiver) -> loaded => match loaded {
            Ok(loaded) => Ok(Some(loaded?)),
            Err(_) => Err(NodeError::FramesEnded),
        },
        recv(shutdown) -> _ => {
            let _ = receiver.recv_timeout(GRACE);
            Ok(None)
        }
    }
}
