//! What others may ask of the running node: another class list, and a look at the scene.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use crossbeam::channel::bounded;

use super::{
    Qos,
    arguments::NodeIdentity,
    convert,
    intake::Intake,
    messages::{
        SetBool, SetBoolRequest, SetBoolResponse, SetVocabulary, SetVocabularyRequest, SetVocabularyResponse,
        StringMessage, Trigger, TriggerResponse,
    },
    node::NodeError,
    refresh::RefreshLoop,
    transport::{RawServer, RawSubscription, Transport, TransportError, serve, subscribe},
};
use crate::{
    pipeline::{VocabularyError, VocabularyHandle, VocabularyRequest, VocabularyWorker},
    types::VocabularySource,
    vocabulary::{ClassSpec, VocabularyLimits, parse_class_list},
};

/// How long a caller of `~/refresh_vocabulary` is kept waiting.
const REFRESH_PATIENCE: Duration = Duration::from_secs(120);
/// Requests on the `~/set_vocabulary` topic that may wait.
const WAITING_REQUESTS: usize = 8;

/// `~/set_vocabulary` as a topic (`std_msgs/String`, "a, b") and as a service.
pub struct VocabularyRequests {
    // Field order is drop order: no request comes in while its thread ends.
    _service: Option<Box<dyn RawServer>>,
    topic: Option<Box<dyn RawSubscription>>,
    thread: Option<JoinHandle<()>>,
}

impl VocabularyRequests {
    /// Takes requests until dropped.
    ///
    /// # Errors
    /// [`NodeError`] when the topic, the service or the thread cannot be made.
    pub fn start(
        transport: &dyn Transport,
        identity: &NodeIdentity,
        worker: &Arc<VocabularyWorker>,
        vocabulary: &VocabularyHandle,
        limits: VocabularyLimits,
    ) -> Result<Self, NodeError> {
        let name = identity.resolve("~/set_vocabulary")?;
        let (sender, texts) = bounded::<String>(WAITING_REQUESTS);
        let topic = subscribe::<StringMessage, _>(transport, &name, Qos::RELIABLE, move |message| {
            if sender.try_send(message.data).is_err() {
                tracing::warn!("too many vocabulary requests are waiting; one was dropped");
            }
        })?;
        let on_topic = Arc::clone(worker);
        let thread = std::thread::Builder::new().name("set_vocabulary".to_owned()).spawn(move || {
            for text in texts {
                let outcome = parse_class_list(&text, &limits)
                    .map_err(VocabularyError::from)
                    .and_then(|classes| on_topic.apply(VocabularyRequest::new(classes, VocabularySource::Topic)));
                if let Err(error) = outcome {
                    tracing::warn!(%error, "refused a class list from the topic");
                }
            }
        })?;
        let (on_service, current) = (Arc::clone(worker), vocabulary.clone());
        let service =
            serve::<SetVocabulary, _>(transport, &name, move |request| set_classes(request, &on_service, &current));
        Ok(Self { _service: offered(&name, service)?, topic: Some(topic), thread: Some(thread) })
    }
}

impl Drop for VocabularyRequests {
    fn drop(&mut self) {
        // The subscription holds the sender; without it the thread's queue ends.
        drop(self.topic.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn set_classes(
    request: SetVocabularyRequest,
    worker: &VocabularyWorker,
    vocabulary: &VocabularyHandle,
) -> SetVocabularyResponse {
    let named = request.classes.into_iter().map(ClassSpec::new);
    let classes = named.chain(request.entries.into_iter().map(convert::class_spec)).collect();
    let outcome = worker.apply(VocabularyRequest::new(classes, VocabularySource::Service));
    let message = match &outcome {
        Ok(_) => String::new(),
        Err(error) => {
            tracing::warn!(%error, "refused a class list from the service");
            error.to_string()
        }
    };
    let current = vocabulary.current();
    SetVocabularyResponse {
        success: outcome.is_ok(),
        message,
        version: current.vocabulary.version,
        entries: convert::entries(&current.vocabulary),
    }
}

/// The vocabulary loop and `~/refresh_vocabulary`, which calls for a look.
pub struct Refreshing {
    // Field order is drop order: no request comes in while the loop ends.
    _service: Option<Box<dyn RawServer>>,
    /// The loop.
    pub running: RefreshLoop,
}

impl Refreshing {
    /// Offers the service.
    ///
    /// # Errors
    /// [`NodeError`] when it cannot be made.
    pub fn start(transport: &dyn Transport, identity: &NodeIdentity, running: RefreshLoop) -> Result<Self, NodeError> {
        let name = identity.resolve("~/refresh_vocabulary")?;
        let handle = running.handle();
        let service = serve::<Trigger, _>(transport, &name, move |_| {
            let outcome = handle.look(REFRESH_PATIENCE);
            let success = outcome.is_ok();
            TriggerResponse { success, message: outcome.unwrap_or_else(|error| error) }
        });
        Ok(Self { _service: offered(&name, service)?, running })
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        // The service waits for its last call, so whoever still waits for a look is answered first.
        self.running.handle().stop();
    }
}

/// `~/enable`: takes images or lets them pass, with everything kept ready.
pub struct Enabling {
    _service: Option<Box<dyn RawServer>>,
}

impl Enabling {
    /// Offers the service.
    ///
    /// # Errors
    /// [`NodeError`] when it cannot be made.
    pub fn start(transport: &dyn Transport, identity: &NodeIdentity, intake: &Arc<Intake>) -> Result<Self, NodeError> {
        let name = identity.resolve("~/enable")?;
        let intake = Arc::clone(intake);
        let service = serve::<SetBool, _>(transport, &name, move |SetBoolRequest { data }| {
            intake.enable(data);
            let message = if data { "images are labelled" } else { "images are let pass" };
            SetBoolResponse { success: true, message: message.to_owned() }
        });
        Ok(Self { _service: offered(&name, service)? })
    }
}

/// A service, or `None` where the transport has no services of that type.
fn offered(
    name: &str,
    service: Result<Box<dyn RawServer>, TransportError>,
) -> Result<Option<Box<dyn RawServer>>, NodeError> {
    match service {
        Ok(server) => Ok(Some(server)),
        Err(error @ TransportError::Unsupported { .. }) => {
            tracing::warn!(service = name, %error, "the service is not offered");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
