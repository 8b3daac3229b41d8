//! The working folder: staged inputs, outputs before publication, logs, claims, the ledger. Several
//! mlwm may share it: what is of one task is used by who holds its claim.
//!
//! ```text
//! <workdir>/ledger.sqlite
//! <workdir>/claims/…
//! <workdir>/tasks/<configuration>/<analysis time>/member<m>/input/<input>    mounted read-only
//! <workdir>/tasks/<configuration>/<analysis time>/member<m>/output/<output>  written by the container
//! <workdir>/tasks/<configuration>/<analysis time>/member<m>/complete.json    the output is complete
//! <workdir>/log/<configuration>/<analysis time>_member<m>.<attempt>.log
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::plan::PlannedTask;

/// A working folder.
#[derive(Debug)]
pub(crate) struct Scratch {
    root: PathBuf,
}

impl Scratch {
    /// The folder, created if need be.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let failed = |source| failed(root, source);
        fs::create_dir_all(root).map_err(failed)?;
        let root = fs::canonicalize(root).map_err(failed)?;
        Ok(Self { root })
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the claims lie.
    pub(crate) fn claims(&self) -> PathBuf {
        self.root.join("claims")
    }

    fn task(&self, task: &PlannedTask) -> PathBuf {
        self.root
            .join("tasks")
            .join(&task.configuration)
            .join(task.analysis_time.path_text())
            .join(format!("member{}", task.member))
    }

    /// Where an input is staged.
    pub(crate) fn input(&self, task: &PlannedTask, name: &str) -> PathBuf {
        self.task(task).join("input").join(name)
    }

    /// Where an output is written.
    pub(crate) fn output(&self, task: &PlannedTask, name: &str) -> PathBuf {
        self.task(task).join("output").join(name)
    }

    /// Where it is noted that the outputs are complete.
    pub(crate) fn complete(&self, task: &PlannedTask) -> PathBuf {
        self.task(task).join("complete.json")
    }

    /// Where the log of a container is kept.
    pub(crate) fn log(&self, task: &PlannedTask, attempt: u32) -> PathBuf {
        let time = task.analysis_time.path_text();
        let file = format!("{time}_member{}.{attempt}.log", task.member);
        self.root.join("log").join(&task.configuration).join(file)
    }

    /// Removes all of a task but its log.
    pub(crate) fn clear(&self, task: &PlannedTask) -> Result<(), Error> {
        let folder = self.task(task);
        remove(&folder)?;
        // Those above it, as far as no other task has something there.
        for empty in folder.ancestors().skip(1).take(2) {
            let _ = fs::remove_dir(empty);
        }
        Ok(())
    }

    /// Removes the outputs of a task, and what says that they are complete.
    pub(crate) fn clear_outputs(&self, task: &PlannedTask) -> Result<(), Error> {
        let complete = self.complete(task);
        match fs::remove_file(&complete) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&complete, source));
            }
            _ => {}
        }
        remove(&self.task(task).join("output"))
    }

    /// Removes the inputs of a task that are complete; what is being staged goes on.
    pub(crate) fn clear_inputs(&self, task: &PlannedTask) -> Result<(), Error> {
        for input in &task.inputs {
            remove(&self.input(task, &input.name))?;
        }
        Ok(())
    }
}

/// Creates a folder and those above it.
pub(crate) fn create(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| failed(path, source))
}

fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed(folder, source)),
        _ => Ok(()),
    }
}

pub(crate) fn failed(path: &Path, source: io::Error) -> Error {
    Error::Scratch {
        path: path.to_owned(),
        source,
    }
}
