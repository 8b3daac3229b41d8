//! The working folder: staged inputs, outputs before publication, logs, claims, the ledger. Several
//! mlwm may share it: what is of one task is used by who holds its claim.
//!
//! The `/` in the name of a step is `@` in that of a folder.
//!
//! ```text
//! <workdir>/ledger.sqlite
//! <workdir>/claims/…
//! <workdir>/tasks/<configuration>/<analysis time>/member<m>/input/<input>    mounted read-only
//! <workdir>/tasks/<configuration>/<analysis time>/member<m>/raw/<input>      staged, to be converted
//! <workdir>/tasks/<configuration>/<analysis time>/member<m>/convert/<input>  written by a converter
//! <workdir>/tasks/<configuration>/<analysis time>/member<m>/output/<output>  written by the container
//! <workdir>/tasks/<configuration>/<analysis time>/member<m>/windows/<output>/<window>  taken, until their store has them
//! <workdir>/tasks/<configuration>/<analysis time>/member<m>/complete.json    the output is complete
//! <workdir>/tasks/<configuration>/<analysis time>/member<m>/sent/<output>    what of it its store has
//! <workdir>/tasks/<configuration>/<analysis time>/ensemble/                  products of the members
//! <workdir>/warm/<configuration>/<analysis time>/<random>/in, out            of a container that serves several members
//! <workdir>/failed/<configuration>/<analysis time>_member<m>/…              what failed tasks wrote, if it is kept
//! <workdir>/log/<configuration>/<analysis time>_member<m>.<attempt>.log
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mlwm_storage::points::reach_half_removed;

use crate::Error;
use crate::plan::{PlannedEnsemble, PlannedTask};

/// What stands in the name of a step's folders for the `/` of its own.
const SLASH: &str = "@";

/// What the names of folders begin with whose content is to be removed.
const GONE: &str = ".gone";

/// The name of a configuration, or of one of its steps, as that of one folder.
pub(crate) fn folder_name(configuration: &str) -> String {
    configuration.replace('/', SLASH)
}

/// A working folder.
#[derive(Debug)]
pub(crate) struct Scratch {
    root: PathBuf,
}

impl Scratch {
    /// The folder, created if need be.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let failed = |source| failed(root, source);
        mlwm_storage::create_folders(root).map_err(failed)?;
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

    /// Where the folders of warm containers lie.
    pub(crate) fn warm_root(&self) -> PathBuf {
        self.root.join("warm")
    }

    /// Where those of the containers that could serve a task lie.
    pub(crate) fn warm(&self, task: &PlannedTask) -> PathBuf {
        self.warm_root()
            .join(folder_name(&task.configuration))
            .join(task.analysis_time.path_text())
    }

    fn task(&self, task: &PlannedTask) -> PathBuf {
        self.root
            .join("tasks")
            .join(folder_name(&task.configuration))
            .join(task.analysis_time.path_text())
            .join(format!("member{}", task.member))
    }

    /// Where what is published of the members together is made.
    pub(crate) fn ensemble(&self, ensemble: &PlannedEnsemble) -> PathBuf {
        self.root
            .join("tasks")
            .join(folder_name(&ensemble.configuration))
            .join(ensemble.analysis_time.path_text())
            .join("ensemble")
    }

    /// Where an input is staged that is converted.
    pub(crate) fn raw(&self, task: &PlannedTask, name: &str) -> PathBuf {
        self.task(task).join("raw").join(name)
    }

    /// Where the converter of an input writes.
    pub(crate) fn convert(&self, task: &PlannedTask, name: &str) -> PathBuf {
        self.task(task).join("convert").join(name)
    }

    /// Where an input lies that the model reads.
    pub(crate) fn input(&self, task: &PlannedTask, name: &str) -> PathBuf {
        self.task(task).join("input").join(name)
    }

    /// Where an output is written.
    pub(crate) fn output(&self, task: &PlannedTask, name: &str) -> PathBuf {
        self.outputs(task).join(name)
    }

    /// Where all outputs are written.
    pub(crate) fn outputs(&self, task: &PlannedTask) -> PathBuf {
        self.task(task).join("output")
    }

    /// Where the windows lie that were taken from the container.
    pub(crate) fn windows(&self, task: &PlannedTask) -> PathBuf {
        self.task(task).join("windows")
    }

    /// Where it is noted that the outputs are complete.
    pub(crate) fn complete(&self, task: &PlannedTask) -> PathBuf {
        self.task(task).join("complete.json")
    }

    /// Where it is noted what a store has taken of an output.
    pub(crate) fn sent(&self, task: &PlannedTask, name: &str) -> PathBuf {
        self.task(task).join("sent").join(name)
    }

    /// Where what failed tasks wrote is kept.
    pub(crate) fn all_failed(&self) -> PathBuf {
        self.root.join("failed")
    }

    /// Where what a task wrote is kept, if it failed.
    pub(crate) fn failed(&self, task: &PlannedTask) -> PathBuf {
        let time = task.analysis_time.path_text();
        self.all_failed()
            .join(folder_name(&task.configuration))
            .join(format!("{time}_member{}", task.member))
    }

    /// Where the log of a container is kept.
    pub(crate) fn log(&self, task: &PlannedTask, attempt: u32) -> PathBuf {
        let time = task.analysis_time.path_text();
        let file = format!("{time}_member{}.{attempt}.log", task.member);
        self.root
            .join("log")
            .join(folder_name(&task.configuration))
            .join(file)
    }

    /// Removes all of a task but its log.
    pub(crate) fn clear(&self, task: &PlannedTask) -> Result<(), Error> {
        clear(&self.task(task))
    }

    /// Removes all of an ensemble.
    pub(crate) fn clear_ensemble(&self, ensemble: &PlannedEnsemble) -> Result<(), Error> {
        clear(&self.ensemble(ensemble))
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
        remove(&self.windows(task))?;
        remove(&self.outputs(task))
    }

    /// Removes the inputs of a task that are complete, and what is left of those that were read; what is being staged
    /// goes on.
    pub(crate) fn clear_inputs(&self, task: &PlannedTask) -> Result<(), Error> {
        remove_gone(&self.task(task).join("input"))?;
        for input in &task.inputs {
            remove(&self.input(task, &input.name))?;
            if input.convert.is_some() {
                remove(&self.raw(task, &input.name))?;
                remove(&self.convert(task, &input.name))?;
            }
        }
        Ok(())
    }
}

/// Removes a folder of the tasks' folder, and those above it as far as no other task has something there.
fn clear(folder: &Path) -> Result<(), Error> {
    reach_half_removed("task: half removed", folder);
    remove(folder)?;
    for empty in folder.ancestors().skip(1).take(2) {
        let _ = fs::remove_dir(empty);
    }
    Ok(())
}

/// Creates a folder and those above it.
pub(crate) fn create(path: &Path) -> Result<(), Error> {
    mlwm_storage::create_folders(path).map_err(|source| failed(path, source))
}

/// Removes a folder and all that is in it, or a file, if it is there.
pub(crate) fn remove(folder: &Path) -> Result<(), Error> {
    let removed = match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(folder),
        Err(error) if error.kind() != io::ErrorKind::NotFound => dismantle(folder),
        _ => Ok(()),
    };
    removed.map_err(|source| failed(folder, source))
}

/// Moves a file or folder into a new folder beside it, and says which that is.
pub(crate) fn rename_aside(path: &Path) -> Result<PathBuf, Error> {
    let beside = path.parent().unwrap_or(path);
    let made = tempfile::Builder::new().prefix(GONE).tempdir_in(beside);
    let gone = made.map_err(|source| failed(beside, source))?.keep();
    fs::rename(path, gone.join("it")).map_err(|source| failed(path, source))?;
    Ok(gone)
}

/// Removes what was moved aside in a folder, and stayed when its mlwm was killed.
fn remove_gone(beside: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(beside).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(GONE) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a folder that a container made hard to remove: with folders that nobody may read or write,
/// or nested deeper than a process may have files open, or than a path is long. Every folder below is
/// made usable and moved up, until there is nothing below it.
fn dismantle(root: &Path) -> io::Result<()> {
    let usable = |folder: &Path| fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    usable(root)?;
    // A name that nothing in there has.
    let name = tempfile::Builder::new().tempdir_in(root)?.keep();
    fs::remove_dir(&name)?;
    let mut moved = 0_u64;
    loop {
        let mut empty = true;
        for entry in fs::read_dir(root)? {
            empty = false;
            let entry = entry?;
            let path = entry.path();
            if !entry.file_type()?.is_dir() {
                fs::remove_file(&path)?;
                continue;
            }
            usable(&path)?;
            for inner in fs::read_dir(&path)? {
                let inner = inner?;
                if inner.file_type()?.is_dir() {
                    usable(&inner.path())?;
                    moved += 1;
                    fs::rename(inner.path(), name.with_extension(moved.to_string()))?;
                } else {
                    fs::remove_file(inner.path())?;
                }
            }
            fs::remove_dir(&path)?;
        }
        if empty {
            return fs::remove_dir(root);
        }
    }
}

pub(crate) fn failed(path: &Path, source: io::Error) -> Error {
    Error::Scratch {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{Mode, OFlags, mkdirat, open, openat};

    use super::*;

    #[test]
    fn what_was_moved_aside_and_stayed_is_removed_and_nothing_else() {
        let site = tempfile::tempdir().unwrap();
        let input = site.path().join("input");
        remove_gone(&input).unwrap();
        for name in ["surface", "pressure", ".pressure.mlwm-staging"] {
            fs::create_dir_all(input.join(name)).unwrap();
            fs::write(input.join(name).join("values"), "").unwrap();
        }
        let gone = rename_aside(&input.join("surface")).unwrap();
        assert!(gone.join("it/values").is_file());
        remove_gone(&input).unwrap();
        assert!(!gone.exists());
        for name in ["pressure", ".pressure.mlwm-staging"] {
            assert!(input.join(name).join("values").is_file());
        }
    }

    #[test]
    fn folders_that_are_closed_and_deep_are_removed() {
        let site = tempfile::tempdir().unwrap();
        let kept = site.path().join("kept");
        fs::write(&kept, "").unwrap();
        let root = site.path().join("root");
        fs::create_dir(&root).unwrap();
        symlink(&kept, root.join("link")).unwrap();
        for branch in ["a", "b"] {
            let branch = root.join(branch);
            fs::create_dir(&branch).unwrap();
            let mut folder = open(&branch, OFlags::DIRECTORY, Mode::empty()).unwrap();
            // Longer than a path may be.
            for _ in 0..3000 {
                mkdirat(&folder, "deeper", Mode::RWXU).unwrap();
                folder = openat(&folder, "deeper", OFlags::DIRECTORY, Mode::empty()).unwrap();
            }
            fs::write(branch.join("deeper/file"), "").unwrap();
            symlink(site.path(), branch.join("deeper/link")).unwrap();
            let closed = fs::Permissions::from_mode(0o000);
            fs::set_permissions(branch.join("deeper/deeper"), closed).unwrap();
        }
        dismantle(&root).unwrap();
        assert!(!root.exists() && kept.exists());
    }
}
