//! A client for any OpenAI-compatible chat endpoint (`POST {base}/chat/completions`), made for a node that must go on
//! whatever the endpoint does: every wait has an end, every reply has a size limit, every fault has a name.
//!
//! Reading order: [`ChatClient::ask`] in `client` is the whole way of a request. `config` and `endpoint` check what was
//! configured, `http` is the only file that knows the HTTP library, `envelope` turns a request into JSON and a reply
//! into text, `retry`, `breaker` and `budget` decide whether and when to ask, `record` and `replay` keep exchanges in a
//! file and answer from it.
//!
//! What the model says is returned as it is: whether it is a class list is for the caller to find out.

mod breaker;
mod budget;
mod client;
mod config;
mod endpoint;
mod envelope;
mod error;
mod http;
mod record;
mod replay;
mod request;
mod retry;
mod secret;
mod status;

pub use breaker::{BreakerConfig, BreakerStatus};
pub use client::ChatClient;
pub use config::{ChatConfig, ChatConfigError, ReplayMiss, Structured, Timeouts};
pub use error::{ChatError, TimeoutStage};
pub use replay::ReplayError;
pub use request::{ChatRequest, Schema};
pub use retry::RetryConfig;
pub use status::ChatStatus;
