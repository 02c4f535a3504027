//! Class lists: from what a user or a message says to an immutable, versioned [`Vocabulary`](crate::types::Vocabulary).
//!
//! Reading order: [`refresh`] is one turn of the vocabulary loop and names the steps: [`proposer`] (a captioner's words are read by [`caption`]) → [`proposals`] → [`refine`] (what a
//! language model is asked and what is made of its answers) or [`lexicon`] (the same without a network) → [`memory`] → [`names`];
//! [`schedule`] says when, [`assign`] what class a detector's own phrase stands for. `parse` and `builder` make a [`Vocabulary`](crate::types::Vocabulary) of a list, whoever wrote
//! it. All of it is pure (text in, values out) but [`chat`], which talks to the language model, and [`store`].
//! Encoding a vocabulary for the detector is the pipeline's business.

pub mod assign;
mod builder;
pub mod caption;
pub mod chat;
pub mod dataset;
pub mod lexicon;
pub mod memory;
pub mod names;
mod parse;
pub mod proposals;
pub mod proposer;
pub mod refine;
pub mod refresh;
pub mod schedule;
pub mod store;

pub use builder::VocabularyBuilder;
pub use parse::{ClassSpec, ListError, VocabularyLimits, normalise_label, parse_class_list};
