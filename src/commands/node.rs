//! `scenelex node`: everything behind it belongs to ROS.

use std::io::{self, Write};

use anyhow::Context;
use clap::Args;
use scenelex::ros::{self, arguments::RosArguments, rosout::LogQueue};

use super::{fail, interrupt::Interrupt};

/// Run the perception node until SIGINT or SIGTERM.
///
/// Takes what ROS 2 nodes take: --ros-args with -p NAME:=VALUE, --params-file FILE, -r FROM:=TO, --log-level LEVEL and
/// --disable-rosout-logs.
#[derive(Args)]
pub struct NodeArgs {
    /// ROS arguments, for example --ros-args -r image:=/camera/image_raw
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<String>,
}

impl NodeArgs {
    /// The level after `--log-level`; wrong arguments are reported by the node itself.
    pub fn log_level(&self) -> Option<String> {
        RosArguments::parse(&self.args).ok()?.log_level
    }
}

/// Runs the node and ends the process.
pub fn run(args: &NodeArgs, log: LogQueue) -> ! {
    let outcome = Interrupt::install()
        .context("cannot listen to signals")
        .and_then(|interrupt| Ok(ros::node::run(&args.args, log, interrupt.closed())?));
    if let Err(error) = &outcome {
        fail(error);
    }
    leave(i32::from(outcome.is_err()))
}

/// Ends the process as it is. Where the end could not wait (models being loaded, a frame or a look that takes long), a thread
/// is still at work in ONNX Runtime, and an ordinary exit would take that library's static objects from under it.
fn leave(status: i32) -> ! {
    let _ = io::stdout().flush();
    // SAFETY: it takes any status and does not return; no destructor is relied upon, as the node has left the graph.
    unsafe { libc::_exit(status) }
}
