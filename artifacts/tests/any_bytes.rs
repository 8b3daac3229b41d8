//! Bytes of any origin, through the function that the fuzzer calls.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[allow(dead_code, reason = "each test program uses its own part")]
mod common;
#[path = "../fuzz/entry.rs"]
mod entry;

use std::io::Write;
use std::sync::OnceLock;

use common::{case, request};
use mlwm_artifacts::prepare;
use proptest::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// An artifact of the case.
fn good() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut request = request(&case(), std::path::Path::new("unused"));
        (request.onnx, request.interface) = (None, None);
        let mut bytes = Vec::new();
        prepare(&request).unwrap().write_to(&mut bytes).unwrap();
        bytes
    })
}

/// A zip of another writer, with names and kinds that it does not mind.
fn other_zip(members: &[(String, Vec<u8>, u32, bool)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes, mode, packed) in members {
        let method = match packed {
            true => CompressionMethod::Deflated,
            false => CompressionMethod::Stored,
        };
        let options = SimpleFileOptions::default()
            .compression_method(method)
            .unix_permissions(*mode);
        // A name that this writer refuses is left out.
        if zip.start_file(name.as_str(), options).is_ok() {
            zip.write_all(bytes).unwrap();
        }
    }
    zip.finish().unwrap().into_inner()
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("artifact.yaml".to_owned()),
        Just("configs/config.yaml".to_owned()),
        Just("../outside".to_owned()),
        Just("/tmp/outside".to_owned()),
        Just("a/../../outside".to_owned()),
        "[aA]/[bB.]{1,2}",
        "[a-z./\\\\:é]{0,12}",
    ]
}

fn contents() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"artifact_name: small\n".to_vec()),
        Just(b"datastore: {kind: mdp, config_path: a.datastore.yaml}\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

#[test]
fn the_good_artifact_is_good() {
    assert!(entry::open(good()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(!entry::open(&bytes));
    }

    #[test]
    fn zips(members in proptest::collection::vec((names(), contents(), prop_oneof![Just(0o644_u32), Just(0o755)], any::<bool>()), 0..5)) {
        prop_assert!(!entry::open(&other_zip(&members)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn damaged_artifacts(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5), cut in prop::option::of(any::<prop::sample::Index>())) {
        let mut bytes = good().to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        prop_assert_eq!(entry::open(&bytes), bytes == good());
    }
}
