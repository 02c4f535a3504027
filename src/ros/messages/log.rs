//! `rcl_interfaces`: the log on `/rosout`.

use serde::{Deserialize, Serialize};

use super::Time;

/// Levels of a [`Log`].
pub mod level {
    /// For who looks for a fault.
    pub const DEBUG: u8 = 10;
    /// What went as it should.
    pub const INFO: u8 = 20;
    /// What may be wrong.
    pub const WARN: u8 = 30;
    /// What went wrong.
    pub const ERROR: u8 = 40;
}

/// One line of a node's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "rcl_interfaces/msg/Log")]
#[allow(missing_docs, reason = "fields as in the definition")]
pub struct Log {
    pub stamp: Time,
    /// One of [`level`].
    pub level: u8,
    /// The node's logger, its full name with dots.
    pub name: String,
    pub msg: String,
    pub file: String,
    pub function: String,
    pub line: u32,
}

message_types! {
    Log => "rcl_interfaces/msg/Log",
}
