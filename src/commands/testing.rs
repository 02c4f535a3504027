//! Stand-ins for the tests of commands.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use scenelex::ros::{
    Qos, Transport, TransportError,
    transport::{MessageHandler, RawClient, RawPublisher, RawServer, RawSubscription, ServiceHandler, TopicInfo},
};

/// A publisher or subscription with nobody at the other end.
pub struct Nobody;

impl RawPublisher for Nobody {
    fn publish(&self, _: Bytes) -> Result<(), TransportError> {
        Ok(())
    }

    fn subscribers(&self) -> usize {
        0
    }

    fn flush(&self, _: Duration) -> bool {
        true
    }
}

impl RawSubscription for Nobody {
    fn publishers(&self) -> usize {
        0
    }
}

/// What makes a publisher of a topic and a type.
type Advertise = dyn Fn(&str, &str) -> Result<Arc<dyn RawPublisher>, TransportError> + Send + Sync;

/// A transport on which nothing ever comes; remembers what was asked for.
pub struct TestTransport {
    advertise: Box<Advertise>,
    pub advertised: Mutex<Vec<String>>,
    pub subscribed: Mutex<Vec<(String, String, Qos)>>,
}

impl TestTransport {
    pub fn new(
        advertise: impl Fn(&str, &str) -> Result<Arc<dyn RawPublisher>, TransportError> + Send + Sync + 'static,
    ) -> Self {
        Self { advertise: Box::new(advertise), advertised: Mutex::default(), subscribed: Mutex::default() }
    }
}

const UNSUPPORTED: TransportError = TransportError::Unsupported { transport: "test", ability: "do that" };

impl Transport for TestTransport {
    fn node_name(&self) -> &str {
        "/test"
    }

    fn advertise(&self, topic: &str, type_name: &str, _: Qos) -> Result<Arc<dyn RawPublisher>, TransportError> {
        self.advertised.lock().unwrap().push(topic.to_owned());
        (self.advertise)(topic, type_name)
    }

    fn subscribe(
        &self,
        topic: &str,
        type_name: &str,
        qos: Qos,
        _: MessageHandler,
    ) -> Result<Box<dyn RawSubscription>, TransportError> {
        self.subscribed.lock().unwrap().push((topic.to_owned(), type_name.to_owned(), qos));
        Ok(Box::new(Nobody))
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

/// A folder for one test, empty at first and gone afterwards.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("scenelex-command-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
