//! The embedded transport against itself: two nodes of one process that meet on the wire. What an independent peer sees
//! is tested from Python.

#![cfg(feature = "dds")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, SyncSender},
    time::{Duration, Instant},
};

use scenelex::ros::{
    Qos, Transport,
    arguments::RosArguments,
    dds::{DdsTransport, Environment},
    messages::{
        Image, LabelInfo, RosMessage, SetVocabulary, SetVocabularyRequest, SetVocabularyResponse, StringMessage,
        VisionClass,
        log::{Log, level},
    },
    rosout::{self, Rosout},
    transport::{
        Durability, Mismatch, Publisher, RawClient, RawPublisher, Reliability, TopicInfo, TransportError, call, serve,
        subscribe,
    },
};
use support::Domain;
use tracing::{Dispatch, dispatcher::with_default};
use tracing_subscriber::{layer::SubscriberExt, registry};

/// Far longer than anything here takes; only a fault waits so long.
const LONG: Duration = Duration::from_secs(30);

fn join(name: &str, domain: &Domain) -> DdsTransport {
    join_by_number(name, &domain.id.to_string())
}

fn join_by_number(name: &str, domain: &str) -> DdsTransport {
    let environment = Environment::from_lookup(|variable| match variable {
        "ROS_DOMAIN_ID" => Some(domain.to_owned()),
        "ROS_LOCALHOST_ONLY" => Some("1".to_owned()),
        _ => None,
    });
    DdsTransport::new("/test", name, &environment.unwrap()).unwrap()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn sink<T>() -> (SyncSender<T>, mpsc::Receiver<T>) {
    mpsc::sync_channel(1024)
}

#[test]
fn reliable_messages_arrive_once_and_in_order() {
    let domain = Domain::unused();
    let (a, b) = (join("a", &domain), join("b", &domain));
    let (sender, received) = sink();
    let subscription = subscribe::<StringMessage, _>(
        &b,
        "/talk",
        Qos { history: scenelex::ros::transport::History::KeepAll, ..Qos::RELIABLE },
        move |message| {
            sender.send(message.data).unwrap();
        },
    );
    let subscription = subscription.unwrap();
    let publisher = Publisher::<StringMessage>::new(&a, "/talk", Qos::RELIABLE).unwrap();
    until("matched", || publisher.raw().subscribers() == 1 && subscription.publishers() == 1);
    for number in 0..100 {
        publisher.publish(&StringMessage { data: number.to_string() }).unwrap();
    }
    assert!(publisher.raw().flush(LONG));
    for number in 0..100 {
        assert_eq!(received.recv_timeout(LONG).unwrap(), number.to_string());
    }
    let talk = TopicInfo {
        name: "/talk".to_owned(),
        type_name: StringMessage::TYPE.to_owned(),
        reliability: Reliability::Reliable,
        durability: Durability::Volatile,
    };
    until("seen on the graph", || b.topics().contains(&talk));
    assert!(!a.topics().contains(&talk), "one's own topics are not others'");
    assert_eq!((a.node_name(), b.node_name()), ("/test/a", "/test/b"));

    drop(subscription);
    until("gone", || publisher.raw().subscribers() == 0);
    publisher.publish(&StringMessage::default()).unwrap();
    assert!(matches!(received.recv_timeout(Duration::from_millis(200)), Err(RecvTimeoutError::Disconnected)));
}

#[test]
fn a_topic_is_listed_with_what_all_its_publishers_offer() {
    let domain = Domain::unused();
    let (a, b, c) = (join("a", &domain), join("b", &domain), join("c", &domain));
    let offers = |reliability, durability| {
        move |info: &TopicInfo| info.name == "/talk" && (info.reliability, info.durability) == (reliability, durability)
    };
    let _latched = Publisher::<StringMessage>::new(&a, "/talk", Qos::LATCHED).unwrap();
    until("latched", || c.topics().iter().any(offers(Reliability::Reliable, Durability::TransientLocal)));
    let _plain = Publisher::<StringMessage>::new(&b, "/talk", Qos::LATEST).unwrap();
    until("the weakest", || c.topics().iter().any(offers(Reliability::BestEffort, Durability::Volatile)));
    assert_eq!(c.topics().iter().filter(|info| info.name == "/talk").count(), 1);
}

#[test]
fn late_subscribers_get_the_newest_state_and_nothing_older() {
    let domain = Domain::unused();
    let (a, b) = (join("a", &domain), join("b", &domain));
    let publisher = Publisher::<LabelInfo>::of_state(&a, "/info").unwrap();
    for id in 1..=4 {
        let class_map = vec![VisionClass { class_id: id, class_name: "mug".to_owned() }];
        let state = LabelInfo { class_map, ..LabelInfo::default() };
        until("there is room", || publisher.publish(&state).is_ok());
    }
    // RustDDS cleans up every 6 s; until then it has everything.
    std::thread::sleep(Duration::from_secs(8));
    let (sender, received) = sink();
    let _subscription = subscribe::<LabelInfo, _>(&b, "/info", Qos::LATCHED, move |message| {
        sender.send(message.class_map[0].class_id).unwrap();
    });
    assert_eq!(received.recv_timeout(LONG).unwrap(), 4);
    while let Ok(id) = received.recv_timeout(Duration::from_millis(500)) {
        assert_eq!(id, 4, "it may come twice");
    }
}

#[test]
fn subscribers_get_every_state_once() {
    let domain = Domain::unused();
    let (a, b) = (join("a", &domain), join("b", &domain));
    let publisher = Publisher::<StringMessage>::of_state(&a, "/state").unwrap();
    publisher.publish(&StringMessage { data: "0".to_owned() }).unwrap();
    let (sender, received) = sink();
    let _subscription =
        subscribe::<StringMessage, _>(&b, "/state", Qos::LATCHED, move |m| sender.send(m.data).unwrap());
    until("matched", || publisher.raw().subscribers() == 1);
    assert_eq!(received.recv_timeout(LONG).unwrap(), "0");
    for number in 1..20 {
        let state = StringMessage { data: number.to_string() };
        // While the one before is not acknowledged there is no room.
        until("there is room", || publisher.publish(&state).is_ok());
        assert_eq!(received.recv_timeout(LONG).unwrap(), state.data);
    }
    assert!(received.recv_timeout(Duration::from_millis(200)).is_err());
}

#[test]
fn the_log_is_on_the_graph_and_a_flood_of_it_loses_no_count() {
    const FLOOD: u64 = 3000;
    let domain = Domain::unused();
    let (a, b) = (join("a", &domain), join("b", &domain));
    let (layer, queue) = rosout::channel();
    let log = Dispatch::new(registry().with(layer));
    let identity = RosArguments::default().identity("a").unwrap();
    let running = Rosout::start(&a, &identity, queue).unwrap();
    with_default(&log, || (0..FLOOD).for_each(|n| tracing::info!(target: "scenelex::test", n)));
    // Who comes late gets what was sent before.
    let (sender, received) = sink();
    let subscription = subscribe::<Log, _>(&b, "/rosout", Qos::ROSOUT, move |message| sender.send(message).unwrap());
    let mut accounted = 0;
    while accounted < FLOOD {
        let message = received.recv_timeout(LONG).unwrap();
        accounted += match message.level {
            level::INFO => 1,
            _ => message.msg.split(' ').next().unwrap().parse().unwrap(),
        };
    }
    assert_eq!(accounted, FLOOD);
    drop(running);
    let subscription = subscription.unwrap();
    until("off the graph", || subscription.publishers() == 0);
}

#[test]
fn large_messages_are_fragmented_and_put_together() {
    let domain = Domain::unused();
    let (a, b) = (join("a", &domain), join("b", &domain));
    let (sender, received) = sink();
    let _subscription =
        subscribe::<Image, _>(&b, "/image", Qos::RELIABLE, move |message| sender.send(message).unwrap());
    let publisher = Publisher::<Image>::new(&a, "/image", Qos::RELIABLE).unwrap();
    until("matched", || publisher.raw().subscribers() == 1);
    let data = (0..1920 * 1080 * 3_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let image = Image { height: 1080, width: 1920, encoding: "rgb8".to_owned(), step: 5760, data, ..Image::default() };
    publisher.publish(&image).unwrap();
    assert!(received.recv_timeout(LONG).unwrap() == image, "the image changed on the way");
}

#[test]
fn services_answer_the_one_who_asked() {
    let domain = Domain::unused();
    let (a, b, c) = (join("a", &domain), join("b", &domain), join("c", &domain));
    let name = "/test/a/set_vocabulary";
    let client = b.client(name, "scenelex/srv/SetVocabulary").unwrap();
    let nobody = call::<SetVocabulary>(&*client, &SetVocabularyRequest::default(), Duration::from_millis(100));
    assert!(matches!(nobody, Err(TransportError::NoAnswer { .. })));

    let _server = serve::<SetVocabulary, _>(&a, name, |request| SetVocabularyResponse {
        success: true,
        message: request.classes.join("+"),
        version: 7,
        entries: request.entries,
    });
    let other = c.client(name, "scenelex/srv/SetVocabulary").unwrap();
    for round in 0..5 {
        for (client, who) in [(&client, "b"), (&other, "c")] {
            let request =
                SetVocabularyRequest { classes: vec![who.to_owned(), round.to_string()], entries: Vec::new() };
            let response = call::<SetVocabulary>(&**client, &request, LONG).unwrap();
            assert_eq!((response.message, response.version), (format!("{who}+{round}"), 7));
        }
    }
}

/// Where this is set, the test of the same name is a process that another test starts and stops.
const STANDSTILL: &str = "SCENELEX_TEST_DOMAIN_OF_A_CLIENT_THAT_STANDS_STILL";

#[test]
fn a_client_that_stands_still() {
    let Ok(domain) = std::env::var(STANDSTILL) else { return };
    let node = join_by_number("still", &domain);
    let client = node.client("/test/a/set_vocabulary", "scenelex/srv/SetVocabulary").unwrap();
    let request = SetVocabularyRequest { classes: vec!["still".to_owned()], entries: Vec::new() };
    call::<SetVocabulary>(&*client, &request, LONG).unwrap();
    // Until it is killed.
    std::thread::sleep(2 * LONG);
}

/// A process that is killed at the end.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_client_that_stands_still_does_not_keep_others_from_their_answers() {
    let domain = Domain::unused();
    let (a, b) = (join("a", &domain), join("b", &domain));
    let (sender, asked) = sink();
    let _server = serve::<SetVocabulary, _>(&a, "/test/a/set_vocabulary", move |request| {
        sender.send(request.classes.join("+")).unwrap();
        SetVocabularyResponse { version: 7, ..SetVocabularyResponse::default() }
    });
    let still = Command::new(std::env::current_exe().unwrap())
        .args(["a_client_that_stands_still", "--exact"])
        .env(STANDSTILL, domain.id.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let still = Process(still.unwrap());
    assert_eq!(asked.recv_timeout(LONG).unwrap(), "still");
    let client = b.client("/test/a/set_vocabulary", "scenelex/srv/SetVocabulary").unwrap();
    let ask = || {
        let response = call::<SetVocabulary>(&*client, &SetVocabularyRequest::default(), Duration::from_secs(5));
        response.map(|response| response.version)
    };
    assert_eq!(ask().unwrap(), 7);
    let stopped = Command::new("kill").args(["-STOP", &still.0.id().to_string()]).status();
    assert!(stopped.unwrap().success());
    for number in 0..40 {
        assert!(matches!(ask(), Ok(7)), "call {number}");
    }
}

#[test]
fn what_is_not_the_expected_message_is_skipped() {
    let domain = Domain::unused();
    let (a, b) = (join("a", &domain), join("b", &domain));
    let (sender, received) = sink();
    let _subscription =
        subscribe::<StringMessage, _>(&b, "/talk", Qos::RELIABLE, move |m| sender.send(m.data).unwrap());
    let publisher = a.advertise("/talk", StringMessage::TYPE, Qos::RELIABLE).unwrap();
    until("matched", || publisher.subscribers() == 1);
    publisher.publish(vec![0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 1].into()).unwrap();
    assert!(publisher.publish(vec![0, 1].into()).is_err(), "a message without its header was sent");
    publisher.publish(scenelex::ros::cdr::encode(&StringMessage { data: "good".to_owned() }).unwrap()).unwrap();
    assert_eq!(received.recv_timeout(LONG).unwrap(), "good");
    assert!(a.advertise("/talk", "String", Qos::RELIABLE).is_err(), "a type without its package was accepted");
}

#[test]
fn who_comes_after_many_came_and_went_is_known() {
    let domain = Domain::unused();
    let (a, b) = (join("a", &domain), join("b", &domain));
    let listener = || subscribe::<StringMessage, _>(&b, "/talk", Qos::RELIABLE, |_| {}).unwrap();
    // One that nobody asks meanwhile; the other tells what both have heard of.
    let [idle, watched] = [(); 2].map(|()| Publisher::<StringMessage>::new(&a, "/talk", Qos::RELIABLE).unwrap());
    for _ in 0..2 {
        let passing = listener();
        until("it came", || watched.raw().subscribers() == 1);
        drop(passing);
        until("it went", || watched.raw().subscribers() == 0);
    }
    let _stays = listener();
    until("the last one came", || watched.raw().subscribers() == 1);
    until("it is known", || idle.raw().subscribers() == 1);
}

#[test]
fn an_idle_client_finds_the_server_that_came_last() {
    let domain = Domain::unused();
    let (a, b) = (join("a", &domain), join("b", &domain));
    let (name, kind) = ("/test/a/set_vocabulary", "scenelex/srv/SetVocabulary");
    let server = || {
        let answer = |_| SetVocabularyResponse { version: 7, ..SetVocabularyResponse::default() };
        serve::<SetVocabulary, _>(&a, name, answer).unwrap()
    };
    let [idle, watching] = [(); 2].map(|()| b.client(name, kind).unwrap());
    let ask = |client: &dyn RawClient, timeout: Duration| {
        call::<SetVocabulary>(client, &SetVocabularyRequest::default(), timeout).map(|response| response.version)
    };
    for _ in 0..2 {
        let passing = server();
        assert_eq!(ask(&*watching, LONG).unwrap(), 7);
        drop(passing);
        until("it went", || ask(&*watching, Duration::from_millis(50)).is_err());
    }
    let _stays = server();
    assert_eq!(ask(&*watching, LONG).unwrap(), 7);
    assert_eq!(ask(&*idle, LONG).unwrap(), 7);
}

#[test]
fn what_does_not_fit_is_named() {
    let domain = Domain::unused();
    let (a, b, c, d) = (join("a", &domain), join("b", &domain), join("c", &domain), join("d", &domain));
    let subscription = subscribe::<Image, _>(&b, "/camera", Qos::RELIABLE, |_| {}).unwrap();
    assert_eq!(subscription.mismatch(), None, "nobody is there");
    let camera = Publisher::<Image>::new(&a, "/camera", Qos::LATEST).unwrap();
    let reliability = Some(Mismatch::Policy("reliability"));
    until("the subscription knows", || subscription.mismatch() == reliability);
    until("the publisher knows", || camera.raw().subscribers() == 0 && camera.raw().mismatch() == reliability);
    assert_eq!(subscription.publishers(), 0);
    let good = Publisher::<Image>::new(&c, "/camera", Qos::RELIABLE).unwrap();
    until("one that fits is enough", || subscription.publishers() == 1 && subscription.mismatch().is_none());
    drop((camera, good));
    until("what has left is forgotten", || subscription.publishers() == 0 && subscription.mismatch().is_none());
    let _labels = Publisher::<LabelInfo>::new(&d, "/camera", Qos::RELIABLE).unwrap();
    let other = Some(Mismatch::Type(LabelInfo::TYPE.to_owned()));
    until("the other type is named", || subscription.mismatch() == other);
}

/// `scenelex record`, killed at the end, and its bag.
struct Recorder {
    process: Child,
    bag: PathBuf,
}

impl Recorder {
    fn start(domain: &Domain, topics: &[&str]) -> Self {
        let bag = std::env::temp_dir().join(format!("scenelex-stopped-{}", std::process::id()));
        let process = Command::new(env!("CARGO_BIN_EXE_scenelex"))
            .arg("record")
            .args(topics)
            .arg("--out")
            .arg(&bag)
            .env("ROS_DOMAIN_ID", domain.id.to_string())
            .env("ROS_LOCALHOST_ONLY", "1")
            .stderr(Stdio::null())
            .spawn();
        Self { process: process.unwrap(), bag }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.bag);
    }
}

#[test]
fn who_is_in_haste_is_not_held_up_by_a_subscriber_that_stands_still() {
    let domain = Domain::unused();
    let a = join("a", &domain);
    let hasty = a.advertise_in_haste("/talk", StringMessage::TYPE, Qos::RELIABLE).unwrap();
    let patient = a.advertise("/story", StringMessage::TYPE, Qos::RELIABLE).unwrap();
    let recorder = Recorder::start(&domain, &["/talk", "/story"]);
    until("matched", || hasty.subscribers() == 1 && patient.subscribers() == 1);
    let stopped = Command::new("kill").args(["-STOP", &recorder.process.id().to_string()]).status();
    assert!(stopped.unwrap().success());
    let message = scenelex::ros::cdr::encode(&StringMessage { data: "unheard".to_owned() }).unwrap();
    let held_up = |publisher: &dyn RawPublisher| {
        until("no room is left", || publisher.publish(message.clone()).is_err());
        let begun = Instant::now();
        assert_eq!((0..20).filter(|_| publisher.publish(message.clone()).is_ok()).count(), 0);
        begun.elapsed()
    };
    // 0.01 s and 0.1 s for each.
    let (hasty, patient) = (held_up(&*hasty), held_up(&*patient));
    assert!(3 * hasty < patient, "{hasty:?}, {patient:?}");
}
