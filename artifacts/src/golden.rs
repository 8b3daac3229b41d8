//! The golden case of an artifact (format §10): a stored input, and the forecast that the model must
//! make of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use mlwm_datasets::input_state::{InitialState, StateRequest};
use mlwm_datasets::points::{PointInputs, PointRequest};
use mlwm_datasets::prepare::{self, ELAPSED_DIM, ForecastRequest, Schedule, TIME_DIM};
use mlwm_datasets::{Dataset, Element, Statistics, Variable};
use mlwm_spec::contract::{DatastoreInputPath, TimeLayout};
use mlwm_spec::interface::{PointModel, StateSchema};
use mlwm_spec::{AnalysisTime, DatastoreConfig, Interface, Period, yaml};
use serde::{Deserialize, Serialize};

use crate::artifact::Artifact;
use crate::datastores::{Datastore, require_file};
use crate::error::{Error, io_error};
use crate::input::Input;
use crate::layout::is_artifact_name;
use crate::pack::Planned;

/// The folder of the golden case in an artifact.
pub const GOLDEN: &str = "golden";
/// What is in it.
const CASE: &str = "case.yaml";
/// The version of `case.yaml`.
const CASE_VERSION: u32 = 1;
/// The tolerance of all variables that have none of their own.
const ALL_OTHERS: &str = "*";
/// A golden case goes into every image of the model, so it must be small.
const LARGEST: u64 = 64 << 20;

/// What `golden/case.yaml` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenCase {
    /// Version of this format: 1.
    version: u32,
    /// The time that the forecast starts from.
    pub analysis_time: AnalysisTime,
    /// Its length.
    pub forecast_duration: Period,
    /// The datasets `golden/inputs/<name>.zarr`.
    pub inputs: IndexMap<String, GoldenInput>,
    /// The datasets `golden/expected/<name>.zarr`.
    pub outputs: Vec<String>,
    /// How far the values of a variable may be from the expected ones; `*` stands for all variables
    /// that are not named.
    pub tolerances: BTreeMap<String, Tolerance>,
}

/// An input of a golden case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenInput {
    /// The inputs of the artifact's datastores that it feeds, `<datastore>.<input>`, as in a
    /// configuration.
    #[serde(default)]
    pub datastore_inputs: Vec<String>,
}

/// How far a value may be from the expected one: by no more than `absolute` + `relative` × |expected|.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// In the unit of the variable.
    #[serde(default)]
    pub absolute: f64,
    /// A fraction of the expected value.
    #[serde(default)]
    pub relative: f64,
}

impl Tolerance {
    /// Whether `found` is near enough to `expected`. A missing or infinite value is
    /// near to its like alone.
    pub fn allows(self, found: f64, expected: f64) -> bool {
        if !found.is_finite() || !expected.is_finite() {
            return found == expected || (found.is_nan() && expected.is_nan());
        }
        (found - expected).abs() <= self.absolute + self.relative * expected.abs()
    }
}

impl GoldenCase {
    /// How far the values of a variable may be from the expected ones.
    pub fn tolerance(&self, variable: &str) -> Option<Tolerance> {
        let own = self.tolerances.get(variable);
        own.or_else(|| self.tolerances.get(ALL_OTHERS)).copied()
    }

    /// The input `name`, in a folder that `golden` was unpacked to.
    pub fn input(folder: &Path, name: &str) -> PathBuf {
        folder.join(GOLDEN).join(input_path(name))
    }

    /// The expected output `name`, in a folder that `golden` was unpacked to.
    pub fn expected(folder: &Path, name: &str) -> PathBuf {
        folder.join(GOLDEN).join(expected_path(name))
    }

    /// The variables of an expected output that are compared: those of floating-point numbers that
    /// have times.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn compared(dataset: &Dataset) -> Result<Vec<&Variable>, mlwm_datasets::Error> {
        let mut compared = Vec::new();
        for name in dataset.names() {
            let variable = dataset.variable(name)?;
            let floating = matches!(variable.element(), Element::F32 | Element::F64);
            if floating && time_dim(variable).is_some_and(|dim| dim != name) {
                compared.push(variable);
            }
        }
        Ok(compared)
    }

    fn parse(text: &str, source_name: &str) -> Result<Self, Error> {
        let case: Self = yaml::parse(text, source_name)?;
        let wrong = |why| Error::Configuration {
            path: source_name.to_owned(),
            why,
        };
        if case.version != CASE_VERSION {
            let why = format!(
                "version {} of a golden case is not understood: this mlwm knows {CASE_VERSION}",
                case.version
            );
            return Err(wrong(why));
        }
        let mut names = case.inputs.keys().chain(&case.outputs);
        if let Some(name) = names.find(|name| !is_artifact_name(name)) {
            let why = format!(
                "`{name}` cannot be the name of an input or output: use letters, digits, `.`, `_` and `-`, and no leading dot"
            );
            return Err(wrong(why));
        }
        for (what, missing) in [
            ("inputs", case.inputs.is_empty()),
            ("outputs", case.outputs.is_empty()),
        ] {
            if missing {
                return Err(wrong(format!("`{what}` is empty: name at least one")));
            }
        }
        let fits = |bound: f64| bound.is_finite() && bound >= 0.0;
        let mut tolerances = case.tolerances.iter();
        match tolerances.find(|(_, t)| !fits(t.absolute) || !fits(t.relative)) {
            Some((name, _)) => Err(wrong(format!(
                "the tolerance of `{name}` must be made of numbers from 0 on"
            ))),
            None => Ok(case),
        }
    }
}

impl Artifact {
    /// The golden case, if the artifact has one. [`Artifact::extract_only`] with [`GOLDEN`] unpacks
    /// what belongs to it.
    pub fn golden_case(&self) -> Result<Option<GoldenCase>, Error> {
        let member = format!("{GOLDEN}/{CASE}");
        if !self.contains(&member) {
            return Ok(None);
        }
        let source_name = format!("{member} in {}", self.path().display());
        GoldenCase::parse(&self.read_text(&member)?, &source_name).map(Some)
    }
}

/// The golden case in a folder, taken before anything in it is looked at.
pub(crate) struct Given {
    folder: PathBuf,
    case: GoldenCase,
    /// Path below the folder, and the file.
    files: Vec<(String, Input)>,
}

impl Given {
    /// What `case.yaml` in `folder` names; what else lies there is left out.
    pub(crate) fn of(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(CASE);
        require_file("golden case", &path)?;
        let file = Input::at(&path)?;
        let case = GoldenCase::parse(&file.read_text()?, &path.display().to_string())?;
        let mut given = Self {
            folder: folder.to_owned(),
            files: vec![(CASE.to_owned(), file)],
            case,
        };
        let inputs = given.case.inputs.keys().map(|name| input_path(name));
        let outputs = given.case.outputs.iter().map(|name| expected_path(name));
        for dataset in inputs.chain(outputs).collect::<Vec<_>>() {
            given.take(&dataset)?;
        }
        let size: u64 = given.files.iter().map(|(_, file)| file.size()).sum();
        match size > LARGEST {
            true => Err(given.wrong(format!(
                "holds {size} bytes, and {LARGEST} are the most: cut the inputs to the times, and the outputs to the steps, that show that the model works"
            ))),
            false => Ok(given),
        }
    }

    /// Takes all files below a folder.
    fn take(&mut self, relative: &str) -> Result<(), Error> {
        let folder = self.folder.join(relative);
        for entry in fs::read_dir(&folder).map_err(io_error("read", &folder))? {
            let entry = entry.map_err(io_error("read", &folder))?;
            let path = format!("{relative}/{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().map_err(io_error("read", entry.path()))?;
            if kind.is_dir() {
                self.take(&path)?;
            } else if kind.is_file() {
                self.files.push((path, Input::at(&entry.path())?));
            } else {
                return Err(self.wrong(format!(
                    "holds `{path}`, which is neither a file nor a folder: put a copy there"
                )));
            }
        }
        Ok(())
    }

    /// Checks that inputs and expected outputs are what the model reads and predicts.
    pub(crate) fn check(
        &self,
        datastores: &[Datastore],
        interface: Option<&Interface>,
    ) -> Result<(), Error> {
        let configs: BTreeMap<String, DatastoreConfig> = datastores
            .iter()
            .map(|datastore| (datastore.name.clone(), datastore.config.clone()))
            .collect();
        let fed = self.fed(&configs)?;
        let predicted = match interface {
            Some(interface) => Some(match (&interface.points, &interface.input_state) {
                (Some(model), _) => self.of_points(interface, model)?,
                (None, Some(schema)) => self.started(interface, schema)?,
                (None, None) => self.prepared(datastores, &configs, interface, &fed)?,
            }),
            None => None,
        };
        let mut unused: Vec<&String> = self.case.tolerances.keys().collect();
        unused.retain(|name| *name != ALL_OTHERS);
        for name in &self.case.outputs {
            let path = self.folder.join(expected_path(name));
            let dataset = Dataset::open(&path).map_err(|error| self.wrong(unreadable(&error)))?;
            let compared =
                GoldenCase::compared(&dataset).map_err(|error| self.wrong(unreadable(&error)))?;
            if compared.is_empty() {
                return Err(self.wrong(format!(
                    "expects nothing in `{name}`: it has no floating-point variable with times"
                )));
            }
            for variable in compared {
                self.check_expected(name, &dataset, variable, predicted.as_ref())?;
                unused.retain(|unused| *unused != variable.name());
            }
        }
        match unused.first() {
            Some(name) => Err(self.wrong(format!(
                "has a tolerance for `{name}`, which is in none of its outputs: correct the name"
            ))),
            None => Ok(()),
        }
    }

    /// Where each datastore's inputs are.
    fn fed(
        &self,
        configs: &BTreeMap<String, DatastoreConfig>,
    ) -> Result<Vec<DatastoreInputPath>, Error> {
        let mut fed = Vec::new();
        for (name, given) in &self.case.inputs {
            let path = self.folder.join(input_path(name));
            for feeds in &given.datastore_inputs {
                let parts = feeds.split_once('.').filter(|(datastore, input)| {
                    let config = configs.get(*datastore);
                    config.is_some_and(|config| config.inputs.contains_key(*input))
                });
                let (datastore, input) = parts.ok_or_else(|| {
                    self.wrong(format!(
                        "feeds `{feeds}` from `{name}`, which is not an input of the artifact's datastores: write <datastore>.<input>"
                    ))
                })?;
                fed.push(DatastoreInputPath {
                    datastore: datastore.to_owned(),
                    input: input.to_owned(),
                    path: path.to_string_lossy().into_owned(),
                });
            }
        }
        Ok(fed)
    }

    /// Prepares the inputs as the runner does; what the model predicts of them.
    fn prepared(
        &self,
        datastores: &[Datastore],
        configs: &BTreeMap<String, DatastoreConfig>,
        interface: &Interface,
        fed: &[DatastoreInputPath],
    ) -> Result<Predicted, Error> {
        let mut statistics = BTreeMap::new();
        for datastore in datastores {
            let opened = Statistics::open(&datastore.extracted);
            let opened = opened.map_err(|error| self.wrong(unreadable(&error)))?;
            statistics.insert(datastore.name.clone(), opened);
        }
        let steps = self.steps(interface)?;
        let layout = TimeLayout::of(configs.values());
        let analysis_time = self.case.analysis_time;
        let report = prepare::check(&ForecastRequest {
            interface,
            configs,
            statistics: &statistics,
            inputs: fed,
            layout,
            analysis_time,
            steps,
        })
        .map_err(|error| self.wrong(format!("has inputs that the model cannot use: {error}")))?;
        Ok(Predicted {
            variables: report.predicted,
            times: Schedule::new(interface, layout, analysis_time, steps).predicted(),
        })
    }

    /// Checks the input state as the runner does; what the model predicts from it.
    fn started(&self, interface: &Interface, schema: &StateSchema) -> Result<Predicted, Error> {
        if !self.case.inputs.contains_key(&schema.input) {
            return Err(self.wrong(format!(
                "has no input `{}`, which is the state that the model starts from: put it there",
                schema.input
            )));
        }
        let state = InitialState::read(&StateRequest {
            interface,
            schema,
            path: &self.folder.join(input_path(&schema.input)),
            analysis_time: self.case.analysis_time,
            steps: self.steps(interface)?,
        })
        .map_err(|error| self.wrong(format!("has a state that the model cannot use: {error}")))?;
        Ok(Predicted {
            variables: interface.predicted().cloned().collect(),
            times: state.schedule.predicted(),
        })
    }

    /// Checks the stores of a model of points as the runner does; what the model predicts from them.
    fn of_points(&self, interface: &Interface, model: &PointModel) -> Result<Predicted, Error> {
        let inputs = self.case.inputs.keys();
        let paths = inputs.map(|name| (name.clone(), self.folder.join(input_path(name))));
        let inputs = PointInputs::open(&PointRequest {
            interface,
            model,
            paths: &paths.collect(),
            analysis_time: self.case.analysis_time,
            steps: self.steps(interface)?,
        })
        .map_err(|error| self.wrong(format!("has inputs that the model cannot use: {error}")))?;
        Ok(Predicted {
            variables: interface.predicted().cloned().collect(),
            times: inputs.schedule.predicted(),
        })
    }

    /// Steps of the forecast.
    fn steps(&self, interface: &Interface) -> Result<u64, Error> {
        let (seconds, step) = (
            self.case.forecast_duration.seconds(),
            interface.step_seconds,
        );
        let steps = u64::try_from(seconds / step.max(1)).unwrap_or(0);
        match steps == 0 || seconds % step != 0 {
            true => Err(self.wrong(format!(
                "has a forecast of {}, which is no whole number of steps of {step} s, the step of the model",
                self.case.forecast_duration
            ))),
            false => Ok(steps),
        }
    }

    fn check_expected(
        &self,
        output: &str,
        dataset: &Dataset,
        variable: &Variable,
        predicted: Option<&Predicted>,
    ) -> Result<(), Error> {
        let name = variable.name();
        if self.case.tolerance(name).is_none() {
            return Err(self.wrong(format!(
                "has no tolerance for `{name}` of `{output}`: add `{name}: {{absolute: …, relative: …}}` to `tolerances`"
            )));
        }
        let missing = variable
            .missing_chunks()
            .and_then(|missing| variable.read().map(|_| missing))
            .map_err(|error| self.wrong(unreadable(&error)))?;
        if missing > 0 {
            return Err(self.wrong(format!(
                "has no values for {missing} chunks of `{name}` of `{output}`: write them"
            )));
        }
        let Some(predicted) = predicted else {
            return Ok(());
        };
        if !predicted.variables.iter().any(|one| one == name) {
            return Err(self.wrong(format!(
                "expects `{name}` in `{output}`, which the model does not predict (it predicts: {})",
                predicted.variables.join(", ")
            )));
        }
        let analysis = self.case.analysis_time.unix_seconds();
        let times = match time_dim(variable) {
            Some(TIME_DIM) => dataset.times(TIME_DIM),
            _ => dataset
                .durations(ELAPSED_DIM)
                .map(|durations| durations.iter().map(|one| analysis + one).collect()),
        };
        match times.map_err(|error| self.wrong(unreadable(&error)))? == predicted.times {
            true => Ok(()),
            false => Err(self.wrong(format!(
                "expects `{name}` of `{output}` at other times than those of a forecast of {} from {}",
                self.case.forecast_duration, self.case.analysis_time
            ))),
        }
    }

    /// As members of the artifact.
    pub(crate) fn members(self) -> impl Iterator<Item = Planned> {
        let files = self.files.into_iter();
        files.map(|(path, file)| Planned::file(&format!("{GOLDEN}/{path}"), file))
    }

    fn wrong(&self, why: String) -> Error {
        Error::Golden {
            path: self.folder.clone(),
            why,
        }
    }
}

/// What the model predicts, and when.
struct Predicted {
    variables: Vec<String>,
    times: Vec<i64>,
}

fn input_path(name: &str) -> String {
    format!("inputs/{name}.zarr")
}

fn expected_path(name: &str) -> String {
    format!("expected/{name}.zarr")
}

/// The dimension that is time.
fn time_dim(variable: &Variable) -> Option<&str> {
    let mut dims = variable.dims().iter().map(String::as_str);
    dims.find(|dim| matches!(*dim, TIME_DIM | ELAPSED_DIM))
}

fn unreadable(error: &mlwm_datasets::Error) -> String {
    format!("cannot be read: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerances_add_up_and_missing_values_are_equal_only_to_each_other() {
        let tolerance = Tolerance {
            absolute: 0.5,
            relative: 0.25,
        };
        assert!(tolerance.allows(125.5, 100.0) && !tolerance.allows(125.6, 100.0));
        assert!(tolerance.allows(-125.5, -100.0) && !tolerance.allows(-125.6, -100.0));
        assert!(tolerance.allows(f64::NAN, f64::NAN) && !tolerance.allows(f64::NAN, 1.0));
        assert!(!tolerance.allows(1.0, f64::NAN) && !tolerance.allows(f64::INFINITY, 1.0));
        let exact = Tolerance::default();
        assert!(exact.allows(f64::INFINITY, f64::INFINITY) && !exact.allows(1.0, 1.0 + 1e-15));
        assert!(!tolerance.allows(f64::NEG_INFINITY, f64::INFINITY));
    }
}
