//! What several test binaries share: the tiny bundles of `tests/golden/tiny`, pictures they understand, ROS domains.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test binary uses a part of it"
)]

use std::{
    net::{Ipv4Addr, UdpSocket},
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

use scenelex::{
    inference::{Bundle, ModelOptions, TextEncoder},
    pipeline::{Execution, Pipeline, PipelineConfig, PreparedVocabulary},
    types::{CameraImage, Header, ImagePayload, ImageSize, PixelBox, Stamp, VocabularySource},
    vocabulary::{ClassSpec, VocabularyBuilder, VocabularyLimits},
};

pub const RED: [u8; 3] = [255, 0, 0];
pub const GREEN: [u8; 3] = [0, 255, 0];
pub const BLUE: [u8; 3] = [0, 0, 255];
pub const YELLOW: [u8; 3] = [178, 178, 0];
/// No colour the tiny detector knows.
pub const GREY: [u8; 3] = [70, 70, 70];

/// Columns and rows of the tiny detector's grid of queries.
pub const GRID: (u32, u32) = (4, 3);

pub fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

pub fn tiny_bundle(name: &str) -> Bundle {
    Bundle::load(&golden("tiny").join(name)).expect("tiny bundle")
}

pub fn tiny_config() -> PipelineConfig {
    let execution = Execution {
        detector_threads: 1,
        encoder_threads: 1,
        decoder_threads: 2,
        resolve_threads: 2,
        ..Execution::default()
    };
    PipelineConfig { execution, ..PipelineConfig::with_thresholds(&tiny_bundle("detector").thresholds) }
}

pub fn tiny_pipeline(config: PipelineConfig) -> Pipeline {
    Pipeline::load(config, &tiny_bundle("detector"), &tiny_bundle("segmenter")).expect("tiny pipeline")
}

pub fn tiny_encoder() -> TextEncoder {
    TextEncoder::load(&tiny_bundle("detector"), &ModelOptions::default()).expect("tiny text encoder")
}

pub fn specs(labels: &[&str]) -> Vec<ClassSpec> {
    labels.iter().map(|label| ClassSpec::new(*label)).collect()
}

pub fn prepare(encoder: &mut TextEncoder, classes: &[ClassSpec]) -> Arc<PreparedVocabulary> {
    let mut builder = VocabularyBuilder::new(VocabularyLimits::default());
    let vocabulary = builder.build(classes, VocabularySource::Configuration, SystemTime::now()).expect("vocabulary");
    Arc::new(PreparedVocabulary::encode(vocabulary, encoder).expect("encoded vocabulary"))
}

/// The box of cell (`column`, `row`) of the detector's grid, in pixels.
pub fn cell(size: ImageSize, column: u32, row: u32) -> PixelBox {
    let (w, h) = (size.width as f32 / GRID.0 as f32, size.height as f32 / GRID.1 as f32);
    PixelBox { x0: w * column as f32, y0: h * row as f32, x1: w * (column + 1) as f32, y1: h * (row + 1) as f32 }
}

/// A grey rgb8 picture with some cells of the grid painted.
pub fn picture(size: ImageSize, cells: &[(u32, u32, [u8; 3])]) -> CameraImage {
    let mut data = Vec::with_capacity(size.area() * 3);
    for y in 0..size.height {
        for x in 0..size.width {
            let (column, row) = (x * GRID.0 / size.width, y * GRID.1 / size.height);
            let painted = cells.iter().find(|(c, r, _)| (*c, *r) == (column, row));
            data.extend_from_slice(painted.map_or(&GREY, |(_, _, colour)| colour));
        }
    }
    CameraImage {
        header: Header { stamp: Stamp { sec: 12, nanosec: 34 }, frame_id: "camera".into() },
        payload: ImagePayload::Raw { size, encoding: "rgb8".into(), is_bigendian: false, step: size.width * 3, data },
    }
}

/// Puts the pixels of `from` into `image`, in whatever room it has: processing may have taken its own.
pub fn refill(image: &mut CameraImage, from: &CameraImage) {
    let (ImagePayload::Raw { data, .. }, ImagePayload::Raw { data: pixels, .. }) = (&mut image.payload, &from.payload)
    else {
        panic!("raw pictures");
    };
    data.clone_from(pixels);
}

/// A ROS domain of the test's own: tests of other threads, binaries and checkouts keep off it while this value lives.
pub struct Domain {
    pub id: u16,
    _claim: UdpSocket,
}

impl Domain {
    pub fn unused() -> Self {
        // Ports of domains above 100 may be anybody's outgoing connection (DDSI-RTPS 2.3, 9.6.1: 7400 + 250 per domain).
        let candidates = (0..91).map(|k| 10 + ((std::process::id() + k) % 91) as u16);
        let mut claimed = candidates.filter_map(|id| {
            let first = 7400 + 250 * id;
            // The last port of the range is no participant's; the Python tests claim domains by it too.
            let claim = UdpSocket::bind((Ipv4Addr::LOCALHOST, first + 249)).ok()?;
            // The first participant's port: not free where somebody else is on the domain.
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, first + 10)).ok()?;
            Some(Self { id, _claim: claim })
        });
        claimed.next().expect("every ROS domain is taken")
    }
}
