//! What a language model is asked, and what is made of its answers.
//!
//! Every step is two pure functions: one makes the request from lists, one reads the reply against the same lists. What a
//! model says is data from outside: a reply that is not what the schema says is an error, a label that was not allowed is
//! dropped and counted, and no reply makes a class list empty.
//!
//! Steps: [`prompts::look`] (a vision model proposes labels), [`prompts::select`] and [`prompts::group`] (pre-refinement
//! with and without target classes; LLM refinement, section 3.3.1, and LLM2Labels, section 3.4), [`prompts::assign`]
//! (post-refinement; LLM refinement, section 3.3.2), [`prompts::subclasses`] (LLM-supervision). [`offline`] does
//! pre-refinement by WordNet.

pub mod offline;
pub mod prompts;
pub mod reply;
