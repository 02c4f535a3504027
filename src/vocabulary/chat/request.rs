//! What is asked.

use std::sync::Arc;

/// The JSON schema that a reply should follow.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// Letters, digits, `_` and `-`, at most 64: the endpoint's rule.
    pub name: &'static str,
    /// The schema itself. For strict servers every object lists all its properties as required and forbids others.
    pub value: serde_json::Value,
}

/// One question to the model.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// What the question is for, in one word; goes into recordings and never to the endpoint.
    pub purpose: &'static str,
    /// The instructions. Empty: none are sent.
    pub system: String,
    /// The question.
    pub user: String,
    /// A JPEG file that belongs to the question.
    pub image: Option<Arc<[u8]>>,
    /// The form wanted. Not every server enforces it, so the instructions have to describe it too.
    pub schema: Option<Schema>,
    /// Longest reply, in the model's tokens.
    pub max_tokens: u32,
    /// Sampling temperature. `None` leaves it to the server; some models accept nothing else.
    pub temperature: Option<f64>,
}
