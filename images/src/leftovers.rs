//! What processes that were killed have left in a folder that several share.
//!
//! Whoever writes something there under a name of its own holds a lock on it until it gets its name.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

/// Between making something and locking it, nobody waits that long.
const FRESH: Duration = Duration::from_secs(60);

/// Removes files and folders whose names begin with `prefix`, if nobody writes to them.
pub(crate) fn remove(folder: &Path, prefix: &str) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(prefix) && is_abandoned(&path) {
            // What cannot be removed is in nobody's way.
            let _ = match path.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
        }
    }
}

fn is_abandoned(path: &Path) -> bool {
    let age = |path| {
        fs::symlink_metadata(path)?
            .modified()?
            .elapsed()
            .map_err(std::io::Error::other)
    };
    let is_old = age(path).is_ok_and(|age: Duration| age >= FRESH);
    is_old && File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_folder_goes_when_it_is_old_and_nobody_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let made = |name: &str, age| {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("file"), "content").unwrap();
            let opened = File::open(&path).unwrap();
            opened.set_modified(SystemTime::now() - age).unwrap();
            (path, opened)
        };
        let (old, _) = made(".saving-old", 2 * FRESH);
        let (fresh, _) = made(".saving-fresh", Duration::ZERO);
        let (other, _) = made("other", 2 * FRESH);
        let (held, lock) = made(".saving-held", 2 * FRESH);
        lock.lock().unwrap();
        remove(folder.path(), ".saving-");
        assert!(!old.exists() && fresh.exists() && other.exists() && held.exists());
        drop(lock);
        remove(folder.path(), ".saving-");
        assert!(!held.exists());
        remove(&folder.path().join("none"), ".saving-");
    }
}
