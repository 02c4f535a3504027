//! `--ros-args`: remapping, parameters and log levels on the command line
//! (<https://design.ros2.org/articles/ros_command_line_arguments.html>).

use std::path::PathBuf;

use super::names::{self, InvalidName};

/// Arguments that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// An argument outside `--ros-args … --`.
    #[error("unexpected argument {0:?}: the node takes its arguments after --ros-args")]
    Unexpected(String),
    /// A flag `--ros-args` does not know.
    #[error("unknown ROS argument {0:?}")]
    Unknown(String),
    /// A flag without its value.
    #[error("{flag} needs a value, for example {flag} {example}")]
    Missing {
        /// The flag.
        flag: String,
        /// A value it would take.
        example: &'static str,
    },
    /// A value without `:=`, or with an empty side.
    #[error("{flag} {value:?} is not of the form {form}")]
    Form {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
        /// What it should look like.
        form: &'static str,
    },
    /// A name ROS does not allow.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// `[node:]from:=to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remap {
    /// Node it is meant for; all when absent.
    pub node: Option<String>,
    /// Name before, as given.
    pub from: String,
    /// Name after, as given.
    pub to: String,
}

/// Where parameter values come from, in the order given; later ones win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterSource {
    /// `--params-file`.
    File(PathBuf),
    /// `-p [node:]name:=yaml`.
    Value {
        /// Node it is meant for; all when absent.
        node: Option<String>,
        /// Parameter name.
        name: String,
        /// Its value as YAML.
        yaml: String,
    },
}

/// Everything between `--ros-args` and `--`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RosArguments {
    /// Topic and service remappings; the first that matches is used.
    pub remaps: Vec<Remap>,
    /// `__node` and `__name`; the first for this node is used.
    pub node_names: Vec<Remap>,
    /// `__ns`, normalised; the first for this node is used.
    pub namespaces: Vec<Remap>,
    /// `-p` and `--params-file`.
    pub parameters: Vec<ParameterSource>,
    /// `--log-level LEVEL`, in tracing's words.
    pub log_level: Option<String>,
    /// `--disable-rosout-logs`: the log stays off the graph.
    pub rosout_disabled: bool,
}

impl RosArguments {
    /// Parses the node's arguments (without the program's and the command's names).
    ///
    /// # Errors
    /// [`ArgumentError`] for the first argument that cannot be understood.
    pub fn parse<S: AsRef<str>>(arguments: &[S]) -> Result<Self, ArgumentError> {
        let mut parsed = Self::default();
        let mut inside = false;
        let mut rest = arguments.iter().map(AsRef::as_ref);
        while let Some(argument) = rest.next() {
            match argument {
                "--ros-args" => inside = true,
                "--" if inside => inside = false,
                _ if !inside => return Err(ArgumentError::Unexpected(argument.to_owned())),
                _ => parsed.parse_flag(argument, &mut rest)?,
            }
        }
        Ok(parsed)
    }

    fn parse_flag<'a>(&mut self, flag: &str, rest: &mut impl Iterator<Item = &'a str>) -> Result<(), ArgumentError> {
        let mut value = |example| rest.next().ok_or_else(|| ArgumentError::Missing { flag: flag.to_owned(), example });
        match flag {
            "-r" | "--remap" => self.parse_remap(flag, value("image:=/camera/image_raw")?),
            "-p" | "--param" => self.parse_parameter(flag, value("use_sim_time:=true")?),
            "--params-file" => {
                self.parameters.push(ParameterSource::File(value("config/default.yaml")?.into()));
                Ok(())
            }
            "--log-level" => {
                let level = value("debug")?;
                // `logger:=level` is about one logger; all of this process share one here.
                let level = level.split_once(":=").map_or(level, |(_, level)| level);
                self.log_level = Some(log_level(level).ok_or_else(|| ArgumentError::Form {
                    flag: flag.to_owned(),
                    value: level.to_owned(),
                    form: "debug, info, warn, error or fatal",
                })?);
                Ok(())
            }
            // Known to ROS, without an effect on this node: it logs to stderr and /rosout, and has no log file or security.
            "-e" | "--enclave" | "--log-config-file" | "--log-file-name" => value("VALUE").map(|_| ()),
            "--enable-rosout-logs" | "--disable-rosout-logs" => {
                self.rosout_disabled = flag == "--disable-rosout-logs";
                Ok(())
            }
            _ if flag.starts_with("--enable-") || flag.starts_with("--disable-") => match flag.ends_with("-logs") {
                true => Ok(()),
                false => Err(ArgumentError::Unknown(flag.to_owned())),
            },
            _ => Err(ArgumentError::Unknown(flag.to_owned())),
        }
    }

    fn parse_remap(&mut self, flag: &str, rule: &str) -> Result<(), ArgumentError> {
        let (node, from, to) = split_rule(flag, rule, "from:=to")?;
        let (rules, to) = match from {
            "__node" | "__name" => {
                names::check_node_name(to)?;
                (&mut self.node_names, to.to_owned())
            }
            "__ns" => (&mut self.namespaces, names::normalise_namespace(to)?),
            _ => (&mut self.remaps, to.to_owned()),
        };
        let from = from.strip_prefix("rostopic://").or_else(|| from.strip_prefix("rosservice://")).unwrap_or(from);
        rules.push(Remap { node, from: from.to_owned(), to });
        Ok(())
    }

    fn parse_parameter(&mut self, flag: &str, rule: &str) -> Result<(), ArgumentError> {
        let (node, name, yaml) = split_rule(flag, rule, "name:=value")?;
        self.parameters.push(ParameterSource::Value { node, name: name.to_owned(), yaml: yaml.to_owned() });
        Ok(())
    }

    /// The node's identity under these arguments. As in rcl, rules for a node name that node: its name as it was where
    /// they are about that name, else the new one.
    ///
    /// # Errors
    /// [`InvalidName`] for a bad default name.
    pub fn identity(&self, default_name: &str) -> Result<NodeIdentity, InvalidName> {
        let name = rules_for(&self.node_names, default_name).next().map_or(default_name, |rule| rule.to.as_str());
        names::check_node_name(name)?;
        let namespace = rules_for(&self.namespaces, name).next().map_or("/", |rule| rule.to.as_str());
        Ok(NodeIdentity {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            remaps: rules_for(&self.remaps, name).cloned().collect(),
        })
    }
}

/// Those of `rules` that are meant for this node or for all.
fn rules_for<'r>(rules: &'r [Remap], node: &str) -> impl Iterator<Item = &'r Remap> {
    rules.iter().filter(move |rule| rule.node.as_ref().is_none_or(|meant| meant == node))
}

/// `[node:]left:=right`. A node prefix is a plain name before a single colon; `rostopic://` is none.
fn split_rule<'a>(
    flag: &str,
    rule: &'a str,
    form: &'static str,
) -> Result<(Option<String>, &'a str, &'a str), ArgumentError> {
    let wrong = || ArgumentError::Form { flag: flag.to_owned(), value: rule.to_owned(), form };
    let (left, right) = rule.split_once(":=").ok_or_else(wrong)?;
    let (node, left) = match left.split_once(':') {
        Some((node, rest)) if !rest.starts_with("//") => (Some(node.to_owned()), rest),
        _ => (None, left),
    };
    if left.is_empty() || right.is_empty() || node.as_ref().is_some_and(String::is_empty) {
        return Err(wrong());
    }
    Ok((node, left, right))
}

fn log_level(ros: &str) -> Option<String> {
    let level = match ros.to_ascii_lowercase().as_str() {
        "fatal" | "error" => "error",
        "warn" | "warning" => "warn",
        "info" => "info",
        "debug" => "debug",
        "trace" => "trace",
        _ => return None,
    };
    Some(level.to_owned())
}

/// Name, namespace and remappings of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Base name.
    pub name: String,
    /// `/` or `/a/b`.
    pub namespace: String,
    /// Rules that apply to this node.
    remaps: Vec<Remap>,
}

impl NodeIdentity {
    /// `/namespace/name`.
    #[must_use]
    pub fn full_name(&self) -> String {
        names::join(&self.namespace, &self.name)
    }

    /// Name of the node's logger, as rcl makes it: `c` in `/a/b` logs as `a.b.c`.
    #[must_use]
    pub fn logger_name(&self) -> String {
        self.full_name().trim_start_matches('/').replace('/', ".")
    }

    /// Expands and remaps a topic or service name.
    ///
    /// # Errors
    /// [`InvalidName`] for this name, or for a remapping rule that is not a name.
    pub fn resolve(&self, name: &str) -> Result<String, InvalidName> {
        let full = names::expand(name, &self.namespace, &self.name)?;
        for rule in &self.remaps {
            if names::expand(&rule.from, &self.namespace, &self.name)? == full {
                return names::expand(&rule.to, &self.namespace, &self.name);
            }
        }
        Ok(full)
    }

    /// A name that [`Self::resolve`] turns into the full name `resolved`: for rcl, which applies the same rules to every
    /// name it is given and would apply them twice. Most names are their own.
    #[must_use]
    pub fn before_remapping(&self, resolved: &str) -> String {
        if self.resolve(resolved).is_ok_and(|again| again == resolved) {
            return resolved.to_owned();
        }
        let from = |rule: &Remap| names::expand(&rule.from, &self.namespace, &self.name).ok();
        let leads_here = |from: &String| self.resolve(from).is_ok_and(|to| to == resolved);
        self.remaps.iter().filter_map(from).find(leads_here).unwrap_or_else(|| resolved.to_owned())
    }
}
