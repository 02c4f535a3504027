//! Turns with a language model of a few lines, which answers what the test says.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::Mutex,
};

use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::vocabulary::{
    chat::{BreakerConfig, ChatConfig, RetryConfig},
    store::Asked,
};

/// Gives every question for a purpose the same answer, and a status of 500 where it has none.
struct Model {
    port: u16,
    answers: Arc<Mutex<BTreeMap<&'static str, String>>>,
    /// What the questions were for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Model {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let model = Self { port, answers: Arc::default(), asked: Arc::default() };
        let (answers, asked) = (Arc::clone(&model.answers), Arc::clone(&model.asked));
        let serve = move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let purpose = receive(&stream);
                let answer = answers.lock().unwrap().get(purpose.as_str()).cloned();
                asked.lock().unwrap().push(purpose);
                send(&stream, answer.as_deref());
            }
        };
        drop(std::thread::Builder::new().name("model".to_owned()).spawn(serve).unwrap());
        model
    }

    fn answers(&self, purpose: &'static str, answer: &Value) {
        self.answers.lock().unwrap().insert(purpose, answer.to_string());
    }

    fn fails(&self, purpose: &'static str) {
        self.answers.lock().unwrap().remove(purpose);
    }

    fn asked(&self, purpose: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == purpose).count()
    }

    fn client(&self) -> Arc<ChatClient> {
        let config = ChatConfig {
            base_url: format!("http://127.0.0.1:{}/v1", self.port),
            key_variable: String::new(),
            retry: RetryConfig { retries: 0, ..RetryConfig::default() },
            breaker: BreakerConfig { failures: 1000, ..BreakerConfig::default() },
            ..ChatConfig::default()
        };
        Arc::new(ChatClient::new(config).unwrap())
    }
}

/// Reads a request; what it is for is the name of its schema.
fn receive(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    body["response_format"]["json_schema"]["name"].as_str().unwrap().to_owned()
}

fn send(mut stream: &TcpStream, answer: Option<&str>) {
    let (status, body) = match answer {
        Some(text) => ("200 OK", json!({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})),
        None => ("500 Internal Server Error", json!({"error": {"message": "nothing to say"}})),
    };
    let body = body.to_string();
    let head = format!("Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close", body.len());
    write!(stream, "HTTP/1.1 {status}\r\n{head}\r\n\r\n{body}").unwrap();
}

/// Proposes what the test says.
struct Eyes(Arc<Mutex<Vec<&'static str>>>);

impl Proposer for Eyes {
    fn propose(&mut self, _image: &RgbImage, _go_on: GoOn<'_>) -> Result<Look, ProposeError> {
        let labels = self.0.lock().unwrap();
        let sample = labels.iter().map(|&label| Proposal { label: label.to_owned(), probability: 0.9 }).collect();
        Ok(Look { samples: vec![sample], caption: None })
    }
}

struct Robot {
    refresher: Refresher,
    sees: Arc<Mutex<Vec<&'static str>>>,
    runtime: Runtime,
}

impl Robot {
    fn new(config: RefreshConfig, model: &Model, lexicon: Option<Arc<Lexicon>>) -> Self {
        let sees: Arc<Mutex<Vec<&'static str>>> = Arc::default();
        let eyes: Vec<Box<dyn Proposer>> = vec![Box::new(Eyes(Arc::clone(&sees)))];
        let refresher = Refresher::new(config, eyes, Some(model.client()), lexicon, |_| Some(vec![0xff, 0xd8]));
        Self { refresher, sees, runtime: Builder::new_current_thread().enable_all().build().unwrap() }
    }

    /// A turn with an image that shows these things.
    fn look(&mut self, things: &[&'static str]) -> Result<Refreshed, RefreshError> {
        *self.sees.lock().unwrap() = things.to_vec();
        let (image, cancel) = (RgbImage::default(), CancellationToken::new());
        self.runtime.block_on(self.refresher.refresh(&image, 0, &|| true, &cancel))
    }
}

fn labels(refreshed: &Refreshed) -> Vec<&str> {
    refreshed.classes.iter().map(|class| class.label.as_str()).collect()
}

fn subclasses<'r>(refreshed: &'r Refreshed, label: &str) -> &'r [String] {
    &refreshed.classes.iter().find(|class| class.label == label).unwrap().subclasses
}

fn keep(keep: u32) -> RefreshConfig {
    RefreshConfig { hysteresis: Hysteresis { confirm: 1, keep }, ..RefreshConfig::default() }
}

/// The answer to a grouping: one class.
fn one_class(label: &str, synonyms: &[&str]) -> Value {
    json!({"classes": [{"label": label, "synonyms": synonyms, "parent": ""}]})
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("scenelex-refresh-{}-{name}", std::process::id()))
}

/// A lexicon that knows nothing of what is seen here: each label becomes a class of its own.
fn lexicon(test: &str) -> Arc<Lexicon> {
    let dir = scratch(test);
    std::fs::create_dir_all(&dir).unwrap();
    for (file, text) in [
        ("index.noun", "entity n 1 0 1 1 00000010\n"),
        ("data.noun", "00000010 03 n 01 entity 0 000 | all there is\n"),
        ("noun.exc", ""),
    ] {
        std::fs::write(dir.join(file), text).unwrap();
    }
    let lexicon = Lexicon::open(&dir).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    Arc::new(lexicon)
}

#[test]
fn a_model_that_fails_leaves_the_list_alone_for_three_turns() {
    let model = Model::start();
    let mut robot = Robot::new(keep(1), &model, Some(lexicon("fails")));
    model.answers("group", &one_class("red", &["blue"]));
    let first = robot.look(&["red", "blue"]).unwrap();
    assert_eq!((labels(&first), first.refinement), (vec!["red"], Refinement::LanguageModel));

    model.fails("group");
    for turn in 1..=3 {
        let failed = robot.look(&["green"]);
        assert!(matches!(failed, Err(RefreshError::Chat(_))), "turn {turn}: {failed:?}");
    }
    let fourth = robot.look(&["green"]).unwrap();
    assert_eq!((labels(&fourth), fourth.refinement), (vec!["red", "green"], Refinement::Lexicon), "red is missed once");
    assert_eq!(fourth.classes[0].synonyms, ["blue"]);
    let fifth = robot.look(&["green"]).unwrap();
    assert_eq!((labels(&fifth), fifth.refinement), (vec!["green"], Refinement::Lexicon));

    model.answers("group", &one_class("green", &[]));
    assert_eq!(robot.look(&["green"]).unwrap().refinement, Refinement::LanguageModel);
    model.fails("group");
    // Another question, which has no answer yet.
    assert!(robot.look(&["green", "lamp"]).is_err(), "it has to fail three turns anew");
}

#[test]
fn the_lexicon_does_its_work_at_once_where_there_is_no_list() {
    let model = Model::start();
    let fixed = vec!["person".to_owned()];
    let mut robot = Robot::new(RefreshConfig { fixed, ..keep(0) }, &model, Some(lexicon("no_list")));
    robot.refresher.adopt(&[ClassSpec::new("person")]);
    for _ in 0..3 {
        let made = robot.look(&["red"]).unwrap();
        assert_eq!((labels(&made), made.refinement), (vec!["person", "red"], Refinement::Lexicon));
    }
    robot.refresher.adopt(&[ClassSpec::new("mug")]);
    assert!(robot.look(&["red"]).is_err(), "a list that somebody set is one to keep");
}

#[test]
fn an_empty_reply_replaces_nothing() {
    let model = Model::start();
    let targets = vec!["red".to_owned(), "green".to_owned()];
    let config = RefreshConfig { targets, fixed: vec!["person".to_owned()], ..keep(1) };
    let mut robot = Robot::new(config, &model, None);
    model.answers("select", &json!({"labels": ["red"]}));
    assert_eq!(labels(&robot.look(&["red"]).unwrap()), ["red", "person"]);

    model.answers("select", &json!({"labels": []}));
    for _ in 0..2 {
        let empty = robot.look(&["green"]);
        assert!(matches!(empty, Err(RefreshError::Reply(ReplyError::Empty))), "{empty:?}");
    }
    assert_eq!(model.asked("select"), 3, "such an answer is not remembered");
    model.answers("select", &json!({"labels": ["green"]}));
    assert_eq!(labels(&robot.look(&["green"]).unwrap()), ["red", "person", "green"], "red is missed once");
}

#[test]
fn a_class_seen_under_its_synonym_is_the_same_class() {
    let model = Model::start();
    let mut robot = Robot::new(keep(1), &model, None);
    model.answers("group", &one_class("sofa", &["couch"]));
    let sofa = robot.look(&["sofa", "couch"]).unwrap().classes;
    model.answers("group", &one_class("couch", &[]));
    for _ in 0..3 {
        assert_eq!(robot.look(&["couch"]).unwrap().classes, sofa);
    }
}

#[test]
fn subclasses_that_are_left_out_are_asked_for_again_but_not_for_ever() {
    let model = Model::start();
    let config = RefreshConfig { pre_refine: false, subclasses: 2, ..keep(0) };
    let mut robot = Robot::new(config, &model, None);
    model.answers("subclasses", &json!({"classes": [{"label": "red", "subclasses": ["dark red"]}]}));
    for questions in [1, 2, 3, 3, 3] {
        let made = robot.look(&["red", "blue"]).unwrap();
        assert_eq!(subclasses(&made, "red"), ["dark red"]);
        assert!(subclasses(&made, "blue").is_empty());
        assert_eq!(model.asked("subclasses"), questions);
    }
    let class = |label: &str| json!({"label": label, "subclasses": [format!("dark {label}")]});
    model.answers("subclasses", &json!({"classes": [class("blue"), class("green")]}));
    let made = robot.look(&["red", "blue", "green"]).unwrap();
    for label in ["red", "blue", "green"] {
        assert_eq!(subclasses(&made, label), [format!("dark {label}")]);
    }
    assert_eq!(model.asked("subclasses"), 4);
}

#[test]
fn a_kept_class_without_subclasses_is_asked_about() {
    let model = Model::start();
    let list = scratch("list.json");
    let asked = Asked { model: "m".to_owned(), prompt: "zero_shot".to_owned(), count: 2 };
    let store = SubclassStore::beside(&list, asked);
    store.save(&BTreeMap::from([("red".to_owned(), Vec::new())])).unwrap();
    let mut robot = Robot::new(RefreshConfig { pre_refine: false, subclasses: 2, ..keep(0) }, &model, None);
    robot.refresher = robot.refresher.with_subclasses(store);
    model.answers("subclasses", &json!({"classes": [{"label": "red", "subclasses": ["dark red"]}]}));
    let made = robot.look(&["red"]).unwrap();
    std::fs::remove_file(list.with_extension("subclasses.json")).unwrap();
    assert_eq!(subclasses(&made, "red"), ["dark red"]);
}

#[test]
fn a_class_keeps_its_subclasses_while_nobody_gives_others() {
    let model = Model::start();
    let mut robot = Robot::new(RefreshConfig { pre_refine: false, subclasses: 2, ..keep(0) }, &model, None);
    robot.refresher.adopt(&[ClassSpec { subclasses: vec!["dark red".to_owned()], ..ClassSpec::new("red") }]);
    let made = robot.look(&["red"]).unwrap();
    assert_eq!((subclasses(&made, "red"), made.trouble.is_some()), (&["dark red".to_owned()][..], true));
}

#[test]
fn what_only_the_model_sees_is_not_missed_while_it_is_not_asked() {
    let model = Model::start();
    let mut robot = Robot::new(RefreshConfig { pre_refine: false, look: true, ..keep(0) }, &model, None);
    model.answers("look", &json!({"objects": [{"label": "lamp", "probability": 0.9}]}));
    assert_eq!(labels(&robot.look(&["red"]).unwrap()), ["lamp", "red"]);
    model.fails("look");
    for _ in 0..3 {
        let made = robot.look(&["red", "mug"]).unwrap();
        assert_eq!((labels(&made), made.trouble.is_some()), (vec!["lamp", "red", "mug"], true));
    }
    assert_eq!(labels(&robot.look(&["red"]).unwrap()), ["red"], "not for ever");
    model.answers("look", &json!({"objects": []}));
    let made = robot.look(&["red"]).unwrap();
    assert_eq!((labels(&made), made.trouble.is_some()), (vec!["red"], true), "it sees nothing, which is no answer");
}
