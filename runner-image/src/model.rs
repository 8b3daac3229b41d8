//! The ONNX step model in ONNX Runtime.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use mlwm_spec::Interface;
use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};

use crate::RunnerError;
use crate::forecast::Forecast;
use crate::points::parts_of;
use crate::rollout::{Feed, StepModel};
use crate::task::{Device, Task};

/// Where the image keeps ONNX Runtime.
const LIBRARY_FOLDERS: [&str; 2] = ["/opt/mlwm/lib", "/opt/mlwm"];

/// What the file of ONNX Runtime's library starts with.
const LIBRARY_NAME: &str = "libonnxruntime.so";

/// A step model, loaded.
pub struct OnnxModel {
    session: Session,
    outputs: Vec<Expected>,
}

/// The library of ONNX Runtime: `given` (the value of `ORT_DYLIB_PATH`), or beside the executable,
/// or where the image keeps it.
///
/// # Errors
/// [`RunnerError::Library`] with the places that were looked at.
pub fn find_library(given: Option<PathBuf>) -> Result<PathBuf, RunnerError> {
    if let Some(path) = given {
        return match path.is_file() {
            true => Ok(path),
            false => Err(RunnerError::Library(format!(
                "ORT_DYLIB_PATH is {}, where there is no file",
                path.display()
            ))),
        };
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_owned));
    let folders: Vec<PathBuf> = beside
        .into_iter()
        .chain(LIBRARY_FOLDERS.iter().map(PathBuf::from))
        .collect();
    folders.iter().find_map(|folder| library_in(folder)).ok_or_else(|| {
        let folders: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
        RunnerError::Library(format!(
            "there is no {LIBRARY_NAME} of ONNX Runtime in {}: put it there or set ORT_DYLIB_PATH",
            folders.join(", ")
        ))
    })
}

/// The library in a folder: `libonnxruntime.so` or the newest of `libonnxruntime.so.*`.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let is_library = |path: &PathBuf| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        name == LIBRARY_NAME || name.starts_with(&format!("{LIBRARY_NAME}."))
    };
    let entries = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    entries.filter(is_library).max()
}

impl OnnxModel {
    /// Loads a model for a forecast, and for others with the same interface, and checks it against that: one for
    /// each thread that may use it.
    ///
    /// # Errors
    /// If ONNX Runtime cannot be loaded, cannot read the model or use the device, or if the model
    /// does not have the inputs and the outputs of the interface.
    pub fn load(
        library: &Path,
        model: &Path,
        forecast: &Forecast<'_>,
        task: &Task,
    ) -> Result<Vec<Self>, RunnerError> {
        // Counts what the container may use, where ONNX Runtime would count the host's cores.
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (count, intra) = match (&forecast.interface.points, task.device) {
            (None, _) => (1, threads),
            // An ensemble of trees that several threads share sums in another order with every number of
            // threads.
            (Some(_), Device::Cpu) => (threads.min(parts_of(forecast.points())), 1),
            (Some(_), Device::Cuda) => (1, 1),
        };
        let load = |_| Self::with_threads(library, model, forecast, task, intra);
        (0..count).map(load).collect()
    }

    fn with_threads(
        library: &Path,
        model: &Path,
        forecast: &Forecast<'_>,
        task: &Task,
        threads: usize,
    ) -> Result<Self, RunnerError> {
        let interface = forecast.interface;
        let builder = Session::builder(&environment(library)?)?;
        let builder = builder.with_intra_threads(threads).map_err(plain)?;
        let builder = builder
            .with_deterministic_compute(task.deterministic)
            .map_err(plain)?;
        let mut builder = match task.device {
            Device::Cpu => builder,
            Device::Cuda => builder
                .with_execution_providers([ort::ep::CUDA::default().build().error_on_failure()])
                .map_err(|error| {
                    RunnerError::Library(format!(
                        "a GPU was asked for, but ONNX Runtime at {} cannot use CUDA: {error}",
                        library.display()
                    ))
                })?,
        };
        let session = builder.commit_from_file(model).map_err(|error| {
            RunnerError::Artifact(format!("{} cannot be loaded: {error}", model.display()))
        })?;
        check_graph(&session, interface)
            .map_err(|why| RunnerError::Artifact(format!("{}: {why}", model.display())))?;
        Ok(Self {
            session,
            outputs: tensors(interface).outputs,
        })
    }
}

/// ONNX Runtime, of which there is one per process.
fn environment(library: &Path) -> Result<Environment, RunnerError> {
    static LOADED: Mutex<Option<Environment>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*loaded {
        return Ok(environment.clone());
    }
    let environment = ort::init_from(library)
        .map_err(|error| RunnerError::Library(format!("ONNX Runtime: {error}")))?
        .with_name("mlwm")
        .with_telemetry(false)
        .build()?;
    Ok(loaded.insert(environment).clone())
}

/// Drops the builder that an error of the session builder carries along.
fn plain(error: ort::Error<ort::session::builder::SessionBuilder>) -> RunnerError {
    RunnerError::Library(format!("ONNX Runtime: {error}"))
}

impl StepModel for OnnxModel {
    fn step(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<Vec<f32>>, RunnerError> {
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(feeds.len());
        for feed in feeds {
            let tensor = TensorRef::from_array_view((feed.shape, feed.values))?;
            inputs.push((feed.name, tensor.into()));
        }
        let returned = self.session.run(inputs)?;
        let mut outputs = Vec::with_capacity(self.outputs.len());
        for Expected {
            name,
            shape: expected,
        } in &self.outputs
        {
            let output = returned.get(name).ok_or_else(|| {
                RunnerError::Artifact(format!("the model did not return `{name}`"))
            })?;
            let (shape, values) = output.try_extract_tensor::<f32>()?;
            let is_expected = |(found, expected): (&i64, &Option<u64>)| {
                expected.is_none_or(|expected| u64::try_from(*found) == Ok(expected))
            };
            if shape.len() != expected.len() || !shape.iter().zip(expected).all(is_expected) {
                return Err(RunnerError::Artifact(format!(
                    "the model returned `{name}` of shape {shape:?}, not {}",
                    shape_text(expected)
                )));
            }
            outputs.push(values.to_vec());
        }
        Ok(outputs)
    }
}

/// Checks names, element types and shapes of the graph's inputs and outputs.
fn check_graph(session: &Session, interface: &Interface) -> Result<(), String> {
    let tensors = tensors(interface);
    for outlet in session.inputs() {
        let is_fed = |input: &Expected| input.name == outlet.name();
        if !tensors.inputs.iter().any(is_fed) {
            return Err(format!(
                "the model takes the input `{}`, which the interface does not know",
                outlet.name()
            ));
        }
    }
    for input in &tensors.inputs {
        let outlet = outlet(session.inputs(), &input.name, "input", "takes")?;
        check_shape(input, outlet.dtype())?;
    }
    for output in &tensors.outputs {
        let outlet = outlet(session.outputs(), &output.name, "output", "returns")?;
        check_shape(output, outlet.dtype())?;
    }
    Ok(())
}

/// A tensor of the graph as the interface makes it.
struct Expected {
    name: String,
    /// Lengths of its dimensions; `None` if there are as many as points, of which there may be any number.
    shape: Vec<Option<u64>>,
}

/// All tensors of the graph.
struct Tensors {
    inputs: Vec<Expected>,
    outputs: Vec<Expected>,
}

fn tensors(interface: &Interface) -> Tensors {
    let known = |name: &String, shape: Vec<u64>| Expected {
        name: name.clone(),
        shape: shape.into_iter().map(Some).collect(),
    };
    let of_points = |name: &String, columns: usize| Expected {
        name: name.clone(),
        shape: vec![None, Some(columns as u64)],
    };
    let (inputs, outputs) = (interface.inputs.iter(), interface.outputs.iter());
    match &interface.points {
        None => Tensors {
            inputs: inputs
                .map(|input| known(&input.name, interface.input_shape(input)))
                .collect(),
            outputs: outputs
                .map(|output| known(&output.name, interface.output_shape(output)))
                .collect(),
        },
        Some(model) => Tensors {
            inputs: vec![of_points(&model.input, model.features.len())],
            outputs: outputs
                .map(|output| of_points(&output.name, model.states.len()))
                .collect(),
        },
    }
}

fn shape_text(shape: &[Option<u64>]) -> String {
    let length = |length: &Option<u64>| match length {
        Some(length) => length.to_string(),
        None => "any number of points".to_owned(),
    };
    format!(
        "[{}]",
        shape.iter().map(length).collect::<Vec<_>>().join(", ")
    )
}

/// An input or output of the graph.
fn outlet<'a>(
    outlets: &'a [Outlet],
    name: &str,
    kind: &str,
    does: &str,
) -> Result<&'a Outlet, String> {
    let found = outlets.iter().find(|outlet| outlet.name() == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = outlets.iter().map(Outlet::name).collect();
        format!(
            "the interface has the {kind} `{name}`, but the model {does} {}",
            names.join(", ")
        )
    })
}

/// A dimension that the graph leaves open fits anything, and points need one.
fn check_shape(expected: &Expected, found: &ValueType) -> Result<(), String> {
    let name = &expected.name;
    let ValueType::Tensor { ty, shape, .. } = found else {
        return Err(format!("`{name}` of the model is not a tensor"));
    };
    if *ty != TensorElementType::Float32 {
        return Err(format!("`{name}` of the model is of {ty:?}, not float32"));
    }
    let is_fit = |(found, expected): (&i64, &Option<u64>)| {
        *found < 0 || expected.is_some_and(|expected| u64::try_from(*found) == Ok(expected))
    };
    let fits = shape.len() == expected.shape.len() && shape.iter().zip(&expected.shape).all(is_fit);
    match fits {
        true => Ok(()),
        false => Err(format!(
            "`{name}` of the model has the shape {:?}, but the interface makes {}",
            shape.to_vec(),
            shape_text(&expected.shape)
        )),
    }
}
