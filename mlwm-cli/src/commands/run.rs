//! `mlwm run`: the configured models for an analysis time, or a plan.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use mlwm_cycles::{Artifacts, Budget, Plan, Prices, RunOptions, Tell};
use mlwm_registries::Unpacked;
use mlwm_spec::bytes::ByteSize;
use mlwm_spec::{AnalysisTime, ExitCode, Period};
use tokio_util::sync::CancellationToken;

use super::plan::{Planned, Wanted, print};
use crate::Outcome;
use crate::commands::{Workdir, outlive_terminal, runtime, stop_on_signal};
use crate::expectations::{self, Form};
use crate::failure::Failure;
use crate::report::{ReportFile, table};
use crate::terminal::Display;

/// What containers leave free of a large disk, if nothing else is said.
const KEPT_FREE: u64 = 1 << 30;

/// Run the configured models for an analysis time, or the tasks of a plan.
///
/// What is published is not done again: after a kill or a fault the same command goes on.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The time the forecasts start from, UTC: `2025-09-22T12:00Z`.
    #[arg(long, value_name = "TIME", required_unless_present = "plan")]
    analysis_time: Option<AnalysisTime>,
    /// Carry out a plan that `mlwm plan` printed, or part of it.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["analysis_time", "to", "every", "models", "members", "forecast_duration"]
    )]
    plan: Option<PathBuf>,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    workdir: Workdir,
    /// Processors that containers may use in all [default: those of this machine].
    #[arg(long, value_name = "N")]
    cpus: Option<f64>,
    /// Memory that containers may use in all, such as 64GiB [default: that of this machine].
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Space that tasks may use in the working folder, as far as their `resources` say what they need
    /// [default: what is free there, but for --keep-free].
    #[arg(long, value_name = "SIZE", visible_alias = "scratch-budget")]
    disk: Option<ByteSize>,
    /// Space that stays free on the disk of the working folder: a container is killed before it takes
    /// that [default: 1GiB, or 5 % of a smaller disk].
    #[arg(long, value_name = "SIZE")]
    keep_free: Option<ByteSize>,
    /// Keep what failed tasks wrote in `failed` in the working folder, to be looked at: so much of it, beside
    /// --disk; what was kept longest goes first [default: none].
    #[arg(long, value_name = "SIZE")]
    keep_failed: Option<ByteSize>,
    /// Containers that may run at once, as far as their `resources` fit [default: one for each
    /// processor].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Begin only if the credentials for S3 last so long, where their end is known: `PT6H`.
    #[arg(long, value_name = "PERIOD")]
    credentials_for: Option<Period>,
    /// Withdraw what other tasks published in the places of these, and publish anew; what was there
    /// stays on record.
    #[arg(long)]
    republish: bool,
    /// Write how it went to this file as JSON (docs/report-format.md).
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    report: Option<PathBuf>,
    /// Say what each task cost, by this table of prices in YAML (docs/report-format.md).
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Print the plan as JSON and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: also say on standard error what it may be expected to come to.
    #[arg(long, value_name = "FORM", requires = "dry_run", num_args = 0..=1, require_equals = true, default_missing_value = "table")]
    expect: Option<Form>,
    /// Print what happens as JSON, one event a line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: Arguments) -> Outcome {
    // What would be wrong at the end is said before anything begins.
    let prices = arguments.prices.as_deref().map(prices).transpose()?;
    let file = arguments.report.as_deref().map(ReportFile::at);
    let file = file.transpose()?;
    let planned = match (&arguments.plan, arguments.analysis_time) {
        (Some(file), _) => Planned {
            plan: read(file)?,
            code: ExitCode::Ok,
        },
        (None, Some(time)) => arguments.wanted.plan(time)?,
        (None, None) => {
            let message = "give --analysis-time or --plan".to_owned();
            return Err(Failure::new(ExitCode::Usage, message));
        }
    };
    if arguments.dry_run {
        print(&planned.plan)?;
        if let Some(form) = arguments.expect {
            expectations::print(&planned.plan, &arguments.workdir, form)?;
        }
        return Ok(planned.code);
    }
    let receipts = Artifacts::receipts(arguments.wanted.paranoid);
    let options = RunOptions {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        unpacked: Unpacked::open_default(receipts)?,
        budget: budget(&arguments)?,
        republish: arguments.republish,
        keep_failed: arguments.keep_failed.map_or(0, |size| size.0),
        credentials_for: arguments.credentials_for,
        prices,
        workdir: arguments.workdir.workdir,
    };
    let display = Display::choose(arguments.json);
    let mut report = runtime()?.block_on(async {
        let cancel = CancellationToken::new();
        outlive_terminal()?;
        stop_on_signal(
            &cancel,
            "stopping: containers get 10 s; a second signal ends mlwm at once",
        )?;
        let tell: Tell = Arc::new(move |event| display.tell(&event));
        Ok::<_, Failure>(mlwm_cycles::run(&planned.plan, &options, &tell, &cancel).await?)
    })?;
    report.exit_code = report.exit_code.max(planned.code);
    if !arguments.json && !report.tasks.is_empty() {
        say!("{}", table(&report));
    }
    if let Some(file) = file {
        file.write(&report)?;
    }
    Ok(report.exit_code)
}

fn prices(file: &Path) -> Result<Prices, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::local("read the prices", file, &error))?;
    Ok(Prices::parse(&text, &file.display().to_string())?)
}

fn read(file: &Path) -> Result<Plan, Failure> {
    let opened = File::open(file).map_err(|error| Failure::local("read the plan", file, &error))?;
    Ok(Plan::read(
        BufReader::new(opened),
        &file.display().to_string(),
    )?)
}

/// What this machine has for tasks that are done in a folder.
pub(crate) fn budget_of_machine(workdir: &Path) -> Budget {
    // The folder may have to be made yet.
    let there = workdir.ancestors().find(|folder| folder.is_dir());
    let there = there.unwrap_or(Path::new("."));
    let (disk, all) = rustix::fs::statvfs(there).map_or((u64::MAX, u64::MAX), |found| {
        (
            found.f_bavail * found.f_frsize,
            found.f_blocks * found.f_frsize,
        )
    });
    let reserve = KEPT_FREE.min(all / 20);
    let memory = rustix::system::sysinfo();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Budget {
        cpus: cpus as f64,
        memory: u64::from(memory.mem_unit).saturating_mul(memory.totalram),
        disk: disk.saturating_sub(reserve),
        is_disk_bound: false,
        reserve,
        containers: cpus,
    }
}

fn budget(arguments: &Arguments) -> Result<Budget, Failure> {
    let machine = budget_of_machine(&arguments.workdir.workdir);
    if let Some(cpus) = arguments
        .cpus
        .filter(|cpus| !(cpus.is_finite() && *cpus > 0.0))
    {
        let message = format!("--cpus {cpus} is not a positive number");
        return Err(Failure::new(ExitCode::Usage, message));
    }
    let free = machine.disk.saturating_add(machine.reserve);
    let reserve = arguments.keep_free.map_or(machine.reserve, |size| size.0);
    Ok(Budget {
        cpus: arguments.cpus.unwrap_or(machine.cpus),
        memory: arguments.memory.map_or(machine.memory, |memory| memory.0),
        disk: arguments
            .disk
            .map_or(free.saturating_sub(reserve), |disk| disk.0),
        is_disk_bound: arguments.disk.is_some(),
        reserve,
        containers: arguments
            .jobs
            .map_or(machine.containers, |jobs| jobs as usize),
    })
}
