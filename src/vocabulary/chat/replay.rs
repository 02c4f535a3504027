//! Answers from a recording, the same on every run.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::record::Exchange;

/// Largest recording that is loaded, in bytes.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("recording {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is larger than any recording should be.
    #[error("recording {path}: expected at most {limit} bytes", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// A line is not an exchange.
    #[error("recording {path}, line {line}: {reason}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// A reply, or the kind of failure.
type Outcome = Result<String, &'static str>;

/// The answers of one question, and how many were given.
#[derive(Debug, Default)]
struct Series {
    outcomes: Vec<Outcome>,
    given: usize,
}

/// A recording, by content key.
#[derive(Debug)]
pub(super) struct Replay {
    series: Mutex<BTreeMap<String, Series>>,
}

impl Replay {
    pub(super) fn load(path: &Path) -> Result<Self, ReplayError> {
        let error = |source| ReplayError::Io { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        File::open(path).map_err(error)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(error)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ReplayError::TooLarge { path: path.to_owned(), limit: MAX_BYTES });
        }
        Self::parse(&bytes).map_err(|(line, reason)| ReplayError::Line { path: path.to_owned(), line, reason })
    }

    fn parse(bytes: &[u8]) -> Result<Self, (usize, String)> {
        let mut series = BTreeMap::<_, Series>::new();
        for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let exchange: Exchange = serde_json::from_slice(line).map_err(|e| (number, e.to_string()))?;
            let key = exchange.key.clone();
            series.entry(key).or_default().outcomes.push(exchange.outcome().map_err(|reason| (number, reason))?);
        }
        Ok(Self { series: Mutex::new(series) })
    }

    /// The next answer to the question with this key; the last one again when all were given. `None` where the recording
    /// has none.
    pub(super) fn next(&self, key: &str) -> Option<Outcome> {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let series = all.get_mut(key)?;
        let outcome = series.outcomes.get(series.given).or(series.outcomes.last()).cloned();
        series.given += 1;
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{
            ChatError,
            record::{Recorder, content_key, tests::question, tests::scratch},
        },
        *,
    };

    #[test]
    fn a_recording_is_replayed_in_order() {
        let path = scratch("replay");
        let recorder = Recorder::open(&path).unwrap();
        let outcomes = [
            ("a", Ok("first".to_owned())),
            ("b", Err(ChatError::Connect { reason: "gone".into() })),
            ("a", Ok("second\nline".to_owned())),
        ];
        for (user, outcome) in &outcomes {
            recorder.add(&Exchange::new("m", &question(user), outcome, Duration::from_millis(1)).unwrap());
        }
        let replay = Replay::load(&path).unwrap();
        let next = |user| replay.next(&content_key("m", &question(user)));
        assert_eq!(next("a"), Some(Ok("first".into())));
        assert_eq!(next("b"), Some(Err("connect")));
        assert_eq!(next("a"), Some(Ok("second\nline".into())));
        assert_eq!(next("a"), Some(Ok("second\nline".into())));
        assert_eq!(next("c"), None);
    }

    #[test]
    fn a_bad_line_is_named() {
        let good = Exchange::new("m", &question("q"), &Ok("text".into()), Duration::ZERO).unwrap();
        let good = serde_json::to_string(&good).unwrap();
        let both = good.replace("\"reply\"", "\"error\":\"length\",\"reply\"");
        let unknown = good.replace("\"reply\":\"text\"", "\"error\":\"tired\"");
        for bad in ["{", "[]", "{\"key\": 1}", "\u{fffd}", &both, &unknown] {
            let (line, reason) = Replay::parse(format!("{good}\n\n{bad}\n").as_bytes()).unwrap_err();
            assert_eq!(line, 3, "{bad}: {reason}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = Replay::load(Path::new("/nowhere/at/all.jsonl")).unwrap_err().to_string();
        assert!(message.contains("/nowhere/at/all.jsonl"), "{message}");
    }
}
