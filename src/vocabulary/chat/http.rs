//! One HTTP request. The only file that knows the HTTP library.

use std::error::Error;

use bytes::Bytes;
use reqwest::{
    Client, Response,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER},
    redirect, retry,
};

use super::{
    ChatConfig, ChatConfigError, ChatError, TimeoutStage, Timeouts,
    endpoint::Endpoint,
    secret::{Secret, excerpt},
};

/// What the endpoint sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: Option<String>,
    pub(super) retry_after: Option<String>,
    pub(super) location: Option<String>,
    /// At most as long as is accepted; the body of an error may go on.
    pub(super) body: Vec<u8>,
}

/// Sends requests to one endpoint.
#[derive(Clone, Debug)]
pub(super) struct HttpClient {
    client: Client,
    endpoint: Endpoint,
    timeouts: Timeouts,
    max_reply_bytes: usize,
}

impl HttpClient {
    pub(super) fn new(endpoint: Endpoint, key: Option<&Secret>, config: &ChatConfig) -> Result<Self, ChatConfigError> {
        // The library takes its cryptography from here. Whoever has installed one before us has made the choice.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("scenelex/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers(key)?)
            .connect_timeout(config.timeouts.connect)
            .read_timeout(config.timeouts.read)
            // A redirect would carry the key, or at least the picture, to a place that nobody has configured.
            .redirect(redirect::Policy::none())
            // Repeating is for `retry` to decide, which knows the budget.
            .retry(retry::never())
            .pool_max_idle_per_host(1);
        if endpoint.loopback {
            builder = builder.no_proxy();
        }
        if endpoint.url.scheme() == "http" {
            // Without TLS no certificates are needed: a container that has none can talk to its neighbour all the same.
            // (The price: a proxy that is itself reached by TLS does not work for such an address.)
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|e| ChatConfigError::Http { reason: root(&e) })?;
        Ok(Self { client, endpoint, timeouts: config.timeouts, max_reply_bytes: config.max_reply_bytes })
    }

    /// Sends `body` and reads the answer, whatever its status.
    pub(super) async fn post(&self, body: Bytes) -> Result<Answer, ChatError> {
        let request = self.client.post(self.endpoint.url.clone()).body(body);
        let mut response = request.send().await.map_err(|e| self.failure(&e))?;
        let text = |name: HeaderName| {
            response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let mut answer = Answer {
            status: response.status().as_u16(),
            content_type: text(CONTENT_TYPE),
            retry_after: text(RETRY_AFTER),
            location: text(LOCATION),
            body: Vec::new(),
        };
        let complete = self.read(&mut response, &mut answer.body).await?;
        if complete || !response.status().is_success() {
            Ok(answer)
        } else {
            Err(ChatError::TooLarge { limit: self.max_reply_bytes })
        }
    }

    /// Reads up to the limit; whether that was all.
    async fn read(&self, response: &mut Response, body: &mut Vec<u8>) -> Result<bool, ChatError> {
        if response.content_length().is_some_and(|length| length > self.max_reply_bytes as u64)
            && response.status().is_success()
        {
            return Ok(false);
        }
        while let Some(chunk) = response.chunk().await.map_err(|e| self.failure(&e))? {
            let room = self.max_reply_bytes - body.len();
            if chunk.len() > room {
                body.extend_from_slice(&chunk[..room]);
                return Ok(false);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(true)
    }

    fn failure(&self, error: &reqwest::Error) -> ChatError {
        let reason = root(error);
        match (error.is_timeout(), error.is_connect()) {
            (true, true) => ChatError::Timeout { stage: TimeoutStage::Connect, limit: self.timeouts.connect },
            (true, false) => ChatError::Timeout { stage: TimeoutStage::Read, limit: self.timeouts.read },
            (false, true) => ChatError::Connect { reason },
            (false, false) => ChatError::Transport { reason },
        }
    }
}

fn headers(key: Option<&Secret>) -> Result<HeaderMap, ChatConfigError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(key) = key {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.expose()))
            .map_err(|_| ChatConfigError::Http { reason: "the key does not fit into a header".into() })?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    Ok(headers)
}

/// The innermost reason. The outer ones only say that a request failed, and where it went.
fn root(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    excerpt(&innermost.to_string(), None)
}
