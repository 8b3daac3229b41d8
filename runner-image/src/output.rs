//! The outputs: physical values in the layout of the source datasets, with times, coordinates and
//! provenance.

use std::path::Path;

use mlwm_datasets::{Values, Writer, ZarrFormat};
use mlwm_spec::contract::{OutputRequest, TimeLayout};
use mlwm_spec::{AnalysisTime, Digest};
use ndarray::ArrayD;
use serde_json::{Map, Value, json};

use crate::contents::Contents;
use crate::forecast::{Forecast, Inputs};
use crate::layout::Layout;
use crate::place::Place;
use crate::rollout::Sink;
use crate::standardize::Standardization;
use crate::{Artifact, RunnerError, Task};

/// Where a forecast comes from, to be recorded in its outputs.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// Name of the architecture.
    pub model: Option<String>,
    /// Name and digest of the artifact's `artifact.yaml`.
    pub artifact: Option<(String, Digest)>,
    /// Identity of the task.
    pub task: Option<String>,
    /// The analysis time.
    pub analysis_time: AnalysisTime,
    /// The ensemble member.
    pub member: u32,
    /// The seed of random numbers.
    pub seed: Option<u64>,
}

impl Provenance {
    /// That of a task with an artifact.
    pub(crate) fn of(task: &Task, artifact: &Artifact) -> Self {
        Self {
            model: artifact.interface.model.clone(),
            artifact: artifact.identity.clone(),
            task: task.identity.clone(),
            analysis_time: task.analysis_time,
            member: task.member,
            seed: task.seed,
        }
    }

    /// Global attributes; nothing in them depends on where or when the forecast is made.
    fn attributes(&self) -> Map<String, Value> {
        let version = env!("CARGO_PKG_VERSION");
        let model = self
            .model
            .as_deref()
            .unwrap_or("machine-learning weather model");
        let mut attributes = Map::new();
        let mut set = |name: &str, value: Value| attributes.insert(name.to_owned(), value);
        set("Conventions", json!("CF-1.11"));
        set(
            "title",
            json!(format!("Forecast from {}", self.analysis_time)),
        );
        set(
            "source",
            json!(format!("{model}, run by mlwm-runner {version}")),
        );
        set("analysis_time", json!(self.analysis_time.to_string()));
        set("member", json!(self.member));
        if let Some(seed) = self.seed {
            set("seed", json!(seed));
        }
        if let Some((name, digest)) = &self.artifact {
            set("artifact", json!(name));
            set("artifact_record_digest", json!(digest.to_string()));
        }
        if let Some(task) = &self.task {
            set("mlwm_task", json!(task));
        }
        set("mlwm_runner_version", json!(version));
        attributes
    }
}

/// How large a chunk of a variable over points becomes: a step of few points is no chunk of its own.
const CHUNK_BYTES: u64 = 8 << 20;

/// What is written of a forecast, whole or in windows.
pub(crate) struct Predictions<'a> {
    forecast: &'a Forecast<'a>,
    layout: Layout<'a>,
    standardization: Standardization,
    columns: usize,
    attributes: Map<String, Value>,
}

impl<'a> Predictions<'a> {
    pub(crate) fn new(
        forecast: &'a Forecast<'a>,
        time_layout: TimeLayout,
        provenance: &Provenance,
    ) -> Self {
        Self {
            forecast,
            layout: Layout::of(forecast, time_layout),
            standardization: forecast.standardization(),
            columns: forecast.variables().count(),
            attributes: provenance.attributes(),
        }
    }

    /// Numbers of the variables that an output asks for.
    pub(crate) fn requested(&self, request: &OutputRequest) -> Result<Vec<usize>, RunnerError> {
        let names = || {
            self.layout
                .variables
                .iter()
                .map(|variable| variable.name.as_str())
        };
        let Some(wanted) = &request.variables else {
            return Ok((0..self.layout.variables.len()).collect());
        };
        let find = |name: &String| {
            names()
                .position(|there| there == name)
                .ok_or_else(|| RunnerError::NoVariable {
                    output: request.name.clone(),
                    variable: name.clone(),
                    there: names().collect::<Vec<_>>().join(", "),
                })
        };
        wanted.iter().map(find).collect()
    }

    /// Starts a store of some variables at some steps (first and last), with its coordinates.
    pub(crate) fn start(
        &self,
        request: &OutputRequest,
        path: &Path,
        variables: &[usize],
        steps: (u64, u64),
    ) -> Result<StepStore, RunnerError> {
        let format = match request.zarr_format {
            2 => ZarrFormat::V2,
            3 => ZarrFormat::V3,
            other => {
                return Err(RunnerError::Environment(format!(
                    "output `{}` asks for Zarr format {other}: write 2 or 3",
                    request.name
                )));
            }
        };
        let failed = |error: mlwm_datasets::Error| write_error(&request.name, &error);
        let mut writer = Writer::create(path, format, self.attributes.clone()).map_err(failed)?;
        let contents = Contents {
            forecast: self.forecast,
            layout: &self.layout,
            steps,
            chunk_steps: self.chunk_steps(steps.1 + 1 - steps.0),
        };
        contents.define(&mut writer, variables).map_err(failed)?;
        Ok(StepStore {
            writer,
            variables: variables.to_vec(),
            waiting: vec![Vec::new(); variables.len()],
            chunk_steps: contents.chunk_steps,
            steps: steps.1 + 1 - steps.0,
            taken: 0,
        })
    }

    /// Steps of a chunk in a store of so many: one on a grid, whose steps are large.
    fn chunk_steps(&self, steps: u64) -> u64 {
        let Inputs::Points(inputs) = &self.forecast.inputs else {
            return 1;
        };
        let of_step = inputs.points.saturating_mul(size_of::<f32>() as u64);
        (CHUNK_BYTES / of_step.max(1)).clamp(1, steps.max(1))
    }

    /// Takes the next step into a store, which writes it when a chunk is complete.
    pub(crate) fn write(
        &self,
        output: &str,
        store: &mut StepStore,
        predicted: &[f32],
    ) -> Result<(), RunnerError> {
        store.taken += 1;
        let waiting = match store.taken % store.chunk_steps {
            0 => store.chunk_steps,
            some => some,
        };
        let is_complete = waiting == store.chunk_steps || store.taken == store.steps;
        for (&number, kept) in store.variables.iter().zip(&mut store.waiting) {
            let variable = &self.layout.variables[number];
            let physical = |column, value| self.standardization.physical(column, value);
            let values = self
                .layout
                .unstack(variable, predicted, self.columns, physical);
            let dims = self.layout.dims(variable, waiting);
            let values = if store.chunk_steps == 1 {
                values
            } else {
                // The steps come first where a chunk has several.
                kept.extend(values);
                if !is_complete {
                    continue;
                }
                let shape: Vec<usize> = dims.iter().map(|(_, length)| *length as usize).collect();
                ArrayD::from_shape_vec(shape, std::mem::take(kept)).unwrap_or_default()
            };
            let step_dim = self.layout.step_dim.as_str();
            let first = store.taken - waiting;
            let start = |(dim, _): &(&str, u64)| if *dim == step_dim { first } else { 0 };
            let start: Vec<u64> = dims.iter().map(start).collect();
            store
                .writer
                .write_block(&variable.name, &start, Values::F32(values))
                .map_err(|error| write_error(output, &error))?;
        }
        Ok(())
    }
}

/// A store of some steps of a forecast, being written.
pub(crate) struct StepStore {
    writer: Writer,
    /// Numbers of its variables in the layout.
    variables: Vec<usize>,
    /// Steps of every variable that wait until their chunk is complete.
    waiting: Vec<Vec<f32>>,
    chunk_steps: u64,
    /// Steps that it will have, and that it has taken.
    steps: u64,
    taken: u64,
}

impl StepStore {
    /// Writes the metadata.
    pub(crate) fn finish(self) -> Result<(), mlwm_datasets::Error> {
        self.writer.finish()
    }
}

/// The outputs of a forecast, being written.
pub struct Outputs<'a> {
    predictions: Predictions<'a>,
    files: Vec<File>,
}

/// One output.
struct File {
    name: String,
    place: Place,
    store: StepStore,
}

impl<'a> Outputs<'a> {
    /// Starts all outputs that are asked for, with their coordinates.
    ///
    /// # Errors
    /// If an output asks for a variable that is not predicted, or cannot be written.
    pub fn create(
        requests: &[OutputRequest],
        forecast: &'a Forecast<'a>,
        time_layout: TimeLayout,
        provenance: &Provenance,
    ) -> Result<Self, RunnerError> {
        let predictions = Predictions::new(forecast, time_layout, provenance);
        let mut files = Vec::new();
        for request in requests {
            let variables = predictions.requested(request)?;
            let place = Place::find(&request.name, Path::new(&request.path))?;
            let steps = (1, forecast.schedule().steps);
            let store = predictions.start(request, &place.partial, &variables, steps)?;
            files.push(File {
                name: request.name.clone(),
                place,
                store,
            });
        }
        Ok(Self { predictions, files })
    }

    /// Writes the metadata and brings every output to its place.
    ///
    /// # Errors
    /// If an output cannot be written, or a step of it never was.
    pub fn complete(self) -> Result<(), RunnerError> {
        for file in self.files {
            file.store
                .finish()
                .map_err(|error| write_error(&file.name, &error))?;
            file.place.complete(&file.name)?;
        }
        Ok(())
    }

    /// Removes what was written of outputs that will not be completed.
    pub fn discard(self) {
        for file in self.files {
            // If it stays, the next run removes it.
            let _ = std::fs::remove_dir_all(&file.place.partial);
        }
    }
}

impl Sink for Outputs<'_> {
    fn take(&mut self, _: u64, predicted: &[f32]) -> Result<(), RunnerError> {
        for file in &mut self.files {
            self.predictions
                .write(&file.name, &mut file.store, predicted)?;
        }
        Ok(())
    }
}

pub(crate) fn write_error(output: &str, error: &dyn std::fmt::Display) -> RunnerError {
    RunnerError::Write {
        output: output.to_owned(),
        reason: error.to_string(),
    }
}
