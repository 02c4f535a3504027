//! The node's settings, made of its parameters.

use std::{path::PathBuf, time::Duration};

use super::{
    names,
    parameter_table::SHIPPED,
    parameters::{Value, Values},
    refresh_settings::RefreshSettings,
    transport::{Durability, History, Qos, Reliability},
};
use crate::{
    inference::{Provider, Thresholds},
    pipeline::{ConfigError, Execution, LabelRule, PipelineConfig},
};

/// Most cameras of one node; each has slots, buffers and topics of its own.
const MAX_CAMERAS: usize = 32;

/// Everything the node needs to know, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `None`: look in the usual places.
    pub models_dir: Option<PathBuf>,
    /// Class names to start with.
    pub classes: Vec<String>,
    /// Longest class list accepted.
    pub max_classes: usize,
    /// Names of the cameras; empty: a single one without a name.
    pub cameras: Vec<String>,
    /// Whether `image` is a `sensor_msgs/CompressedImage`.
    pub compressed: bool,
    /// Whether the node becomes active by itself.
    pub autostart: bool,
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
    /// The vocabulary loop; `None`: the list changes only when somebody sets it.
    pub refresh: Option<RefreshSettings>,
}

/// Reads typed values; the table guarantees that they are there and of the right type.
pub(super) struct Reader<'v>(pub &'v Values);

impl Reader<'_> {
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Value::Bool(true)))
    }

    pub fn integer(&self, name: &str) -> usize {
        match self.0.get(name) {
            Some(Value::Integer(value)) => usize::try_from(value).unwrap_or(0),
            _ => 0,
        }
    }

    pub fn double(&self, name: &str) -> f64 {
        match self.0.get(name) {
            Some(Value::Double(value)) => value,
            _ => 0.0,
        }
    }

    pub fn text(&self, name: &str) -> String {
        match self.0.get(name) {
            Some(Value::Text(value)) => value,
            _ => String::new(),
        }
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    /// A threshold, or `None` for the detector's own.
    pub fn threshold(&self, name: &'static str) -> Result<Option<f32>, ConfigError> {
        match self.double(name) {
            SHIPPED => Ok(None),
            value if value < 0.0 => Err(ConfigError {
                name,
                reason: format!("must be in [0, 1], or -1 for the detector's own; is {value}"),
            }),
            value => Ok(Some(value as f32)),
        }
    }

    pub fn texts(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some(Value::Texts(values)) => values,
            _ => Vec::new(),
        }
    }

    pub fn seconds(&self, name: &str) -> Duration {
        Duration::from_secs_f64(self.double(name).max(0.0))
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
            lifespan: None,
        }
    }
}

/// Cameras become parts of topic names.
fn check_cameras(cameras: &[String]) -> Result<(), ConfigError> {
    let error = |reason| Err(ConfigError { name: "cameras", reason });
    if cameras.len() > MAX_CAMERAS {
        return error(format!("at most {MAX_CAMERAS} are expected, found {}", cameras.len()));
    }
    for (index, camera) in cameras.iter().enumerate() {
        if let Err(reason) = names::check_token(camera) {
            return error(format!("{camera:?} cannot be part of a topic's name: {reason}"));
        }
        if cameras.iter().take(index).any(|other| other == camera) {
            return error(format!("{camera:?} is there twice"));
        }
    }
    Ok(())
}

impl Settings {
    /// Settings of the values of [`super::parameter_table::TABLE`].
    ///
    /// # Errors
    /// [`ConfigError`] where values contradict each other.
    pub fn from_values(values: &Values) -> Result<Self, ConfigError> {
        let read = Reader(values);
        let automatic = Execution::default();
        let device = i32::try_from(read.integer("device")).unwrap_or(0);
        let provider = match read.text("provider").as_str() {
            "cuda" => Provider::Cuda { device },
            "tensorrt" => Provider::TensorRt { device },
            _ => Provider::Cpu,
        };
        let cameras = read.texts("cameras");
        check_cameras(&cameras)?;
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
            image_batch: match (read.integer("image_batch"), provider) {
                // On a processor a run of two images takes as long as two runs of one.
                (0, Provider::Cpu) => 1,
                (0, _) => cameras.len().max(1),
                (most, _) => most,
            },
            execution: Execution {
                detector_threads: read.threads("threads.detector", automatic.detector_threads),
                encoder_threads: read.threads("threads.image_encoder", automatic.encoder_threads),
                decoder_threads: read.threads("threads.mask_decoder", automatic.decoder_threads),
                resolve_threads: read.threads("threads.resolve", automatic.resolve_threads),
                provider,
            },
            ..PipelineConfig::default()
        };
        let rate = read.double("overlay.max_rate");
        let settings = Self {
            models_dir: read.path("models_dir"),
            classes: read.texts("classes"),
            max_classes: read.integer("max_classes"),
            cameras,
            compressed: read.text("image_transport") == "compressed",
            autostart: read.bool("autostart"),
            use_sim_time: read.bool("use_sim_time"),
            box_threshold: read.threshold("box_threshold")?,
            text_threshold: read.threshold("text_threshold")?,
            nms_iou: read.threshold("nms_iou")?,
            frame,
            onnxruntime_library: read.path("onnxruntime_library"),
            image_qos: read.qos("image"),
            results_qos: read.qos("results"),
            overlay_interval: if rate > 0.0 { Duration::from_secs_f64(1.0 / rate.max(1e-3)) } else { Duration::ZERO },
            diagnostics_period: read.seconds("diagnostics.period"),
            refresh: RefreshSettings::from_values(&read)?,
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
