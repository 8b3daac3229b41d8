//! Where what a test program makes once is kept: static values are never dropped, so that what lies
//! in their folders would stay for ever. The next program removes what the programs before it left.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use tempfile::TempDir;

/// A new folder below the one of this test program.
pub fn folder() -> TempDir {
    static OF_THIS_PROCESS: LazyLock<PathBuf> = LazyLock::new(|| {
        let all = std::env::temp_dir().join("mlwm-tests");
        fs::create_dir_all(&all).unwrap();
        for left in fs::read_dir(&all).unwrap().flatten() {
            let process = Path::new("/proc").join(left.file_name());
            if !process.exists() {
                // Another program may be removing it, too.
                let _ = fs::remove_dir_all(left.path());
            }
        }
        let own = all.join(std::process::id().to_string());
        fs::create_dir_all(&own).unwrap();
        own
    });
    tempfile::tempdir_in(&*OF_THIS_PROCESS).unwrap()
}
