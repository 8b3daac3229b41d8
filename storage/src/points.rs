//! Places at which tests kill this process.
//!
//! Built with the feature `kill-points`, a process ends itself, as abruptly as SIGKILL would, when it reaches the place
//! that `MLWM_KILL_AT` says: `17` is the seventeenth of all, `window: sent` the first of that name. It appends the name of
//! each that it reaches to the file `MLWM_KILL_LIST`. Without the feature they are nothing.

use std::path::Path;

/// A place at which a test may kill this process.
#[cfg(feature = "kill-points")]
pub fn reach(name: &str) {
    if is_meant(name) {
        die();
    }
}

/// A place in the middle of the removal of a folder, which comes next: a process that is killed here leaves half of the
/// folder's files.
#[cfg(feature = "kill-points")]
pub fn reach_half_removed(name: &str, folder: &Path) {
    if is_meant(name) {
        let mut files = crate::tree::walk(folder, crate::tree::Gone::Left).unwrap_or_default();
        // Those that come last by name: what says of the others what they are is often among them.
        for file in files.split_off(files.len() / 2) {
            let _ = std::fs::remove_file(file.path);
        }
        die();
    }
}

/// As abrupt as SIGKILL: nothing is dropped, flushed or told.
#[cfg(feature = "kill-points")]
fn die() -> ! {
    std::process::abort()
}

/// Whether this process is to be killed at a place, which it has reached.
#[cfg(feature = "kill-points")]
fn is_meant(name: &str) -> bool {
    use std::io::Write;
    use std::sync::atomic::{AtomicU64, Ordering};

    static REACHED: AtomicU64 = AtomicU64::new(0);
    let reached = REACHED.fetch_add(1, Ordering::SeqCst) + 1;
    if let Some(list) = std::env::var_os("MLWM_KILL_LIST") {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(list);
        // One write, so that names of several threads are not mixed.
        let _ = file.and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()));
    }
    match std::env::var("MLWM_KILL_AT") {
        Ok(wanted) => match wanted.parse::<u64>() {
            Ok(number) => reached == number,
            Err(_) => name == wanted,
        },
        Err(_) => false,
    }
}

/// A place at which a test may kill this process.
#[cfg(not(feature = "kill-points"))]
#[inline]
pub fn reach(_name: &str) {}

/// A place in the middle of the removal of a folder.
#[cfg(not(feature = "kill-points"))]
#[inline]
pub fn reach_half_removed(_name: &str, _folder: &Path) {}
