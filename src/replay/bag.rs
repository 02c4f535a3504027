//! Reading rosbag2 bags with MCAP storage, message by message in the order of their log times.
//!
//! Memory is bounded by the chunks that overlap in time (usually one), never by the size of the bag. Damage is
//! reported where it is met, and reading goes on behind it.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_yaml_ng::Value;
use thiserror::Error;

use super::{
    bag_file::{self, BagFile, Channel, Segment},
    metadata::BagMetadata,
    qos::{self, OfferedQos},
};

/// Why a bag, or a part of it, cannot be read.
#[derive(Debug, Error)]
pub enum BagError {
    /// There is nothing at the path.
    #[error("{0}: no such bag (expected a folder with metadata.yaml, or an .mcap file)")]
    NotFound(PathBuf),
    /// A folder without metadata.yaml and without .mcap files.
    #[error("{0}: not a bag: the folder holds neither metadata.yaml nor an .mcap file")]
    NoBag(PathBuf),
    /// Another storage plugin wrote the bag.
    #[error("{path}: expected storage `mcap`, found `{found}`; convert the bag with `ros2 bag convert`")]
    Storage {
        /// The metadata file.
        path: PathBuf,
        /// `storage_identifier` as found.
        found: String,
    },
    /// Compressed by rosbag2 itself instead of by MCAP.
    #[error(
        "{path}: rosbag2's own compression mode `{found}` is not supported (MCAP's chunk compression is); \
         convert the bag with `ros2 bag convert`"
    )]
    CompressionMode {
        /// The metadata file.
        path: PathBuf,
        /// `compression_mode` as found.
        found: String,
    },
    /// metadata.yaml cannot be understood.
    #[error("{path}: {reason}")]
    Metadata {
        /// The metadata file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// A file cannot be opened.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not, or not wholly, MCAP.
    #[error("{path}: {reason}")]
    Mcap {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A part of a file is damaged; the rest is served.
    #[error("{path}: damaged at byte {offset}: {reason}; the messages in it are lost")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Start of the damaged chunk.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Messages that were recorded together have log times more than a day apart.
    #[error("{path}: {chunks} of its chunks hold log times more than a day apart; some of them must be wrong")]
    Scattered {
        /// The file.
        path: PathBuf,
        /// Number of chunks (or runs of messages outside chunks).
        chunks: usize,
    },
    /// A topic was asked for that the bag does not have.
    #[error("the bag has no topic `{topic}`; it has: {available}")]
    UnknownTopic {
        /// The name asked for.
        topic: String,
        /// The names there are.
        available: String,
    },
}

impl BagError {
    fn mcap(path: &Path, error: &mcap::McapError) -> Self {
        Self::Mcap { path: path.to_owned(), reason: describe(error) }
    }
}

/// An MCAP error with the consequence for the reader, where the error alone does not say it.
fn describe(error: &mcap::McapError) -> String {
    match error {
        mcap::McapError::BadMagic => "not an MCAP file (the magic bytes are missing)".to_owned(),
        mcap::McapError::UnexpectedEof | mcap::McapError::UnexpectedEoc => {
            format!("the file is cut off ({error})")
        }
        mcap::McapError::Io(source) => source.to_string(),
        other => other.to_string(),
    }
}

/// One topic of a bag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BagTopic {
    /// Topic name, with its leading slash.
    pub name: String,
    /// Type, as in `sensor_msgs/msg/Image`.
    pub type_name: String,
    /// Encoding of the messages; `cdr` for ROS 2.
    pub message_encoding: String,
    /// Encoding of the definition: `ros2msg`, `ros2idl`, or empty where the bag has none.
    pub schema_encoding: String,
    /// The type's definition with the definitions it depends on, as the bag carries it.
    pub definition: Arc<str>,
    /// QoS the original publishers offered; empty where the bag does not say.
    pub qos: Vec<OfferedQos>,
    /// Number of messages that were found (or that the file's index promises).
    pub message_count: u64,
}

/// A bag, opened: what is in it is known, no message has been read.
#[derive(Debug)]
pub struct Bag {
    files: Vec<OpenFile>,
    topics: Vec<BagTopic>,
    problems: Vec<BagError>,
    start: u64,
    end: u64,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    segments: Vec<Segment>,
    /// Topic index by channel id.
    topics: HashMap<u16, usize>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BagMessage {
    /// Index into [`Bag::topics`].
    pub topic: usize,
    /// When it was recorded, nanoseconds since the epoch.
    pub log_time: u64,
    /// The serialised message, with its encapsulation header.
    pub data: Vec<u8>,
}

/// Which messages to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageQuery {
    /// Topic names; all topics when empty.
    pub topics: Vec<String>,
    /// Lowest log time, nanoseconds since the epoch.
    pub from: u64,
}

impl Bag {
    /// Opens a bag folder or a single `.mcap` file. Where `metadata.yaml` is missing or cannot be used, the folder's
    /// `.mcap` files are the bag.
    ///
    /// # Errors
    /// When nothing of it can be read. Damage that leaves something readable is in [`Bag::problems`].
    pub fn open(path: &Path) -> Result<Self, BagError> {
        let Located { files, mut metadata, problem } = locate(path)?;
        let problems = problem.into_iter().collect();
        let mut bag = Self { files: Vec::new(), topics: Vec::new(), problems, start: u64::MAX, end: 0 };
        for path in files {
            match BagFile::open(&path) {
                Ok(file) => bag.add(file, &metadata),
                Err(error) => bag.problems.push(BagError::mcap(&path, &error)),
            }
        }
        if bag.files.is_empty() && !bag.problems.is_empty() {
            return Err(bag.problems.swap_remove(0));
        }
        bag.problems.append(&mut metadata.problems);
        if bag.start > bag.end {
            (bag.start, bag.end) = (0, 0);
        }
        Ok(bag)
    }

    fn add(&mut self, file: BagFile, metadata: &BagMetadata) {
        if let Some(problem) = &file.problem {
            self.problems.push(BagError::mcap(&file.path, problem));
        }
        if file.scattered > 0 {
            self.problems.push(BagError::Scattered { path: file.path.clone(), chunks: file.scattered });
        }
        let topics = file.channels.into_iter().map(|(id, channel)| (id, self.topic_index(channel, metadata))).collect();
        for segment in &file.segments {
            self.start = self.start.min(segment.start);
            self.end = self.end.max(segment.end);
        }
        self.files.push(OpenFile { path: file.path, segments: file.segments, topics });
    }

    /// Index of the topic the channel belongs to; a topic seen with two types counts as two.
    fn topic_index(&mut self, channel: Channel, metadata: &BagMetadata) -> usize {
        let known = self.topics.iter().position(|t| t.name == channel.topic && t.type_name == channel.schema_name);
        let index = known.unwrap_or_else(|| {
            let from_channel = || {
                let text = channel.metadata.get("offered_qos_profiles")?;
                qos::from_yaml(Value::String(text.clone())).ok()
            };
            let qos = match metadata.qos.get(&channel.topic) {
                Some(profiles) if !profiles.is_empty() => profiles.clone(),
                _ => from_channel().unwrap_or_default(),
            };
            self.topics.push(BagTopic {
                name: channel.topic,
                type_name: channel.schema_name,
                message_encoding: channel.message_encoding,
                schema_encoding: channel.schema_encoding,
                definition: channel.definition,
                qos,
                message_count: 0,
            });
            self.topics.len() - 1
        });
        if let Some(topic) = self.topics.get_mut(index) {
            topic.message_count += channel.message_count;
        }
        index
    }

    /// The topics, in the order they were met.
    #[must_use]
    pub fn topics(&self) -> &[BagTopic] {
        &self.topics
    }

    /// What is wrong with the bag although it could be opened.
    #[must_use]
    pub fn problems(&self) -> &[BagError] {
        &self.problems
    }

    /// Lowest log time, nanoseconds since the epoch; 0 for an empty bag.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Highest log time, nanoseconds since the epoch; 0 for an empty bag.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Number of messages on all topics.
    #[must_use]
    pub fn message_count(&self) -> u64 {
        self.topics.iter().map(|topic| topic.message_count).sum()
    }

    /// The messages `query` asks for, ordered by log time (then by file and place in it).
    ///
    /// # Errors
    /// [`BagError::UnknownTopic`].
    pub fn messages(&self, query: &MessageQuery) -> Result<BagMessages<'_>, BagError> {
        for topic in &query.topics {
            if !self.topics.iter().any(|t| t.name == *topic) {
                let available: Vec<_> = self.topics.iter().map(|t| t.name.as_str()).collect();
                return Err(BagError::UnknownTopic { topic: topic.clone(), available: available.join(", ") });
            }
        }
        let wanted: Vec<bool> =
            self.topics.iter().map(|t| query.topics.is_empty() || query.topics.contains(&t.name)).collect();
        let is_wanted = |file: &OpenFile, segment: &Segment| {
            segment.end >= query.from
                && (segment.channels.is_empty()
                    || segment
                        .channels
                        .iter()
                        .any(|id| file.topics.get(id).and_then(|&topic| wanted.get(topic)).copied().unwrap_or(false)))
        };
        let mut segments: Vec<(usize, &Segment)> = Vec::new();
        for (index, file) in self.files.iter().enumerate() {
            segments.extend(file.segments.iter().filter(|s| is_wanted(file, s)).map(|s| (index, s)));
        }
        segments.sort_by_key(|&(file, segment)| (segment.start, file, segment.offset));
        segments.reverse();
        Ok(BagMessages {
            bag: self,
            wanted,
            from: query.from,
            segments,
            open: None,
            pending: BinaryHeap::new(),
            read: 0,
        })
    }
}

/// Where a bag is.
#[derive(Default)]
struct Located {
    files: Vec<PathBuf>,
    metadata: BagMetadata,
    /// Why the metadata did not say which files there are.
    problem: Option<BagError>,
}

/// The files of the bag at `path`, and what its metadata says.
fn locate(path: &Path) -> Result<Located, BagError> {
    if !path.exists() {
        return Err(BagError::NotFound(path.to_owned()));
    }
    if !path.is_dir() {
        return Ok(Located { files: vec![path.to_owned()], ..Located::default() });
    }
    let index = path.join("metadata.yaml");
    let mut located = Located::default();
    if index.exists() {
        match BagMetadata::read(&index) {
            Ok(metadata) => {
                let files: Vec<PathBuf> = metadata.files.iter().map(|file| path.join(file)).collect();
                if files.iter().any(|file| file.exists()) {
                    return Ok(Located { files, metadata, problem: None });
                }
                let reason = match metadata.files.as_slice() {
                    [] => "relative_file_paths is empty".to_owned(),
                    named => format!("none of its relative_file_paths is there: {}", named.join(", ")),
                };
                located.metadata = metadata;
                located.problem = Some(BagError::Metadata { path: index, reason });
            }
            // Nothing here can read what these name.
            Err(error @ (BagError::Storage { .. } | BagError::CompressionMode { .. })) => return Err(error),
            Err(error) => located.problem = Some(error),
        }
    }
    // A recorder that was killed leaves files without metadata, or with a part of it.
    let entries = std::fs::read_dir(path).map_err(|source| BagError::Io { path: path.to_owned(), source })?;
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "mcap")).collect();
    files.sort();
    if files.is_empty() {
        return Err(located.problem.unwrap_or_else(|| BagError::NoBag(path.to_owned())));
    }
    Ok(Located { files, ..located })
}

/// A message waiting for its turn.
struct Pending {
    message: BagMessage,
    /// Order of reading, so that equal times keep the order of the file.
    order: u64,
}

impl Pending {
    const fn key(&self) -> (u64, u64) {
        (self.message.log_time, self.order)
    }
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Pending {}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pending {
    /// Reversed: the standard heap gives the greatest first, here the earliest is wanted.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// Messages of a bag in log-time order. An `Err` item reports damage; messages behind it follow.
pub struct BagMessages<'a> {
    bag: &'a Bag,
    wanted: Vec<bool>,
    from: u64,
    /// Not yet read, the next one last.
    segments: Vec<(usize, &'a Segment)>,
    open: Option<(usize, File)>,
    pending: BinaryHeap<Pending>,
    read: u64,
}

impl BagMessages<'_> {
    /// Reads the next segment into `pending`.
    fn load(&mut self, index: usize, segment: &Segment) -> Result<(), BagError> {
        let Some(file) = self.bag.files.get(index) else { return Ok(()) };
        let mut open = match self.open.take() {
            Some((open_index, open)) if open_index == index => open,
            _ => File::open(&file.path).map_err(|source| BagError::Io { path: file.path.clone(), source })?,
        };
        let (messages, error) = bag_file::read_messages(&mut open, segment);
        self.open = Some((index, open));
        for message in messages {
            let Some(&topic) = file.topics.get(&message.channel) else { continue };
            let wanted = self.wanted.get(topic).copied().unwrap_or(false) && message.log_time >= self.from;
            if wanted && segment.holds(message.log_time) {
                let message = BagMessage { topic, log_time: message.log_time, data: message.data };
                self.pending.push(Pending { message, order: self.read });
                self.read += 1;
            }
        }
        match error {
            // A file that was cut was reported when the bag was opened.
            Some(error) if !segment.cut => {
                Err(BagError::Damaged { path: file.path.clone(), offset: segment.offset, reason: describe(&error) })
            }
            _ => Ok(()),
        }
    }
}

impl Iterator for BagMessages<'_> {
    type Item = Result<BagMessage, BagError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(&(file, segment)) = self.segments.last() {
            if self.pending.peek().is_some_and(|first| first.message.log_time < segment.start) {
                break;
            }
            self.segments.pop();
            if let Err(error) = self.load(file, segment) {
                return Some(Err(error));
            }
        }
        self.pending.pop().map(|pending| Ok(pending.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{RecordedTopic, Recorder};

    const BEGIN: u64 = 1_700_000_000_000_000_000;

    /// 120 messages that do not compress, about six to a chunk and 10 ms apart; every fifth was logged at 0.
    fn write_bag(folder: &Path) {
        let mut recorder = Recorder::create(folder).unwrap();
        let topic = RecordedTopic {
            name: "/a".to_owned(),
            type_name: "std_msgs/msg/UInt8MultiArray".to_owned(),
            definition: "uint8[] data\n".to_owned(),
            qos: Vec::new(),
        };
        let topic = recorder.add_topic(topic).unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        for i in 0..120 {
            let data: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(200_000).collect();
            let time = if i % 5 == 4 { 0 } else { BEGIN + i * 10_000_000 };
            recorder.write(topic, time, &data).unwrap();
        }
        recorder.finish().unwrap();
    }

    #[test]
    fn a_wrong_log_time_in_every_chunk_does_not_bring_the_whole_bag_into_memory() {
        let folder = std::env::temp_dir().join(format!("scenelex-scattered-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        write_bag(&folder);
        let bag = Bag::open(&folder).unwrap();
        let [BagError::Scattered { chunks, .. }] = bag.problems() else { panic!("{:?}", bag.problems()) };
        assert!(*chunks > 10, "{chunks} chunks");
        assert_eq!((bag.start(), bag.message_count()), (0, 120));

        let mut messages = bag.messages(&MessageQuery::default()).unwrap();
        let (mut times, mut most) = (Vec::new(), 0);
        while let Some(message) = messages.next() {
            times.push(message.unwrap().log_time);
            most = most.max(messages.pending.len());
        }
        // The 24 of log time 0, then a chunk or two at a time.
        assert!(most < 40, "{most} messages were held");
        let expected: Vec<u64> = (0..120).filter(|i| i % 5 != 4).map(|i| BEGIN + i * 10_000_000).collect();
        assert_eq!((times[..24].iter().sum::<u64>(), &times[24..]), (0, &expected[..]));

        // Nothing is read of the wrong times where they are not asked for.
        let query = MessageQuery { from: BEGIN, ..MessageQuery::default() };
        let times: Vec<u64> = bag.messages(&query).unwrap().map(|message| message.unwrap().log_time).collect();
        assert_eq!(times, expected);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
