//! One MCAP file of a bag: its channels, and the byte ranges ("segments") its messages lie in.
//!
//! An intact file is opened by its summary alone. A file whose summary is missing (a recorder that was killed, a cut
//! copy) or has no chunk index is walked once from the front, and everything up to the damage is served.
//! The format is that of the MCAP specification, version 0 (<https://mcap.dev/spec>).

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use mcap::{
    McapError, McapResult, Summary,
    records::{Record, op},
    sans_io::{
        LinearReadEvent, LinearReader, LinearReaderOptions, SummaryReadEvent, SummaryReader, SummaryReaderOptions,
    },
};

/// Longest record that is read. A damaged length field must not become an allocation of that size.
const RECORD_LIMIT: usize = 512 * 1024 * 1024;
/// Messages outside chunks are read in runs of about this many bytes.
const RUN_BYTES: u64 = 4 * 1024 * 1024;
/// Log times of one segment that lie further apart than a day (in nanoseconds) do not belong together.
const TOGETHER: u64 = 24 * 60 * 60 * 1_000_000_000;
/// Most groups of log times that a segment is divided into.
const MAX_GROUPS: usize = 16;

/// What a channel record says, with the schema it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Channel {
    pub topic: String,
    pub message_encoding: String,
    pub schema_name: String,
    pub schema_encoding: String,
    pub definition: Arc<str>,
    pub metadata: BTreeMap<String, String>,
    pub message_count: u64,
}

/// A byte range that holds whole records: one chunk, or a run of records outside chunks.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub offset: u64,
    pub length: u64,
    /// Lowest and highest log time in it, nanoseconds.
    pub start: u64,
    pub end: u64,
    /// Channels with messages in it; empty where unknown.
    pub channels: Vec<u16>,
    /// Cut off by the end of the file: checksums cannot hold, what decodes is served.
    pub cut: bool,
    /// Stands for those messages of the byte range only whose log times lie between `start` and `end`.
    pub part: bool,
}

impl Segment {
    /// Whether a message of the byte range belongs to the segment.
    pub(super) fn holds(&self, log_time: u64) -> bool {
        !self.part || (self.start..=self.end).contains(&log_time)
    }

    /// The segment, or, where its log times do not belong together, one for each group of them: a single message logged
    /// at 0 would otherwise make the whole chunk come before everything else.
    fn split(self, file: &mut File) -> Vec<Self> {
        if self.end.saturating_sub(self.start) <= TOGETHER {
            return vec![self];
        }
        let mut times = Vec::new();
        let result = read_segment(file, &self, &mut |record| {
            if let Record::Message { header, .. } = record {
                times.push(header.log_time);
            }
        });
        // Damage is reported when it is read for its messages.
        if times.is_empty() || (result.is_err() && !self.cut) {
            return vec![self];
        }
        times.sort_unstable();
        let part =
            |group: &[u64]| Some(Self { start: *group.first()?, end: *group.last()?, part: true, ..self.clone() });
        let mut groups: Vec<Self> =
            times.chunk_by(|earlier, later| later - earlier <= TOGETHER).filter_map(part).collect();
        // Each is a reading of the chunk: where nothing belongs together, the rest stays in one.
        let rest = groups.split_off(groups.len().min(MAX_GROUPS - 1));
        if let (Some(first), Some(last)) = (rest.first(), rest.last()) {
            groups.push(Self { end: last.end, ..first.clone() });
        }
        groups
    }
}

/// One file, opened.
#[derive(Debug)]
pub(super) struct BagFile {
    pub path: PathBuf,
    pub channels: BTreeMap<u16, Channel>,
    pub segments: Vec<Segment>,
    /// What was wrong with it, where something could still be read.
    pub problem: Option<McapError>,
    /// Number of byte ranges with log times that do not belong together.
    pub scattered: usize,
}

/// One message as found in a segment.
pub(super) struct RawMessage {
    pub channel: u16,
    pub log_time: u64,
    pub data: Vec<u8>,
}

impl BagFile {
    pub(super) fn open(path: &Path) -> McapResult<Self> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut magic = [0; mcap::MAGIC.len()];
        file.read_exact(&mut magic).map_err(|_| McapError::BadMagic)?;
        if magic != mcap::MAGIC {
            return Err(McapError::BadMagic);
        }
        let mut found = match read_summary(&mut file, size) {
            Ok(Some(summary)) if is_complete(&summary) => Self::from_summary(path, &summary, size),
            // The summary is an index; without a usable one the file itself says what it holds.
            Ok(_) | Err(_) => Scan::run(path, &mut file, size)?,
        };
        for segment in std::mem::take(&mut found.segments) {
            let parts = segment.split(&mut file);
            found.scattered += usize::from(parts.len() > 1);
            found.segments.extend(parts);
        }
        Ok(found)
    }

    fn from_summary(path: &Path, summary: &Summary, size: u64) -> Self {
        let counts = summary.stats.as_ref().map(|stats| &stats.channel_message_counts);
        let channels = summary.channels.iter().map(|(&id, channel)| {
            let schema = channel.schema.as_deref();
            let channel = Channel {
                topic: channel.topic.clone(),
                message_encoding: channel.message_encoding.clone(),
                schema_name: schema.map_or_else(String::new, |s| s.name.clone()),
                schema_encoding: schema.map_or_else(String::new, |s| s.encoding.clone()),
                definition: schema.map_or("".into(), |s| String::from_utf8_lossy(&s.data).into()),
                metadata: channel.metadata.clone(),
                message_count: counts.and_then(|c| c.get(&id)).copied().unwrap_or(0),
            };
            (id, channel)
        });
        let segments = summary.chunk_indexes.iter().map(|chunk| Segment {
            offset: chunk.chunk_start_offset,
            length: chunk.chunk_length,
            start: chunk.message_start_time,
            end: chunk.message_end_time,
            channels: chunk.message_index_offsets.keys().copied().collect(),
            cut: chunk.chunk_start_offset.saturating_add(chunk.chunk_length) > size,
            part: false,
        });
        Self {
            path: path.to_owned(),
            channels: channels.collect(),
            segments: segments.collect(),
            problem: None,
            scattered: 0,
        }
    }
}

/// Whether the summary tells everything a reader by index needs.
fn is_complete(summary: &Summary) -> bool {
    summary.stats.as_ref().is_some_and(|stats| {
        stats.chunk_count as usize == summary.chunk_indexes.len()
            && (stats.chunk_count > 0 || stats.message_count == 0)
            && stats.channel_message_counts.keys().all(|id| summary.channels.contains_key(id))
    })
}

fn read_summary(file: &mut File, size: u64) -> McapResult<Option<Summary>> {
    let options = SummaryReaderOptions::default().with_file_size(size).with_record_length_limit(RECORD_LIMIT);
    let mut reader = SummaryReader::new_with_options(options);
    while let Some(event) = reader.next_event() {
        match event? {
            SummaryReadEvent::ReadRequest(need) => {
                let read = file.read(reader.insert(need))?;
                reader.notify_read(read);
            }
            SummaryReadEvent::SeekRequest(to) => reader.notify_seeked(file.seek(to)?),
        }
    }
    Ok(reader.finish())
}

/// Hands every record of the segment to `sink`, in file order. A whole chunk is checked against its checksum before
/// any of its records is handed out; of a cut one everything that still decodes is handed out before the error.
pub(super) fn read_segment(file: &mut File, segment: &Segment, sink: &mut dyn FnMut(Record<'_>)) -> McapResult<()> {
    file.seek(SeekFrom::Start(segment.offset))?;
    let mut source = file.take(segment.length);
    let options = LinearReaderOptions::default()
        .with_skip_start_magic(true)
        .with_skip_end_magic(true)
        .with_prevalidate_chunk_crcs(!segment.cut)
        .with_record_length_limit(RECORD_LIMIT);
    let mut reader = LinearReader::new_with_options(options);
    while let Some(event) = reader.next_event() {
        match event? {
            LinearReadEvent::ReadRequest(need) => {
                // No more than is there: `insert` allocates what it is asked for.
                let need = need.min(usize::try_from(source.limit()).unwrap_or(usize::MAX)).max(1);
                let read = source.read(reader.insert(need))?;
                reader.notify_read(read);
            }
            LinearReadEvent::Record { opcode, data } => {
                if matches!(opcode, op::SCHEMA | op::CHANNEL | op::MESSAGE) {
                    sink(mcap::parse_record(opcode, data)?);
                }
            }
        }
    }
    Ok(())
}

/// The messages of a segment, in file order, and the error that ended the reading early.
pub(super) fn read_messages(file: &mut File, segment: &Segment) -> (Vec<RawMessage>, Option<McapError>) {
    let mut messages = Vec::new();
    let result = read_segment(file, segment, &mut |record| {
        if let Record::Message { header, data } = record {
            messages.push(RawMessage {
                channel: header.channel_id,
                log_time: header.log_time,
                data: data.into_owned(),
            });
        }
    });
    (messages, result.err())
}

/// The walk through a file without a usable summary.
struct Scan<'a> {
    file: &'a mut File,
    schemas: BTreeMap<u16, (String, String, Arc<str>)>,
    channels: BTreeMap<u16, Channel>,
    segments: Vec<Segment>,
    problem: Option<McapError>,
}

impl<'a> Scan<'a> {
    fn run(path: &Path, file: &'a mut File, size: u64) -> McapResult<BagFile> {
        let mut scan =
            Self { file, schemas: BTreeMap::new(), channels: BTreeMap::new(), segments: Vec::new(), problem: None };
        scan.walk(size)?;
        let Self { channels, segments, problem, .. } = scan;
        Ok(BagFile { path: path.to_owned(), channels, segments, problem, scattered: 0 })
    }

    fn walk(&mut self, size: u64) -> McapResult<()> {
        let mut position = mcap::MAGIC.len() as u64;
        // Start of the run of records outside chunks that is being gathered.
        let mut run: Option<u64> = None;
        loop {
            let mut header = [0; 9];
            self.file.seek(SeekFrom::Start(position))?;
            if size.saturating_sub(position) < header.len() as u64 {
                self.problem.get_or_insert(McapError::UnexpectedEof);
                break;
            }
            self.file.read_exact(&mut header)?;
            let [opcode, length @ ..] = header;
            let end = position.saturating_add(9).saturating_add(u64::from_le_bytes(length));
            let cut = end > size;
            match opcode {
                op::CHUNK => {
                    self.close_run(&mut run, position, false);
                    self.add_segment(position, end.min(size), cut);
                }
                op::SCHEMA | op::CHANNEL | op::MESSAGE => {
                    let start = *run.get_or_insert(position);
                    if cut || end - start >= RUN_BYTES {
                        self.close_run(&mut run, end.min(size), cut);
                    }
                }
                op::DATA_END | op::FOOTER => break,
                // Opcode 0 is not a record: the rest of the file is padding or rubbish.
                0 => {
                    self.problem.get_or_insert(McapError::UnexpectedEof);
                    break;
                }
                _ => {}
            }
            if cut {
                self.problem.get_or_insert(McapError::UnexpectedEof);
                break;
            }
            position = end;
        }
        let end = position.min(size);
        self.close_run(&mut run, end, false);
        Ok(())
    }

    fn close_run(&mut self, run: &mut Option<u64>, end: u64, cut: bool) {
        if let Some(start) = run.take() {
            self.add_segment(start, end, cut);
        }
    }

    /// Reads a segment for its channels, counts and time span, and keeps it when it holds a message.
    fn add_segment(&mut self, offset: u64, end: u64, cut: bool) {
        let segment = Segment {
            offset,
            length: end.saturating_sub(offset),
            start: u64::MAX,
            end: 0,
            channels: Vec::new(),
            cut,
            part: false,
        };
        let mut found = segment.clone();
        let (schemas, channels) = (&mut self.schemas, &mut self.channels);
        let result = read_segment(self.file, &segment, &mut |record| match record {
            Record::Schema { header, data } => {
                let text = String::from_utf8_lossy(&data).into();
                schemas.insert(header.id, (header.name, header.encoding, text));
            }
            Record::Channel(channel) => {
                let (schema_name, schema_encoding, definition) =
                    schemas.get(&channel.schema_id).cloned().unwrap_or_default();
                channels.entry(channel.id).or_insert(Channel {
                    topic: channel.topic,
                    message_encoding: channel.message_encoding,
                    schema_name,
                    schema_encoding,
                    definition,
                    metadata: channel.metadata,
                    message_count: 0,
                });
            }
            Record::Message { header, .. } => {
                found.start = found.start.min(header.log_time);
                found.end = found.end.max(header.log_time);
                if !found.channels.contains(&header.channel_id) {
                    found.channels.push(header.channel_id);
                }
                if let Some(channel) = channels.get_mut(&header.channel_id) {
                    channel.message_count += 1;
                }
            }
            _ => {}
        });
        if let Err(error) = result {
            self.problem.get_or_insert(error);
        }
        if found.start <= found.end {
            self.segments.push(found);
        }
    }
}
