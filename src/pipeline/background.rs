//! Work that must not be felt: the vocabulary loop's models run beside the frame loop's, on the same processor.
//!
//! Two things keep them apart. The thread runs under the system's idle policy, so that it gets a core only where nobody
//! else wants one. And it begins a piece of work (one run of a model) only while no frame is under way: what shares caches
//! and memory with a frame makes it slower even on a core of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long work waits for a gap between frames at most. A node whose frames leave no gap still gets its list refreshed.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often waiting work looks whether the frame is over.
const LOOK: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
struct State {
    frame: AtomicBool,
    stop: AtomicBool,
}

/// Tells background work when it may go on. Cheap to clone; every clone is the same gate.
///
/// The frame loop only stores a flag. With a lock or a condition variable it would now and then wait for the background
/// thread, which may hold that and have no core: an idle thread is not raised for those who wait for it.
#[derive(Clone, Debug, Default)]
pub struct FrameGate(Arc<State>);

/// A frame under way; ends when dropped.
#[derive(Debug)]
pub struct FrameUnderWay<'g>(&'g FrameGate);

impl Drop for FrameUnderWay<'_> {
    fn drop(&mut self) {
        self.0.0.frame.store(false, Ordering::Release);
    }
}

impl FrameGate {
    /// Marks the frame that begins.
    #[must_use]
    pub fn begin_frame(&self) -> FrameUnderWay<'_> {
        self.0.frame.store(true, Ordering::Release);
        FrameUnderWay(self)
    }

    /// Waits for a gap between two frames, at most half a second; false once the work is to end.
    #[must_use]
    pub fn wait_for_gap(&self) -> bool {
        let begun = Instant::now();
        while self.0.frame.load(Ordering::Acquire) && !self.is_stopped() && begun.elapsed() < PATIENCE {
            thread::sleep(LOOK);
        }
        !self.is_stopped()
    }

    /// Ends the work: whoever waits, or asks next, is told so.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
    }

    /// Whether the work is to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.stop.load(Ordering::Acquire)
    }
}

/// Gives the calling thread a core only where no other thread wants it. Where the system has no such policy, or does not
/// grant it, the thread runs as before.
pub fn run_idle() {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::{
            NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
            thread_native_id,
        };
        let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy) {
            tracing::warn!(?error, "background work runs at ordinary priority");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_waits_for_the_end_of_a_frame_and_not_for_ever() {
        let gate = FrameGate::default();
        assert!(gate.wait_for_gap());
        let frame = gate.begin_frame();
        let begun = Instant::now();
        assert!(gate.wait_for_gap(), "a frame that does not end is not waited for");
        assert!(begun.elapsed() >= PATIENCE);
        let waiting = gate.clone();
        let thread = std::thread::Builder::new().name("work".into()).spawn(move || waiting.wait_for_gap()).unwrap();
        drop(frame);
        assert!(thread.join().unwrap());
        gate.stop();
        assert!(!gate.wait_for_gap());
    }
}
