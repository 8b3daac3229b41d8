//! Bundles of made-up zips: what is written, and what of it may change unnoticed (nothing).

mod images;

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mlwm_storage::{BytesContent, Content};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::parts::part_path;
use super::*;
use crate::Error;
use crate::signature::{self, SecretKey};

/// Bytes that are not compressible, the same for the same seed.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

fn source(name: &str, tag: &str, zip: &[u8]) -> Source {
    let artifact = BundledArtifact {
        name: name.parse().unwrap(),
        tag: tag.parse().unwrap(),
        digest: Digest::of(zip),
        size: zip.len() as u64,
        set_digest: Digest::of([zip, b"set"].concat()),
        files: 9,
        provenance: None,
        signatures: BTreeMap::new(),
    };
    Source {
        artifact,
        zip: Arc::new(BytesContent::new(zip.to_vec())),
    }
}

fn signed(mut source: Source, zip: &[u8], folder: &Path) -> Source {
    let secret = folder.join("a.key");
    if !secret.exists() {
        signature::generate(&secret, &folder.join("a.pub"), None).unwrap();
    }
    let key = SecretKey::read(&secret, || Ok(String::new())).unwrap();
    let name = source.artifact.name.to_string();
    let signature = signature::sign(zip, &name, source.artifact.digest, &key).unwrap();
    source
        .artifact
        .signatures
        .insert(signature.key_id().to_string(), signature.to_text());
    source
}

/// Two models, one of them twice and signed.
fn sources(folder: &Path) -> Vec<Source> {
    let (gefion, other) = (noise(1, 70_000), noise(2, 513));
    let latest = signed(source("gefion-1", "latest", &gefion), &gefion, folder);
    let mut second = source("gefion-1", "v2", &gefion);
    second.artifact.provenance = Some("host: node\n".to_owned());
    vec![latest, source("other", "latest", &other), second]
}

fn write_to(path: &Path, sources: &[Source], part_size: Option<u64>) -> Result<Written, Error> {
    write(sources, &[], path, part_size, &Watch::default())
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn check(path: &Path) -> Result<(), Error> {
    Bundle::open(path)?.verify(&Watch::default())
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let (keys, out) = (folder.path().join("keys"), folder.path().join("out"));
    fs::create_dir_all(&keys).unwrap();
    fs::create_dir_all(&out).unwrap();
    let sources = sources(&keys);
    let path = out.join("a.tar");
    let written = write_to(&path, &sources, None).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(written.files, std::slice::from_ref(&path));
    assert_eq!(written.size, bytes.len() as u64);
    assert_eq!(written.digest, Digest::of(&bytes));
    assert_eq!(names_in(&out), ["a.tar"]);

    let bundle = Bundle::open(&path).unwrap();
    bundle.verify(&Watch::default()).unwrap();
    let mut expected: Vec<BundledArtifact> = sources
        .iter()
        .map(|source| source.artifact.clone())
        .collect();
    // A signature goes with every tag of the zip.
    expected[2].signatures = expected[0].signatures.clone();
    expected.swap(1, 2);
    assert_eq!(bundle.artifacts(), expected);
    assert_eq!(expected[0].signatures.len(), 1);
    for (artifact, zip) in [
        (0, noise(1, 70_000)),
        (1, noise(1, 70_000)),
        (2, noise(2, 513)),
    ] {
        let content = bundle.content(&bundle.artifacts()[artifact]).unwrap();
        let mut read = Vec::new();
        content.open().unwrap().read_to_end(&mut read).unwrap();
        assert_eq!((read.len() as u64, &read), (content.size(), &zip));
        let mut middle = [0; 100];
        let source = bundle.read_at(&bundle.artifacts()[artifact]).unwrap();
        source.read_exact_at(&mut middle, 400).unwrap();
        assert_eq!(middle, zip[400..500]);
        assert!(
            source
                .read_exact_at(&mut middle, zip.len() as u64 - 99)
                .is_err()
        );
    }
}

#[test]
fn other_programs_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path());
    let path = folder.path().join("a.tar");
    write_to(&path, &sources, None).unwrap();

    let listed = run(Command::new("tar").arg("tvf").arg(&path));
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].ends_with("mlwm-bundle.json"), "{listed}");
    assert!(lines[1].ends_with("oci-layout") && lines[2].ends_with("index.json"));
    assert!(
        lines.iter().all(|line| line.starts_with("-rw-r--r-- 0/0 ")),
        "{listed}"
    );
    // Each blob is what its name says.
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    run(Command::new("tar").arg("xf").arg(&path).arg("-C").arg(&out));
    let blobs = out.join("blobs/sha256");
    let sums = run(Command::new("sh")
        .args(["-c", "sha256sum *"])
        .current_dir(&blobs));
    assert_eq!(sums.lines().count(), names_in(&blobs).len());
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        assert_eq!(sum, name);
    }

    for (reference, zip) in [
        ("gefion-1:latest", noise(1, 70_000)),
        ("other:latest", noise(2, 513)),
    ] {
        let raw = run(Command::new("skopeo")
            .args(["inspect", "--raw"])
            .arg(format!("oci-archive:{}:{reference}", path.display())));
        let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
        let layer = &manifest["layers"][0];
        assert_eq!(layer["digest"], Digest::of(&zip).to_string());
        assert_eq!(layer["size"], zip.len());
        assert_eq!(manifest["artifactType"], crate::manifest::ARTIFACT);
        let name = reference.split(':').next().unwrap();
        let title = &layer["annotations"]["org.opencontainers.image.title"];
        assert_eq!(title, &format!("{name}.zip"));
    }
    let copied = folder.path().join("copied");
    run(Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy"])
        .arg(format!("oci-archive:{}:other:latest", path.display()))
        .arg(format!("dir:{}", copied.display())));
    let zip = noise(2, 513);
    assert_eq!(fs::read(copied.join(Digest::of(&zip).hex())).unwrap(), zip);
}

#[test]
fn the_same_artifacts_are_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut sources = sources(folder.path());
    let first = folder.path().join("a.tar");
    write_to(&first, &sources, None).unwrap();
    sources.reverse();
    sources.push(sources[0].clone());
    let second = folder.path().join("b.tar");
    write_to(&second, &sources, None).unwrap();
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap());

    // What a script with Python's `json`, `hashlib` and `tarfile` makes by the description of the
    // format. A change of these bytes is a change of its version.
    let path = folder.path().join("small.tar");
    let written = write_to(&path, &[source("a", "latest", b"zip")], None).unwrap();
    assert_eq!(written.size, 7680);
    assert_eq!(
        written.digest.to_string(),
        "sha256:7bd789c8adc8b55e04c3aa68f675d7777e9996992b94166d5ec6caf665801bb9"
    );
}

#[test]
fn a_bundle_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path());
    for part_size in [None, Some(10_000)] {
        let out = folder.path().join(format!("out-{}", part_size.is_some()));
        fs::create_dir(&out).unwrap();
        let path = out.join("a.tar");
        let first = write_to(&path, &sources, part_size).unwrap();
        assert!(!first.unchanged);
        let before = names_in(&out);
        let again = write_to(&path, &sources, part_size).unwrap();
        assert!(again.unchanged);
        assert_eq!(again.files, first.files);

        let fewer = write_to(&path, &sources[..2], part_size).unwrap_err();
        assert!(matches!(fewer, Error::InTheWay { .. }), "{fewer}");
        if part_size.is_some() {
            let error = write_to(&path, &sources, Some(20_000)).unwrap_err();
            assert!(matches!(error, Error::InTheWay { .. }), "{error}");
        }
        let last = first.files[0].clone();
        let mut bytes = fs::read(&last).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&last, bytes).unwrap();
        let damaged = write_to(&path, &sources, part_size).unwrap_err();
        assert!(matches!(damaged, Error::InTheWay { .. }), "{damaged}");
        assert_eq!(names_in(&out), before);
    }
}

#[test]
fn what_a_killed_run_left_is_used_or_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path());
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    let path = out.join("a.tar");
    let written = write_to(&path, &sources, Some(10_000)).unwrap();
    let all = names_in(&out);
    let list = fs::read(written.files.last().unwrap()).unwrap();

    // Killed before the list and some parts had their names.
    fs::remove_file(written.files.last().unwrap()).unwrap();
    fs::remove_file(part_path(&path, 3)).unwrap();
    for left in ["001", "003", "099", "1234", "parts.json"] {
        fs::write(out.join(format!(".a.tar.{left}.mlwm-writing")), "half").unwrap();
    }
    fs::write(out.join(".a.tar.mlwm-writing"), "half").unwrap();
    // That of another bundle, which may be being written.
    fs::write(out.join(".b.tar.001.mlwm-writing"), "half").unwrap();
    assert!(Bundle::open(&path).is_err());
    let again = write_to(&path, &sources, Some(10_000)).unwrap();
    assert!(!again.unchanged);
    assert_eq!(again.digest, written.digest);
    fs::remove_file(out.join(".b.tar.001.mlwm-writing")).unwrap();
    assert_eq!(names_in(&out), all);
    assert_eq!(fs::read(written.files.last().unwrap()).unwrap(), list);
    check(&path).unwrap();

    // A part of something else is not taken for its own, nor replaced.
    fs::remove_file(written.files.last().unwrap()).unwrap();
    fs::write(part_path(&path, 2), vec![0; 10_000]).unwrap();
    let error = write_to(&path, &sources, Some(10_000)).unwrap_err();
    assert!(matches!(error, Error::InTheWay { .. }), "{error}");
    fs::write(part_path(&path, 2), "short").unwrap();
    let error = write_to(&path, &sources, Some(10_000)).unwrap_err();
    assert!(error.to_string().contains("a.tar.003"), "{error}");
    assert!(!names_in(&out).iter().any(|name| name.starts_with('.')));
}

#[test]
fn only_one_process_writes_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let sink = sink::Sink::create(&path, None).unwrap();
    let error = write_to(&path, &[source("a", "latest", b"zip")], None).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(sink);
    write_to(&path, &[source("a", "latest", b"zip")], None).unwrap();
    assert_eq!(names_in(folder.path()), ["a.tar"]);
}

#[test]
fn of_two_that_start_at_once_one_writes_it() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = [source("a", "latest", &noise(1, 30_000))];
    for round in 0..100 {
        let path = folder.path().join(format!("{round}.tar"));
        let barrier = std::sync::Barrier::new(2);
        let write = || {
            barrier.wait();
            write_to(&path, &bundle, None)
        };
        let (one, other) = std::thread::scope(|scope| {
            let threads = (scope.spawn(write), scope.spawn(write));
            (threads.0.join().unwrap(), threads.1.join().unwrap())
        });
        let fresh = |result: &Result<Written, Error>| matches!(result, Ok(w) if !w.unchanged);
        assert!(fresh(&one) || fresh(&other), "{one:?} {other:?}");
        for error in [one, other].into_iter().filter_map(Result::err) {
            let text = error.to_string();
            assert!(text.contains("another process"), "{round}: {text}");
        }
        check(&path).unwrap();
    }
    assert!(
        !names_in(folder.path())
            .iter()
            .any(|name| name.starts_with('.'))
    );
}

/// Content that breaks, or is not what it was.
struct Wrong(Arc<dyn Content>, &'static str);

impl Content for Wrong {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn fingerprint(&self) -> String {
        self.0.fingerprint()
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let reader = self.0.open()?;
        let size = self.0.size();
        Ok(match self.1 {
            "short" => Box::new(reader.take(size - 1)),
            "long" => Box::new(reader.chain(&b"x"[..])),
            "changed" => Box::new(reader.take(size - 1).chain(&b"x"[..])),
            _ => return Err(io::Error::other("the disk is broken")),
        })
    }
}

#[test]
fn a_zip_that_is_not_what_it_should_be_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (how, word) in [
        ("short", "has the digest"),
        ("long", "more than 70000 bytes"),
        ("changed", "has the digest"),
        ("broken", "the disk is broken"),
    ] {
        for part_size in [None, Some(30_000)] {
            let mut wrong = source("gefion-1", "v1", &noise(1, 70_000));
            wrong.zip = Arc::new(Wrong(wrong.zip, how));
            let sources = [source("a", "latest", b"zip"), wrong];
            let path = folder.path().join("a.tar");
            let error = write_to(&path, &sources, part_size)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(word) && error.contains("gefion-1:v1"),
                "{error}"
            );
            assert_eq!(names_in(folder.path()), [""; 0]);
        }
    }
    let watch = Watch::default();
    let cancel = watch.cancel.clone();
    let called_off = Watch {
        progress: Arc::new(move |done, total| {
            assert!(done < total);
            cancel.cancel();
        }),
        ..watch
    };
    let path = folder.path().join("a.tar");
    let error = write(
        &[source("a", "latest", b"zip")],
        &[],
        &path,
        None,
        &called_off,
    )
    .unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
    assert_eq!(names_in(folder.path()), [""; 0]);
}

#[test]
fn artifacts_that_contradict_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let one = source("a", "latest", b"zip");
    let mut other_set = source("b", "latest", b"zip");
    other_set.artifact.set_digest = Digest::of("another");
    let mut unsigned = source("b", "latest", b"zip");
    let key_id = "0123456789ABCDEF".to_owned();
    unsigned
        .artifact
        .signatures
        .insert(key_id, "no signature".to_owned());
    let signature = format!("sha256-{}.0123456789ABCDEF.minisig", "0".repeat(64));
    let mut talkative = one.clone();
    talkative.artifact.provenance = Some(" ".repeat(5 << 20));
    for (sources, word) in [
        (vec![], "no artifact"),
        (
            vec![one.clone(), source("a", "latest", b"pizza")],
            "a:latest twice",
        ),
        (vec![one.clone(), other_set], "different things"),
        (vec![one.clone(), unsigned], "signature of b:latest"),
        (
            vec![source("a", &signature, b"zip")],
            "the tag of a signature",
        ),
        (vec![talkative], "larger than 4 MiB"),
    ] {
        let error = write_to(&path, &sources, None).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let error = write_to(&path, std::slice::from_ref(&one), Some(0)).unwrap_err();
    assert!(error.to_string().contains("larger parts"), "{error}");
    assert_eq!(names_in(folder.path()), [""; 0]);
}

#[test]
fn every_flipped_byte_and_every_length_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let zip = noise(3, 700);
    let sources = [signed(source("a", "v1", &zip), &zip, folder.path())];
    let path = folder.path().join("a.tar");
    write_to(&path, &sources, None).unwrap();
    let good = fs::read(&path).unwrap();
    check(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for (position, byte) in good.iter().enumerate() {
        let flipped = byte ^ 1 << (position % 8);
        file.write_all_at(&[flipped], position as u64).unwrap();
        assert!(check(&path).is_err(), "byte {position}");
        file.write_all_at(&[*byte], position as u64).unwrap();
    }
    check(&path).unwrap();
    file.set_len(good.len() as u64 + 1).unwrap();
    assert!(Bundle::open(&path).is_err());
    for length in (0..good.len()).rev() {
        file.set_len(length as u64).unwrap();
        assert!(Bundle::open(&path).is_err(), "{length} bytes");
    }
}

/// A bundle whose head was made by somebody who can hash.
fn forged(good: &[u8], change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let layout = layout::Layout::parse(&good[..head_size(good)]).unwrap();
    let mut rest = &layout.head[layout::PREAMBLE as usize..];
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (name, content) = tape::take(&mut rest).unwrap();
        entries.push((name.to_owned(), content.to_vec()));
    }
    change(&mut entries);
    let mut head = Vec::new();
    for (name, content) in &entries {
        tape::append(&mut head, name, content);
    }
    let zips = &good[head_size(good)..];
    let size = layout::PREAMBLE as usize + head.len() + zips.len();
    let preamble = format!(
        "{{\"format\":\"mlwm-bundle\",\"format_version\":1,\"size\":{size},\"head_size\":{},\"head_digest\":\"{}\"}}",
        head.len(),
        Digest::of(&head)
    );
    let mut bytes = Vec::new();
    tape::append(&mut bytes, "mlwm-bundle.json", preamble.as_bytes());
    [bytes.as_slice(), &head, zips].concat()
}

fn head_size(bundle: &[u8]) -> usize {
    let preamble = layout::Preamble::parse(&bundle[..layout::PREAMBLE as usize]).unwrap();
    (layout::PREAMBLE + preamble.head_size) as usize
}

#[test]
fn a_forged_head_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, changed) = (folder.path().join("a.tar"), folder.path().join("b.tar"));
    write_to(&path, &[source("a", "v1", b"zip")], None).unwrap();
    let good = fs::read(&path).unwrap();
    fs::write(&changed, forged(&good, |_| ())).unwrap();
    check(&changed).unwrap();

    type Change = fn(&mut Vec<(String, Vec<u8>)>);
    let with = |entries: &mut Vec<(String, Vec<u8>)>, from: &str, to: &str| {
        let index = String::from_utf8(entries[1].1.clone()).unwrap();
        assert!(index.contains(from));
        entries[1].1 = index.replacen(from, to, 1).into_bytes();
    };
    let cases: [(&str, Change); 9] = [
        ("in the place of", |entries| entries.swap(0, 1)),
        ("no bundle has", |entries| {
            entries.push(("../../x".into(), b"x".to_vec()))
        }),
        ("no bundle has", |entries| {
            entries.push(("/etc/x".into(), b"x".to_vec()))
        }),
        ("twice", |entries| entries.push(entries[2].clone())),
        ("was changed", |entries| entries[2].1 = b"{}".to_vec()),
        ("which it has not", |entries| entries.truncate(2)),
        ("more, or other", |entries| entries.swap(2, 3)),
        ("more, or other", |entries| {
            let hidden = b"hidden".to_vec();
            entries.push((
                format!("blobs/sha256/{}", Digest::of(&hidden).hex()),
                hidden,
            ));
        }),
        ("index is invalid", |entries| entries[1].1 = b"{".to_vec()),
    ];
    for (word, change) in cases {
        fs::write(&changed, forged(&good, change)).unwrap();
        let error = check(&changed).unwrap_err().to_string();
        assert!(error.contains(word), "{error} instead of {word}");
    }
    for (from, to, word) in [
        ("a:v1", "a:../v1", "not a tag"),
        ("a:v1", "../a:v1", "without `<name>:<tag>`"),
        ("a:v1", "b:v1", "more, or other"),
        (
            "\"schemaVersion\":2",
            "\"schemaVersion\": 2",
            "more, or other",
        ),
    ] {
        fs::write(&changed, forged(&good, |entries| with(entries, from, to))).unwrap();
        let error = check(&changed).unwrap_err().to_string();
        assert!(error.contains(word), "{error} instead of {word}");
    }
    for (from, to, word) in [
        ("mlwm-bundle\"", "mlwm-bundel\"", "not a bundle"),
        ("\"format_version\":1", "\"format_version\":2", "newer mlwm"),
    ] {
        let text = String::from_utf8_lossy(&good[512..1024]).replace(from, to);
        let mut bytes = Vec::new();
        tape::append(
            &mut bytes,
            "mlwm-bundle.json",
            text.trim_end_matches('\0').as_bytes(),
        );
        bytes.extend_from_slice(&good[1024..]);
        fs::write(&changed, bytes).unwrap();
        let error = check(&changed).unwrap_err().to_string();
        assert!(error.contains(word), "{error} instead of {word}");
    }
}

#[test]
fn parts_are_the_tar_and_each_wrong_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path());
    let (whole, path) = (folder.path().join("whole.tar"), folder.path().join("a.tar"));
    write_to(&whole, &sources, None).unwrap();
    let written = write_to(&path, &sources, Some(9_999)).unwrap();
    let count = written.files.len() - 1;
    assert!(count > 7);
    check(&path).unwrap();
    let joined = folder.path().join("joined.tar");
    run(Command::new("sh")
        .args([
            "-c",
            "cat a.tar.[0-9]* > joined.tar && cmp joined.tar whole.tar",
        ])
        .current_dir(folder.path()));
    check(&joined).unwrap();
    let list: serde_json::Value =
        serde_json::from_slice(&fs::read(written.files.last().unwrap()).unwrap()).unwrap();
    for (index, part) in list["parts"].as_array().unwrap().iter().enumerate() {
        let sum = run(Command::new("sha256sum").arg(&written.files[index]));
        assert_eq!(part["digest"], format!("sha256:{}", &sum[..64]));
    }

    let refused = |words: &[&str]| {
        let error = check(&path).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{error}");
        }
    };
    let aside = folder.path().join("aside");
    let third = part_path(&path, 2);
    fs::rename(&third, &aside).unwrap();
    refused(&["a.tar.003", "missing"]);
    fs::write(&third, b"short").unwrap();
    refused(&["a.tar.003", "9999"]);
    fs::write(&third, vec![0; 9_999]).unwrap();
    fs::rename(part_path(&path, 4), folder.path().join("aside-5")).unwrap();
    fs::write(part_path(&path, 4), vec![0; 9_999]).unwrap();
    refused(&["a.tar.003", "a.tar.005", "copy it again"]);
    fs::rename(folder.path().join("aside-5"), part_path(&path, 4)).unwrap();
    fs::rename(&aside, &third).unwrap();
    fs::write(part_path(&path, count), b"").unwrap();
    refused(&[&format!("a.tar.{:03}", count + 1), "only"]);
    fs::remove_file(part_path(&path, count)).unwrap();
    check(&path).unwrap();

    // What is renamed as a whole is the same bundle.
    let renamed = folder.path().join("b.tar");
    for file in &written.files {
        let name = file.file_name().unwrap().to_str().unwrap();
        fs::rename(file, folder.path().join(name.replace("a.tar", "b.tar"))).unwrap();
    }
    check(&renamed).unwrap();
    assert_eq!(written.digest, sha256(&whole));
}

fn sha256(path: &PathBuf) -> Digest {
    Digest::from_hasher(Sha256::new_with_prefix(fs::read(path).unwrap()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_part_size_gives_the_same_bundle(
        sizes in prop::collection::vec(0_usize..5_000, 1..5),
        part_size in 7_u64..20_000,
        flip in any::<prop::sample::Index>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let sources: Vec<Source> = sizes
            .iter()
            .enumerate()
            .map(|(index, size)| source(&format!("m{index}"), "latest", &noise(index as u64, *size)))
            .collect();
        let (whole, path) = (folder.path().join("w.tar"), folder.path().join("a.tar"));
        let one = write_to(&whole, &sources, None).unwrap();
        let parts = write_to(&path, &sources, Some(part_size)).unwrap();
        prop_assert_eq!(one.digest, parts.digest);
        let files = &parts.files[..parts.files.len() - 1];
        let joined: Vec<u8> = files.iter().flat_map(|file| fs::read(file).unwrap()).collect();
        prop_assert!(joined == fs::read(&whole).unwrap());
        check(&path).unwrap();
        let bundle = Bundle::open(&path).unwrap();
        for (artifact, source) in bundle.artifacts().iter().zip(&sources) {
            let mut read = (Vec::new(), Vec::new());
            bundle.content(artifact).unwrap().open().unwrap().read_to_end(&mut read.0).unwrap();
            source.zip.open().unwrap().read_to_end(&mut read.1).unwrap();
            prop_assert!(read.0 == read.1);
        }
        let file = &files[flip.index(files.len())];
        let mut bytes = fs::read(file).unwrap();
        let position = flip.index(bytes.len());
        bytes[position] ^= 0x10;
        fs::write(file, bytes).unwrap();
        prop_assert!(check(&path).is_err());
    }
}
