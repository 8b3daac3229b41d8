//! `mlwm logs`: what the container of a task printed.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use clap::Args;
use mlwm_ledger::{AttemptRecord, Ledger, State, TaskName};
use mlwm_spec::{AnalysisTime, ExitCode};

use super::status::{at, ledger};
use crate::Outcome;
use crate::commands::Workdir;
use crate::failure::Failure;

/// Between two looks at a log that is followed.
const LOOK: Duration = Duration::from_millis(250);

/// Print the log of a task's container.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm logs --analysis-time 2025-09-22T12:00Z --model gefion-1 -f"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    workdir: Workdir,
    /// The cycle.
    #[arg(long, value_name = "TIME")]
    analysis_time: AnalysisTime,
    /// The configuration; may be left out if the cycle has only one.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Ensemble member.
    #[arg(long, default_value_t = 0)]
    member: u32,
    /// Which attempt: 1 is the first [default: the newest].
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// Go on as long as the attempt runs.
    #[arg(long, short)]
    follow: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let ledger = ledger(&arguments.workdir)?;
    let task = task(arguments, &ledger)?;
    let attempt = attempt(arguments, &ledger, &task)?;
    note!(
        "attempt {} of {} {} member {}: {}, begun {}",
        attempt.number,
        task.configuration,
        task.analysis_time,
        task.member,
        attempt.state,
        at(attempt.started)
    );
    print(arguments, &ledger, &task, attempt)?;
    Ok(ExitCode::Ok)
}

fn task(arguments: &Arguments, ledger: &Ledger) -> Result<TaskName, Failure> {
    let time = arguments.analysis_time;
    let tasks = ledger.tasks(time)?;
    let mut names: Vec<&str> = tasks
        .iter()
        .map(|(task, _)| task.configuration.as_str())
        .collect();
    names.dedup();
    let configuration = match (&arguments.model, &names[..]) {
        (Some(model), _) => model.as_str(),
        (None, [only]) => only,
        (None, _) => {
            let message = match names.is_empty() {
                true => {
                    format!("the ledger has no cycle of {time}: `mlwm status` shows those it has")
                }
                false => format!(
                    "the cycle of {time} has several models: give --model ({})",
                    names.join(", ")
                ),
            };
            return Err(Failure::new(ExitCode::Usage, message));
        }
    };
    Ok(TaskName {
        configuration: configuration.to_owned(),
        analysis_time: time,
        member: arguments.member,
    })
}

fn attempt(
    arguments: &Arguments,
    ledger: &Ledger,
    task: &TaskName,
) -> Result<AttemptRecord, Failure> {
    let mut attempts = ledger.attempts(task)?;
    let wanted = match arguments.attempt {
        Some(number) => attempts.iter().position(|attempt| attempt.number == number),
        None => attempts.len().checked_sub(1),
    };
    wanted.map(|index| attempts.swap_remove(index)).ok_or_else(|| {
        let message = format!(
            "the ledger has no such attempt at {} {} member {}: `mlwm status --analysis-time {}` shows what it has",
            task.configuration, task.analysis_time, task.member, task.analysis_time
        );
        Failure::new(ExitCode::InputMissing, message)
    })
}

/// Prints the log; of one that is followed, what comes to it until its attempt has ended.
fn print(
    arguments: &Arguments,
    ledger: &Ledger,
    task: &TaskName,
    mut attempt: AttemptRecord,
) -> Result<(), Failure> {
    let mut file = None;
    loop {
        // Looked at before reading: what was printed before the end is read after it.
        let running = arguments.follow && attempt.state == State::Running;
        if file.is_none() {
            file = open(&attempt)?;
        }
        if let Some(file) = &mut file
            && !copy(file)?
        {
            return Ok(());
        }
        if !running {
            break;
        }
        std::thread::sleep(LOOK);
        let mut again = ledger.attempts(task)?.into_iter();
        attempt = again
            .find(|again| again.number == attempt.number)
            .unwrap_or(attempt);
    }
    match file {
        Some(_) => Ok(()),
        None => {
            let why = attempt
                .error
                .unwrap_or_else(|| "no container was started".to_owned());
            let message = format!("attempt {} has no log: {why}", attempt.number);
            Err(Failure::new(ExitCode::InputMissing, message))
        }
    }
}

fn open(attempt: &AttemptRecord) -> Result<Option<File>, Failure> {
    let Some(path) = &attempt.log else {
        return Ok(None);
    };
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(
            ExitCode::StorageFailed,
            format!("cannot read the log {path}: {error}"),
        )),
    }
}

/// Copies what is new in a log; `false` if nobody reads it any more.
fn copy(file: &mut File) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut piece).map_err(|error| {
            Failure::new(
                ExitCode::StorageFailed,
                format!("cannot read a log: {error}"),
            )
        })?;
        if read == 0 {
            return Ok(out.flush().is_ok());
        }
        if out.write_all(&piece[..read]).is_err() {
            return Ok(false);
        }
    }
}
