//! One turn of the vocabulary loop: an image in, the next class list out.
//!
//! ```text
//! proposers, vision model ─▶ Ranking (occurrences × probability, filtered)
//!                          ─▶ pre-refinement by language model, else lexicon ─▶ subclasses ─▶ Memory (hysteresis)
//!                          ─▶ one owner for every name
//! ```
//!
//! Nothing here can make a good list worse: a turn that fails ends with an error, counts neither as a sighting nor as a miss,
//! and the list in force stays until a better one is whole. Only where the language model has failed more than three turns
//! in a row, or where there is no list yet, the lexicon does its work, until the model answers again.

mod subclasses;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;

use super::{
    chat::{ChatClient, ChatError, ChatRequest},
    lexicon::Lexicon,
    memory::{Hysteresis, Memory},
    names,
    parse::{ClassSpec, VocabularyLimits},
    proposals::{Aggregation, Candidate, Filter, Proposal, Ranking},
    proposer::{GoOn, Look, ProposeError, Proposer},
    refine::{
        offline,
        prompts::{self, SubclassPrompt},
        reply::{self, ReplyError},
    },
    store::SubclassStore,
};
use crate::types::RgbImage;

/// Things a vision model is asked for at most.
const MOST_LOOKED: usize = 64;
/// Words per target that a language model is asked for as hints.
const MOST_HINTS: usize = 8;
/// Classes that are asked about in one question where every class takes a list of words: longer replies are cut off.
const CLASSES_AT_ONCE: usize = 48;
/// Answers of the language model that are remembered.
const REMEMBERED_ANSWERS: usize = 16;
/// Turns in a row that the list waits for a language model that fails, before the lexicon does its work, and for a proposer
/// that fails beside others, before what only that one sees counts as missed.
const PATIENCE: u32 = 3;

/// Makes a JPEG of an image, for a vision model; `None` when it cannot.
pub type EncodeJpeg = fn(&RgbImage) -> Option<Vec<u8>>;

/// The loop's switches.
#[derive(Clone, Debug, PartialEq)]
pub struct RefreshConfig {
    /// Target classes: the list is a subset of them. Empty: an open list.
    pub targets: Vec<String>,
    /// Classes that are always in the list.
    pub fixed: Vec<String>,
    /// Whether the image is sent to the language model, which then proposes too.
    pub look: bool,
    /// Whether pre-refinement gets the caption, where a proposer writes one.
    pub caption: bool,
    /// How probabilities of several occurrences become one.
    pub aggregation: Aggregation,
    /// Which proposals are kept.
    pub filter: Filter,
    /// Whether proposals are refined; otherwise they are the list, as far as they are targets.
    pub pre_refine: bool,
    /// Whether the language model is asked for equivalence hints, once per list of targets.
    pub hints: bool,
    /// Subclasses per class; 0: none.
    pub subclasses: usize,
    /// How they are asked for.
    pub subclass_prompt: SubclassPrompt,
    /// When classes come and go.
    pub hysteresis: Hysteresis,
    /// Bounds of the list.
    pub limits: VocabularyLimits,
}

impl Default for RefreshConfig {
    /// Refined, open, without subclasses; a class comes and goes with a single sighting.
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            fixed: Vec::new(),
            look: false,
            caption: true,
            aggregation: Aggregation::default(),
            filter: Filter { percentile: 0.0, threshold: 0.0 },
            pre_refine: true,
            hints: false,
            subclasses: 0,
            subclass_prompt: SubclassPrompt::default(),
            hysteresis: Hysteresis { confirm: 1, keep: 0 },
            limits: VocabularyLimits::default(),
        }
    }
}

/// What refined the proposals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refinement {
    /// A language model.
    LanguageModel,
    /// The offline lexicon.
    Lexicon,
    /// Nothing: the proposals are the list.
    Proposals,
}

impl Refinement {
    /// Name used in diagnostics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LanguageModel => "language model",
            Self::Lexicon => "lexicon",
            Self::Proposals => "proposals",
        }
    }
}

/// What a turn made.
#[derive(Clone, Debug, PartialEq)]
pub struct Refreshed {
    /// The next list.
    pub classes: Vec<ClassSpec>,
    /// What refined it.
    pub refinement: Refinement,
    /// Labels refused on the way: malformed, or not among those allowed.
    pub refused: usize,
    /// What went wrong and was gone around.
    pub trouble: Option<String>,
}

/// Why a turn made no list. The one in force stays.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// Nothing was seen often and lately enough to make a list of.
    #[error("nothing was recognised in the image ({refused} proposals were refused)")]
    Nothing {
        /// Proposals refused.
        refused: usize,
    },
    /// No proposer worked.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The language model did not answer.
    #[error("language model: {0}")]
    Chat(#[from] ChatError),
    /// The language model's answer is of no use.
    #[error("language model: {0}")]
    Reply(#[from] ReplyError),
    /// The end has come.
    #[error("stopped")]
    Stopped,
}

impl RefreshError {
    /// A stable word for counting.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nothing { .. } => "nothing_recognised",
            Self::Propose(_) => "proposer",
            Self::Chat(error) => error.kind(),
            Self::Reply(_) => "reply",
            Self::Stopped => "stopped",
        }
    }
}

/// What was proposed for a camera's image, filtered.
struct View {
    candidates: Vec<Candidate>,
    caption: String,
    /// All proposers worked.
    complete: bool,
}

/// Proposals and captions of all cameras; a label that several of them see has the best of its scores.
fn together<'v>(views: impl Iterator<Item = &'v View>) -> (Vec<Candidate>, String) {
    let (mut candidates, mut captions) = (Vec::<Candidate>::new(), Vec::new());
    for View { candidates: more, caption, .. } in views {
        for candidate in more {
            match candidates.iter_mut().find(|known| known.label == candidate.label) {
                Some(known) if known.score >= candidate.score => {}
                Some(known) => *known = candidate.clone(),
                None => candidates.push(candidate.clone()),
            }
        }
        captions.extend(Some(caption.as_str()).filter(|caption| !caption.is_empty()));
    }
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.label.cmp(&b.label)));
    (candidates, captions.join(" "))
}

/// Turns images into class lists. Owned by the refresh thread.
pub struct Refresher {
    config: RefreshConfig,
    proposers: Vec<Box<dyn Proposer>>,
    chat: Option<Arc<ChatClient>>,
    lexicon: Option<Arc<Lexicon>>,
    encode_jpeg: EncodeJpeg,
    memory: Memory,
    /// What each camera's last look gave.
    views: BTreeMap<usize, View>,
    /// Turns in a row in which one of them was not complete.
    partial: u32,
    /// Turns in a row in which the language model did not refine.
    failed: u32,
    hints: Option<Vec<(String, String)>>,
    subclasses: BTreeMap<String, Vec<String>>,
    /// Where those of the language model are kept.
    subclass_store: Option<SubclassStore>,
    /// How often the language model was asked for those of a class and gave none.
    unanswered: BTreeMap<String, u32>,
    answers: Answers,
}

/// Good answers to the last questions: a scene that stays as it is costs no request.
#[derive(Default)]
struct Answers(VecDeque<(ChatRequest, String)>);

impl Answers {
    fn to(&self, request: &ChatRequest) -> Option<String> {
        self.0.iter().find_map(|(asked, answer)| (asked == request).then(|| answer.clone()))
    }

    fn remember(&mut self, request: ChatRequest, answer: String) {
        if self.to(&request).is_none() {
            self.0.truncate(REMEMBERED_ANSWERS - 1);
            self.0.push_front((request, answer));
        }
    }
}

impl Refresher {
    /// A refresher that has seen nothing yet.
    #[must_use]
    pub fn new(
        config: RefreshConfig,
        proposers: Vec<Box<dyn Proposer>>,
        chat: Option<Arc<ChatClient>>,
        lexicon: Option<Arc<Lexicon>>,
        encode_jpeg: EncodeJpeg,
    ) -> Self {
        let memory = Memory::new(config.hysteresis);
        Self {
            config,
            proposers,
            chat,
            lexicon,
            encode_jpeg,
            memory,
            views: BTreeMap::new(),
            partial: 0,
            failed: 0,
            hints: None,
            subclasses: BTreeMap::new(),
            subclass_store: None,
            unanswered: BTreeMap::new(),
            answers: Answers::default(),
        }
    }

    /// The language model's client.
    #[must_use]
    pub fn chat(&self) -> Option<&ChatClient> {
        self.chat.as_deref()
    }

    /// Starts over from a list that somebody set: its classes count as just seen.
    pub fn adopt(&mut self, classes: &[ClassSpec]) {
        self.memory = Memory::new(self.config.hysteresis);
        self.failed = 0;
        self.memory.adopt(classes);
        // They need no confirmation.
        self.memory.adopt(&self.config.fixed.iter().map(ClassSpec::new).collect::<Vec<_>>());
    }

    /// Forgets what cameras other than these saw.
    pub fn keep_views(&mut self, cameras: &[usize]) {
        self.views.retain(|camera, _| cameras.contains(camera));
    }

    /// One turn: a look at a camera's image. The list is made of it and of what the other cameras saw last, each ranked by
    /// itself, so that it does not swing from one camera's scene to the next one's. Ends within milliseconds once `cancel`
    /// is cancelled and `go_on` says no, except for a run of a model under way.
    ///
    /// # Errors
    /// [`RefreshError`]. What is remembered stays as it was, except that a look which recognised nothing counts as one
    /// more without a sighting. The classes of the list in force are remembered until another comes into force.
    pub async fn refresh(
        &mut self,
        image: &RgbImage,
        camera: usize,
        go_on: GoOn<'_>,
        cancel: &CancellationToken,
    ) -> Result<Refreshed, RefreshError> {
        let mut trouble = Trouble::default();
        let (Look { samples, caption }, complete) = self.propose(image, go_on, cancel, &mut trouble).await?;
        if cancel.is_cancelled() {
            return Err(RefreshError::Stopped);
        }
        let mut ranking = Ranking::of(&samples, self.config.aggregation, &self.config.limits);
        ranking.filter(self.config.filter);
        let caption = caption.filter(|_| self.config.caption).unwrap_or_default();
        self.views.insert(camera, View { candidates: ranking.candidates, caption, complete });
        let complete = self.views.values().all(|view| view.complete);
        self.partial = if complete { 0 } else { self.partial.saturating_add(1) };
        let (candidates, caption) = together(self.views.values());
        let refined = self.refine_noting(&candidates, &caption, cancel, &mut trouble).await?;
        let mut seen = refined.classes;
        // With targets a class has no other names.
        if self.config.targets.is_empty() {
            names::keep_labels(&mut seen, |name| self.memory.owner(name));
        }
        names::separate(&mut seen);
        names::add_fixed(&mut seen, &self.config.fixed);
        self.add_subclasses(&mut seen, cancel, &mut trouble).await?;
        let refused = ranking.refused + refined.refused + trouble.refused;
        let missing_counts = complete || self.partial > PATIENCE;
        let mut classes = self.memory.update(&seen, &self.config.limits, missing_counts);
        if classes.is_empty() {
            return Err(RefreshError::Nothing { refused });
        }
        // What is seen now and what is remembered may contradict each other.
        names::settle(&mut classes, &self.config.limits);
        Ok(Refreshed { classes, refinement: refined.by, refused, trouble: trouble.text })
    }

    /// Pre-refinement alone: ranked candidates in, classes with synonyms and parents out. Remembers nothing.
    ///
    /// # Errors
    /// [`RefreshError::Chat`], [`RefreshError::Reply`], [`RefreshError::Stopped`].
    pub async fn refine(
        &mut self,
        candidates: &[Candidate],
        cancel: &CancellationToken,
    ) -> Result<Refreshed, RefreshError> {
        let mut trouble = Trouble::default();
        let Refined { classes, by, refused } = self.refine_noting(candidates, "", cancel, &mut trouble).await?;
        let refused = refused + trouble.refused;
        Ok(Refreshed { classes, refinement: by, refused, trouble: trouble.text })
    }

    /// What the proposers say of an image, and whether all of them worked.
    async fn propose(
        &mut self,
        image: &RgbImage,
        go_on: GoOn<'_>,
        cancel: &CancellationToken,
        trouble: &mut Trouble,
    ) -> Result<(Look, bool), RefreshError> {
        let mut look = Look::default();
        let mut failure = None;
        let mut worked = false;
        for proposer in &mut self.proposers {
            match proposer.propose(image, go_on) {
                Ok(more) => {
                    look.samples.extend(more.samples);
                    look.caption = look.caption.or(more.caption);
                    worked = true;
                }
                Err(error) => {
                    trouble.note(&error);
                    failure = Some(RefreshError::from(error));
                }
            }
        }
        if self.config.look && self.chat.is_some() {
            match self.look(image, cancel).await {
                Ok(sample) => {
                    look.samples.push(sample);
                    worked = true;
                }
                Err(RefreshError::Stopped) => return Err(RefreshError::Stopped),
                Err(error) => {
                    trouble.note(&error);
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) if !worked => Err(error),
            failure => Ok((look, failure.is_none())),
        }
    }

    async fn look(&self, image: &RgbImage, cancel: &CancellationToken) -> Result<Vec<Proposal>, RefreshError> {
        let Some(jpeg) = (self.encode_jpeg)(image) else {
            return Err(ProposeError { proposer: "look", reason: "the image could not be compressed".into() }.into());
        };
        let answer = self.ask(&prompts::look(Arc::from(jpeg), MOST_LOOKED), cancel).await?;
        Ok(reply::look(&answer, &self.config.limits)?)
    }

    async fn ask(&self, request: &ChatRequest, cancel: &CancellationToken) -> Result<String, RefreshError> {
        let Some(chat) = &self.chat else { return Err(RefreshError::Stopped) };
        match chat.ask(request, cancel).await {
            Err(ChatError::Cancelled) => Err(RefreshError::Stopped),
            other => Ok(other?),
        }
    }

    /// Pre-refinement. A language model that fails leaves the list as it is; where there is none yet, or it has failed more
    /// than [`PATIENCE`] turns in a row, the lexicon replaces it, if it is there.
    async fn refine_noting(
        &mut self,
        candidates: &[Candidate],
        caption: &str,
        cancel: &CancellationToken,
        trouble: &mut Trouble,
    ) -> Result<Refined, RefreshError> {
        if !self.config.pre_refine || candidates.is_empty() {
            return Ok(Refined { classes: self.unrefined(candidates), by: Refinement::Proposals, refused: 0 });
        }
        if self.chat.is_some() {
            match self.refine_by_chat(candidates, caption, cancel, trouble).await {
                Err(RefreshError::Stopped) => return Err(RefreshError::Stopped),
                Err(error) => {
                    self.failed = self.failed.saturating_add(1);
                    if self.lexicon.is_none() || (self.has_list() && self.failed <= PATIENCE) {
                        return Err(error);
                    }
                    // The list is the lexicon's from now on, until the model answers again.
                    self.failed = self.failed.max(PATIENCE);
                    trouble.note(&error);
                }
                refined => {
                    self.failed = 0;
                    return refined;
                }
            }
        }
        Ok(match &self.lexicon {
            Some(lexicon) => {
                let classes = if self.config.targets.is_empty() {
                    offline::group(lexicon, candidates)
                } else {
                    offline::select(lexicon, candidates, &self.config.targets)
                };
                Refined { classes, by: Refinement::Lexicon, refused: 0 }
            }
            None => Refined { classes: self.unrefined(candidates), by: Refinement::Proposals, refused: 0 },
        })
    }

    /// Whether there is a list that was seen, or set by somebody.
    fn has_list(&self) -> bool {
        self.memory.members().any(|label| !self.config.fixed.iter().any(|fixed| fixed == label))
    }

    async fn refine_by_chat(
        &mut self,
        candidates: &[Candidate],
        caption: &str,
        cancel: &CancellationToken,
        trouble: &mut Trouble,
    ) -> Result<Refined, RefreshError> {
        // In one order, whatever their scores are at this moment: the same labels are the same question.
        let mut labels: Vec<&str> = candidates.iter().map(|candidate| &*candidate.label).collect();
        labels.sort_unstable();
        let limits = self.config.limits;
        if self.config.targets.is_empty() {
            let scored: Vec<(&str, f32)> = candidates.iter().map(|c| (&*c.label, c.score)).collect();
            let request = prompts::group(&labels);
            let answer = self.ask_once(&request, cancel).await?;
            let read = reply::group(&answer, &scored, &limits)?;
            self.answers.remember(request, answer);
            return Ok(Refined { classes: read.value, by: Refinement::LanguageModel, refused: read.refused });
        }
        self.fetch_hints(cancel, trouble).await?;
        let targets: Vec<&str> = self.config.targets.iter().map(String::as_str).collect();
        let hints = self.hints.as_deref().unwrap_or_default();
        let request = prompts::select(&labels, caption, &targets, hints);
        let answer = self.ask_once(&request, cancel).await?;
        let read = reply::select(&answer, &targets, &limits)?;
        // A class that no proposal names outright is there by the model's judgement alone; its score says so.
        let score = |label: &str| candidates.iter().find(|c| &*c.label == label).map_or(0.5, |c| c.score);
        let classes = read.value.iter().map(|label| ClassSpec { score: score(label), ..ClassSpec::new(*label) });
        let refined = Refined { classes: classes.collect(), by: Refinement::LanguageModel, refused: read.refused };
        self.answers.remember(request, answer);
        Ok(refined)
    }

    /// The answer that the same question got lately, or the model's.
    async fn ask_once(&self, request: &ChatRequest, cancel: &CancellationToken) -> Result<String, RefreshError> {
        match self.answers.to(request) {
            Some(answer) => Ok(answer),
            None => self.ask(request, cancel).await,
        }
    }

    async fn fetch_hints(&mut self, cancel: &CancellationToken, trouble: &mut Trouble) -> Result<(), RefreshError> {
        if !self.config.hints || self.hints.is_some() {
            return Ok(());
        }
        let targets: Vec<&str> = self.config.targets.iter().map(String::as_str).collect();
        let mut found = Vec::new();
        for some in targets.chunks(CLASSES_AT_ONCE) {
            let asked = self.ask(&prompts::hints(some, MOST_HINTS), cancel).await;
            match asked.and_then(|answer| Ok(reply::hints(&answer, some, &self.config.limits)?)) {
                Ok(read) => {
                    trouble.refused += read.refused;
                    found.extend(read.value);
                }
                Err(RefreshError::Stopped) => return Err(RefreshError::Stopped),
                // A model that cannot stop would not the next time either.
                Err(error @ RefreshError::Chat(ChatError::Length { .. })) => trouble.note(&error),
                // They only help; the next turn asks again.
                Err(error) => {
                    trouble.note(&error);
                    return Ok(());
                }
            }
        }
        // What is a class itself needs no hint; in another batch nobody could know.
        found.retain(|(word, _)| !targets.contains(&word.as_str()));
        self.hints = Some(found);
        Ok(())
    }

    /// The proposals themselves: all of them, or those that are targets word by word.
    fn unrefined(&self, candidates: &[Candidate]) -> Vec<ClassSpec> {
        let targets = &self.config.targets;
        let wanted = |label: &str| targets.is_empty() || targets.iter().any(|target| target == label);
        let kept = candidates.iter().filter(|candidate| wanted(&candidate.label));
        kept.map(|c| ClassSpec { score: c.score, ..ClassSpec::new(&*c.label) }).collect()
    }
}

/// Refined proposals.
struct Refined {
    classes: Vec<ClassSpec>,
    by: Refinement,
    refused: usize,
}

/// What was gone around during a turn.
#[derive(Default)]
struct Trouble {
    text: Option<String>,
    refused: usize,
}

impl Trouble {
    fn note(&mut self, error: &dyn std::error::Error) {
        self.text.get_or_insert_with(|| error.to_string());
    }
}

#[cfg(test)]
mod tests;
