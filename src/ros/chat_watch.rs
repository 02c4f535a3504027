//! How the language model's client does, for diagnostics that must not wait for it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use tokio::runtime::Runtime;

use crate::vocabulary::chat::{ChatClient, ChatStatus};

/// How long the client is waited for.
const PATIENCE: Duration = Duration::from_millis(20);

/// Asks the language model's client how it does. The refresh thread may be without a core for long just while it holds the
/// client's lock, so a thread of the client's runtime asks, and is not waited for long.
pub struct ChatWatch {
    client: Arc<ChatClient>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    last: Option<ChatStatus>,
    /// What is not answered yet.
    asked: Option<Receiver<ChatStatus>>,
}

impl ChatWatch {
    pub fn new(client: Arc<ChatClient>) -> Self {
        Self { client, seen: Mutex::default() }
    }

    /// How it does now; without an answer in time, as far as is known.
    pub fn status(&self, runtime: &Runtime) -> Option<ChatStatus> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = seen.asked.take().unwrap_or_else(|| {
            let (sender, answer) = bounded(1);
            let client = Arc::clone(&self.client);
            runtime.spawn(async move {
                let _ = sender.try_send(client.status());
            });
            answer
        });
        match asked.recv_timeout(PATIENCE) {
            Ok(status) => seen.last = Some(status),
            Err(RecvTimeoutError::Timeout) => seen.asked = Some(asked),
            // The runtime has ended.
            Err(RecvTimeoutError::Disconnected) => {}
        }
        seen.last.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        ros::testing::until,
        vocabulary::chat::{ChatConfig, ChatRequest},
    };

    #[test]
    fn the_client_is_asked_how_it_does_while_a_question_hangs() {
        // Whoever connects waits for an answer that does not come.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}/v1", silent.local_addr().unwrap());
        let config = ChatConfig { base_url, key_variable: String::new(), ..ChatConfig::default() };
        let client = Arc::new(ChatClient::with_environment(config, |_| None).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (watch, cancel) = (ChatWatch::new(Arc::clone(&client)), CancellationToken::new());
        let requests = || watch.status(&runtime).map(|status| status.requests);
        until("the client answers", || requests() == Some(0));
        let cancelled = cancel.clone();
        let question = ChatRequest {
            purpose: "test",
            system: String::new(),
            user: "Are you there?".to_owned(),
            image: None,
            schema: None,
            max_tokens: 16,
            temperature: None,
        };
        let asked = runtime.spawn(async move { client.ask(&question, &cancelled).await });
        until("the question is seen", || requests() == Some(1));
        assert!(!asked.is_finished());
        cancel.cancel();
        runtime.shutdown_background();
    }
}
