//! How the language model is reached, and what is checked before anything is sent.

use std::{path::PathBuf, time::Duration};

use super::{BreakerConfig, ReplayError, RetryConfig};

/// Whether replies are bound to a JSON schema by the server (`response_format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Structured {
    /// Try it; when the server rejects it, remember that and go on without.
    #[default]
    Auto,
    /// Always; a server that rejects it fails the request.
    Always,
    /// Never.
    Never,
}

/// What happens to a request that the recording has no answer to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplayMiss {
    /// It fails. No endpoint and no key are needed then.
    #[default]
    Error,
    /// The endpoint is asked.
    Ask,
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection: name look-up, TCP and TLS.
    pub connect: Duration,
    /// For the reply's first byte, and then between two pieces of it. A model that does not stream is silent until it has
    /// thought, so this is no small number.
    pub read: Duration,
    /// For a question from its turn to its answer, repetitions and the waits between them included.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), read: Duration::from_secs(60), total: Duration::from_secs(120) }
    }
}

/// How the language model is reached. Checked by [`ChatClient::new`](super::ChatClient::new).
#[derive(Clone, Debug, PartialEq)]
pub struct ChatConfig {
    /// The endpoint without `/chat/completions`, as `https://api.openai.com/v1`.
    pub base_url: String,
    /// The model's name at the endpoint.
    pub model: String,
    /// The environment variable that holds the key: letters, digits and `_`, at most 64, no digit first. Empty: none is
    /// sent. Where the variable is not set, an endpoint on this machine is asked without a key; any other is an error.
    pub key_variable: String,
    /// Whether plain `http` may leave this machine. The key then crosses the network readable for everyone on it.
    pub allow_http: bool,
    /// Whether schemas are sent.
    pub structured: Structured,
    /// How long is waited.
    pub timeouts: Timeouts,
    /// How often is tried.
    pub retry: RetryConfig,
    /// When the endpoint is left alone.
    pub breaker: BreakerConfig,
    /// HTTP requests in any 60 minutes, repetitions included.
    pub requests_per_hour: u32,
    /// Longest reply that is read.
    pub max_reply_bytes: usize,
    /// Callers that may wait while another's request is in flight; the next one is told `Busy`.
    pub max_waiting: usize,
    /// A file that every exchange with the endpoint is added to.
    pub record: Option<PathBuf>,
    /// A recording that answers come from.
    pub replay: Option<PathBuf>,
    /// What happens when it has none.
    pub replay_miss: ReplayMiss,
}

impl Default for ChatConfig {
    fn default() -> Self {
        Self {
            base_url: "https://api.openai.com/v1".into(),
            model: "gpt-4o-mini".into(),
            key_variable: "OPENAI_API_KEY".into(),
            allow_http: false,
            structured: Structured::default(),
            timeouts: Timeouts::default(),
            retry: RetryConfig::default(),
            breaker: BreakerConfig::default(),
            requests_per_hour: 400,
            max_reply_bytes: 256 * 1024,
            max_waiting: 4,
            record: None,
            replay: None,
            replay_miss: ReplayMiss::default(),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChatConfigError {
    /// The base URL is not one that may be asked.
    #[error("base URL {url}: {reason}")]
    Url {
        /// Its scheme, host, port and path; nothing of what is no web address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A value is out of its range.
    #[error("{name}: expected {expected}, found {found}")]
    Value {
        /// The field of [`ChatConfig`].
        name: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The variable with the key is not set.
    #[error("{variable} is not set; it has to hold the endpoint's key (configure an empty name for none)")]
    KeyMissing {
        /// What it is called, without its name where that may be a key.
        variable: String,
    },
    /// The variable does not hold a key.
    #[error("{variable} does not hold a key: expected visible ASCII characters without spaces")]
    KeyForm {
        /// What it is called, without its name where that may be a key. The content stays untold.
        variable: String,
    },
    /// The HTTP or TLS library cannot be set up.
    #[error("the HTTP client cannot be set up: {reason}")]
    Http {
        /// What it said.
        reason: String,
    },
    /// The recording cannot be written.
    #[error("recording {path}: {source}", path = path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The recording cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// A day: nothing here is waited for any longer, and no sum of times can overflow.
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
const MILLISECOND: Duration = Duration::from_millis(1);
/// Longest name of an environment variable, in bytes.
const LONGEST_NAME: usize = 64;

impl ChatConfig {
    /// Checks everything but the URL and the key.
    pub(super) fn check(&self) -> Result<(), ChatConfigError> {
        let Self { timeouts, retry, breaker, .. } = self;
        if self.model.trim().is_empty() || self.model.chars().any(char::is_control) {
            return Err(value("model", "the model's name".into(), format!("{:?}", self.model)));
        }
        if !self.key_variable.is_empty() && !is_variable_name(&self.key_variable) {
            let expected = format!(
                "the name of an environment variable (letters, digits and _, no digit first, at most {LONGEST_NAME})"
            );
            return Err(value("key_variable", expected, "something else (not shown, it may be the key itself)".into()));
        }
        for (name, found, least, most) in [
            ("timeouts.connect", timeouts.connect, MILLISECOND, DAY),
            ("timeouts.read", timeouts.read, MILLISECOND, DAY),
            ("timeouts.total", timeouts.total, MILLISECOND, DAY),
            ("retry.base", retry.base, Duration::ZERO, DAY),
            ("retry.max", retry.max, retry.base, DAY),
            ("retry.max_retry_after", retry.max_retry_after, Duration::ZERO, DAY),
            ("breaker.pause", breaker.pause, MILLISECOND, DAY),
            ("breaker.max_pause", breaker.max_pause, breaker.pause, DAY),
        ] {
            if found < least || found > most {
                return Err(value(name, format!("{least:?} to {most:?}"), format!("{found:?}")));
            }
        }
        for (name, found, least, most) in [
            ("retry.retries", u64::from(retry.retries), 0, 20),
            ("breaker.failures", u64::from(breaker.failures), 1, 1000),
            ("requests_per_hour", u64::from(self.requests_per_hour), 1, 100_000),
            ("max_reply_bytes", self.max_reply_bytes as u64, 1024, 4 * 1024 * 1024),
            ("max_waiting", self.max_waiting as u64, 0, 1000),
        ] {
            if found < least || found > most {
                return Err(value(name, format!("{least} to {most}"), found.to_string()));
            }
        }
        Ok(())
    }

    /// Whether the endpoint may be asked at all.
    pub(super) fn goes_live(&self) -> bool {
        self.replay.is_none() || self.replay_miss == ReplayMiss::Ask
    }
}

const fn value(name: &'static str, expected: String, found: String) -> ChatConfigError {
    ChatConfigError::Value { name, expected, found }
}

fn is_variable_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut ChatConfig);

    #[test]
    fn values_have_ranges() {
        ChatConfig::default().check().unwrap();
        let changes: [(&str, Change); 7] = [
            ("model", |c| c.model = " ".into()),
            ("timeouts.read", |c| c.timeouts.read = Duration::ZERO),
            ("retry.max", |c| c.retry.max = Duration::from_millis(1)),
            ("breaker.max_pause", |c| c.breaker.max_pause = Duration::from_secs(1)),
            ("breaker.failures", |c| c.breaker.failures = 0),
            ("requests_per_hour", |c| c.requests_per_hour = 0),
            ("max_reply_bytes", |c| c.max_reply_bytes = 1),
        ];
        for (expected, change) in changes {
            let mut config = ChatConfig::default();
            change(&mut config);
            let Err(ChatConfigError::Value { name, .. }) = config.check() else { panic!("{expected} was accepted") };
            assert_eq!(name, expected);
        }
    }

    #[test]
    fn a_key_is_no_variables_name() {
        let config = |name: &str| ChatConfig { key_variable: name.into(), ..ChatConfig::default() };
        for good in ["", "OPENAI_API_KEY", "_key2", &"K".repeat(64)] {
            config(good).check().unwrap();
        }
        for bad in ["sk-s3cret", "2_s3cret", "s3cret key", "s3crét", "s3cret=1", &"s3cret".repeat(11)] {
            let error = config(bad).check().unwrap_err();
            assert!(matches!(error, ChatConfigError::Value { name: "key_variable", .. }), "{error}");
            assert!(!format!("{error} {error:?}").contains("s3cr"), "{error}");
        }
    }
}
