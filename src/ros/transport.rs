//! The port between the node and a middleware: raw CDR bytes both ways.
//!
//! Names given here are fully qualified ROS names (`/camera/image`); each implementation maps them to its own. Handlers
//! run on a named thread of the transport, one per subscription or service. Samples that arrive while a handler runs
//! wait in the middleware, so a handler copies what it needs and returns; anything slower belongs behind a
//! [`crate::pipeline::LatestSlots`] or a bounded channel of the caller's.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    cdr::{self, CdrError, CdrView},
    messages::{RosMessage, RosService},
};

/// Whether lost samples are sent again. The weaker comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reliability {
    /// Lost samples stay lost; matches any publisher.
    BestEffort,
    /// Lost samples are repeated; matches only reliable publishers.
    Reliable,
}

/// Whether late subscribers get earlier samples. The weaker comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// They do not.
    Volatile,
    /// They get what the publisher's history still holds.
    TransientLocal,
}

/// How many samples are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// The newest so many.
    KeepLast(u32),
    /// All, within the middleware's limits.
    KeepAll,
}

/// Quality of service of one publisher or subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qos {
    /// Repeat lost samples or not.
    pub reliability: Reliability,
    /// Serve late subscribers or not.
    pub durability: Durability,
    /// Samples kept.
    pub history: History,
    /// Age at which a sample is worth nothing any more; none when absent. A publisher's only.
    pub lifespan: Option<Duration>,
}

impl Qos {
    /// ROS 2's default: reliable, volatile, keep last 10.
    pub const RELIABLE: Self = Self {
        reliability: Reliability::Reliable,
        durability: Durability::Volatile,
        history: History::KeepLast(10),
        lifespan: None,
    };
    /// Newest image only: best effort, volatile, keep last 1.
    pub const LATEST: Self =
        Self { reliability: Reliability::BestEffort, history: History::KeepLast(1), ..Self::RELIABLE };
    /// Latched: reliable, transient local, keep last 1.
    pub const LATCHED: Self =
        Self { durability: Durability::TransientLocal, history: History::KeepLast(1), ..Self::RELIABLE };
    /// The log, as rcl has it (`rcl_qos_profile_rosout_default`): reliable, transient local, keep last 1000, for 10 s.
    pub const ROSOUT: Self =
        Self { history: History::KeepLast(1000), lifespan: Some(Duration::from_secs(10)), ..Self::LATCHED };
}

/// Why a transport could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The middleware could not be started.
    #[error("cannot join ROS domain {domain}: {reason}")]
    Start {
        /// Domain asked for.
        domain: u16,
        /// What the middleware said.
        reason: String,
    },
    /// A value of the environment that cannot be used.
    #[error("environment variable {name}={value:?}: {reason}")]
    Environment {
        /// Name of the variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What would be accepted.
        reason: &'static str,
    },
    /// A topic, publisher, subscription or service could not be made.
    #[error("cannot create {what} {name}: {reason}")]
    Create {
        /// `publisher`, `subscription`, `service` or `client`.
        what: &'static str,
        /// Its ROS name.
        name: String,
        /// What the middleware said.
        reason: String,
    },
    /// A message or service type that this transport has no definition of.
    #[error("cannot create {what} {name}: {type_name} {reason}")]
    UnknownType {
        /// `publisher`, `subscription`, `service` or `client`.
        what: &'static str,
        /// Its ROS name.
        name: String,
        /// The type.
        type_name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A sample could not be sent.
    #[error("cannot publish on {topic}: {reason}")]
    Publish {
        /// ROS name of the topic.
        topic: String,
        /// What the middleware said.
        reason: String,
    },
    /// No answer came in time.
    #[error("no answer from {service} within {seconds:.1} s")]
    NoAnswer {
        /// ROS name of the service.
        service: String,
        /// How long was waited.
        seconds: f64,
    },
    /// A message could not be encoded or decoded.
    #[error(transparent)]
    Cdr(#[from] CdrError),
    /// This transport has no such ability.
    #[error("the {transport} transport cannot {ability}")]
    Unsupported {
        /// Name of the transport.
        transport: &'static str,
        /// What was asked for.
        ability: &'static str,
    },
}

/// A topic seen on the graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicInfo {
    /// Fully qualified ROS name.
    pub name: String,
    /// ROS type, `package/msg/Name`.
    pub type_name: String,
    /// What every publisher offers: a subscription that asks for no more gets them all.
    pub reliability: Reliability,
    /// What every publisher offers.
    pub durability: Durability,
}

/// Why one end of a topic does not hear the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The subscription asks for more than the publisher offers; this policy (`reliability`, `durability`, …) is the first.
    Policy(&'static str),
    /// The other end has another type: this one, `package/msg/Name`.
    Type(String),
}

/// Sorts topics and makes one of those that several publishers have, with the weakest of their offers.
#[must_use]
pub(super) fn merged(mut topics: Vec<TopicInfo>) -> Vec<TopicInfo> {
    topics.sort();
    topics.dedup_by(|later, first| {
        let same = (&later.name, &later.type_name) == (&first.name, &first.type_name);
        if same {
            first.reliability = first.reliability.min(later.reliability);
            first.durability = first.durability.min(later.durability);
        }
        same
    });
    topics
}

/// Called for every sample with its bytes, which are valid during the call only.
pub type MessageHandler = Box<dyn FnMut(CdrView<'_>) + Send>;

/// Called for every request with its bytes; gives the response, encapsulation header included, or `None` when the
/// request could not be read (no answer is sent then). May take its time: only its own service waits.
pub type ServiceHandler = Box<dyn FnMut(CdrView<'_>) -> Option<Bytes> + Send>;

/// One node on the graph.
pub trait Transport: Send + Sync {
    /// Fully qualified name of the node, for example `/scenelex`.
    fn node_name(&self) -> &str;

    /// Starts publishing on `topic` messages of `type_name` (`package/msg/Name`).
    ///
    /// # Errors
    /// [`TransportError::Create`], [`TransportError::UnknownType`].
    fn advertise(&self, topic: &str, type_name: &str, qos: Qos) -> Result<Arc<dyn RawPublisher>, TransportError>;

    /// As [`Transport::advertise`], for whoever must not be held up: where a reliable subscription does not keep up,
    /// [`RawPublisher::publish`] fails after 10 ms. A transport that cannot promise that publishes as usual.
    ///
    /// # Errors
    /// As [`Transport::advertise`].
    fn advertise_in_haste(
        &self,
        topic: &str,
        type_name: &str,
        qos: Qos,
    ) -> Result<Arc<dyn RawPublisher>, TransportError> {
        self.advertise(topic, type_name, qos)
    }

    /// As [`Transport::advertise`] with [`Qos::LATCHED`], for state of which only the newest counts: as little of the past as
    /// can be is kept for whoever comes late. Where a reliable subscription has not acknowledged the message before,
    /// [`RawPublisher::publish`] may fail; the state is to be published again then.
    ///
    /// # Errors
    /// As [`Transport::advertise`].
    fn advertise_state(&self, topic: &str, type_name: &str) -> Result<Arc<dyn RawPublisher>, TransportError> {
        self.advertise(topic, type_name, Qos::LATCHED)
    }

    /// Calls `handler` for every sample on `topic` until the subscription is dropped.
    ///
    /// # Errors
    /// [`TransportError::Create`], [`TransportError::UnknownType`].
    fn subscribe(
        &self,
        topic: &str,
        type_name: &str,
        qos: Qos,
        handler: MessageHandler,
    ) -> Result<Box<dyn RawSubscription>, TransportError>;

    /// Answers requests to `service` of `type_name` (`package/srv/Name`) until the server is dropped.
    ///
    /// # Errors
    /// [`TransportError::Create`], [`TransportError::Unsupported`].
    fn serve(
        &self,
        service: &str,
        type_name: &str,
        handler: ServiceHandler,
    ) -> Result<Box<dyn RawServer>, TransportError>;

    /// A client of `service` of `type_name` (`package/srv/Name`).
    ///
    /// # Errors
    /// [`TransportError::Create`], [`TransportError::Unsupported`].
    fn client(&self, service: &str, type_name: &str) -> Result<Box<dyn RawClient>, TransportError>;

    /// Topics others publish at the moment, sorted by name.
    fn topics(&self) -> Vec<TopicInfo>;
}

/// How long whoever sent something stays after [`RawPublisher::flush`]: a RustDDS reader gives up what it has confirmed but
/// not yet handed over when the writer leaves.
pub const LINGER: Duration = Duration::from_millis(200);

/// The sending side of one topic. Dropping it takes it off the graph.
pub trait RawPublisher: Send + Sync {
    /// Sends `message` (encapsulation header and little- or big-endian CDR body).
    ///
    /// # Errors
    /// [`TransportError::Publish`] when a reliable reader does not keep up or the middleware is gone;
    /// [`TransportError::Cdr`] when the header is not plain CDR.
    fn publish(&self, message: Bytes) -> Result<(), TransportError>;

    /// Subscriptions matched at the moment.
    fn subscribers(&self) -> usize;

    /// Why the last subscription that could not be matched was not, as of the last call of [`Self::subscribers`]. `None`
    /// where there was none or the transport does not tell.
    fn mismatch(&self) -> Option<Mismatch> {
        None
    }

    /// Waits until every matched reliable subscription has everything sent so far. False when `timeout` passed first.
    fn flush(&self, timeout: Duration) -> bool;
}

/// Samples of a subscription that never came to its handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Sent by a publisher between samples that came: replaced by newer ones in the middleware, or lost on the way.
    pub lost: u64,
    /// Not plain CDR.
    pub refused: u64,
}

/// Keeps a subscription alive; dropping it ends its thread after the handler's current call.
pub trait RawSubscription: Send {
    /// Publishers matched at the moment.
    fn publishers(&self) -> usize;

    /// What never came to the handler so far; nothing where the transport does not tell.
    fn missed(&self) -> Missed {
        Missed::default()
    }

    /// Why none of the topic's publishers is heard. `None` where one is or should be, where there is none, and where the
    /// transport does not tell.
    fn mismatch(&self) -> Option<Mismatch> {
        None
    }
}

/// Keeps a service alive; dropping it ends its thread after the handler's current call.
pub trait RawServer: Send {}

/// Calls one service.
pub trait RawClient: Send {
    /// Sends `request` (encapsulation header included) and waits for its response, which has its header too.
    ///
    /// # Errors
    /// [`TransportError::NoAnswer`] after `timeout`; [`TransportError::Publish`] when the request cannot be sent.
    fn call(&self, request: Bytes, timeout: Duration) -> Result<Vec<u8>, TransportError>;
}

/// A publisher of one message type.
#[derive(Clone)]
pub struct Publisher<M> {
    raw: Arc<dyn RawPublisher>,
    message: std::marker::PhantomData<fn(&M)>,
}

impl<M: RosMessage + Serialize> Publisher<M> {
    /// Starts publishing on `topic`.
    ///
    /// # Errors
    /// [`TransportError::Create`].
    pub fn new(transport: &dyn Transport, topic: &str, qos: Qos) -> Result<Self, TransportError> {
        Ok(Self { raw: transport.advertise(topic, M::TYPE, qos)?, message: std::marker::PhantomData })
    }

    /// Starts publishing state on `topic`, as [`Transport::advertise_state`] has it.
    ///
    /// # Errors
    /// [`TransportError::Create`].
    pub fn of_state(transport: &dyn Transport, topic: &str) -> Result<Self, TransportError> {
        Ok(Self { raw: transport.advertise_state(topic, M::TYPE)?, message: std::marker::PhantomData })
    }

    /// Encodes and sends `message`.
    ///
    /// # Errors
    /// As [`RawPublisher::publish`], and [`CdrError::Encode`].
    pub fn publish(&self, message: &M) -> Result<(), TransportError> {
        self.raw.publish(cdr::encode(message)?)
    }

    /// The untyped publisher.
    #[must_use]
    pub fn raw(&self) -> &Arc<dyn RawPublisher> {
        &self.raw
    }
}

/// Calls `handler` for every message on `topic`. Samples that cannot be decoded are logged and skipped.
///
/// # Errors
/// [`TransportError::Create`].
pub fn subscribe<M, F>(
    transport: &dyn Transport,
    topic: &str,
    qos: Qos,
    mut handler: F,
) -> Result<Box<dyn RawSubscription>, TransportError>
where
    M: RosMessage + for<'de> Deserialize<'de>,
    F: FnMut(M) + Send + 'static,
{
    let name = topic.to_owned();
    transport.subscribe(
        topic,
        M::TYPE,
        qos,
        Box::new(move |view| match view.decode::<M>() {
            Ok(message) => handler(message),
            Err(error) => tracing::warn!(topic = %name, %error, "skipped a message"),
        }),
    )
}

/// Answers every request to `service` with what `handler` gives.
///
/// # Errors
/// [`TransportError::Create`], [`TransportError::Unsupported`].
pub fn serve<S, F>(
    transport: &dyn Transport,
    service: &str,
    mut handler: F,
) -> Result<Box<dyn RawServer>, TransportError>
where
    S: RosService,
    S::Request: for<'de> Deserialize<'de>,
    S::Response: Serialize,
    F: FnMut(S::Request) -> S::Response + Send + 'static,
{
    let name = service.to_owned();
    transport.serve(
        service,
        S::TYPE,
        Box::new(move |view| {
            let answer = view.decode::<S::Request>().and_then(|request| cdr::encode(&handler(request)));
            answer.inspect_err(|error| tracing::warn!(service = %name, %error, "left a request unanswered")).ok()
        }),
    )
}

/// Calls a service once and decodes its response.
///
/// # Errors
/// As [`RawClient::call`], and [`CdrError`].
pub fn call<S>(client: &dyn RawClient, request: &S::Request, timeout: Duration) -> Result<S::Response, TransportError>
where
    S: RosService,
    S::Request: Serialize,
    S::Response: for<'de> Deserialize<'de>,
{
    let response = client.call(cdr::encode(request)?, timeout)?;
    Ok(CdrView::from_encapsulated(&response)?.decode()?)
}
