//! The chat client against the test server (`chat_server.py`), a process of its own, in each of its faults.
//! `cargo test --test chat_faults -- --nocapture` prints the table.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use scenelex::vocabulary::chat::{
    BreakerConfig, BreakerStatus, ChatClient, ChatConfig, ChatError, ChatRequest, ReplayMiss, RetryConfig, Schema,
    Structured, Timeouts,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const KEY: &str = "sk-test-0123456789";
const GOOD: &str = r#"{"labels": ["cup", "plate"]}"#;

/// The server, ended with the test.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/python/chat_server.py");
        let mut process =
            Command::new("python3").arg(script).stdout(Stdio::piped()).spawn().expect("python3 starts the server");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, port: line.trim().parse().expect("the server prints its port") }
    }

    fn exchange(&self, head: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let length = body.len();
        write!(stream, "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn fault(&self, options: &Value) {
        assert_eq!(self.exchange("POST /fault", &options.to_string()), json!({"ok": true}));
    }

    fn requests(&self) -> Vec<Value> {
        self.exchange("GET /requests", "").as_array().unwrap().clone()
    }

    fn config(&self) -> ChatConfig {
        let ms = Duration::from_millis;
        ChatConfig {
            base_url: format!("http://127.0.0.1:{}/v1", self.port),
            model: "test-model".into(),
            // Nothing that is answered at all runs into these, however busy the machine is.
            timeouts: Timeouts { connect: ms(10_000), read: ms(20_000), total: ms(60_000) },
            retry: RetryConfig { retries: 2, base: ms(20), max: ms(100), max_retry_after: ms(2000) },
            breaker: BreakerConfig { failures: 50, pause: ms(300), max_pause: Duration::from_secs(60) },
            ..ChatConfig::default()
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn client(config: ChatConfig) -> ChatClient {
    ChatClient::with_environment(config, |name| (name == "OPENAI_API_KEY").then(|| KEY.to_owned())).unwrap()
}

fn question() -> ChatRequest {
    ChatRequest {
        purpose: "labels",
        system: "Name the things in the picture.".into(),
        user: "Which?".into(),
        image: Some(vec![0xff, 0xd8, 0xff, 0xd9].into()),
        schema: Some(Schema { name: "labels", value: json!({"type": "object"}) }),
        max_tokens: 100,
        temperature: Some(0.0),
    }
}

async fn ask(client: &ChatClient) -> Result<String, ChatError> {
    client.ask(&question(), &CancellationToken::new()).await
}

/// One word for how it went.
fn word(result: &Result<String, ChatError>) -> &'static str {
    result.as_ref().map_or_else(ChatError::kind, |_| "reply")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn every_fault_has_its_kind_and_ends() {
    let server = Server::start();
    // The kind of error, and the HTTP requests that it took.
    let faults = [
        (json!({"fault": "none"}), "reply", 1),
        (json!({"fault": "refuse"}), "transport", 3),
        (json!({"fault": "reset"}), "transport", 3),
        (json!({"fault": "hang"}), "timeout_read", 1),
        (json!({"fault": "rate_limit", "retry_after": 1, "times": 1}), "reply", 2),
        (json!({"fault": "rate_limit", "retry_after": 60}), "rate_limited", 1),
        (json!({"fault": "server_error"}), "server_error", 3),
        (json!({"fault": "server_error", "times": 2}), "reply", 3),
        (json!({"fault": "truncated"}), "malformed", 1),
        (json!({"fault": "cut_off"}), "transport", 3),
        (json!({"fault": "huge"}), "too_large", 1),
        (json!({"fault": "drip", "interval": 0.05}), "timeout_total", 1),
        (json!({"fault": "html"}), "content_type", 1),
        (json!({"fault": "wrong_schema"}), "reply", 1),
        (json!({"fault": "injected"}), "reply", 1),
        (json!({"fault": "long_labels"}), "reply", 1),
        (json!({"fault": "duplicate_keys"}), "reply", 1),
        (json!({"fault": "unauthorised"}), "unauthorised", 1),
        (json!({"fault": "rejects_format"}), "reply", 2),
        (json!({"fault": "reasoning"}), "reply", 3),
        (json!({"fault": "redirect"}), "redirect", 1),
        (json!({"fault": "length"}), "length", 1),
        (json!({"fault": "refusal"}), "refused", 1),
    ];
    println!("| fault | outcome | requests | seconds | after the fault | message |");
    println!("|---|---|---|---|---|---|");
    for (fault, expected, requests) in &faults {
        server.fault(fault);
        let mut config = server.config();
        // Short where they are what is tested. The drip takes over ten seconds.
        match *expected {
            "timeout_read" => config.timeouts.read = Duration::from_secs(3),
            "timeout_total" => config.timeouts.total = Duration::from_secs(5),
            _ => {}
        }
        let client = client(config);
        let runtime = runtime();
        let start = Instant::now();
        let result = runtime.block_on(ask(&client));
        let seconds = start.elapsed().as_secs_f64();
        let message = result.as_ref().map_or_else(ToString::to_string, |text| text.chars().take(60).collect());
        let status = client.status();
        server.fault(&json!({"fault": "none"}));
        // A long Retry-After is honoured after the fault as well.
        let after = word(&runtime.block_on(ask(&client)));
        println!("| {fault} | {} | {} | {seconds:.2} | {after} | {message} |", word(&result), status.requests);
        assert_eq!((word(&result), status.requests), (*expected, *requests), "{fault}");
        assert_eq!(after, if *expected == "rate_limited" { "open" } else { "reply" }, "{fault}");
        assert!(
            seconds < 60.0 && !message.contains(KEY) && !message.chars().any(char::is_control),
            "{fault}: {message}"
        );
        if result.is_err() {
            assert_eq!(status.failures.get(expected), Some(&1));
            assert_eq!(status.last_error, Some(message));
        }
    }
    let received = server.requests();
    assert!(received.iter().all(|request| request["path"] == "/v1/chat/completions"), "a redirect was followed");
    assert!(received.iter().all(|request| {
        let headers = request["headers"].as_object().unwrap();
        headers
            .iter()
            .any(|(name, value)| name.eq_ignore_ascii_case("authorization") && *value == format!("Bearer {KEY}"))
    }));
}

#[test]
fn nobody_there_is_no_connection() {
    let mut server = Server::start();
    let config = server.config();
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    let result = runtime().block_on(ask(&client(config)));
    println!("| nobody listens | {} | {} |", word(&result), result.unwrap_err());
}

#[test]
fn cancelling_takes_no_time_whatever_is_waited_for() {
    let server = Server::start();
    let patient = Duration::from_secs(30);
    let mut config = server.config();
    config.timeouts = Timeouts { connect: patient, read: patient, total: patient };
    config.retry = RetryConfig { retries: 5, max_retry_after: patient, ..config.retry };
    println!("| waiting for | cancelled after |\n|---|---|");
    for (what, fault) in [
        ("the reply's head (hang)", json!({"fault": "hang"})),
        ("the reply's body (drip)", json!({"fault": "drip", "interval": 1.0})),
        ("Retry-After", json!({"fault": "rate_limit", "retry_after": 20})),
        ("its turn behind another", json!({"fault": "hang"})),
    ] {
        server.fault(&fault);
        let client = client(config.clone());
        let took = runtime().block_on(async {
            let (first, cancel) = (CancellationToken::new(), CancellationToken::new());
            let waits = what.starts_with("its turn");
            let ahead = async { if waits { client.ask(&question(), &first).await.map(drop) } else { Ok(()) } };
            let behind = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let asked = question();
                let asking = client.ask(&asked, &cancel);
                let cancelling = async {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    cancel.cancel();
                    Instant::now()
                };
                let (result, cancelled) = tokio::join!(asking, cancelling);
                let took = cancelled.elapsed();
                assert_eq!(word(&result), "cancelled");
                first.cancel();
                took
            };
            tokio::join!(ahead, behind).1
        });
        println!("| {what} | {:.2} ms |", took.as_secs_f64() * 1e3);
        server.fault(&json!({"fault": "none"}));
        // What was cancelled does not count against the endpoint.
        assert_eq!(client.status().breaker, BreakerStatus::Closed);
    }
}

#[test]
fn the_breaker_opens_and_lets_a_trial_through() {
    let server = Server::start();
    let runtime = runtime();
    let opened = |pause| {
        let mut config = server.config();
        config.breaker = BreakerConfig { failures: 2, pause, ..config.breaker };
        let client = client(config);
        server.fault(&json!({"fault": "server_error"}));
        assert_eq!(word(&runtime.block_on(ask(&client))), "server_error");
        assert_eq!(client.status().requests, 2, "the third try is left out: the breaker is open");
        client
    };
    let half_open = |client: &ChatClient| {
        let start = Instant::now();
        while client.status().breaker != BreakerStatus::HalfOpen {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", client.status().breaker);
            std::thread::sleep(Duration::from_millis(20));
        }
    };

    // Longer than anything here stalls: what is said of an open breaker is said while it is open.
    let pause = Duration::from_secs(5);
    let fails_again = opened(pause);
    assert_eq!(word(&runtime.block_on(ask(&fails_again))), "open");
    half_open(&fails_again);
    assert_eq!(word(&runtime.block_on(ask(&fails_again))), "server_error");
    let status = fails_again.status();
    assert_eq!(status.requests, 3, "one trial");
    assert!(
        matches!(status.breaker, BreakerStatus::Open { retry_in } if retry_in > pause),
        "the pause has doubled: {:?}",
        status.breaker
    );
    assert_eq!(word(&runtime.block_on(ask(&fails_again))), "open");

    let recovers = opened(Duration::from_millis(100));
    half_open(&recovers);
    server.fault(&json!({"fault": "none"}));
    assert_eq!(runtime.block_on(ask(&recovers)).unwrap(), GOOD);
    assert_eq!(recovers.status().breaker, BreakerStatus::Closed);
}

#[test]
fn the_endpoints_word_goes_beyond_pauses_of_our_own() {
    let server = Server::start();
    let runtime = runtime();
    let hour = Duration::from_secs(3600);
    let date = httpdate::fmt_http_date(SystemTime::now() + hour);
    for wish in [json!(3600), json!(date)] {
        server.fault(&json!({"fault": "rate_limit", "retry_after": wish}));
        let config = server.config();
        assert!(config.breaker.max_pause < hour);
        let client = client(config);
        assert_eq!(word(&runtime.block_on(ask(&client))), "rate_limited");
        let status = client.status();
        // Less what the test itself takes.
        let long = hour - Duration::from_secs(300)..=hour;
        assert!(
            matches!(status.breaker, BreakerStatus::Open { retry_in } if long.contains(&retry_in)),
            "{wish}: {:?}",
            status.breaker
        );
        let refused = runtime.block_on(ask(&client));
        assert_eq!(word(&refused), "open");
        // Whoever asks is told when it is tried again.
        let message = refused.unwrap_err().to_string();
        let seconds = message.split(' ').find_map(|part| part.parse::<u64>().ok()).unwrap();
        assert!(long.contains(&Duration::from_secs(seconds)), "{message}");
        assert_eq!(client.status().requests, 1);
    }
}

#[test]
fn one_request_is_in_flight_and_few_wait() {
    let server = Server::start();
    let mut config = server.config();
    config.max_waiting = 1;
    let client = client(config);
    server.fault(&json!({"fault": "drip", "interval": 0.001}));
    let (a, b, c) = runtime().block_on(async { tokio::join!(ask(&client), ask(&client), ask(&client)) });
    assert_eq!([&a, &b, &c].map(word), ["reply", "reply", "busy"]);
}

#[test]
fn the_budget_is_kept() {
    let server = Server::start();
    let mut config = server.config();
    config.requests_per_hour = 3;
    let client = client(config);
    server.fault(&json!({"fault": "server_error", "times": 1}));
    let runtime = runtime();
    let outcomes = [(); 3].map(|()| word(&runtime.block_on(ask(&client))));
    assert_eq!(outcomes, ["reply", "reply", "budget"]);
    let status = client.status();
    assert_eq!((status.requests, status.replies, status.requests_left_this_hour), (3, 2, 0));
    assert!(status.last_error.unwrap().contains("3 requests per hour"));
}

#[test]
fn a_server_without_response_format_is_remembered() {
    let server = Server::start();
    server.fault(&json!({"fault": "rejects_format"}));
    let runtime = runtime();
    let auto = client(server.config());
    assert_eq!(runtime.block_on(ask(&auto)).unwrap(), GOOD);
    assert_eq!(runtime.block_on(ask(&auto)).unwrap(), GOOD);
    let formats: Vec<_> =
        server.requests().iter().map(|request| request["body"].get("response_format").is_some()).collect();
    assert_eq!(formats, [true, false, false]);
    let always = client(ChatConfig { structured: Structured::Always, ..server.config() });
    assert_eq!(word(&runtime.block_on(ask(&always))), "rejected");
    let never = client(ChatConfig { structured: Structured::Never, ..server.config() });
    assert_eq!(runtime.block_on(ask(&never)).unwrap(), GOOD);
}

#[test]
fn what_a_reasoning_model_does_not_take_is_remembered() {
    let server = Server::start();
    server.fault(&json!({"fault": "reasoning"}));
    let (runtime, client) = (runtime(), client(server.config()));
    assert_eq!(runtime.block_on(ask(&client)).unwrap(), GOOD);
    assert_eq!(runtime.block_on(ask(&client)).unwrap(), GOOD);
    let requests = server.requests();
    let has = |part: &str| requests.iter().map(|request| request["body"].get(part).is_some()).collect::<Vec<_>>();
    assert_eq!(has("max_tokens"), [true, false, false, false]);
    assert_eq!(has("max_completion_tokens"), [false, true, true, true]);
    assert_eq!(has("temperature"), [true, true, false, false]);
    assert_eq!(has("response_format"), [true; 4]);
}

#[test]
fn a_recording_answers_without_server_and_key() {
    let server = Server::start();
    let path = std::env::temp_dir().join(format!("scenelex_chat_faults_{}.jsonl", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let runtime = runtime();
    let recording = client(ChatConfig { record: Some(path.clone()), ..server.config() });
    runtime.block_on(ask(&recording)).unwrap();
    server.fault(&json!({"fault": "unauthorised"}));
    assert_eq!(word(&runtime.block_on(ask(&recording))), "unauthorised");
    assert!(!std::fs::read_to_string(&path).unwrap().contains(KEY));
    let received = server.requests().len();

    let config = ChatConfig { replay: Some(path.clone()), ..server.config() };
    let replaying = ChatClient::with_environment(config.clone(), |_| None).unwrap();
    let outcomes = [(); 3].map(|()| word(&runtime.block_on(ask(&replaying))));
    assert_eq!(outcomes, ["reply", "unauthorised", "unauthorised"]);
    let other = ChatRequest { user: "Something else".into(), ..question() };
    let missed = runtime.block_on(replaying.ask(&other, &CancellationToken::new()));
    assert_eq!(word(&missed), "replay_miss");
    assert_eq!((replaying.status().replayed, server.requests().len()), (3, received));

    server.fault(&json!({"fault": "none"}));
    let either = client(ChatConfig { replay_miss: ReplayMiss::Ask, ..config });
    let asked = runtime.block_on(either.ask(&other, &CancellationToken::new()));
    assert_eq!((asked.unwrap().as_str(), either.status().requests), (GOOD, 1));
    let _ = std::fs::remove_file(&path);
}
