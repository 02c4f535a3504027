//! One frame, from camera image to labelled masks. Knows no middleware.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    FrameError, LabelRule, PhraseTable, PipelineConfig, PipelineError, PreparedVocabulary,
    config::ConfigError,
    decode::DecoderPool,
    encoder::{Encoded, EncoderThread},
    postprocess::{self, Candidate},
    prompts,
    resolve::Resolver,
};
use crate::{
    imaging::{DecodeLimits, ImageDecoder},
    inference::{
        Bundle, Detector, GroundingDino, ImageEncoder, InferenceError, MaskDecoder, RawDetections, SamImageEncoder,
        SamMaskDecoder,
    },
    types::{
        CameraImage, Detection, FrameResult, LabeledInstance, PixelPoint, RgbImage, RunLengths, StageDurations,
        UNLABELLED,
    },
};

/// The models of a pipeline.
pub struct Models {
    /// Runs on the thread that calls [`Pipeline::process`].
    pub detector: Box<dyn Detector>,
    /// Runs on a thread of its own, beside the detector.
    pub image_encoder: Box<dyn ImageEncoder>,
    /// Runs on the thread that calls [`Pipeline::process`].
    pub mask_decoder: Box<dyn MaskDecoder>,
    /// Further sessions of the same decoder; each runs on a thread of its own.
    pub more_mask_decoders: Vec<Box<dyn MaskDecoder>>,
}

/// Everything needed to turn camera images into labelled masks. Owned by one thread.
///
/// Buffers are kept between frames: a steady stream of images of one size allocates no image-sized memory.
pub struct Pipeline {
    config: PipelineConfig,
    pub(super) decoder: ImageDecoder,
    detector: Box<dyn Detector>,
    pub(super) encoder: EncoderThread,
    pub(super) mask_decoders: DecoderPool,
    pub(super) resolver: Resolver,
    pub(super) rgb: Arc<RgbImage>,
    raw: Vec<RawDetections>,
    candidates: Vec<Candidate>,
    points: Vec<(f32, PixelPoint)>,
    detections: Vec<Detection>,
    order: Vec<usize>,
    runs_on: [(&'static str, String); 3],
    phrases: Option<PhraseTable>,
}

impl Pipeline {
    /// Loads the models of two bundles.
    ///
    /// # Errors
    /// When the configuration is invalid, a model cannot be loaded or breaks its contract, or a thread cannot start.
    pub fn load(config: PipelineConfig, detector: &Bundle, segmenter: &Bundle) -> Result<Self, PipelineError> {
        let execution = &config.execution;
        let (sessions, threads) = execution.decoder_sessions();
        let decoder = || -> Result<Box<dyn MaskDecoder>, InferenceError> {
            Ok(Box::new(SamMaskDecoder::load(segmenter, &execution.model(threads))?))
        };
        let models = Models {
            detector: Box::new(GroundingDino::load(detector, &execution.model(execution.detector_threads))?),
            image_encoder: Box::new(SamImageEncoder::load(segmenter, &execution.model(execution.encoder_threads))?),
            mask_decoder: decoder()?,
            more_mask_decoders: (1..sessions).map(|_| decoder()).collect::<Result<_, _>>()?,
        };
        Self::with_models(config, models)
    }

    /// A pipeline of models already loaded.
    ///
    /// # Errors
    /// When the configuration is invalid or a thread cannot start.
    pub fn with_models(config: PipelineConfig, models: Models) -> Result<Self, PipelineError> {
        config.validate()?;
        let runs_on = [
            ("detector", models.detector.runs_on().to_owned()),
            ("image_encoder", models.image_encoder.runs_on().to_owned()),
            ("mask_decoder", models.mask_decoder.runs_on().to_owned()),
        ];
        Ok(Self {
            runs_on,
            decoder: ImageDecoder::new(DecodeLimits::default()),
            detector: models.detector,
            encoder: EncoderThread::start(models.image_encoder)?,
            mask_decoders: DecoderPool::start(models.mask_decoder, models.more_mask_decoders)?,
            resolver: Resolver::start(config.execution.resolve_threads)?,
            rgb: Arc::default(),
            raw: Vec::new(),
            candidates: Vec::new(),
            points: Vec::new(),
            detections: Vec::new(),
            order: Vec::new(),
            phrases: None,
            config,
        })
    }

    /// How frames are processed.
    #[must_use]
    pub fn config(&self) -> &PipelineConfig {
        &self.config
    }

    /// The models, and the execution providers that their nodes really run on.
    #[must_use]
    pub fn runs_on(&self) -> &[(&'static str, String)] {
        &self.runs_on
    }

    /// Changes how the next frames are processed.
    ///
    /// # Errors
    /// When a value is out of range, or one of [`super::Execution`] differs, which needs the models to be loaded anew.
    /// The configuration then stays as it was.
    pub fn set_config(&mut self, config: PipelineConfig) -> Result<(), ConfigError> {
        config.validate()?;
        if config.execution != self.config.execution {
            return Err(ConfigError {
                name: "execution",
                reason: "threads and provider are fixed when the models are loaded".into(),
            });
        }
        self.config = config;
        Ok(())
    }

    /// Looks up in `phrases` what class a detection belongs to whose tokens are no phrase of the vocabulary.
    pub fn set_phrases(&mut self, phrases: PhraseTable) {
        self.phrases = Some(phrases);
    }

    /// The last image that was decoded; what an overlay is drawn on.
    #[must_use]
    pub fn rgb(&self) -> &RgbImage {
        &self.rgb
    }

    /// The detections behind the last result, by falling score.
    #[must_use]
    pub fn detections(&self) -> &[Detection] {
        &self.detections
    }

    /// Turns one image into labelled masks. `out` is overwritten; its buffers are reused. `image` may have lost its pixels
    /// afterwards ([`ImageDecoder::take`]).
    ///
    /// # Errors
    /// When the image cannot be decoded or a model fails. `out` then holds nothing useful, and the next frame is not
    /// affected.
    pub fn process(
        &mut self,
        image: &mut CameraImage,
        vocabulary: &Arc<PreparedVocabulary>,
        out: &mut FrameResult,
    ) -> Result<(), FrameError> {
        let start = Instant::now();
        let mut durations = StageDurations::default();
        if Arc::get_mut(&mut self.rgb).is_none() {
            self.rgb = Arc::default();
        }
        let rgb = Arc::get_mut(&mut self.rgb).ok_or(FrameError::ThreadEnded("image encoder"))?;
        self.decoder.take(image, rgb)?;
        durations.decode = start.elapsed();

        self.detections.clear();
        if vocabulary.captions.is_empty() {
            self.resolver.begin_clear(self.rgb.size, out);
            self.resolver.finish_clear(out)?;
        } else {
            self.encoder.begin(Arc::clone(&self.rgb))?;
            self.resolver.begin_clear(self.rgb.size, out);
            let detected = self.detect(vocabulary, &mut durations);
            // Whatever the detector did, what other threads were given must be fetched back before the next frame.
            let cleared = self.resolver.finish_clear(out);
            let encoded = self.encoder.finish()?;
            cleared?;
            detected?;
            // Likewise the masks already queued, before an error is passed on.
            let segmented = self.segment(encoded, &mut durations);
            let assembled = self.assemble(&mut durations, out);
            segmented.and(assembled)?;
        }

        out.header.clone_from(&image.header);
        out.vocabulary_version = vocabulary.vocabulary.version;
        out.vocabulary_age = SystemTime::now().duration_since(vocabulary.vocabulary.created).unwrap_or(Duration::ZERO);
        durations.models = durations.detect.max(durations.encode_image) + durations.decode_masks;
        durations.total = start.elapsed();
        out.durations = durations;
        Ok(())
    }

    /// Runs the detector on every caption and turns its output into detections.
    fn detect(
        &mut self,
        vocabulary: &PreparedVocabulary,
        durations: &mut StageDurations,
    ) -> Result<(), InferenceError> {
        let start = Instant::now();
        self.detector.prepare(&self.rgb)?;
        durations.preprocess = start.elapsed();
        let start = Instant::now();
        self.raw.resize_with(vocabulary.captions.len().max(self.raw.len()), RawDetections::default);
        for (text, raw) in vocabulary.captions.iter().zip(&mut self.raw) {
            self.detector.detect(text, raw)?;
        }
        durations.detect = start.elapsed();
        let start = Instant::now();
        self.postprocess(vocabulary);
        durations.postprocess = start.elapsed();
        Ok(())
    }

    fn postprocess(&mut self, vocabulary: &PreparedVocabulary) {
        let (config, image) = (&self.config, self.rgb.size);
        self.candidates.clear();
        for (caption, (text, raw)) in vocabulary.captions.iter().zip(&self.raw).enumerate() {
            let (box_threshold, candidates) = (config.box_threshold, &mut self.candidates);
            match config.label_rule {
                LabelRule::PhraseSpans => {
                    postprocess::phrase_spans(raw, text, caption, box_threshold, image, candidates);
                }
                LabelRule::TokenLabels => {
                    let thresholds = (box_threshold, config.text_threshold);
                    postprocess::token_labels(raw, text, caption, thresholds, image, candidates);
                }
            }
        }
        for candidate in &mut self.candidates {
            let of_phrase = candidate.phrase.and_then(|p| vocabulary.phrases.get(p)).map(|p| p.entry);
            candidate.entry = of_phrase.or_else(|| {
                let (phrases, text) = (self.phrases.as_ref()?, candidate.token_label.as_ref()?);
                let label = phrases.class_of(text, vocabulary.vocabulary.version)?;
                vocabulary.vocabulary.entries.iter().position(|entry| entry.label == label)
            });
        }
        // Synonyms and subclasses stand for their class; unlabelled boxes compete with those of the same text.
        postprocess::suppress(&mut self.candidates, config.nms_iou, |candidate| {
            (candidate.entry, if candidate.entry.is_none() { candidate.token_label.clone() } else { None })
        });
        for candidate in &self.candidates {
            if self.detections.len() == config.max_objects {
                break;
            }
            let mut points = Vec::new();
            if config.use_points
                && let (Some(raw), Some(text)) =
                    (self.raw.get(candidate.caption), vocabulary.captions.get(candidate.caption))
            {
                let scratch = &mut self.points;
                postprocess::prompt_points(raw, text, candidate, config.n_points, image, scratch, &mut points);
            }
            let bbox = candidate.bbox.clipped(image);
            // Nothing of it is in the picture, or the model gave a box without extent.
            if bbox.area() <= 0.0 {
                continue;
            }
            let phrase = match candidate.phrase.and_then(|p| vocabulary.phrase(p)) {
                Some((phrase, _)) => Arc::clone(&phrase.text),
                None => candidate.token_label.clone().unwrap_or_else(|| Arc::from("")),
            };
            let class = candidate.entry.and_then(|entry| vocabulary.vocabulary.entries.get(entry));
            let (class_id, label) =
                class.map_or_else(|| (UNLABELLED, Arc::from("")), |c| (c.class_id, Arc::clone(&c.label)));
            self.detections.push(Detection { class_id, label, phrase, score: candidate.score, bbox, points });
        }
    }

    /// Decodes a mask for every detection, in batches over the decoder's sessions; masks that are there are brought to
    /// image size meanwhile.
    fn segment(&mut self, encoded: Encoded, durations: &mut StageDurations) -> Result<(), FrameError> {
        durations.encode_image = encoded.encode;
        durations.preprocess = durations.preprocess.max(encoded.prepare);
        let embedding = Arc::new(encoded.embedding?);
        let (config, placement) = (&self.config, embedding.placement);
        // Objects with like numbers of points share a batch, so that there is little padding.
        self.order.clear();
        self.order.extend(0..self.detections.len());
        let points = |index: &usize| self.detections.get(*index).map_or(0, |d| d.points.len());
        self.order.sort_by_key(|index| std::cmp::Reverse(points(index)));

        self.mask_decoders.begin();
        let batches = self.mask_decoders.batches(self.order.len(), config.mask_batch);
        let mut rest = self.order.as_slice();
        for left in (1..=batches).rev() {
            let (members, others) = rest.split_at(rest.len().div_ceil(left));
            rest = others;
            let mut batch = self.mask_decoders.batch();
            batch.members.extend_from_slice(members);
            let detections = members.iter().filter_map(|&index| self.detections.get(index));
            prompts::fill(&mut batch.prompts, detections, &placement, (config.use_points, config.use_box));
            self.mask_decoders.queue(batch, &embedding, self.rgb.size);
        }
        let mut failure = None;
        while let Some(decoded) = self.mask_decoders.next() {
            match decoded {
                Ok(batch) => {
                    for (prompt, &detection) in batch.members.iter().enumerate() {
                        self.resolver.queue(&batch.masks, prompt, detection, placement);
                    }
                    self.mask_decoders.recycle(batch);
                }
                // The other batches are still fetched: their buffers and threads are needed for the next frame.
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        durations.decode_masks = self.mask_decoders.critical_path();
        failure.map_or(Ok(()), Err)
    }

    /// Waits for the masks and puts the result together.
    fn assemble(&mut self, durations: &mut StageDurations, out: &mut FrameResult) -> Result<(), FrameError> {
        let start = Instant::now();
        self.resolver.finish()?;
        let detections = &self.detections;
        self.resolver.assemble(out, |object| {
            let detection = detections.get(object.detection)?;
            Some(LabeledInstance {
                instance_id: 0,
                class_id: detection.class_id,
                label: Arc::clone(&detection.label),
                phrase: Arc::clone(&detection.phrase),
                score: detection.score,
                mask_score: object.score,
                bbox: detection.bbox,
                mask: RunLengths::default(),
            })
        });
        durations.resolve = start.elapsed();
        Ok(())
    }
}
