//! `scenelex play`: a bag's topics on the wire, at the pace they were recorded.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use scenelex::{
    replay::{Bag, MessageQuery, OfferedQos, Pace},
    ros::{
        messages::Clock,
        transport::{LINGER, Publisher, Qos, RawPublisher, Transport, TransportError},
    },
    types::Stamp,
};

use super::{INTERRUPTED, bags, interrupt::Interrupt, progress::Progress, say, wire};

/// Time for the last samples to be acknowledged.
const FLUSH: Duration = Duration::from_secs(2);
/// How often the progress bar is refreshed while nothing is due.
const TICK: Duration = Duration::from_millis(200);
/// A longer pause between two messages, in nanoseconds of the bag's time, is a wrong log time and no pause.
const LONGEST_PAUSE: u64 = 24 * 60 * 60 * 1_000_000_000;
const CLOCK: &str = "/clock";

/// Put a bag's topics on the wire at their own pace.
///
/// Messages are sent as they are stored, with the quality of service their publishers offered. Reads rosbag2 bags with
/// MCAP storage: a folder with metadata.yaml, or one .mcap file. A damaged bag is played as far as it can be read, and a
/// pause of more than a day between two messages is left out. Inside a ROS 2 workspace, topics of a type that the program
/// was not built with are left out.
#[derive(Args)]
pub struct PlayArgs {
    /// Bag folder or .mcap file
    bag: PathBuf,
    /// Speed: 2 plays twice as fast
    #[arg(short, long, default_value_t = 1.0, value_parser = positive)]
    rate: f64,
    /// Start again at the end, until interrupted
    #[arg(short, long)]
    r#loop: bool,
    /// Play these topics only
    #[arg(long, num_args = 1.., value_name = "TOPIC")]
    topics: Vec<String>,
    /// Skip this many seconds of the bag
    #[arg(long, default_value_t = 0.0, value_parser = not_negative, value_name = "SECONDS")]
    start_offset: f64,
    /// Publish the bag's time on /clock, this often a second, in place of a /clock that was recorded
    #[arg(long, num_args = 0..=1, default_missing_value = "40", value_parser = positive, value_name = "HZ")]
    clock: Option<f64>,
    /// Play a topic under another name; may be given several times
    #[arg(short = 'm', long, value_name = "FROM:=TO", value_parser = remapping)]
    remap: Vec<(String, String)>,
    /// Begin when every played topic, or TOPIC, has N subscribers; may be given several times
    #[arg(long, value_name = "[TOPIC=]N", value_parser = wait_for)]
    wait_for_subscribers: Vec<(Option<String>, usize)>,
    /// Give up waiting for subscribers after this many seconds
    #[arg(long, default_value_t = 30.0, value_parser = not_negative, value_name = "SECONDS")]
    wait_timeout: f64,
    /// Wait this many seconds before the first message
    #[arg(short, long, default_value_t = 0.0, value_parser = not_negative, value_name = "SECONDS")]
    delay: f64,
    /// Name of the node that publishes
    #[arg(long, default_value = "scenelex_player", value_name = "NAME")]
    node_name: String,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        // Times that are divided by it are still durations then.
        Ok(value) if (1e-6..=1e6).contains(&value) => Ok(value),
        _ => Err("expected a number above 0, from 0.000001 to 1000000".to_owned()),
    }
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && (0.0..1e9).contains(&value) => Ok(value),
        _ => Err("expected a number of seconds, 0 or more".to_owned()),
    }
}

fn remapping(text: &str) -> Result<(String, String), String> {
    let names = text.split_once(":=").filter(|(from, to)| from.starts_with('/') && to.starts_with('/'));
    let (from, to) = names.ok_or("expected /from:=/to")?;
    Ok((from.to_owned(), to.to_owned()))
}

fn wait_for(text: &str) -> Result<(Option<String>, usize), String> {
    let (topic, count) = match text.rsplit_once('=') {
        Some((topic, count)) => (Some(topic.to_owned()), count),
        None => (None, text),
    };
    let count = count.parse().map_err(|_| "expected N or TOPIC=N".to_owned())?;
    Ok((topic, count))
}

/// One topic on the wire.
struct Track {
    name: String,
    publisher: Arc<dyn RawPublisher>,
}

/// What was played.
#[derive(Default)]
struct Tally {
    sent: u64,
    failed: u64,
    latest: Duration,
}

pub fn run(args: &PlayArgs) -> Result<ExitCode> {
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let bag = bags::open(&args.bag)?;
    let from = bag.start().saturating_add((args.start_offset * 1e9) as u64);
    if bag.message_count() == 0 {
        bail!("{}: the bag holds no message", args.bag.display());
    }
    if from > bag.end() {
        let seconds = (bag.end() - bag.start()) as f64 * 1e-9;
        bail!("--start-offset {}: the bag is {seconds:.3} s long", args.start_offset);
    }
    let query = MessageQuery { topics: args.topics.clone(), from };
    drop(bag.messages(&query)?);
    tracing::info!(
        topics = bag.topics().len(),
        messages = bag.message_count(),
        seconds = (bag.end() - bag.start()) as f64 * 1e-9,
        "opened {}",
        args.bag.display()
    );

    let transport = wire::join(&args.node_name)?;
    let tracks = advertise(&*transport, &bag, args)?;
    let clock = match args.clock {
        Some(hz) => Some((Publisher::<Clock>::new(&*transport, CLOCK, Qos::RELIABLE)?, hz)),
        None => None,
    };
    if !wait_for_subscribers(&tracks, args, &interrupt)? || interrupt.wait(Duration::from_secs_f64(args.delay)) {
        return Ok(ExitCode::from(INTERRUPTED));
    }

    let mut tally = Tally::default();
    let started = Instant::now();
    let mut finished = true;
    loop {
        finished &= play_once(&bag, &query, &tracks, clock.as_ref(), args, &interrupt, &mut tally)?;
        if !args.r#loop || !finished {
            break;
        }
    }
    for track in tracks.values() {
        if !interrupt.is_raised() && !track.publisher.flush(FLUSH) {
            tracing::warn!(topic = %track.name, "a subscriber did not acknowledge the last messages");
        }
    }
    if !interrupt.is_raised() && tracks.values().any(|track| track.publisher.subscribers() > 0) {
        thread::sleep(LINGER);
    }
    if !args.quiet {
        say(&format!(
            "played {} messages on {} topics in {:.2} s, at most {:.1} ms late",
            tally.sent,
            tracks.len(),
            started.elapsed().as_secs_f64(),
            tally.latest.as_secs_f64() * 1e3
        ));
    }
    if tally.failed > 0 {
        bail!("{} messages could not be sent", tally.failed);
    }
    Ok(if finished { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
}

/// Publishers by topic index of the bag. Topics that are not CDR, or of a type that the transport has no definition of, stay
/// out, with a warning; so does a recorded clock where the player is the clock.
fn advertise(transport: &dyn Transport, bag: &Bag, args: &PlayArgs) -> Result<BTreeMap<usize, Track>> {
    let mut tracks = BTreeMap::new();
    for (index, topic) in bag.topics().iter().enumerate() {
        if !args.topics.is_empty() && !args.topics.contains(&topic.name) {
            continue;
        }
        if topic.message_encoding != "cdr" {
            tracing::warn!(topic = %topic.name, encoding = %topic.message_encoding, "not played: expected encoding `cdr`");
            continue;
        }
        let remapped = args.remap.iter().find(|(from, _)| *from == topic.name);
        let name = remapped.map_or_else(|| topic.name.clone(), |(_, to)| to.clone());
        if args.clock.is_some() && name == CLOCK {
            tracing::info!(topic = %topic.name, "not played: --clock publishes the bag's time on {CLOCK}");
            continue;
        }
        let qos = wire::to_transport(OfferedQos::weakest(&topic.qos));
        let publisher = match transport.advertise(&name, &topic.type_name, qos) {
            Ok(publisher) => publisher,
            Err(error @ TransportError::UnknownType { .. }) => {
                tracing::warn!("{} is not played: {error}", topic.name);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        tracing::debug!(topic = %name, type_name = %topic.type_name, messages = topic.message_count, ?qos, "advertised");
        tracks.insert(index, Track { name, publisher });
    }
    if tracks.is_empty() {
        bail!("{}: no topic to play", args.bag.display());
    }
    Ok(tracks)
}

/// Whether all wanted subscribers are there; false when interrupted.
fn wait_for_subscribers(tracks: &BTreeMap<usize, Track>, args: &PlayArgs, interrupt: &Interrupt) -> Result<bool> {
    for (topic, _) in &args.wait_for_subscribers {
        if let Some(topic) = topic
            && !tracks.values().any(|track| track.name == *topic)
        {
            bail!("--wait-for-subscribers: `{topic}` is not among the topics that are played");
        }
    }
    let deadline = Instant::now() + Duration::from_secs_f64(args.wait_timeout);
    let wanted = |track: &Track| {
        let matching = args.wait_for_subscribers.iter();
        matching.filter(|(topic, _)| topic.as_ref().is_none_or(|t| *t == track.name)).map(|(_, n)| *n).max()
    };
    loop {
        let missing = tracks.values().find(|track| track.publisher.subscribers() < wanted(track).unwrap_or(0));
        let Some(missing) = missing else { return Ok(true) };
        if Instant::now() >= deadline {
            bail!(
                "{} has {} of {} subscribers after {} s",
                missing.name,
                missing.publisher.subscribers(),
                wanted(missing).unwrap_or(0),
                args.wait_timeout
            );
        }
        if interrupt.wait(Duration::from_millis(20)) {
            return Ok(false);
        }
    }
}

/// Plays from `query.from` to the end; false when interrupted.
fn play_once(
    bag: &Bag,
    query: &MessageQuery,
    tracks: &BTreeMap<usize, Track>,
    clock: Option<&(Publisher<Clock>, f64)>,
    args: &PlayArgs,
    interrupt: &Interrupt,
    tally: &mut Tally,
) -> Result<bool> {
    let tick = |pace: Pace| clock.map(|(publisher, hz)| ClockThread::start(publisher.clone(), pace, *hz)).transpose();
    let mut pace = Pace::new(Instant::now(), query.from, args.rate).context("--rate")?;
    let mut ticking = tick(pace)?;
    let mut latest = query.from;
    let mut progress = (!args.quiet).then(|| Progress::new("playing"));
    let length = bag.end().saturating_sub(query.from).max(1) as f64;
    for message in bag.messages(query)? {
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!("{error}");
                continue;
            }
        };
        let Some(track) = tracks.get(&message.topic) else { continue };
        let too_long = "the pause before the next message is too long";
        let pause = message.log_time.saturating_sub(latest);
        if pause > LONGEST_PAUSE {
            tracing::warn!(
                topic = %track.name,
                "the next message was logged {:.1} days after the one before it; the pause is left out",
                pause as f64 / LONGEST_PAUSE as f64
            );
            pace = pace.without_pause(latest, message.log_time).context(too_long)?;
            // One clock at a time: the old one ends first.
            drop(ticking.take());
            ticking = tick(pace)?;
        }
        latest = latest.max(message.log_time);
        let due = pace.due(message.log_time).context(too_long)?;
        loop {
            if let Some(progress) = &mut progress {
                let at = pace.log_time_at(Instant::now()).min(message.log_time).saturating_sub(query.from) as f64;
                progress
                    .show(at / length, &format!("{:.1} of {:.1} s  {} messages", at * 1e-9, length * 1e-9, tally.sent));
            }
            let next_look = Instant::now() + TICK;
            if interrupt.wait_until(due.min(next_look)) {
                return Ok(false);
            }
            if due <= next_look {
                break;
            }
        }
        tally.latest = tally.latest.max(Instant::now().saturating_duration_since(due));
        match track.publisher.publish(Bytes::from(message.data)) {
            Ok(()) => tally.sent += 1,
            Err(error) => {
                tally.failed += 1;
                tracing::warn!("{error}");
            }
        }
    }
    Ok(true)
}

/// Publishes the bag's time until dropped.
struct ClockThread {
    stop: Option<crossbeam::channel::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ClockThread {
    fn start(publisher: Publisher<Clock>, pace: Pace, hz: f64) -> Result<Self> {
        let (stop, stopped) = crossbeam::channel::bounded::<()>(0);
        let thread = thread::Builder::new().name("clock".to_owned()).spawn(move || {
            let started = Instant::now();
            for tick in 1_u32.. {
                let nanos = i64::try_from(pace.log_time_at(Instant::now())).unwrap_or(i64::MAX);
                if let Err(error) = publisher.publish(&Clock { clock: Stamp::from_nanos(nanos).into() }) {
                    tracing::warn!("{error}");
                }
                let next = started + Duration::from_secs_f64(f64::from(tick) / hz);
                if !matches!(stopped.recv_deadline(next), Err(crossbeam::channel::RecvTimeoutError::Timeout)) {
                    return;
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for ClockThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the clock thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::{
        super::testing::{Nobody, TestTransport},
        *,
    };

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: PlayArgs,
    }

    fn line(options: &[&str]) -> PlayArgs {
        let bag = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bag/latched");
        let line = ["play", bag.to_str().unwrap()].iter().chain(options).copied().collect::<Vec<_>>();
        Line::parse_from(line).args
    }

    /// A transport built without some types.
    fn without(unknown: &'static [&'static str]) -> TestTransport {
        TestTransport::new(move |topic, type_name| {
            let (what, name) = ("publisher", topic.to_owned());
            if topic == "/taken" {
                return Err(TransportError::Create { what, name, reason: "no room".to_owned() });
            }
            if unknown.contains(&type_name) {
                let reason = "is unknown here";
                return Err(TransportError::UnknownType { what, name, type_name: type_name.to_owned(), reason });
            }
            Ok(Arc::new(Nobody))
        })
    }

    /// What is played of the golden bag, `/names` and `/colours`, where these types are unknown.
    fn played(unknown: &'static [&'static str], options: &[&str]) -> Result<Vec<String>, String> {
        let args = line(options);
        let transport = without(unknown);
        let tracks = advertise(&transport, &Bag::open(&args.bag).unwrap(), &args).map_err(|error| error.to_string());
        let asked = transport.advertised.into_inner().unwrap();
        assert!(asked.iter().all(|topic| asked.iter().filter(|other| *other == topic).count() == 1), "{asked:?}");
        tracks.map(|tracks| tracks.into_values().map(|track| track.name).collect())
    }

    const TEXT: &str = "std_msgs/msg/String";
    const COLOUR: &str = "std_msgs/msg/ColorRGBA";

    #[test]
    fn topics_of_unknown_types_are_left_out() {
        let both = played(&[], &[]).unwrap();
        assert_eq!(both.len(), 2, "{both:?}");
        assert_eq!(played(&[COLOUR], &[]).unwrap(), ["/names"]);
        assert_eq!(played(&[TEXT], &["--remap", "/colours:=/paint"]).unwrap(), ["/paint"]);
    }

    #[test]
    fn a_bag_of_unknown_types_only_is_refused() {
        for (unknown, options) in
            [(&[TEXT, COLOUR][..], &[][..]), (&[COLOUR], &["--topics", "/colours"]), (&[], &["--topics", "/other"])]
        {
            let error = played(unknown, options).unwrap_err();
            assert!(error.contains("no topic to play"), "{error}");
        }
    }

    #[test]
    fn a_recorded_clock_makes_way_for_the_players_own() {
        let remap = ["--remap", "/names:=/clock"];
        assert!(played(&[], &remap).unwrap().contains(&"/clock".to_owned()));
        assert_eq!(played(&[], &[&remap[..], &["--clock"]].concat()).unwrap(), ["/colours"]);
    }

    #[test]
    fn any_other_failure_ends_it() {
        let error = played(&[COLOUR], &["--remap", "/names:=/taken"]).unwrap_err();
        assert!(error.contains("no room"), "{error}");
    }
}
