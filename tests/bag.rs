//! Bags: what other writers wrote is read, what is written reads back, and damage is reported and survived.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "helpers of tests")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use scenelex::replay::{
    Bag, BagError, BagMessage, Durability, MessageQuery, OfferedQos, RecordError, RecordedTopic, Recorder, Reliability,
};
use sha2::{Digest, Sha256};

/// A fresh folder of the test's own; removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bag-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bag").join(name)
}

/// First 16 hexadecimal digits of the SHA-256.
fn digest(data: &[u8]) -> String {
    Sha256::digest(data).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

type Row = (String, String, u64, String);

fn rows(bag: &Bag) -> Vec<Row> {
    let topics = bag.topics();
    bag.messages(&MessageQuery::default())
        .unwrap()
        .map(|message| {
            let message = message.unwrap();
            let topic = &topics[message.topic];
            (topic.name.clone(), topic.type_name.clone(), message.log_time, digest(&message.data))
        })
        .collect()
}

fn expected() -> BTreeMap<String, Vec<Row>> {
    serde_json::from_str(include_str!("golden/bag/expected.json")).unwrap()
}

#[test]
fn bags_of_other_writers_are_read_in_log_time_order() {
    for (name, rows_expected) in expected() {
        let bag = Bag::open(&golden(&name)).unwrap();
        assert!(bag.problems().is_empty(), "{name}: {:?}", bag.problems());
        assert_eq!(rows(&bag), rows_expected, "{name}");
        assert_eq!(bag.message_count(), rows_expected.len() as u64, "{name}");
        assert_eq!(bag.start(), rows_expected[0].2, "{name}");
        assert_eq!(bag.end(), rows_expected.last().unwrap().2, "{name}");
    }
}

#[test]
fn offered_qos_comes_from_the_metadata_or_the_channel() {
    for path in [golden("latched"), golden("latched/latched.mcap")] {
        let bag = Bag::open(&path).unwrap();
        let names = bag.topics().iter().find(|t| t.name == "/names").unwrap();
        assert_eq!(names.qos.len(), 1, "{}", path.display());
        assert_eq!(names.qos[0].durability, Durability::TransientLocal);
        assert_eq!(names.qos[0].reliability, Reliability::Reliable);
        assert_eq!(names.qos[0].depth, 1);
        let colours = bag.topics().iter().find(|t| t.name == "/colours").unwrap();
        assert!(colours.qos.is_empty());
        assert!(colours.definition.contains("float32 r"), "{}", colours.definition);
    }
}

#[test]
fn topics_and_start_select_messages() {
    let bag = Bag::open(&golden("latched")).unwrap();
    let query = MessageQuery { topics: vec!["/colours".into()], from: bag.start() + 500_000_000 };
    let messages: Vec<BagMessage> = bag.messages(&query).unwrap().map(Result::unwrap).collect();
    assert_eq!(messages.len(), 10);
    assert!(messages.iter().all(|m| bag.topics()[m.topic].name == "/colours" && m.log_time >= query.from));
    let missing = MessageQuery { topics: vec!["/colour".into()], from: 0 };
    let Err(BagError::UnknownTopic { topic, available }) = bag.messages(&missing) else { panic!("accepted") };
    assert_eq!(topic, "/colour");
    assert!(available.contains("/colours"), "{available}");
}

/// Writes messages whose payloads do not compress, so that there are several chunks.
fn write_bag(folder: &Path, count: u32) -> Vec<(u64, Vec<u8>)> {
    let mut recorder = Recorder::create(folder).unwrap();
    let latched = OfferedQos { durability: Durability::TransientLocal, depth: 1, ..OfferedQos::default() };
    let mut topic = |name: &str, qos| {
        let topic = RecordedTopic {
            name: name.into(),
            type_name: "std_msgs/msg/UInt8MultiArray".into(),
            definition: "uint8[] data\n".into(),
            qos,
        };
        recorder.add_topic(topic).unwrap()
    };
    let topics = [topic("/a", vec![latched]), topic("/b", vec![])];
    let mut state = 1_u32;
    let mut messages = Vec::new();
    for i in 0..count {
        let mut data = vec![0, 1, 0, 0];
        data.extend(
            std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .take(100_000),
        );
        let time = 1_000_000_000 + u64::from(i) * 10_000_000;
        recorder.write(topics[i as usize % 2], time, &data).unwrap();
        messages.push((time, data));
    }
    let summary = recorder.finish().unwrap();
    assert_eq!(summary.message_count, u64::from(count));
    messages
}

fn read_all(bag: &Bag) -> (Vec<(u64, Vec<u8>)>, Vec<BagError>) {
    let (mut messages, mut errors) = (Vec::new(), Vec::new());
    for item in bag.messages(&MessageQuery::default()).unwrap() {
        match item {
            Ok(message) => messages.push((message.log_time, message.data)),
            Err(error) => errors.push(error),
        }
    }
    (messages, errors)
}

#[test]
fn what_is_recorded_reads_back() {
    let scratch = Scratch::new("round-trip");
    let folder = scratch.0.join("trip");
    let written = write_bag(&folder, 50);
    let bag = Bag::open(&folder).unwrap();
    assert!(bag.problems().is_empty(), "{:?}", bag.problems());
    let (messages, errors) = read_all(&bag);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(messages, written);
    let a = bag.topics().iter().find(|t| t.name == "/a").unwrap();
    assert_eq!((a.message_count, a.type_name.as_str()), (25, "std_msgs/msg/UInt8MultiArray"));
    assert_eq!((&*a.definition, a.schema_encoding.as_str()), ("uint8[] data\n", "ros2msg"));
    assert_eq!(a.qos[0].durability, Durability::TransientLocal);
    // A second bag never overwrites the first.
    assert!(matches!(Recorder::create(&folder), Err(RecordError::Exists(_))));
}

#[test]
fn a_cut_bag_serves_what_is_left() {
    let scratch = Scratch::new("cut");
    let folder = scratch.0.join("cut");
    let written = write_bag(&folder, 50);
    let file = folder.join("cut_0.mcap");
    let whole = fs::read(&file).unwrap();
    let mut last = usize::MAX;
    for share in [99, 70, 30, 1] {
        fs::write(&file, &whole[..whole.len() * share / 100]).unwrap();
        let bag = Bag::open(&folder).unwrap();
        let [problem] = bag.problems() else { panic!("{share} %: {:?}", bag.problems()) };
        assert!(problem.to_string().contains("cut off"), "{share} %: {problem}");
        let (messages, errors) = read_all(&bag);
        assert!(errors.is_empty(), "{share} %: {errors:?}");
        assert_eq!(messages[..], written[..messages.len()], "{share} %");
        assert_eq!(messages.len() as u64, bag.message_count(), "{share} %");
        // All but the message that was cut, and what zstd had not given out before the cut.
        let at_least = (50 * share / 100).saturating_sub(3);
        assert!(messages.len() >= at_least && messages.len() < last, "{share} %: {} messages", messages.len());
        last = messages.len();
    }
}

#[test]
fn a_damaged_chunk_is_reported_and_skipped() {
    let scratch = Scratch::new("damaged");
    let folder = scratch.0.join("damaged");
    let written = write_bag(&folder, 50);
    let file = folder.join("damaged_0.mcap");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 64] {
        *byte ^= 0xff;
    }
    fs::write(&file, &bytes).unwrap();
    let bag = Bag::open(&folder).unwrap();
    let (messages, errors) = read_all(&bag);
    let [error @ BagError::Damaged { offset, .. }] = &errors[..] else { panic!("{errors:?}") };
    assert!(*offset > 0 && *offset < middle as u64, "{error}");
    assert!(messages.len() >= 30 && messages.len() < 50, "{} messages", messages.len());
    assert!(messages.iter().all(|message| written.contains(message)));
    assert_eq!(messages.last(), written.last(), "reading goes on behind the damage");
}

#[test]
fn the_files_of_a_split_bag_are_merged() {
    let scratch = Scratch::new("split");
    write_bag(&scratch.0.join("one"), 6);
    write_bag(&scratch.0.join("two"), 4);
    let both = scratch.0.join("both");
    fs::create_dir(&both).unwrap();
    fs::copy(scratch.0.join("one/one_0.mcap"), both.join("both_0.mcap")).unwrap();
    fs::copy(scratch.0.join("two/two_0.mcap"), both.join("both_1.mcap")).unwrap();
    let bag = Bag::open(&both).unwrap();
    assert_eq!(bag.topics().len(), 2, "the same topics in both files");
    let (messages, _) = read_all(&bag);
    assert_eq!(messages.len(), 10);
    assert!(messages.is_sorted_by_key(|message| message.0));
    // One file lost: the other is served.
    fs::write(both.join("both_1.mcap"), b"nothing").unwrap();
    let bag = Bag::open(&both).unwrap();
    assert_eq!((bag.problems().len(), read_all(&bag).0.len()), (1, 6));
}

#[test]
fn what_is_no_bag_is_refused_with_the_reason() {
    let scratch = Scratch::new("refused");
    let refused = |path: &Path| Bag::open(path).unwrap_err().to_string();
    assert!(refused(&scratch.0.join("none")).contains("no such bag"));
    assert!(refused(&scratch.0).contains("neither metadata.yaml nor an .mcap file"));
    let file = scratch.0.join("text.mcap");
    fs::write(&file, "plain text, long enough to hold magic bytes").unwrap();
    assert!(refused(&file).contains("not an MCAP file"));
    fs::write(&file, "").unwrap();
    assert!(refused(&file).contains("not an MCAP file"));
    let metadata = scratch.0.join("metadata.yaml");
    fs::write(&metadata, "rosbag2_bagfile_information: {storage_identifier: sqlite3}").unwrap();
    assert!(refused(&scratch.0).contains("expected storage `mcap`, found `sqlite3`"));
    fs::write(&metadata, "rosbag2_bagfile_information: {compression_mode: FILE}").unwrap();
    assert!(refused(&scratch.0).contains("compression mode `FILE`"));
    fs::write(&metadata, "nothing: 1").unwrap();
    assert!(refused(&scratch.0).contains("rosbag2_bagfile_information"));
}

#[test]
fn files_are_read_beside_metadata_that_cannot_be_used() {
    let scratch = Scratch::new("unusable");
    let folder = scratch.0.join("unusable");
    let written = write_bag(&folder, 6);
    let metadata = folder.join("metadata.yaml");
    let whole = fs::read_to_string(&metadata).unwrap();
    let texts = [
        "",
        "nothing: 1",
        "rosbag2_bagfile_information: {storage_identifier: mcap, relative_file_paths: []}",
        "rosbag2_bagfile_information: {relative_file_paths: [renamed_0.mcap]}",
        &whole[..whole.find("name: /a").unwrap() + 7],
        &whole[..whole.find("unusable_0.mcap").unwrap() + 5],
    ];
    for text in texts {
        fs::write(&metadata, text).unwrap();
        let bag = Bag::open(&folder).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let problems: Vec<String> = bag.problems().iter().map(ToString::to_string).collect();
        assert!(!problems.is_empty() && problems.iter().all(|p| p.contains("metadata.yaml")), "{problems:?}\n{text}");
        assert_eq!(read_all(&bag).0, written, "{text}");
        let a = bag.topics().iter().find(|t| t.name == "/a").unwrap();
        assert_eq!(a.qos[0].durability, Durability::TransientLocal, "as the file itself says\n{text}");
    }
}

#[test]
fn one_odd_quality_of_service_is_that_topics_own() {
    let scratch = Scratch::new("odd");
    let folder = scratch.0.join("odd");
    let written = write_bag(&folder, 6);
    let text = "rosbag2_bagfile_information:
  storage_identifier: mcap
  relative_file_paths: [odd_0.mcap]
  topics_with_message_count:
    - topic_metadata: {name: /b, offered_qos_profiles: 7}
    - topic_metadata: {name: /a, offered_qos_profiles: [{reliability: best_effort}]}
";
    fs::write(folder.join("metadata.yaml"), text).unwrap();
    let bag = Bag::open(&folder).unwrap();
    let [problem] = bag.problems() else { panic!("{:?}", bag.problems()) };
    assert!(problem.to_string().contains("offered_qos_profiles of /b"), "{problem}");
    assert_eq!(read_all(&bag).0, written);
    let qos = |name: &str| OfferedQos::weakest(&bag.topics().iter().find(|t| t.name == name).unwrap().qos);
    assert_eq!(qos("/a").reliability, Reliability::BestEffort);
    assert_eq!(qos("/b"), OfferedQos::default());
}

#[test]
fn a_real_recording_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/bags/tum_rgbd_5frames");
    if !path.exists() {
        eprintln!("skipped: {} is not on this machine", path.display());
        return;
    }
    let bag = Bag::open(&path).unwrap();
    let counts: Vec<_> =
        bag.topics().iter().map(|t| (t.name.as_str(), t.type_name.as_str(), t.message_count)).collect();
    assert!(counts.contains(&("/camera/color/image_raw", "sensor_msgs/msg/Image", 5)), "{counts:?}");
    assert!(counts.contains(&("/camera/depth/image_raw", "sensor_msgs/msg/Image", 5)), "{counts:?}");
    assert_eq!(bag.end() - bag.start(), 400_000_000);
    let (messages, errors) = read_all(&bag);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(messages.len(), 10);
    assert!(messages.iter().all(|(_, data)| data.len() > 640 * 480), "whole images");
}
