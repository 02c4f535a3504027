//! SIGINT and SIGTERM for commands that wait.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use tokio::signal::unix::{SignalKind, signal};

use super::{INTERRUPTED, leave};

/// Knows whether the program was asked to end. A second signal ends it at once.
#[derive(Clone)]
pub struct Interrupt {
    raised: Arc<AtomicBool>,
    /// Never carries anything; disconnected by the first signal, which wakes every waiting thread.
    closed: Receiver<()>,
}

impl Interrupt {
    /// Takes over SIGINT and SIGTERM.
    pub fn install() -> io::Result<Self> {
        let raised = Arc::new(AtomicBool::new(false));
        let (guard, closed) = bounded::<()>(0);
        let (ready, is_ready) = bounded::<io::Result<()>>(1);
        let flag = Arc::clone(&raised);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            runtime.block_on(async move {
                let (mut interrupt, mut terminate) =
                    match signal(SignalKind::interrupt()).and_then(|i| Ok((i, signal(SignalKind::terminate())?))) {
                        Ok(signals) => signals,
                        Err(error) => {
                            let _ = ready.send(Err(error));
                            return;
                        }
                    };
                let _ = ready.send(Ok(()));
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                flag.store(true, Ordering::SeqCst);
                drop(guard);
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                leave(i32::from(INTERRUPTED));
            });
        })?;
        is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("the signal thread ended")))?;
        Ok(Self { raised, closed })
    }

    /// Whether a signal came.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// Waits until `deadline` or a signal; true when a signal came.
    pub fn wait_until(&self, deadline: Instant) -> bool {
        !matches!(self.closed.recv_deadline(deadline), Err(RecvTimeoutError::Timeout)) || self.is_raised()
    }

    /// Waits for `duration` or a signal; true when a signal came.
    pub fn wait(&self, duration: Duration) -> bool {
        Instant::now().checked_add(duration).is_none_or(|deadline| self.wait_until(deadline))
    }

    /// Disconnected by the first signal; for `select!`.
    pub const fn closed(&self) -> &Receiver<()> {
        &self.closed
    }
}
