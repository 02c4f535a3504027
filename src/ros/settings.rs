//! The node's parameters: the table, and the settings made of it.

use std::{path::PathBuf, time::Duration};

use super::{
    parameters::{Default, Parameter, Range, Value, Values},
    transport::{Durability, History, Qos, Reliability},
};
use crate::{
    inference::{Provider, Thresholds},
    pipeline::{ConfigError, Execution, LabelRule, PipelineConfig},
};

const RELIABILITY: Range = Range::Choice(&["best_effort", "reliable"]);
const HISTORY: Range = Range::Choice(&["keep_last", "keep_all"]);
const THREADS: Range = Range::Integers(0, 256);
/// As the detector ships, for the thresholds.
const SHIPPED: f64 = -1.0;

const fn parameter(name: &'static str, default: Default, range: Range, description: &'static str) -> Parameter {
    Parameter { name, default, range, description }
}

/// Every parameter of the node.
pub const TABLE: &[Parameter] = &[
    parameter(
        "models_dir",
        Default::Text(""),
        Range::Any,
        "Folder with the bundles detector/ and segmenter/. Empty: models/sim below the working directory, else where the program is installed.",
    ),
    parameter(
        "classes",
        Default::Texts(&[]),
        Range::Any,
        "Classes to look for from the start. Empty: nothing is looked for until ~/set_vocabulary says what.",
    ),
    parameter("max_classes", Default::Integer(256), Range::Integers(1, 4096), "Longest class list that is accepted."),
    parameter(
        "image_transport",
        Default::Text("raw"),
        Range::Choice(&["raw", "compressed"]),
        "What `image` carries: sensor_msgs/Image (raw) or sensor_msgs/CompressedImage (compressed).",
    ),
    parameter(
        "use_sim_time",
        Default::Bool(false),
        Range::Any,
        "Take the time of our own stamps (vocabulary, label info, diagnostics) from /clock.",
    ),
    parameter(
        "box_threshold",
        Default::Double(SHIPPED),
        Range::Doubles(-1.0, 1.0),
        "Detections with a score above it are kept. -1: as shipped with the detector.",
    ),
    parameter(
        "text_threshold",
        Default::Double(SHIPPED),
        Range::Doubles(-1.0, 1.0),
        "Tokens above it make the label, with label_rule token_labels. -1: as shipped with the detector.",
    ),
    parameter(
        "nms_iou",
        Default::Double(SHIPPED),
        Range::Doubles(-1.0, 1.0),
        "Boxes of one class that overlap more are one object. -1: as shipped with the detector.",
    ),
    parameter(
        "label_rule",
        Default::Text("phrase_spans"),
        Range::Choice(&["phrase_spans", "token_labels"]),
        "How a detection gets its class: the phrase with the best score, or the tokens above text_threshold (Hugging Face's rule).",
    ),
    parameter("use_box", Default::Bool(true), Range::Any, "Give the detection box to the mask decoder."),
    parameter("use_points", Default::Bool(true), Range::Any, "Give points inside the box to the mask decoder."),
    parameter("n_points", Default::Integer(20), Range::Integers(0, 256), "Most points per object."),
    parameter(
        "max_objects",
        Default::Integer(64),
        Range::Integers(1, 1024),
        "Most objects per image, the best by score.",
    ),
    parameter("mask_batch", Default::Integer(8), Range::Integers(1, 256), "Most objects per run of the mask decoder."),
    parameter(
        "provider",
        Default::Text("cpu"),
        Range::Choice(&["cpu", "cuda", "tensorrt"]),
        "Where the models run. One that cannot be had is an error, never a silent fall to the CPU.",
    ),
    parameter("device", Default::Integer(0), Range::Integers(0, 255), "GPU number, for cuda and tensorrt."),
    parameter(
        "onnxruntime_library",
        Default::Text(""),
        Range::Any,
        "Path of libonnxruntime. Empty: ORT_DYLIB_PATH, then .deps/onnxruntime, then the system's loader.",
    ),
    parameter("threads.detector", Default::Integer(0), THREADS, "Threads of the detector. 0: half the cores."),
    parameter(
        "threads.image_encoder",
        Default::Integer(0),
        THREADS,
        "Threads of the image encoder, which runs beside the detector. 0: the other half of the cores.",
    ),
    parameter("threads.mask_decoder", Default::Integer(0), THREADS, "Threads of the mask decoder. 0: all cores."),
    parameter(
        "threads.resolve",
        Default::Integer(0),
        THREADS,
        "Threads that bring masks to image size. 0: all cores, at most 4.",
    ),
    parameter(
        "qos.image.reliability",
        Default::Text("best_effort"),
        RELIABILITY,
        "Reliability asked of the camera. best_effort matches every camera.",
    ),
    parameter("qos.image.history", Default::Text("keep_last"), HISTORY, "History of the image subscription."),
    parameter(
        "qos.image.depth",
        Default::Integer(1),
        Range::Integers(1, 1000),
        "Depth of the image subscription, with keep_last. Whatever it is, the newest image wins.",
    ),
    parameter(
        "qos.results.reliability",
        Default::Text("reliable"),
        RELIABILITY,
        "Reliability of masks, detections and images. Lost results are sent again when reliable.",
    ),
    parameter("qos.results.history", Default::Text("keep_last"), HISTORY, "History of masks, detections and images."),
    parameter(
        "qos.results.depth",
        Default::Integer(5),
        Range::Integers(1, 1000),
        "Depth of masks, detections and images, with keep_last.",
    ),
    parameter(
        "overlay.max_rate",
        Default::Double(0.0),
        Range::Doubles(0.0, 1000.0),
        "Most overlay pictures a second on ~/overlay/image. 0: one for every result.",
    ),
    parameter(
        "diagnostics.period",
        Default::Double(1.0),
        Range::Doubles(0.1, 60.0),
        "Seconds between two messages on /diagnostics.",
    ),
];

/// Everything the node needs to know, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `None`: look in the usual places.
    pub models_dir: Option<PathBuf>,
    /// Class names to start with.
    pub classes: Vec<String>,
    /// Longest class list accepted.
    pub max_classes: usize,
    /// Whether `image` is a `sensor_msgs/CompressedImage`.
    pub compressed: bool,
    /// Whether time comes from `/clock`.
    pub use_sim_time: bool,
    /// `None`: as shipped with the detector.
    pub box_threshold: Option<f32>,
    /// `None`: as shipped with the detector.
    pub text_threshold: Option<f32>,
    /// `None`: as shipped with the detector.
    pub nms_iou: Option<f32>,
    /// Rule, prompts, limits and threads; its thresholds are filled in by [`Self::pipeline`].
    frame: PipelineConfig,
    /// `None`: look in the usual places.
    pub onnxruntime_library: Option<PathBuf>,
    /// QoS of the image subscription.
    pub image_qos: Qos,
    /// QoS of masks, detections and images.
    pub results_qos: Qos,
    /// Shortest time between two overlays.
    pub overlay_interval: Duration,
    /// Time between two diagnostics.
    pub diagnostics_period: Duration,
}

/// Reads typed values; the table guarantees that they are there and of the right type.
struct Reader<'v>(&'v Values);

impl Reader<'_> {
    fn bool(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Value::Bool(true)))
    }

    fn integer(&self, name: &str) -> usize {
        match self.0.get(name) {
            Some(Value::Integer(value)) => usize::try_from(value).unwrap_or(0),
            _ => 0,
        }
    }

    fn double(&self, name: &str) -> f64 {
        match self.0.get(name) {
            Some(Value::Double(value)) => value,
            _ => 0.0,
        }
    }

    fn text(&self, name: &str) -> String {
        match self.0.get(name) {
            Some(Value::Text(value)) => value,
            _ => String::new(),
        }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    /// A threshold, or `None` for the detector's own.
    fn threshold(&self, name: &'static str) -> Result<Option<f32>, ConfigError> {
        match self.double(name) {
            SHIPPED => Ok(None),
            value if value < 0.0 => Err(ConfigError {
                name,
                reason: format!("must be in [0, 1], or -1 for the detector's own; is {value}"),
            }),
            value => Ok(Some(value as f32)),
        }
    }

    fn threads(&self, name: &str, automatic: usize) -> usize {
        Some(self.integer(name)).filter(|&threads| threads > 0).unwrap_or(automatic)
    }

    fn qos(&self, group: &str) -> Qos {
        let depth = u32::try_from(self.integer(&format!("qos.{group}.depth"))).unwrap_or(1);
        Qos {
            reliability: match self.text(&format!("qos.{group}.reliability")).as_str() {
                "reliable" => Reliability::Reliable,
                _ => Reliability::BestEffort,
            },
            durability: Durability::Volatile,
            history: match self.text(&format!("qos.{group}.history")).as_str() {
                "keep_all" => History::KeepAll,
                _ => History::KeepLast(depth),
            },
        }
    }
}

impl Settings {
    /// Settings of the values of [`TABLE`].
    ///
    /// # Errors
    /// [`ConfigError`] where values contradict each other.
    pub fn from_values(values: &Values) -> Result<Self, ConfigError> {
        let read = Reader(values);
        let automatic = Execution::default();
        let device = i32::try_from(read.integer("device")).unwrap_or(0);
        let frame = PipelineConfig {
            label_rule: match read.text("label_rule").as_str() {
                "token_labels" => LabelRule::TokenLabels,
                _ => LabelRule::PhraseSpans,
            },
            use_box: read.bool("use_box"),
            use_points: read.bool("use_points"),
            n_points: read.integer("n_points"),
            max_objects: read.integer("max_objects"),
            mask_batch: read.integer("mask_batch"),
            execution: Execution {
                detector_threads: read.threads("threads.detector", automatic.detector_threads),
                encoder_threads: read.threads("threads.image_encoder", automatic.encoder_threads),
                decoder_threads: read.threads("threads.mask_decoder", automatic.decoder_threads),
                resolve_threads: read.threads("threads.resolve", automatic.resolve_threads),
                provider: match read.text("provider").as_str() {
                    "cuda" => Provider::Cuda { device },
                    "tensorrt" => Provider::TensorRt { device },
                    _ => Provider::Cpu,
                },
            },
            ..PipelineConfig::default()
        };
        let rate = read.double("overlay.max_rate");
        let settings = Self {
            models_dir: read.path("models_dir"),
            classes: match values.get("classes") {
                Some(Value::Texts(classes)) => classes,
                _ => Vec::new(),
            },
            max_classes: read.integer("max_classes"),
            compressed: read.text("image_transport") == "compressed",
            use_sim_time: read.bool("use_sim_time"),
            box_threshold: read.threshold("box_threshold")?,
            text_threshold: read.threshold("text_threshold")?,
            nms_iou: read.threshold("nms_iou")?,
            frame,
            onnxruntime_library: read.path("onnxruntime_library"),
            image_qos: read.qos("image"),
            results_qos: read.qos("results"),
            overlay_interval: if rate > 0.0 { Duration::from_secs_f64(1.0 / rate.max(1e-3)) } else { Duration::ZERO },
            diagnostics_period: Duration::from_secs_f64(read.double("diagnostics.period")),
        };
        settings.pipeline(&Thresholds::default()).validate()?;
        Ok(settings)
    }

    /// How frames are processed, with `shipped` where a threshold was left to the detector.
    #[must_use]
    pub fn pipeline(&self, shipped: &Thresholds) -> PipelineConfig {
        PipelineConfig {
            box_threshold: self.box_threshold.unwrap_or(shipped.box_threshold),
            text_threshold: self.text_threshold.unwrap_or(shipped.text_threshold),
            nms_iou: self.nms_iou.unwrap_or(shipped.nms_iou),
            ..self.frame.clone()
        }
    }
}
