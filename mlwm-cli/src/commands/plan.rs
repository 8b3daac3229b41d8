//! `mlwm plan`: the tasks of one or more analysis times.

use std::collections::HashSet;
use std::io::{BufWriter, Write};

use clap::{Args, ValueEnum};
use mlwm_cycles::{Artifacts, GraphForm, Plan, PlanOptions, graph, load_parts, names, plan};
use mlwm_spec::{AnalysisTime, ExitCode, Members, Period};

use crate::Outcome;
use crate::commands::{Configurations, Workdir, artifacts, runtime};
use crate::expectations::{self, Form};
use crate::failure::Failure;
use crate::transfer::Transfer;

/// Print the tasks of one or more analysis times as JSON; nothing is run.
///
/// What is printed can be edited and divided, and is carried out by `mlwm run --plan FILE`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm plan --analysis-time 2025-09-01T00:00Z --to 2025-09-30T18:00Z --every 6h > september.json"
)]
pub(crate) struct Arguments {
    /// The time the forecasts start from, UTC: `2025-09-22T12:00Z`.
    #[arg(long, value_name = "TIME")]
    analysis_time: AnalysisTime,
    #[command(flatten)]
    wanted: Wanted,
    /// Also say on standard error what it may be expected to come to: bytes from the interfaces of the models,
    /// times from what earlier runs took, by the ledger of the working folder.
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "table")]
    expect: Option<Form>,
    /// Draw instead which steps read what others make: as `mermaid`, which Markdown viewers draw, or `dot`, for
    /// Graphviz.
    #[arg(
        long,
        value_name = "FORM",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "mermaid",
        conflicts_with = "expect"
    )]
    graph: Option<Drawing>,
    #[command(flatten)]
    workdir: Workdir,
}

/// A language of drawings.
#[derive(Clone, Copy, ValueEnum)]
enum Drawing {
    Mermaid,
    Dot,
}

/// What is to be planned.
#[derive(Args)]
pub(crate) struct Wanted {
    /// The last of several analysis times.
    #[arg(long, value_name = "TIME", requires = "every")]
    to: Option<AnalysisTime>,
    /// The time between them: `6h`, `PT6H`.
    #[arg(long, value_name = "PERIOD", requires = "to")]
    every: Option<Period>,
    /// Configuration to run, or a step of one: `ai-land/grib2zarr`, `ai-land/grib2zarr/2020-02`; may be given
    /// several times; all if none is given.
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    #[command(flatten)]
    configurations: Configurations,
    /// Ensemble members instead of the configured ones: `0`, `0-49`, `1-5,7`.
    #[arg(long)]
    members: Option<Members>,
    /// Length of the forecast instead of the configured one: `PT18H`.
    #[arg(long, value_name = "PERIOD")]
    forecast_duration: Option<Period>,
    /// Hash artifacts again, even those that have not changed since they were hashed.
    #[arg(long)]
    pub(crate) paranoid: bool,
}

/// A plan, and why it lacks some configurations.
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    /// The worst of what is wrong with those that it lacks.
    pub(crate) code: ExitCode,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let planned = arguments.wanted.plan(arguments.analysis_time)?;
    if let Some(drawing) = arguments.graph {
        let form = match drawing {
            Drawing::Mermaid => GraphForm::Mermaid,
            Drawing::Dot => GraphForm::Dot,
        };
        say!("{}", graph(&planned.plan, form).trim_end());
        return Ok(planned.code);
    }
    print(&planned.plan)?;
    if let Some(form) = arguments.expect {
        expectations::print(&planned.plan, &arguments.workdir, form)?;
    }
    Ok(planned.code)
}

/// Prints a plan as JSON.
pub(crate) fn print(plan: &Plan) -> Result<(), Failure> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let written = serde_json::to_writer_pretty(&mut out, plan).map_err(std::io::Error::from);
    match written
        .and_then(|()| writeln!(out))
        .and_then(|()| out.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            ExitCode::Failed,
            format!("cannot write the plan to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

impl Wanted {
    /// Plans all that is wanted. A configuration that is wrong does not keep the others from being
    /// planned: what is wrong with it is said.
    pub(crate) fn plan(&self, analysis_time: AnalysisTime) -> Result<Planned, Failure> {
        let times = self.times(analysis_time)?;
        let options = PlanOptions {
            members: self.members.clone(),
            forecast_duration: self.forecast_duration,
        };
        let folder = &self.configurations.folder;
        let mut wanted = match self.models.is_empty() {
            true => names(folder)?,
            false => self.models.clone(),
        };
        let mut seen = HashSet::new();
        wanted.retain(|name| seen.insert(name.clone()));
        if wanted.is_empty() {
            return Err(mlwm_cycles::Error::NoConfigurations(folder.clone()).into());
        }
        let mut code = ExitCode::Ok;
        let mut loaded = Vec::with_capacity(wanted.len());
        runtime()?.block_on(async {
            let transfer = Transfer::start()?;
            let artifacts = Artifacts {
                receipts: Artifacts::receipts(self.paranoid),
                ..artifacts(&transfer)?
            };
            for name in &wanted {
                // Planned for itself, so that what is wrong is said of this one alone.
                let parts = match load_parts(folder, name, &artifacts).await {
                    Ok(parts) => plan(&parts, &times[..1], &options).map(|_| parts),
                    Err(error) => Err(error),
                };
                match parts {
                    Ok(parts) => loaded.extend(parts),
                    Err(error) => {
                        note!("error: {name}: {error}");
                        code = code.max(error.exit_code());
                    }
                }
            }
            transfer.finish();
            Ok::<_, Failure>(())
        })?;
        let plan = plan(&loaded, &times, &options)?;
        Ok(Planned { plan, code })
    }

    fn times(&self, first: AnalysisTime) -> Result<Vec<AnalysisTime>, Failure> {
        let (Some(last), Some(every)) = (self.to, self.every) else {
            return Ok(vec![first]);
        };
        let usage = |message: String| Failure::new(ExitCode::Usage, message);
        if last < first {
            return Err(usage(format!(
                "--to {last} lies before --analysis-time {first}"
            )));
        }
        let (first, last) = (first.unix_seconds(), last.unix_seconds());
        let mut times = Vec::new();
        let mut seconds = first;
        while seconds <= last {
            let time = AnalysisTime::from_unix_seconds(seconds)
                .ok_or_else(|| usage(format!("--every {every} is no whole number of minutes")))?;
            times.push(time);
            seconds += every.seconds();
        }
        Ok(times)
    }
}
