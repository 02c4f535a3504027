//! The vocabulary loop on its thread, and how it meets the frame loop.
//!
//! After a result is published the frame loop offers its image ([`SceneTap::offer`]), which sees whether a look is due and
//! makes one copy into a reused buffer when it is. Everything else (proposing, asking, encoding) happens on the thread
//! `refresh`, on a core that nobody else wants, in the gaps between frames; the new list then comes into use between two
//! frames like any other.
//!
//! The thread may be without a core for long, so nobody shares a lock with it: images and its state are handed over by
//! atomic pointers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, Thread},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use crossbeam::{
    atomic::AtomicCell,
    channel::{Receiver, RecvTimeoutError, Sender, bounded},
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::{
    phrases::{PhraseResolver, Sources},
    throttle::Throttle,
};
use crate::{
    imaging::SceneSignature,
    inference::TextEncoder,
    pipeline::{
        FrameGate, PhraseTable, PreparedVocabulary, VocabularyError, VocabularyHandle, VocabularyRequest,
        VocabularyWorker, background::run_idle, take_out_indistinct,
    },
    types::{ClassEntry, FrameResult, RgbImage, UNLABELLED, Vocabulary, VocabularySource},
    vocabulary::{
        ClassSpec, VocabularyBuilder, VocabularyLimits,
        chat::{ChatClient, ChatStatus},
        refresh::{RefreshError, Refreshed, Refresher},
        schedule::{Reason, Schedule, Unmatched},
        store::Store,
    },
};

/// Callers of `~/refresh_vocabulary` that may wait at the same time.
const WAITING_CALLERS: usize = 8;
/// Longest sleep of the thread; it is woken when there is something to do.
const PARKED: Duration = Duration::from_secs(60);
/// How long the end waits for the thread; what it does then is worth nothing any more.
const GRACE: Duration = Duration::from_millis(800);
/// Time between two log lines about the same failure.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// How long the language model's client is waited for when it is asked how it does.
const CHAT_PATIENCE: Duration = Duration::from_millis(20);

/// What a camera that sent no image for so long saw last is no part of the scene any more.
const SILENCE: Duration = Duration::from_secs(10);

const STOPPING: &str = "the node is stopping";

/// An image to look at.
struct Look {
    image: RgbImage,
    camera: usize,
    /// Cameras that send images: the list is one for what all of them see.
    live: Vec<usize>,
    reason: Reason,
    /// Who asked for it.
    callers: Vec<Caller>,
}

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

type Outcome = Result<String, String>;

/// Somebody who waits for what becomes of a look.
struct Caller {
    reply: Sender<Outcome>,
    /// The caller's own end, to know it by.
    answer: Receiver<Outcome>,
}

fn answer(callers: &[Caller], outcome: &Outcome) {
    for caller in callers {
        // Who has gone meanwhile needs no answer.
        let _ = caller.reply.try_send(outcome.clone());
    }
}

struct Shared {
    look: AtomicCell<Option<Box<Look>>>,
    /// The image of an earlier look, for its memory.
    spare: AtomicCell<Option<Box<RgbImage>>>,
    requested: AtomicBool,
    /// A look is under way or waits to be.
    busy: AtomicBool,
    gate: FrameGate,
    cancel: CancellationToken,
    /// Shared by the frame loop and the service, never by the thread.
    callers: Mutex<Vec<Caller>>,
    status: ArcSwap<RefreshStatus>,
}

impl Shared {
    fn new() -> Self {
        Self {
            look: AtomicCell::new(None),
            spare: AtomicCell::new(None),
            requested: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            gate: FrameGate::default(),
            cancel: CancellationToken::new(),
            callers: Mutex::default(),
            status: ArcSwap::default(),
        }
    }

    fn callers(&self) -> MutexGuard<'_, Vec<Caller>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who waits that nothing comes any more, also those of a look that has not begun.
    fn send_away(&self) {
        let mut callers = std::mem::take(&mut *self.callers());
        if let Some(look) = self.look.take() {
            callers.extend(look.callers);
        }
        answer(&callers, &Err(STOPPING.to_owned()));
    }
}

/// The frame loop's end.
pub struct SceneTap {
    schedule: Schedule,
    shared: Arc<Shared>,
    thread: Thread,
    cameras: Vec<Watched>,
}

/// What is known of a camera's scene.
#[derive(Default)]
struct Watched {
    last_image: Option<Instant>,
    /// The picture of the last look, and when that was.
    last: Option<(SceneSignature, Instant)>,
    /// Detections without a class.
    unmatched: Unmatched,
}

impl SceneTap {
    /// Where a frame says that it is under way.
    #[must_use]
    pub fn gate(&self) -> FrameGate {
        self.shared.gate.clone()
    }

    /// Looks whether a camera's image is worth a look and, if so, hands a copy over. Never waits.
    pub fn offer(&mut self, camera: usize, image: &RgbImage, result: &FrameResult) {
        let now = Instant::now();
        let Some(watched) = self.cameras.get_mut(camera) else { return };
        watched.last_image = Some(now);
        let without_class = result.instances.iter().filter(|i| i.class_id == UNLABELLED).count();
        watched.unmatched.count(result.instances.len(), without_class);
        if self.shared.busy.load(Ordering::Acquire) {
            return;
        }
        let signature = SceneSignature::of(image);
        let difference = watched.last.as_ref().map_or(1.0, |(last, _)| last.difference(&signature));
        let requested = self.shared.requested.load(Ordering::Acquire);
        let since = watched.last.as_ref().map(|(_, at)| *at);
        let unmatched = watched.unmatched.risen(&self.schedule, now, since);
        let Some(reason) = self.schedule.due(now, since, requested, difference, unmatched) else { return };
        self.shared.requested.store(false, Ordering::Release);
        self.shared.busy.store(true, Ordering::Release);
        watched.last = Some((signature, now));
        watched.unmatched.looked();
        let lives = |watched: &Watched| watched.last_image.is_some_and(|last| now.duration_since(last) < SILENCE);
        let live = self.cameras.iter().enumerate().filter_map(|(index, watched)| lives(watched).then_some(index));
        let mut copy = self.shared.spare.take().map_or_else(RgbImage::default, |image| *image);
        copy.size = image.size;
        copy.data.clone_from(&image.data);
        let callers = std::mem::take(&mut *self.shared.callers());
        self.shared.look.store(Some(Box::new(Look { image: copy, camera, live: live.collect(), reason, callers })));
        if self.shared.gate.is_stopped() {
            // The thread may have ended already.
            self.shared.send_away();
        }
        self.thread.unpark();
    }
}

/// A handle on the loop. Cheap to clone.
#[derive(Clone)]
pub struct RefreshHandle(Arc<Shared>);

impl RefreshHandle {
    /// Ends the look under way, at the latest when the run of a model that it waits for is over; no other begins.
    pub fn stop(&self) {
        self.0.gate.stop();
        self.0.cancel.cancel();
        self.0.send_away();
    }

    /// Has the next image looked at, whatever the schedule says; tells what became of it.
    ///
    /// # Errors
    /// When too many callers wait already, the node is stopping, or there is no answer within `patience`; and why there is no
    /// list.
    pub fn look(&self, patience: Duration) -> Result<String, String> {
        let asked = self.request()?;
        match asked.recv_timeout(patience) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Disconnected) => {
                Err("the vocabulary loop has ended; the node's log says why".to_owned())
            }
            Err(RecvTimeoutError::Timeout) if self.give_up(&asked) => {
                Err(format!("no image was looked at within {} s", patience.as_secs()))
            }
            // It may just have ended.
            Err(RecvTimeoutError::Timeout) => asked.try_recv().unwrap_or_else(|_| {
                let seconds = patience.as_secs();
                Err(format!("the look takes longer than {seconds} s; /diagnostics will tell what became of it"))
            }),
        }
    }

    /// No longer waits; false where an image is being looked at, or was, for this caller.
    fn give_up(&self, asked: &Receiver<Outcome>) -> bool {
        let mut callers = self.0.callers();
        let waiting = callers.len();
        callers.retain(|caller| !caller.answer.same_channel(asked));
        callers.len() < waiting
    }

    /// Joins those who wait.
    fn request(&self) -> Result<Receiver<Outcome>, String> {
        let (reply, answer) = bounded(1);
        let mut callers = self.0.callers();
        // `stop` sets this before it answers those who wait: nobody can come to wait behind it.
        if self.0.gate.is_stopped() {
            return Err(STOPPING.to_owned());
        }
        if callers.len() >= WAITING_CALLERS {
            return Err(format!("{WAITING_CALLERS} callers wait for a refresh already"));
        }
        callers.push(Caller { reply, answer: answer.clone() });
        drop(callers);
        self.0.requested.store(true, Ordering::Release);
        Ok(answer)
    }
}

/// Asks the language model's client how it does. The refresh thread may be without a core for long just while it holds the
/// client's lock, so a thread of the client's runtime asks, and is not waited for long.
struct ChatWatch {
    client: Arc<ChatClient>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    last: Option<ChatStatus>,
    /// What is not answered yet.
    asked: Option<Receiver<ChatStatus>>,
}

impl ChatWatch {
    fn new(client: Arc<ChatClient>) -> Self {
        Self { client, seen: Mutex::default() }
    }

    /// How it does now; without an answer in time, as far as is known.
    fn status(&self, runtime: &Runtime) -> Option<ChatStatus> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = seen.asked.take().unwrap_or_else(|| {
            let (sender, answer) = bounded(1);
            let client = Arc::clone(&self.client);
            runtime.spawn(async move {
                let _ = sender.try_send(client.status());
            });
            answer
        });
        match asked.recv_timeout(CHAT_PATIENCE) {
            Ok(status) => seen.last = Some(status),
            Err(RecvTimeoutError::Timeout) => seen.asked = Some(asked),
            // The runtime has ended.
            Err(RecvTimeoutError::Disconnected) => {}
        }
        seen.last.clone()
    }
}

/// The running loop and, where phrases want classes, the thread that gives them; both end when this is dropped.
pub struct RefreshLoop {
    shared: Arc<Shared>,
    phrases: Option<PhraseResolver>,
    chat: Option<ChatWatch>,
    thread: Option<JoinHandle<()>>,
    /// Disconnected when the thread ends.
    ended: Receiver<()>,
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
        let shared = Arc::new(Shared::new());
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
        let (throttle, status) = (Throttle::new(LOG_INTERVAL), RefreshStatus::default());
        let (started, made) = (vocabulary.current().vocabulary.version, None);
        let mut turn = Turn { refresher, encoder, limits, store, worker, vocabulary, started, made, throttle, status };
        let (alive, ended) = bounded::<()>(0);
        let (on_thread, handle) = (Arc::clone(&shared), runtime.handle().clone());
        let thread = std::thread::Builder::new().name("refresh".to_owned()).spawn(move || {
            let _alive: Sender<()> = alive;
            run_idle();
            while !on_thread.gate.is_stopped() {
                let Some(look) = on_thread.look.take() else {
                    std::thread::park_timeout(PARKED);
                    continue;
                };
                let Look { image, camera, live, reason, callers } = *look;
                let outcome = handle.block_on(turn.take(&image, (camera, &live), reason, &on_thread));
                answer(&callers, &outcome);
                on_thread.spare.store(Some(Box::new(image)));
                on_thread.busy.store(false, Ordering::Release);
            }
            // A list may have been set after the last look.
            turn.keep_set(&turn.vocabulary.current().vocabulary);
        })?;
        let cameras = std::iter::repeat_with(Watched::default).take(cameras).collect();
        let awake = thread.thread().clone();
        let scene = SceneTap { schedule, shared: Arc::clone(&shared), thread: awake, cameras };
        let (chat, thread, runtime) = (chat.map(ChatWatch::new), Some(thread), Some(runtime));
        let running = Self { shared, phrases: resolver, chat, thread, ended, runtime };
        Ok((running, Taps { scene, phrases }))
    }

    /// The loop's counts.
    #[must_use]
    pub fn status(&self) -> RefreshStatus {
        let dead = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        let chat = self.chat.as_ref().zip(self.runtime.as_ref()).and_then(|(chat, runtime)| chat.status(runtime));
        RefreshStatus { chat, dead, ..RefreshStatus::clone(&self.shared.status.load()) }
    }

    /// A handle on the loop.
    #[must_use]
    pub fn handle(&self) -> RefreshHandle {
        RefreshHandle(Arc::clone(&self.shared))
    }
}

impl Drop for RefreshLoop {
    fn drop(&mut self) {
        self.handle().stop();
        drop(self.phrases.take());
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            match self.ended.recv_timeout(GRACE) {
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
    status: RefreshStatus,
}

impl Turn {
    async fn take(
        &mut self,
        image: &RgbImage,
        (camera, live): (usize, &[usize]),
        reason: Reason,
        shared: &Shared,
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
        let refreshed = self.refresher.refresh(image, camera, &|| shared.gate.wait_for_gap(), &shared.cancel).await;
        let (outcome, refinement, trouble) = match refreshed {
            Ok(mut refreshed) => {
                let applied = self.take_out(&mut refreshed).and_then(|()| self.apply(&refreshed, current));
                self.status.refreshes += 1;
                self.status.refused += refreshed.refused as u64;
                match &applied {
                    Ok(true) => self.status.changes += 1,
                    Ok(false) => {}
                    Err(error) => *self.status.failures.entry(kind(error)).or_default() += 1,
                }
                let text = applied.map(|_| describe(&refreshed)).map_err(|error| error.to_string());
                (text, refreshed.refinement.as_str(), refreshed.trouble)
            }
            Err(error) => {
                if !matches!(error, RefreshError::Stopped) {
                    *self.status.failures.entry(error.kind()).or_default() += 1;
                }
                (Err(error.to_string()), "", None)
            }
        };
        let stopped = shared.gate.is_stopped();
        for problem in [outcome.as_ref().err(), trouble.as_ref()].into_iter().flatten().filter(|_| !stopped) {
            if let Some(held) = self.throttle.pass("refresh", Instant::now()) {
                tracing::warn!(problem, held_back = held, "the class list was not refreshed as it should be");
            }
        }
        let (at, took) = (Instant::now(), start.elapsed());
        self.status.last = Some(LastLook { reason, at, took, outcome: outcome.clone(), refinement, trouble });
        shared.status.store(Arc::new(self.status.clone()));
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

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;
    use crate::{
        types::ImageSize,
        vocabulary::chat::{ChatConfig, ChatRequest},
    };

    /// Far longer than anything here takes; only a fault waits so long.
    const LONG: Duration = Duration::from_secs(30);

    fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + LONG;
        while !condition() {
            assert!(Instant::now() < deadline, "never: {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A loop whose thread never gets a core: both of its ends.
    fn stuck() -> (RefreshHandle, SceneTap) {
        let shared = Arc::new(Shared::new());
        let schedule =
            Schedule { period: Duration::ZERO, min_interval: Duration::ZERO, scene_change: 0.0, unmatched: 0.0 };
        let cameras = vec![Watched::default()];
        let tap = SceneTap { schedule, shared: Arc::clone(&shared), thread: thread::current(), cameras };
        (RefreshHandle(shared), tap)
    }

    /// Offers an image when a caller waits, who is patient for so long; then does `more`. Gives what the caller is told.
    fn asked_for(patience: Duration, more: impl FnOnce(&RefreshHandle)) -> Outcome {
        let (handle, mut tap) = stuck();
        let image = RgbImage { size: ImageSize::new(8, 8), data: vec![0; 192] };
        thread::scope(|scope| {
            let caller = scope.spawn(|| handle.look(patience));
            until("a caller waits", || handle.0.requested.load(Ordering::Acquire));
            tap.offer(0, &image, &FrameResult::default());
            more(&handle);
            caller.join().unwrap()
        })
    }

    #[test]
    fn who_gave_up_leaves_room_for_others() {
        let (handle, _tap) = stuck();
        for _ in 0..2 * WAITING_CALLERS {
            assert_eq!(handle.look(Duration::ZERO), Err("no image was looked at within 0 s".to_owned()));
        }
        let waiting: Vec<_> = (0..WAITING_CALLERS).map(|_| handle.request().unwrap()).collect();
        assert!(handle.request().unwrap_err().contains("callers wait"));
        assert!(handle.give_up(&waiting[3]) && !handle.give_up(&waiting[3]));
        handle.request().unwrap();
    }

    #[test]
    fn a_look_that_takes_long_is_not_called_none() {
        let error = asked_for(Duration::from_secs(1), |_| ()).unwrap_err();
        assert!(error.contains("longer than 1 s"), "{error}");
    }

    #[test]
    fn nobody_waits_for_a_look_that_the_end_comes_before() {
        assert_eq!(asked_for(LONG, RefreshHandle::stop), Err(STOPPING.to_owned()));
    }

    #[test]
    fn nobody_waits_for_a_look_that_is_offered_after_the_end() {
        let (handle, mut tap) = stuck();
        let asked = handle.request().unwrap();
        // The caller's place is taken before the end, the look is handed over after it.
        handle.0.gate.stop();
        let image = RgbImage { size: ImageSize::new(8, 8), data: vec![0; 192] };
        tap.offer(0, &image, &FrameResult::default());
        assert_eq!(asked.try_recv(), Ok(Err(STOPPING.to_owned())));
    }

    #[test]
    fn the_client_is_asked_how_it_does_while_a_question_hangs() {
        // Whoever connects waits for an answer that does not come.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}/v1", silent.local_addr().unwrap());
        let config = ChatConfig { base_url, key_variable: String::new(), ..ChatConfig::default() };
        let client = Arc::new(ChatClient::with_environment(config, |_| None).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (watch, cancel) = (ChatWatch::new(Arc::clone(&client)), CancellationToken::new());
        let requests = || watch.status(&runtime).map(|status| status.requests);
        until("the client answers", || requests() == Some(0));
        let cancelled = cancel.clone();
        let question = ChatRequest {
            purpose: "test",
            system: String::new(),
            user: "Are you there?".to_owned(),
            image: None,
            schema: None,
            max_tokens: 16,
            temperature: None,
        };
        let asked = runtime.spawn(async move { client.ask(&question, &cancelled).await });
        until("the question is seen", || requests() == Some(1));
        assert!(!asked.is_finished());
        cancel.cancel();
        runtime.shutdown_background();
    }
}
