//! Confusion matrices that add up, and intersection over union from them.
//!
//! The rules of a comparison between a predicted and a true label image:
//! - classes are matched by name; numbers mean something only together with their label list,
//! - the truth's ignore value is not counted at all,
//! - a true class that is not in the frame's vocabulary counts as unlabelled in that frame: nobody asked for it,
//! - the mean is taken over the classes that were seen in the truth while they were asked for; the unlabelled
//!   background is no class, and its IoU is not part of the mean.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

/// Why two label images cannot be compared.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ScoreError {
    /// The images differ in size.
    #[error("expected {expected} true labels for as many predicted ones, found {found}")]
    Size {
        /// Number of predicted labels.
        expected: usize,
        /// Number of true labels.
        found: usize,
    },
}

/// Counts of (true class, predicted class) pairs. Index 0 is "unlabelled", the others are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfusionMatrix {
    names: Vec<String>,
    /// `(names.len() + 1)` squared, row = truth.
    counts: Vec<u64>,
}

/// Quality of one class.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassIou {
    /// Class name.
    pub name: String,
    /// Intersection over union in [0, 1].
    pub iou: f64,
    /// Number of true pixels.
    pub pixels: u64,
}

/// What a matrix says about each class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IouReport {
    /// Classes with at least one true pixel, by name.
    pub classes: Vec<ClassIou>,
    /// Mean over `classes`; `None` when there are none.
    pub mean: Option<f64>,
}

impl ConfusionMatrix {
    /// Index of a class, which is added when it is new.
    pub fn class(&mut self, name: &str) -> usize {
        if let Some(index) = self.names.iter().position(|n| n == name) {
            return index + 1;
        }
        let old = self.side();
        let mut counts = vec![0; (old + 1) * (old + 1)];
        for (row, new_row) in self.counts.chunks_exact(old).zip(counts.chunks_exact_mut(old + 1)) {
            for (count, new_count) in row.iter().zip(new_row) {
                *new_count = *count;
            }
        }
        self.names.push(name.to_owned());
        self.counts = counts;
        old
    }

    /// Number of rows and columns.
    fn side(&self) -> usize {
        self.names.len() + 1
    }

    /// Adds `count` pixels of true class `truth` that were predicted as `predicted` (indices from [`Self::class`], 0 for
    /// unlabelled). Indices that do not exist are ignored.
    pub fn add(&mut self, truth: usize, predicted: usize, count: u64) {
        let side = self.side();
        self.counts.resize(side * side, 0);
        if truth < side
            && predicted < side
            && let Some(cell) = self.counts.get_mut(truth * side + predicted)
        {
            *cell += count;
        }
    }

    /// Number of pixels of true class `truth` predicted as `predicted`; the empty name is "unlabelled".
    #[must_use]
    pub fn count(&self, truth: &str, predicted: &str) -> u64 {
        let index = |name: &str| {
            if name.is_empty() { Some(0) } else { self.names.iter().position(|n| n == name).map(|i| i + 1) }
        };
        match (index(truth), index(predicted)) {
            (Some(t), Some(p)) => self.counts.get(t * self.side() + p).copied().unwrap_or(0),
            _ => 0,
        }
    }

    /// Adds another matrix; classes are matched by name. Shards may be added in any order.
    pub fn merge(&mut self, other: &Self) {
        let map: Vec<usize> = std::iter::once(0).chain(other.names.iter().map(|name| self.class(name))).collect();
        for (row, &truth) in other.counts.chunks_exact(other.side()).zip(&map) {
            for (&count, &predicted) in row.iter().zip(&map) {
                self.add(truth, predicted, count);
            }
        }
    }

    /// IoU of each class with true pixels, and their mean.
    #[must_use]
    pub fn report(&self) -> IouReport {
        let side = self.side();
        let mut classes: Vec<ClassIou> = Vec::new();
        for (index, name) in self.names.iter().enumerate() {
            let class = index + 1;
            let row: u64 = self.counts.iter().skip(class * side).take(side).sum();
            let column: u64 = self.counts.iter().skip(class).step_by(side).sum();
            let hit = self.counts.get(class * side + class).copied().unwrap_or(0);
            if row > 0 {
                let iou = hit as f64 / (row + column - hit) as f64;
                classes.push(ClassIou { name: name.clone(), iou, pixels: row });
            }
        }
        classes.sort_by(|a, b| a.name.cmp(&b.name));
        let mean =
            (!classes.is_empty()).then(|| classes.iter().map(|class| class.iou).sum::<f64>() / classes.len() as f64);
        IouReport { classes, mean }
    }
}

/// A label image with the names of its values.
#[derive(Clone, Copy, Debug)]
pub struct LabelImage<'a> {
    /// One value per pixel, row-major.
    pub values: &'a [u16],
    /// Class name by value. Values without a name are unlabelled.
    pub names: &'a BTreeMap<u16, String>,
}

/// Adds frames to a confusion matrix by the rules at the top of this module.
#[derive(Clone, Debug, Default)]
pub struct SemanticScorer {
    matrix: ConfusionMatrix,
    frames: u64,
}

impl SemanticScorer {
    /// Compares one frame. `vocabulary` holds the names that were asked for in it, `ignore` is the truth's value for
    /// pixels that do not count.
    ///
    /// # Errors
    /// [`ScoreError::Size`].
    pub fn add_frame(
        &mut self,
        truth: LabelImage<'_>,
        predicted: LabelImage<'_>,
        vocabulary: &BTreeSet<String>,
        ignore: u16,
    ) -> Result<(), ScoreError> {
        if truth.values.len() != predicted.values.len() {
            return Err(ScoreError::Size { expected: predicted.values.len(), found: truth.values.len() });
        }
        // Pairs of values first, names after: an image has many pixels and few different pairs.
        let mut pairs: BTreeMap<(u16, u16), u64> = BTreeMap::new();
        let mut pixels = truth.values.iter().zip(predicted.values).peekable();
        while let Some(pair) = pixels.next() {
            let mut run = 1;
            while pixels.next_if_eq(&pair).is_some() {
                run += 1;
            }
            *pairs.entry((*pair.0, *pair.1)).or_default() += run;
        }
        for ((true_value, predicted_value), count) in pairs {
            if true_value == ignore {
                continue;
            }
            let true_class = truth.names.get(&true_value).filter(|name| vocabulary.contains(*name));
            let true_class = true_class.map_or(0, |name| self.matrix.class(name));
            let predicted_class = predicted.names.get(&predicted_value).map_or(0, |name| self.matrix.class(name));
            self.matrix.add(true_class, predicted_class, count);
        }
        self.frames += 1;
        Ok(())
    }

    /// The matrix so far.
    #[must_use]
    pub const fn matrix(&self) -> &ConfusionMatrix {
        &self.matrix
    }

    /// Number of frames added.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.frames
    }
}
