//! The third party on the wire: sees the camera, the ground truth and the node's outputs, records and scores them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use crossbeam::channel::{Receiver, Sender, bounded};
use scenelex::{
    replay::{LabelImage, OfferedQos, RecordedTopic, Recorder, SemanticScorer, definitions},
    ros::{
        CdrView, Qos, Transport,
        messages::{
            Detection2DArray, DiagnosticArray, Image, LabelInfo, LabeledMaskArray, RosMessage, StringMessage,
            Vocabulary,
        },
        transport::{History, Publisher, RawSubscription},
    },
    types::Stamp,
};

use super::{
    super::{interrupt::Interrupt, wire},
    folder::{SHEET, fresh_bag_folder, remove_findings},
    overlay::Painter,
    report::{Summary, VocabularyUse},
    sheet,
    source::Source,
};

/// Messages that may wait for the watcher.
const QUEUE: usize = 256;
/// Samples of a topic that the middleware keeps until the watcher takes them over.
const HISTORY: History = History::KeepLast(64);
/// Frames whose parts are waited for; older ones are given up.
const MAX_OPEN_FRAMES: usize = 256;
/// Value of ground-truth pixels that do not count.
const IGNORE: u16 = 255;
/// Overlay pictures that are made.
const PICTURES: u64 = 12;

/// What a topic is to the watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Camera,
    Truth,
    TruthLabels,
    Masks,
    Semantic,
    Vocabulary,
    Diagnostics,
    /// Recorded only.
    Other,
}

struct Sample {
    topic: usize,
    role: Role,
    received: Instant,
    log_time: u64,
    data: Vec<u8>,
}

/// What is known of one image.
#[derive(Default)]
struct Frame {
    camera: Option<Instant>,
    /// The camera's message, where a picture is to be made of the frame.
    picture: Option<Vec<u8>>,
    truth: Option<Vec<u16>>,
    /// Kept only where there is a truth to compare it with.
    predicted: Option<Vec<u16>>,
    version: Option<u64>,
}

/// A class list as the node announced it.
struct ClassList {
    source: String,
    names: BTreeMap<u16, String>,
    classes: Vec<String>,
    frames: u64,
}

/// Watches a demo.
pub struct Watcher {
    folder: PathBuf,
    expected: u64,
    has_truth: bool,
    samples: Receiver<Sample>,
    /// Keeps the subscriptions alive.
    subscriptions: Vec<Box<dyn RawSubscription>>,
    lost: Arc<AtomicU64>,
    set_vocabulary: Publisher<StringMessage>,
    changed: bool,
    recorder: Recorder,
    frames: BTreeMap<Stamp, Frame>,
    lists: BTreeMap<u64, ClassList>,
    truth_names: Option<BTreeMap<u16, String>>,
    scorer: SemanticScorer,
    painter: Painter,
    frames_in: u64,
    frames_out: u64,
    objects: u64,
    latencies: Vec<Duration>,
    stages: BTreeMap<String, Vec<Duration>>,
    results: Option<(Instant, Instant)>,
    diagnostics: BTreeMap<String, BTreeMap<String, String>>,
}

impl Watcher {
    /// Takes away what an earlier demo left in `folder`, and subscribes to everything: to what is played as it is offered.
    pub fn start(transport: &dyn Transport, folder: &Path, source: &Source) -> Result<Self> {
        let (usual, latched) = (OfferedQos::default(), OfferedQos::LATCHED);
        let mut topics = vec![
            ("/scenelex/masks", LabeledMaskArray::TYPE, Role::Masks, usual),
            ("/scenelex/semantic/image", Image::TYPE, Role::Semantic, usual),
            ("/scenelex/semantic/label_info", LabelInfo::TYPE, Role::Other, latched),
            ("/scenelex/instances/image", Image::TYPE, Role::Other, usual),
            ("/scenelex/detections", Detection2DArray::TYPE, Role::Other, usual),
            ("/scenelex/vocabulary", Vocabulary::TYPE, Role::Vocabulary, latched),
            ("/diagnostics", DiagnosticArray::TYPE, Role::Diagnostics, usual),
        ];
        let truth = source.truth.iter().flat_map(|(image, labels)| [(image, Role::Truth), (labels, Role::TruthLabels)]);
        for (played, role) in std::iter::once((&source.camera, Role::Camera)).chain(truth) {
            topics.push((played.name.as_str(), played.type_name.as_str(), role, played.qos));
        }
        remove_findings(folder)?;
        let mut recorder = Recorder::create(&fresh_bag_folder(folder)?)?;
        let (sender, samples) = bounded(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let mut subscriptions = Vec::new();
        for (name, type_name, role, offered) in topics {
            let topic = recorder.add_topic(RecordedTopic {
                name: name.to_owned(),
                type_name: type_name.to_owned(),
                definition: definitions::concatenated(type_name)?,
                qos: vec![offered],
            })?;
            let (sender, lost) = (sender.clone(), Arc::clone(&lost));
            let handler = Box::new(move |view: CdrView<'_>| send(&sender, &lost, topic, role, view));
            let qos = Qos { history: HISTORY, ..wire::to_transport(offered) };
            subscriptions.push(transport.subscribe(name, type_name, qos, handler)?);
        }
        Ok(Self {
            folder: folder.to_owned(),
            expected: source.images,
            has_truth: source.truth.is_some(),
            samples,
            subscriptions,
            lost,
            set_vocabulary: Publisher::new(transport, "/scenelex/set_vocabulary", Qos::RELIABLE)?,
            changed: false,
            recorder,
            frames: BTreeMap::new(),
            lists: BTreeMap::new(),
            truth_names: None,
            scorer: SemanticScorer::default(),
            painter: Painter::new(source.is_compressed()),
            frames_in: 0,
            frames_out: 0,
            objects: 0,
            latencies: Vec::new(),
            stages: BTreeMap::new(),
            results: None,
            diagnostics: BTreeMap::new(),
        })
    }

    /// Whether the node has announced its class list, which it does when it is ready for images.
    pub fn node_is_ready(&self) -> bool {
        !self.lists.is_empty()
    }

    /// Images seen.
    pub const fn frames_in(&self) -> u64 {
        self.frames_in
    }

    /// Results seen.
    pub const fn frames_out(&self) -> u64 {
        self.frames_out
    }

    /// Asks the node for other classes, once.
    pub fn change_vocabulary(&mut self, classes: &str) -> Result<()> {
        if !self.changed {
            self.changed = true;
            self.set_vocabulary.publish(&StringMessage { data: classes.to_owned() })?;
        }
        Ok(())
    }

    /// One line on how it goes.
    pub fn status(&self) -> String {
        let mut line = format!("{} of {} images, {} labelled", self.frames_in, self.expected, self.frames_out);
        if let Some(rate) = self.rate() {
            line += &format!(", {rate:.1} fps");
        }
        if let Some(latency) = self.latencies.last() {
            line += &format!(", {:.0} ms", latency.as_secs_f64() * 1e3);
        }
        if let Some(mean) = self.scorer.matrix().report().mean {
            line += &format!(", mIoU {mean:.2}");
        }
        line
    }

    /// Results per second.
    fn rate(&self) -> Option<f64> {
        let (first, last) = self.results?;
        let seconds = last.duration_since(first).as_secs_f64();
        (seconds > 0.0).then(|| (self.frames_out - 1) as f64 / seconds)
    }

    /// Takes in what arrives within `time`; true when the program was interrupted.
    pub fn handle(&mut self, time: Duration, interrupt: &Interrupt) -> Result<bool> {
        let timeout = crossbeam::channel::after(time);
        loop {
            crossbeam::channel::select! {
                recv(self.samples) -> sample => match sample {
                    Ok(sample) => self.take(sample)?,
                    Err(_) => return Ok(interrupt.wait(time)),
                },
                recv(interrupt.closed()) -> _ => return Ok(true),
                recv(timeout) -> _ => return Ok(interrupt.is_raised()),
            }
        }
    }

    fn take(&mut self, sample: Sample) -> Result<()> {
        self.recorder.write(sample.topic, sample.log_time, &sample.data)?;
        let view = CdrView::from_encapsulated(&sample.data)?;
        match sample.role {
            Role::Camera => {
                let stamp = self.painter.stamp(view)?;
                self.frames_in += 1;
                let frame = self.frames.entry(stamp).or_default();
                frame.camera = Some(sample.received);
                // Pictures are spread over the bag; where the node drops the frame, the next one is taken.
                if self.frames_in * PICTURES >= (2 * self.painter.count() + 1) * self.expected / 2 {
                    frame.picture = Some(sample.data);
                }
            }
            Role::Truth => {
                let (stamp, values) = label_values(view)?;
                self.frames.entry(stamp).or_default().truth = Some(values);
                self.score(stamp)?;
            }
            Role::Semantic if !self.has_truth => {}
            Role::Semantic => {
                let (stamp, values) = label_values(view)?;
                self.frames.entry(stamp).or_default().predicted = Some(values);
                self.score(stamp)?;
            }
            Role::TruthLabels => {
                let info: LabelInfo = view.decode()?;
                self.truth_names = Some(info.class_map.into_iter().map(|c| (c.class_id, c.class_name)).collect());
                self.score_all()?;
            }
            Role::Vocabulary => {
                let list: Vocabulary = view.decode()?;
                self.lists.insert(
                    list.version,
                    ClassList {
                        source: list.source,
                        names: list.entries.iter().map(|e| (e.class_id, e.label.clone())).collect(),
                        classes: list.entries.into_iter().map(|e| e.label).collect(),
                        frames: 0,
                    },
                );
                self.score_all()?;
            }
            Role::Masks => self.take_masks(&view.decode()?, sample.received)?,
            Role::Diagnostics => {
                let diagnostics: DiagnosticArray = view.decode()?;
                for status in diagnostics.status {
                    let values = status.values.into_iter().map(|pair| (pair.key, pair.value)).collect();
                    self.diagnostics.insert(status.name, values);
                }
            }
            Role::Other => {}
        }
        while self.frames.len() > MAX_OPEN_FRAMES {
            self.frames.pop_first();
        }
        Ok(())
    }

    fn take_masks(&mut self, result: &LabeledMaskArray, received: Instant) -> Result<()> {
        let stamp = Stamp::from(result.header.stamp);
        self.frames_out += 1;
        self.objects += result.masks.len() as u64;
        self.results = Some((self.results.map_or(received, |(first, _)| first), received));
        for stage in &result.stages {
            self.stages.entry(stage.stage.clone()).or_default().push(Duration::from(stage.duration));
        }
        if let Some(list) = self.lists.get_mut(&result.vocabulary_version) {
            list.frames += 1;
        }
        let frame = self.frames.entry(stamp).or_default();
        frame.version = Some(result.vocabulary_version);
        if let Some(camera) = frame.camera {
            self.latencies.push(received.saturating_duration_since(camera));
        }
        if let Some(picture) = frame.picture.take() {
            self.painter.paint(&picture, result)?;
            for frame in self.frames.values_mut() {
                frame.picture = None;
            }
        }
        self.score(stamp)
    }

    fn score_all(&mut self) -> Result<()> {
        let stamps: Vec<Stamp> = self.frames.keys().copied().collect();
        stamps.into_iter().try_for_each(|stamp| self.score(stamp))
    }

    /// Scores a frame once all its parts are there.
    fn score(&mut self, stamp: Stamp) -> Result<()> {
        let Some(truth_names) = &self.truth_names else { return Ok(()) };
        let Some(frame) = self.frames.get_mut(&stamp) else { return Ok(()) };
        let Some(list) = frame.version.and_then(|version| self.lists.get(&version)) else { return Ok(()) };
        if let (Some(truth), Some(predicted)) = (&frame.truth, &frame.predicted) {
            let vocabulary: BTreeSet<String> = list.classes.iter().cloned().collect();
            self.scorer.add_frame(
                LabelImage { values: truth, names: truth_names },
                LabelImage { values: predicted, names: &list.names },
                &vocabulary,
                IGNORE,
            )?;
            frame.truth = None;
            frame.predicted = None;
        }
        Ok(())
    }

    /// Ends the recording, writes the pictures and sums up.
    pub fn finish(mut self, domain: u16, bag: &Path) -> Result<Summary> {
        self.subscriptions.clear();
        let recording = self.recorder.finish()?;
        let pictures = self.painter.into_pictures();
        for (index, picture) in pictures.iter().enumerate() {
            let path = self.folder.join(format!("overlay_{:02}.png", index + 1));
            super::super::segment::save(&path, &picture.overlay)?;
        }
        if !pictures.is_empty() {
            sheet::write(&self.folder.join(SHEET), &pictures)?;
        }
        let rate = match self.results {
            Some((first, last)) if last > first => {
                Some((self.frames_out - 1) as f64 / last.duration_since(first).as_secs_f64())
            }
            _ => None,
        };
        let versions = self.lists.iter().map(|(&version, list)| VocabularyUse {
            version,
            source: list.source.clone(),
            classes: list.classes.clone(),
            frames: list.frames,
        });
        Ok(Summary::new(
            super::report::Observed {
                bag: bag.display().to_string(),
                domain,
                frames_in: self.frames_in,
                frames_out: self.frames_out,
                objects: self.objects,
                rate,
                scored: self.scorer.frames(),
                messages: recording.message_count,
                messages_lost: self.lost.load(Ordering::Relaxed),
                vocabularies: versions.collect(),
                diagnostics: self.diagnostics,
            },
            &self.scorer.matrix().report(),
            &mut self.latencies,
            self.stages,
        ))
    }
}

/// Runs on the transport's threads: takes the time and hands the bytes over.
fn send(sender: &Sender<Sample>, lost: &AtomicU64, topic: usize, role: Role, view: CdrView<'_>) {
    let received = Instant::now();
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let log_time = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
    let sample = Sample { topic, role, received, log_time, data: view.to_encapsulated() };
    // Full: counted and said in the summary. Disconnected: the demo is ending.
    if sender.try_send(sample).is_err_and(|error| error.is_full()) {
        lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// Stamp and values of a `mono8` or `mono16` label image.
fn label_values(view: CdrView<'_>) -> Result<(Stamp, Vec<u16>)> {
    let image: scenelex::ros::messages::ImageView<'_> = view.decode()?;
    let (width, step) = (image.width as usize, image.step as usize);
    let bytes = match &*image.encoding {
        "mono8" | "8UC1" => 1,
        "mono16" | "16UC1" => 2,
        other => anyhow::bail!("a label image is expected as mono8 or mono16, found {other}"),
    };
    let rows = image.data.chunks(step.max(1)).take(image.height as usize);
    let mut values = Vec::with_capacity(image.data.len() / bytes);
    for row in rows {
        let row = row.get(..width * bytes).context("a row of a label image is shorter than its width")?;
        match bytes {
            1 => values.extend(row.iter().map(|&value| u16::from(value))),
            _ => values.extend(row.chunks_exact(2).map(|pair| {
                let pair = [pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0)];
                if image.is_bigendian == 0 { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
            })),
        }
    }
    Ok((Stamp::from(image.header.stamp), values))
}

#[cfg(test)]
mod tests {
    use scenelex::ros::{
        cdr,
        messages::CompressedImage,
        transport::{Durability, Reliability},
    };

    use super::{
        super::super::testing::{Nobody, Scratch, TestTransport},
        super::source::Offered,
        *,
    };

    /// A transport on which nothing ever comes.
    fn silent() -> TestTransport {
        TestTransport::new(|_, _| Ok(Arc::new(Nobody)))
    }

    fn offered(name: &str, type_name: &str, qos: OfferedQos) -> Offered {
        Offered { name: name.to_owned(), type_name: type_name.to_owned(), qos }
    }

    /// A camera that is recorded best effort, with or without ground truth.
    fn source(with_truth: bool) -> Source {
        let sensor = OfferedQos { reliability: scenelex::replay::Reliability::BestEffort, ..OfferedQos::default() };
        let truth = (
            offered("/truth", Image::TYPE, OfferedQos::default()),
            offered("/truth/names", LabelInfo::TYPE, OfferedQos::LATCHED),
        );
        let camera = offered("/cam/jpeg", CompressedImage::TYPE, sensor);
        Source { camera, images: 10, truth: with_truth.then_some(truth) }
    }

    #[test]
    fn what_is_played_is_subscribed_to_as_it_is_offered() {
        let (scratch, transport) = (Scratch::new("qos"), silent());
        Watcher::start(&transport, &scratch.0, &source(true)).unwrap();
        let subscribed = transport.subscribed.into_inner().unwrap();
        let found = |name: &str| subscribed.iter().find(|(topic, ..)| topic == name).unwrap();
        let (_, type_name, qos) = found("/cam/jpeg");
        assert_eq!(type_name, CompressedImage::TYPE);
        assert_eq!((qos.reliability, qos.durability), (Reliability::BestEffort, Durability::Volatile));
        assert_eq!(found("/truth").2.reliability, Reliability::Reliable);
        assert_eq!(found("/truth/names").2.durability, Durability::TransientLocal);
        assert_eq!(found("/scenelex/masks").2.reliability, Reliability::Reliable);
    }

    #[test]
    fn predictions_are_kept_only_where_there_is_a_truth() {
        let label_image = Image {
            height: 2,
            width: 3,
            encoding: "mono16".to_owned(),
            step: 6,
            data: vec![7; 12],
            ..Image::default()
        };
        for with_truth in [false, true] {
            let scratch = Scratch::new(&format!("predictions-{with_truth}"));
            let transport = silent();
            let mut watcher = Watcher::start(&transport, &scratch.0, &source(with_truth)).unwrap();
            let names: Vec<String> =
                transport.subscribed.lock().unwrap().iter().map(|(topic, ..)| topic.clone()).collect();
            let topic = names.iter().position(|name| name == "/scenelex/semantic/image").unwrap();
            let data = cdr::encode(&label_image).unwrap().to_vec();
            let sample = Sample { topic, role: Role::Semantic, received: Instant::now(), log_time: 1, data };
            watcher.take(sample).unwrap();
            let kept = watcher.frames.values().filter(|frame| frame.predicted.is_some()).count();
            assert_eq!(kept, usize::from(with_truth));
        }
    }
}
