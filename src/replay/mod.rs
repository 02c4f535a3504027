//! Bags and scores: reading and writing rosbag2 MCAP bags, pacing a replay, and adding up confusion matrices.
//!
//! Knows bytes, names, definitions and times only; decoding messages is the business of `ros`, which this module never
//! imports.

pub mod bag;
mod bag_file;
pub mod definitions;
mod metadata;
pub mod pace;
pub mod qos;
pub mod record;
pub mod score;

pub use bag::{Bag, BagError, BagMessage, BagMessages, BagTopic, MessageQuery};
pub use pace::Pace;
pub use qos::{Durability, History, OfferedQos, Reliability};
pub use record::{RecordError, RecordedTopic, Recorder, RecordingSummary};
pub use score::{ConfusionMatrix, IouReport, LabelImage, SemanticScorer};
