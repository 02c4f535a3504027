//! `builtin_interfaces`, `std_msgs`, `sensor_msgs`, `diagnostic_msgs` and `rosgraph_msgs`, as far as the node uses them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::RosService;
use crate::types;

/// `builtin_interfaces/Time`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "builtin_interfaces/msg/Time")]
pub struct Time {
    /// Seconds since the epoch of the clock in use.
    pub sec: i32,
    /// Nanoseconds, below 1e9.
    pub nanosec: u32,
}

impl From<types::Stamp> for Time {
    fn from(stamp: types::Stamp) -> Self {
        Self { sec: stamp.sec, nanosec: stamp.nanosec }
    }
}

impl From<Time> for types::Stamp {
    fn from(time: Time) -> Self {
        Self { sec: time.sec, nanosec: time.nanosec }
    }
}

/// `builtin_interfaces/Duration`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "builtin_interfaces/msg/Duration")]
pub struct Duration {
    /// Seconds.
    pub sec: i32,
    /// Nanoseconds, below 1e9.
    pub nanosec: u32,
}

impl From<std::time::Duration> for Duration {
    fn from(duration: std::time::Duration) -> Self {
        Self { sec: i32::try_from(duration.as_secs()).unwrap_or(i32::MAX), nanosec: duration.subsec_nanos() }
    }
}

impl From<Duration> for std::time::Duration {
    /// Negative durations become zero.
    fn from(duration: Duration) -> Self {
        u64::try_from(duration.sec).map_or(Self::ZERO, |sec| Self::new(sec, duration.nanosec.min(999_999_999)))
    }
}

/// `std_msgs/Header`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "std_msgs/msg/Header")]
pub struct Header {
    /// Acquisition time.
    pub stamp: Time,
    /// Coordinate frame.
    pub frame_id: String,
}

impl From<&types::Header> for Header {
    fn from(header: &types::Header) -> Self {
        Self { stamp: header.stamp.into(), frame_id: header.frame_id.clone() }
    }
}

impl From<Header> for types::Header {
    fn from(header: Header) -> Self {
        Self { stamp: header.stamp.into(), frame_id: header.frame_id }
    }
}

/// `std_msgs/String`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "std_msgs/msg/String")]
pub struct StringMessage {
    /// The text.
    pub data: String,
}

/// `rosgraph_msgs/Clock`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "rosgraph_msgs/msg/Clock")]
pub struct Clock {
    /// Simulated time.
    pub clock: Time,
}

/// `sensor_msgs/Image`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "sensor_msgs/msg/Image")]
pub struct Image {
    /// Stamp and optical frame.
    pub header: Header,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// One of `sensor_msgs/image_encodings.hpp`.
    pub encoding: String,
    /// 1 when multi-byte samples are big endian.
    pub is_bigendian: u8,
    /// Bytes per row, padding included.
    pub step: u32,
    /// `step * height` bytes.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// [`Image`] whose text and pixels stay in the received (or given) buffer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename = "sensor_msgs/msg/Image")]
pub struct ImageView<'a> {
    /// Stamp and optical frame.
    pub header: Header,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// One of `sensor_msgs/image_encodings.hpp`.
    #[serde(borrow)]
    pub encoding: Cow<'a, str>,
    /// 1 when multi-byte samples are big endian.
    pub is_bigendian: u8,
    /// Bytes per row, padding included.
    pub step: u32,
    /// `step * height` bytes.
    #[serde(borrow, with = "serde_bytes")]
    pub data: &'a [u8],
}

/// `sensor_msgs/CompressedImage`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "sensor_msgs/msg/CompressedImage")]
pub struct CompressedImage {
    /// Stamp and optical frame.
    pub header: Header,
    /// `jpeg`, `png`, or the longer form of `image_transport`.
    pub format: String,
    /// The file's bytes.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// [`CompressedImage`] whose text and bytes stay in the received (or given) buffer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename = "sensor_msgs/msg/CompressedImage")]
pub struct CompressedImageView<'a> {
    /// Stamp and optical frame.
    pub header: Header,
    /// `jpeg`, `png`, or the longer form of `image_transport`.
    #[serde(borrow)]
    pub format: Cow<'a, str>,
    /// The file's bytes.
    #[serde(borrow, with = "serde_bytes")]
    pub data: &'a [u8],
}

/// `sensor_msgs/RegionOfInterest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "sensor_msgs/msg/RegionOfInterest")]
pub struct RegionOfInterest {
    /// Leftmost column.
    pub x_offset: u32,
    /// Topmost row.
    pub y_offset: u32,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// Whether the region is of a rectified image.
    pub do_rectify: bool,
}

/// `sensor_msgs/CameraInfo`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "sensor_msgs/msg/CameraInfo")]
pub struct CameraInfo {
    /// Stamp and optical frame.
    pub header: Header,
    /// Rows of the calibrated image.
    pub height: u32,
    /// Columns of the calibrated image.
    pub width: u32,
    /// For example `plumb_bob`.
    pub distortion_model: String,
    /// Distortion coefficients.
    pub d: Vec<f64>,
    /// Intrinsic matrix, row-major 3x3.
    pub k: [f64; 9],
    /// Rectification matrix, row-major 3x3.
    pub r: [f64; 9],
    /// Projection matrix, row-major 3x4.
    pub p: [f64; 12],
    /// Camera binning in columns; 0 is 1.
    pub binning_x: u32,
    /// Camera binning in rows; 0 is 1.
    pub binning_y: u32,
    /// The part of the full image.
    pub roi: RegionOfInterest,
}

/// ROS `byte`: eight bits on the wire like `uint8`, yet another type in definitions and hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "byte")]
pub struct Octet(pub u8);

/// `diagnostic_msgs/KeyValue`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "diagnostic_msgs/msg/KeyValue")]
pub struct KeyValue {
    /// What is measured.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// `diagnostic_msgs/DiagnosticStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "diagnostic_msgs/msg/DiagnosticStatus")]
pub struct DiagnosticStatus {
    /// [`Self::OK`], [`Self::WARN`], [`Self::ERROR`] or [`Self::STALE`].
    pub level: Octet,
    /// What is reported on.
    pub name: String,
    /// One line for people.
    pub message: String,
    /// Which piece of hardware.
    pub hardware_id: String,
    /// Numbers behind the message.
    pub values: Vec<KeyValue>,
}

impl DiagnosticStatus {
    /// All is well.
    pub const OK: Octet = Octet(0);
    /// Works, but somebody should look.
    pub const WARN: Octet = Octet(1);
    /// Does not work.
    pub const ERROR: Octet = Octet(2);
    /// Nothing has been heard.
    pub const STALE: Octet = Octet(3);
}

/// `diagnostic_msgs/DiagnosticArray`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "diagnostic_msgs/msg/DiagnosticArray")]
pub struct DiagnosticArray {
    /// Time of the report.
    pub header: Header,
    /// One entry per part reported on.
    pub status: Vec<DiagnosticStatus>,
}

/// Request of `std_srvs/Trigger`: nothing, which ROS 2 sends as one byte.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "std_srvs/srv/Trigger_Request")]
pub struct TriggerRequest {
    /// Always 0.
    pub structure_needs_at_least_one_member: u8,
}

/// Response of `std_srvs/Trigger`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "std_srvs/srv/Trigger_Response")]
pub struct TriggerResponse {
    /// Whether it was done.
    pub success: bool,
    /// What was done, or why not.
    pub message: String,
}

/// `std_srvs/Trigger`.
#[derive(Clone, Copy, Debug)]
pub struct Trigger;

impl RosService for Trigger {
    const TYPE: &'static str = "std_srvs/srv/Trigger";
    type Request = TriggerRequest;
    type Response = TriggerResponse;
}

service! {
    /// `std_srvs/SetBool`.
    SetBool "std_srvs/srv/SetBool":
    SetBoolRequest "std_srvs/srv/SetBool_Request" { data: bool }
    SetBoolResponse "std_srvs/srv/SetBool_Response" { success: bool, message: String }
}

message_types! {
    TriggerRequest => "std_srvs/srv/Trigger_Request",
    TriggerResponse => "std_srvs/srv/Trigger_Response",
    Time => "builtin_interfaces/msg/Time",
    Duration => "builtin_interfaces/msg/Duration",
    Header => "std_msgs/msg/Header",
    StringMessage => "std_msgs/msg/String",
    Clock => "rosgraph_msgs/msg/Clock",
    Image => "sensor_msgs/msg/Image",
    ImageView<'_> => "sensor_msgs/msg/Image",
    CompressedImage => "sensor_msgs/msg/CompressedImage",
    CompressedImageView<'_> => "sensor_msgs/msg/CompressedImage",
    RegionOfInterest => "sensor_msgs/msg/RegionOfInterest",
    CameraInfo => "sensor_msgs/msg/CameraInfo",
    KeyValue => "diagnostic_msgs/msg/KeyValue",
    DiagnosticStatus => "diagnostic_msgs/msg/DiagnosticStatus",
    DiagnosticArray => "diagnostic_msgs/msg/DiagnosticArray",
}
