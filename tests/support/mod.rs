//! What several test binaries share: the tiny bundles of `tests/golden/tiny`, pictures they understand, ROS domains.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test binary uses a part of it"
)]

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use scenelex::{
    inference::{Bundle, InferenceError, ModelOptions, TextEncoder},
    pipeline::{Execution, Pipeline, PipelineConfig, PreparedVocabulary},
    types::{CameraImage, Header, ImagePayload, ImageSize, PixelBox, Stamp, VocabularySource},
    vocabulary::{ClassSpec, VocabularyBuilder, VocabularyLimits},
};
use sha2::{Digest, Sha256};

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

/// SHA-256 as manifests have it.
pub fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect()
}

/// A copy of a tiny bundle that a test may damage; removed at the end.
pub struct BundleCopy(PathBuf);

impl BundleCopy {
    pub fn of(bundle: &str, test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("scenelex-{}-{bundle}-{test}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for file in fs::read_dir(golden("tiny").join(bundle)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
        Self(folder)
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }

    pub fn load(&self) -> Result<Bundle, InferenceError> {
        Bundle::load(&self.0)
    }

    pub fn edit(&self, from: &str, to: &str) -> &Self {
        let path = self.0.join("bundle.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from:?} is not in {text}");
        fs::write(path, text.replace(from, to)).unwrap();
        self
    }

    /// Leaves out the manifest's line that begins so.
    pub fn drop_line(&self, start: &str) -> &Self {
        let text = fs::read_to_string(self.0.join("bundle.toml")).unwrap();
        let line = text.lines().find(|line| line.starts_with(start)).expect("the line is there");
        self.edit(line, "")
    }

    /// Puts another file in a file's place, with the manifest's checksum made right.
    pub fn replace(&self, name: &str, with: PathBuf) -> &Self {
        self.change(name, &fs::read(with).unwrap())
    }

    /// Gives a file another text, with the manifest's checksum made right.
    pub fn rewrite(&self, name: &str, text: &str) -> &Self {
        self.change(name, text.as_bytes())
    }

    fn change(&self, name: &str, content: &[u8]) -> &Self {
        let path = self.0.join(name);
        let old = digest(&fs::read(&path).unwrap());
        fs::write(path, content).unwrap();
        self.edit(&old, &digest(content))
    }

    pub fn error(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

impl Drop for BundleCopy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
