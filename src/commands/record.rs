//! `scenelex record`: topics from the wire into a bag.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use scenelex::{
    replay::{OfferedQos, RecordedTopic, Recorder, definitions},
    ros::{
        CdrView, Qos, Transport,
        messages::{Image, RosMessage},
        transport::{self, Durability, TopicInfo},
    },
};

use super::{INTERRUPTED, interrupt::Interrupt, progress::Progress, say, wire};

/// Messages that may wait for the disk, and bytes of them.
const QUEUE: usize = 256;
const QUEUE_BYTES: usize = 256 * 1024 * 1024;
/// Samples of a raw image topic that the middleware keeps. It keeps those that were taken, too, until newer ones come, and
/// they are megabytes each; what waits for the disk waits in the queue.
const IMAGES: u32 = 32;
/// How long a topic whose type was given waits for a publisher to be seen before it is recorded as best effort, which
/// matches any that comes later.
const SIGHT: Duration = Duration::from_millis(1000);

/// Write topics from the wire into a rosbag2 bag (MCAP), until interrupted.
///
/// A topic is recorded with the strongest quality of service its publishers offer, so that latched topics are complete.
/// Messages are stored as they arrive, with the definitions of their types.
#[derive(Args)]
pub struct RecordArgs {
    /// Topics, as /name or, where nobody publishes yet, /name:package/msg/Type
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Folder of the bag; must not exist
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// End after this many seconds
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
    /// Give up when a topic without a type is not published within this many seconds
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    wait: f64,
    /// Name of the node that subscribes
    #[arg(long, default_value = "scenelex_recorder", value_name = "NAME")]
    node_name: String,
}

/// Room for messages that wait for the disk, in bytes.
struct Room {
    taken: AtomicUsize,
    limit: usize,
}

impl Room {
    fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), limit })
    }

    /// Takes room for as many bytes, if there is as much. One message always finds room, however large it is.
    fn take(&self, bytes: usize) -> bool {
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        let fits = before == 0 || before.saturating_add(bytes) <= self.limit;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A message that waits for the disk, and gives its room back when it is dropped.
struct Sample {
    topic: usize,
    received: u64,
    data: Vec<u8>,
    room: Arc<Room>,
}

impl Sample {
    /// A copy of the message, where there is room for it.
    fn new(topic: usize, view: CdrView<'_>, room: &Arc<Room>) -> Option<Self> {
        let fits = room.take(view.header().len() + view.body.len());
        fits.then(|| Self { topic, received: now(), data: view.to_encapsulated(), room: Arc::clone(room) })
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        self.room.give_back(self.data.len());
    }
}

/// Nanoseconds since the epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

pub fn run(args: &RecordArgs) -> Result<ExitCode> {
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let limit = match args.duration {
        None => None,
        Some(seconds) => Some(Duration::try_from_secs_f64(seconds).context("--duration")?),
    };
    let transport = wire::join(&args.node_name)?;
    let Some(topics) = find_topics(&*transport, args, &interrupt)? else { return Ok(ExitCode::from(INTERRUPTED)) };
    let definitions = topics
        .iter()
        .map(|topic| definitions::concatenated(&topic.type_name).with_context(|| format!("topic {}", topic.name)))
        .collect::<Result<Vec<_>>>()?;

    let mut recorder = Recorder::create(&args.out)?;
    let (sender, samples) = bounded(QUEUE);
    let room = Room::new(QUEUE_BYTES);
    let mut subscriptions = Vec::new();
    for (index, (topic, definition)) in topics.iter().zip(definitions).enumerate() {
        let TopicInfo { name, type_name, reliability, durability } = topic;
        let history = transport::History::KeepLast(depth(topic));
        let qos = Qos { reliability: *reliability, durability: *durability, history, lifespan: None };
        let receive = handler(index, name, sender.clone(), Arc::clone(&room));
        subscriptions.push(transport.subscribe(name, type_name, qos, receive)?);
        recorder.add_topic(RecordedTopic {
            name: name.clone(),
            type_name: type_name.clone(),
            definition,
            // The publishers' depth is not known; rosbag2 writes 0 then.
            qos: vec![OfferedQos { depth: 0, ..wire::to_bag(qos) }],
        })?;
        tracing::info!(topic = %name, type_name = %type_name, ?reliability, ?durability, "recording");
    }
    drop(sender);
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    write_samples(&mut recorder, &samples, deadline, &interrupt)?;
    drop(subscriptions);
    // What arrived before the end belongs to the bag.
    for sample in samples.try_iter() {
        recorder.write(sample.topic, sample.received, &sample.data)?;
    }
    let summary = recorder.finish()?;
    say(&format!(
        "recorded {} messages in {:.2} s to {}",
        summary.message_count,
        (summary.end - summary.start) as f64 * 1e-9,
        args.out.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Name, type and offered quality of each topic; `None` when interrupted.
fn find_topics(transport: &dyn Transport, args: &RecordArgs, interrupt: &Interrupt) -> Result<Option<Vec<TopicInfo>>> {
    let begun = Instant::now();
    let deadline = begun + Duration::try_from_secs_f64(args.wait).context("--wait")?;
    loop {
        let graph = transport.topics();
        let (mut missing, mut unseen) = (Vec::new(), false);
        let mut found = Vec::new();
        for topic in &args.topics {
            let (name, type_name) = topic.split_once(':').map_or((topic.as_str(), None), |(n, t)| (n, Some(t)));
            let published =
                graph.iter().find(|info| info.name == name && type_name.is_none_or(|t| info.type_name == t));
            match (published, type_name) {
                (Some(info), _) => found.push(info.clone()),
                (None, Some(type_name)) => {
                    unseen = true;
                    found.push(TopicInfo {
                        name: name.to_owned(),
                        type_name: type_name.to_owned(),
                        reliability: transport::Reliability::BestEffort,
                        durability: transport::Durability::Volatile,
                    });
                }
                (None, None) => missing.push(topic.as_str()),
            }
        }
        if missing.is_empty() && (!unseen || begun.elapsed() >= SIGHT) {
            return Ok(Some(found));
        }
        if !missing.is_empty() && Instant::now() >= deadline {
            bail!(
                "nobody publishes {} (give the type as /name:package/msg/Type to record it later)",
                missing.join(", ")
            );
        }
        if interrupt.wait(Duration::from_millis(50)) {
            return Ok(None);
        }
    }
}

/// Samples that the middleware is asked to keep. Of a latched topic everything comes at once.
fn depth(topic: &TopicInfo) -> u32 {
    if topic.type_name == Image::TYPE && topic.durability == Durability::Volatile { IMAGES } else { QUEUE as u32 }
}

fn handler(topic: usize, name: &str, sender: Sender<Sample>, room: Arc<Room>) -> transport::MessageHandler {
    let name = name.to_owned();
    let mut lost = 0_u64;
    Box::new(move |view: CdrView<'_>| {
        let kept = Sample::new(topic, view, &room)
            .is_some_and(|sample| !matches!(sender.try_send(sample), Err(TrySendError::Full(_))));
        if !kept {
            lost += 1;
            if lost.is_power_of_two() {
                tracing::warn!(topic = %name, lost, "the disk does not keep up: messages are lost");
            }
        }
    })
}

/// Writes what arrives until `deadline` or a signal.
fn write_samples(
    recorder: &mut Recorder,
    samples: &Receiver<Sample>,
    deadline: Option<Instant>,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut progress = Progress::new("recording");
    let started = Instant::now();
    let (mut messages, mut bytes) = (0_u64, 0_u64);
    let forever = crossbeam::channel::never();
    let at_deadline = deadline.map_or(forever, crossbeam::channel::at);
    loop {
        crossbeam::channel::select! {
            recv(samples) -> sample => {
                let Ok(sample) = sample else { return Ok(()) };
                messages += 1;
                bytes += sample.data.len() as u64;
                recorder.write(sample.topic, sample.received, &sample.data)?;
            }
            recv(interrupt.closed()) -> _ => return Ok(()),
            recv(at_deadline) -> _ => return Ok(()),
            default(Duration::from_millis(200)) => {}
        }
        let seconds = started.elapsed().as_secs_f64();
        let share = deadline.map_or(0.0, |deadline| {
            seconds / deadline.saturating_duration_since(started).as_secs_f64().max(f64::MIN_POSITIVE)
        });
        progress.show(share, &format!("{seconds:.1} s  {messages} messages  {:.1} MB", bytes as f64 * 1e-6));
    }
}

#[cfg(test)]
mod tests {
    use scenelex::ros::cdr::Endian;

    use super::*;

    fn view(body: &[u8]) -> CdrView<'_> {
        CdrView { endian: Endian::Little, body }
    }

    #[test]
    fn what_waits_for_the_disk_is_bounded_in_bytes() {
        let (sender, samples) = bounded(QUEUE);
        let room = Room::new(1000);
        let mut receive = handler(0, "/image", sender, Arc::clone(&room));
        for _ in 0..6 {
            receive(view(&[1; 250]));
        }
        // Four would fit but for their headers of four bytes.
        assert_eq!((samples.len(), room.taken.load(Ordering::Relaxed)), (3, 3 * 254));
        drop(samples.recv());
        receive(view(&[1; 250]));
        assert_eq!(samples.len(), 3, "what was written makes room");
        receive(view(&[1; 100]));
        assert_eq!(samples.len(), 4, "a small one still fits");
        samples.try_iter().for_each(drop);
        assert_eq!(room.taken.load(Ordering::Relaxed), 0);
        receive(view(&[1; 2000]));
        assert_eq!(samples.len(), 1, "one that is larger than the room is written all the same");
    }

    #[test]
    fn what_waits_for_the_disk_is_bounded_in_number() {
        let (sender, samples) = bounded(QUEUE);
        let room = Room::new(QUEUE_BYTES);
        let mut receive = handler(0, "/text", sender, Arc::clone(&room));
        for _ in 0..QUEUE + 10 {
            receive(view(b"text"));
        }
        let taken = room.taken.load(Ordering::Relaxed);
        assert_eq!((samples.len(), taken), (QUEUE, QUEUE * 8), "what is lost takes no room");
    }

    #[test]
    fn latched_topics_are_kept_in_full_length() {
        let topic = |type_name: &str, durability| TopicInfo {
            name: "/topic".to_owned(),
            type_name: type_name.to_owned(),
            reliability: transport::Reliability::Reliable,
            durability,
        };
        assert_eq!(depth(&topic(Image::TYPE, Durability::Volatile)), IMAGES);
        assert_eq!(depth(&topic(Image::TYPE, Durability::TransientLocal)), 256);
        assert_eq!(depth(&topic("tf2_msgs/msg/TFMessage", Durability::Volatile)), 256);
    }
}
