//! The ROS 2 side: messages, the transport port and its implementations.
//!
//! Only this module knows a middleware. Reading order: [`node`], `engine`, `frames`, [`transport`], `dds`, [`messages`],
//! [`cdr`].

mod announcer;
pub mod arguments;
mod buffers;
pub mod cdr;
mod chat_watch;
mod clock;
pub mod convert;
#[cfg(feature = "dds")]
pub mod dds;
pub mod defaults;
pub mod describe;
pub mod diagnostics;
mod engine;
pub mod frames;
pub mod host;
pub mod intake;
pub mod lifecycle;
mod looks;
pub mod messages;
mod models;
pub mod names;
pub mod node;
pub mod outputs;
pub mod parameter_services;
pub mod parameter_store;
pub mod parameter_table;
pub mod parameters;
mod phrases;
mod proposer_settings;
#[cfg(feature = "r2r")]
pub mod r2r;
pub mod refresh;
mod refresh_settings;
mod requests;
pub mod rosout;
mod segment;
pub mod settings;
#[cfg(test)]
mod testing;
mod throttle;
pub mod transport;

use std::sync::Arc;

pub use cdr::{CdrError, CdrView};
pub use transport::{Qos, Transport, TransportError};

#[cfg(not(any(feature = "dds", feature = "r2r")))]
compile_error!("a transport is needed: feature `dds` (pure Rust) or `r2r` (inside a ROS 2 workspace)");

/// Joins the ROS graph as node `name` in `namespace` (`/` or `/a/b`), on the transport this build was made with: `r2r`
/// where that feature is on, else `dds`.
///
/// # Errors
/// [`TransportError::Environment`] for variables like `ROS_DOMAIN_ID` with values ROS 2 does not know,
/// [`TransportError::Start`] when the middleware cannot be started, [`TransportError::Create`] for an invalid name.
pub fn connect(namespace: &str, name: &str) -> Result<Arc<dyn Transport>, TransportError> {
    #[cfg(feature = "r2r")]
    return Ok(Arc::new(r2r::R2rTransport::new(namespace, name)?));
    #[cfg(all(feature = "dds", not(feature = "r2r")))]
    {
        let environment = dds::Environment::from_process()?;
        Ok(Arc::new(dds::DdsTransport::new(namespace, name, &environment)?))
    }
}
