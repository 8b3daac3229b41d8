//! What can be known to be wrong with the inputs before a container is started: the preparation
//! that the runner will do, done here without a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlwm_artifacts::{Artifact, statistics_member};
use mlwm_datasets::Statistics;
use mlwm_datasets::prepare::{self, ForecastRequest};
use mlwm_spec::DatastoreConfig;
use mlwm_spec::contract::DatastoreInputPath;

use crate::Error;
use crate::plan::{PlannedInput, PlannedTask};

/// Checks the staged inputs of a task against its artifact. Without an artifact that has an
/// interface nothing is known of what the model needs, and nothing is checked.
pub(crate) fn check(
    planned: &PlannedTask,
    staged: &[(PlannedInput, PathBuf)],
) -> Result<(), Error> {
    let (Some(artifact), Some(steps)) = (&planned.artifact, &planned.steps) else {
        return Ok(());
    };
    let artifact = Artifact::open(Path::new(&artifact.path))?;
    let Some(interface) = artifact.interface()? else {
        return Ok(());
    };
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
    for output in &planned.outputs {
        let mut wanted = output.variables.iter().flatten();
        if let Some(variable) = wanted.find(|name| !report.predicted.contains(name)) {
            return Err(Error::NotPredicted {
                output: output.name.clone(),
                variable: variable.clone(),
                predicted: report.predicted,
            });
        }
    }
    Ok(())
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
