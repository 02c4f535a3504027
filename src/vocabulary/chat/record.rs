//! Recordings: one line of JSON per exchange with the endpoint.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    ChatError, ChatRequest,
    error::{Health, RECORDED_KINDS},
};

/// Largest recording, in bytes. What is longer is not replayed, so no more is written either.
pub(super) const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// One exchange, as its line says it. Exactly one of `reply` and `error` is there. The picture itself is not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Exchange {
    /// See [`content_key`].
    pub(super) key: String,
    pub(super) purpose: String,
    pub(super) model: String,
    pub(super) request: Asked,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reply: Option<String>,
    /// The [kind](ChatError::kind) of the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// How long the answer took, repetitions included.
    pub(super) seconds: f64,
    /// When it was complete, in seconds since 1970.
    pub(super) at: f64,
}

/// What was asked, for a reader of the file; only the key is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) system: String,
    pub(super) user: String,
    pub(super) image_sha256: Option<String>,
    /// The schema's name.
    pub(super) schema: Option<String>,
    pub(super) max_tokens: u32,
    pub(super) temperature: Option<f64>,
}

/// What identifies a question: SHA-256, in hexadecimal, over its purpose, the model, both texts, the picture's SHA-256
/// and the schema. The model is part of it, as another model's answer is another answer; limits and temperature are
/// not. Each field is preceded by its length, so that no two questions run together to the same bytes.
pub(super) fn content_key(model: &str, request: &ChatRequest) -> String {
    let schema = request.schema.as_ref().map(|schema| (schema.name, schema.value.to_string()));
    let (name, value) = schema.as_ref().map_or(("", ""), |(name, value)| (name, value));
    let image = request.image.as_deref().map(hash).unwrap_or_default();
    let mut hasher = Sha256::new();
    for field in [request.purpose, model, &request.system, &request.user, &image, name, value] {
        hasher.update((field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    hexadecimal(&hasher.finalize())
}

fn hash(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Exchange {
    /// What to write down, if anything: a question that never got to the endpoint is no exchange.
    pub(super) fn new(
        model: &str,
        request: &ChatRequest,
        outcome: &Result<String, ChatError>,
        took: Duration,
    ) -> Option<Self> {
        let (reply, error) = match outcome {
            Ok(reply) => (Some(reply.clone()), None),
            Err(error) if error.health() == Health::Unknown => return None,
            Err(error) => (None, Some(error.kind().to_owned())),
        };
        Some(Self {
            key: content_key(model, request),
            purpose: request.purpose.to_owned(),
            model: model.to_owned(),
            request: Asked {
                system: request.system.clone(),
                user: request.user.clone(),
                image_sha256: request.image.as_deref().map(hash),
                schema: request.schema.as_ref().map(|schema| schema.name.to_owned()),
                max_tokens: request.max_tokens,
                temperature: request.temperature,
            },
            reply,
            error,
            seconds: took.as_secs_f64(),
            at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        })
    }

    /// The answer that the line holds; what is wrong with the line where it holds none.
    pub(super) fn outcome(self) -> Result<Result<String, &'static str>, String> {
        match (self.reply, self.error) {
            (Some(reply), None) => Ok(Ok(reply)),
            (None, Some(error)) => match RECORDED_KINDS.into_iter().find(|kind| *kind == error) {
                Some(kind) => Ok(Err(kind)),
                None => Err(format!("unknown error kind {error:?}")),
            },
            _ => Err("expected either reply or error".into()),
        }
    }
}

/// Adds exchanges to a file.
#[derive(Debug)]
pub(super) struct Recorder {
    path: PathBuf,
    sink: Mutex<Sink>,
    /// Exchanges that are not in the file.
    lost: AtomicU64,
}

#[derive(Debug)]
struct Sink {
    file: File,
    /// The last line may lack its end.
    torn: bool,
    /// The user has been told that writing fails.
    warned: bool,
    /// Another line would make the file too long to be replayed.
    full: bool,
}

impl Recorder {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        // Whoever wrote last may have been stopped in the middle of a line.
        let mut last = [b'\n'];
        if file.metadata()?.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        let sink = Sink { file, torn: last != [b'\n'], warned: false, full: false };
        Ok(Self { path: path.to_owned(), sink: Mutex::new(sink), lost: AtomicU64::new(0) })
    }

    /// Adds one line. A disk that fails costs a warning, once, and the line; never the answer. A file that has grown as
    /// long as a replay accepts stays as it is from then on, with a warning too.
    pub(super) fn add(&self, exchange: &Exchange) {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        if !sink.full {
            let line = serde_json::to_string(exchange).map_err(io::Error::from);
            let path = self.path.display();
            match line.and_then(|line| sink.write(&line)) {
                Ok(true) => return,
                Ok(false) => {
                    sink.full = true;
                    tracing::warn!(
                        "recording {path}: it is complete, for longer than {MAX_BYTES} bytes it could not be replayed; \
                         nothing more is recorded"
                    );
                }
                Err(error) => {
                    if !std::mem::replace(&mut sink.warned, true) {
                        tracing::warn!("recording {path}: {error}; further failures are not reported");
                    }
                }
            }
        }
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Exchanges that could not be added.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Sink {
    /// Adds a line; whether there was room for it.
    fn write(&mut self, line: &str) -> io::Result<bool> {
        let start = if self.torn { "\n" } else { "" };
        let text = format!("{start}{line}\n");
        // Asked each time: a write that failed may have left a part of the line.
        if self.file.metadata()?.len().saturating_add(text.len() as u64) > MAX_BYTES {
            return Ok(false);
        }
        self.torn = true;
        // In one piece, so that a stop hardly ever tears it.
        self.file.write_all(text.as_bytes())?;
        self.file.flush()?;
        self.torn = false;
        Ok(true)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Schema, replay::Replay};
    use super::*;

    pub(in super::super) fn question(user: &str) -> ChatRequest {
        ChatRequest {
            purpose: "test",
            system: "Answer.".into(),
            user: user.into(),
            image: None,
            schema: None,
            max_tokens: 10,
            temperature: None,
        }
    }

    /// A path that no other test has.
    pub(in super::super) fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("scenelex_chat_{}_{name}.jsonl", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn keys_tell_questions_apart() {
        let plain = question("ab");
        let image = ChatRequest { image: Some(vec![1, 2].into()), ..plain.clone() };
        let schema = ChatRequest { schema: Some(Schema { name: "s", value: true.into() }), ..plain.clone() };
        let shifted = ChatRequest { system: "Answer.a".into(), user: "b".into(), ..plain.clone() };
        let mut keys = vec![content_key("m", &plain), content_key("n", &plain)];
        keys.extend([image, schema, shifted].iter().map(|request| content_key("m", request)));
        assert!(keys.iter().all(|key| key.len() == 64));
        assert_eq!(content_key("m", &ChatRequest { max_tokens: 99, ..plain }), keys[0]);
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 5);
    }

    #[test]
    fn the_key_is_what_the_documentation_says() {
        // Independently: python3 -c 'import hashlib; f=[b"test",b"m",b"Answer.",b"ab",b"",b"",b""];
        //   print(hashlib.sha256(b"".join(len(x).to_bytes(8,"little")+x for x in f)).hexdigest())'
        let expected = "4d3938c741917d5e2965440a7f828d3db498f1c15222afcf522f9d8e41e62a82";
        assert_eq!(content_key("m", &question("ab")), expected);
    }

    #[test]
    fn a_torn_line_stays_alone() {
        let path = scratch("torn");
        std::fs::write(&path, "{\"key\": \"hal").unwrap();
        let recorder = Recorder::open(&path).unwrap();
        for reply in ["one", "two"] {
            let outcome = Ok(reply.to_owned());
            recorder.add(&Exchange::new("m", &question("q"), &outcome, Duration::from_secs(1)).unwrap());
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (3, "{\"key\": \"hal"));
        let last: Exchange = serde_json::from_str(lines[2]).unwrap();
        assert_eq!(last.outcome(), Ok(Ok("two".into())));
    }

    #[test]
    fn a_full_disk_does_no_harm() {
        let Ok(recorder) = Recorder::open(Path::new("/dev/full")) else { return };
        for _ in 0..2 {
            recorder.add(&Exchange::new("m", &question("q"), &Ok("text".into()), Duration::ZERO).unwrap());
        }
        assert!(recorder.sink.lock().unwrap().warned);
        assert_eq!(recorder.lost(), 2);
    }

    #[test]
    fn a_recording_grows_no_longer_than_is_replayed() {
        let path = scratch("full");
        let exchange = Exchange::new("m", &question("q"), &Ok("text".into()), Duration::ZERO).unwrap();
        let length = serde_json::to_string(&exchange).unwrap().len() as u64 + 1;
        // Room for one line, and nearly for another. A blank line takes the rest.
        let mut blank = vec![b' '; usize::try_from(MAX_BYTES - 2 * length).unwrap()];
        blank.push(b'\n');
        std::fs::write(&path, blank).unwrap();
        let recorder = Recorder::open(&path).unwrap();
        let size = || std::fs::metadata(&path).unwrap().len();
        recorder.add(&exchange);
        assert_eq!((size(), recorder.lost()), (MAX_BYTES - length + 1, 0));
        recorder.add(&exchange);
        recorder.add(&exchange);
        assert_eq!((size(), recorder.lost()), (MAX_BYTES - length + 1, 2));
        assert!(Replay::load(&path).is_ok());
        let _ = std::fs::remove_file(&path);
    }

    #[test]
    fn only_exchanges_are_written_down() {
        let kept = |error| Exchange::new("m", &question("q"), &Err(error), Duration::ZERO).map(|kept| kept.error);
        assert_eq!(kept(ChatError::Cancelled), None);
        assert_eq!(kept(ChatError::Busy), None);
        assert_eq!(kept(ChatError::Length { max_tokens: 1 }), Some(Some("length".into())));
    }
}
