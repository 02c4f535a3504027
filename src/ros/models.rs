//! Finding and loading what the node runs.

use std::path::{Path, PathBuf};

use super::{refresh::Parts, refresh_settings::RefreshSetupError, settings::Settings};
use crate::{
    inference::{Bundle, InferenceError, ModelOptions, Runtime, TextEncoder, Thresholds},
    pipeline::{Pipeline, PipelineError, VocabularyHandle, VocabularyWorker},
    vocabulary::VocabularyLimits,
};

/// The models that ship with the program, from the working directory.
const SHIPPED: &str = "models/sim";

/// Why there are no models.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// No bundles in the folder.
    #[error(
        "no models: {} has no detector/bundle.toml and segmenter/bundle.toml; parameter models_dir names the folder",
        .0.display()
    )]
    Missing(PathBuf),
    /// A bundle or model that cannot be used.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// The frame pipeline.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The vocabulary loop.
    #[error(transparent)]
    Refresh(#[from] RefreshSetupError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Everything loaded and ready.
pub struct Loaded {
    /// The frame loop's work.
    pub pipeline: Pipeline,
    /// The vocabulary loop.
    pub worker: VocabularyWorker,
    /// Its current value.
    pub vocabulary: VocabularyHandle,
    /// What looks at images to rewrite the class list, where that is wanted.
    pub refresh: Option<Parts>,
    /// Thresholds the detector ships with.
    pub thresholds: Thresholds,
    /// Names of the bundles, for people.
    pub names: String,
}

/// The folder with `detector/` and `segmenter/`: `given`, else `models/sim` below the working directory, else where
/// `cargo install` or `colcon build` put it.
///
/// # Errors
/// [`ModelsError::Missing`].
pub fn folder(given: Option<&Path>) -> Result<PathBuf, ModelsError> {
    let complete =
        |folder: &Path| ["detector", "segmenter"].iter().all(|b| folder.join(b).join("bundle.toml").is_file());
    let mut candidates = vec![given.map_or_else(|| PathBuf::from(SHIPPED), Path::to_owned)];
    if given.is_none()
        && let Ok(executable) = std::env::current_exe()
    {
        let prefixes = executable.ancestors().skip(2).take(2);
        candidates.extend(prefixes.map(|prefix| prefix.join("share/scenelex").join(SHIPPED)));
    }
    candidates
        .iter()
        .find(|folder| complete(folder))
        .or(candidates.first())
        .filter(|folder| complete(folder))
        .cloned()
        .ok_or_else(|| ModelsError::Missing(candidates.swap_remove(0)))
}

/// Loads the bundles that `settings` name.
///
/// # Errors
/// [`ModelsError`], naming file and reason.
pub fn load(settings: &Settings) -> Result<Loaded, ModelsError> {
    let folder = folder(settings.models_dir.as_deref())?;
    let runtime = Runtime::init(settings.onnxruntime_library.as_deref())?;
    let detector = Bundle::load(&folder.join("detector"))?;
    let segmenter = Bundle::load(&folder.join("segmenter"))?;
    let config = settings.pipeline(&detector.thresholds);
    // Text is encoded off the frame path, once per vocabulary: one thread, always on the processor.
    let encoder = TextEncoder::load(&detector, &ModelOptions::default())?;
    let limits = VocabularyLimits { max_classes: settings.max_classes, ..VocabularyLimits::default() };
    let (worker, vocabulary) = VocabularyWorker::start(encoder, limits)?;
    let pipeline = Pipeline::load(config, &detector, &segmenter)?;
    let refresh = settings.refresh.as_ref();
    let refresh = refresh.map(|r| r.load(&detector, pipeline.config().box_threshold)).transpose()?;
    let names = format!("{} + {}", detector.name, segmenter.name);
    for (model, providers) in pipeline.runs_on() {
        tracing::info!(model, providers, "runs on");
    }
    tracing::info!(folder = %folder.display(), models = %names, runtime = %runtime.library().display(), "models loaded");
    Ok(Loaded { pipeline, worker, vocabulary, refresh, thresholds: detector.thresholds, names })
}
