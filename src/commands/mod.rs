//! The command line: arguments in, exit status out. Everything else is in the library.

mod bags;
mod demo;
mod interrupt;
mod models;
mod node;
mod parent;
mod play;
mod progress;
mod record;
mod segment;
#[cfg(test)]
mod testing;
mod vocabulary;
mod wire;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use scenelex::ros::rosout::{self, LogLayer};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// Open-vocabulary labelled masks from camera images, on ROS 2.
#[derive(Parser)]
#[command(name = "scenelex", version, about, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    /// What is logged to stderr: error, warn, info, debug, trace, or filters as RUST_LOG has them [default: RUST_LOG,
    /// else info]
    #[arg(long, value_name = "LEVEL", global = true)]
    log_level: Option<String>,

    /// End when stdin is closed, so that a program that started this one cannot leave it behind.
    #[arg(long, hide = true)]
    until_stdin_closes: bool,

    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  scenelex demo
  scenelex node --ros-args -r image:=/camera/image_raw -p classes:=\"['mug', 'chair']\"
  scenelex play models/sim/demo_bag --loop
  scenelex record /scenelex/masks /camera/image_raw --out my_bag
  scenelex vocabulary models/sim/demo_bag
  scenelex segment models/sim/example.jpg --classes \"bucket, traffic cone, bowl\"

ROS_DOMAIN_ID, ROS_LOCALHOST_ONLY and ROS_AUTOMATIC_DISCOVERY_RANGE are read as ROS 2 reads them.";

#[derive(Subcommand)]
enum Command {
    Node(node::NodeArgs),
    Segment(segment::SegmentArgs),
    Play(play::PlayArgs),
    Record(record::RecordArgs),
    Vocabulary(Box<vocabulary::VocabularyArgs>),
    Demo(demo::DemoArgs),
}

/// Parses the command line and does what it says.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let level = cli.log_level.or_else(|| match &cli.command {
        Command::Node(args) => args.log_level(),
        _ => None,
    });
    let (layer, log) = rosout::channel();
    if let Err(error) = start_logging(level.as_deref(), matches!(cli.command, Command::Node(_)).then_some(layer)) {
        return fail(&error);
    }
    let result = (|| {
        if cli.until_stdin_closes {
            parent::watch()?;
        }
        match cli.command {
            Command::Node(args) => node::run(&args, log),
            Command::Segment(args) => segment::run(&args),
            Command::Play(args) => play::run(&args),
            Command::Record(args) => record::run(&args),
            Command::Vocabulary(args) => vocabulary::run(&args),
            Command::Demo(args) => demo::run(&args),
        }
    })();
    result.unwrap_or_else(|error| fail(&error))
}

/// Exit status of a command that was ended by a signal, as shells have it for SIGINT.
const INTERRUPTED: u8 = 130;

/// Ends the process as it is. Where the end could not wait (models being loaded, a frame or a look that takes long), a thread
/// is still at work in ONNX Runtime, and an ordinary exit would take that library's static objects from under it.
fn leave(status: i32) -> ! {
    let _ = io::stdout().flush();
    // SAFETY: it takes any status and does not return; no destructor is relied upon.
    unsafe { libc::_exit(status) }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // Nothing is left to be done when stderr is closed.
    let _ = writeln!(io::stderr(), "scenelex: {}", told_once(error));
    ExitCode::FAILURE
}

/// An error and its causes in one line; a cause that the error before it quotes is not told again.
fn told_once(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !line.ends_with(&cause) {
            line = if line.is_empty() { cause } else { format!("{line}: {cause}") };
        }
    }
    line
}

/// What libraries may say. RustDDS warns about every packet it would not send beyond this machine when the node was told
/// to stay on it; what matters of its errors comes back as results. r2r calls it an error whenever a publisher leaves: it is
/// woken for that and finds no sample.
const LIBRARIES: &str = "warn,rustdds=error,rustdds::network=off,ros2_client=error,r2r::subscribers=off";

/// Logs to stderr and, for the node, to the graph: the same lines to both.
fn start_logging(level: Option<&str>, graph: Option<LogLayer>) -> anyhow::Result<()> {
    let filter = match level {
        // A bare level is about this program; its libraries speak up only when they warn.
        Some(level) if level.parse::<tracing::Level>().is_ok() => {
            EnvFilter::try_new(format!("{LIBRARIES},scenelex={level}"))
        }
        Some(filter) => EnvFilter::try_new(filter),
        None => match std::env::var("RUST_LOG") {
            Ok(filter) if !filter.is_empty() => EnvFilter::try_new(filter),
            _ => EnvFilter::try_new(format!("{LIBRARIES},scenelex=info")),
        },
    };
    let filter = filter.map_err(|e| anyhow::anyhow!("log level {:?}: {e}", level.unwrap_or("of RUST_LOG")))?;
    let ansi = io::IsTerminal::is_terminal(&io::stderr());
    let stderr = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(ansi);
    tracing_subscriber::registry().with(filter).with(graph).with(stderr).init();
    Ok(())
}

/// A line on stdout. A reader that went away (`| head`) is no error.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_is_quoted_is_not_told_again() {
        let error = anyhow::anyhow!("no such file").context("cannot read a.yaml: no such file").context("the node");
        assert_eq!(told_once(&error), "the node: cannot read a.yaml: no such file");
        assert_eq!(told_once(&anyhow::anyhow!("b").context("a")), "a: b");
    }
}
