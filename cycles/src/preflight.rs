//! What can be known to be wrong with the inputs before a container is started: the preparation
//! that the runner will do, done here without a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlwm_artifacts::{Artifact, statistics_member};
use mlwm_datasets::input_state::{InitialState, StateRequest};
use mlwm_datasets::prepare::{self, ForecastRequest};
use mlwm_datasets::{Dataset, Statistics};
use mlwm_spec::contract::DatastoreInputPath;
use mlwm_spec::interface::StateSchema;
use mlwm_spec::time::utc_text;
use mlwm_spec::{AnalysisTime, DatastoreConfig, Interface};

use crate::Error;
use crate::plan::{PlannedInput, PlannedTask};

/// Checks the staged inputs of a task: that they are of the analysis time that their places name, and
/// against its artifact. Without an artifact that has an interface nothing more is known of what the
/// model needs.
pub(crate) fn check(
    planned: &PlannedTask,
    staged: &[(PlannedInput, PathBuf)],
) -> Result<(), Error> {
    for (input, folder) in staged {
        check_analysis_time(planned, input, folder)?;
    }
    let (Some(artifact), Some(steps)) = (&planned.artifact, &planned.steps) else {
        return Ok(());
    };
    let artifact = Artifact::open(Path::new(&artifact.path))?;
    let Some(interface) = artifact.interface()? else {
        return Ok(());
    };
    if let Some(schema) = &interface.input_state {
        // The built-in runner does so itself; the program of another image, as one of version 4 is, need
        // not know the schema.
        check_state(planned, staged, (&interface, schema), steps.count)?;
    }
    if interface.input_state.is_some() || interface.points.is_some() {
        return check_outputs(planned, interface.predicted().cloned().collect());
    }
    let unpacked = tempfile::tempdir().map_err(|source| Error::Scratch {
        path: std::env::temp_dir(),
        source,
    })?;
    let configs: BTreeMap<String, DatastoreConfig> = artifact.datastores()?.into_iter().collect();
    let mut statistics = BTreeMap::new();
    for name in configs.keys() {
        let member = statistics_member(name);
        artifact.extract_only(unpacked.path(), &[&member])?;
        statistics.insert(
            name.clone(),
            Statistics::open(&unpacked.path().join(&member))?,
        );
    }
    let request = ForecastRequest {
        interface: &interface,
        configs: &configs,
        statistics: &statistics,
        inputs: &fed(staged),
        layout: planned.time_layout,
        analysis_time: planned.analysis_time,
        steps: steps.count,
    };
    let report = prepare::check(&request).map_err(|source| Error::Preflight {
        uris: staged.iter().map(|(input, _)| input.uri.clone()).collect(),
        source,
    })?;
    check_outputs(planned, report.predicted)
}

/// What a forecast starts from must be what the interface declares.
fn check_state(
    planned: &PlannedTask,
    staged: &[(PlannedInput, PathBuf)],
    (interface, schema): (&Interface, &StateSchema),
    steps: u64,
) -> Result<(), Error> {
    let mut inputs = staged.iter();
    let Some((input, path)) = inputs.find(|(input, _)| input.name == schema.input) else {
        return Err(Error::NoState {
            configuration: planned.configuration.clone(),
            input: schema.input.clone(),
        });
    };
    let request = StateRequest {
        interface,
        schema,
        path,
        analysis_time: planned.analysis_time,
        steps,
    };
    InitialState::check(&request).map_err(|source| Error::State {
        uri: input.uri.clone(),
        source: Box::new(source),
    })
}

/// The variables of outputs are those that the model predicts.
fn check_outputs(planned: &PlannedTask, predicted: Vec<String>) -> Result<(), Error> {
    for output in &planned.outputs {
        let mut wanted = output.variables.iter().flatten();
        if let Some(variable) = wanted.find(|name| !predicted.contains(name)) {
            return Err(Error::NotPredicted {
                output: output.name.clone(),
                variable: variable.clone(),
                predicted,
            });
        }
    }
    Ok(())
}

/// The analysis time of a dataset, by name of its coordinate.
pub(crate) const ANALYSIS_TIME: &str = "analysis_time";

/// A dataset at a place that is named after the analysis time, and that says what its own is, must have
/// one that the place is the name of: what lies there may be yesterday's.
fn check_analysis_time(
    planned: &PlannedTask,
    input: &PlannedInput,
    folder: &Path,
) -> Result<(), Error> {
    let form = match &input.dated {
        Some(form) => form.as_str(),
        // A plan of an older mlwm does not say it.
        None if input.uri.contains(&planned.analysis_time.path_text()) => AnalysisTime::PATH_FORM,
        None => return Ok(()),
    };
    // What is no Zarr store is not looked into.
    let Ok(dataset) = Dataset::open(folder) else {
        return Ok(());
    };
    if !dataset.contains(ANALYSIS_TIME) {
        return Ok(());
    }
    let times = dataset.times(ANALYSIS_TIME)?;
    // By `%Y%m%d` all times of a day have the same place.
    let named = |time: AnalysisTime| time.formatted(form);
    let wanted = named(planned.analysis_time);
    let is_meant = |time: &i64| {
        let time = AnalysisTime::from_unix_seconds(*time);
        time.is_some_and(|time| named(time) == wanted)
    };
    if times.iter().any(is_meant) {
        return Ok(());
    }
    let found = times.iter().map(|time| utc_text(*time)).collect();
    Err(Error::OtherAnalysisTime {
        uri: input.uri.clone(),
        found,
        wanted: planned.analysis_time,
    })
}

/// Where each datastore's inputs are staged.
fn fed(staged: &[(PlannedInput, PathBuf)]) -> Vec<DatastoreInputPath> {
    let mut paths = Vec::new();
    for (input, folder) in staged {
        for name in &input.datastore_inputs {
            if let Some((datastore, name)) = name.split_once('.') {
                paths.push(DatastoreInputPath {
                    datastore: datastore.to_owned(),
                    input: name.to_owned(),
                    path: folder.to_string_lossy().into_owned(),
                });
            }
        }
    }
    paths
}
