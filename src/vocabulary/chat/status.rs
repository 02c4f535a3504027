//! What the client tells about itself, for diagnostics.

use std::collections::BTreeMap;

use super::{BreakerStatus, ChatError};

/// The client's counts and present state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatStatus {
    /// HTTP requests sent, repetitions included.
    pub requests: u64,
    /// Questions that the endpoint answered.
    pub replies: u64,
    /// Questions that the recording answered.
    pub replayed: u64,
    /// Exchanges that are missing in the file they should be recorded in.
    pub unrecorded: u64,
    /// Questions that failed, by [`ChatError::kind`].
    pub failures: BTreeMap<&'static str, u64>,
    /// What the circuit breaker lets through.
    pub breaker: BreakerStatus,
    /// HTTP requests that may go out now.
    pub requests_left_this_hour: u32,
    /// Why the last question failed; `None` when it was answered.
    pub last_error: Option<String>,
}

/// The part that only ever counts up.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: u64,
    pub(super) replies: u64,
    pub(super) replayed: u64,
    pub(super) failures: BTreeMap<&'static str, u64>,
    pub(super) last_error: Option<String>,
}

impl Counters {
    pub(super) fn failed(&mut self, error: &ChatError) {
        *self.failures.entry(error.kind()).or_default() += 1;
        // The caller's own doing says nothing worth showing.
        if !matches!(error, ChatError::Cancelled) {
            self.last_error = Some(error.to_string());
        }
    }
}
