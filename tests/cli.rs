//! The command line at the process boundary: arguments in; exit status, messages and files out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "helpers of tests")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use scenelex::replay::{Bag, Durability, MessageQuery, OfferedQos, RecordedTopic, Recorder, Reliability};
use support::Domain;

/// Ends a hanging test; nothing is measured with it.
const PATIENCE: Duration = Duration::from_secs(120);

struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{test}-{}", std::process::id()));
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

/// The program on this machine only, run from the repository.
fn scenelex() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scenelex"));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("ROS_LOCALHOST_ONLY", "1")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

/// The program on a ROS domain of the test's own.
fn scenelex_on(domain: &Domain) -> Command {
    let mut command = scenelex();
    command.env("ROS_DOMAIN_ID", domain.id.to_string());
    command
}

/// For what joins no ROS domain.
fn run(arguments: &[&str]) -> Output {
    scenelex().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Killed when the test fails, so that nothing is left behind.
struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr }
    }

    /// Reads stderr up to a line with `words`.
    fn wait_for(&mut self, words: &str) {
        let mut said = String::new();
        while !said.contains(words) {
            let read = self.stderr.read_line(&mut said).unwrap();
            assert!(read > 0, "ended without `{words}`:\n{said}");
        }
    }

    fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    /// Exit code and stderr.
    fn wait(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the program does not end");
            thread::sleep(Duration::from_millis(20));
        };
        let mut stderr = Vec::new();
        self.stderr.read_to_end(&mut stderr).unwrap();
        (status.code(), text(&stderr))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn help_names_every_command_and_option() {
    let help = text(&run(&["--help"]).stdout);
    for word in ["node", "segment", "play", "record", "demo", "--log-level", "ROS_DOMAIN_ID"] {
        assert!(help.contains(word), "{word} is missing in:\n{help}");
    }
    let options = [
        ("node", "--ros-args"),
        ("segment", "--classes"),
        ("play", "--rate"),
        ("record", "--out"),
        ("demo", "--then-classes"),
    ];
    for (command, option) in options {
        let output = run(&[command, "--help"]);
        assert!(output.status.success(), "{command}");
        assert!(text(&output.stdout).contains(option), "{option} is missing in the help of {command}");
    }
    assert!(text(&run(&["--version"]).stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_input_is_refused_with_the_reason() {
    // Some find out only on the network that nobody is there.
    let domain = Domain::unused();
    let bag = "tests/golden/bag/latched";
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["paly"], "play"),
        (&["--log-level", "scenelex=loud", "play", bag], "log level"),
        (&["play"], "<BAG>"),
        (&["play", "no/such/bag"], "no such bag"),
        (&["play", "src"], "not a bag"),
        (&["play", "Cargo.toml"], "not an MCAP file"),
        (&["play", bag, "--rate", "0"], "above 0"),
        (&["play", bag, "--rate", "fast"], "above 0"),
        (&["play", bag, "--start-offset", "60"], "the bag is 0.950 s long"),
        (&["play", bag, "--topics", "/colors"], "/colours"),
        (&["play", bag, "--remap", "a:=b"], "/from:=/to"),
        (&["play", bag, "--wait-for-subscribers", "/x=1"], "not among the topics"),
        (&["play", bag, "--wait-for-subscribers", "1", "--wait-timeout", "0"], "0 of 1 subscribers"),
        (&["record", "/a"], "--out"),
        (&["record", "/a", "--out", "src", "--wait", "0"], "nobody publishes /a"),
        (&["record", "/a:std_msgs/msg/Strin", "--out", "target/none"], "no definition of `std_msgs/msg/Strin`"),
        (&["record", "/a:String", "--out", "target/none"], "expected `package/msg/Name`"),
        (&["record", "/a:std_msgs/msg/String", "--out", "src"], "exists already"),
        (&["segment", "a.png"], "--classes"),
        (&["segment", "a.png", "--classes", " , "], "--classes: the class list is empty"),
        (&["segment", "a.png", "--classes", "mug", "--models", "src"], "bundle.toml not found"),
        (&["demo", "--models", "src"], "bundle.toml not found"),
    ];
    for (arguments, reason) in cases {
        let output = scenelex_on(&domain).args(*arguments).output().unwrap();
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{arguments:?} was accepted");
        assert!(said.contains(reason), "{arguments:?}: `{reason}` is missing in:\n{said}");
        assert!(!said.contains("panicked"), "{arguments:?}:\n{said}");
    }
}

const COUNT: usize = 30;

/// `std_msgs/String` as CDR, written by hand.
fn string_message(text: &str) -> Vec<u8> {
    let mut data = vec![0, 1, 0, 0];
    data.extend(u32::try_from(text.len() + 1).unwrap().to_le_bytes());
    data.extend(text.as_bytes());
    data.push(0);
    // RTPS pads what it carries to four bytes.
    data.resize(data.len().next_multiple_of(4), 0);
    data
}

/// A bag with a latched message and `COUNT` others, 20 ms apart; the messages by topic.
fn chatter_bag(folder: &Path) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut recorder = Recorder::create(folder).unwrap();
    let latched = OfferedQos { durability: Durability::TransientLocal, depth: 1, ..OfferedQos::default() };
    let mut topic = |name: &str, qos| {
        let definition = "string data\n".into();
        let type_name = "std_msgs/msg/String".into();
        recorder.add_topic(RecordedTopic { name: name.into(), type_name, definition, qos: vec![qos] }).unwrap()
    };
    let (names, chatter) = (topic("/names", latched), topic("/chatter", OfferedQos::default()));
    let names_data = vec![string_message("mug, chair")];
    let chatter_data: Vec<_> = (0..COUNT).map(|i| string_message(&format!("message {i}"))).collect();
    recorder.write(names, 1_000_000_000, &names_data[0]).unwrap();
    for (i, data) in (0_u64..).zip(&chatter_data) {
        recorder.write(chatter, 1_000_000_000 + i * 20_000_000, data).unwrap();
    }
    recorder.finish().unwrap();
    (names_data, chatter_data)
}

#[test]
fn what_is_played_is_recorded() {
    let domain = Domain::unused();
    let scratch = Scratch::new("play-record");
    let (played, recorded) = (scratch.0.join("played"), scratch.0.join("recorded"));
    let (names_data, chatter_data) = chatter_bag(&played);
    let player = Running::start(
        scenelex_on(&domain)
            .arg("play")
            .arg(&played)
            .args(["--wait-for-subscribers", "1", "--wait-timeout", "60"])
            .args([
                // The recorder tries several qualities of service before it settles.
                "--delay",
                "4",
                "--remap",
                "/chatter:=/renamed",
                "--clock",
                "100",
            ]),
    );
    let recorder = Running::start(
        scenelex_on(&domain)
            .args(["record", "/names", "/renamed", "/clock:rosgraph_msgs/msg/Clock", "--wait", "60", "--out"])
            .arg(&recorded),
    );
    let (code, said) = player.wait();
    assert_eq!(code, Some(0), "{said}");
    recorder.interrupt();
    let (code, said) = recorder.wait();
    assert_eq!(code, Some(0), "{said}");

    let bag = Bag::open(&recorded).unwrap();
    assert!(bag.problems().is_empty(), "{:?}", bag.problems());
    let received = |name: &str| -> Vec<Vec<u8>> {
        let query = MessageQuery { topics: vec![name.into()], from: 0 };
        bag.messages(&query).unwrap().map(|message| message.unwrap().data).collect()
    };
    assert_eq!(received("/names"), names_data);
    assert_eq!(received("/renamed"), chatter_data, "every message, in order, byte for byte");
    // Two 32-bit numbers behind the encapsulation header: seconds and nanoseconds.
    let clock: Vec<u64> = received("/clock")
        .iter()
        .map(|data| {
            let word = |at: usize| u64::from(u32::from_le_bytes(data[at..at + 4].try_into().unwrap()));
            word(4) * 1_000_000_000 + word(8)
        })
        .collect();
    assert!(clock.len() > 1 && clock.is_sorted(), "{clock:?}");
    assert!(clock[0] >= 1_000_000_000, "the bag's time, not the machine's: {clock:?}");
    assert!(clock[0] < 1_700_000_000, "{clock:?}");
    let qos = |name: &str| bag.topics().iter().find(|t| t.name == name).unwrap().qos[0];
    assert_eq!(qos("/names").durability, Durability::TransientLocal, "latched topics stay latched");
    assert_eq!(qos("/renamed").durability, Durability::Volatile);
    assert_eq!(qos("/renamed").reliability, Reliability::Reliable);
}

#[test]
fn a_signal_ends_the_player() {
    let domain = Domain::unused();
    let scratch = Scratch::new("signal");
    let bag = scratch.0.join("bag");
    chatter_bag(&bag);
    // So slow that only the signal can end it, and with a wait before: whatever it is doing, it must end.
    for more in [&["--rate", "0.0001"][..], &["--wait-for-subscribers", "1"], &["--delay", "1000"], &["--loop"]] {
        let mut player = Running::start(scenelex_on(&domain).arg("play").arg(&bag).args(more));
        player.wait_for("opened");
        player.interrupt();
        let (code, said) = player.wait();
        assert_eq!(code, Some(130), "{more:?}: {said}");
    }
}

#[test]
fn a_closed_stdin_ends_a_child_that_was_asked_to() {
    let domain = Domain::unused();
    let scratch = Scratch::new("stdin");
    let bag = scratch.0.join("bag");
    chatter_bag(&bag);
    let mut command = scenelex_on(&domain);
    command.args(["--until-stdin-closes", "play"]).arg(&bag).args(["--delay", "1000"]).stdin(Stdio::piped());
    let mut player = Running::start(&mut command);
    player.wait_for("opened");
    drop(player.child.stdin.take());
    let (code, said) = player.wait();
    assert_eq!(code, Some(130), "{said}");
}

#[test]
fn a_wrong_log_time_is_not_waited_for() {
    let domain = Domain::unused();
    let scratch = Scratch::new("log-time");
    let bag = scratch.0.join("bag");
    let mut recorder = Recorder::create(&bag).unwrap();
    let topic = RecordedTopic {
        name: "/chatter".into(),
        type_name: "std_msgs/msg/String".into(),
        definition: "string data\n".into(),
        qos: Vec::new(),
    };
    let topic = recorder.add_topic(topic).unwrap();
    let begin = 1_700_000_000_000_000_000;
    // Of a clock that was not set yet, and of one that ran away.
    for time in [0, begin, begin + 100_000_000, u64::MAX] {
        recorder.write(topic, time, &string_message("a message")).unwrap();
    }
    recorder.finish().unwrap();
    let player = Running::start(scenelex_on(&domain).arg("play").arg(&bag).arg("--clock"));
    let (code, said) = player.wait();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("the pause is left out").count(), 2, "{said}");
}

#[test]
fn pictures_are_not_written_over() {
    let scratch = Scratch::new("overwrite");
    let folder = scratch.0.join("pictures");
    fs::create_dir(&folder).unwrap();
    for name in ["a.png", "a_overlay.png", "b.png"] {
        fs::write(folder.join(name), name).unwrap();
    }
    std::os::unix::fs::symlink(&folder, scratch.0.join("same")).unwrap();
    let segment = |out: &Path, second: &str| {
        let mut command = scenelex();
        command.args(["segment", "--classes", "mug", "--models", "src", "--out"]).arg(out);
        let output = command.arg(folder.join("a.png")).arg(folder.join(second)).output().unwrap();
        assert!(!output.status.success());
        text(&output.stderr)
    };
    // Whatever the folder is called, and before anything is loaded.
    for out in [&folder, &scratch.0.join("same"), &folder.join("../pictures")] {
        let said = segment(out, "a_overlay.png");
        assert!(said.contains("a_overlay.png: what is made of") && said.contains("a.png would be"), "{said}");
    }
    for (out, second) in [(&folder, "b.png"), (&scratch.0.join("elsewhere"), "a_overlay.png")] {
        let said = segment(out, second);
        assert!(said.contains("bundle.toml not found"), "{said}");
    }
    assert_eq!(fs::read(folder.join("a_overlay.png")).unwrap(), b"a_overlay.png");
}

#[test]
fn the_demo_does_not_write_over_the_bag_it_plays() {
    let scratch = Scratch::new("own-bag");
    let bag = scratch.0.join("bag");
    chatter_bag(&bag);
    for played in [bag.clone(), bag.join("bag_0.mcap")] {
        let mut command = scenelex();
        command.args(["demo", "--models", "tests/golden/tiny", "--camera", "/chatter", "--out"]).arg(&scratch.0);
        let output = command.arg("--bag").arg(&played).output().unwrap();
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains("the demo writes its recording there"), "{said}");
        assert!(Bag::open(&bag).is_ok());
    }
}

/// Why commands that need models cannot be tested here.
fn missing_model() -> Option<String> {
    let files =
        ["detector/bundle.toml", "detector/detector.onnx", "detector/text_encoder.onnx", "segmenter/bundle.toml"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let missing = files.iter().map(|file| root.join("models/sim").join(file)).find(|path| !path.exists());
    missing.map(|path| format!("skipped: {} is missing (make setup)", path.display()))
}

#[test]
fn pictures_are_segmented_and_broken_ones_reported() {
    if let Some(reason) = missing_model() {
        eprintln!("{reason}");
        return;
    }
    let scratch = Scratch::new("segment");
    let (good, bad, out) = (scratch.0.join("good.png"), scratch.0.join("bad.png"), scratch.0.join("out"));
    let (width, height) = (200, 120);
    let picture = image::RgbImage::from_fn(width, height, |x, y| {
        let inside = (60..140).contains(&x) && (30..90).contains(&y);
        image::Rgb(if inside { [220, 40, 30] } else { [90, 100, 110] })
    });
    picture.save(&good).unwrap();
    fs::write(&bad, "no picture").unwrap();
    let output = scenelex()
        .args(["segment", "--classes", "box, ball"])
        .arg(&bad)
        .arg(scratch.0.join("absent.jpg"))
        .arg(&good)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(!output.status.success(), "two of three pictures failed");
    assert!(said.contains("bad.png") && said.contains("absent.jpg"), "{said}");
    assert!(text(&output.stdout).contains("1 of 3 pictures labelled"), "{}", text(&output.stdout));

    let json: serde_json::Value = serde_json::from_slice(&fs::read(out.join("good.json")).unwrap()).unwrap();
    assert_eq!((json["width"].as_u64(), json["height"].as_u64()), (Some(width.into()), Some(height.into())));
    assert_eq!(json["classes"], serde_json::json!(["box", "ball"]));
    for instance in json["instances"].as_array().unwrap() {
        assert_eq!(instance["segmentation"]["size"], serde_json::json!([height, width]));
        let counts = instance["segmentation"]["counts"].as_array().unwrap();
        let total: u64 = counts.iter().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(total, u64::from(width * height));
        assert!(["box", "ball"].contains(&instance["label"].as_str().unwrap()));
    }
    let overlay = image::open(out.join("good_overlay.png")).unwrap();
    assert_eq!((overlay.width(), overlay.height()), (width, height));
    assert!(!out.join("bad.json").exists());
}

#[test]
fn the_demo_labels_measures_and_records() {
    if let Some(reason) = missing_model() {
        eprintln!("{reason}");
        return;
    }
    let scratch = Scratch::new("demo");
    let output = scenelex().args(["demo", "--out"]).arg(&scratch.0).output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let summary: serde_json::Value =
        serde_json::from_slice(&fs::read(scratch.0.join("summary.json")).unwrap()).unwrap();
    let number = |key: &str| summary[key].as_f64().unwrap_or_else(|| panic!("{key} in {summary}"));
    assert!(number("frames_out") > 0.0 && number("frames_in") >= number("frames_out"), "{summary}");
    assert_eq!(number("dropped"), number("frames_in") - number("frames_out"));
    assert!(number("fps") > 0.0);
    for (key, percentile) in [("latency_ms", "p90"), ("latency_ms", "p99"), ("overhead_ms", "p99")] {
        assert!(summary[key][percentile].as_f64().unwrap() >= summary[key]["p50"].as_f64().unwrap(), "{summary}");
    }
    let lists = summary["vocabularies"].as_array().unwrap();
    let frames = |source: &str| -> u64 {
        lists.iter().filter(|list| list["source"] == source).map(|list| list["frames"].as_u64().unwrap()).sum()
    };
    assert!(frames("refresh") > 0, "results with a list that the node found by itself: {summary}");
    // A class counts only in frames whose list has it. With half of the frames dropped at random the mean over the bag is
    // still 0.70 of 0.72, but a machine so busy that the node finds its list late leaves only the second half, at 0.67.
    let alone = lists.iter().take_while(|list| list["source"] != "topic").filter(|list| list["source"] == "refresh");
    let alone: u64 = alone.map(|list| list["frames"].as_u64().unwrap()).sum();
    let floor = if alone >= 30 { 0.68 } else { 0.55 };
    assert!(number("miou") >= floor, "{floor} with {alone} results by its own list: {summary}");
    assert!(lists.iter().any(|list| list["source"] == "topic"), "told a list on the way: {summary}");
    let found = lists.iter().find(|list| list["source"] == "refresh").unwrap();
    assert!(found["classes"].as_array().unwrap().iter().any(|class| class == "traffic cone"), "{summary}");
    // The detector is asked for a cone: it is the language model that knows what is meant, in answers that ship with the demo.
    let replayed = summary["diagnostics"]["scenelex: refresh"]["llm.replayed"].as_str().unwrap_or("none");
    assert!(replayed.parse::<u64>().is_ok_and(|count| count > 0), "{replayed} answers replayed: {summary}");

    let bag = Bag::open(&scratch.0.join("bag")).unwrap();
    assert!(bag.problems().is_empty(), "{:?}", bag.problems());
    let count = |name: &str| bag.topics().iter().find(|t| t.name == name).map_or(0, |t| t.message_count);
    assert_eq!(count("/scenelex/masks") as f64, number("frames_out"));
    assert_eq!(count("/camera/image_raw/compressed") as f64, number("frames_in"));
    let sheet = image::open(scratch.0.join("contact_sheet.png")).unwrap();
    assert!(sheet.width() > 1000 && sheet.height() > 500);
    assert!(scratch.0.join("overlay_01.png").exists());
}
