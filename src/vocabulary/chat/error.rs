//! What can go wrong with a request.

use std::{fmt, time::Duration};

/// Which limit a request ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutStage {
    /// Until the connection stood.
    Connect,
    /// Between two pieces of the reply, or before its first one.
    Read,
    /// For the request as a whole, repetitions included.
    Total,
}

impl fmt::Display for TimeoutStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "no connection",
            Self::Read => "no further data",
            Self::Total => "no complete answer",
        })
    }
}

/// A part of a request that not every model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `response_format`.
    Format,
    /// `max_tokens`: OpenAI's reasoning models insist on `max_completion_tokens`.
    MaxTokens,
    /// `temperature`: OpenAI's reasoning models have one of their own.
    Temperature,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => "response_format",
            Self::MaxTokens => "max_tokens",
            Self::Temperature => "temperature",
        })
    }
}

/// Why a request has no reply. Texts of the endpoint are shortened, free of control characters and of the key.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// As many callers wait as may.
    #[error("too many requests to the language model are waiting")]
    Busy,
    /// The caller's token was cancelled.
    #[error("the request to the language model was cancelled")]
    Cancelled,
    /// This hour's requests are used up.
    #[error("the limit of {limit} requests per hour is reached; the next is possible in {:.0} s", retry_in.as_secs_f64().ceil())]
    Budget {
        /// Requests per hour.
        limit: u32,
        /// When one falls out of the window.
        retry_in: Duration,
    },
    /// The endpoint failed often, or asked for a pause, and is left alone for now.
    #[error("the language model is left alone for another {:.0} s after failures", retry_in.as_secs_f64().ceil())]
    Open {
        /// When it is tried again.
        retry_in: Duration,
    },
    /// A time limit has passed.
    #[error("{stage} within {:.1} s", limit.as_secs_f64())]
    Timeout {
        /// Which one.
        stage: TimeoutStage,
        /// How long it was.
        limit: Duration,
    },
    /// No connection could be made.
    #[error("cannot connect: {reason}")]
    Connect {
        /// What the system or the TLS library said.
        reason: String,
    },
    /// The connection broke before the reply was complete.
    #[error("the connection broke: {reason}")]
    Transport {
        /// What the HTTP library said.
        reason: String,
    },
    /// The endpoint sends us elsewhere. Not followed: the key must not travel.
    #[error("expected a reply, found a redirect ({status}) to {location:?}; set the base URL to the right place")]
    Redirect {
        /// HTTP status.
        status: u16,
        /// The header's content.
        location: String,
    },
    /// The endpoint answered with an error.
    #[error("the endpoint answered {status}{}: {message}", bracketed(code.as_deref()))]
    Status {
        /// HTTP status.
        status: u16,
        /// OpenAI's error code or type, where there is one.
        code: Option<String>,
        /// What it said.
        message: String,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
        /// What it does not take of the request, as far as it says so.
        rejects: Option<Part>,
    },
    /// The reply is longer than accepted; the rest was not read.
    #[error("expected a reply of at most {limit} bytes, found a longer one")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The reply is not declared as JSON.
    #[error("expected application/json, found {content_type}: {excerpt}")]
    ContentType {
        /// What it is declared as.
        content_type: String,
        /// How it begins.
        excerpt: String,
    },
    /// The reply is not JSON.
    #[error("expected JSON, found {reason}: {excerpt}")]
    Json {
        /// What the parser said.
        reason: String,
        /// How the reply begins.
        excerpt: String,
    },
    /// The reply is JSON of another form.
    #[error("expected a chat completion with {expected}, found {found}")]
    Envelope {
        /// The part that is missing or wrong.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The model was cut off.
    #[error("the reply was cut off at {max_tokens} tokens")]
    Length {
        /// The limit that was sent.
        max_tokens: u32,
    },
    /// The model, or a filter before it, does not want to answer.
    #[error("the model refused: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// The recording has no answer to this request, and nobody else may be asked.
    #[error("the recording has no answer to this {purpose} request ({key})")]
    ReplayMiss {
        /// The request's content key.
        key: String,
        /// What it was for.
        purpose: &'static str,
    },
    /// The recording says that this request failed.
    #[error("the recorded request failed with {kind}")]
    Recorded {
        /// The kind it failed with.
        kind: &'static str,
    },
}

/// What a failed request says about the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It works; this one request was at fault.
    Well,
    /// It does not work.
    Ill,
    /// It was not asked to the end.
    Unknown,
}

/// Every kind that a recording can hold: what [`ChatError::kind`] says of a request that reached the endpoint.
pub(super) const RECORDED_KINDS: [&str; 16] = [
    "timeout_connect",
    "timeout_read",
    "timeout_total",
    "connect",
    "transport",
    "redirect",
    "unauthorised",
    "not_found",
    "rate_limited",
    "server_error",
    "rejected",
    "too_large",
    "content_type",
    "malformed",
    "length",
    "refused",
];

impl ChatError {
    /// One stable word per kind of failure, for counting.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Cancelled => "cancelled",
            Self::Budget { .. } => "budget",
            Self::Open { .. } => "open",
            Self::Timeout { stage: TimeoutStage::Connect, .. } => "timeout_connect",
            Self::Timeout { stage: TimeoutStage::Read, .. } => "timeout_read",
            Self::Timeout { stage: TimeoutStage::Total, .. } => "timeout_total",
            Self::Connect { .. } => "connect",
            Self::Transport { .. } => "transport",
            Self::Redirect { .. } => "redirect",
            Self::Status { status: 401 | 403, .. } => "unauthorised",
            Self::Status { status: 404, .. } => "not_found",
            Self::Status { status: 429, .. } => "rate_limited",
            Self::Status { status: 500.., .. } => "server_error",
            Self::Status { .. } => "rejected",
            Self::TooLarge { .. } => "too_large",
            Self::ContentType { .. } => "content_type",
            Self::Json { .. } | Self::Envelope { .. } => "malformed",
            Self::Length { .. } => "length",
            Self::Refused { .. } => "refused",
            Self::ReplayMiss { .. } => "replay_miss",
            Self::Recorded { kind } => kind,
        }
    }

    /// What this says about the endpoint, for the circuit breaker.
    pub(super) const fn health(&self) -> Health {
        match self {
            Self::Length { .. } | Self::Refused { .. } | Self::Status { status: 400 | 413 | 422, .. } => Health::Well,
            Self::Busy
            | Self::Cancelled
            | Self::Budget { .. }
            | Self::Open { .. }
            | Self::ReplayMiss { .. }
            | Self::Recorded { .. } => Health::Unknown,
            _ => Health::Ill,
        }
    }
}

fn bracketed(code: Option<&str>) -> String {
    code.map(|code| format!(" ({code})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_kinds_of_their_own() {
        let kind = |status| {
            let (code, message) = (None, String::new());
            ChatError::Status { status, code, message, retry_after: None, rejects: None }.kind()
        };
        let found = [400, 401, 403, 404, 408, 422, 429, 500, 503, 529].map(kind);
        let (auth, other, server) = ("unauthorised", "rejected", "server_error");
        assert_eq!(found, [other, auth, auth, "not_found", other, other, "rate_limited", server, server, server]);
        assert!(found.iter().all(|kind| RECORDED_KINDS.contains(kind)));
    }

    #[test]
    fn a_refusal_does_not_make_the_endpoint_ill() {
        assert_eq!(ChatError::Refused { reason: String::new() }.health(), Health::Well);
        assert_eq!(ChatError::Transport { reason: String::new() }.health(), Health::Ill);
        assert_eq!(ChatError::Cancelled.health(), Health::Unknown);
    }
}
