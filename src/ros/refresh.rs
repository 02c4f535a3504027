//! The vocabulary loop on its thread.
//!
//! An image comes by way of `ros::looks`. Everything else (proposing, asking, encoding) happens on the thread `refresh`, on
//! a core that nobody else wants, in the gaps between frames; the new list then comes into use between two frames like any
//! other. The thread may be without a core for long, so nobody shares a lock with it: its state is handed over by an atomic
//! pointer.

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tokio::runtime::Runtime;

use super::{
    chat_watch::ChatWatch,
    looks::{Look, Looks, Outcome, RefreshHandle, SceneTap, answer},
    phrases::{PhraseResolver, Sources},
    throttle::Throttle,
};
use crate::{
    inference::TextEncoder,
    pipeline::{
        PhraseTable, PreparedVocabulary, VocabularyError, VocabularyHandle, VocabularyRequest, VocabularyWorker,
        background::run_idle, take_out_indistinct,
    },
    types::{ClassEntry, RgbImage, Vocabulary, VocabularySource},
    vocabulary::{
        ClassSpec, VocabularyBuilder, VocabularyLimits,
        chat::{ChatClient, ChatStatus},
        refresh::{RefreshError, Refreshed, Refresher},
        schedule::{Reason, Schedule},
        store::Store,
    },
};

/// Longest sleep of the thread; it is woken when there is something to do.
const PARKED: Duration = Duration::from_secs(60);
/// How long the end waits for the thread; what it does then is worth nothing any more.
const GRACE: Duration = Duration::from_millis(800);
/// Time between two log lines about the same failure.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// What became of the last look.
#[derive(Clone, Debug, PartialEq)]
pub struct LastLook {
    /// Why it was taken.
    pub reason: Reason,
    /// When it ended.
    pub at: Instant,
    /// How long it took, from the image to the list in use.
    pub took: Duration,
    /// The list in a few words, or why there is none.
    pub outcome: Result<String, String>,
    /// What refined it; empty where there is no list.
    pub refinement: &'static str,
    /// What went wrong and was gone around.
    pub trouble: Option<String>,
}

/// The loop's counts, for diagnostics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RefreshStatus {
    /// Looks that gave a list.
    pub refreshes: u64,
    /// Looks after which another list came into use.
    pub changes: u64,
    /// Looks that gave none, by cause.
    pub failures: BTreeMap<&'static str, u64>,
    /// Labels refused: malformed or not among those allowed.
    pub refused: u64,
    /// The last look.
    pub last: Option<LastLook>,
    /// The language model's client, as it is now; as it was lately where it cannot be asked at once.
    pub chat: Option<ChatStatus>,
    /// The thread has ended although nobody asked it to; its panic message is in the log.
    pub dead: bool,
}

/// The running loop and, where phrases want classes, the thread that gives them; both end when this is dropped.
pub struct RefreshLoop {
    looks: Arc<Looks>,
    status: Arc<ArcSwap<RefreshStatus>>,
    phrases: Option<PhraseResolver>,
    chat: Option<ChatWatch>,
    thread: Option<JoinHandle<()>>,
    /// Disconnected when the thread ends.
    ended: Receiver<()>,
    /// When it is no longer waited for, where that was said.
    deadline: Option<Instant>,
    runtime: Option<Runtime>,
}

/// What the loop is made of.
pub struct Parts {
    /// Turns images into lists.
    pub refresher: Refresher,
    /// A text encoder of the loop's own: what it encodes costs frames nothing, and nobody waits for it.
    pub encoder: TextEncoder,
    /// Gives phrases their classes, where the detector names things in its own words.
    pub post_refinement: Option<Sources>,
    /// The language model's client, for diagnostics.
    pub chat: Option<Arc<ChatClient>>,
    /// When to look.
    pub schedule: Schedule,
    /// Where the last good list is kept.
    pub store: Option<Store>,
    /// Bounds of a list.
    pub limits: VocabularyLimits,
}

/// What the frame loop gets of it.
pub struct Taps {
    /// Takes images.
    pub scene: SceneTap,
    /// Gives phrases their classes.
    pub phrases: Option<PhraseTable>,
}

impl RefreshLoop {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        parts: Parts,
        cameras: usize,
        worker: Arc<VocabularyWorker>,
        vocabulary: VocabularyHandle,
    ) -> std::io::Result<(Self, Taps)> {
        let Parts { refresher, encoder, post_refinement, chat, schedule, store, limits } = parts;
        let looks = Arc::new(Looks::default());
        let status = Arc::new(ArcSwap::default());
        // A thread of its own looks after connections that are kept open between two questions.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("chat").enable_all().build()?;
        let (resolver, phrases) = match post_refinement {
            Some(sources) => {
                let (of, on) = (vocabulary.clone(), runtime.handle().clone());
                let (resolver, table) = PhraseResolver::start(sources, Arc::clone(&worker), of, on)?;
                (Some(resolver), Some(table))
            }
            None => (None, None),
        };
        let (throttle, counts, told) = (Throttle::new(LOG_INTERVAL), RefreshStatus::default(), Arc::clone(&status));
        let (started, made) = (vocabulary.current().vocabulary.version, None);
        let mut turn =
            Turn { refresher, encoder, limits, store, worker, vocabulary, started, made, throttle, counts, told };
        let (alive, ended) = bounded::<()>(0);
        let (on_thread, handle) = (Arc::clone(&looks), runtime.handle().clone());
        let thread = std::thread::Builder::new().name("refresh".to_owned()).spawn(move || {
            let _alive: Sender<()> = alive;
            run_idle();
            while !on_thread.gate().is_stopped() {
                let Some(look) = on_thread.take() else {
                    std::thread::park_timeout(PARKED);
                    continue;
                };
                let Look { image, camera, live, reason, callers } = look;
                let outcome = handle.block_on(turn.take(&image, (camera, &live), reason, &on_thread));
                answer(&callers, &outcome);
                on_thread.taken(image);
            }
            // A list may have been set after the last look.
            turn.keep_set(&turn.vocabulary.current().vocabulary);
        })?;
        let scene = SceneTap::new(schedule, Arc::clone(&looks), cameras, thread.thread().clone());
        let (chat, thread, runtime) = (chat.map(ChatWatch::new), Some(thread), Some(runtime));
        let running = Self { looks, status, phrases: resolver, chat, thread, ended, deadline: None, runtime };
        Ok((running, Taps { scene, phrases }))
    }

    /// The loop's counts.
    #[must_use]
    pub fn status(&self) -> RefreshStatus {
        let dead = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        let chat = self.chat.as_ref().zip(self.runtime.as_ref()).and_then(|(chat, runtime)| chat.status(runtime));
        RefreshStatus { chat, dead, ..RefreshStatus::clone(&self.status.load()) }
    }

    /// When this is dropped, the look under way is waited for until `deadline` at most.
    pub fn end_by(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    /// A handle on the loop.
    #[must_use]
    pub fn handle(&self) -> RefreshHandle {
        RefreshHandle::new(Arc::clone(&self.looks))
    }
}

impl Drop for RefreshLoop {
    fn drop(&mut self) {
        self.handle().stop();
        drop(self.phrases.take());
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            match self.ended.recv_deadline(self.deadline.unwrap_or_else(|| Instant::now() + GRACE)) {
                Err(RecvTimeoutError::Timeout) => tracing::warn!("gave up a look that takes longer than the end may"),
                // A panic there has been reported by the panic hook.
                _ => drop(thread.join()),
            }
        }
        if let Some(runtime) = self.runtime.take() {
            // A name look-up that hangs must not hold up the end.
            runtime.shutdown_background();
        }
    }
}

/// What the thread owns.
struct Turn {
    refresher: Refresher,
    encoder: TextEncoder,
    limits: VocabularyLimits,
    store: Option<Store>,
    worker: Arc<VocabularyWorker>,
    vocabulary: VocabularyHandle,
    /// Version of the list that the loop found when it began.
    started: u64,
    /// Version of the last list that this loop made.
    made: Option<u64>,
    throttle: Throttle,
    counts: RefreshStatus,
    /// Where everybody finds the counts.
    told: Arc<ArcSwap<RefreshStatus>>,
}

impl Turn {
    async fn take(
        &mut self,
        image: &RgbImage,
        (camera, live): (usize, &[usize]),
        reason: Reason,
        looks: &Looks,
    ) -> Outcome {
        let start = Instant::now();
        let current = self.vocabulary.current();
        let current = &current.vocabulary;
        if current.version > 0 && self.made != Some(current.version) {
            // Somebody else set it: it is where the loop goes on from.
            self.refresher.adopt(&specs(current));
            self.keep_set(current);
            self.made = Some(current.version);
        }
        self.refresher.keep_views(live);
        let refreshed = self.refresher.refresh(image, camera, &|| looks.gate().wait_for_gap(), looks.cancel()).await;
        let (outcome, refinement, trouble) = match refreshed {
            Ok(mut refreshed) => {
                let applied = self.take_out(&mut refreshed).and_then(|()| self.apply(&refreshed, current));
                self.counts.refreshes += 1;
                self.counts.refused += refreshed.refused as u64;
                match &applied {
                    Ok(true) => self.counts.changes += 1,
                    Ok(false) => {}
                    Err(error) => *self.counts.failures.entry(kind(error)).or_default() += 1,
                }
                let text = applied.map(|_| describe(&refreshed)).map_err(|error| error.to_string());
                (text, refreshed.refinement.as_str(), refreshed.trouble)
            }
            Err(error) => {
                if !matches!(error, RefreshError::Stopped) {
                    *self.counts.failures.entry(error.kind()).or_default() += 1;
                }
                (Err(error.to_string()), "", None)
            }
        };
        let stopped = looks.gate().is_stopped();
        for problem in [outcome.as_ref().err(), trouble.as_ref()].into_iter().flatten().filter(|_| !stopped) {
            if let Some(held) = self.throttle.pass("refresh", Instant::now()) {
                tracing::warn!(problem, held_back = held, "the class list was not refreshed as it should be");
            }
        }
        let (at, took) = (Instant::now(), start.elapsed());
        self.counts.last = Some(LastLook { reason, at, took, outcome: outcome.clone(), refinement, trouble });
        self.told.store(Arc::new(self.counts.clone()));
        outcome
    }

    /// Takes what the detector could not tell apart out of a list.
    fn take_out(&self, refreshed: &mut Refreshed) -> Result<(), VocabularyError> {
        let reasons = take_out_indistinct(&mut refreshed.classes, &self.encoder)?;
        refreshed.refused += reasons.len();
        if let Some(reason) = reasons.first() {
            refreshed.trouble.get_or_insert_with(|| reason.to_string());
        }
        Ok(())
    }

    /// Brings a list into use unless it is the one in use; whether it was another.
    fn apply(&mut self, refreshed: &Refreshed, current: &Vocabulary) -> Result<bool, VocabularyError> {
        if same_names(&refreshed.classes, current) {
            return Ok(false);
        }
        let (classes, source) = (refreshed.classes.clone(), VocabularySource::Refresh);
        let alone = VocabularyBuilder::new(self.limits).build(&classes, source, SystemTime::now())?;
        let encoded = Some(Arc::new(PreparedVocabulary::encode(alone, &mut self.encoder)?));
        // Kept before it is announced: the end may come at once, and this thread may be without a core until then.
        self.keep(&refreshed.classes);
        // A list set meanwhile by somebody else is newer than the image this one was made from.
        let expected = Some(current.version);
        let applied = self.worker.apply(VocabularyRequest { classes, source, expected, encoded });
        if applied.is_err() {
            self.keep_set(&self.vocabulary.current().vocabulary);
        }
        self.made = Some(applied?);
        Ok(true)
    }

    /// Keeps a list for the next start, where that is wanted.
    fn keep(&self, classes: &[ClassSpec]) {
        if let Some(store) = &self.store
            && let Err(error) = store.save(classes)
        {
            tracing::warn!(%error, "the class list could not be kept on disk");
        }
    }

    /// Keeps the list in force, but for the one that the node started with: it does so again by itself.
    fn keep_set(&self, current: &Vocabulary) {
        if current.version != self.started {
            self.keep(&specs(current));
        }
    }
}

fn kind(error: &VocabularyError) -> &'static str {
    match error {
        VocabularyError::Superseded { .. } => "superseded",
        _ => "list",
    }
}

/// The classes of a vocabulary, as a list that may be set again.
fn specs(vocabulary: &Vocabulary) -> Vec<ClassSpec> {
    let names = |names: &[Arc<str>]| names.iter().map(|name| name.to_string()).collect();
    let spec = |entry: &ClassEntry| ClassSpec {
        parent: entry.parent.to_string(),
        synonyms: names(&entry.synonyms),
        subclasses: names(&entry.subclasses),
        score: entry.score,
        ..ClassSpec::new(&*entry.label)
    };
    vocabulary.entries.iter().map(spec).collect()
}

/// Whether a list has the names of the vocabulary in use; scores alone are no reason for a new version.
fn same_names(classes: &[ClassSpec], vocabulary: &Vocabulary) -> bool {
    let unscored = |class: &ClassSpec| ClassSpec { score: 1.0, ..class.clone() };
    let current: Vec<ClassSpec> = specs(vocabulary).iter().map(unscored).collect();
    classes.iter().map(unscored).eq(current)
}

fn describe(refreshed: &Refreshed) -> String {
    let labels: Vec<&str> = refreshed.classes.iter().map(|class| class.label.as_str()).collect();
    format!("{} classes by {}: {}", labels.len(), refreshed.refinement.as_str(), labels.join(", "))
}
