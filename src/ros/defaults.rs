//! The parameter table as a parameter file with every parameter, its meaning and its default.

use super::parameters::{Default, Parameter, Range, Takes};

/// Columns of a comment line.
const WIDTH: usize = 110;

/// `config/default.yaml` for a table.
#[must_use]
pub fn document(table: &[Parameter]) -> String {
    let mut text = String::from(
        "# Every parameter of the node at its default. Copy what you change:\n\
         #   scenelex node --ros-args --params-file FILE\n\
         # This file is made from the table in src/ros/parameter_table.rs; a test keeps the two equal.\n\
         /**:\n  ros__parameters:\n",
    );
    for (index, parameter) in table.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        for line in wrap(parameter.description) {
            text.push_str(&format!("    # {line}\n"));
        }
        if let Some(range) = range(parameter.range) {
            text.push_str(&format!("    # {range}\n"));
        }
        if parameter.takes == Takes::AtOnce {
            text.push_str("    # Can be set while the node is running.\n");
        }
        text.push_str(&format!("    {}: {}\n", parameter.name, value(parameter.default)));
    }
    text
}

fn wrap(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn range(range: Range) -> Option<String> {
    match range {
        Range::Any => None,
        Range::Integers(from, to) => Some(format!("From {from} to {to}.")),
        Range::Doubles(from, to) => Some(format!("From {from} to {to}.")),
        Range::Choice(choices) => Some(format!("One of {}.", choices.join(", "))),
    }
}

fn value(default: Default) -> String {
    match default {
        Default::Bool(value) => value.to_string(),
        Default::Integer(value) => value.to_string(),
        Default::Double(value) => format!("{value:?}"),
        Default::Text(value) => format!("{value:?}"),
        Default::Texts(values) => format!("{values:?}"),
    }
}
