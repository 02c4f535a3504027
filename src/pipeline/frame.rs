//! One frame, or one of each of several cameras, from camera image to labelled masks. Knows no middleware.

use std::{
    cmp::Reverse,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    FrameError, LabelRule, PhraseTable, PipelineConfig, PipelineError, PreparedVocabulary,
    config::ConfigError,
    decode::DecoderPool,
    encoder::EncoderThread,
    postprocess::{self, Candidate},
    prompts,
    resolve::Resolver,
};
use crate::{
    imaging::{DecodeLimits, ImageDecoder},
    inference::{
        Bundle, Detector, GroundingDino, ImageEmbedding, ImageEncoder, InferenceError, MaskDecoder, RawDetections,
        SamImageEncoder, SamMaskDecoder,
    },
    types::{
        CameraImage, Detection, FrameResult, ImageSize, LabeledInstance, PixelPoint, RgbImage, RunLengths,
        StageDurations, UNLABELLED,
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

/// A camera's frame: its message, its pixels and what was found in it. Kept for the next frame, for its buffers.
#[derive(Debug, Default)]
pub struct Frame {
    /// As it arrived. May have lost its pixels after it was processed ([`ImageDecoder::take`]).
    pub image: CameraImage,
    /// As it was decoded; what an overlay is drawn on.
    pub rgb: Arc<RgbImage>,
    /// What was found.
    pub result: FrameResult,
}

/// A run of several images that failed. Each of them was tried alone.
#[derive(Debug)]
pub struct FailedBatch {
    /// How many images it had.
    pub images: usize,
    /// Why it failed.
    pub error: FrameError,
    /// Whether each of them succeeded alone: from then on the models get one image at a time.
    pub one_by_one: bool,
}

/// What the models saw in the images of a batch; the detector's part stays in [`Pipeline::raw`].
#[derive(Default)]
struct Looked {
    durations: StageDurations,
    /// One for each image; none where there was nothing to look for.
    embeddings: Vec<ImageEmbedding>,
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
    /// Most images of one run that the files of the detector and the image encoder allow.
    max_batch: usize,
    /// Whether the models failed on several images and not on each of them: they get one at a time.
    one_by_one: bool,
    failed_batch: Option<FailedBatch>,
    /// Of [`Self::process`].
    frame: Frame,
    /// What the detector put out, by caption, then image.
    raw: Vec<Vec<RawDetections>>,
    candidates: Vec<Candidate>,
    points: Vec<(f32, PixelPoint)>,
    detections: Vec<Detection>,
    order: Vec<usize>,
    /// Parts of `order` that are decoded together.
    runs: Vec<Range<usize>>,
    runs_on: [(&'static str, String); 3],
    phrases: Option<PhraseTable>,
}

impl Pipeline {
    /// Loads the models of two bundles.
    ///
    /// # Errors
    /// When the configuration is invalid, a model cannot be loaded or breaks its contract, files of a bundle do not belong
    /// together, or a thread cannot start.
    pub fn load(config: PipelineConfig, detector: &Bundle, segmenter: &Bundle) -> Result<Self, PipelineError> {
        let execution = &config.execution;
        let (first, others) = execution.decoder_sessions();
        let detector = GroundingDino::load(detector, &execution.detector())?;
        let image_encoder = SamImageEncoder::load(segmenter, &execution.image_encoder())?;
        let decoder = |threads| -> Result<Box<dyn MaskDecoder>, InferenceError> {
            let decoder = SamMaskDecoder::load(segmenter, &execution.model(threads))?;
            decoder.check_encoder(&image_encoder)?;
            Ok(Box::new(decoder))
        };
        let mask_decoder = decoder(first)?;
        let more_mask_decoders = others.into_iter().map(decoder).collect::<Result<Vec<_>, _>>()?;
        let models = Models {
            detector: Box::new(detector),
            image_encoder: Box::new(image_encoder),
            mask_decoder,
            more_mask_decoders,
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
        let max_batch = models.detector.max_batch().min(models.image_encoder.max_batch());
        Ok(Self {
            runs_on,
            max_batch,
            one_by_one: false,
            failed_batch: None,
            decoder: ImageDecoder::new(DecodeLimits::default()),
            detector: models.detector,
            encoder: EncoderThread::start(models.image_encoder)?,
            mask_decoders: DecoderPool::start(models.mask_decoder, models.more_mask_decoders)?,
            resolver: Resolver::start(config.execution.resolve_threads)?,
            frame: Frame::default(),
            raw: Vec::new(),
            candidates: Vec::new(),
            points: Vec::new(),
            detections: Vec::new(),
            order: Vec::new(),
            runs: Vec::new(),
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
        // Who sets it wants it tried again.
        self.one_by_one &= config.image_batch == self.config.image_batch;
        self.config = config;
        Ok(())
    }

    /// Looks up in `phrases` what class a detection belongs to whose tokens are no phrase of the vocabulary.
    pub fn set_phrases(&mut self, phrases: PhraseTable) {
        self.phrases = Some(phrases);
    }

    /// Most images that the models take in one run: what is configured, as far as their files allow it; one after a
    /// [`FailedBatch`] whose images succeeded alone.
    #[must_use]
    pub fn max_batch(&self) -> usize {
        if self.one_by_one { 1 } else { self.max_batch.min(self.config.image_batch) }
    }

    /// The last run of several images that failed since this was asked before.
    pub fn take_failed_batch(&mut self) -> Option<FailedBatch> {
        self.failed_batch.take()
    }

    /// The last image of [`Self::process`] that was decoded.
    #[must_use]
    pub fn rgb(&self) -> &RgbImage {
        &self.frame.rgb
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
        let mut frame = std::mem::take(&mut self.frame);
        std::mem::swap(image, &mut frame.image);
        std::mem::swap(out, &mut frame.result);
        let mut outcome = Ok(());
        self.process_batch(std::slice::from_mut(&mut frame), &[0], vocabulary, |_, _, done| outcome = done);
        std::mem::swap(image, &mut frame.image);
        std::mem::swap(out, &mut frame.result);
        self.frame = frame;
        outcome
    }

    /// Turns the images of those `frames` that are `due` into labelled masks. The detector and the image encoder take them
    /// together, as many as [`Self::max_batch`] allows. `done` is called for each, as soon as it is: with its place in
    /// `frames`, the frame, and an error where its image cannot be decoded or a model fails. What is wrong with one frame
    /// does not touch the others.
    pub fn process_batch(
        &mut self,
        frames: &mut [Frame],
        due: &[usize],
        vocabulary: &Arc<PreparedVocabulary>,
        mut done: impl FnMut(usize, &Frame, Result<(), FrameError>),
    ) {
        let mut rest = due;
        while !rest.is_empty() {
            let (batch, others) = rest.split_at(self.max_batch().clamp(1, rest.len()));
            rest = others;
            let start = Instant::now();
            let mut decoded = Vec::with_capacity(batch.len());
            for &index in batch {
                let Some(frame) = frames.get_mut(index) else { continue };
                match self.decode(frame) {
                    Ok(()) => decoded.push(index),
                    Err(error) => done(index, frame, Err(error)),
                }
            }
            self.label(frames, &decoded, vocabulary, start, &mut done);
        }
    }

    /// The frames of a batch whose images are decoded: `start` is when that began. False where the models failed on it.
    fn label(
        &mut self,
        frames: &mut [Frame],
        batch: &[usize],
        vocabulary: &PreparedVocabulary,
        start: Instant,
        done: &mut impl FnMut(usize, &Frame, Result<(), FrameError>),
    ) -> bool {
        let error = match self.look_for(frames, batch, vocabulary) {
            Ok(looked) => {
                self.finish(frames, batch, looked, vocabulary, start, done);
                return true;
            }
            Err(error) => error,
        };
        if let &[index] = batch {
            if let Some(frame) = frames.get(index) {
                done(index, frame, Err(error));
            }
            return false;
        }
        // Which of them is to blame is not known, and the others have a right to be served.
        let mut one_by_one = true;
        for one in batch.chunks(1) {
            one_by_one &= self.label(frames, one, vocabulary, start, done);
        }
        // None is: it would be the same for every batch to come, each at the cost of a run.
        self.one_by_one |= one_by_one;
        self.failed_batch = Some(FailedBatch { images: batch.len(), error, one_by_one });
        false
    }

    fn decode(&mut self, frame: &mut Frame) -> Result<(), FrameError> {
        let start = Instant::now();
        if Arc::get_mut(&mut frame.rgb).is_none() {
            frame.rgb = Arc::default();
        }
        let rgb = Arc::get_mut(&mut frame.rgb).ok_or(FrameError::ThreadEnded("image encoder"))?;
        self.decoder.take(&mut frame.image, rgb)?;
        // At once: whatever becomes of the frame, its header and its pixels belong together.
        frame.result.header.clone_from(&frame.image.header);
        frame.result.durations = StageDurations { decode: start.elapsed(), ..StageDurations::default() };
        Ok(())
    }

    /// Runs the detector and the image encoder on images that are decoded. The detector's input, which a frame waits for
    /// longest, is made first. The result of the first image is cleared while the models run, not before: they wait for
    /// their inputs.
    fn look_for(
        &mut self,
        frames: &mut [Frame],
        batch: &[usize],
        vocabulary: &PreparedVocabulary,
    ) -> Result<Looked, FrameError> {
        let mut looked = Looked::default();
        if vocabulary.captions.is_empty() {
            return Ok(looked);
        }
        let images: Vec<_> = batch.iter().filter_map(|&i| frames.get(i)).map(|frame| Arc::clone(&frame.rgb)).collect();
        let Some(first) = batch.first().and_then(|&i| frames.get_mut(i)) else { return Ok(looked) };
        let start = Instant::now();
        let prepared = self.detector.prepare(&images.iter().map(Arc::as_ref).collect::<Vec<_>>());
        looked.durations.preprocess = start.elapsed();
        self.encoder.begin(images)?;
        self.resolver.begin_clear(first.rgb.size, &mut first.result);
        let detected = prepared.and_then(|()| self.detect(vocabulary, &mut looked.durations));
        // Whatever the detector did, what other threads were given must be fetched back before the next frame.
        let cleared = self.resolver.finish_clear(&mut first.result);
        let encoded = self.encoder.finish()?;
        cleared?;
        detected?;
        looked.durations.encode_image = encoded.encode;
        looked.durations.preprocess = looked.durations.preprocess.max(encoded.prepare);
        looked.embeddings = encoded.embeddings?;
        Ok(looked)
    }

    /// Runs the detector on every caption.
    fn detect(
        &mut self,
        vocabulary: &PreparedVocabulary,
        durations: &mut StageDurations,
    ) -> Result<(), InferenceError> {
        let start = Instant::now();
        self.raw.resize_with(vocabulary.captions.len().max(self.raw.len()), Vec::new);
        for (text, raw) in vocabulary.captions.iter().zip(&mut self.raw) {
            self.detector.detect(text, raw)?;
        }
        durations.detect = start.elapsed();
        Ok(())
    }

    /// Makes results of what the models saw in the images of `batch`.
    fn finish(
        &mut self,
        frames: &mut [Frame],
        batch: &[usize],
        looked: Looked,
        vocabulary: &PreparedVocabulary,
        start: Instant,
        done: &mut impl FnMut(usize, &Frame, Result<(), FrameError>),
    ) {
        let Looked { durations, embeddings } = looked;
        let mut embeddings = embeddings.into_iter();
        // The models' critical path: frames of a batch wait for the masks of those before them.
        let mut models = durations.detect.max(durations.encode_image);
        for (position, &index) in batch.iter().enumerate() {
            let Some(frame) = frames.get_mut(index) else { continue };
            let decode = frame.result.durations.decode;
            frame.result.durations = StageDurations { decode, ..durations };
            let outcome = self.cut_out(frame, position, embeddings.next(), vocabulary);
            let result = &mut frame.result;
            result.vocabulary_version = vocabulary.vocabulary.version;
            let created = vocabulary.vocabulary.created;
            result.vocabulary_age = SystemTime::now().duration_since(created).unwrap_or(Duration::ZERO);
            models += result.durations.decode_masks;
            result.durations.models = models;
            result.durations.total = start.elapsed();
            done(index, frame, outcome);
        }
    }

    /// From what the models saw in the image at `position` of a batch to masks. There is no embedding where there is nothing
    /// to look for.
    fn cut_out(
        &mut self,
        frame: &mut Frame,
        position: usize,
        embedding: Option<ImageEmbedding>,
        vocabulary: &PreparedVocabulary,
    ) -> Result<(), FrameError> {
        let (size, out) = (frame.rgb.size, &mut frame.result);
        self.detections.clear();
        // That of the first was cleared while the detector ran.
        if position > 0 || embedding.is_none() {
            self.resolver.begin_clear(size, out);
            self.resolver.finish_clear(out)?;
        }
        let Some(embedding) = embedding else { return Ok(()) };
        let mut durations = out.durations;
        let start = Instant::now();
        self.postprocess(vocabulary, position, size);
        durations.postprocess = start.elapsed();
        let segmented = self.segment(&embedding, size, &mut durations);
        // Masks already queued are fetched before an error is passed on.
        let assembled = self.assemble(&mut durations, out);
        out.durations = durations;
        segmented.and(assembled)
    }

    /// Turns the detector's output for the image at `position` into detections.
    fn postprocess(&mut self, vocabulary: &PreparedVocabulary, position: usize, image: ImageSize) {
        let config = &self.config;
        self.candidates.clear();
        for (caption, (text, raw)) in vocabulary.captions.iter().zip(&self.raw).enumerate() {
            let Some(raw) = raw.get(position) else { continue };
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
                && let Some(raw) = self.raw.get(candidate.caption).and_then(|raw| raw.get(position))
                && let Some(text) = vocabulary.captions.get(candidate.caption)
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
    fn segment(
        &mut self,
        embedding: &ImageEmbedding,
        image: ImageSize,
        durations: &mut StageDurations,
    ) -> Result<(), FrameError> {
        let (config, detections, placement) = (&self.config, &self.detections, embedding.placement);
        let points = |index: usize| {
            let points = detections.get(index).map(|detection| detection.points.as_slice());
            points.filter(|_| config.use_points).unwrap_or_default()
        };
        // An object's mask is not to depend on those it is decoded with: see `prompts::begin`.
        self.order.clear();
        self.order.extend(0..detections.len());
        self.order.sort_by_key(|&index| Reverse(points(index).len()));
        self.mask_decoders.begin();
        self.mask_decoders.runs(&self.order, config.mask_batch, |index| points(index).len(), &mut self.runs);
        for run in &self.runs {
            let members = self.order.get(run.clone()).unwrap_or_default();
            let mut batch = self.mask_decoders.batch();
            prompts::begin(&mut batch.prompts, members.first().map_or(0, |&index| points(index).len()), config.use_box);
            for (index, detection) in members.iter().filter_map(|&index| Some((index, detections.get(index)?))) {
                batch.members.push(index);
                let on_it = points(index).iter().map(|&point| (point, true));
                prompts::push(&mut batch.prompts, on_it, config.use_box.then_some(detection.bbox), &placement);
            }
            self.mask_decoders.queue(batch, embedding, image);
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
