//! The deterministic list of the tasks of an analysis time. Pure: no disk, no clock, no network.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use mlwm_ledger::TaskName;
use mlwm_spec::configuration::{self, Form, Keep, Resources, Retries};
use mlwm_spec::contract::stream::Window;
use mlwm_spec::contract::{self, DatastoreInputPath, OutputRequest, TimeLayout, env};
use mlwm_spec::interface::Source;
use mlwm_spec::task::{TaskKey, canonical_json};
use mlwm_spec::{AnalysisTime, ArtifactDelivery, Digest, Interface, Members, Period};
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::until_read::UntilRead;
use crate::Error;
use crate::load::{ArtifactFacts, Loaded};

mod command;
pub(crate) mod convert;
mod ensemble;
pub(crate) mod order;
mod until_read;
mod windows;

pub use convert::PlannedConverter;
pub use ensemble::{PlannedEnsemble, PlannedProducts};

/// The folder for intermediate files in a container.
const CONTAINER_WORKDIR: &str = "/tmp";

/// No container runs for ever: where the configuration gives no `timeout`, it is a day.
const DEFAULT_TIMEOUT_SECONDS: i64 = 24 * 3600;

/// All tasks of one or more analysis times (docs/plan-format.md).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Version of this format: 1.
    pub version: u32,
    /// The tasks, by analysis time, configuration and member, each behind those that make what it reads.
    pub tasks: Vec<PlannedTask>,
    /// What is to be published of the members of a configuration together, by analysis time and configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ensembles: Vec<PlannedEnsemble>,
}

impl Plan {
    /// Reads a plan from JSON; `name` is what errors call it.
    pub fn read(json: impl Read, name: &str) -> Result<Self, Error> {
        let unreadable = |why: String| Error::BadPlan {
            name: name.to_owned(),
            why,
        };
        let mut plan: Self =
            serde_json::from_reader(json).map_err(|error| unreadable(error.to_string()))?;
        if plan.version != 1 {
            let version = plan.version;
            return Err(unreadable(format!(
                "it has version {version}, and this mlwm knows version 1"
            )));
        }
        plan.settle()?;
        Ok(plan)
    }

    /// Gives each task its key, and refuses what cannot be done together.
    fn settle(&mut self) -> Result<(), Error> {
        for task in &mut self.tasks {
            task.key = None;
            let rest = serde_json::to_vec(&*task).map_err(Error::Json)?;
            task.key = Some(Digest::of(rest));
        }
        refuse_shared_outputs(&self.tasks, &self.ensembles)?;
        refuse_twice(&self.tasks)?;
        order::settle(&mut self.tasks, &self.ensembles)
    }

    /// SHA-256 over the keys of its tasks, a line each.
    pub fn digest(&self) -> Digest {
        let keys = self.tasks.iter().filter_map(|task| task.key);
        let lines: String = keys.map(|key| format!("{key}\n")).collect();
        Digest::of(lines)
    }
}

/// One container run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedTask {
    /// SHA-256 over the JSON of all the rest, without white space: two plans have the same task if it has the same
    /// key. What it publishes has the task's identity instead, which the content of image and inputs
    /// belongs to and the place of publication does not. Of an edited task it is made anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// Name of the configuration; behind it, if it has steps, that of the step and of what it is repeated for:
    /// `ai-land/grib2zarr/2020-02`.
    pub configuration: String,
    /// Digest of its `config.yaml`, or of what that says of the step.
    pub configuration_digest: Digest,
    /// The time the forecast starts from.
    pub analysis_time: AnalysisTime,
    /// Ensemble member.
    pub member: u32,
    /// Reference of the image.
    pub image: String,
    /// What it runs instead of what the image says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Path and digest of the artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<PlannedArtifact>,
    /// The forecast steps, where the artifact says how long one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Steps>,
    /// Layout of the time axis.
    pub time_layout: TimeLayout,
    /// What is staged.
    pub inputs: Vec<PlannedInput>,
    /// What is published.
    pub outputs: Vec<PlannedOutput>,
    /// Environment of the container; the task's identity is added when the inputs are known.
    pub environment: BTreeMap<String, String>,
    /// What the container may use.
    pub resources: Resources,
    /// Time after which it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// How often it is tried again; the default if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Seed of its random numbers.
    pub seed: u64,
    /// Whether its container reaches the network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub network: bool,
    /// Names of environment variables of mlwm that its container gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<String>,
}

/// The steps of a forecast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steps {
    /// How many.
    pub count: u64,
    /// Length of each.
    pub seconds: i64,
    /// Lead time of the first.
    pub first_lead_seconds: i64,
}

impl Steps {
    /// Valid time of every step, in seconds since 1970-01-01T00:00Z.
    pub fn valid_times(&self, analysis_time: i64) -> impl Iterator<Item = i64> {
        let (first, seconds) = (analysis_time + self.first_lead_seconds, self.seconds);
        (0..self.count).map(move |step| first + step.cast_signed() * seconds)
    }
}

/// An artifact that a task uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedArtifact {
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub path: String,
    /// SHA-256 of the zip.
    pub digest: Digest,
    /// How the container gets it.
    pub delivery: ArtifactDelivery,
}

/// An input of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedInput {
    /// Its name.
    pub name: String,
    /// Where it is read from.
    pub uri: String,
    /// The form in which its place has the analysis time (`%Y%m%d`), if it does: a dataset there that says
    /// that it is of another is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dated: Option<String>,
    /// Where the container finds it.
    pub internal_path: String,
    /// Whether what is there may be removed by mlwm, which is looked at when it is read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub until_read: bool,
    /// The datastores' inputs that it feeds.
    pub datastore_inputs: Vec<String>,
    /// What makes of it what the model reads, if it is not that already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convert: Option<PlannedConverter>,
}

/// An output of a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedOutput {
    /// Its name.
    pub name: String,
    /// Where it is published.
    pub uri: String,
    /// Where the container writes it.
    pub internal_path: String,
    /// What it is.
    #[serde(default, skip_serializing_if = "Form::is_default")]
    pub format: Form,
    /// Whether what another task published there gives way to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// The tasks that must have read it and published before it is removed; it is kept always if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_by: Vec<String>,
    /// The variables asked for; all predicted ones if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<Vec<String>>,
    /// What the values of variables must lie between, in their units.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ranges: BTreeMap<String, [f64; 2]>,
    /// How it is cut into windows of lead time, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<configuration::Windows>,
}

impl PlannedOutput {
    /// How it becomes GRIB, if it does.
    pub(crate) fn grib(&self) -> Option<&configuration::Grib> {
        self.windows.as_ref()?.grib.as_ref()
    }
}

/// What the command line says over the configurations.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// Members instead of the configured ones.
    pub members: Option<Members>,
    /// Length of the forecast instead of the configured one.
    pub forecast_duration: Option<Period>,
}

impl PlannedTask {
    /// What people call the task: `gefion-1 2022-04-07T03:00Z member 0`.
    pub fn title(&self) -> String {
        title(&self.configuration, self.analysis_time, self.member)
    }

    /// Digest of what decides the result and may be edited: what the container is told and given, and what is
    /// taken of what it writes. Where that is published, and what it may use, do not belong to it.
    pub(crate) fn asked(&self) -> Digest {
        let inputs = self.inputs.iter().map(|input| {
            let mut asked = vec![
                json!(input.name),
                json!(input.internal_path),
                json!(input.datastore_inputs),
            ];
            // Its image belongs to the identity by its content.
            asked.extend(
                input
                    .convert
                    .as_ref()
                    .map(|convert| json!(convert.environment)),
            );
            asked
        });
        let outputs = self.outputs.iter();
        let mut asked = json!({
            "environment": self.environment,
            "steps": self.steps,
            "time_layout": self.time_layout,
            "seed": self.seed,
            "inputs": inputs.collect::<Vec<_>>(),
            "outputs": outputs
                .map(|output| {
                    json!([output.name, output.internal_path, output.variables, output.windows])
                })
                .collect::<Vec<_>>(),
        });
        if let Some(command) = &self.command {
            asked["command"] = json!(command);
        }
        Digest::of(canonical_json(&asked))
    }

    /// What the ledger calls the task.
    pub fn name(&self) -> TaskName {
        TaskName {
            configuration: self.configuration.clone(),
            analysis_time: self.analysis_time,
            member: self.member,
        }
    }

    /// The parts in which a container that serves several members hands its outputs over; `None` if
    /// it is not known how long the forecast is.
    pub(crate) fn windows(&self) -> Option<Vec<Window>> {
        let (count, seconds) = match &self.steps {
            Some(steps) => (steps.count, steps.seconds),
            None => {
                let duration: Period = self.forecast_duration()?.parse().ok()?;
                (duration.seconds().unsigned_abs().div_ceil(3600), 3600)
            }
        };
        let length = self
            .outputs
            .first()
            .and_then(|output| output.windows.as_ref());
        Window::all(count, seconds, length.map(|windows| windows.length)).ok()
    }

    /// Whether its container is told that the same must give the same bytes.
    pub(crate) fn is_deterministic(&self) -> bool {
        let told = self.environment.get(env::MLWM_DETERMINISTIC);
        told.is_some_and(|told| told == "1")
    }

    /// Whether its outputs are cut into windows.
    pub(crate) fn is_cut(&self) -> bool {
        self.outputs.iter().any(|output| output.windows.is_some())
    }

    /// The Zarr format that an output is asked for in.
    pub(crate) fn zarr_format(&self, output: &str) -> u8 {
        let requests = self.environment.get(env::MLWM_OUTPUTS);
        let requests = requests.and_then(|text| contract::parse_outputs(text).ok());
        let request = requests
            .into_iter()
            .flatten()
            .find(|request| request.name == output);
        request.map_or(3, |request| request.zarr_format)
    }

    /// Length of the forecast as the container is told it, if it is.
    pub fn forecast_duration(&self) -> Option<String> {
        self.environment.get(env::FORECAST_DURATION).cloned()
    }
}

/// What people call a task.
fn title(configuration: &str, analysis_time: AnalysisTime, member: u32) -> String {
    format!("{configuration} {analysis_time} member {member}")
}

/// Plans `configurations` for analysis times.
pub fn plan(
    configurations: &[Loaded],
    analysis_times: &[AnalysisTime],
    options: &PlanOptions,
) -> Result<Plan, Error> {
    let (mut tasks, mut ensembles) = (Vec::new(), Vec::new());
    for analysis_time in analysis_times {
        let mut kept: BTreeMap<&str, UntilRead> = BTreeMap::new();
        for loaded in configurations {
            let until_read = match kept.entry(loaded.of()) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(UntilRead::of(loaded, *analysis_time)?),
            };
            let duration = options
                .forecast_duration
                .or(loaded.configuration.forecast_duration);
            ensembles.extend(ensemble::plan(loaded, *analysis_time, duration)?);
            for member in members(loaded, options).iter() {
                tasks.push(plan_task(
                    loaded,
                    *analysis_time,
                    member,
                    options,
                    until_read,
                )?);
            }
        }
    }
    let mut plan = Plan {
        version: 1,
        tasks,
        ensembles,
    };
    plan.settle()?;
    Ok(plan)
}

/// The members of a configuration: those that are asked for; of a step, those of them that it has.
fn members(loaded: &Loaded, options: &PlanOptions) -> Members {
    let own = loaded.configuration.members.as_ref();
    match (&options.members, own) {
        (Some(wanted), Some(own)) if loaded.is_part() => {
            let has = |member: &u32| own.iter().any(|own| own == *member);
            Members::of(wanted.iter().filter(has)).unwrap_or_else(|| own.clone())
        }
        (Some(wanted), _) if !loaded.is_part() => wanted.clone(),
        (_, own) => own.cloned().unwrap_or_else(Members::control),
    }
}

fn plan_task(
    loaded: &Loaded,
    analysis_time: AnalysisTime,
    member: u32,
    options: &PlanOptions,
    until_read: &UntilRead,
) -> Result<PlannedTask, Error> {
    let configuration = &loaded.configuration;
    let facts = loaded.artifact.as_ref();
    let interface = facts.and_then(|facts| facts.interface.as_ref());
    let duration = options
        .forecast_duration
        .or(configuration.forecast_duration);
    let time_layout = configuration.time_layout.unwrap_or_else(|| {
        // Without an artifact to ask, the layout that the deployment scripts default to.
        facts.map_or(TimeLayout::Forecast, ArtifactFacts::time_layout)
    });
    let steps = match (interface, duration) {
        (Some(interface), Some(duration)) => Some(steps(loaded, interface, time_layout, duration)?),
        (Some(_), None) => return Err(Error::NoForecastDuration(loaded.name.clone())),
        (None, _) => None,
    };
    let in_configuration = |source| Error::Uri {
        configuration: loaded.name.clone(),
        source,
    };
    let mut inputs = Vec::new();
    for (name, input) in &configuration.inputs {
        let uri = input.uri(analysis_time, member).map_err(in_configuration)?;
        inputs.push(PlannedInput {
            name: name.clone(),
            until_read: until_read.has(&uri),
            uri,
            dated: input.dated(),
            internal_path: input.internal_path.clone(),
            datastore_inputs: input.datastore_inputs.clone(),
            convert: input.convert.as_ref().map(|convert| {
                PlannedConverter::new(convert, name, &input.internal_path, analysis_time, member)
            }),
        });
    }
    let mut outputs = Vec::new();
    for (name, output) in &configuration.outputs {
        windows::check(loaded, name, output, duration, steps.as_ref(), time_layout)?;
        let uri = output
            .uri(analysis_time, member)
            .map_err(in_configuration)?;
        outputs.push(PlannedOutput {
            name: name.clone(),
            internal_path: output.internal_path.clone(),
            format: output.format,
            replace: output.replace,
            read_by: match output.keep {
                Keep::Always => Vec::new(),
                Keep::UntilRead => until_read.readers(&uri)?,
            },
            uri,
            variables: output.variables.clone(),
            ranges: output.ranges.clone().into_iter().collect(),
            windows: output
                .windows
                .clone()
                .map(|windows| windows::settle_ensemble(windows, configuration)),
        });
    }
    if let Some(facts) = facts {
        check_datastore_inputs(loaded, facts, &inputs)?;
    }
    let command = configuration.command.as_ref().map(|command| {
        command::settle(command, &inputs, &outputs, analysis_time, member).map_err(|reason| {
            Error::Command {
                configuration: loaded.name.clone(),
                reason,
            }
        })
    });
    let command = command.transpose()?;
    let seed = match configuration.seed {
        Some(seed) => seed + u64::from(member),
        None => TaskKey::seed(analysis_time, member),
    };
    let mut environment: BTreeMap<String, String> = configuration
        .environment
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut set = |key: &str, value: String| environment.insert(key.to_owned(), value);
    set(env::ANALYSIS_TIME, analysis_time.to_string());
    set(env::TIME_DIMENSIONS, time_layout.as_str().to_owned());
    set(env::INFERENCE_WORKDIR, CONTAINER_WORKDIR.to_owned());
    set(env::MLWM_MEMBER, member.to_string());
    set(env::MLWM_SEED, seed.to_string());
    if configuration.deterministic {
        set(env::MLWM_DETERMINISTIC, "1".to_owned());
    }
    set(env::MLWM_CONTRACT, "1".to_owned());
    set(env::MLWM_OUTPUTS, requested_outputs(loaded)?);
    let paths: BTreeMap<&str, &str> = inputs
        .iter()
        .map(|input| (input.name.as_str(), input.internal_path.as_str()))
        .collect();
    let paths = serde_json::to_string(&paths).map_err(Error::Json)?;
    set(env::MLWM_INPUTS, paths);
    if configuration.resources.gpus.is_some() {
        set(env::MLWM_GPUS, "1".to_owned());
    }
    if let Some(duration) = duration {
        set(env::FORECAST_DURATION, duration.to_string());
    }
    if let Some(steps) = &steps {
        set(env::NUM_EVAL_STEPS, steps.count.to_string());
    }
    let fed = datastore_input_paths(&inputs);
    if !fed.is_empty() {
        let paths = contract::encode_input_paths(&fed).map_err(|source| Error::Contract {
            configuration: loaded.name.clone(),
            source,
        })?;
        set(env::DATASTORE_INPUT_PATHS, paths);
    }
    Ok(PlannedTask {
        key: None,
        configuration: loaded.name.clone(),
        configuration_digest: loaded.digest,
        analysis_time,
        member,
        image: configuration.image_reference(&loaded.name),
        command,
        artifact: facts.map(|facts| PlannedArtifact {
            name: facts.name.clone(),
            path: facts.path.to_string_lossy().into_owned(),
            digest: facts.digest,
            delivery: configuration.artifact_delivery,
        }),
        steps,
        time_layout,
        inputs,
        outputs,
        environment,
        resources: configuration.resources.clone(),
        timeout: configuration
            .timeout
            .or(Period::from_seconds(DEFAULT_TIMEOUT_SECONDS)),
        retries: configuration.retries.clone(),
        seed,
        network: configuration.network,
        credentials: configuration.credentials.clone(),
    })
}

fn steps(
    loaded: &Loaded,
    interface: &Interface,
    time_layout: TimeLayout,
    duration: Period,
) -> Result<Steps, Error> {
    let seconds = interface.step_seconds;
    let whole = seconds > 0 && duration.seconds() % seconds == 0;
    let count = whole.then(|| u64::try_from(duration.seconds() / seconds));
    let Some(Ok(count)) = count else {
        return Err(Error::ForecastDuration {
            configuration: loaded.name.clone(),
            duration,
            step_seconds: seconds,
        });
    };
    let first_lead_seconds = match time_layout {
        TimeLayout::Time => seconds,
        // The first states of the forecast that is read are where this one starts from
        // (docs/container-contract.md, section 6).
        TimeLayout::Forecast => seconds.saturating_mul(interface.init_steps().cast_signed()),
    };
    Ok(Steps {
        count,
        seconds,
        first_lead_seconds,
    })
}

fn requested_outputs(loaded: &Loaded) -> Result<String, Error> {
    let requests: Vec<OutputRequest> = loaded
        .configuration
        .outputs
        .iter()
        .map(|(name, output)| OutputRequest {
            name: name.clone(),
            path: output.internal_path.clone(),
            variables: output.variables.clone(),
            zarr_format: output.zarr_format.unwrap_or(3),
        })
        .collect();
    serde_json::to_string(&requests).map_err(Error::Json)
}

fn datastore_input_paths(inputs: &[PlannedInput]) -> Vec<DatastoreInputPath> {
    let mut paths = Vec::new();
    for input in inputs {
        for fed in &input.datastore_inputs {
            if let Some((datastore, name)) = fed.split_once('.') {
                paths.push(DatastoreInputPath {
                    datastore: datastore.to_owned(),
                    input: name.to_owned(),
                    path: input.internal_path.clone(),
                });
            }
        }
    }
    paths
}

/// Every input that the model reads is fed, and nothing is fed that no datastore has. An input of a
/// variable that is not among the model's (static features are often inside the ONNX graph) may be
/// left out.
fn check_datastore_inputs(
    loaded: &Loaded,
    facts: &ArtifactFacts,
    inputs: &[PlannedInput],
) -> Result<(), Error> {
    // An artifact for an image of its own may find its inputs by itself.
    let read: Vec<&Source> = facts
        .interface
        .iter()
        .flat_map(Interface::sources)
        .collect();
    let mut known = Vec::new();
    let mut missing = Vec::new();
    let fed: Vec<&String> = inputs
        .iter()
        .flat_map(|input| &input.datastore_inputs)
        .collect();
    for (datastore, config) in &facts.datastores {
        for (input, about) in &config.inputs {
            let name = format!("{datastore}.{input}");
            let is_read = read.iter().any(|source| {
                source.datastore == *datastore && source.variable == about.target_output_variable
            });
            if is_read && !fed.contains(&&name) {
                missing.push(name.clone());
            }
            known.push(name);
        }
    }
    if let Some(name) = fed.iter().find(|name| !known.contains(name)) {
        return Err(Error::UnknownDatastoreInput {
            configuration: loaded.name.clone(),
            name: (*name).clone(),
            known,
        });
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Error::UnfedDatastoreInputs {
            configuration: loaded.name.clone(),
            missing,
        }),
    }
}

/// A configuration, analysis time and member stand for one task: for its claim and its history.
fn refuse_twice(tasks: &[PlannedTask]) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    match tasks.iter().find(|task| !seen.insert(task.name())) {
        Some(task) => Err(Error::Twice(task.title())),
        None => Ok(()),
    }
}

/// Two tasks that publish to the same place would overwrite each other.
fn refuse_shared_outputs(
    tasks: &[PlannedTask],
    ensembles: &[PlannedEnsemble],
) -> Result<(), Error> {
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    for ensemble in ensembles {
        if let Some(first) = seen.insert(&ensemble.uri, ensemble.title()) {
            return Err(Error::SharedOutput {
                uri: ensemble.uri.clone(),
                first,
                second: ensemble.title(),
            });
        }
    }
    for task in tasks {
        for output in &task.outputs {
            if let Some(first) = seen.insert(&output.uri, task.title()) {
                return Err(Error::SharedOutput {
                    uri: output.uri.clone(),
                    first,
                    second: task.title(),
                });
            }
        }
    }
    Ok(())
}
