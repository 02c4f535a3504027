//! Answers from a recording, the same on every run.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

use super::record::{Exchange, MAX_BYTES};

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
    /// A line is JSON, but not an exchange; or the file holds something else altogether.
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

/// Lines that are no JSON: writing was stopped in the middle of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Torn {
    count: usize,
    /// Number of the first one, counted from 1.
    first: usize,
}

/// A recording, by content key.
#[derive(Debug)]
pub(super) struct Replay {
    series: Mutex<BTreeMap<String, Series>>,
    torn: Torn,
}

impl Replay {
    pub(super) fn load(path: &Path) -> Result<Self, ReplayError> {
        let error = |source| ReplayError::Io { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        File::open(path).map_err(error)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(error)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ReplayError::TooLarge { path: path.to_owned(), limit: MAX_BYTES });
        }
        let replay =
            Self::parse(&bytes).map_err(|(line, reason)| ReplayError::Line { path: path.to_owned(), line, reason })?;
        let Torn { count, first } = replay.torn;
        if count > 0 {
            tracing::warn!(
                "recording {}: incomplete lines are left out: {count}, the first is line {first}",
                path.display()
            );
        }
        Ok(replay)
    }

    /// Leaves torn lines out, which a recorder that was stopped leaves behind. Refused, with the line's number and what is
    /// wrong with it, are a line that is JSON of another shape, and a file that neither holds an exchange nor begins like
    /// one.
    fn parse(bytes: &[u8]) -> Result<Self, (usize, String)> {
        let (mut series, mut torn, mut foreign) = (BTreeMap::<_, Series>::new(), Torn::default(), None);
        for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let exchange: Exchange = match serde_json::from_slice(line) {
                Ok(exchange) => exchange,
                Err(error) if serde_json::from_slice::<Value>(line).is_ok() => return Err((number, error.to_string())),
                Err(error) => {
                    if torn.count == 0 {
                        torn.first = number;
                        foreign = (!line.starts_with(b"{")).then(|| (number, error.to_string()));
                    }
                    torn.count += 1;
                    continue;
                }
            };
            let key = exchange.key.clone();
            series.entry(key).or_default().outcomes.push(exchange.outcome().map_err(|reason| (number, reason))?);
        }
        match foreign {
            Some(foreign) if series.is_empty() => Err(foreign),
            _ => Ok(Self { series: Mutex::new(series), torn }),
        }
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
        for bad in ["7", "[]", "{\"key\": 1}", &both, &unknown] {
            let (line, reason) = Replay::parse(format!("{good}\n\n{bad}\n").as_bytes()).unwrap_err();
            assert_eq!(line, 3, "{bad}: {reason}");
        }
        assert_eq!(Replay::parse(b"\nname,value\n").unwrap_err().0, 2);
    }

    #[test]
    fn torn_lines_are_left_out() {
        let path = scratch("replay_torn");
        let exchange = |reply: &str| Exchange::new("m", &question("q"), &Ok(reply.into()), Duration::ZERO).unwrap();
        let whole = serde_json::to_string(&exchange("lost")).unwrap();
        for length in [1, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            Recorder::open(&path).unwrap().add(&exchange("kept"));
            let replay = Replay::load(&path).unwrap();
            assert_eq!(replay.torn, Torn { count: 1, first: 1 });
            assert_eq!(replay.next(&content_key("m", &question("q"))), Some(Ok("kept".into())));
        }
        let replay = Replay::parse(format!("{whole}\n\0\0\n{{\"key\": \"\n").as_bytes()).unwrap();
        assert_eq!(replay.torn, Torn { count: 2, first: 2 });
        // All there is, as the very first line was torn.
        assert_eq!(Replay::parse(&whole.as_bytes()[..20]).unwrap().torn, Torn { count: 1, first: 1 });
        let _ = std::fs::remove_file(&path);
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = Replay::load(Path::new("/nowhere/at/all.jsonl")).unwrap_err().to_string();
        assert!(message.contains("/nowhere/at/all.jsonl"), "{message}");
    }
}
