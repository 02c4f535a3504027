//! Places for one value of each of several sources, between their threads and the one that takes; the newest wins.
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
    /// Everything is closed, or there is no such source; the value comes back.
    Closed(T),
}

/// What came of waiting for a value.
#[derive(Debug, PartialEq, Eq)]
pub enum Take<T> {
    /// The newest value.
    Value(T),
    /// Nothing came in time.
    TimedOut,
    /// Closed and empty.
    Closed,
}

/// A slot for the newest value of each source. Shared by reference or `Arc`; every method takes `&self`.
#[derive(Debug)]
pub struct LatestSlots<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    values: Vec<Option<T>>,
    /// The source whose turn it is. Sources take turns, so one that is fast cannot keep another from being served.
    next: usize,
    closed: bool,
    /// Whoever waits is to go on without a value.
    woken: bool,
}

impl<T> State<T> {
    /// The first value that waits of a source that is `wanted`, counted from the one whose turn it is.
    fn take(&mut self, wanted: impl Fn(usize) -> bool) -> Option<(usize, T)> {
        let turns = (self.next..self.values.len()).chain(0..self.next);
        for source in turns.filter(|source| wanted(*source)) {
            if let Some(value) = self.values.get_mut(source).and_then(Option::take) {
                self.next = (source + 1) % self.values.len();
                return Some((source, value));
            }
        }
        None
    }
}

impl<T> LatestSlots<T> {
    /// Empty, open slots of as many sources.
    #[must_use]
    pub fn new(sources: usize) -> Self {
        let values = std::iter::repeat_with(|| None).take(sources).collect();
        Self { state: Mutex::new(State { values, next: 0, closed: false, woken: false }), changed: Condvar::new() }
    }

    // A panic while the lock is held cannot leave the state half changed, so poisoning says nothing here.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a value of `source`, replacing one that was not taken yet.
    pub fn put(&self, source: usize, value: T) -> Put<T> {
        let mut state = self.lock();
        if state.closed {
            return Put::Closed(value);
        }
        let Some(slot) = state.values.get_mut(source) else { return Put::Closed(value) };
        let old = slot.replace(value);
        drop(state);
        self.changed.notify_one();
        old.map_or(Put::Stored, Put::Replaced)
    }

    /// Waits up to `timeout` for a value of any source and takes it; sources that have one waiting take turns. A value put
    /// before the slots were closed is still handed out.
    pub fn take_blocking(&self, timeout: Duration) -> Take<(usize, T)> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(taken) = state.take(|_| true) {
                return Take::Value(taken);
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

    /// Takes a value that waits, if there is one, of the sources that are `wanted`.
    pub fn try_take(&self, wanted: impl Fn(usize) -> bool) -> Option<(usize, T)> {
        self.lock().take(wanted)
    }

    /// Closes the slots: waiting threads wake, later values are refused.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn the_newest_wins() {
        let slots = LatestSlots::new(1);
        assert_eq!(slots.put(0, 1), Put::Stored);
        assert_eq!(slots.put(0, 2), Put::Replaced(1));
        assert_eq!(slots.put(0, 3), Put::Replaced(2));
        assert_eq!(slots.put(1, 4), Put::Closed(4), "there is no such source");
        assert_eq!(slots.take_blocking(SOON), Take::Value((0, 3)));
        assert_eq!(slots.take_blocking(Duration::ZERO), Take::TimedOut);
    }

    #[test]
    fn sources_take_turns() {
        let slots = LatestSlots::new(3);
        let mut served = [0; 3];
        for round in 0..62 {
            // Source 0 always has a new value, source 1 every third time, source 2 every fifth; at last only source 0.
            for (source, every) in [(0, 1), (1, 3), (2, 5)] {
                if round % every == 0 && (source == 0 || round < 60) {
                    slots.put(source, round);
                }
            }
            let Take::Value((source, value)) = slots.take_blocking(SOON) else { panic!("a value waits") };
            assert!(round - value < 3, "source {source} waits for two others at most");
            served[source] += 1;
        }
        assert_eq!((served[1], served[2]), (20, 12), "the fast one takes nothing from the others");
    }

    #[test]
    fn unwanted_sources_keep_their_values() {
        let slots = LatestSlots::new(2);
        slots.put(0, 'a');
        slots.put(1, 'b');
        assert_eq!(slots.try_take(|source| source == 1), Some((1, 'b')));
        assert_eq!(slots.try_take(|source| source == 1), None);
        assert_eq!(slots.try_take(|_| true), Some((0, 'a')));
    }

    #[test]
    fn closing_wakes_and_still_hands_out_the_last() {
        let slots = Arc::new(LatestSlots::new(2));
        let waiting = Arc::clone(&slots);
        let thread = std::thread::Builder::new().name("taker".into()).spawn(move || {
            let first = waiting.take_blocking(SOON);
            (first, waiting.take_blocking(SOON))
        });
        slots.put(1, 7);
        let thread = thread.unwrap();
        while slots.state.lock().unwrap().values[1].is_some() {
            std::thread::yield_now();
        }
        slots.close();
        assert_eq!(thread.join().unwrap(), (Take::Value((1, 7)), Take::Closed));
        assert_eq!(slots.put(1, 8), Put::Closed(8));

        let full = LatestSlots::new(1);
        full.put(0, 9);
        full.close();
        assert_eq!(full.take_blocking(Duration::ZERO), Take::Value((0, 9)));
        assert_eq!(full.take_blocking(Duration::ZERO), Take::Closed);
    }
}
