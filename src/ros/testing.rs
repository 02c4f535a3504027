//! Stand-ins for the tests of this module's parts.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::transport::{
    MessageHandler, Qos, RawClient, RawPublisher, RawServer, RawSubscription, ServiceHandler, TopicInfo, Transport,
    TransportError,
};

/// Far longer than anything in a test takes; only a fault waits so long.
pub const LONG: Duration = Duration::from_secs(30);

pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

const UNSUPPORTED: TransportError = TransportError::Unsupported { transport: "test", ability: "do that" };

type Advertise = dyn Fn(&str, &str, Qos, bool) -> Result<Arc<dyn RawPublisher>, TransportError> + Send + Sync;
type Subscribe = dyn Fn() -> Result<Box<dyn RawSubscription>, TransportError> + Send + Sync;

/// A transport that can do one thing.
pub struct OneWay {
    advertise: Box<Advertise>,
    subscribe: Box<Subscribe>,
}

impl OneWay {
    /// Makes publishers of topic, type, QoS, and whether in haste.
    pub fn publishing(
        publisher: impl Fn(&str, &str, Qos, bool) -> Arc<dyn RawPublisher> + Send + Sync + 'static,
    ) -> Self {
        let advertise = move |topic: &str, kind: &str, qos, haste| Ok(publisher(topic, kind, qos, haste));
        Self { advertise: Box::new(advertise), subscribe: Box::new(|| Err(UNSUPPORTED)) }
    }

    /// Makes subscriptions as long as there are any.
    pub fn subscribing(subscription: impl Fn() -> Option<Box<dyn RawSubscription>> + Send + Sync + 'static) -> Self {
        let subscribe = move || subscription().ok_or(UNSUPPORTED);
        Self { advertise: Box::new(|_, _, _, _| Err(UNSUPPORTED)), subscribe: Box::new(subscribe) }
    }
}

impl Transport for OneWay {
    fn node_name(&self) -> &str {
        "/test"
    }

    fn advertise(&self, topic: &str, kind: &str, qos: Qos) -> Result<Arc<dyn RawPublisher>, TransportError> {
        (self.advertise)(topic, kind, qos, false)
    }

    fn advertise_in_haste(&self, topic: &str, kind: &str, qos: Qos) -> Result<Arc<dyn RawPublisher>, TransportError> {
        (self.advertise)(topic, kind, qos, true)
    }

    fn subscribe(
        &self,
        _: &str,
        _: &str,
        _: Qos,
        _: MessageHandler,
    ) -> Result<Box<dyn RawSubscription>, TransportError> {
        (self.subscribe)()
    }

    fn serve(&self, _: &str, _: &str, _: ServiceHandler) -> Result<Box<dyn RawServer>, TransportError> {
        Err(UNSUPPORTED)
    }

    fn client(&self, _: &str, _: &str) -> Result<Box<dyn RawClient>, TransportError> {
        Err(UNSUPPORTED)
    }

    fn topics(&self) -> Vec<TopicInfo> {
        Vec::new()
    }
}
