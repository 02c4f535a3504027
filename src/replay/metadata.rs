//! `metadata.yaml`, the index rosbag2 keeps beside a bag's files.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use serde_yaml_ng::Value;

use super::{
    bag::BagError,
    qos::{self, OfferedQos},
};

/// What of a foreign `metadata.yaml` matters here. Other keys are ignored: every release adds some.
#[derive(Debug, Default)]
pub(super) struct BagMetadata {
    /// Files of the bag, relative to its folder, in order.
    pub files: Vec<String>,
    /// Offered QoS by topic name; without the topics whose profiles cannot be understood.
    pub qos: BTreeMap<String, Vec<OfferedQos>>,
    /// What could not be understood.
    pub problems: Vec<BagError>,
}

#[derive(Deserialize)]
struct RawFile {
    rosbag2_bagfile_information: RawInformation,
}

#[derive(Deserialize)]
struct RawInformation {
    #[serde(default)]
    storage_identifier: String,
    #[serde(default)]
    relative_file_paths: Vec<String>,
    #[serde(default)]
    topics_with_message_count: Vec<RawTopic>,
    #[serde(default)]
    compression_mode: String,
}

#[derive(Deserialize)]
struct RawTopic {
    topic_metadata: RawTopicMetadata,
}

#[derive(Deserialize)]
struct RawTopicMetadata {
    name: String,
    #[serde(default)]
    offered_qos_profiles: Value,
}

impl BagMetadata {
    /// Reads the file. What is wrong with the QoS of single topics is in [`Self::problems`].
    pub(super) fn read(path: &Path) -> Result<Self, BagError> {
        let text = std::fs::read_to_string(path).map_err(|source| BagError::Io { path: path.to_owned(), source })?;
        let broken = |reason: String| BagError::Metadata { path: path.to_owned(), reason };
        let raw: RawFile = serde_yaml_ng::from_str(&text).map_err(|e| broken(e.to_string()))?;
        let raw = raw.rosbag2_bagfile_information;
        if !raw.storage_identifier.is_empty() && raw.storage_identifier != "mcap" {
            return Err(BagError::Storage { path: path.to_owned(), found: raw.storage_identifier });
        }
        if !matches!(raw.compression_mode.to_ascii_lowercase().as_str(), "" | "none" | "storage") {
            return Err(BagError::CompressionMode { path: path.to_owned(), found: raw.compression_mode });
        }
        let mut metadata = Self { files: raw.relative_file_paths, ..Self::default() };
        for topic in raw.topics_with_message_count {
            let name = topic.topic_metadata.name;
            match qos::from_yaml(topic.topic_metadata.offered_qos_profiles) {
                Ok(profiles) => {
                    metadata.qos.insert(name, profiles);
                }
                Err(error) => metadata.problems.push(broken(format!("offered_qos_profiles of {name}: {error}"))),
            }
        }
        Ok(metadata)
    }
}

/// `metadata.yaml` as version 5 (Humble) has it, which every later release reads too.
#[derive(Serialize)]
pub(super) struct WrittenMetadata {
    pub rosbag2_bagfile_information: WrittenInformation,
}

#[derive(Serialize)]
pub(super) struct WrittenInformation {
    pub version: u32,
    pub storage_identifier: &'static str,
    pub duration: Nanoseconds,
    pub starting_time: NanosecondsSinceEpoch,
    pub message_count: u64,
    pub topics_with_message_count: Vec<WrittenTopic>,
    pub compression_format: &'static str,
    pub compression_mode: &'static str,
    pub relative_file_paths: Vec<String>,
    pub files: Vec<WrittenFile>,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct Nanoseconds {
    pub nanoseconds: u64,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct NanosecondsSinceEpoch {
    pub nanoseconds_since_epoch: u64,
}

#[derive(Serialize)]
pub(super) struct WrittenTopic {
    pub topic_metadata: WrittenTopicMetadata,
    pub message_count: u64,
}

#[derive(Serialize)]
pub(super) struct WrittenTopicMetadata {
    pub name: String,
    #[serde(rename = "type")]
    pub type_name: String,
    pub serialization_format: &'static str,
    pub offered_qos_profiles: String,
}

#[derive(Serialize)]
pub(super) struct WrittenFile {
    pub path: String,
    pub starting_time: NanosecondsSinceEpoch,
    pub duration: Nanoseconds,
    pub message_count: u64,
}
