//! How frames are processed.

use std::num::NonZero;

use crate::inference::{ModelOptions, Provider, Thresholds};

/// How a detection gets its phrase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LabelRule {
    /// Hugging Face's rule: a query is kept when its best token is above the box threshold, and its label is made of all
    /// tokens above the text threshold. Labels whose tokens do not all come from one phrase stay unlabelled.
    TokenLabels,
    /// Each query takes the phrase with the highest score; the score of a phrase is the *maximum* over its tokens. This
    /// is Scenelex's own rule (Grounding DINO's demo takes the mean over a span); it never mixes phrases.
    #[default]
    PhraseSpans,
}

/// Threads and place of each model. Fixed when the models are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution {
    /// Threads of the detector.
    pub detector_threads: usize,
    /// Threads of the SAM image encoder, which runs beside the detector.
    pub encoder_threads: usize,
    /// Threads of the SAM mask decoder. On the processor they belong to several sessions, which share a frame's objects.
    pub decoder_threads: usize,
    /// Threads that bring masks to image size, the frame's own included.
    pub resolve_threads: usize,
    /// Where the models run.
    pub provider: Provider,
}

/// Cores that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

impl Default for Execution {
    /// For a processor: the detector and the image encoder share the cores, then the mask decoder has them all. Of two
    /// cores the encoder has both: when the detector happens to be done first, there is one for it to take.
    fn default() -> Self {
        let cores = cores();
        Self {
            detector_threads: cores.div_ceil(2),
            encoder_threads: (cores / 2).max(cores.min(2)),
            decoder_threads: cores,
            resolve_threads: cores.min(4),
            provider: Provider::Cpu,
        }
    }
}

/// More sessions of the mask decoder than this would only take memory: a frame has few objects.
const MAX_DECODER_SESSIONS: usize = 4;

impl Execution {
    /// Threads of the mask decoder's first session, and of each further one: as equal as possible, the first ones
    /// having one more. A graphics processor is best served by a single session.
    pub(super) fn decoder_sessions(&self) -> (usize, Vec<usize>) {
        let sessions = match self.provider {
            Provider::Cpu => self.decoder_threads.clamp(1, MAX_DECODER_SESSIONS),
            Provider::Cuda { .. } | Provider::TensorRt { .. } => 1,
        };
        let threads = |session: usize| (self.decoder_threads + sessions - 1 - session) / sessions;
        (threads(0), (1..sessions).map(threads).collect())
    }

    pub(super) fn model(&self, intra_threads: usize) -> ModelOptions {
        ModelOptions { intra_threads, preprocess_threads: intra_threads, spinning: false, provider: self.provider }
    }

    /// Its images are prepared while the detector runs: threads beyond the cores that one leaves would be in its way, and be
    /// waited for.
    pub(super) fn image_encoder(&self) -> ModelOptions {
        let left = cores().saturating_sub(self.detector_threads).max(1);
        ModelOptions { preprocess_threads: self.encoder_threads.min(left), ..self.model(self.encoder_threads) }
    }

    /// Its images are prepared before the image encoder begins, so that threads meant for that one are free.
    pub(super) fn detector(&self) -> ModelOptions {
        ModelOptions {
            preprocess_threads: self.detector_threads.max(self.encoder_threads),
            ..self.model(self.detector_threads)
        }
    }
}

/// How frames are processed. Everything but [`Execution`] may change between two frames.
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineConfig {
    /// Detections with a score above it are kept.
    pub box_threshold: f32,
    /// Tokens above it make the label ([`LabelRule::TokenLabels`] only).
    pub text_threshold: f32,
    /// Detections of one class whose boxes overlap more than this are one object.
    pub nms_iou: f32,
    /// Most point prompts per object.
    pub n_points: usize,
    /// Whether points are given to the mask decoder.
    pub use_points: bool,
    /// Whether the box is given to the mask decoder.
    pub use_box: bool,
    /// How a detection gets its phrase.
    pub label_rule: LabelRule,
    /// Most objects per frame, the best by score.
    pub max_objects: usize,
    /// Most objects per run of the mask decoder.
    pub mask_batch: usize,
    /// Most images, of different cameras, per run of the detector and the image encoder.
    pub image_batch: usize,
    /// Threads and place of each model.
    pub execution: Execution,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self::with_thresholds(&Thresholds::default())
    }
}

/// A value of [`PipelineConfig`] that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct ConfigError {
    /// Field, or where the node's parameter is called otherwise, that.
    pub name: &'static str,
    /// Why.
    pub reason: String,
}

impl PipelineConfig {
    /// Defaults with the thresholds a detector ships with.
    #[must_use]
    pub fn with_thresholds(thresholds: &Thresholds) -> Self {
        Self {
            box_threshold: thresholds.box_threshold,
            text_threshold: thresholds.text_threshold,
            nms_iou: thresholds.nms_iou,
            n_points: 20,
            use_points: true,
            use_box: true,
            label_rule: LabelRule::default(),
            max_objects: 64,
            mask_batch: 8,
            image_batch: 1,
            execution: Execution::default(),
        }
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let error = |name, reason: &str| Err(ConfigError { name, reason: reason.to_owned() });
        for (name, value) in
            [("box_threshold", self.box_threshold), ("text_threshold", self.text_threshold), ("nms_iou", self.nms_iou)]
        {
            if !(0.0..=1.0).contains(&value) {
                return error(name, &format!("must be in [0, 1], is {value}"));
            }
        }
        if !self.use_points && !self.use_box {
            return error("use_points", "at least one of use_points and use_box must be true");
        }
        if self.use_points && self.n_points == 0 {
            return error("n_points", "must be at least 1 when use_points is true");
        }
        if self.n_points > MAX_POINTS {
            return error("n_points", &format!("must be at most {MAX_POINTS}, is {}", self.n_points));
        }
        if self.max_objects == 0 || self.max_objects > MAX_OBJECTS {
            return error("max_objects", &format!("must be 1 to {MAX_OBJECTS}, is {}", self.max_objects));
        }
        for (name, value) in [("mask_batch", self.mask_batch), ("image_batch", self.image_batch)] {
            if value == 0 {
                return error(name, "must be at least 1");
            }
        }
        let threads = self.execution.resolve_threads;
        if threads == 0 || threads > MAX_RESOLVE_THREADS {
            return error("threads.resolve", &format!("must be 1 to {MAX_RESOLVE_THREADS}, is {threads}"));
        }
        Ok(())
    }
}

/// Bound of [`Execution::resolve_threads`].
pub const MAX_RESOLVE_THREADS: usize = 64;
/// Bound of `n_points`.
pub const MAX_POINTS: usize = 256;
/// Bound of `max_objects`; instance ids are 16 bits.
pub const MAX_OBJECTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_of_the_mask_decoder_are_all_given_out() {
        let of = |decoder_threads, provider| {
            let (first, others) = Execution { decoder_threads, provider, ..Execution::default() }.decoder_sessions();
            [vec![first], others].concat()
        };
        for (threads, expected) in [
            (1, vec![1]),
            (2, vec![1, 1]),
            (4, vec![1, 1, 1, 1]),
            (5, vec![2, 1, 1, 1]),
            (6, vec![2, 2, 1, 1]),
            (7, vec![2, 2, 2, 1]),
            (8, vec![2, 2, 2, 2]),
            (30, vec![8, 8, 7, 7]),
        ] {
            assert_eq!(of(threads, Provider::Cpu), expected);
            assert_eq!(of(threads, Provider::Cuda { device: 0 }), [threads]);
        }
    }

    #[test]
    fn a_bound_that_is_exceeded_is_named_as_the_parameter_is() {
        let with = |resolve_threads| PipelineConfig {
            execution: Execution { resolve_threads, ..Execution::default() },
            ..PipelineConfig::default()
        };
        assert_eq!(with(MAX_RESOLVE_THREADS).validate(), Ok(()));
        assert_eq!(with(MAX_RESOLVE_THREADS + 1).validate().unwrap_err().name, "threads.resolve");
    }
}
