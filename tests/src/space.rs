//! What a run takes of the disk, seen from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use crate::site::{Ran, Site, ran};

/// Bytes of what is staged and written in the working folder of a site, each file once, however many names it
/// has.
pub fn taken(site: &Site) -> u64 {
    let mut found = BTreeMap::new();
    for folder in ["tasks", "warm"] {
        files(&site.path("mlwm-work").join(folder), &mut found);
    }
    found.values().sum()
}

/// Waits until a run has ended; also the most that it took, looked at every 5 ms.
pub fn most_taken(site: &Site, mut run: Child) -> (Ran, u64) {
    let mut most = 0;
    while run.try_wait().unwrap().is_none() {
        most = most.max(taken(site));
        std::thread::sleep(Duration::from_millis(5));
    }
    (ran(&run.wait_with_output().unwrap()), most)
}

fn files(folder: &Path, found: &mut BTreeMap<u64, u64>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(file) if file.is_dir() => files(&entry.path(), found),
            Ok(file) => drop(found.insert(file.ino(), file.len())),
            // Removed in the meantime.
            Err(_) => {}
        }
    }
}
