//! The whole way of a question: recording, turn, budget, breaker, tries, answer.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    BreakerStatus, ChatConfig, ChatConfigError, ChatError, ChatRequest, ChatStatus, ReplayMiss, Structured,
    TimeoutStage,
    breaker::Breaker,
    budget::Budget,
    endpoint::{self, Endpoint},
    envelope::{self, Without},
    error::{Health, Part},
    http::HttpClient,
    record::{Exchange, Recorder, content_key},
    replay::Replay,
    retry::Decision,
    secret::Secret,
    status::Counters,
};

/// Asks one model at one endpoint. To be shared by reference or `Arc`; needs a Tokio runtime with time and I/O.
///
/// At most one request is in flight. Another caller waits for its turn, in order of arrival, and up to
/// [`ChatConfig::max_waiting`] may do so; the next one gets [`ChatError::Busy`]. Waiting for the turn does not count
/// towards the time limits, which are about the endpoint; a caller in a hurry cancels.
///
/// Names are looked up in the runtime's blocking threads, which nothing can interrupt: end the runtime with
/// `shutdown_background`, or a dead name server holds up the program's end.
#[derive(Debug)]
pub struct ChatClient {
    config: ChatConfig,
    /// `None` when only the recording may answer.
    live: Option<Live>,
    replay: Option<Replay>,
    recorder: Option<Recorder>,
    /// The one in flight and those who wait for it.
    places: Semaphore,
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Live {
    http: HttpClient,
    key: Option<Secret>,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    budget: Budget,
    counters: Counters,
    /// What the endpoint has said that it does not take.
    without: Without,
}

impl ChatClient {
    /// Checks the configuration, reads the key from the environment and opens the files. Sends nothing.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(config: ChatConfig) -> Result<Self, ChatConfigError> {
        Self::with_environment(config, |name| std::env::var(name).ok())
    }

    /// As [`ChatClient::new`], with the environment variables that `variable` knows.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn with_environment(
        config: ChatConfig,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ChatConfigError> {
        config.check()?;
        let endpoint = Endpoint::new(&config.base_url, config.allow_http)?;
        let live = if config.goes_live() {
            let key = endpoint::key(&config, endpoint.loopback, variable)?;
            Some(Live { http: HttpClient::new(endpoint, key.as_ref(), &config)?, key })
        } else {
            None
        };
        // Loaded first: a recording that is added to and replayed answers with what was there before.
        let replay = config.replay.as_deref().map(Replay::load).transpose()?;
        let recorder = match config.record.as_deref().filter(|_| live.is_some()) {
            Some(path) => {
                Some(Recorder::open(path).map_err(|source| ChatConfigError::Record { path: path.to_owned(), source })?)
            }
            None => None,
        };
        let state = State {
            breaker: Breaker::new(config.breaker),
            budget: Budget::new(config.requests_per_hour),
            counters: Counters::default(),
            without: Without { format: config.structured == Structured::Never, ..Without::default() },
        };
        Ok(Self {
            live,
            replay,
            recorder,
            places: Semaphore::new(1 + config.max_waiting),
            turn: tokio::sync::Mutex::new(()),
            state: Mutex::new(state),
            config,
        })
    }

    /// The model's reply to `request`. Returns [`ChatError::Cancelled`] at once when `cancel` is, whatever it waits for;
    /// the connection is closed then. Dropping the future does the same.
    ///
    /// # Errors
    /// Why there is no reply.
    pub async fn ask(&self, request: &ChatRequest, cancel: &CancellationToken) -> Result<String, ChatError> {
        let result = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(ChatError::Cancelled),
            result = self.answer(request) => result,
        };
        if let Err(error) = &result {
            self.state().counters.failed(error);
        }
        result
    }

    /// Counts and present state, for diagnostics.
    #[must_use]
    pub fn status(&self) -> ChatStatus {
        let now = Instant::now();
        let unrecorded = self.recorder.as_ref().map_or(0, Recorder::lost);
        let mut state = self.state();
        let requests_left_this_hour = state.budget.left_at(now);
        let breaker = state.breaker.status(now);
        let Counters { requests, replies, replayed, failures, last_error } = state.counters.clone();
        ChatStatus { requests, replies, replayed, unrecorded, failures, breaker, requests_left_this_hour, last_error }
    }

    /// From the recording, where it has an answer, else from the endpoint.
    async fn answer(&self, request: &ChatRequest) -> Result<String, ChatError> {
        if let Some(replay) = &self.replay {
            let key = content_key(&self.config.model, request);
            match replay.next(&key) {
                Some(outcome) => {
                    let mut state = self.state();
                    state.counters.replayed += 1;
                    state.counters.last_error = None;
                    return outcome.map_err(|kind| ChatError::Recorded { kind });
                }
                None if self.config.replay_miss == ReplayMiss::Ask => {}
                None => return Err(ChatError::ReplayMiss { key, purpose: request.purpose }),
            }
        }
        match &self.live {
            Some(live) => self.ask_endpoint(live, request).await,
            None => {
                Err(ChatError::ReplayMiss { key: content_key(&self.config.model, request), purpose: request.purpose })
            }
        }
    }

    async fn ask_endpoint(&self, live: &Live, request: &ChatRequest) -> Result<String, ChatError> {
        let _place = self.places.try_acquire().map_err(|_| ChatError::Busy)?;
        let _turn = self.turn.lock().await;
        let start = Instant::now();
        let limit = self.config.timeouts.total;
        let outcome = match timeout_at(start + limit, self.tries(live, request, start + limit)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.state().breaker.failed(Instant::now());
                Err(ChatError::Timeout { stage: TimeoutStage::Total, limit })
            }
        };
        if let Some(recorder) = &self.recorder
            && let Some(exchange) = Exchange::new(&self.config.model, request, &outcome, start.elapsed())
        {
            recorder.add(&exchange);
        }
        outcome
    }

    /// Tries until there is a reply, or no further try is worth it or allowed.
    async fn tries(&self, live: &Live, request: &ChatRequest, deadline: Instant) -> Result<String, ChatError> {
        let body = |without| -> Bytes { envelope::body(&self.config.model, request, without).into() };
        let mut without = self.state().without;
        let mut bytes = body(without);
        let mut rejection = None;
        let mut last = None;
        let mut attempt = 0;
        loop {
            // What went wrong tells more than that no further try is allowed.
            if let Err(refused) = self.admit() {
                return Err(last.or(rejection).unwrap_or(refused));
            }
            let error = match self.once(live, request, bytes.clone()).await {
                Ok(text) => {
                    self.succeeded(without, rejection.as_ref());
                    return Ok(text);
                }
                Err(error) => error,
            };
            if let Some(part) = self.goes_on_without(&error)
                && !std::mem::replace(without.part(part), true)
            {
                bytes = body(without);
                rejection = Some(error);
                continue;
            }
            let Some(again) = self.after_failure(&error, attempt, deadline) else { return Err(error) };
            tracing::debug!("try {attempt} of a {} request failed: {error}", request.purpose);
            sleep_until(again).await;
            attempt += 1;
            last = Some(error);
        }
    }

    async fn once(&self, live: &Live, request: &ChatRequest, body: Bytes) -> Result<String, ChatError> {
        let answer = live.http.post(body).await?;
        envelope::reply(&answer, request.max_tokens, live.key.as_ref())
    }

    /// Whether a request may go out now; counts it if so.
    fn admit(&self) -> Result<(), ChatError> {
        let now = Instant::now();
        let mut state = self.state();
        state.breaker.admit(now).map_err(|retry_in| ChatError::Open { retry_in })?;
        let limit = state.budget.limit();
        state.budget.take(now).map_err(|retry_in| ChatError::Budget { limit, retry_in })?;
        state.counters.requests += 1;
        Ok(())
    }

    /// `rejection` is why the endpoint was asked without a part. Only now that this worked is it remembered: another fault
    /// may have looked like it.
    fn succeeded(&self, without: Without, rejection: Option<&ChatError>) {
        let mut state = self.state();
        if let Some(rejection) = rejection
            && std::mem::replace(&mut state.without, without) != without
        {
            tracing::info!("the language model's server does not take all of a request, going on without: {rejection}");
        }
        state.breaker.succeeded();
        state.counters.replies += 1;
        state.counters.last_error = None;
    }

    /// Tells the breaker; when to try again, if at all.
    fn after_failure(&self, error: &ChatError, attempt: u32, deadline: Instant) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.state();
        match error.health() {
            Health::Well => state.breaker.succeeded(),
            Health::Ill => state.breaker.failed(now),
            Health::Unknown => {}
        }
        match self.config.retry.decide(error, attempt, deadline.saturating_duration_since(now), fastrand::f64()) {
            Decision::Stop => None,
            Decision::StopFor(wait) => {
                state.breaker.hold(now, wait);
                None
            }
            // An open breaker ends the question: the caller learns now what is wrong, not after the pause.
            Decision::Again(wait) => (state.breaker.status(now) == BreakerStatus::Closed).then_some(now + wait),
        }
    }

    /// What the endpoint dislikes and may be asked without.
    fn goes_on_without(&self, error: &ChatError) -> Option<Part> {
        let ChatError::Status { rejects, .. } = error else { return None };
        rejects.filter(|&part| part != Part::Format || self.config.structured == Structured::Auto)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_may_be_asked_from_any_task() {
        fn check<T: Send>(_: T) {}
        let ask = |client: &'static ChatClient, request: &'static ChatRequest, cancel: &'static CancellationToken| {
            check(client.ask(request, cancel));
        };
        let _ = ask;
        // The key is in no readable form of the client.
        let key = |_: &str| Some("sk-0123456789".to_owned());
        let client = ChatClient::with_environment(ChatConfig::default(), key).unwrap();
        assert!(!format!("{client:?}").contains("sk-0123456789"));
    }
}
