//! Node parameters: a table of what exists, values from files and the command line, checked against it.
//!
//! The table ([`super::parameter_table::TABLE`]) is the only place where a parameter is named; documentation, defaults, checks
//! and (later) the parameter services all come from it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_yaml_ng::Value as Yaml;

use super::arguments::{NodeIdentity, ParameterSource};

/// A parameter's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// 64-bit integer.
    Integer(i64),
    /// Floating point; whole numbers are accepted too.
    Double(f64),
    /// Text.
    Text(String),
    /// List of texts.
    Texts(Vec<String>),
}

impl Value {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a bool",
            Self::Integer(_) => "an integer",
            Self::Double(_) => "a double",
            Self::Text(_) => "a string",
            Self::Texts(_) => "a list of strings",
        }
    }
}

/// What a parameter is when nobody sets it; decides its type.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "named as the variants of Value")]
pub enum Default {
    Bool(bool),
    Integer(i64),
    Double(f64),
    Text(&'static str),
    Texts(&'static [&'static str]),
}

impl Default {
    /// The default as a value.
    #[must_use]
    pub fn value(self) -> Value {
        match self {
            Self::Bool(value) => Value::Bool(value),
            Self::Integer(value) => Value::Integer(value),
            Self::Double(value) => Value::Double(value),
            Self::Text(value) => Value::Text(value.to_owned()),
            Self::Texts(values) => Value::Texts(values.iter().map(|&text| text.to_owned()).collect()),
        }
    }
}

/// Which values are allowed, beyond the type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// All.
    Any,
    /// Integers from … to ….
    Integers(i64, i64),
    /// Doubles from … to ….
    Doubles(f64, f64),
    /// One of these texts.
    Choice(&'static [&'static str]),
}

/// When a new value of a parameter takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// At once, between two frames.
    AtOnce,
    /// When the node is configured; it can be set while the node is unconfigured.
    WhenConfigured,
    /// When the node starts; it cannot be set later.
    AtStart,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    /// Name; dots stand for levels in YAML.
    pub name: &'static str,
    /// Value when nobody sets it, and the type.
    pub default: Default,
    /// Allowed values.
    pub range: Range,
    /// When a new value takes effect.
    pub takes: Takes,
    /// One or two sentences for people.
    pub description: &'static str,
}

/// A parameter, or a file of parameters, that cannot be used. Names the place it came from.
#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    /// No such parameter.
    #[error("{place}: there is no parameter {name:?}; did you mean {nearest:?}?")]
    Unknown {
        /// File or argument.
        place: String,
        /// Name given.
        name: String,
        /// Most similar name there is.
        nearest: &'static str,
    },
    /// A value of another type.
    #[error("{place}: parameter {name} is {expected}; found {found}")]
    Type {
        /// File or argument.
        place: String,
        /// Name of the parameter.
        name: &'static str,
        /// Its type.
        expected: &'static str,
        /// The value.
        found: String,
    },
    /// A value outside what is allowed.
    #[error("{place}: parameter {name} must be {expected}; found {found}")]
    Range {
        /// File or argument.
        place: String,
        /// Name of the parameter.
        name: &'static str,
        /// What is allowed.
        expected: String,
        /// The value.
        found: String,
    },
    /// A file that cannot be read.
    #[error("cannot read parameters from {}: {source}", path.display())]
    File {
        /// Path given.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Text that is not YAML.
    #[error("{place}: not valid YAML: {source}")]
    Yaml {
        /// File or argument.
        place: String,
        /// What the parser said.
        source: serde_yaml_ng::Error,
    },
    /// A file without the structure of a ROS 2 parameter file.
    #[error("{place}: {reason}; expected `NODE: {{ros__parameters: {{name: value}}}}`")]
    Structure {
        /// File.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Values of every parameter of a table.
#[derive(Clone, Debug)]
pub struct Values {
    table: &'static [Parameter],
    set: BTreeMap<&'static str, Value>,
}

impl Values {
    /// Every parameter at its default.
    #[must_use]
    pub const fn new(table: &'static [Parameter]) -> Self {
        Self { table, set: BTreeMap::new() }
    }

    /// Applies `sources` in order; later ones win. What is meant for other nodes is skipped.
    ///
    /// # Errors
    /// The first [`ParameterError`].
    pub fn apply(&mut self, sources: &[ParameterSource], node: &NodeIdentity) -> Result<(), ParameterError> {
        for source in sources {
            match source {
                ParameterSource::File(path) => {
                    let text = std::fs::read_to_string(path)
                        .map_err(|source| ParameterError::File { path: path.clone(), source })?;
                    if self.apply_file(&text, path, node)? == 0 {
                        let (path, node) = (path.display(), node.full_name());
                        tracing::warn!(%path, node, "no section of the parameter file is for this node");
                    }
                }
                ParameterSource::Value { node: Some(other), .. } if *other != node.name => {}
                ParameterSource::Value { name, yaml, .. } => {
                    let place = format!("-p {name}:={yaml}");
                    let value = serde_yaml_ng::from_str(yaml)
                        .map_err(|source| ParameterError::Yaml { place: place.clone(), source })?;
                    self.set(name, &value, &place)?;
                }
            }
        }
        Ok(())
    }

    /// Applies the sections of a parameter file that are for `node`; gives their number.
    ///
    /// # Errors
    /// The first [`ParameterError`].
    pub fn apply_file(&mut self, text: &str, path: &Path, node: &NodeIdentity) -> Result<usize, ParameterError> {
        let place = path.display().to_string();
        let root: Yaml =
            serde_yaml_ng::from_str(text).map_err(|source| ParameterError::Yaml { place: place.clone(), source })?;
        let mut sections = Vec::new();
        collect_sections(&root, &mut Vec::new(), &mut sections, &place)?;
        let full = node.full_name();
        let mut applied = 0;
        for (pattern, parameters) in sections {
            if matches(&pattern, &full) {
                applied += 1;
                self.set_nested("", parameters, &place)?;
            }
        }
        Ok(applied)
    }

    fn set_nested(&mut self, prefix: &str, value: &Yaml, place: &str) -> Result<(), ParameterError> {
        let Yaml::Mapping(mapping) = value else { return self.set(prefix, value, place) };
        for (key, value) in mapping {
            let key = yaml_key(key, place)?;
            let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
            self.set_nested(&name, value, place)?;
        }
        Ok(())
    }

    /// The row of the table with this name; `place` is what the error names.
    ///
    /// # Errors
    /// [`ParameterError::Unknown`].
    pub fn row(&self, name: &str, place: &str) -> Result<&'static Parameter, ParameterError> {
        self.table.iter().find(|parameter| parameter.name == name).ok_or_else(|| ParameterError::Unknown {
            place: place.to_owned(),
            name: name.to_owned(),
            nearest: nearest(name, self.table),
        })
    }

    /// Sets a parameter to a typed value. A whole number will do for a double.
    ///
    /// # Errors
    /// [`ParameterError`] for an unknown name, another type, or a value outside the range.
    pub fn assign(&mut self, name: &str, value: Value, place: &str) -> Result<(), ParameterError> {
        let yaml = match value {
            Value::Bool(value) => Yaml::Bool(value),
            Value::Integer(value) => Yaml::Number(value.into()),
            Value::Double(value) => Yaml::Number(value.into()),
            Value::Text(value) => Yaml::String(value),
            Value::Texts(values) => Yaml::Sequence(values.into_iter().map(Yaml::String).collect()),
        };
        self.set(name, &yaml, place)
    }

    fn set(&mut self, name: &str, yaml: &Yaml, place: &str) -> Result<(), ParameterError> {
        let parameter = self.row(name, place)?;
        let default = parameter.default.value();
        let found = || serde_yaml_ng::to_string(yaml).map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned());
        let value = convert(yaml, &default).ok_or_else(|| ParameterError::Type {
            place: place.to_owned(),
            name: parameter.name,
            expected: default.kind(),
            found: found(),
        })?;
        if let Some(expected) = outside(&value, parameter.range) {
            let (place, name, found) = (place.to_owned(), parameter.name, found());
            return Err(ParameterError::Range { place, name, expected, found });
        }
        self.set.insert(parameter.name, value);
        Ok(())
    }

    /// Every parameter with its value, in the table's order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Parameter, Value)> + '_ {
        self.table.iter().map(|parameter| {
            (parameter, self.set.get(parameter.name).cloned().unwrap_or_else(|| parameter.default.value()))
        })
    }

    /// The value of a parameter of the table.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value> {
        self.iter().find(|(parameter, _)| parameter.name == name).map(|(_, value)| value)
    }
}

fn yaml_key(key: &Yaml, place: &str) -> Result<String, ParameterError> {
    match key {
        Yaml::String(text) => Ok(text.clone()),
        Yaml::Number(number) => Ok(number.to_string()),
        Yaml::Bool(value) => Ok(value.to_string()),
        _ => Err(ParameterError::Structure { place: place.to_owned(), reason: "a key is not a name".to_owned() }),
    }
}

/// Finds every `ros__parameters` with the node pattern it stands under, in the order of the file.
fn collect_sections<'y>(
    value: &'y Yaml,
    path: &mut Vec<String>,
    sections: &mut Vec<(String, &'y Yaml)>,
    place: &str,
) -> Result<(), ParameterError> {
    let structure = |reason: String| ParameterError::Structure { place: place.to_owned(), reason };
    let Yaml::Mapping(mapping) = value else {
        let at = if path.is_empty() { "the file".to_owned() } else { path.join("/") };
        return Err(structure(format!("{at} holds no ros__parameters")));
    };
    for (key, inner) in mapping {
        let key = yaml_key(key, place)?;
        if key != "ros__parameters" {
            path.push(key);
            collect_sections(inner, path, sections, place)?;
            path.pop();
            continue;
        }
        if path.is_empty() {
            return Err(structure("ros__parameters stands at the top, without a node's name".to_owned()));
        }
        match inner {
            Yaml::Mapping(_) => sections.push((path.join("/"), inner)),
            Yaml::Null => {}
            _ => return Err(structure(format!("the ros__parameters of {} are no mapping", path.join("/")))),
        }
    }
    Ok(())
}

/// Whether a node pattern of a parameter file (`name`, `/ns/name`, `*` for one part, `**` for any number) is for the
/// node with this full name.
fn matches(pattern: &str, full_name: &str) -> bool {
    fn parts(name: &str) -> Vec<&str> {
        name.split('/').filter(|part| !part.is_empty()).collect()
    }
    fn matching(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => {
                matching(rest, name) || name.split_first().is_some_and(|(_, name)| matching(pattern, name))
            }
            (Some((&part, pattern)), Some((&found, name))) => (part == "*" || part == found) && matching(pattern, name),
            _ => false,
        }
    }
    matching(&parts(pattern), &parts(full_name))
}

/// The YAML value as the type of `like`.
fn convert(yaml: &Yaml, like: &Value) -> Option<Value> {
    match like {
        Value::Bool(_) => yaml.as_bool().map(Value::Bool),
        Value::Integer(_) => yaml.as_i64().map(Value::Integer),
        Value::Double(_) => yaml.as_f64().map(Value::Double),
        Value::Text(_) => yaml.as_str().map(|text| Value::Text(text.to_owned())),
        Value::Texts(_) => {
            let list = yaml.as_sequence()?;
            list.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>().map(Value::Texts)
        }
    }
}

/// What is allowed, where `value` is not.
fn outside(value: &Value, range: Range) -> Option<String> {
    match (range, value) {
        (Range::Integers(from, to), Value::Integer(found)) if !(from..=to).contains(found) => {
            Some(if to == i64::MAX { format!("{from} or more") } else { format!("from {from} to {to}") })
        }
        (Range::Doubles(from, to), Value::Double(found)) if !(from..=to).contains(found) => {
            Some(format!("from {from} to {to}"))
        }
        (Range::Choice(choices), Value::Text(found)) if !choices.contains(&found.as_str()) => {
            Some(format!("one of {}", choices.join(", ")))
        }
        _ => None,
    }
}

/// The name in the table that takes the fewest edits from `name`; of equals the first.
fn nearest(name: &str, table: &[Parameter]) -> &'static str {
    table.iter().map(|parameter| parameter.name).min_by_key(|known| distance(name, known)).unwrap_or("")
}

/// Edits from `a` to `b`: insertions, deletions, substitutions and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (i, x) in a.chars().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&last, j) + usize::from(x != y)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            if let Some(j) = j.checked_sub(1)
                && previous == Some(y)
                && b.get(j) == Some(&x)
            {
                best = best.min(at(&before, j) + 1);
            }
            row.push(best);
        }
        previous = Some(x);
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_damerau_levenshtein() {
        for (a, b, expected) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 1), ("ca", "abc", 3), ("x", "x", 0)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn node_patterns_match_as_in_rcl() {
        for (pattern, name, expected) in [
            ("scenelex", "/scenelex", true),
            ("/scenelex", "/scenelex", true),
            ("scenelex", "/robot/scenelex", false),
            ("/robot/scenelex", "/robot/scenelex", true),
            ("/**", "/robot/arm/scenelex", true),
            ("/*", "/scenelex", true),
            ("/*", "/robot/scenelex", false),
            ("/*/scenelex", "/robot/scenelex", true),
            ("/**/scenelex", "/scenelex", true),
            ("/**/scenelex", "/a/b/scenelex", true),
            ("/**/other", "/a/b/scenelex", false),
            ("/scene", "/scenelex", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
