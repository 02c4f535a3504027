//! `scenelex node`: everything behind it belongs to ROS.

use anyhow::Context;
use clap::Args;
use scenelex::ros::{self, arguments::RosArguments, rosout::LogQueue};

use super::{fail, interrupt::Interrupt, leave};

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
