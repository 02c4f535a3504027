//! How an image, and whoever asked for a look at it, gets to the thread of the vocabulary loop.
//!
//! After a result is published the frame loop offers its image ([`SceneTap::offer`]), which sees whether a look is due and
//! makes one copy into a reused buffer when it is. The thread may be without a core for long, so nobody shares a lock with
//! it: images are handed over by atomic pointers.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::Thread,
    time::{Duration, Instant},
};

use crossbeam::{
    atomic::AtomicCell,
    channel::{Receiver, RecvTimeoutError, Sender, bounded},
};
use tokio_util::sync::CancellationToken;

use crate::{
    imaging::SceneSignature,
    pipeline::FrameGate,
    types::{FrameResult, RgbImage, UNLABELLED},
    vocabulary::schedule::{Reason, Schedule, Unmatched},
};

/// Callers of `~/refresh_vocabulary` that may wait at the same time.
const WAITING_CALLERS: usize = 8;

/// What a camera that sent no image for so long saw last is no part of the scene any more.
const SILENCE: Duration = Duration::from_secs(10);

const STOPPING: &str = "the node is stopping";

/// An image to look at.
pub struct Look {
    pub image: RgbImage,
    pub camera: usize,
    /// Cameras that send images: the list is one for what all of them see.
    pub live: Vec<usize>,
    pub reason: Reason,
    /// Who asked for it.
    pub callers: Vec<Caller>,
}

/// What becomes of a look: the list in a few words, or why there is none.
pub type Outcome = Result<String, String>;

/// Somebody who waits for what becomes of a look.
pub struct Caller {
    reply: Sender<Outcome>,
    /// The caller's own end, to know it by.
    answer: Receiver<Outcome>,
}

/// Tells those who wait what became of it.
pub fn answer(callers: &[Caller], outcome: &Outcome) {
    for caller in callers {
        // Who has gone meanwhile needs no answer.
        let _ = caller.reply.try_send(outcome.clone());
    }
}

/// What the thread shares with the frame loop and the service.
#[derive(Default)]
pub struct Looks {
    next: AtomicCell<Option<Box<Look>>>,
    /// The image of an earlier look, for its memory.
    spare: AtomicCell<Option<Box<RgbImage>>>,
    requested: AtomicBool,
    /// A look is under way or waits to be.
    busy: AtomicBool,
    gate: FrameGate,
    cancel: CancellationToken,
    /// Shared by the frame loop and the service, never by the thread.
    callers: Mutex<Vec<Caller>>,
}

impl Looks {
    /// The thread's next look.
    pub fn take(&self) -> Option<Look> {
        self.next.take().map(|look| *look)
    }

    /// The thread has taken a look, and this was its image.
    pub fn taken(&self, image: RgbImage) {
        self.spare.store(Some(Box::new(image)));
        self.busy.store(false, Ordering::Release);
    }

    /// Where the thread waits for the gaps between frames, and what says that it is to end.
    pub fn gate(&self) -> &FrameGate {
        &self.gate
    }

    /// What ends the look under way.
    pub fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    fn callers(&self) -> MutexGuard<'_, Vec<Caller>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who waits that nothing comes any more, also those of a look that has not begun.
    fn send_away(&self) {
        let mut callers = std::mem::take(&mut *self.callers());
        if let Some(look) = self.next.take() {
            callers.extend(look.callers);
        }
        answer(&callers, &Err(STOPPING.to_owned()));
    }
}

/// The frame loop's end.
pub struct SceneTap {
    schedule: Schedule,
    looks: Arc<Looks>,
    thread: Thread,
    cameras: Vec<Watched>,
}

/// What is known of a camera's scene.
#[derive(Default)]
struct Watched {
    last_image: Option<Instant>,
    /// The picture of the last look, and when that was.
    last: Option<(SceneSignature, Instant)>,
    /// Detections without a class.
    unmatched: Unmatched,
}

impl SceneTap {
    /// Of so many cameras; `thread` is woken for each look.
    pub(super) fn new(schedule: Schedule, looks: Arc<Looks>, cameras: usize, thread: Thread) -> Self {
        Self { schedule, looks, thread, cameras: std::iter::repeat_with(Watched::default).take(cameras).collect() }
    }

    /// Where a frame says that it is under way.
    #[must_use]
    pub fn gate(&self) -> FrameGate {
        self.looks.gate.clone()
    }

    /// Looks whether a camera's image is worth a look and, if so, hands a copy over. Never waits.
    pub fn offer(&mut self, camera: usize, image: &RgbImage, result: &FrameResult) {
        let now = Instant::now();
        let Some(watched) = self.cameras.get_mut(camera) else { return };
        watched.last_image = Some(now);
        let without_class = result.instances.iter().filter(|i| i.class_id == UNLABELLED).count();
        watched.unmatched.count(result.instances.len(), without_class);
        if self.looks.busy.load(Ordering::Acquire) {
            return;
        }
        let signature = SceneSignature::of(image);
        let difference = watched.last.as_ref().map_or(1.0, |(last, _)| last.difference(&signature));
        let requested = self.looks.requested.load(Ordering::Acquire);
        let since = watched.last.as_ref().map(|(_, at)| *at);
        let unmatched = watched.unmatched.risen(&self.schedule, now, since);
        let Some(reason) = self.schedule.due(now, since, requested, difference, unmatched) else { return };
        self.looks.requested.store(false, Ordering::Release);
        self.looks.busy.store(true, Ordering::Release);
        watched.last = Some((signature, now));
        watched.unmatched.looked();
        let lives = |watched: &Watched| watched.last_image.is_some_and(|last| now.duration_since(last) < SILENCE);
        let live = self.cameras.iter().enumerate().filter_map(|(index, watched)| lives(watched).then_some(index));
        let mut copy = self.looks.spare.take().map_or_else(RgbImage::default, |image| *image);
        copy.size = image.size;
        copy.data.clone_from(&image.data);
        let callers = std::mem::take(&mut *self.looks.callers());
        self.looks.next.store(Some(Box::new(Look { image: copy, camera, live: live.collect(), reason, callers })));
        if self.looks.gate.is_stopped() {
            // The thread may have ended already.
            self.looks.send_away();
        }
        self.thread.unpark();
    }
}

/// A handle on the loop. Cheap to clone.
#[derive(Clone)]
pub struct RefreshHandle(Arc<Looks>);

impl RefreshHandle {
    pub(super) fn new(looks: Arc<Looks>) -> Self {
        Self(looks)
    }

    /// Ends the look under way, at the latest when the run of a model that it waits for is over; no other begins.
    pub fn stop(&self) {
        self.0.gate.stop();
        self.0.cancel.cancel();
        self.0.send_away();
    }

    /// Has the next image looked at, whatever the schedule says; tells what became of it.
    ///
    /// # Errors
    /// When too many callers wait already, the node is stopping, or there is no answer within `patience`; and why there is no
    /// list.
    pub fn look(&self, patience: Duration) -> Result<String, String> {
        let asked = self.request()?;
        match asked.recv_timeout(patience) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Disconnected) => {
                Err("the vocabulary loop has ended; the node's log says why".to_owned())
            }
            Err(RecvTimeoutError::Timeout) if self.give_up(&asked) => {
                Err(format!("no image was looked at within {} s", patience.as_secs()))
            }
            // It may just have ended.
            Err(RecvTimeoutError::Timeout) => asked.try_recv().unwrap_or_else(|_| {
                let seconds = patience.as_secs();
                Err(format!("the look takes longer than {seconds} s; /diagnostics will tell what became of it"))
            }),
        }
    }

    /// No longer waits; false where an image is being looked at, or was, for this caller.
    fn give_up(&self, asked: &Receiver<Outcome>) -> bool {
        let mut callers = self.0.callers();
        let waiting = callers.len();
        callers.retain(|caller| !caller.answer.same_channel(asked));
        callers.len() < waiting
    }

    /// Joins those who wait.
    fn request(&self) -> Result<Receiver<Outcome>, String> {
        let (reply, answer) = bounded(1);
        let mut callers = self.0.callers();
        // `stop` sets this before it answers those who wait: nobody can come to wait behind it.
        if self.0.gate.is_stopped() {
            return Err(STOPPING.to_owned());
        }
        if callers.len() >= WAITING_CALLERS {
            return Err(format!("{WAITING_CALLERS} callers wait for a refresh already"));
        }
        callers.push(Caller { reply, answer: answer.clone() });
        drop(callers);
        self.0.requested.store(true, Ordering::Release);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::{
        ros::testing::{LONG, until},
        types::ImageSize,
    };

    /// A loop whose thread never gets a core: both of its ends.
    fn stuck() -> (RefreshHandle, SceneTap) {
        let looks = Arc::new(Looks::default());
        let schedule =
            Schedule { period: Duration::ZERO, min_interval: Duration::ZERO, scene_change: 0.0, unmatched: 0.0 };
        (RefreshHandle::new(Arc::clone(&looks)), SceneTap::new(schedule, looks, 1, thread::current()))
    }

    /// Offers an image when a caller waits, who is patient for so long; then does `more`. Gives what the caller is told.
    fn asked_for(patience: Duration, more: impl FnOnce(&RefreshHandle)) -> Outcome {
        let (handle, mut tap) = stuck();
        let image = RgbImage { size: ImageSize::new(8, 8), data: vec![0; 192] };
        thread::scope(|scope| {
            let caller = scope.spawn(|| handle.look(patience));
            until("a caller waits", || handle.0.requested.load(Ordering::Acquire));
            tap.offer(0, &image, &FrameResult::default());
            more(&handle);
            caller.join().unwrap()
        })
    }

    #[test]
    fn who_gave_up_leaves_room_for_others() {
        let (handle, _tap) = stuck();
        for _ in 0..2 * WAITING_CALLERS {
            assert_eq!(handle.look(Duration::ZERO), Err("no image was looked at within 0 s".to_owned()));
        }
        let waiting: Vec<_> = (0..WAITING_CALLERS).map(|_| handle.request().unwrap()).collect();
        assert!(handle.request().unwrap_err().contains("callers wait"));
        assert!(handle.give_up(&waiting[3]) && !handle.give_up(&waiting[3]));
        handle.request().unwrap();
    }

    #[test]
    fn a_look_that_takes_long_is_not_called_none() {
        let error = asked_for(Duration::from_secs(1), |_| ()).unwrap_err();
        assert!(error.contains("longer than 1 s"), "{error}");
    }

    #[test]
    fn nobody_waits_for_a_look_that_the_end_comes_before() {
        assert_eq!(asked_for(LONG, RefreshHandle::stop), Err(STOPPING.to_owned()));
    }

    #[test]
    fn nobody_waits_for_a_look_that_is_offered_after_the_end() {
        let (handle, mut tap) = stuck();
        let asked = handle.request().unwrap();
        // The caller's place is taken before the end, the look is handed over after it.
        handle.0.gate.stop();
        let image = RgbImage { size: ImageSize::new(8, 8), data: vec![0; 192] };
        tap.offer(0, &image, &FrameResult::default());
        assert_eq!(asked.try_recv(), Ok(Err(STOPPING.to_owned())));
    }
}
