//! The node as a process: tiny models with a known answer, another node of this crate as camera and consumer. And the
//! end of its life-cycle services, which no process would show in time.

#![cfg(feature = "dds")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use scenelex::ros::{
    Qos, Transport,
    arguments::RosArguments,
    dds::{DdsTransport, Environment},
    lifecycle::Lifecycle,
    messages::{
        Clock, DiagnosticArray, Header, Image, KeyValue, LabeledMaskArray, RosMessage, SetVocabulary,
        SetVocabularyRequest, Time, Vocabulary,
        lifecycle::{ChangeState, ChangeStateRequest, TransitionMessage},
    },
    transport::{Publisher, RawSubscription, call, subscribe},
};
use serde::Deserialize;
use support::Domain;

/// Far longer than anything here takes; only a fault waits so long.
const LONG: Duration = Duration::from_secs(60);

struct Node(Child);

impl Node {
    fn start(domain: &Domain, arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_scenelex"))
            .args(["node", "--ros-args", "-p"])
            .arg(format!("models_dir:={}", support::golden("tiny").display()))
            .args(arguments)
            .env("ROS_DOMAIN_ID", domain.id.to_string())
            .env("ROS_LOCALHOST_ONLY", "1")
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// Ends the node with a signal; gives what it logged.
    fn stop(mut self, signal: &str) -> String {
        let kill = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let mut log = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}: {log}");
        log
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Only where a test failed before it stopped the node.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn join(domain: &Domain) -> DdsTransport {
    let environment = Environment::from_lookup(|variable| match variable {
        "ROS_DOMAIN_ID" => Some(domain.id.to_string()),
        "ROS_LOCALHOST_ONLY" => Some("1".to_owned()),
        _ => None,
    });
    DdsTransport::new("/", "peer", &environment.unwrap()).unwrap()
}

fn receive<M>(peer: &DdsTransport, topic: &str, qos: Qos) -> (mpsc::Receiver<M>, Box<dyn RawSubscription>)
where
    M: RosMessage + for<'de> Deserialize<'de> + Send + 'static,
{
    let (sender, receiver) = mpsc::sync_channel(1024);
    let subscription = subscribe::<M, _>(peer, topic, qos, move |message| {
        let _ = sender.send(message);
    });
    (receiver, subscription.unwrap())
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// 128x96 pixels: the first cell of the tiny detector's grid red, the rest grey.
fn picture(number: u32) -> Image {
    let pixels = (0..96_usize).flat_map(|y| (0..128_usize).map(move |x| x < 32 && y < 32));
    let data = pixels.flat_map(|red| if red { support::RED } else { support::GREY }).collect();
    Image {
        header: Header { stamp: Time { sec: 7, nanosec: number }, frame_id: "optical".to_owned() },
        height: 96,
        width: 128,
        encoding: "rgb8".to_owned(),
        is_bigendian: 0,
        step: 384,
        data,
    }
}

#[test]
fn the_node_follows_its_arguments_and_loses_no_result_at_its_end() {
    let arguments = [
        "-p",
        "classes:=[red, green]",
        "-p",
        "use_sim_time:=true",
        "-p",
        "diagnostics.period:=0.2",
        "-r",
        "__ns:=/robot",
        "-r",
        "image:=/camera",
        "-r",
        "~/masks:=/masks",
        "-r",
        "/clock:=/sim_clock",
    ];
    let domain = Domain::unused();
    let node = Node::start(&domain, &arguments);
    let peer = join(&domain);
    let clock = Publisher::<Clock>::new(&peer, "/sim_clock", Qos::RELIABLE).unwrap();
    let camera = Publisher::<Image>::new(&peer, "/camera", Qos::LATEST).unwrap();
    let (masks, masks_subscription) = receive::<LabeledMaskArray>(&peer, "/masks", Qos::RELIABLE);
    let (vocabularies, _vocabulary) = receive::<Vocabulary>(&peer, "/robot/scenelex/vocabulary", Qos::LATCHED);
    let (diagnostics, _diagnostics) = receive::<DiagnosticArray>(&peer, "/diagnostics", Qos::RELIABLE);
    until("all meet", || {
        clock.raw().subscribers() == 1 && camera.raw().subscribers() == 1 && masks_subscription.publishers() == 1
    });
    let first = vocabularies.recv_timeout(LONG).unwrap();
    assert_eq!((first.version, first.source.as_str(), first.entries.len()), (1, "configuration", 2));

    // Simulated time is in every stamp of the node's own, never in those of results.
    let sim = Time { sec: 1234, nanosec: 5 };
    until("simulated time", || {
        clock.publish(&Clock { clock: sim }).unwrap();
        diagnostics.try_iter().any(|message| {
            let mut values = message.status.iter().flat_map(|status| &status.values);
            let on_cpu =
                |value: &KeyValue| value.key == "detector_runs_on" && value.value.starts_with("CPUExecutionProvider (");
            assert!(values.any(on_cpu), "{message:?}");
            message.header.stamp == sim
        })
    });

    let mut results = Vec::new();
    let mut next = |number| {
        camera.publish(&picture(number)).unwrap();
        let result = masks.recv_timeout(LONG).unwrap();
        results.push(result.header.stamp.nanosec);
        result
    };
    let result = next(1);
    assert_eq!(result.header, picture(1).header);
    assert_eq!((result.width, result.height, result.vocabulary_version), (128, 96, 1));
    let labels: Vec<_> = result.masks.iter().map(|mask| (mask.label.as_str(), mask.class_id)).collect();
    assert_eq!(labels, [("red", 1)]);
    assert!(result.masks[0].counts.iter().sum::<u32>() == 128 * 96);
    assert!(result.stages.iter().any(|stage| stage.stage == "models" && stage.duration.nanosec > 0));

    let client = peer.client("/robot/scenelex/set_vocabulary", "scenelex/srv/SetVocabulary").unwrap();
    let request = SetVocabularyRequest { classes: vec!["Green ".to_owned(), "blue".to_owned()], entries: Vec::new() };
    let response = call::<SetVocabulary>(&*client, &request, LONG).unwrap();
    assert!(response.success, "{}", response.message);
    assert_eq!(response.version, 2);
    // The answer means that the next image uses the new list; "green" has kept its id.
    let result = next(2);
    assert_eq!((result.vocabulary_version, result.masks.len()), (2, 0));
    let ids: Vec<_> = response.entries.iter().map(|entry| (entry.label.as_str(), entry.class_id)).collect();
    assert_eq!(ids, [("green", 2), ("blue", 3)]);
    let changed = vocabularies.recv_timeout(LONG).unwrap();
    assert_eq!((changed.version, changed.source.as_str(), changed.header.stamp), (2, "service", sim));

    let refused = SetVocabularyRequest { classes: vec![" ".to_owned()], entries: Vec::new() };
    let response = call::<SetVocabulary>(&*client, &refused, LONG).unwrap();
    assert_eq!((response.success, response.version, response.entries.len()), (false, 2, 2));
    assert!(!response.message.is_empty());

    let mut broken = picture(3);
    broken.step = 3;
    camera.publish(&broken).unwrap();
    until("the broken image is counted", || {
        diagnostics.try_iter().flat_map(|message| message.status).any(|status| {
            status.name == "robot/scenelex: frames"
                && status.values.iter().any(|value| value.key == "bad_images.step" && value.value == "1")
        })
    });
    let result = next(4);
    assert_eq!(result.header.stamp.nanosec, 4, "the next good image is served");

    // A burst, and the end in its middle: whatever was processed has arrived.
    for number in 10..20 {
        camera.publish(&picture(number)).unwrap();
    }
    let log = node.stop("-TERM");
    until("the node is gone", || masks_subscription.publishers() == 0);
    results.extend(masks.try_iter().map(|result| result.header.stamp.nanosec));
    assert!(results.is_sorted_by(|a, b| a < b), "a result came twice or out of order: {results:?}");
    assert!(log.contains(&format!("processed={} ", results.len())), "{results:?} arrived; the node said: {log}");
}

#[test]
fn a_transition_that_nobody_carries_out_does_not_keep_the_services_from_ending() {
    let domain = Domain::unused();
    let (node, peer) = (join(&domain), join(&domain));
    let identity = RosArguments::default().identity("scenelex").unwrap();
    let lifecycle = Lifecycle::start(&node, &identity).unwrap();
    let client = peer.client("/scenelex/change_state", "lifecycle_msgs/srv/ChangeState").unwrap();
    let request = ChangeStateRequest { transition: TransitionMessage { id: 0, label: "configure".to_owned() } };
    let asking = move || {
        // The answer may be lost on the way: whoever sends it leaves.
        let _ = call::<ChangeState>(&*client, &request, LONG);
    };
    std::thread::Builder::new().spawn(asking).unwrap();
    until("the request waits", || lifecycle.changes.len() == 1);
    let (sender, ended) = mpsc::sync_channel(1);
    let ending = move || {
        drop(lifecycle);
        let _ = sender.send(());
    };
    std::thread::Builder::new().spawn(ending).unwrap();
    assert!(ended.recv_timeout(LONG).is_ok(), "the services do not end");
}
