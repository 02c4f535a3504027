//! Services. rcl takes requests and sends responses as C structs only, and r2r knows those of the types it was built
//! with; this turns them into the bytes the port speaks and back, with the middleware's own serialiser.

use std::{
    pin::Pin,
    thread::{self, JoinHandle},
};

use futures::{
    Stream, StreamExt,
    executor::block_on,
    stream::{AbortHandle, abortable},
};
use r2r::{Node, QosProfile, WrappedServiceTypeSupport, WrappedTypesupport};

use crate::ros::{
    cdr::CdrView,
    transport::{RawServer, ServiceHandler, TransportError},
};

/// What sends the response, given as encapsulated CDR.
type Respond = Box<dyn FnOnce(&[u8]) -> r2r::Result<()> + Send>;

/// One request as encapsulated CDR.
pub struct Request {
    bytes: r2r::Result<Vec<u8>>,
    respond: Respond,
}

/// Requests to one service, as they come.
pub type Requests = Pin<Box<dyn Stream<Item = Request> + Send>>;

/// Puts a service on the graph; `None` when `type_name` is not one of those this program serves.
pub fn open(node: &mut Node, service: &str, type_name: &str) -> Option<r2r::Result<Requests>> {
    /// Types r2r brings for documentation builds too, and those only a sourced ROS 2 has.
    macro_rules! by_name {
        ($($(#[$condition:meta])* $package:ident/$name:ident),+ $(,)?) => {
            match type_name {
                $($(#[$condition])*
                concat!(stringify!($package), "/srv/", stringify!($name)) => {
                    Some(requests::<r2r::$package::srv::$name::Service>(node, service))
                })+
                _ => None,
            }
        };
    }
    by_name! {
        #[cfg(not(feature = "r2r-check"))] scenelex/Segment,
        #[cfg(not(feature = "r2r-check"))] scenelex/SetVocabulary,
        #[cfg(not(feature = "r2r-check"))] std_srvs/SetBool,
        #[cfg(not(feature = "r2r-check"))] std_srvs/Trigger,
        lifecycle_msgs/ChangeState,
        lifecycle_msgs/GetAvailableStates,
        lifecycle_msgs/GetAvailableTransitions,
        lifecycle_msgs/GetState,
        rcl_interfaces/DescribeParameters,
        rcl_interfaces/GetParameterTypes,
        rcl_interfaces/GetParameters,
        rcl_interfaces/ListParameters,
        rcl_interfaces/SetParameters,
        rcl_interfaces/SetParametersAtomically,
    }
}

fn requests<S: WrappedServiceTypeSupport + 'static>(node: &mut Node, service: &str) -> r2r::Result<Requests> {
    let requests = node.create_service::<S>(service, QosProfile::services_default())?;
    Ok(Box::pin(requests.map(|request| Request {
        bytes: request.message.to_serialized_bytes(),
        respond: Box::new(move |response| request.respond(S::Response::from_serialized_bytes(response)?)),
    })))
}

/// A service on its own named thread.
pub struct R2rServer {
    /// Ends the stream of requests.
    stop: AbortHandle,
    thread: Option<JoinHandle<()>>,
}

impl R2rServer {
    /// Answers `requests` with what `handler` gives.
    pub fn start(service: &str, requests: Requests, mut handler: ServiceHandler) -> Result<Self, TransportError> {
        let (mut requests, stop) = abortable(requests);
        let name = service.to_owned();
        // Names of threads are cut after 15 bytes: the last part of the service's says more than the first.
        let thread = thread::Builder::new()
            .name(service.rsplit('/').next().unwrap_or(service).to_owned())
            .spawn(move || {
                while let Some(request) = block_on(requests.next()) {
                    if let Err(reason) = answer(request, &mut handler) {
                        tracing::warn!(service = name, reason, "left a request unanswered");
                    }
                }
            })
            .map_err(|e| TransportError::Create { what: "service", name: service.to_owned(), reason: e.to_string() })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

fn answer(request: Request, handler: &mut ServiceHandler) -> Result<(), String> {
    let bytes = request.bytes.map_err(|e| e.to_string())?;
    let view = CdrView::from_encapsulated(&bytes).map_err(|e| e.to_string())?;
    // Where it gives nothing it has said why.
    let Some(response) = handler(view) else { return Ok(()) };
    (request.respond)(&response).map_err(|e| e.to_string())
}

impl RawServer for R2rServer {}

impl Drop for R2rServer {
    fn drop(&mut self) {
        self.stop.abort();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a service panicked");
        }
    }
}
