//! Fills the phrase table: what the detector said in its own words gets a class, off the frame path.
//!
//! A phrase is answered at once by word and by meaning ([`assign::class_of`]), else by sentence similarity
//! ([`ClassEmbeddings`]); the language model, where there is one, is
//! asked about it afterwards, several phrases at a time, and its answer replaces the first.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam::{
    channel::{Receiver, Sender, bounded, never},
    select,
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::throttle::Throttle;
use crate::{
    pipeline::{
        ClassEmbeddings, PhraseTable, PreparedVocabulary, UnknownPhrase, VocabularyError, VocabularyHandle,
        VocabularyWorker,
    },
    types::Vocabulary,
    vocabulary::{
        VocabularyLimits, assign,
        chat::{ChatClient, ChatError},
        lexicon::Lexicon,
        refine::{prompts, reply},
    },
};

/// Phrases in one question to the language model.
const BATCH: usize = 32;
/// How long phrases are gathered before the language model is asked.
const GATHER: Duration = Duration::from_millis(500);
/// Phrases that may wait to be asked about; those beyond keep their first answer.
const WAITING: usize = 4 * BATCH;
/// How long a phrase's text features are waited for.
const ENCODING: Duration = Duration::from_millis(500);
/// Time between a question that failed and the next.
const PAUSE: Duration = Duration::from_secs(30);
/// Time between two log lines about the same failure.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// What phrases are answered with.
pub struct Sources {
    /// For meanings; without it words are compared, and sentences where `similarity` says so.
    pub lexicon: Option<Arc<Lexicon>>,
    /// Cosine from which on a phrase is the class whose name is nearest; 1: never.
    pub similarity: f32,
    /// For second answers.
    pub chat: Option<Arc<ChatClient>>,
    /// Bounds of what a reply may hold.
    pub limits: VocabularyLimits,
}

/// The running thread; ends when dropped.
pub struct PhraseResolver {
    stop: Option<Sender<()>>,
    cancel: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl PhraseResolver {
    /// Starts the thread `phrases`, and gives the table that the frame loop reads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        sources: Sources,
        worker: Arc<VocabularyWorker>,
        vocabulary: VocabularyHandle,
        runtime: Handle,
    ) -> std::io::Result<(Self, PhraseTable)> {
        let (table, unknown) = PhraseTable::new();
        let (stop, stopped) = bounded(0);
        let cancel = CancellationToken::new();
        let mut resolver = Resolver {
            sources,
            worker,
            embeddings: (0, ClassEmbeddings::default()),
            vocabulary,
            runtime,
            table: table.clone(),
            cancel: cancel.clone(),
            unasked: Vec::new(),
            question: None,
            not_before: Instant::now(),
            throttle: Throttle::new(LOG_INTERVAL),
        };
        let thread =
            std::thread::Builder::new().name("phrases".to_owned()).spawn(move || resolver.run(&unknown, &stopped))?;
        Ok((Self { stop: Some(stop), cancel, thread: Some(thread) }, table))
    }
}

impl Drop for PhraseResolver {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

struct Resolver {
    sources: Sources,
    worker: Arc<VocabularyWorker>,
    /// Those of the classes of the vocabulary with this version.
    embeddings: (u64, ClassEmbeddings),
    vocabulary: VocabularyHandle,
    runtime: Handle,
    table: PhraseTable,
    cancel: CancellationToken,
    /// What the language model has not been asked about.
    unasked: Vec<UnknownPhrase>,
    /// The question under way.
    question: Option<Question>,
    /// When the next one may be put, after one that failed.
    not_before: Instant,
    throttle: Throttle,
}

/// Phrases that the language model is being asked about.
struct Question {
    batch: Vec<UnknownPhrase>,
    /// The vocabulary that they may have classes of.
    prepared: Arc<PreparedVocabulary>,
    answer: Receiver<Result<String, ChatError>>,
}

impl Resolver {
    fn run(&mut self, unknown: &Receiver<UnknownPhrase>, stopped: &Receiver<()>) {
        loop {
            let answer = self.question.as_ref().map_or_else(never, |question| question.answer.clone());
            select! {
                recv(stopped) -> _ => return,
                recv(unknown) -> phrase => match phrase {
                    Ok(phrase) => self.answer_at_once(phrase),
                    Err(_) => return,
                },
                recv(answer) -> answer => self.take(answer.unwrap_or(Err(ChatError::Cancelled))),
                default(GATHER) => self.ask(),
            }
            if self.unasked.len() >= BATCH {
                self.ask();
            }
        }
    }

    fn answer_at_once(&mut self, unknown: UnknownPhrase) {
        let current = self.vocabulary.current();
        // The same phrase comes with every frame until it is answered, and may be of a list that is gone.
        if unknown.version != current.vocabulary.version || self.table.knows(&unknown.phrase, unknown.version) {
            return;
        }
        let by_word = assign::class_of(&unknown.phrase, &current.vocabulary, self.sources.lexicon.as_deref());
        let class = match by_word {
            Some(class) => Some(class),
            None => match self.nearest(&unknown.phrase, &current) {
                Ok(class) => class,
                // It comes again with the next frame.
                Err(VocabularyError::Busy | VocabularyError::Closed) => return,
                Err(error) => {
                    self.warn(&error.to_string());
                    None
                }
            },
        };
        let label = class.and_then(|class| current.vocabulary.entries.get(class)).map(|entry| Arc::clone(&entry.label));
        self.table.answer(unknown.version, [(Arc::clone(&unknown.phrase), label)]);
        if self.sources.chat.is_some() && self.unasked.len() < WAITING {
            self.unasked.push(unknown);
        }
    }

    /// The class whose name is nearest in meaning, where that is near enough.
    fn nearest(&mut self, phrase: &Arc<str>, current: &PreparedVocabulary) -> Result<Option<usize>, VocabularyError> {
        if self.sources.similarity >= 1.0 {
            return Ok(None);
        }
        let version = current.vocabulary.version;
        if self.embeddings.0 != version {
            self.embeddings = (version, ClassEmbeddings::of(current));
        }
        let text = self.worker.encode(phrase)?.recv_timeout(ENCODING).map_err(|_| VocabularyError::Busy)??;
        let nearest = self.embeddings.1.nearest(&text);
        Ok(nearest.filter(|(_, cosine)| *cosine >= self.sources.similarity).map(|(class, _)| class))
    }

    fn warn(&mut self, problem: &str) {
        if let Some(held) = self.throttle.pass("assign", Instant::now()) {
            tracing::warn!(problem, held_back = held, "phrases keep the class that words gave them");
        }
    }

    /// Asks the language model about what is new under the list in force, one question at a time.
    fn ask(&mut self) {
        if self.question.is_some() || Instant::now() < self.not_before {
            return;
        }
        let prepared = self.vocabulary.current();
        self.unasked.retain(|unknown| unknown.version == prepared.vocabulary.version);
        let Some(chat) = self.sources.chat.clone().filter(|_| !self.unasked.is_empty()) else { return };
        let batch: Vec<UnknownPhrase> = self.unasked.drain(..self.unasked.len().min(BATCH)).collect();
        let request = prompts::assign(&phrases(&batch), &labels(&prepared.vocabulary));
        let (sender, answer) = bounded(1);
        let cancel = self.cancel.clone();
        // Other phrases get their first answers while the model thinks about these.
        self.runtime.spawn(async move {
            let _ = sender.send(chat.ask(&request, &cancel).await);
        });
        self.question = Some(Question { batch, prepared, answer });
    }

    /// Takes the language model's answer. A failure leaves the first answers; the phrases are asked about again later.
    fn take(&mut self, answer: Result<String, ChatError>) {
        let Some(Question { batch, prepared, .. }) = self.question.take() else { return };
        let vocabulary = &*prepared.vocabulary;
        let failed = answer.is_err();
        let read = match answer {
            Err(ChatError::Cancelled) => return,
            Err(error) => Err(error.to_string()),
            Ok(text) => reply::assign(&text, &phrases(&batch), &labels(vocabulary), &self.sources.limits)
                .map_err(|error| error.to_string()),
        };
        match read {
            // An answer for a list that is gone must not take the table from the one in force.
            Ok(read) if vocabulary.version == self.vocabulary.current().vocabulary.version => {
                self.table.answer(vocabulary.version, answers(&read.value, &batch, vocabulary));
            }
            Ok(_) => {}
            Err(error) => {
                self.not_before = Instant::now() + PAUSE;
                if failed {
                    self.unasked.splice(..0, batch);
                    self.unasked.truncate(WAITING);
                }
                self.warn(&error);
            }
        }
    }
}

fn phrases(batch: &[UnknownPhrase]) -> Vec<&str> {
    batch.iter().map(|unknown| &*unknown.phrase).collect()
}

fn labels(vocabulary: &Vocabulary) -> Vec<&str> {
    vocabulary.entries.iter().map(|entry| &*entry.label).collect()
}

/// Replies as entries of the table: the phrases as the detector spells them, the labels as the vocabulary holds them.
fn answers(
    classes: &HashMap<String, Option<String>>,
    batch: &[UnknownPhrase],
    vocabulary: &Vocabulary,
) -> Vec<(Arc<str>, Option<Arc<str>>)> {
    let mut seen = HashSet::new();
    let once = batch.iter().filter(|unknown| seen.insert(&unknown.phrase));
    let answer = |unknown: &UnknownPhrase| {
        let class = classes.get(&*unknown.phrase)?;
        let find = |label: &String| vocabulary.entries.iter().find(|entry| *entry.label == **label);
        Some((Arc::clone(&unknown.phrase), class.as_ref().and_then(find).map(|entry| Arc::clone(&entry.label))))
    };
    once.filter_map(answer).collect()
}
