//! The vocabulary loop's settings, made of the parameters `refresh.*` and `llm.*`, and the loop made of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{phrases::Sources, proposer_settings::ProposerSettings, refresh::Parts, settings::Reader};
use crate::{
    imaging::encode_jpeg,
    inference::{Bundle, InferenceError, ModelOptions, TextEncoder},
    pipeline::ConfigError,
    types::RgbImage,
    vocabulary::{
        VocabularyLimits,
        chat::{ChatClient, ChatConfig, ChatConfigError, ReplayMiss, Structured, Timeouts},
        lexicon::{DEBIAN_DIR, Lexicon, LexiconError},
        memory::Hysteresis,
        normalise_label,
        proposals::{Aggregation, Filter},
        refine::prompts::SubclassPrompt,
        refresh::{RefreshConfig, Refresher},
        schedule::Schedule,
        store::{Asked, Store, SubclassStore},
    },
};

/// Quality of the JPEG a vision model gets.
const JPEG_QUALITY: u8 = 85;

/// Everything the vocabulary loop needs to know, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct RefreshSettings {
    /// When to look.
    schedule: Schedule,
    /// What to make of it.
    config: RefreshConfig,
    proposers: ProposerSettings,
    lexicon: Option<PathBuf>,
    chat: Option<ChatConfig>,
    store: Option<PathBuf>,
    post_refine: bool,
    similarity: f32,
}

/// Why the vocabulary loop cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RefreshSetupError {
    /// A bundle of theirs, or a further session of the detector.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// The language model's configuration.
    #[error("language model: {0}")]
    Chat(#[from] ChatConfigError),
    /// The lexicon's files.
    #[error("parameter refresh.lexicon: {0}")]
    Lexicon(#[from] LexiconError),
    /// The detector cannot be asked for words that are not there.
    #[error(
        "the probe has no words: set refresh.targets or refresh.probe.words, or give it a lexicon (Debian package \
         wordnet-base, or refresh.lexicon)"
    )]
    NoWords,
}

impl RefreshSettings {
    /// Settings of the parameter table's values; `None` where the loop is off.
    ///
    /// # Errors
    /// [`ConfigError`] where a value is wrong or values contradict each other.
    pub(super) fn from_values(read: &Reader<'_>) -> Result<Option<Self>, ConfigError> {
        if !read.bool("refresh.enabled") {
            return Ok(None);
        }
        let limits = VocabularyLimits { max_classes: read.integer("max_classes"), ..VocabularyLimits::default() };
        let names = |name: &'static str| {
            let canonical = |name: &String| normalise_label(name, &limits).map(|label| label.to_string());
            let labels: Result<Vec<String>, _> = read.texts(name).iter().map(canonical).collect();
            labels.map_err(|error| ConfigError { name, reason: error.to_string() })
        };
        let proposers = ProposerSettings::from_values(read, names("refresh.probe.words")?)?;
        let error = |reason: &str| Err(ConfigError { name: "refresh.proposals", reason: reason.to_owned() });
        let chat = chat(read);
        if proposers.looks && chat.is_none() {
            return error("look needs a vision language model: set llm.url or llm.replay");
        }
        let fixed = names("refresh.fixed")?;
        if proposers.is_empty() && fixed.is_empty() {
            return error("nobody would propose anything");
        }
        let (period, scene_change) = (read.seconds("refresh.period"), read.double("refresh.scene_change") as f32);
        Ok(Some(Self {
            schedule: Schedule {
                period,
                min_interval: read.seconds("refresh.min_interval"),
                scene_change,
                unmatched: read.double("refresh.unmatched") as f32,
            },
            config: RefreshConfig {
                targets: names("refresh.targets")?,
                fixed,
                look: proposers.looks,
                caption: read.bool("refresh.caption.pre_refine"),
                aggregation: match read.text("refresh.aggregation").as_str() {
                    "product" => Aggregation::Product,
                    "minimum" => Aggregation::Minimum,
                    "maximum" => Aggregation::Maximum,
                    _ => Aggregation::Average,
                },
                filter: Filter {
                    percentile: read.double("refresh.percentile") as f32,
                    threshold: read.double("refresh.threshold") as f32,
                },
                pre_refine: read.bool("refresh.pre_refine"),
                hints: read.bool("refresh.hints"),
                subclasses: if read.bool("refresh.subclasses") { read.integer("refresh.n_subclasses") } else { 0 },
                subclass_prompt: match read.text("refresh.subclass_prompt").as_str() {
                    "few_shot" => SubclassPrompt::FewShot,
                    _ => SubclassPrompt::ZeroShot,
                },
                hysteresis: Hysteresis {
                    confirm: u32::try_from(read.integer("refresh.confirm")).unwrap_or(1),
                    keep: u32::try_from(read.integer("refresh.keep")).unwrap_or(0),
                },
                limits,
            },
            proposers,
            lexicon: read.path("refresh.lexicon"),
            chat,
            store: read.path("refresh.store"),
            similarity: read.double("refresh.similarity") as f32,
            // With whole phrases a detection has its class already.
            post_refine: read.bool("refresh.post_refine") && read.text("label_rule") == "token_labels",
        }))
    }

    /// Classes that are always in the list.
    #[must_use]
    pub fn fixed(&self) -> &[String] {
        &self.config.fixed
    }

    /// Where the last good list is kept.
    #[must_use]
    pub fn store(&self) -> Option<Store> {
        self.store.as_deref().map(Store::new)
    }

    /// Loads what the loop works with: sessions of the detector and the text encoder of its own, tagger and captioner, the
    /// lexicon, the language model's client.
    ///
    /// # Errors
    /// [`RefreshSetupError`], naming what is missing.
    pub fn load(&self, detector: &Bundle, box_threshold: f32) -> Result<Parts, RefreshSetupError> {
        let lexicon = self.open_lexicon()?;
        let mut encoder = TextEncoder::load(detector, &ModelOptions::default())?;
        let targets = &self.config.targets;
        let proposers = self.proposers.load(detector, &mut encoder, box_threshold, targets, lexicon.as_ref())?;
        let chat = self.chat.clone().map(ChatClient::new).transpose()?.map(Arc::new);
        if chat.is_none() && lexicon.is_none() {
            tracing::warn!("neither a language model nor a lexicon: proposals are the class list as they are");
        }
        let limits = self.config.limits;
        let post_refinement = self.post_refine.then(|| Sources {
            lexicon: lexicon.clone(),
            similarity: self.similarity,
            chat: chat.clone(),
            limits,
        });
        let mut refresher = Refresher::new(self.config.clone(), proposers, chat.clone(), lexicon, jpeg);
        if let Some(store) = self.subclass_store() {
            refresher = refresher.with_subclasses(store);
        }
        let (schedule, store) = (self.schedule, self.store());
        Ok(Parts { refresher, encoder, post_refinement, chat, schedule, store, limits })
    }

    /// Where the language model's subclasses are kept: beside the list.
    fn subclass_store(&self) -> Option<SubclassStore> {
        let (list, chat) = (self.store.as_deref()?, self.chat.as_ref()?);
        let prompt = match self.config.subclass_prompt {
            SubclassPrompt::ZeroShot => "zero_shot",
            SubclassPrompt::FewShot => "few_shot",
        };
        let asked = Asked { model: chat.model.clone(), prompt: prompt.to_owned(), count: self.config.subclasses };
        (asked.count > 0).then(|| SubclassStore::beside(list, asked))
    }

    /// A lexicon that was asked for has to be there; the usual place may be empty.
    fn open_lexicon(&self) -> Result<Option<Arc<Lexicon>>, LexiconError> {
        let place = match &self.lexicon {
            Some(path) if path == Path::new("none") => None,
            Some(path) => Some(path.as_path()),
            None => Some(Path::new(DEBIAN_DIR)).filter(|place| place.join("data.noun").is_file()),
        };
        place.map(|place| Lexicon::open(place).map(Arc::new)).transpose()
    }
}

fn jpeg(image: &RgbImage) -> Option<Vec<u8>> {
    let compressed = encode_jpeg(image, JPEG_QUALITY);
    compressed.inspect_err(|error| tracing::warn!(%error, "an image could not be compressed for the vision model")).ok()
}

/// The language model, where an endpoint or a recording is given.
fn chat(read: &Reader<'_>) -> Option<ChatConfig> {
    let (url, replay) = (read.text("llm.url"), read.path("llm.replay"));
    if url.is_empty() && replay.is_none() {
        return None;
    }
    let shipped = ChatConfig::default();
    Some(ChatConfig {
        base_url: if url.is_empty() { shipped.base_url } else { url },
        model: read.text("llm.model"),
        key_variable: read.text("llm.key_variable"),
        allow_http: read.bool("llm.allow_http"),
        structured: match read.text("llm.structured").as_str() {
            "always" => Structured::Always,
            "never" => Structured::Never,
            _ => Structured::Auto,
        },
        timeouts: Timeouts {
            connect: read.seconds("llm.connect_timeout"),
            read: read.seconds("llm.read_timeout"),
            total: read.seconds("llm.total_timeout"),
        },
        requests_per_hour: u32::try_from(read.integer("llm.requests_per_hour")).unwrap_or(u32::MAX),
        record: read.path("llm.record"),
        replay,
        replay_miss: if read.text("llm.replay_miss") == "ask" { ReplayMiss::Ask } else { ReplayMiss::Error },
        ..shipped
    })
}
