//! Which failures are worth another try, and when.

use std::time::{Duration, SystemTime};

use super::{ChatError, TimeoutStage};

/// How often and how fast a request is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// Repetitions after the first try.
    pub retries: u32,
    /// Longest wait before the first repetition; it doubles with each.
    pub base: Duration,
    /// Longest wait of our own choosing.
    pub max: Duration,
    /// Longest `Retry-After` that is waited for. With a longer one the request fails and the circuit breaker stays open
    /// until then, for a day at most.
    pub max_retry_after: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            retries: 3,
            base: Duration::from_millis(500),
            max: Duration::from_secs(8),
            max_retry_after: Duration::from_secs(30),
        }
    }
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Give the error to the caller.
    Stop,
    /// Give the error to the caller and leave the endpoint alone for that long.
    StopFor(Duration),
    /// Wait, then try again.
    Again(Duration),
}

impl RetryConfig {
    /// What to do after `error`, the failure of try number `attempt` (the first is 0), with `left` before the question's
    /// time is up. `random` is from [0, 1): callers that failed together must not come back together, so the wait is any
    /// length up to the limit ("full jitter", Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog,
    /// 2015).
    pub(super) fn decide(&self, error: &ChatError, attempt: u32, left: Duration, random: f64) -> Decision {
        let asked = match error {
            ChatError::Status { retry_after, .. } if worth_repeating(error) => *retry_after,
            _ if worth_repeating(error) => None,
            _ => return Decision::Stop,
        };
        let own = |limit: Duration| limit.mul_f64(random.clamp(0.0, 1.0));
        let wait = match asked {
            Some(asked) => asked + own(self.base),
            None => own(self.base.saturating_mul(1 << attempt.min(20)).min(self.max)),
        };
        let too_long = asked.is_some_and(|asked| asked > self.max_retry_after) || wait >= left;
        if too_long || attempt >= self.retries {
            return asked.map_or(Decision::Stop, Decision::StopFor);
        }
        Decision::Again(wait)
    }
}

/// Whether the same request may well succeed in a moment. A reply that took too long is not asked for again: it would
/// take as long, and every try is paid for.
fn worth_repeating(error: &ChatError) -> bool {
    match error {
        ChatError::Connect { .. }
        | ChatError::Transport { .. }
        | ChatError::Timeout { stage: TimeoutStage::Connect, .. } => true,
        // OpenAI says 429 as well when the account is empty, which waiting does not mend.
        ChatError::Status { status: 429, code, .. } => code.as_deref() != Some("insufficient_quota"),
        // 409 is a lock that somebody else holds; OpenAI's own clients repeat it too.
        ChatError::Status { status, .. } => matches!(status, 408 | 409 | 500..),
        _ => false,
    }
}

/// A `Retry-After` header: seconds, or an HTTP date (RFC 9110, section 10.2.3). `None` for anything else.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a number holds still mean "not soon".
        return (!value.is_empty()).then(|| Duration::from_secs(value.parse::<u32>().unwrap_or(u32::MAX).into()));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1000);

    fn status(status: u16, code: Option<&str>, seconds: Option<u64>) -> ChatError {
        let (code, retry_after) = (code.map(str::to_owned), seconds.map(Duration::from_secs));
        ChatError::Status { status, code, message: String::new(), retry_after, rejects: None }
    }

    #[test]
    fn only_passing_faults_are_repeated() {
        let policy = RetryConfig::default();
        for code in [408, 409, 429, 500, 502, 503, 529] {
            assert!(matches!(policy.decide(&status(code, None, None), 0, LONG, 0.5), Decision::Again(_)), "{code}");
        }
        for code in [400, 401, 403, 404, 413, 422] {
            assert_eq!(policy.decide(&status(code, None, Some(1)), 0, LONG, 0.5), Decision::Stop, "{code}");
        }
        assert_eq!(policy.decide(&status(429, Some("insufficient_quota"), None), 0, LONG, 0.5), Decision::Stop);
        let timeout = |stage| ChatError::Timeout { stage, limit: Duration::ZERO };
        assert!(matches!(policy.decide(&timeout(TimeoutStage::Connect), 0, LONG, 0.5), Decision::Again(_)));
        assert_eq!(policy.decide(&timeout(TimeoutStage::Read), 0, LONG, 0.5), Decision::Stop);
    }

    #[test]
    fn waits_double_up_to_a_limit() {
        let policy = RetryConfig { retries: 40, ..RetryConfig::default() };
        let wait = |attempt, random| policy.decide(&status(500, None, None), attempt, LONG, random);
        let limits = [0, 1, 2, 3, 4, 5, 39].map(|attempt| wait(attempt, 1.0));
        assert_eq!(
            limits,
            [500, 1000, 2000, 4000, 8000, 8000, 8000].map(|ms| Decision::Again(Duration::from_millis(ms)))
        );
        assert_eq!(wait(3, 0.0), Decision::Again(Duration::ZERO));
        assert_eq!(wait(40, 0.5), Decision::Stop);
    }

    #[test]
    fn the_endpoints_wish_is_honoured() {
        let policy = RetryConfig::default();
        let after = |seconds, attempt| policy.decide(&status(429, None, Some(seconds)), attempt, LONG, 0.5);
        assert_eq!(after(2, 0), Decision::Again(Duration::from_millis(2250)));
        assert_eq!(after(31, 0), Decision::StopFor(Duration::from_secs(31)));
        assert_eq!(after(2, 3), Decision::StopFor(Duration::from_secs(2)));
        let hurried = policy.decide(&status(429, None, Some(2)), 0, Duration::from_secs(1), 0.5);
        assert_eq!(hurried, Decision::StopFor(Duration::from_secs(2)));
        assert_eq!(policy.decide(&status(500, None, None), 0, Duration::ZERO, 0.5), Decision::Stop);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:07 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after(&"9".repeat(40), now), Some(Duration::from_secs(u32::MAX.into())));
        for bad in ["", "-1", "soon", "1.5"] {
            assert_eq!(retry_after(bad, now), None, "{bad:?}");
        }
    }
}
