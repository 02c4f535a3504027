//! ONNX Runtime. The only file that knows the `ort` crate.
//!
//! The shared library is opened at run time, so the user chooses its build (CPU, CUDA, TensorRT). Thread spinning is
//! off: sessions of several threads run side by side here, and spinning threads take the cores from each other.
//! Outputs come from the session's own arena, which keeps its blocks between runs: a steady stream of frames of one size
//! allocates no image-sized memory.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ffi::CStr,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock},
};

use ort::{
    AsPointer,
    environment::{Environment, ThreadManager},
    ep,
    session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionInputValue, SessionOutputs},
    value::{DynValue, Tensor, TensorElementType, TensorRef, ValueType},
};

use super::{InferenceError, prune};

/// ONNX Runtime, loaded once per process.
#[derive(Debug)]
pub struct Runtime {
    environment: Environment,
    library: PathBuf,
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

impl Runtime {
    /// Loads ONNX Runtime, or returns the one already loaded, unless `library` names another.
    ///
    /// Without `library` it is looked for in `ORT_DYLIB_PATH`; in `.deps/onnxruntime/` of the working directory and of
    /// each folder above the executable; then where the system's loader looks. A path that is named (argument or
    /// variable) is the only one tried.
    ///
    /// # Errors
    /// [`InferenceError::Runtime`] when no library can be loaded or it is older than the API this crate uses.
    pub fn init(library: Option<&Path>) -> Result<&'static Self, InferenceError> {
        let _guard = LOADING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(runtime) = RUNTIME.get() {
            return match library {
                Some(other) if other != runtime.library => Err(InferenceError::Runtime {
                    reason: format!("{} is in use, and a process has only one", runtime.library.display()),
                    tried: vec![other.to_owned()],
                }),
                _ => Ok(runtime),
            };
        }
        let tried = candidates(library);
        let mut reason = String::from("no library found");
        for path in &tried {
            // A bare name is left to the system's loader; everything else must be there, so that the reason kept is
            // the one of a file that exists.
            if path.components().count() > 1 && !path.exists() {
                continue;
            }
            let loaded = ort::init_from(path).map_err(|e| e.to_string()).and_then(|builder| {
                builder.with_name("scenelex").with_telemetry(false).build().map_err(|e| e.to_string())
            });
            match loaded {
                Ok(environment) => {
                    return Ok(RUNTIME.get_or_init(|| Self { environment, library: path.clone() }));
                }
                Err(error) => reason = error,
            }
        }
        Err(InferenceError::Runtime { reason, tried })
    }

    /// The library that was loaded.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Version, commit and flags of the loaded build.
    #[must_use]
    pub fn build_info(&self) -> &'static str {
        ort::info()
    }
}

fn candidates(library: Option<&Path>) -> Vec<PathBuf> {
    const NAME: &str = "libonnxruntime.so";
    if let Some(path) = library {
        return vec![path.to_path_buf()];
    }
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()) {
        return vec![PathBuf::from(path)];
    }
    let mut paths = Vec::new();
    let mut add = |folder: &Path| {
        let path = folder.join(".deps/onnxruntime").join(NAME);
        if !paths.contains(&path) {
            paths.push(path);
        }
    };
    if let Ok(current) = std::env::current_dir() {
        add(&current);
    }
    if let Ok(executable) = std::env::current_exe() {
        executable.ancestors().skip(1).for_each(&mut add);
    }
    paths.push(PathBuf::from(NAME));
    paths
}

/// Where a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provider {
    /// The processor.
    #[default]
    Cpu,
    /// CUDA on a device; an error where it cannot be had, never a silent fall to the processor.
    Cuda {
        /// Device number.
        device: i32,
    },
    /// TensorRT on a device, CUDA for what TensorRT does not take; an error where it cannot be had.
    TensorRt {
        /// Device number.
        device: i32,
    },
}

/// How a model is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelOptions {
    /// Threads within one operator; 0 leaves it to ONNX Runtime.
    pub intra_threads: usize,
    /// Threads that images are prepared on, the caller's included.
    pub preprocess_threads: usize,
    /// Whether idle threads of the pool burn their core while waiting for work.
    pub spinning: bool,
    /// Where the model runs.
    pub provider: Provider,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self { intra_threads: 1, preprocess_threads: 1, spinning: false, provider: Provider::Cpu }
    }
}

/// Element type of a tensor, as far as the contracts use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floating point.
    F32,
    /// 64-bit integer.
    I64,
    /// 8-bit unsigned integer.
    U8,
    /// Anything else; no contract has it.
    Other,
}

impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::I64 => "i64",
            Self::U8 => "u8",
            Self::Other => "another element type",
        })
    }
}

/// Name, element type and shape of an input or output, as the file declares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the graph.
    pub name: String,
    /// Element type.
    pub element: Element,
    /// Dimensions; `None` where the file leaves one open.
    pub shape: Vec<Option<usize>>,
    /// As ONNX Runtime prints it, for messages.
    pub described: String,
}

impl std::fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.described)
    }
}

fn spec(name: &str, dtype: &ValueType) -> TensorSpec {
    let element = match dtype.tensor_type() {
        Some(TensorElementType::Float32) => Element::F32,
        Some(TensorElementType::Int64) => Element::I64,
        Some(TensorElementType::Uint8) => Element::U8,
        _ => Element::Other,
    };
    let shape = dtype.tensor_shape().map(|s| s.iter().map(|&d| usize::try_from(d).ok()).collect()).unwrap_or_default();
    TensorSpec { name: name.to_owned(), element, shape, described: dtype.to_string() }
}

/// An owned tensor that can go from one model to another without a copy.
pub struct Value(DynValue);

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Value({})", self.0.dtype())
    }
}

impl Value {
    /// A tensor with the given shape and content.
    ///
    /// # Errors
    /// When ONNX Runtime is not there or the shape does not hold exactly `data`.
    pub fn from_f32(shape: &[usize], data: Vec<f32>) -> Result<Self, InferenceError> {
        Runtime::init(None)?;
        let tensor = Tensor::from_array((shape, data)).map_err(|e| failed("tensor", &e))?;
        Ok(Self(tensor.into_dyn()))
    }

    /// Shape and content of an f32 tensor.
    ///
    /// # Errors
    /// When it is not an f32 tensor in main memory.
    pub fn as_f32(&self) -> Result<(&[i64], &[f32]), InferenceError> {
        let (shape, data) = self.0.try_extract_tensor::<f32>().map_err(|e| failed("tensor", &e))?;
        Ok((shape, data))
    }
}

/// An input of one run, borrowed from the caller.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Shape and content.
    F32(&'a [usize], &'a [f32]),
    /// Shape and content.
    I64(&'a [usize], &'a [i64]),
    /// Shape and content.
    U8(&'a [usize], &'a [u8]),
    /// A tensor that already lives in ONNX Runtime.
    Value(&'a Value),
}

/// A loaded model: one session, used by one thread.
pub struct Model {
    name: String,
    session: Session,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    runs_on: String,
    selected: RunOptions<HasSelectedOutputs>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Model {
    /// Loads an ONNX file, of which the outputs `wanted` (none: all) will be used, and reads its inputs and outputs. What
    /// only other outputs need is not loaded. Outputs that are not there are no error here, but one of the contract.
    ///
    /// # Errors
    /// When ONNX Runtime is not there, the provider cannot be had, or the file cannot be loaded.
    pub fn load(path: &Path, wanted: &[&str], options: &ModelOptions) -> Result<Self, InferenceError> {
        let runtime = Runtime::init(None)?;
        let name = path.display().to_string();
        let session = build_session(runtime, path, &name, wanted, options)?;
        let inputs = session.inputs().iter().map(|o| spec(o.name(), o.dtype())).collect();
        let outputs: Vec<TensorSpec> = session.outputs().iter().map(|o| spec(o.name(), o.dtype())).collect();
        let names = outputs.iter().map(|o| o.name.as_str()).filter(|name| wanted.is_empty() || wanted.contains(name));
        let selected = selection(&name, names)?;
        let runs_on = runs_on(&session).map_err(|reason| InferenceError::Session { model: name.clone(), reason })?;
        Ok(Self { name, session, inputs, outputs, runs_on, selected })
    }

    /// The file the model came from.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The execution providers that the graph's nodes were really given to, after ONNX Runtime's optimisations:
    /// `CUDAExecutionProvider (212 nodes), CPUExecutionProvider (3 nodes)`.
    #[must_use]
    pub fn runs_on(&self) -> &str {
        &self.runs_on
    }

    /// Inputs as the file declares them.
    #[must_use]
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    /// Outputs as the file declares them.
    #[must_use]
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// Runs the model. Blocks the calling thread until it is done.
    ///
    /// # Errors
    /// Whatever ONNX Runtime reports.
    pub fn run(&mut self, inputs: &[(&str, Input<'_>)]) -> Result<Outputs<'_>, InferenceError> {
        let name = &self.name;
        let mut values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for (input, tensor) in inputs {
            let value = match *tensor {
                Input::F32(shape, data) => {
                    TensorRef::from_array_view((shape, data)).map(SessionInputValue::from).map_err(|e| failed(name, &e))
                }
                Input::I64(shape, data) => {
                    TensorRef::from_array_view((shape, data)).map(SessionInputValue::from).map_err(|e| failed(name, &e))
                }
                Input::U8(shape, data) => {
                    TensorRef::from_array_view((shape, data)).map(SessionInputValue::from).map_err(|e| failed(name, &e))
                }
                Input::Value(value) => Ok(SessionInputValue::from(&value.0)),
            }?;
            values.push((Cow::Borrowed(*input), value));
        }
        let outputs = self.session.run_with_options(values, &self.selected).map_err(|e| failed(name, &e))?;
        Ok(Outputs { model: name, outputs })
    }
}

/// The outputs of one run; they borrow the model until they are dropped.
pub struct Outputs<'m> {
    model: &'m str,
    outputs: SessionOutputs<'m>,
}

impl Outputs<'_> {
    /// The model they came from.
    #[must_use]
    pub fn model(&self) -> &str {
        self.model
    }

    /// Shape and content of an f32 output.
    ///
    /// # Errors
    /// When the output was not selected or is not an f32 tensor.
    pub fn f32(&self, name: &str) -> Result<(&[i64], &[f32]), InferenceError> {
        let value = self.outputs.get(name).ok_or_else(|| self.missing(name))?;
        let (shape, data) = value.try_extract_tensor::<f32>().map_err(|e| failed(self.model, &e))?;
        Ok((shape, data))
    }

    /// Shape and content of a u8 output.
    ///
    /// # Errors
    /// When the output was not selected or is not a u8 tensor.
    pub fn u8(&self, name: &str) -> Result<(&[i64], &[u8]), InferenceError> {
        let value = self.outputs.get(name).ok_or_else(|| self.missing(name))?;
        let (shape, data) = value.try_extract_tensor::<u8>().map_err(|e| failed(self.model, &e))?;
        Ok((shape, data))
    }

    /// Takes an output out, to be kept or handed to another model.
    ///
    /// # Errors
    /// When the output was not selected.
    pub fn take(&mut self, name: &str) -> Result<Value, InferenceError> {
        self.outputs.remove(name).map(Value).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> InferenceError {
        InferenceError::Session { model: self.model.to_owned(), reason: format!("no output {name} in this run") }
    }
}

fn selection<'a>(
    model: &str,
    names: impl Iterator<Item = &'a str>,
) -> Result<RunOptions<HasSelectedOutputs>, InferenceError> {
    let selector = names.fold(OutputSelector::no_default(), |selector, name| selector.with(name));
    Ok(RunOptions::new().map_err(|e| failed(model, &e))?.with_outputs(selector))
}

fn build_session(
    runtime: &Runtime,
    path: &Path,
    name: &str,
    outputs: &[&str],
    options: &ModelOptions,
) -> Result<Session, InferenceError> {
    let mut builder = Session::builder(&runtime.environment)
        .map_err(|e| failed(name, &e))?
        .with_intra_threads(options.intra_threads)
        .map_err(|e| failed(name, &e))?
        .with_intra_op_spinning(options.spinning)
        .map_err(|e| failed(name, &e))?
        .with_thread_manager(NamedThreads)
        .map_err(|e| failed(name, &e))?
        .with_config_entry("session.record_ep_graph_assignment_info", "1")
        .map_err(|e| failed(name, &e))?;
    let (provider, providers) = match options.provider {
        Provider::Cpu => ("CPU", vec![]),
        Provider::Cuda { device } => {
            ("CUDA", vec![ep::CUDA::default().with_device_id(device).build().error_on_failure()])
        }
        Provider::TensorRt { device } => (
            "TensorRT",
            vec![
                ep::TensorRT::default().with_device_id(device).build().error_on_failure(),
                ep::CUDA::default().with_device_id(device).build().error_on_failure(),
            ],
        ),
    };
    if !providers.is_empty() {
        builder = builder
            .with_execution_providers(providers)
            .map_err(|e| InferenceError::Provider { provider, reason: e.to_string() })?;
    }
    let content = std::fs::read(path).map_err(|source| InferenceError::Io { path: path.to_path_buf(), source })?;
    match Some(outputs).filter(|o| !o.is_empty()).and_then(|o| prune::for_outputs(&content, o)) {
        // From the file: ONNX Runtime then finds weights that lie in files beside it.
        None => builder.commit_from_file(path),
        Some(pruned) => {
            let folder = path.parent().unwrap_or(Path::new("."));
            builder
                .with_config_entry("session.model_external_initializers_file_folder_path", folder.to_string_lossy())
                .map_err(|e| failed(name, &e))?
                .commit_from_memory(&pruned)
        }
    }
    .map_err(|e| failed(name, &e))
}

/// Where ONNX Runtime put the nodes of a graph. `ort` has no call for it, so this is the C API.
fn runs_on(session: &Session) -> Result<String, String> {
    let api = ort::api();
    // Every call gives null or a status with a message, which is then ours to free.
    let check = |status: ort::sys::OrtStatusPtr| {
        if status.0.is_null() {
            return Ok(());
        }
        // SAFETY: the status is not null, its message is a C string that lives as long, and it is freed once.
        unsafe {
            let message = CStr::from_ptr((api.GetErrorMessage)(status.0)).to_string_lossy().into_owned();
            (api.ReleaseStatus)(status.0);
            Err(message)
        }
    };
    let mut nodes_of: BTreeMap<String, usize> = BTreeMap::new();
    let (mut subgraphs, mut count) = (std::ptr::null(), 0);
    // SAFETY: the session is alive, and was built with assignments recorded. The lists and strings that come back belong
    // to the session and are read while it is borrowed.
    unsafe {
        check((api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &raw mut subgraphs, &raw mut count))?;
        for index in 0..count {
            let subgraph = *subgraphs.add(index);
            let (mut name, mut nodes, mut node_count) = (std::ptr::null(), std::ptr::null(), 0);
            check((api.EpAssignedSubgraph_GetEpName)(subgraph, &raw mut name))?;
            check((api.EpAssignedSubgraph_GetNodes)(subgraph, &raw mut nodes, &raw mut node_count))?;
            *nodes_of.entry(CStr::from_ptr(name).to_string_lossy().into_owned()).or_default() += node_count;
        }
    }
    let mut providers: Vec<_> = nodes_of.into_iter().collect();
    providers.sort_by_key(|(_, nodes)| std::cmp::Reverse(*nodes));
    let described: Vec<_> = providers.iter().map(|(name, nodes)| format!("{name} ({nodes} nodes)")).collect();
    Ok(described.join(", "))
}

/// Gives the threads of ONNX Runtime's pools a name, so that `top -H` tells who is busy.
struct NamedThreads;

impl ThreadManager for NamedThreads {
    type Thread = std::thread::JoinHandle<()>;

    fn create(&self, work: impl FnOnce() + Send + 'static) -> ort::Result<Self::Thread> {
        std::thread::Builder::new().name("onnxruntime".into()).spawn(work).map_err(ort::Error::wrap)
    }

    fn join(thread: Self::Thread) -> ort::Result<()> {
        thread.join().map_err(|_| ort::Error::new("a thread of ONNX Runtime panicked"))
    }
}

fn failed<R>(model: &str, error: &ort::Error<R>) -> InferenceError {
    InferenceError::Session { model: model.to_owned(), reason: error.to_string() }
}
