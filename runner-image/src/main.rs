//! `mlwm-runner`: the entry point of a model's container.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mlwm_runner::{RunnerError, Task, find_library, run, serve};
use mlwm_spec::contract::ARTIFACT_DIR;

const USAGE: &str = "usage: mlwm-runner [--artifact FOLDER]\n\
    Everything else is in the environment: see docs/container-contract.md.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let artifact = match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [] => PathBuf::from(ARTIFACT_DIR),
        ["--artifact", folder] => PathBuf::from(folder),
        ["--version"] => {
            println!("mlwm-runner {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return mlwm_spec::ExitCode::Usage.into();
        }
    };
    match run_task(&artifact) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code().into()
        }
    }
}

fn run_task(artifact: &Path) -> Result<(), RunnerError> {
    let has_gpu = Path::new("/dev/nvidiactl").exists() || Path::new("/dev/dxg").exists();
    let task = Task::read(|name| std::env::var(name).ok(), has_gpu)?;
    let library = find_library(std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from))?;
    let log = |line: &str| println!("{line}");
    match &task.stream {
        Some(stream) => serve(stream, &task, artifact, &library, &log),
        None => {
            let timing = run(&task, artifact, &library, &log)?;
            println!("{}", timing.line());
            Ok(())
        }
    }
}
