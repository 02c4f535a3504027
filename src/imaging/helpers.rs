//! Threads that take part in the caller's work if they come in time.
//!
//! On a virtual machine a sleeping thread takes up to half a millisecond to wake, which is as long as one thread takes for a
//! whole small image. So the caller begins at once, and what it offered is taken back from those who have not come when
//! it is done. rayon's scopes wait for every thread that was given something.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

/// What a helper and the caller have between them.
#[derive(Default)]
enum Offer {
    /// Nothing, or nothing any more.
    #[default]
    Nothing,
    /// Borrowed from the caller, who takes it back.
    Work(&'static (dyn Fn() + Sync)),
    /// The helper is at it.
    Taken,
    /// The helper panicked, with this.
    Panicked(Box<dyn Any + Send>),
    /// The helper is to end.
    End,
}

/// Where offers are made. Of helper and caller one waits at most.
#[derive(Default)]
struct Place {
    offer: Mutex<Offer>,
    changed: Condvar,
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, Offer> {
        self.offer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'o>(&self, offer: MutexGuard<'o, Offer>) -> MutexGuard<'o, Offer> {
        self.changed.wait(offer).unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, offer: Offer) {
        *self.lock() = offer;
        self.changed.notify_one();
    }

    /// The helper's thread.
    fn serve(&self) {
        let mut offer = self.lock();
        loop {
            match *offer {
                Offer::Work(work) => {
                    *offer = Offer::Taken;
                    drop(offer);
                    self.put(catch_unwind(AssertUnwindSafe(work)).map_or_else(Offer::Panicked, |()| Offer::Nothing));
                    offer = self.lock();
                }
                Offer::End => return,
                _ => offer = self.wait(offer),
            }
        }
    }

    /// Takes an offer back, or waits until it is done. Returns with what the helper panicked.
    fn take_back(&self) -> Option<Box<dyn Any + Send>> {
        let mut offer = self.lock();
        while matches!(*offer, Offer::Taken) {
            offer = self.wait(offer);
        }
        match std::mem::take(&mut *offer) {
            Offer::Panicked(payload) => Some(payload),
            _ => None,
        }
    }
}

/// Threads that wait for work.
#[derive(Default)]
pub(super) struct Helpers {
    places: Vec<Arc<Place>>,
    threads: Vec<JoinHandle<()>>,
}

impl Helpers {
    /// Starts `count` threads, named `name` and a number from 1 on.
    pub(super) fn start(count: usize, name: &str) -> std::io::Result<Self> {
        let mut helpers = Self::default();
        for index in 1..=count {
            let place = Arc::new(Place::default());
            helpers.places.push(Arc::clone(&place));
            let thread = std::thread::Builder::new().name(format!("{name}-{index}")).spawn(move || place.serve())?;
            helpers.threads.push(thread);
        }
        Ok(helpers)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.threads.len()
    }

    /// Runs `work` here and on up to `most` helpers at once; returns when it has returned wherever it had begun. So `work`
    /// must do whatever is left to do, and nothing where that is nothing.
    pub(super) fn share(&mut self, most: usize, work: &(dyn Fn() + Sync)) {
        // SAFETY: only the lifetime is changed. `offered` is dropped before this function is left, be it by a panic, and then no
        // helper has the reference or is at work.
        let borrowed = unsafe { std::mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(work) };
        let offered = Offered(&self.places[..most.min(self.places.len())]);
        for place in offered.0 {
            place.put(Offer::Work(borrowed));
        }
        work();
    }
}

/// Work that was offered and has to be taken back.
struct Offered<'p>(&'p [Arc<Place>]);

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        let mut panicked = None;
        for place in self.0 {
            panicked = place.take_back().or(panicked);
        }
        if let Some(payload) = panicked.filter(|_| !std::thread::panicking()) {
            resume_unwind(payload);
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        for place in &self.places {
            place.put(Offer::End);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Helpers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Helpers").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn everything_is_done_once_and_before_it_returns() {
        let mut helpers = Helpers::start(3, "test").unwrap();
        for round in 0..2_000 {
            let parts: Vec<AtomicUsize> = (0..round % 9).map(|_| AtomicUsize::new(0)).collect();
            let next = AtomicUsize::new(0);
            helpers.share(round % 5, &|| {
                while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    part.fetch_add(1, Ordering::Relaxed);
                }
            });
            assert!(parts.iter().all(|part| part.load(Ordering::Relaxed) == 1), "round {round}");
        }
    }

    /// Neither caller nor helper returns before both are there.
    fn meet(helpers: &mut Helpers) {
        let both = std::sync::Barrier::new(2);
        helpers.share(1, &|| {
            both.wait();
        });
    }

    #[test]
    fn helpers_really_take_part() {
        meet(&mut Helpers::start(1, "test").unwrap());
    }

    #[test]
    fn a_panic_reaches_the_caller_and_helpers_stay() {
        let mut helpers = Helpers::start(1, "test").unwrap();
        let caller = std::thread::current().id();
        for on_caller in [true, false] {
            let both = std::sync::Barrier::new(2);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                helpers.share(1, &|| {
                    both.wait();
                    assert!((std::thread::current().id() == caller) != on_caller, "on purpose");
                });
            }));
            assert_eq!(outcome.unwrap_err().downcast_ref::<&str>(), Some(&"on purpose"));
        }
        meet(&mut helpers);
    }
}
