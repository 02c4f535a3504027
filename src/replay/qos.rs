//! The quality of service a publisher offered, as rosbag2 keeps it beside each topic.

use serde::{Deserialize, Serialize};
use serde_yaml_ng::Value;

/// How many samples a writer keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// The newest `depth` samples.
    KeepLast,
    /// Every sample.
    KeepAll,
}

/// Whether lost samples are sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reliability {
    /// Sent again until acknowledged.
    Reliable,
    /// Sent once.
    BestEffort,
}

/// Whether late subscribers get what was published before they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// They do, up to the history's depth.
    TransientLocal,
    /// They do not.
    Volatile,
}

/// The part of an offered QoS profile that decides how a topic is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferedQos {
    /// How many samples are kept.
    pub history: History,
    /// Number of samples for [`History::KeepLast`]; rosbag2 writes 0 where it did not know it.
    pub depth: u32,
    /// Whether lost samples are sent again.
    pub reliability: Reliability,
    /// Whether late subscribers are served.
    pub durability: Durability,
}

impl Default for OfferedQos {
    /// ROS 2's default publisher profile: reliable, volatile, keep last 10.
    fn default() -> Self {
        Self {
            history: History::KeepLast,
            depth: 10,
            reliability: Reliability::Reliable,
            durability: Durability::Volatile,
        }
    }
}

impl OfferedQos {
    /// Latched: reliable, transient local, keep last 1.
    pub const LATCHED: Self = Self {
        history: History::KeepLast,
        depth: 1,
        reliability: Reliability::Reliable,
        durability: Durability::TransientLocal,
    };

    /// One profile that suits a topic which several publishers offered differently: the weakest of each policy, as
    /// `ros2 bag play` chooses it. ROS 2's default for an empty list.
    #[must_use]
    pub fn weakest(profiles: &[Self]) -> Self {
        let mut profiles = profiles.iter();
        let Some(&first) = profiles.next() else { return Self::default() };
        profiles.fold(first, |mut all, next| {
            if next.reliability == Reliability::BestEffort {
                all.reliability = Reliability::BestEffort;
            }
            if next.durability == Durability::Volatile {
                all.durability = Durability::Volatile;
            }
            if next.history == History::KeepAll {
                all.history = History::KeepAll;
            }
            all.depth = all.depth.max(next.depth);
            all
        })
    }
}

/// A span of time as rosbag2 writes it; `i64::MAX` nanoseconds stand for "infinite".
#[derive(Clone, Copy, Debug, Serialize)]
struct Span {
    sec: u64,
    nsec: u64,
}

const INFINITE: Span = Span { sec: 9_223_372_036, nsec: 854_775_807 };

/// One profile in rosbag2's YAML with the enumerators of `rmw/types.h` as numbers, which every release since Foxy reads.
#[derive(Clone, Copy, Debug, Serialize)]
struct NumericProfile {
    history: u8,
    depth: u32,
    reliability: u8,
    durability: u8,
    deadline: Span,
    lifespan: Span,
    liveliness: u8,
    liveliness_lease_duration: Span,
    avoid_ros_namespace_conventions: bool,
}

impl From<OfferedQos> for NumericProfile {
    fn from(qos: OfferedQos) -> Self {
        Self {
            history: match qos.history {
                History::KeepLast => 1,
                History::KeepAll => 2,
            },
            depth: qos.depth,
            reliability: match qos.reliability {
                Reliability::Reliable => 1,
                Reliability::BestEffort => 2,
            },
            durability: match qos.durability {
                Durability::TransientLocal => 1,
                Durability::Volatile => 2,
            },
            deadline: INFINITE,
            lifespan: INFINITE,
            liveliness: 1,
            liveliness_lease_duration: INFINITE,
            avoid_ros_namespace_conventions: false,
        }
    }
}

/// The YAML text rosbag2 keeps in a channel's metadata and (up to version 8) in `metadata.yaml`.
///
/// # Errors
/// When YAML cannot hold the values, which does not happen for plain numbers.
pub fn to_yaml(profiles: &[OfferedQos]) -> Result<String, serde_yaml_ng::Error> {
    let profiles: Vec<NumericProfile> = profiles.iter().map(|&qos| qos.into()).collect();
    if profiles.is_empty() { Ok(String::new()) } else { serde_yaml_ng::to_string(&profiles) }
}

/// A policy as a number (up to version 8) or a word (since version 9).
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Policy {
    Number(i64),
    Word(String),
}

impl Policy {
    fn is(&self, number: i64, word: &str) -> bool {
        match self {
            Self::Number(n) => *n == number,
            Self::Word(w) => w.eq_ignore_ascii_case(word),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
struct RawProfile {
    history: Option<Policy>,
    depth: Option<u64>,
    reliability: Option<Policy>,
    durability: Option<Policy>,
}

impl From<RawProfile> for OfferedQos {
    fn from(raw: RawProfile) -> Self {
        let default = Self::default();
        let is = |policy: &Option<Policy>, number, word| policy.as_ref().is_some_and(|p| p.is(number, word));
        Self {
            history: if is(&raw.history, 2, "keep_all") { History::KeepAll } else { History::KeepLast },
            depth: match raw.depth {
                None | Some(0) => default.depth,
                Some(depth) => u32::try_from(depth).unwrap_or(u32::MAX),
            },
            reliability: if is(&raw.reliability, 2, "best_effort") {
                Reliability::BestEffort
            } else {
                Reliability::Reliable
            },
            durability: if is(&raw.durability, 1, "transient_local") {
                Durability::TransientLocal
            } else {
                Durability::Volatile
            },
        }
    }
}

/// Reads `offered_qos_profiles`: a list, or a text that holds the list as YAML. Unknown policies become the default's.
///
/// # Errors
/// When the text is no YAML list of profiles.
pub fn from_yaml(value: Value) -> Result<Vec<OfferedQos>, serde_yaml_ng::Error> {
    let value = match value {
        Value::Null => return Ok(Vec::new()),
        Value::String(text) if text.trim().is_empty() => return Ok(Vec::new()),
        Value::String(text) => serde_yaml_ng::from_str(&text)?,
        list => list,
    };
    let raw: Option<Vec<RawProfile>> = serde_yaml_ng::from_value(value)?;
    Ok(raw.unwrap_or_default().into_iter().map(OfferedQos::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_mean_the_same() {
        let numbers = "- history: 1\n  depth: 5\n  reliability: 2\n  durability: 1\n";
        let words = "- {history: keep_last, depth: 5, reliability: best_effort, durability: transient_local}";
        let from_text = from_yaml(Value::String(numbers.into())).unwrap();
        let from_list = from_yaml(serde_yaml_ng::from_str(words).unwrap()).unwrap();
        assert_eq!(from_text, from_list);
        assert_eq!(from_text[0].depth, 5);
        assert_eq!(from_text[0].reliability, Reliability::BestEffort);
        assert_eq!(from_text[0].durability, Durability::TransientLocal);
    }

    #[test]
    fn what_is_written_reads_back() {
        let profile = OfferedQos {
            history: History::KeepAll,
            depth: 3,
            reliability: Reliability::BestEffort,
            durability: Durability::TransientLocal,
        };
        let text = to_yaml(&[profile, OfferedQos::default()]).unwrap();
        assert_eq!(from_yaml(Value::String(text)).unwrap(), vec![profile, OfferedQos::default()]);
        assert!(from_yaml(Value::String(String::new())).unwrap().is_empty());
    }

    #[test]
    fn several_offers_give_the_weakest() {
        let latched = OfferedQos { durability: Durability::TransientLocal, ..OfferedQos::default() };
        let sensor = OfferedQos { reliability: Reliability::BestEffort, depth: 20, ..OfferedQos::default() };
        let both = OfferedQos::weakest(&[latched, sensor]);
        assert_eq!(both.durability, Durability::Volatile);
        assert_eq!(both.reliability, Reliability::BestEffort);
        assert_eq!(both.depth, 20);
        assert_eq!(OfferedQos::weakest(&[latched]), latched);
    }
}
