// What is tried on bytes of any origin: by the fuzzer, and by a property test of the crate.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use mlwm_artifacts::{Artifact, Inspection};

/// Opens, reads, verifies and unpacks the bytes as an artifact. Whatever they are, nothing panics,
/// and nothing appears outside the folder they are unpacked to and the workplace beside it. Gives whether they verify.
pub(crate) fn open(bytes: &[u8]) -> bool {
    let Ok(artifact) = Artifact::from_source(Arc::new(bytes.to_vec()), "fuzzed.zip") else {
        return false;
    };
    let _ = Inspection::of(&artifact);
    let scratch = tempfile::tempdir().expect("a folder to unpack to");
    let target = scratch.path().join("target");
    let unpacked = artifact.extract_to(&target);
    let beside = fs::read_dir(scratch.path()).expect("the folder above the target");
    for entry in beside {
        let name = entry.expect("an entry").file_name();
        assert!(
            name == "target" || name == ".target.extracting",
            "unpacked beside the target"
        );
    }
    assert_only_plain_files(&target);
    let verified = artifact.verify().is_ok();
    assert!(
        !verified || unpacked.is_ok(),
        "it verifies but cannot be unpacked"
    );
    verified
}

fn assert_only_plain_files(folder: &Path) {
    // Nothing may have been unpacked at all.
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("the kind of a file");
        assert!(kind.is_dir() || kind.is_file(), "{:?}", entry.path());
        if kind.is_dir() {
            assert_only_plain_files(&entry.path());
        }
    }
}
