//! What failed tasks wrote, kept to be looked at: never with what is published, and no more than so many bytes.
//!
//! ```text
//! <workdir>/failed/<configuration>/<analysis time>_member<m>/output/<output>            written by the container
//! <workdir>/failed/<configuration>/<analysis time>_member<m>/windows/<output>/<window>  taken, and not sent
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mlwm_spec::bytes::ByteSize;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::disk::allocated;
use crate::plan::PlannedTask;
use crate::scratch::{Scratch, create, failed, remove};

/// Moves what an attempt wrote out of the folder of its task, in place of what an earlier one did. What was kept
/// longest goes to make room. What became of it, for the report; nothing if nothing was written.
///
/// # Errors
/// If it cannot be moved, or what makes room not be removed.
pub(crate) fn keep(
    scratch: &Scratch,
    planned: &PlannedTask,
    quota: u64,
) -> Result<Option<String>, Error> {
    let parts = [scratch.outputs(planned), scratch.windows(planned)];
    if !has_files(parts.to_vec()) {
        return Ok(None);
    }
    let bytes = bytes(parts.to_vec());
    if bytes > quota {
        return Ok(Some(format!(
            "what it wrote was removed: {} are more than `--keep-failed` of {}",
            ByteSize(bytes),
            ByteSize(quota)
        )));
    }
    let kept = scratch.failed(planned);
    remove(&kept)?;
    make_room(&scratch.all_failed(), quota - bytes)?;
    create(&kept)?;
    for part in parts.iter().filter(|part| part.is_dir()) {
        let to = kept.join(part.file_name().unwrap_or_default());
        fs::rename(part, &to).map_err(|source| failed(&to, source))?;
    }
    Ok(Some(format!("what it wrote is kept in {}", kept.display())))
}

/// Removes what was kept longest until no more than so many bytes are left.
fn make_room(all: &Path, bytes_left: u64) -> Result<(), Error> {
    let mut kept: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
    for configuration in entries(all)? {
        for task in entries(&configuration)? {
            let changed = fs::metadata(&task).and_then(|found| found.modified());
            let changed = changed.unwrap_or(SystemTime::UNIX_EPOCH);
            let bytes = bytes(vec![task.clone()]);
            kept.push((changed, task, bytes));
        }
    }
    kept.sort();
    let mut held: u64 = kept.iter().map(|(_, _, bytes)| bytes).sum();
    for (_, task, bytes) in kept {
        if held <= bytes_left {
            break;
        }
        remove(&task)?;
        held -= bytes;
    }
    Ok(())
}

/// Whether there is anything but folders.
fn has_files(mut folders: Vec<PathBuf>) -> bool {
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => return true,
            }
        }
    }
    false
}

fn bytes(folders: Vec<PathBuf>) -> u64 {
    allocated(folders, &CancellationToken::new())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = match fs::read_dir(folder) {
        // A file that somebody put there is not ours.
        Err(source)
            if matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        read => read,
    };
    let entries = read.and_then(|entries| {
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths.collect::<Result<_, _>>()
    });
    entries.map_err(|source| failed(folder, source))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_kept_longest_makes_room() {
        let all = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for (task, age) in [("a/old", 300), ("b/older", 400), ("b/new", 10)] {
            let folder = all.path().join(task);
            create(&folder.join("output")).unwrap();
            fs::write(folder.join("output/values"), vec![1; 1 << 20]).unwrap();
            let age = now - Duration::from_secs(age);
            fs::File::open(&folder).unwrap().set_modified(age).unwrap();
        }
        let there = || {
            let mut tasks = Vec::new();
            for configuration in entries(all.path()).unwrap() {
                tasks.extend(entries(&configuration).unwrap());
            }
            tasks.sort();
            let relative = tasks.iter().map(|task| task.strip_prefix(all.path()));
            let names = relative.map(|task| task.unwrap().display().to_string());
            names.collect::<Vec<_>>()
        };
        make_room(all.path(), 4 << 20).unwrap();
        assert_eq!(there(), ["a/old", "b/new", "b/older"]);
        make_room(all.path(), 2 << 20).unwrap();
        assert_eq!(there(), ["b/new"], "each takes more than its file");
        make_room(all.path(), 0).unwrap();
        assert_eq!(there(), [""; 0]);
        make_room(&all.path().join("none"), 0).unwrap();
    }
}
