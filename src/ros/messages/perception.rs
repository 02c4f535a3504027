//! `vision_msgs` (4.x) and the `geometry_msgs` inside it.

use serde::{Deserialize, Serialize};

use super::Header;

/// `geometry_msgs/Point`, metres.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "geometry_msgs/msg/Point")]
#[allow(missing_docs, reason = "coordinates")]
pub struct Point {
    pub x: f64,
    pub y: f64,
    pub z: f64,
}

/// `geometry_msgs/Quaternion`; the default is no rotation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename = "geometry_msgs/msg/Quaternion")]
#[allow(missing_docs, reason = "coordinates")]
pub struct Quaternion {
    pub x: f64,
    pub y: f64,
    pub z: f64,
    pub w: f64,
}

impl Default for Quaternion {
    fn default() -> Self {
        Self { x: 0.0, y: 0.0, z: 0.0, w: 1.0 }
    }
}

/// `geometry_msgs/Pose`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "geometry_msgs/msg/Pose")]
pub struct Pose {
    /// Metres.
    pub position: Point,
    /// Rotation.
    pub orientation: Quaternion,
}

/// `geometry_msgs/PoseWithCovariance`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "geometry_msgs/msg/PoseWithCovariance")]
pub struct PoseWithCovariance {
    /// Mean.
    pub pose: Pose,
    /// Row-major 6x6; `float64[36]` in the definition, the same bytes as six rows of six.
    pub covariance: [[f64; 6]; 6],
}

/// `vision_msgs/Point2D`, pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "vision_msgs/msg/Point2D")]
#[allow(missing_docs, reason = "coordinates")]
pub struct Point2D {
    pub x: f64,
    pub y: f64,
}

/// `vision_msgs/Pose2D`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "vision_msgs/msg/Pose2D")]
pub struct Pose2D {
    /// Pixels, origin at the top-left corner of the image.
    pub position: Point2D,
    /// Radians.
    pub theta: f64,
}

/// `vision_msgs/BoundingBox2D`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "vision_msgs/msg/BoundingBox2D")]
pub struct BoundingBox2D {
    /// Centre of the box.
    pub center: Pose2D,
    /// Width in pixels.
    pub size_x: f64,
    /// Height in pixels.
    pub size_y: f64,
}

/// `vision_msgs/ObjectHypothesis`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "vision_msgs/msg/ObjectHypothesis")]
pub struct ObjectHypothesis {
    /// Class name.
    pub class_id: String,
    /// Score in [0, 1].
    pub score: f64,
}

/// `vision_msgs/ObjectHypothesisWithPose`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "vision_msgs/msg/ObjectHypothesisWithPose")]
pub struct ObjectHypothesisWithPose {
    /// Class and score.
    pub hypothesis: ObjectHypothesis,
    /// Left at its default in 2-D results.
    pub pose: PoseWithCovariance,
}

/// `vision_msgs/Detection2D`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "vision_msgs/msg/Detection2D")]
pub struct Detection2D {
    /// As the array's.
    pub header: Header,
    /// Best class first.
    pub results: Vec<ObjectHypothesisWithPose>,
    /// Where the object is in the image.
    pub bbox: BoundingBox2D,
    /// Instance id within the frame.
    pub id: String,
}

/// `vision_msgs/Detection2DArray`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "vision_msgs/msg/Detection2DArray")]
pub struct Detection2DArray {
    /// Stamp and frame of the image.
    pub header: Header,
    /// One per object.
    pub detections: Vec<Detection2D>,
}

/// `vision_msgs/VisionClass`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "vision_msgs/msg/VisionClass")]
pub struct VisionClass {
    /// Value in the semantic image.
    pub class_id: u16,
    /// Class name.
    pub class_name: String,
}

/// `vision_msgs/LabelInfo`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "vision_msgs/msg/LabelInfo")]
pub struct LabelInfo {
    /// Time of the change; frame as the image's.
    pub header: Header,
    /// Names of the values in the semantic image.
    pub class_map: Vec<VisionClass>,
    /// Smallest score that gets a label.
    pub threshold: f32,
}

message_types! {
    Point => "geometry_msgs/msg/Point",
    Quaternion => "geometry_msgs/msg/Quaternion",
    Pose => "geometry_msgs/msg/Pose",
    PoseWithCovariance => "geometry_msgs/msg/PoseWithCovariance",
    Point2D => "vision_msgs/msg/Point2D",
    Pose2D => "vision_msgs/msg/Pose2D",
    BoundingBox2D => "vision_msgs/msg/BoundingBox2D",
    ObjectHypothesis => "vision_msgs/msg/ObjectHypothesis",
    ObjectHypothesisWithPose => "vision_msgs/msg/ObjectHypothesisWithPose",
    Detection2D => "vision_msgs/msg/Detection2D",
    Detection2DArray => "vision_msgs/msg/Detection2DArray",
    VisionClass => "vision_msgs/msg/VisionClass",
    LabelInfo => "vision_msgs/msg/LabelInfo",
}
