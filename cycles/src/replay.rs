//! A published output made again from its record, and compared with what was published.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use mlwm_datasets::{Dataset, Variable};
use mlwm_spec::manifest::ObjectRecord;
use mlwm_spec::{Digest, ExitCode, Manifest};
use mlwm_storage::{Progress, Store, Uri};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::event::TaskReport;
use crate::plan::{Plan, PlannedTask};
use crate::run::{RunOptions, Tell, run};
use crate::{Error, grib, scratch};

/// What came of a replay.
#[derive(Clone, Debug, Serialize)]
pub struct ReplayReport {
    /// Where the output is published.
    pub uri: String,
    /// Identity of the task that made it.
    pub task: Digest,
    /// How the task went this time. Its outputs are gone.
    pub replayed: TaskReport,
    /// How many objects were published.
    pub objects: u64,
    /// The objects that have another content, or are in one of the two alone.
    pub different: Vec<String>,
    /// The variables that have other values; empty if all objects are the same.
    pub variables: Vec<Difference>,
}

/// A variable that has other values than the published one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The variable.
    pub variable: String,
    /// How many values it has.
    pub values: u64,
    /// How many of them are different.
    pub different: u64,
    /// The largest difference, in the unit of the variable; `null` in JSON if a value is missing or
    /// infinite in one of the two alone.
    pub largest: f64,
    /// Why the values were not compared, if they were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

impl ReplayReport {
    /// The exit code that says how it went.
    pub fn exit_code(&self) -> ExitCode {
        match self.different.is_empty() {
            _ if self.replayed.exit_code != ExitCode::Ok => self.replayed.exit_code,
            true => ExitCode::Ok,
            false => ExitCode::Differs,
        }
    }
}

/// Makes the output that `manifest` records again, from the same image, artifact and inputs, and
/// compares it with what is published. `artifact` is where the artifact lies, if it lies elsewhere
/// than it did.
///
/// # Errors
/// If the record does not say enough, or what it was made of is gone or another.
pub async fn replay(
    manifest: &Manifest,
    artifact: Option<&Path>,
    options: &RunOptions,
    tell: &Tell,
    cancel: &CancellationToken,
) -> Result<ReplayReport, Error> {
    let refuse = |why: String| Error::Replay {
        uri: manifest.uri.clone(),
        why,
    };
    if manifest.ensemble.is_some() {
        return Err(refuse("it is made of members: replay them".to_owned()));
    }
    let mut planned: PlannedTask = serde_json::from_value(manifest.plan.clone()).map_err(|_| {
        refuse("its manifest does not say how it was planned: it is of an older mlwm".to_owned())
    })?;
    scratch::create(&options.workdir)?;
    let folder = tempfile::Builder::new()
        .prefix("replay-")
        .tempdir_in(&options.workdir)
        .map_err(|source| scratch::failed(&options.workdir, source))?;
    let root = folder.path();
    let root = root
        .canonicalize()
        .map_err(|source| scratch::failed(root, source))?;
    let made = |name: &str| root.join("made").join(name);
    for output in &mut planned.outputs {
        output.uri = format!("file://{}", made(&output.name).display());
    }
    if let (Some(planned), Some(path)) = (&mut planned.artifact, artifact) {
        planned.path = path.display().to_string();
    }
    // By content: a tag may have moved since.
    planned.image = manifest.image.digest.to_string();
    let apart = RunOptions {
        workdir: root.join("work"),
        republish: false,
        ..options.clone()
    };
    let plan = Plan {
        version: 1,
        tasks: vec![planned],
        ensembles: Vec::new(),
    };
    let mut ran = run(&plan, &apart, tell, cancel).await?;
    let task = ran.tasks.pop();
    let mut replayed = task
        .ok_or_else(|| refuse("it has no task".to_owned()))?
        .report;
    replayed.outputs.clear();
    replayed.log = None;
    let mut report = ReplayReport {
        uri: manifest.uri.clone(),
        task: manifest.task,
        replayed,
        objects: manifest.objects.len() as u64,
        different: Vec::new(),
        variables: Vec::new(),
    };
    if report.replayed.exit_code != ExitCode::Ok {
        return Ok(report);
    }
    if report.replayed.identity != Some(manifest.task) {
        let inputs = inputs_of(&made(&manifest.output)).await?;
        let other = manifest
            .inputs
            .iter()
            .find(|input| !inputs.contains(&input.digest));
        return Err(refuse(match other {
            Some(input) => format!(
                "the input `{}` at {} is another one now: bring back what it was",
                input.name, input.uri
            ),
            None => "what it was made of is another now".to_owned(),
        }));
    }
    let again = mlwm_storage::local_objects(&made(&manifest.output), cancel).await?;
    report.different = different(&manifest.objects, &again);
    if !report.different.is_empty() {
        let published = root.join("published");
        let uri: Uri = manifest.uri.parse()?;
        mlwm_storage::stage(&uri, &published, &Progress::none(), cancel).await?;
        let made = made(&manifest.output);
        let compare = match &manifest.grib {
            Some(_) => grib::compare,
            None => compare,
        };
        report.variables =
            tokio::task::spawn_blocking(move || compare(&published, &made)).await??;
    }
    Ok(report)
}

/// The digests of the inputs that an output was made of.
async fn inputs_of(output: &Path) -> Result<Vec<Digest>, Error> {
    let uri: Uri = format!("file://{}", output.display()).parse()?;
    let manifest = Store::open(&uri).await?.manifest(&uri).await?;
    let inputs = manifest.into_iter().flat_map(|manifest| manifest.inputs);
    Ok(inputs.map(|input| input.digest).collect())
}

fn different(published: &[ObjectRecord], again: &[ObjectRecord]) -> Vec<String> {
    let mut digests: BTreeMap<&str, [Option<Digest>; 2]> = BTreeMap::new();
    for (side, objects) in [published, again].into_iter().enumerate() {
        for object in objects {
            digests.entry(&object.path).or_default()[side] = Some(object.sha256);
        }
    }
    let differing = digests.into_iter().filter(|(_, [one, other])| one != other);
    differing.map(|(path, _)| path.to_owned()).collect()
}

/// The variables of two datasets that have other values.
fn compare(published: &Path, again: &Path) -> Result<Vec<Difference>, Error> {
    let (published, again) = (Dataset::open(published)?, Dataset::open(again)?);
    let mut differences = Vec::new();
    for name in published.names() {
        let difference = match again.contains(name) {
            true => compare_variable(published.variable(name)?, again.variable(name)?)?,
            false => Difference::uncompared(published.variable(name)?, "it was not made again"),
        };
        if difference.is_one() {
            differences.push(difference);
        }
    }
    for name in again.names().filter(|name| !published.contains(name)) {
        differences.push(Difference::uncompared(
            again.variable(name)?,
            "it was not published",
        ));
    }
    Ok(differences)
}

/// Compares a row of chunks at a time.
fn compare_variable(published: &Variable, again: &Variable) -> Result<Difference, Error> {
    if (published.dims(), published.shape()) != (again.dims(), again.shape()) {
        return Ok(Difference::uncompared(published, "it has another shape"));
    }
    let mut difference = Difference {
        values: published.shape().iter().product(),
        ..Difference::none(published.name())
    };
    let whole: Vec<Range<u64>> = published.shape().iter().map(|length| 0..*length).collect();
    let rows = published.shape().first().copied().unwrap_or(1);
    let step = published.chunk_shape().first().copied().unwrap_or(1).max(1);
    let mut start = 0;
    while start < rows {
        let mut ranges = whole.clone();
        if let Some(first) = ranges.first_mut() {
            *first = start..rows.min(start + step);
        }
        let (one, other) = (published.read_range(&ranges)?, again.read_range(&ranges)?);
        if one != other {
            match (one.into_f64(), other.into_f64()) {
                (Ok(one), Ok(other)) => one
                    .iter()
                    .zip(&other)
                    .for_each(|(a, b)| difference.add(*a, *b)),
                _ => {
                    return Ok(Difference::uncompared(
                        published,
                        "it holds texts, and others",
                    ));
                }
            }
        }
        start += step;
    }
    Ok(difference)
}

impl Difference {
    /// Nothing is known to differ yet.
    pub(crate) fn none(variable: &str) -> Self {
        Self {
            variable: variable.to_owned(),
            values: 0,
            different: 0,
            largest: 0.0,
            why_not: None,
        }
    }

    pub(crate) fn is_one(&self) -> bool {
        self.different > 0 || self.why_not.is_some()
    }

    fn uncompared(variable: &Variable, why: &str) -> Self {
        let values = variable.shape().iter().product();
        Self {
            variable: variable.name().to_owned(),
            values,
            different: values,
            largest: f64::INFINITY,
            why_not: Some(why.to_owned()),
        }
    }

    pub(crate) fn add(&mut self, one: f64, other: f64) {
        if one == other || (one.is_nan() && other.is_nan()) {
            return;
        }
        self.different += 1;
        let by = (one - other).abs();
        self.largest = self
            .largest
            .max(if by.is_nan() { f64::INFINITY } else { by });
    }
}
