//! Plain values shared by every stage: no I/O, no model, no middleware.

pub mod camera;
pub mod detection;
pub mod frame;
pub mod geometry;
pub mod mask;
pub mod vocabulary;

pub use camera::{CameraImage, Encoding, Header, ImagePayload, RgbImage, Stamp};
pub use detection::Detection;
pub use frame::{FrameResult, LabeledInstance, StageDurations, UNLABELLED};
pub use geometry::{CenterBox, ImageSize, ModelPoint, PixelBox, PixelPoint, PixelRect};
pub use mask::{BinaryMask, RunLengths};
pub use vocabulary::{ClassEntry, Vocabulary, VocabularySource};
