//! The task as the container contract puts it into the environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlwm_spec::contract::stream::Work;
use mlwm_spec::contract::{
    DatastoreInputPath, OutputRequest, TimeLayout, env, parse_input_paths, parse_inputs,
    parse_outputs,
};
use mlwm_spec::{AnalysisTime, Period};

use crate::RunnerError;

/// What the NVIDIA container runtime was told to give.
const VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// On the processor.
    Cpu,
    /// On an NVIDIA GPU.
    Cuda,
}

impl Device {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "the processor",
            Self::Cuda => "a GPU",
        }
    }
}

/// One run of the container.
#[derive(Clone, Debug)]
pub struct Task {
    /// The analysis time.
    pub analysis_time: AnalysisTime,
    /// Number of steps, if given.
    steps: Option<u64>,
    /// Length of the forecast, if given.
    duration: Option<Period>,
    /// How time is laid out in the inputs.
    pub layout: TimeLayout,
    /// Where the inputs of the datastores are.
    pub inputs: Vec<DatastoreInputPath>,
    /// Where every input is, by its name in the configuration.
    pub input_paths: BTreeMap<String, String>,
    /// What to write.
    pub outputs: Vec<OutputRequest>,
    /// The ensemble member.
    pub member: u32,
    /// The seed, to be recorded.
    pub seed: Option<u64>,
    /// Whether the same must give the same bytes.
    pub deterministic: bool,
    /// The identity of the task, to be recorded.
    pub identity: Option<String>,
    /// Where the model runs.
    pub device: Device,
    /// The folder that works come from, if this container serves many members; then there are no
    /// inputs and outputs here, but in every [`Work`].
    pub stream: Option<PathBuf>,
}

impl Task {
    /// Reads the environment through `get`; `has_gpu` says whether the container has the device
    /// node of a GPU.
    ///
    /// # Errors
    /// [`RunnerError::Environment`] naming the variable that is missing or wrong.
    pub fn read(get: impl Fn(&str) -> Option<String>, has_gpu: bool) -> Result<Self, RunnerError> {
        let given = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let wrong = |name: &str, why: &dyn std::fmt::Display| {
            RunnerError::Environment(format!("{name}: {why}"))
        };
        let required = |name: &str| {
            given(name).ok_or_else(|| RunnerError::Environment(format!("{name} is not set")))
        };
        let number = |name: &str| -> Result<Option<u64>, RunnerError> {
            let parse = |text: String| {
                text.trim()
                    .parse()
                    .map_err(|_| wrong(name, &format!("`{text}` is not a number")))
            };
            given(name).map(parse).transpose()
        };
        if let Some(version) = given(env::MLWM_CONTRACT).filter(|version| version != "1") {
            return Err(wrong(
                env::MLWM_CONTRACT,
                &format!("version `{version}` is not known"),
            ));
        }
        let layout = match given(env::TIME_DIMENSIONS) {
            Some(text) => TimeLayout::parse(&text)
                .map_err(|error| RunnerError::Environment(error.to_string()))?,
            None => TimeLayout::default(),
        };
        let stream = given(env::MLWM_STREAM).map(PathBuf::from);
        let contract =
            |error: mlwm_spec::contract::ContractError| RunnerError::Environment(error.to_string());
        let input_paths = match given(env::MLWM_INPUTS) {
            Some(text) => parse_inputs(&text).map_err(contract)?,
            None => BTreeMap::new(),
        };
        // A model that starts from an input state may have no datastores.
        let inputs = match input_paths.is_empty() && stream.is_none() {
            true => required(env::DATASTORE_INPUT_PATHS)?,
            false => given(env::DATASTORE_INPUT_PATHS).unwrap_or_default(),
        };
        let outputs = match &stream {
            Some(_) => Vec::new(),
            None => parse_outputs(&required(env::MLWM_OUTPUTS)?).map_err(contract)?,
        };
        check_outputs(&outputs).map_err(|message| wrong(env::MLWM_OUTPUTS, &message))?;
        let member = number(env::MLWM_MEMBER)?.unwrap_or(0);
        Ok(Self {
            analysis_time: required(env::ANALYSIS_TIME)?
                .parse()
                .map_err(|error| wrong(env::ANALYSIS_TIME, &error))?,
            steps: number(env::NUM_EVAL_STEPS)?,
            duration: given(env::FORECAST_DURATION)
                .map(|text| {
                    text.parse()
                        .map_err(|error| wrong(env::FORECAST_DURATION, &error))
                })
                .transpose()?,
            layout,
            inputs: parse_input_paths(&inputs).map_err(contract)?,
            input_paths,
            outputs,
            member: u32::try_from(member).map_err(|error| wrong(env::MLWM_MEMBER, &error))?,
            seed: number(env::MLWM_SEED)?,
            deterministic: match given(env::MLWM_DETERMINISTIC).as_deref() {
                None | Some("0") => false,
                Some("1") => true,
                Some(_) => return Err(wrong(env::MLWM_DETERMINISTIC, &"it is neither 0 nor 1")),
            },
            identity: given(env::MLWM_TASK),
            device: device(
                given(env::MLWM_GPUS).as_deref(),
                given(VISIBLE_DEVICES).as_deref(),
                has_gpu,
            ),
            stream,
        })
    }

    /// The task of one work of a stream.
    ///
    /// # Errors
    /// What is wrong with the work.
    pub(crate) fn of_work(&self, work: &Work) -> Result<Self, String> {
        let outputs = work.outputs.iter().map(|windowed| windowed.output.clone());
        let outputs: Vec<OutputRequest> = outputs.collect();
        check_outputs(&outputs)?;
        Ok(Self {
            inputs: work.datastore_inputs()?,
            input_paths: work.inputs.clone(),
            outputs,
            member: work.member,
            seed: Some(work.seed),
            identity: Some(work.task.clone()),
            stream: None,
            ..self.clone()
        })
    }

    /// Where an input is.
    ///
    /// # Errors
    /// If the task has no such input.
    pub(crate) fn input_path(&self, name: &str) -> Result<&Path, RunnerError> {
        self.input_paths.get(name).map(Path::new).ok_or_else(|| {
            let names: Vec<&str> = self.input_paths.keys().map(String::as_str).collect();
            RunnerError::Environment(format!(
                "the model starts from the input `{name}`, but the inputs given are [{}]: call the configuration's input so",
                names.join(", ")
            ))
        })
    }

    /// The number of steps for a model of this step length.
    ///
    /// # Errors
    /// If neither number nor duration are given, or they disagree.
    pub fn steps(&self, step_seconds: i64) -> Result<u64, RunnerError> {
        let by_duration = match self.duration {
            None => None,
            Some(duration) if step_seconds > 0 && duration.seconds() % step_seconds == 0 => {
                Some((duration.seconds() / step_seconds) as u64)
            }
            Some(duration) => {
                return Err(RunnerError::Environment(format!(
                    "{}: {duration} is not a whole number of steps of {step_seconds} s",
                    env::FORECAST_DURATION
                )));
            }
        };
        match (self.steps, by_duration) {
            (Some(steps), Some(others)) if steps != others => {
                Err(RunnerError::Environment(format!(
                    "{} is {steps}, but {} is {others} steps of the model",
                    env::NUM_EVAL_STEPS,
                    env::FORECAST_DURATION
                )))
            }
            (Some(0), _) => Err(RunnerError::Environment(format!(
                "{} is 0",
                env::NUM_EVAL_STEPS
            ))),
            (Some(steps), _) | (None, Some(steps)) => Ok(steps),
            (None, None) => Err(RunnerError::Environment(format!(
                "neither {} nor {} is set",
                env::NUM_EVAL_STEPS,
                env::FORECAST_DURATION
            ))),
        }
    }
}

/// Refuses outputs that would overwrite each other, hold nothing, or hold a variable twice.
fn check_outputs(outputs: &[OutputRequest]) -> Result<(), String> {
    for (at, output) in outputs.iter().enumerate() {
        let is_there = |other: &&OutputRequest| Path::new(&other.path) == Path::new(&output.path);
        if let Some(other) = outputs[..at].iter().find(is_there) {
            return Err(format!(
                "outputs `{}` and `{}` both go to {}: give each its own path",
                other.name, output.name, output.path
            ));
        }
        let Some(variables) = &output.variables else {
            continue;
        };
        if variables.is_empty() {
            return Err(format!(
                "output `{}` asks for no variables: name some, or leave `variables` out for all",
                output.name
            ));
        }
        let is_twice = |(at, name): &(usize, &String)| variables[..*at].contains(name);
        if let Some((_, twice)) = variables.iter().enumerate().find(is_twice) {
            return Err(format!(
                "output `{}` asks for the variable `{twice}` twice: name it once",
                output.name
            ));
        }
    }
    Ok(())
}

/// A GPU is used if the host says so, or if the container was given one: images based on CUDA set
/// `NVIDIA_VISIBLE_DEVICES=all` even where there is none, so that alone says nothing.
fn device(gpus: Option<&str>, visible: Option<&str>, has_gpu: bool) -> Device {
    let says_none = |value: &str| matches!(value.trim(), "0" | "none" | "void");
    match gpus {
        Some(value) if says_none(value) => Device::Cpu,
        Some(_) => Device::Cuda,
        None if has_gpu && visible.is_some_and(|value| !says_none(value) || value == "0") => {
            Device::Cuda
        }
        None => Device::Cpu,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn environment() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([
            ("MLWM_CONTRACT", "1"),
            ("ANALYSIS_TIME", "2022-04-07T03:00Z"),
            ("FORECAST_DURATION", "PT18H"),
            ("NUM_EVAL_STEPS", "6"),
            ("TIME_DIMENSIONS", "time"),
            ("DATASTORE_INPUT_PATHS", "danra.danra_surface=/in/a.zarr"),
            ("MLWM_MEMBER", "3"),
            ("MLWM_SEED", "9007199254740991"),
            ("MLWM_TASK", "sha256:abc"),
            (
                "MLWM_OUTPUTS",
                r#"[{"name": "out", "path": "/out/a.zarr"}]"#,
            ),
        ])
    }

    fn read(environment: &BTreeMap<&str, &str>) -> Result<Task, RunnerError> {
        Task::read(
            |name| environment.get(name).map(|value| (*value).to_owned()),
            false,
        )
    }

    #[test]
    fn reads_the_contract() {
        let task = read(&environment()).unwrap();
        assert_eq!(task.steps(10_800).unwrap(), 6);
        assert_eq!((task.member, task.seed), (3, Some((1 << 53) - 1)));
        assert_eq!(task.outputs[0].zarr_format, 3);
        assert_eq!(task.inputs[0].input, "danra_surface");
        assert_eq!(task.device, Device::Cpu);
    }

    #[test]
    fn the_same_bytes_are_only_wanted_if_that_is_said() {
        let mut told = environment();
        assert!(!read(&told).unwrap().deterministic);
        told.insert("MLWM_DETERMINISTIC", "1");
        assert!(read(&told).unwrap().deterministic);
        told.insert("MLWM_DETERMINISTIC", "0");
        assert!(!read(&told).unwrap().deterministic);
        told.insert("MLWM_DETERMINISTIC", "rather");
        let error = read(&told).unwrap_err().to_string();
        assert!(error.contains("MLWM_DETERMINISTIC"), "{error}");
    }

    #[test]
    fn steps_come_from_number_or_duration_and_must_agree() {
        let mut only_duration = environment();
        only_duration.remove("NUM_EVAL_STEPS");
        assert_eq!(read(&only_duration).unwrap().steps(3600).unwrap(), 18);
        assert!(read(&only_duration).unwrap().steps(7 * 3600).is_err());
        assert!(read(&environment()).unwrap().steps(3600).is_err());
        only_duration.remove("FORECAST_DURATION");
        assert!(read(&only_duration).unwrap().steps(3600).is_err());
    }

    #[test]
    fn names_what_is_missing_or_wrong() {
        for (name, value) in [
            ("ANALYSIS_TIME", "now"),
            ("ANALYSIS_TIME", ""),
            ("MLWM_CONTRACT", "2"),
            ("NUM_EVAL_STEPS", "six"),
            ("FORECAST_DURATION", "soon"),
            ("TIME_DIMENSIONS", "t"),
            ("DATASTORE_INPUT_PATHS", "nonsense"),
            ("DATASTORE_INPUT_PATHS", ""),
            ("MLWM_OUTPUTS", "{}"),
            (
                "MLWM_OUTPUTS",
                r#"[{"name": "a", "path": "/out/a"}, {"name": "b", "path": "/out/a/"}]"#,
            ),
            (
                "MLWM_OUTPUTS",
                r#"[{"name": "a", "path": "/out/a", "variables": []}]"#,
            ),
            (
                "MLWM_OUTPUTS",
                r#"[{"name": "a", "path": "/out/a", "variables": ["t", "u", "t"]}]"#,
            ),
            ("MLWM_MEMBER", "-1"),
        ] {
            let mut environment = environment();
            environment.insert(name, value);
            let error = read(&environment).unwrap_err();
            assert!(error.to_string().contains(name), "{name}={value}: {error}");
            assert_eq!(error.exit_code(), mlwm_spec::ExitCode::BadConfiguration);
        }
    }

    #[test]
    fn a_gpu_is_used_where_it_is_asked_for_or_given() {
        assert_eq!(device(Some("1"), None, false), Device::Cuda);
        assert_eq!(device(Some("all"), Some("void"), false), Device::Cuda);
        assert_eq!(device(Some("0"), Some("all"), true), Device::Cpu);
        assert_eq!(device(None, Some("all"), true), Device::Cuda);
        assert_eq!(device(None, Some("0"), true), Device::Cuda);
        assert_eq!(device(None, Some("all"), false), Device::Cpu);
        assert_eq!(device(None, Some("void"), true), Device::Cpu);
        assert_eq!(device(None, None, true), Device::Cpu);
    }
}
