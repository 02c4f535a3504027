//! This package's own messages and services; the definitions with their comments are in `msg/` and `srv/`.

use serde::{Deserialize, Serialize};

use super::{Duration, Header, Image, Point, RegionOfInterest, RosService};

/// `scenelex/LabeledMask`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "scenelex/msg/LabeledMask")]
pub struct LabeledMask {
    /// 1-based, unique within the frame.
    pub instance_id: u32,
    /// Class of the vocabulary, 65535 = none.
    pub class_id: u16,
    /// Canonical class name.
    pub label: String,
    /// What the detector matched.
    pub phrase: String,
    /// Detection score in [0, 1].
    pub score: f32,
    /// Predicted IoU of the mask.
    pub mask_score: f32,
    /// Detection box in whole pixels.
    pub bbox: RegionOfInterest,
    /// COCO uncompressed run lengths, column-major over the full image.
    pub counts: Vec<u32>,
}

/// `scenelex/StageDuration`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "scenelex/msg/StageDuration")]
pub struct StageDuration {
    /// Name of the stage, a constant of `StageDuration.msg`.
    pub stage: String,
    /// Time it took.
    pub duration: Duration,
}

/// `scenelex/LabeledMaskArray`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "scenelex/msg/LabeledMaskArray")]
pub struct LabeledMaskArray {
    /// Stamp and frame of the image.
    pub header: Header,
    /// Rows of the image and of every mask.
    pub height: u32,
    /// Columns of the image and of every mask.
    pub width: u32,
    /// Version of the vocabulary the frame was made with.
    pub vocabulary_version: u64,
    /// Age of that vocabulary when the frame was finished.
    pub vocabulary_age: Duration,
    /// Objects, ordered by falling mask score.
    pub masks: Vec<LabeledMask>,
    /// Where the time went.
    pub stages: Vec<StageDuration>,
}

/// `scenelex/VocabularyEntry`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "scenelex/msg/VocabularyEntry")]
pub struct VocabularyEntry {
    /// Stable across versions for the same label.
    pub class_id: u16,
    /// Canonical name.
    pub label: String,
    /// Label of the parent class, or empty.
    pub parent: String,
    /// Other names the detector is asked for.
    pub synonyms: Vec<String>,
    /// More special names the detector is asked for.
    pub subclasses: Vec<String>,
    /// Confidence in [0, 1] that the class is in the scene.
    pub score: f32,
}

/// `scenelex/Vocabulary`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "scenelex/msg/Vocabulary")]
pub struct Vocabulary {
    /// Time of the change.
    pub header: Header,
    /// Rises by one with every accepted change; 0 before the first, and anew whenever the node is configured.
    pub version: u64,
    /// `configuration`, `topic` or `service`.
    pub source: String,
    /// Classes in the order given.
    pub entries: Vec<VocabularyEntry>,
}

/// Request of `scenelex/SetVocabulary`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "scenelex/srv/SetVocabulary_Request")]
pub struct SetVocabularyRequest {
    /// Class names.
    pub classes: Vec<String>,
    /// Classes with synonyms, subclasses or parents; added after `classes`.
    pub entries: Vec<VocabularyEntry>,
}

/// Response of `scenelex/SetVocabulary`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "scenelex/srv/SetVocabulary_Response")]
pub struct SetVocabularyResponse {
    /// False when the list was refused.
    pub success: bool,
    /// Why it was refused.
    pub message: String,
    /// Version now in force.
    pub version: u64,
    /// The list now in force.
    pub entries: Vec<VocabularyEntry>,
}

/// `scenelex/SetVocabulary`.
#[derive(Clone, Copy, Debug)]
pub struct SetVocabulary;

impl RosService for SetVocabulary {
    const TYPE: &'static str = "scenelex/srv/SetVocabulary";
    type Request = SetVocabularyRequest;
    type Response = SetVocabularyResponse;
}

/// `scenelex/SegmentPrompt`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "scenelex/msg/SegmentPrompt")]
pub struct SegmentPrompt {
    /// Comes back with the mask.
    pub label: String,
    /// Width and height 0: no box.
    #[serde(rename = "box")]
    pub bbox: RegionOfInterest,
    /// Pixels; z is not looked at.
    pub points: Vec<Point>,
    /// 1: on the thing; 0: beside it.
    #[serde(with = "serde_bytes")]
    pub point_labels: Vec<u8>,
}

service! {
    /// `scenelex/Segment`.
    Segment "scenelex/srv/Segment":
    SegmentRequest "scenelex/srv/Segment_Request" { image: Image, camera: String, prompts: Vec<SegmentPrompt> }
    SegmentResponse "scenelex/srv/Segment_Response" { success: bool, message: String, masks: LabeledMaskArray }
}

message_types! {
    SegmentPrompt => "scenelex/msg/SegmentPrompt",
    LabeledMask => "scenelex/msg/LabeledMask",
    StageDuration => "scenelex/msg/StageDuration",
    LabeledMaskArray => "scenelex/msg/LabeledMaskArray",
    VocabularyEntry => "scenelex/msg/VocabularyEntry",
    Vocabulary => "scenelex/msg/Vocabulary",
    SetVocabularyRequest => "scenelex/srv/SetVocabulary_Request",
    SetVocabularyResponse => "scenelex/srv/SetVocabulary_Response",
}
