//! What the vocabulary loop asks of those who look at images: taggers, captioners, the detector's probe.

use super::proposals::Proposal;
use crate::types::RgbImage;

/// Why a proposer had nothing to say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{proposer}: {reason}")]
pub struct ProposeError {
    /// Which one.
    pub proposer: &'static str,
    /// What happened.
    pub reason: String,
}

/// Says whether background work may go on, as soon as it may.
pub type GoOn<'g> = &'g dyn Fn() -> bool;

/// What a look at an image gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// What was proposed, sample by sample.
    pub samples: Vec<Vec<Proposal>>,
    /// The image in a sentence, where the proposer writes some.
    pub caption: Option<String>,
}

/// Something that looks at an image and names what may be in it.
pub trait Proposer: Send {
    /// One look. Asks `go_on` before each piece of work, which may take its time to answer; ends with what
    /// it has once that says no.
    ///
    /// # Errors
    /// [`ProposeError`].
    fn propose(&mut self, image: &RgbImage, go_on: GoOn<'_>) -> Result<Look, ProposeError>;
}
