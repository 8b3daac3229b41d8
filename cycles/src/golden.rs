//! Does an image make the forecast that it should? The golden case of its artifact goes the way of
//! every forecast — stage, check, container, verify, publish —, only that its input comes out of the
//! artifact and its output goes to scratch, where it is compared with the expected one.

use std::fs;
use std::path::{Path, PathBuf};

use mlwm_artifacts::{Artifact, GOLDEN, GoldenCase, Tolerance};
use mlwm_datasets::{Dataset, Variable};
use mlwm_spec::{AnalysisTime, Digest, ExitCode, Members, Period};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::event::TaskReport;
use crate::load::Loaded;
use crate::plan::{Plan, PlanOptions, PlannedInput, PlannedTask, plan};
use crate::run::{RunOptions, Tell, run};
use crate::{Error, scratch};

/// How an image is tested.
#[derive(Clone, Debug)]
pub struct GoldenOptions {
    /// The image instead of the configured one; of the local engine.
    pub image: Option<String>,
    /// Folders and version, as for a run.
    pub run: RunOptions,
}

/// What came of a golden case.
#[derive(Clone, Debug, Serialize)]
pub struct GoldenReport {
    /// The configuration.
    pub configuration: String,
    /// The image.
    pub image: String,
    /// SHA-256 of the artifact that the case is from.
    pub artifact: Digest,
    /// The time that the forecast starts from.
    pub analysis_time: AnalysisTime,
    /// Its length.
    pub forecast_duration: Period,
    /// How the container went. Its outputs are gone.
    pub task: TaskReport,
    /// How far each variable is from the expected one; empty if the container failed.
    pub variables: Vec<Comparison>,
}

/// A variable of an output, compared with the expected one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The output.
    pub output: String,
    /// The variable.
    pub variable: String,
    /// How many values were compared.
    pub values: u64,
    /// How many of them are further away than the tolerance allows.
    pub outside: u64,
    /// The largest difference, in the unit of the variable; `null` in JSON if a value is missing or
    /// infinite where the expected one is not.
    pub largest: f64,
    /// How far a value may be away.
    pub tolerance: Tolerance,
}

impl GoldenReport {
    /// The exit code that says how it went.
    pub fn exit_code(&self) -> ExitCode {
        let differs = self.variables.iter().any(|variable| variable.outside > 0);
        match (self.task.exit_code, differs) {
            (ExitCode::Ok, true) => ExitCode::Differs,
            (code, _) => code,
        }
    }
}

/// Runs the image of a configuration on the golden case of its artifact; `None` if that has none.
///
/// # Errors
/// If the case cannot be run, or an output has another form than the expected one. How far values
/// are away, and how a container failed, is in the report.
pub async fn test_image(
    loaded: &Loaded,
    options: &GoldenOptions,
    tell: &Tell,
    cancel: &CancellationToken,
) -> Result<Option<GoldenReport>, Error> {
    let Some(facts) = &loaded.artifact else {
        return Ok(None);
    };
    let artifact = Artifact::open(&facts.path)?;
    let Some(case) = artifact.golden_case()? else {
        return Ok(None);
    };
    scratch::create(&options.run.workdir)?;
    let unusable = |source| Error::Scratch {
        path: options.run.workdir.clone(),
        source,
    };
    let workdir = fs::canonicalize(&options.run.workdir).map_err(unusable)?;
    let folder = tempfile::Builder::new()
        .prefix("golden-")
        .tempdir_in(workdir)
        .map_err(unusable)?;
    let case = Case {
        loaded,
        case,
        folder: folder.path(),
    };
    artifact.extract_only(case.folder, &[GOLDEN])?;
    let plan = case.plan(options.image.as_deref())?;
    // A working folder of its own: the ledger and the claims are of forecasts.
    let apart = RunOptions {
        workdir: folder.path().join("work"),
        ..options.run.clone()
    };
    let mut ran = run(&plan, &apart, tell, cancel).await?;
    let (Some(planned), Some(task)) = (plan.tasks.first(), ran.tasks.pop()) else {
        return Err(case.wrong("it has no task".to_owned()));
    };
    let mut task = task.report;
    let variables = match task.exit_code {
        ExitCode::Ok => case.compare(planned)?,
        _ => Vec::new(),
    };
    task.outputs.clear();
    task.log = case.keep_log(task.log.as_deref(), &options.run.workdir)?;
    Ok(Some(GoldenReport {
        configuration: loaded.name.clone(),
        image: planned.image.clone(),
        artifact: facts.digest,
        analysis_time: case.case.analysis_time,
        forecast_duration: case.case.forecast_duration,
        task,
        variables,
    }))
}

/// A golden case that was unpacked to `folder`.
struct Case<'a> {
    loaded: &'a Loaded,
    case: GoldenCase,
    folder: &'a Path,
}

impl Case<'_> {
    /// The task of the configuration, with the inputs of the case.
    fn plan(&self, image: Option<&str>) -> Result<Plan, Error> {
        let options = PlanOptions {
            members: Some(Members::control()),
            forecast_duration: Some(self.case.forecast_duration),
        };
        let mut loaded = self.loaded.clone();
        // The case is shorter than a forecast, and has one member.
        loaded.configuration.ensemble = None;
        for output in loaded.configuration.outputs.values_mut() {
            if let Some(windows) = &mut output.windows {
                windows.hours = None;
            }
        }
        let mut plan = plan(&[loaded], &[self.case.analysis_time], &options)?;
        for task in &mut plan.tasks {
            if let Some(image) = image {
                task.image = image.to_owned();
            }
            for input in &mut task.inputs {
                input.uri = uri(&GoldenCase::input(self.folder, self.input_of(input)?));
                input.dated = None;
                // The case has what the model reads.
                input.convert = None;
            }
            for output in &mut task.outputs {
                output.uri = uri(&self.published(&output.name));
            }
        }
        Ok(plan)
    }

    /// The input of the case that stands for one of the configuration: it feeds the same inputs of
    /// datastores, or is called the same if that feeds none.
    fn input_of(&self, input: &PlannedInput) -> Result<&str, Error> {
        let stands = |name: &str, feeds: &[String]| match input.datastore_inputs.as_slice() {
            [] => name == input.name,
            fed => fed.iter().all(|one| feeds.contains(one)),
        };
        let mut inputs = self.case.inputs.iter();
        let found = inputs.find(|(name, given)| stands(name, &given.datastore_inputs));
        found.map(|(name, _)| name.as_str()).ok_or_else(|| {
            let wanted = match input.datastore_inputs.as_slice() {
                [] => "is called so".to_owned(),
                fed => format!("feeds {}", fed.join(", ")),
            };
            self.wrong(format!(
                "for its input `{}`, no input of the case {wanted}; divide the inputs of the case as the configuration does",
                input.name
            ))
        })
    }

    /// The expected output that stands for one of the configuration: the one that is called the same,
    /// or the only one.
    fn expected_of(&self, output: &str) -> Option<&str> {
        let outputs = &self.case.outputs;
        let same = outputs.iter().find(|name| *name == output);
        let only = outputs.first().filter(|_| outputs.len() == 1);
        same.or(only).map(String::as_str)
    }

    /// Keeps the container's log, also that of one that failed.
    fn keep_log(&self, log: Option<&str>, workdir: &Path) -> Result<Option<String>, Error> {
        let Some(log) = log else { return Ok(None) };
        let kept = workdir
            .join("log")
            .join(&self.loaded.name)
            .join("golden.log");
        scratch::create(kept.parent().unwrap_or(workdir))?;
        fs::copy(log, &kept).map_err(|source| scratch::failed(&kept, source))?;
        Ok(Some(kept.display().to_string()))
    }

    fn published(&self, output: &str) -> PathBuf {
        self.folder.join("published").join(output)
    }

    /// Compares all that the configuration puts out and the case expects.
    fn compare(&self, planned: &PlannedTask) -> Result<Vec<Comparison>, Error> {
        let mut compared = Vec::new();
        for output in &planned.outputs {
            let Some(expected) = self.expected_of(&output.name) else {
                continue;
            };
            let expected = Dataset::open(&GoldenCase::expected(self.folder, expected))?;
            let found = Dataset::open(&self.published(&output.name))?;
            for variable in GoldenCase::compared(&expected)? {
                let name = variable.name();
                let asked = output.variables.as_ref();
                if asked.is_none_or(|asked| asked.iter().any(|one| one == name)) {
                    compared.push(self.compare_variable(
                        &output.name,
                        &expected,
                        variable,
                        &found,
                    )?);
                }
            }
        }
        match compared.is_empty() {
            true => Err(self.wrong(format!(
                "none of its outputs holds a variable of those that the case expects ({}): name an output the same, or ask it for one of their variables",
                self.case.outputs.join(", ")
            ))),
            false => Ok(compared),
        }
    }

    fn compare_variable(
        &self,
        output: &str,
        expected_in: &Dataset,
        expected: &Variable,
        found_in: &Dataset,
    ) -> Result<Comparison, Error> {
        let name = expected.name();
        let differs = |why| Error::Differs {
            output: output.to_owned(),
            why,
        };
        if !found_in.contains(name) {
            return Err(differs(format!("it has no `{name}`")));
        }
        let found = found_in.variable(name)?;
        let form = |variable: &Variable| format!("{:?} × {:?}", variable.dims(), variable.shape());
        if (found.dims(), found.shape()) != (expected.dims(), expected.shape()) {
            return Err(differs(format!(
                "`{name}` is {}, not {}",
                form(found),
                form(expected)
            )));
        }
        for dim in expected.dims() {
            if !same_coordinate(expected_in, found_in, dim)? {
                return Err(differs(format!(
                    "the coordinate `{dim}` of `{name}` has other values"
                )));
            }
        }
        let tolerance = self.case.tolerance(name).ok_or_else(|| {
            self.wrong(format!(
                "the case has no tolerance for `{name}`; build the artifact again"
            ))
        })?;
        // They have one shape, and a golden case is small.
        let (expected, found) = (expected.read()?.into_f64()?, found.read()?.into_f64()?);
        let mut comparison = Comparison {
            output: output.to_owned(),
            variable: name.to_owned(),
            values: expected.len() as u64,
            outside: 0,
            largest: 0.0,
            tolerance,
        };
        for (expected, found) in expected.iter().zip(&found) {
            comparison.add(*found, *expected);
        }
        Ok(comparison)
    }

    fn wrong(&self, why: String) -> Error {
        Error::GoldenCase {
            configuration: self.loaded.name.clone(),
            why,
        }
    }
}

impl Comparison {
    fn add(&mut self, found: f64, expected: f64) {
        let same = found == expected || (found.is_nan() && expected.is_nan());
        let difference = match (found - expected).abs() {
            _ if same => 0.0,
            difference if difference.is_nan() => f64::INFINITY,
            difference => difference,
        };
        self.largest = self.largest.max(difference);
        self.outside += u64::from(!self.tolerance.allows(found, expected));
    }
}

/// Whether the coordinate of a dimension is the same in both: times exactly, numbers to a relative
/// 1e-6. One that the expected output does not have can be any.
fn same_coordinate(expected: &Dataset, found: &Dataset, dim: &str) -> Result<bool, Error> {
    if !expected.contains(dim) {
        return Ok(true);
    }
    if !found.contains(dim) {
        return Ok(false);
    }
    let timed = |dataset: &Dataset| dataset.times(dim).or_else(|_| dataset.durations(dim));
    if let (Ok(expected), Ok(found)) = (timed(expected), timed(found)) {
        return Ok(expected == found);
    }
    let values = |dataset: &Dataset| dataset.variable(dim)?.read();
    let (expected, found) = (values(expected)?, values(found)?);
    if expected == found {
        return Ok(true);
    }
    let (Ok(expected), Ok(found)) = (expected.into_f64(), found.into_f64()) else {
        return Ok(false);
    };
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-6 * a.abs();
    Ok(expected.len() == found.len() && expected.iter().zip(&found).all(near))
}

fn uri(path: &Path) -> String {
    format!("file://{}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison() -> Comparison {
        Comparison {
            output: "surface".to_owned(),
            variable: "t2m".to_owned(),
            values: 4,
            outside: 0,
            largest: 0.0,
            tolerance: Tolerance {
                absolute: 0.5,
                relative: 0.0,
            },
        }
    }

    #[test]
    fn what_is_outside_is_counted_and_the_largest_difference_kept() {
        let mut near = comparison();
        for (found, expected) in [(1.0, 1.5), (2.0, 2.0), (f64::NAN, f64::NAN), (3.0, 2.75)] {
            near.add(found, expected);
        }
        assert_eq!((near.outside, near.largest), (0, 0.5));
        let mut far = comparison();
        for (found, expected) in [(1.0, 1.51), (-4.0, 2.0), (1.0, 1.0)] {
            far.add(found, expected);
        }
        assert_eq!((far.outside, far.largest), (2, 6.0));
        for (found, expected) in [(f64::NAN, 1.0), (1.0, f64::NAN), (f64::INFINITY, 1.0)] {
            let mut missing = comparison();
            missing.add(found, expected);
            assert_eq!((missing.outside, missing.largest), (1, f64::INFINITY));
        }
    }
}
