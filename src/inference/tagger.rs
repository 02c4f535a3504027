//! Image taggers through ONNX: RAM++ (Huang et al. 2023, "Open-Set Image Tagging with Multi-Grained Text Supervision") and
//! plain classifiers.
//!
//! - *ram*: image f32[b,3,384,384] → logits f32[b,C]; sigmoid; a tag is given where its probability is above its own
//!   threshold (`thresholds` file: C numbers, one a line).
//! - *classifier*: image f32 or u8, [b,3,H,W] or [b,H,W,3] → scores f32 or u8, [b,C]; what makes probabilities of them, how
//!   many are taken and from which on is the manifest's business.
//!
//! Both have a `labels` file with C lines.

use std::{path::Path, sync::Arc};

use super::{
    Bundle, BundleKind, InferenceError, Tag, Tagger,
    bundle::{Activation, TagRules},
    contract,
    contract::Dim,
    image_input::ImageInput,
    ort::{Element, Model, ModelOptions},
};
use crate::types::RgbImage;

/// Largest list that is read.
const MAX_LIST_BYTES: u64 = 4 << 20;

/// A tagger of kind `ram` or `classifier`.
pub struct ImageTagger {
    model: Model,
    input: ImageInput,
    output: String,
    quantised: bool,
    /// Empty for labels that name no thing.
    labels: Vec<Arc<str>>,
    thresholds: Option<Vec<f32>>,
    rules: TagRules,
    probabilities: Vec<f32>,
}

impl ImageTagger {
    /// Loads the `tagger` file of a bundle with its `labels` and, where there is one, its `thresholds`, and checks that
    /// they belong together.
    ///
    /// # Errors
    /// When the bundle is of another kind, or a file is missing, broken, against the contract, or of another length than
    /// the model's scores.
    pub fn load(bundle: &Bundle, options: &ModelOptions) -> Result<Self, InferenceError> {
        if bundle.kind != BundleKind::Ram {
            bundle.expect_kind(BundleKind::Classifier)?;
        }
        let model = Model::load(bundle.model("tagger", options.provider)?, &[], options)?;
        let [image] = model.inputs() else {
            return Err(contract::error(&model, "inputs", "exactly one", &contract::names(model.inputs())));
        };
        let input = ImageInput::new(&model, image, bundle)?;
        let [scores] = model.outputs() else {
            return Err(contract::error(&model, "outputs", "exactly one", &contract::names(model.outputs())));
        };
        let quantised = scores.element == Element::U8;
        let element = if quantised { Element::U8 } else { Element::F32 };
        contract::output(&model, &scores.name, element, &[Dim::Batch, Dim::Any])?;
        let output = scores.name.clone();

        let labels = read_labels(bundle.file("labels")?, &bundle.tags.ignore)?;
        // Where the file leaves the number of scores open, the first run tells.
        let classes = scores.shape.last().copied().flatten().unwrap_or(labels.len());
        expect_length(&model, "lines of the labels file", classes, labels.len())?;
        let thresholds = bundle.optional_file("thresholds").map(read_thresholds).transpose()?;
        if let Some(thresholds) = &thresholds {
            expect_length(&model, "lines of the thresholds file", classes, thresholds.len())?;
        }
        let rules = bundle.tags.clone();
        Ok(Self { model, input, output, quantised, labels, thresholds, rules, probabilities: Vec::new() })
    }

    /// Probability of every class f32[C] for the image last tagged, in the order of the labels file.
    #[must_use]
    pub fn probabilities(&self) -> &[f32] {
        &self.probabilities
    }

    /// Labels as they are proposed, in the order of the file; empty for those that are never.
    #[must_use]
    pub fn labels(&self) -> &[Arc<str>] {
        &self.labels
    }
}

impl Tagger for ImageTagger {
    fn tag(&mut self, image: &RgbImage, tags: &mut Vec<Tag>) -> Result<(), InferenceError> {
        self.input.prepare(image)?;
        let Self { model, input, output, rules, probabilities, .. } = self;
        let outputs = input.with_tensor(|name, tensor| model.run(&[(name, tensor)]))?;
        probabilities.clear();
        let shape = if self.quantised {
            let (shape, scores) = outputs.u8(output)?;
            let real = |&q: &u8| rules.scale * (f32::from(q) - f32::from(rules.zero_point));
            probabilities.extend(scores.iter().map(real));
            shape
        } else {
            let (shape, scores) = outputs.f32(output)?;
            probabilities.extend_from_slice(scores);
            shape
        };
        contract::shape(outputs.model(), output, shape, &[1, self.labels.len()])?;
        activate(rules.activation, probabilities);

        tags.clear();
        for (class, (label, &probability)) in self.labels.iter().zip(&self.probabilities).enumerate() {
            let own = self.thresholds.as_ref().and_then(|thresholds| thresholds.get(class));
            // Also false for a score that is no number.
            let given = probability > own.copied().unwrap_or(self.rules.threshold);
            if given && !label.is_empty() {
                tags.push(Tag { label: Arc::clone(label), probability });
            }
        }
        // Stable: equal scores, which quantised models often have, stay in the file's order.
        tags.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        tags.truncate(self.rules.top_k);
        Ok(())
    }
}

fn activate(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::None => {}
        Activation::Sigmoid => values.iter_mut().for_each(|value| *value = 1.0 / (1.0 + (-*value).exp())),
        Activation::Softmax => {
            let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            values.iter_mut().for_each(|value| *value = (*value - most).exp());
            let sum: f32 = values.iter().sum();
            values.iter_mut().for_each(|value| *value /= sum);
        }
    }
}

fn expect_length(model: &Model, what: &str, classes: usize, found: usize) -> Result<(), InferenceError> {
    if classes == found {
        return Ok(());
    }
    let expected = format!("{classes}, one for each of the model's scores");
    Err(contract::error(model, what, &expected, &found.to_string()))
}

/// The lines of a text file, without the empty ones at its end.
fn read_lines(path: &Path) -> Result<Vec<String>, InferenceError> {
    let failed = |source| InferenceError::Io { path: path.to_path_buf(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_LIST_BYTES {
        let reason = format!("{length} bytes, a list has at most {MAX_LIST_BYTES}");
        return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidData, reason)));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Ok(text.trim_end().lines().map(|line| line.trim().to_owned()).collect())
}

fn read_thresholds(path: &Path) -> Result<Vec<f32>, InferenceError> {
    let parse = |(at, line): (usize, String)| match line.parse::<f32>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err(InferenceError::Manifest {
            path: path.to_path_buf(),
            reason: format!("line {}: expected a number in [0, 1], found {line:?}", at + 1),
        }),
    };
    read_lines(path)?.into_iter().enumerate().map(parse).collect()
}

fn read_labels(path: &Path, ignore: &[String]) -> Result<Vec<Arc<str>>, InferenceError> {
    let label = |line: &String| {
        let label = first_name(line);
        if ignore.iter().any(|ignored| ignored == label) { Arc::from("") } else { Arc::from(label) }
    };
    Ok(read_lines(path)?.iter().map(label).collect())
}

/// The name a label line begins with: ImageNet's lists name each class by its synset number, all its synonyms, or both
/// ("n02123045 tabby, tabby cat").
fn first_name(line: &str) -> &str {
    let is_synset = |word: &str| {
        let mut characters = word.chars();
        characters.next() == Some('n') && word.len() == 9 && characters.all(|c| c.is_ascii_digit())
    };
    let names = match line.split_once(char::is_whitespace) {
        Some((word, rest)) if is_synset(word) => rest,
        _ => line,
    };
    names.split(',').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_synonym_is_the_label() {
        assert_eq!(first_name("tabby, tabby cat"), "tabby");
        assert_eq!(first_name("n04254680 soccer ball"), "soccer ball");
        assert_eq!(first_name("n02123045 tabby, tabby cat"), "tabby");
        assert_eq!(first_name("n0425468 of old"), "n0425468 of old");
        assert_eq!(first_name("nightgown"), "nightgown");
        assert_eq!(first_name(""), "");
    }

    #[test]
    fn probabilities() {
        let mut values = [0.0, 2.0, -1000.0];
        activate(Activation::Sigmoid, &mut values);
        assert!(values.iter().zip([0.5, 0.880_797, 0.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{values:?}");
        let mut values = [1000.0, 1000.0, 999.0];
        activate(Activation::Softmax, &mut values);
        assert!(values.iter().zip([0.422_319, 0.422_319, 0.155_362]).all(|(a, b)| (a - b).abs() < 1e-6), "{values:?}");
    }
}
