//! The working folder: staged inputs, outputs before publication, logs.
//!
//! ```text
//! <workdir>/input/<configuration>/<input>      staged, mounted read-only
//! <workdir>/output/<configuration>/<output>    written by the container
//! <workdir>/log/<configuration>/<analysis time>_member<member>.log
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::plan::PlannedTask;

/// A working folder that this process has to itself.
#[derive(Debug)]
pub(crate) struct Scratch {
    root: PathBuf,
    /// The lock is held as long as the file is open.
    _lock: File,
}

impl Scratch {
    /// Takes the folder, creating it if need be.
    pub(crate) fn take(root: &Path) -> Result<Self, Error> {
        let failed = |source| failed(root, source);
        fs::create_dir_all(root).map_err(failed)?;
        let root = fs::canonicalize(root).map_err(failed)?;
        let lock = File::create(root.join(".lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::WorkdirInUse(root)),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Where an input is staged.
    pub(crate) fn input(&self, task: &PlannedTask, name: &str) -> PathBuf {
        self.root.join("input").join(&task.configuration).join(name)
    }

    /// Where an output is written.
    pub(crate) fn output(&self, task: &PlannedTask, name: &str) -> PathBuf {
        self.root
            .join("output")
            .join(&task.configuration)
            .join(name)
    }

    /// Where the container's log is kept.
    pub(crate) fn log(&self, task: &PlannedTask) -> PathBuf {
        let file = format!(
            "{}_member{}.log",
            task.analysis_time.path_text(),
            task.member
        );
        self.root.join("log").join(&task.configuration).join(file)
    }

    /// Removes the inputs and outputs of a task: left by an earlier run, or no longer needed.
    pub(crate) fn clear(&self, task: &PlannedTask) -> Result<(), Error> {
        self.clear_inputs(task)?;
        self.remove("output", task)
    }

    /// Removes the inputs of a task alone.
    pub(crate) fn clear_inputs(&self, task: &PlannedTask) -> Result<(), Error> {
        self.remove("input", task)
    }

    fn remove(&self, kind: &str, task: &PlannedTask) -> Result<(), Error> {
        let path = self.root.join(kind).join(&task.configuration);
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed(&path, source)),
            _ => Ok(()),
        }
    }
}

/// Creates a folder and those above it.
pub(crate) fn create(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Scratch {
        path: path.to_owned(),
        source,
    }
}
