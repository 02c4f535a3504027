//! Writing rosbag2 bags with MCAP storage: a folder with one `.mcap` file (profile `ros2`, schemas as `ros2msg`) and
//! the `metadata.yaml` that `ros2 bag info` reads.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

use mcap::{Compression, WriteOptions, Writer, records::MessageHeader};
use thiserror::Error;

use super::{
    metadata::{
        Nanoseconds, NanosecondsSinceEpoch, WrittenFile, WrittenInformation, WrittenMetadata, WrittenTopic,
        WrittenTopicMetadata,
    },
    qos::{self, OfferedQos},
};

/// Bytes of messages gathered before a chunk is compressed and written.
const CHUNK_BYTES: u64 = 1024 * 1024;

/// Why a bag cannot be written.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The folder exists and is not empty.
    #[error("{0}: exists already; a bag is written to a new folder")]
    Exists(PathBuf),
    /// The folder's name cannot name the bag's file.
    #[error("{0}: cannot name a bag")]
    BadName(PathBuf),
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The MCAP writer refused.
    #[error("{path}: {source}")]
    Mcap {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: mcap::McapError,
    },
    /// metadata.yaml cannot be made.
    #[error("{path}: {source}")]
    Yaml {
        /// The metadata file.
        path: PathBuf,
        /// What the YAML writer said.
        source: serde_yaml_ng::Error,
    },
    /// A message was written to a topic this recorder did not make.
    #[error("no topic has the index {0}")]
    UnknownTopic(usize),
}

/// A topic to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedTopic {
    /// Topic name, with its leading slash.
    pub name: String,
    /// Type, as in `sensor_msgs/msg/Image`.
    pub type_name: String,
    /// The definition in ROS 2 `.msg` syntax, followed by those it depends on, each after a line of 80 `=` and a line
    /// `MSG: package/Name`. This is what makes the bag readable without the message packages.
    pub definition: String,
    /// QoS of the original publishers.
    pub qos: Vec<OfferedQos>,
}

/// What a finished recording holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordingSummary {
    /// Number of messages on all topics.
    pub message_count: u64,
    /// Lowest log time, nanoseconds since the epoch; 0 without messages.
    pub start: u64,
    /// Highest log time, nanoseconds since the epoch; 0 without messages.
    pub end: u64,
}

struct TopicState {
    topic: RecordedTopic,
    channel: u16,
    message_count: u64,
}

/// Writes a bag. [`Recorder::finish`] makes it complete; a recorder that is dropped before leaves a file without
/// `metadata.yaml`, which is still readable.
pub struct Recorder {
    folder: PathBuf,
    file_name: String,
    writer: Writer<BufWriter<File>>,
    topics: Vec<TopicState>,
    bounds: Option<(u64, u64)>,
    message_count: u64,
}

impl Recorder {
    /// Starts a bag in `folder`, which must not exist or be empty.
    ///
    /// # Errors
    /// [`RecordError::Exists`], [`RecordError::BadName`], or what the system refuses.
    pub fn create(folder: &Path) -> Result<Self, RecordError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| RecordError::Io { path, source }
        };
        let name = folder.file_name().and_then(|name| name.to_str());
        let file_name = format!("{}_0.mcap", name.ok_or_else(|| RecordError::BadName(folder.to_owned()))?);
        if folder.exists() && fs::read_dir(folder).map_err(io(folder))?.next().is_some() {
            return Err(RecordError::Exists(folder.to_owned()));
        }
        fs::create_dir_all(folder).map_err(io(folder))?;
        let path = folder.join(&file_name);
        let file = File::create(&path).map_err(io(&path))?;
        let writer = WriteOptions::new()
            .profile("ros2")
            .library(concat!("scenelex/", env!("CARGO_PKG_VERSION")))
            .compression(Some(Compression::Zstd))
            // Images arrive compressed or are masks: the fastest level gets nearly all there is to get.
            .compression_level(1)
            .chunk_size(Some(CHUNK_BYTES))
            .create(BufWriter::new(file))
            .map_err(|source| RecordError::Mcap { path, source })?;
        Ok(Self { folder: folder.to_owned(), file_name, writer, topics: Vec::new(), bounds: None, message_count: 0 })
    }

    fn mcap_error(&self, source: mcap::McapError) -> RecordError {
        RecordError::Mcap { path: self.folder.join(&self.file_name), source }
    }

    /// Adds a topic and returns its index for [`Recorder::write`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_topic(&mut self, topic: RecordedTopic) -> Result<usize, RecordError> {
        let offered = qos::to_yaml(&topic.qos)
            .map_err(|source| RecordError::Yaml { path: self.folder.join("metadata.yaml"), source })?;
        let schema = self
            .writer
            .add_schema(&topic.type_name, "ros2msg", topic.definition.as_bytes())
            .map_err(|e| self.mcap_error(e))?;
        let metadata = BTreeMap::from([("offered_qos_profiles".to_owned(), offered)]);
        let channel = self.writer.add_channel(schema, &topic.name, "cdr", &metadata).map_err(|e| self.mcap_error(e))?;
        self.topics.push(TopicState { topic, channel, message_count: 0 });
        Ok(self.topics.len() - 1)
    }

    /// Appends a serialised message (with its encapsulation header), received at `log_time` nanoseconds.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, topic: usize, log_time: u64, data: &[u8]) -> Result<(), RecordError> {
        let state = self.topics.get_mut(topic).ok_or(RecordError::UnknownTopic(topic))?;
        let header = MessageHeader {
            channel_id: state.channel,
            // Sequence numbers wrap, as the format allows.
            sequence: state.message_count as u32,
            log_time,
            publish_time: log_time,
        };
        state.message_count += 1;
        self.message_count += 1;
        let (start, end) = self.bounds.unwrap_or((log_time, log_time));
        self.bounds = Some((start.min(log_time), end.max(log_time)));
        self.writer.write_to_known_channel(&header, data).map_err(|e| self.mcap_error(e))
    }

    /// Completes the file and writes `metadata.yaml`.
    ///
    /// # Errors
    /// When either cannot be written.
    pub fn finish(mut self) -> Result<RecordingSummary, RecordError> {
        self.writer.finish().map_err(|e| self.mcap_error(e))?;
        let (start, end) = self.bounds.unwrap_or((0, 0));
        let path = self.folder.join("metadata.yaml");
        let yaml = |source| RecordError::Yaml { path: path.clone(), source };
        let topics = self.topics.into_iter().map(|state| {
            Ok(WrittenTopic {
                message_count: state.message_count,
                topic_metadata: WrittenTopicMetadata {
                    offered_qos_profiles: qos::to_yaml(&state.topic.qos)?,
                    name: state.topic.name,
                    type_name: state.topic.type_name,
                    serialization_format: "cdr",
                },
            })
        });
        let topics_with_message_count = topics.collect::<Result<Vec<_>, _>>().map_err(yaml)?;
        let duration = Nanoseconds { nanoseconds: end - start };
        let starting_time = NanosecondsSinceEpoch { nanoseconds_since_epoch: start };
        let metadata = WrittenMetadata {
            rosbag2_bagfile_information: WrittenInformation {
                version: 5,
                storage_identifier: "mcap",
                duration,
                starting_time,
                message_count: self.message_count,
                topics_with_message_count,
                compression_format: "",
                compression_mode: "",
                relative_file_paths: vec![self.file_name.clone()],
                files: vec![WrittenFile {
                    path: self.file_name,
                    starting_time,
                    duration,
                    message_count: self.message_count,
                }],
            },
        };
        let text = serde_yaml_ng::to_string(&metadata).map_err(yaml)?;
        fs::write(&path, text).map_err(|source| RecordError::Io { path: path.clone(), source })?;
        Ok(RecordingSummary { message_count: self.message_count, start, end })
    }
}
