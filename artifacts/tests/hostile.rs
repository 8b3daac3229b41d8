//! Artifacts that are damaged, or made to deceive, are refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[allow(dead_code, reason = "each test program uses its own part")]
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use common::{case, python, request, succeeded};
use mlwm_artifacts::{Artifact, Error, FramingError, build};
use proptest::prelude::*;

/// The bytes of an artifact of the case, without the checkpoint to make it small.
fn good() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut request = request(&case(), folder.path());
        request.checkpoint = None;
        fs::read(build(&request).unwrap().path).unwrap()
    })
}

/// Opens and verifies; what it says if it refuses.
fn check(path: &Path) -> Result<(), Error> {
    Artifact::open(path)?.verify().map(|_| ())
}

fn check_bytes(bytes: &[u8]) -> Result<(), Error> {
    let artifact = Artifact::from_source(Arc::new(bytes.to_vec()), "artifact.zip")?;
    artifact.verify().map(|_| ())
}

fn flipped(bit: usize) -> Vec<u8> {
    let mut bytes = good().to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

/// Changes a good artifact with Python's zipfile: `z` is open for appending, `files` holds the
/// contents, `info` makes an entry.
fn changed_by_python(script: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("artifact.zip");
    fs::write(&path, good()).unwrap();
    let prelude = "import sys, zipfile, warnings; warnings.simplefilter('ignore')\n\
        path = sys.argv[1]\n\
        def info(name, mode=0o100644):\n\
        \x20   i = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)); i.external_attr = mode << 16; i.create_system = 3; return i\n\
        old = zipfile.ZipFile(path); files = {i.filename: old.read(i) for i in old.infolist()}; old.close()\n\
        def rewrite(files, method=zipfile.ZIP_STORED):\n\
        \x20   with zipfile.ZipFile(path, 'w', method) as z:\n\
        \x20       for n, d in files.items(): z.writestr(info(n), d, method)\n";
    succeeded(&python(&format!("{prelude}{script}"), &[&path]));
    (folder, path)
}

fn append(entry: &str) -> (tempfile::TempDir, PathBuf) {
    changed_by_python(&format!(
        "z = zipfile.ZipFile(path, 'a'); z.writestr({entry}); z.close()\n"
    ))
}

#[test]
fn the_good_artifact_is_good() {
    check_bytes(good()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_bit_can_be_flipped(bit in 0..good().len() * 8) {
        prop_assert!(check_bytes(&flipped(bit)).is_err());
    }

    #[test]
    fn nothing_can_be_cut_off(length in 0..good().len()) {
        prop_assert!(check_bytes(&good()[..length]).is_err());
    }

    #[test]
    fn nothing_can_be_put_in(at in 0..=good().len(), bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
        let mut longer = good().to_vec();
        longer.splice(at..at, bytes);
        prop_assert!(check_bytes(&longer).is_err());
    }

    #[test]
    fn nothing_can_be_overwritten(at in 0..good().len() - 8, bytes in any::<[u8; 8]>()) {
        let mut other = good().to_vec();
        other[at..at + 8].copy_from_slice(&bytes);
        prop_assume!(other != good());
        prop_assert!(check_bytes(&other).is_err());
    }
}

fn directory_start(zip: &[u8]) -> usize {
    let end = zip.len() - 22;
    u32::from_le_bytes(zip[end + 16..end + 20].try_into().unwrap()) as usize
}

#[test]
fn names_that_lead_outside_are_refused() {
    for name in [
        "../evil",
        "/tmp/evil",
        "a/../../evil",
        "a\\\\..\\\\evil",
        "C:evil",
        "a//evil",
        "./evil",
        "ev\\u00efl",
    ] {
        let (_folder, path) = append(&format!("info('{name}'), 'x'"));
        let error = check(&path).unwrap_err();
        let refused = matches!(
            error,
            Error::Framing {
                source: FramingError::Name { .. } | FramingError::NotStored(_),
                ..
            }
        );
        assert!(refused, "{name}: {error}");
    }
}

#[test]
fn links_and_devices_are_refused() {
    for mode in ["0o120777", "0o060600", "0o010644", "0o140644", "0o040755"] {
        let (_folder, path) = append(&format!("info('link', {mode}), '/etc/passwd'"));
        let error = check(&path).unwrap_err();
        let refused = matches!(&error, Error::Framing { source: FramingError::NotAFile(name), .. } if name == "link");
        assert!(refused, "{mode}: {error}");
    }
}

#[test]
fn a_name_twice_is_refused() {
    let (_folder, path) = append("info('interface.json'), '{}'");
    let error = check(&path).unwrap_err();
    let refused = matches!(&error, Error::Framing { source: FramingError::Duplicate(name), .. } if name == "interface.json");
    assert!(refused, "{error}");
}

#[test]
fn names_that_differ_only_by_case_are_refused() {
    for (name, other) in [
        ("Interface.json", "interface.json"),
        ("CONFIGS/new.yaml", "configs"),
        ("configs/config.YAML", "configs/config.yaml"),
    ] {
        let (_folder, path) = append(&format!("info('{name}'), '{{}}'"));
        let error = check(&path).unwrap_err();
        let refused = matches!(&error, Error::Framing { source: FramingError::Clash { first, why, .. }, .. } if first == other && why.contains("case"));
        assert!(refused, "{name}: {error}");
    }
    let (_folder, path) = append("info('interface.json/x'), '{}'");
    let error = check(&path).unwrap_err();
    assert!(error.to_string().contains("a file and a folder"), "{error}");
}

#[test]
fn a_compressed_member_is_refused_however_large_it_would_be() {
    let (_folder, path) = append("info('bomb'), b'\\0' * (64 << 20), zipfile.ZIP_DEFLATED");
    assert!(fs::metadata(&path).unwrap().len() < 4 << 20);
    let error = check(&path).unwrap_err();
    let refused = matches!(&error, Error::Framing { source: FramingError::NotStored(name), .. } if name == "bomb");
    assert!(refused, "{error}");
}

/// The other kind of bomb: many directory entries for the same bytes.
#[test]
fn members_that_overlap_are_refused() {
    let mut bytes = good().to_vec();
    let first = directory_start(&bytes);
    let length =
        |at: usize| 46 + usize::from(u16::from_le_bytes([good()[at + 28], good()[at + 29]]));
    let second = first + length(first);
    bytes[second + 42..second + 46].copy_from_slice(&[0; 4]);
    let error = check_bytes(&bytes).unwrap_err();
    let refused = matches!(
        error,
        Error::Framing {
            source: FramingError::Layout { .. },
            ..
        }
    );
    assert!(refused, "{error}");
}

#[test]
fn bytes_around_the_zip_are_refused() {
    let before = [b"#!/bin/sh\n", good()].concat();
    let after = [good(), b"\n"].concat();
    let mut comment = good().to_vec();
    let end = comment.len();
    comment[end - 2] = 2;
    comment.extend(b"hi");
    for bytes in [before, after, comment] {
        assert!(matches!(check_bytes(&bytes), Err(Error::Framing { .. })));
    }
}

#[test]
fn missing_extra_and_exchanged_members_are_named() {
    for (script, expected) in [
        (
            "del files['interface.json']; rewrite(files)",
            "no member interface.json",
        ),
        ("rewrite({'extra.txt': b'x', **files})", "extra.txt"),
        (
            "files['training_cli_args.yaml'] += b'- x: 1\\n'; rewrite(files)",
            "member training_cli_args.yaml",
        ),
        (
            "d = files['checkpoint.onnx']; files['checkpoint.onnx'] = d[:1000] + bytes([d[1000] ^ 1]) + d[1001:]; rewrite(files)",
            "member checkpoint.onnx",
        ),
        (
            "del files['artifact.yaml']; rewrite(files)",
            "no artifact.yaml",
        ),
        (
            "files['artifact.yaml'] = files['artifact.yaml'].replace(b'format_version: 1', b'format_version: 7'); rewrite(files)",
            "format version 7",
        ),
        (
            "files['artifact.yaml'] = b'- 1'; rewrite(files)",
            "artifact.yaml",
        ),
        (
            "files['artifact.yaml'] = b'\\xff\\xfe'; rewrite(files)",
            "UTF-8",
        ),
        (
            "import re; files['artifact.yaml'] = re.sub(b'set_digest: sha256:[0-9a-f]{4}', b'set_digest: sha256:0000', files['artifact.yaml']); rewrite(files)",
            "the set digest in artifact.yaml",
        ),
        (
            "import re; files['artifact.yaml'] = re.sub(rb'size: (\\d+)', rb'size: 1\\1', files['artifact.yaml'], count=1); rewrite(files)",
            "artifact.yaml says",
        ),
        (
            "r = files['artifact.yaml']; i = r.index(b'- path'); j = r.index(b'- path', i + 1); files['artifact.yaml'] = r[:j] + r[i:]; rewrite(files)",
            "lists a file twice",
        ),
    ] {
        let (_folder, path) = changed_by_python(script);
        let error = check(&path).unwrap_err();
        assert!(error.to_string().contains(expected), "{script}: {error}");
    }
}

/// The same files in another zip are not the same artifact: its digest differs.
#[test]
fn packing_the_same_files_by_other_means_is_refused() {
    for script in [
        "files = dict(sorted(files.items())); rewrite(files)",
        "a = files.pop('artifact.yaml'); files = {n: files[n] for n in reversed(files)}; files['artifact.yaml'] = a; rewrite(files)",
        "rewrite(files); z = zipfile.ZipFile(path, 'a'); z.writestr(info('stats/', 0o040755), ''); z.close()",
        "info = lambda n, i=info: (lambda x: setattr(x, 'date_time', (2020, 1, 1, 0, 0, 0)) or x)(i(n)); rewrite(files)",
    ] {
        let (_folder, path) = changed_by_python(script);
        let error = check(&path).unwrap_err();
        assert!(matches!(error, Error::Repacked { .. }), "{script}: {error}");
    }
}

#[test]
fn unpacking_checks_what_it_writes_and_where() {
    let mut bytes = good().to_vec();
    let onnx = bytes
        .windows(15)
        .position(|w| w == b"checkpoint.onnx")
        .unwrap();
    bytes[onnx + 5000] ^= 1;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.zip");
    fs::write(&path, &bytes).unwrap();
    let damaged = Artifact::open(&path).unwrap();
    let target = folder.path().join("out");
    let error = damaged.extract_to(&target).unwrap_err();
    assert!(
        matches!(&error, Error::Hash { member, .. } if member == "checkpoint.onnx"),
        "{error}"
    );
    assert!(!target.join("checkpoint.onnx").exists());
    let error = damaged.read("checkpoint.onnx", u64::MAX).unwrap_err();
    assert!(matches!(error, Error::Hash { .. }), "{error}");
    let error = damaged.read("checkpoint.onnx", 10).unwrap_err();
    assert!(
        matches!(error, Error::TooLarge { limit: 10, .. }),
        "{error}"
    );

    // A link that is already in the target folder must not be followed out of it.
    fs::write(&path, good()).unwrap();
    let (linked, outside) = (folder.path().join("linked"), folder.path().join("outside"));
    fs::create_dir(&linked).unwrap();
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, linked.join("configs")).unwrap();
    let error = Artifact::open(&path)
        .unwrap()
        .extract_to(&linked)
        .unwrap_err();
    assert!(matches!(error, Error::InTheWay { .. }), "{error}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn what_is_no_zip_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Artifact::open(folder.path()).is_err());
    assert!(Artifact::open(&folder.path().join("absent.zip")).is_err());
    for bytes in [
        &b""[..],
        b"PK",
        b"hello, this is not a zip at all",
        &[0; 100],
    ] {
        assert!(matches!(check_bytes(bytes), Err(Error::Framing { .. })));
    }
}
