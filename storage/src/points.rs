//! Places at which tests kill this process.
//!
//! Built with the feature `kill-points`, a process ends itself, as abruptly as SIGKILL would, when it reaches such a
//! place for the time that `MLWM_KILL_AT` says (1 is the first), and appends the name of each that it
//! reaches to the file `MLWM_KILL_LIST`. Without the feature they are nothing.

/// A place at which a test may kill this process.
#[cfg(feature = "kill-points")]
pub fn reach(name: &str) {
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
    let wanted = std::env::var("MLWM_KILL_AT").ok();
    if wanted.and_then(|wanted| wanted.parse().ok()) == Some(reached) {
        // As abrupt as SIGKILL: nothing is dropped, flushed or told.
        std::process::abort();
    }
}

/// A place at which a test may kill this process.
#[cfg(not(feature = "kill-points"))]
#[inline]
pub fn reach(_name: &str) {}
