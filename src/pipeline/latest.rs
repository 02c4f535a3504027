//! A place for one value between two threads, where the newest wins.
//!
//! A queue in front of a slow model would make every result old. Here a new frame takes the place of the one that waits,
//! so what the model gets is never older than the time it took for the frame before.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What became of a value that was put.
#[derive(Debug, PartialEq, Eq)]
pub enum Put<T> {
    /// It waits to be taken.
    Stored,
    /// It waits to be taken; the older one it replaced comes back (its buffers can be reused).
    Replaced(T),
    /// The slot is closed; the value comes back.
    Closed(T),
}

/// What came of waiting for a value.
#[derive(Debug, PartialEq, Eq)]
pub enum Take<T> {
    /// The newest value.
    Value(T),
    /// Nothing came in time.
    TimedOut,
    /// The slot is closed and empty.
    Closed,
}

/// A slot for the newest value. Shared by reference or `Arc`; every method takes `&self`.
#[derive(Debug)]
pub struct LatestSlot<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    closed: bool,
    /// Whoever waits is to go on without a value.
    woken: bool,
    dropped: u64,
}

impl<T> Default for LatestSlot<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> LatestSlot<T> {
    /// An empty, open slot.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State { value: None, closed: false, woken: false, dropped: 0 }),
            changed: Condvar::new(),
        }
    }

    // A panic while the lock is held cannot leave the state half changed, so poisoning says nothing here.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a value, replacing one that was not taken yet.
    pub fn put(&self, value: T) -> Put<T> {
        let mut state = self.lock();
        if state.closed {
            return Put::Closed(value);
        }
        let old = state.value.replace(value);
        if old.is_some() {
            state.dropped += 1;
        }
        drop(state);
        self.changed.notify_one();
        old.map_or(Put::Stored, Put::Replaced)
    }

    /// Waits up to `timeout` for a value and takes it. A value put before the slot was closed is still handed out.
    pub fn take_blocking(&self, timeout: Duration) -> Take<T> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(value) = state.value.take() {
                return Take::Value(value);
            }
            if state.closed {
                return Take::Closed;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || std::mem::take(&mut state.woken) {
                return Take::TimedOut;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has whoever waits for a value, or does so next, go on without one, once.
    pub fn wake(&self) {
        self.lock().woken = true;
        self.changed.notify_one();
    }

    /// Takes the value if there is one.
    pub fn try_take(&self) -> Option<T> {
        self.lock().value.take()
    }

    /// Closes the slot: waiting threads wake, later values are refused.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Number of values that were replaced before anyone took them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn the_newest_wins_and_drops_are_counted() {
        let slot = LatestSlot::new();
        assert_eq!(slot.put(1), Put::Stored);
        assert_eq!(slot.put(2), Put::Replaced(1));
        assert_eq!(slot.put(3), Put::Replaced(2));
        assert_eq!(slot.take_blocking(SOON), Take::Value(3));
        assert_eq!(slot.dropped(), 2);
        assert_eq!(slot.take_blocking(Duration::ZERO), Take::TimedOut);
    }

    #[test]
    fn closing_wakes_and_still_hands_out_the_last() {
        let slot = Arc::new(LatestSlot::new());
        let waiting = Arc::clone(&slot);
        let thread = std::thread::Builder::new().name("taker".into()).spawn(move || {
            let first = waiting.take_blocking(SOON);
            (first, waiting.take_blocking(SOON))
        });
        slot.put(7);
        let thread = thread.unwrap();
        while slot.state.lock().unwrap().value.is_some() {
            std::thread::yield_now();
        }
        slot.close();
        assert_eq!(thread.join().unwrap(), (Take::Value(7), Take::Closed));
        assert_eq!(slot.put(8), Put::Closed(8));

        let full = LatestSlot::new();
        full.put(9);
        full.close();
        assert_eq!(full.take_blocking(Duration::ZERO), Take::Value(9));
        assert_eq!(full.take_blocking(Duration::ZERO), Take::Closed);
    }
}
