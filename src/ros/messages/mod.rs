//! ROS 2 messages as plain serde structs: ours (`msg/`, `srv/`) and the standard ones the node uses.
//!
//! Field order and types are the definition: CDR has no names. A test traces every struct with [`super::describe`] and
//! compares it with the `.msg` files and with type hashes computed by an independent implementation.

macro_rules! message_types {
    ($($message:ty => $name:literal),+ $(,)?) => {
        $(impl $crate::ros::messages::RosMessage for $message {
            const TYPE: &'static str = $name;
        })+
    };
}

/// A service with its two halves.
macro_rules! service {
    (
        $(#[$about:meta])* $name:ident $type_name:literal:
        $request:ident $request_name:literal { $($asked:ident: $asked_type:ty),+ $(,)? }
        $response:ident $response_name:literal { $($told:ident: $told_type:ty),+ $(,)? }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl $crate::ros::messages::RosService for $name {
            const TYPE: &'static str = $type_name;
            type Request = $request;
            type Response = $response;
        }

        #[doc = concat!("What the client of [`", stringify!($name), "`] sends.")]
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename = $request_name)]
        #[allow(missing_docs, reason = "fields as in the definition")]
        pub struct $request {
            $(pub $asked: $asked_type,)+
        }

        #[doc = concat!("What the server of [`", stringify!($name), "`] answers.")]
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename = $response_name)]
        #[allow(missing_docs, reason = "fields as in the definition")]
        pub struct $response {
            $(pub $told: $told_type,)+
        }

        message_types! {
            $request => $request_name,
            $response => $response_name,
        }
    };
}

mod common;
pub mod lifecycle;
pub mod log;
pub mod parameters;
mod perception;
mod scenelex;

pub use common::{
    CameraInfo, Clock, CompressedImage, CompressedImageView, DiagnosticArray, DiagnosticStatus, Duration, Header,
    Image, ImageView, KeyValue, Octet, RegionOfInterest, SetBool, SetBoolRequest, SetBoolResponse, StringMessage, Time,
    Trigger, TriggerRequest, TriggerResponse,
};
pub use perception::{
    BoundingBox2D, Detection2D, Detection2DArray, LabelInfo, ObjectHypothesis, ObjectHypothesisWithPose, Point,
    Point2D, Pose, Pose2D, PoseWithCovariance, Quaternion, VisionClass,
};
pub use scenelex::{
    LabeledMask, LabeledMaskArray, Segment, SegmentPrompt, SegmentRequest, SegmentResponse, SetVocabulary,
    SetVocabularyRequest, SetVocabularyResponse, StageDuration, Vocabulary, VocabularyEntry,
};

/// A message type with its ROS name.
pub trait RosMessage {
    /// `package/msg/Name`, or `package/srv/Name_Request` and `…_Response` for the halves of a service.
    const TYPE: &'static str;
}

/// A service type: its ROS name and its two halves.
pub trait RosService {
    /// `package/srv/Name`.
    const TYPE: &'static str;
    /// What the client sends.
    type Request: RosMessage;
    /// What the server answers.
    type Response: RosMessage;
}
