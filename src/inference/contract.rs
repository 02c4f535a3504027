//! Comparing a model file with the contract of its kind.

use super::{
    InferenceError,
    ort::{Element, Model, TensorSpec},
};

/// One dimension of a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dim {
    /// Any size, fixed in the file or open.
    Any,
    /// Exactly this size; open in the file is fine too, because it is then given by the inputs.
    Is(usize),
    /// Fixed in the file, whatever the size: nothing else tells it.
    Fixed,
    /// Open in the file, because it changes from run to run (tokens, points).
    Open,
    /// Items of one run: open in the file, or one.
    Batch,
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Is(size) => size.fmt(f),
            Self::Fixed => f.write_str("<fixed>"),
            Self::Open => f.write_str("<open>"),
            Self::Batch => f.write_str("<1 or open>"),
        }
    }
}

/// Most items one run takes by the first dimension of each of `tensors`: any number where the file leaves all of them
/// open, else one.
pub(super) fn max_batch<'a>(tensors: impl IntoIterator<Item = &'a TensorSpec>) -> usize {
    let open = tensors.into_iter().all(|tensor| tensor.shape.first() == Some(&None));
    if open { usize::MAX } else { 1 }
}

/// A dimension of what a run put out; 0 where it is not there.
pub(super) fn size(shape: &[i64], axis: usize) -> usize {
    shape.get(axis).map_or(0, |&size| usize::try_from(size).unwrap_or(0))
}

/// Checks that `tensors` has `name` with the element type and the shape, and returns it.
fn check<'a>(
    model: &str,
    side: &str,
    tensors: &'a [TensorSpec],
    name: &str,
    element: Element,
    shape: &[Dim],
) -> Result<&'a TensorSpec, InferenceError> {
    let error = |expected: String, found: String| InferenceError::Contract {
        model: model.to_owned(),
        what: format!("{side} {name}"),
        expected,
        found,
    };
    let Some(found) = tensors.iter().find(|t| t.name == name) else {
        return Err(error("to be there".into(), names(tensors)));
    };
    let fits = found.element == element
        && found.shape.len() == shape.len()
        && found.shape.iter().zip(shape).all(|(&found, &expected)| match expected {
            Dim::Any => true,
            Dim::Is(size) => found.is_none_or(|f| f == size),
            Dim::Fixed => found.is_some(),
            Dim::Open => found.is_none(),
            Dim::Batch => found.is_none_or(|f| f == 1),
        });
    if !fits {
        let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
        return Err(error(format!("{element}[{}]", dims.join(",")), found.described.clone()));
    }
    Ok(found)
}

/// Checks one input of `model`.
pub(super) fn input<'a>(
    model: &'a Model,
    name: &str,
    element: Element,
    shape: &[Dim],
) -> Result<&'a TensorSpec, InferenceError> {
    check(model.name(), "input", model.inputs(), name, element, shape)
}

/// Checks one output of `model`.
pub(super) fn output<'a>(
    model: &'a Model,
    name: &str,
    element: Element,
    shape: &[Dim],
) -> Result<&'a TensorSpec, InferenceError> {
    check(model.name(), "output", model.outputs(), name, element, shape)
}

/// Checks that `model` has no inputs besides `known`: one that is not fed would only fail at the first frame.
pub(super) fn no_other_inputs(model: &Model, known: &[&str]) -> Result<(), InferenceError> {
    match model.inputs().iter().find(|i| !known.contains(&i.name.as_str())) {
        None => Ok(()),
        Some(input) => Err(InferenceError::Contract {
            model: model.name().to_owned(),
            what: "inputs".into(),
            expected: known.join(", "),
            found: format!("also {input}"),
        }),
    }
}

/// A difference between `model` and the contract.
pub(super) fn error(model: &Model, what: &str, expected: &str, found: &str) -> InferenceError {
    InferenceError::Contract {
        model: model.name().to_owned(),
        what: what.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

/// Checks the shape of a tensor that came out of a run against the one expected.
pub(super) fn shape(model: &str, name: &str, found: &[i64], expected: &[usize]) -> Result<(), InferenceError> {
    let same = found.len() == expected.len()
        && found.iter().zip(expected).all(|(&f, &e)| usize::try_from(f).is_ok_and(|f| f == e));
    if same {
        return Ok(());
    }
    Err(InferenceError::Contract {
        model: model.to_owned(),
        what: format!("shape of {name}"),
        expected: format!("{expected:?}"),
        found: format!("{found:?}"),
    })
}

/// The names of `tensors`, for messages.
pub(super) fn names(tensors: &[TensorSpec]) -> String {
    tensors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
