//! Pixels: decoding, model inputs, masks and overlays. Knows no model and no middleware.

pub mod compressed;
pub mod decode;
pub mod encoding;
mod helpers;
pub mod mask;
pub mod overlay;
pub mod preprocess;
mod resize;
#[cfg(target_arch = "x86_64")]
mod resize_avx2;
mod resize_blend;
mod resize_row;
#[cfg(target_arch = "x86_64")]
mod resize_vnni;
pub mod rle;
pub mod scene;
mod simd;

pub use decode::{DecodeError, DecodeLimits, ImageDecoder};
pub use encoding::UnknownEncoding;
pub use mask::{MASK_THRESHOLD, MaskError, MaskUpscaler, paint_mask};
pub use overlay::{OverlayError, PictureFormat, class_color, draw_overlay, encode_jpeg, encode_picture};
pub use preprocess::{Placement, Preprocess, PreprocessError, Preprocessor, ResizeRule};
pub use resize::ResizeFilter;
pub use rle::{RunLengthEncoder, RunLengthError};
pub use scene::SceneSignature;
