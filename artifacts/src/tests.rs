//! The zip, written, read and damaged, on artifacts small enough to damage every bit of.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use mlwm_spec::Digest;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::form::Plan;
use crate::input::Input;
use crate::pack::{Content, Planned};
use crate::record::{Record, RecordedFile};
use crate::{Artifact, BuildRequest, Error, FramingError, Packing, ReadAt, Verified};

fn packing_of(contents: Vec<(String, Content)>, scratch: TempDir) -> Packing {
    let request = BuildRequest {
        name: "small".into(),
        ..BuildRequest::default()
    };
    let mut members: Vec<Planned> = contents
        .into_iter()
        .map(|(name, content)| Planned {
            name,
            source: "made".into(),
            content,
        })
        .collect();
    members.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Packing::new(request, None, members, scratch).unwrap()
}

fn packing(members: &[(&str, &[u8])]) -> Packing {
    let scratch = tempfile::tempdir().unwrap();
    let contents = members.iter().enumerate().map(|(i, (name, bytes))| {
        let path = scratch.path().join(i.to_string());
        fs::write(&path, bytes).unwrap();
        ((*name).to_owned(), Content::Extracted(path))
    });
    let contents = contents.collect();
    packing_of(contents, scratch)
}

fn written(packing: &Packing) -> Vec<u8> {
    let mut zip = Vec::new();
    packing.write_to(&mut zip).unwrap();
    zip
}

fn small() -> Vec<u8> {
    written(&packing(&[
        ("checkpoint.pkl", b"\x80\x02}q\x00."),
        ("configs/config.yaml", b"datastore: {}\n"),
        ("empty", b""),
    ]))
}

fn verified(zip: Vec<u8>) -> Result<Verified, Error> {
    Artifact::from_source(Arc::new(zip), "small.zip")?.verify()
}

#[test]
fn every_flipped_bit_is_found() {
    let good = small();
    assert_eq!(verified(good.clone()).unwrap().digest, Digest::of(&good));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(
            verified(bad).is_err(),
            "bit {} of byte {}",
            bit % 8,
            bit / 8
        );
    }
}

#[test]
fn every_cut_and_every_byte_too_many_is_found() {
    let good = small();
    for length in 0..good.len() {
        assert!(verified(good[..length].to_vec()).is_err(), "{length}");
        assert!(
            verified(good[good.len() - length..].to_vec()).is_err(),
            "{length}"
        );
    }
    for at in 0..=good.len() {
        let mut longer = good.clone();
        longer.insert(at, 0);
        assert!(verified(longer).is_err(), "{at}");
        let mut shorter = good.clone();
        if at < good.len() {
            shorter.remove(at);
            assert!(verified(shorter).is_err(), "{at}");
        }
    }
}

/// The padding before an aligned member belongs to nobody: it must be zero.
#[test]
fn nothing_hides_in_the_padding() {
    let good = written(&packing(&[("a", b"x"), ("large", &[7; 65_536])]));
    let start = good.windows(16).position(|bytes| bytes == [7; 16]).unwrap();
    assert_eq!(start, 4096);
    for at in start - 3900..start {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        let error = verified(bad).unwrap_err();
        let found = matches!(&error, Error::Framing { source: FramingError::Contradiction(name), .. } if name == "large");
        assert!(found, "{at}: {error}");
    }
}

/// Records that lie are found when one member is read, too, and not only by verification.
#[test]
fn reading_a_member_checks_the_records_around_it() {
    let good = small();
    let read = |zip: Vec<u8>| {
        let artifact = Artifact::from_source(Arc::new(zip), "small.zip")?;
        artifact.read("checkpoint.pkl", 100).map(|_| ())
    };
    read(good.clone()).unwrap();
    // Local header, name, content and descriptor of the first member.
    let end = 30 + "checkpoint.pkl".len() + 6 + 16;
    for at in 0..end {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(read(bad).is_err(), "{at}");
    }
}

#[test]
fn a_source_that_changes_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.ckpt");
    let change = |change: &dyn Fn()| {
        fs::write(&path, [1; 1000]).unwrap();
        let content = Content::File(Input::at(&path).unwrap());
        let packing = packing_of(
            vec![("checkpoint.pkl".into(), content)],
            tempfile::tempdir().unwrap(),
        );
        packing.write_to(&mut io::sink()).unwrap();
        change();
        packing.write_to(&mut io::sink())
    };
    let append = || {
        let mut file = fs::File::options().append(true).open(&path).unwrap();
        file.write_all(b"more").unwrap();
    };
    let cut = || fs::write(&path, b"less").unwrap();
    let overwrite = || fs::write(&path, [2; 1000]).unwrap();
    let replace = || {
        fs::write(folder.path().join("other"), [1; 1000]).unwrap();
        fs::rename(folder.path().join("other"), &path).unwrap();
    };
    for (what, changed) in [
        ("append", change(&append)),
        ("cut", change(&cut)),
        ("overwrite", change(&overwrite)),
        ("replace", change(&replace)),
    ] {
        let error = changed.unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{what}: {error}");
    }
    let removed = change(&|| fs::remove_file(&path).unwrap()).unwrap_err();
    assert!(matches!(removed, Error::Io { .. }), "{removed}");
}

/// A zip of more than 4 GiB, of which only the end is there.
struct Sparse {
    size: u64,
    end: Vec<u8>,
}

impl ReadAt for Sparse {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = self.size - self.end.len() as u64;
        self.end.read_at(buffer, offset.checked_sub(start).unwrap())
    }
}

#[test]
fn numbers_of_64_bits_are_read() {
    let size = 5 << 30;
    let file = RecordedFile {
        path: "checkpoint.pkl".into(),
        size,
        sha256: Digest::of("as is not looked at"),
    };
    let text = Record::new("large", vec![file]).to_yaml().unwrap();
    let sizes = [
        ("checkpoint.pkl".to_owned(), size),
        ("artifact.yaml".to_owned(), text.len() as u64),
    ];
    let plan = Plan::new(sizes).unwrap();
    let crc32 = crc32fast::hash(text.as_bytes());
    let own = &plan.members[1];
    let end = [
        own.local_header(),
        text.into_bytes(),
        own.descriptor(crc32),
        plan.tail([1, crc32]),
    ];
    // Opening reads a little of what lies before it.
    let sparse = Sparse {
        size: plan.size(),
        end: [vec![0; 1 << 20], end.concat()].concat(),
    };
    let artifact = Artifact::from_source(Arc::new(sparse), "large.zip").unwrap();
    assert_eq!(artifact.files()[0].size, size);
    assert_eq!(artifact.name(), "large");
}

/// Takes so many bytes and no more.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        match taken {
            0 => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_sink_that_refuses_ends_it_with_its_own_words() {
    let packing = packing(&[("large", &vec![7; 40 << 20])]);
    for room in [0, 10, 5000, 30 << 20, packing.size() as usize - 1] {
        let error = packing.write_to(&mut Full(room)).unwrap_err();
        let full = matches!(&error, Error::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull);
        assert!(full, "{error}");
    }
    packing
        .write_to(&mut Full(packing.size() as usize))
        .unwrap();
}

#[test]
fn the_fingerprint_is_that_of_the_sources() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.ckpt");
    fs::write(&path, b"abc").unwrap();
    let extracted = folder.path().join("zarr.json");
    fs::write(&extracted, b"{}").unwrap();
    let fingerprint = |extracted: &Path| {
        let contents = vec![
            (
                "checkpoint.pkl".into(),
                Content::File(Input::at(&path).unwrap()),
            ),
            ("stats".into(), Content::Extracted(extracted.to_owned())),
        ];
        packing_of(contents, tempfile::tempdir().unwrap())
            .fingerprint()
            .unwrap()
    };
    let first = fingerprint(&extracted);
    let elsewhere = folder.path().join("again.json");
    fs::write(&elsewhere, b"{}").unwrap();
    assert_eq!(fingerprint(&elsewhere), first);
    fs::write(&elsewhere, b"[]").unwrap();
    assert_ne!(fingerprint(&elsewhere), first);
    fs::write(&path, b"abd").unwrap();
    assert_ne!(fingerprint(&extracted), first);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_same_bytes_go_to_a_file_and_to_a_stream(
        sizes in proptest::collection::vec(prop_oneof![0_usize..300, 65_000..66_000_usize, (1 << 20) - 2..(1 << 20) + 2_usize], 0..6),
        seed: u8,
    ) {
        let contents: Vec<(String, Vec<u8>)> = sizes
            .iter()
            .enumerate()
            .map(|(i, size)| (format!("f/{i}"), (0..*size).map(|j| ((j * 31) >> 3) as u8 ^ seed).collect()))
            .collect();
        let members: Vec<(&str, &[u8])> = contents.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
        let packing = packing(&members);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.zip");
        let to_file = packing.write_file(&path).unwrap();
        let mut stream = Vec::new();
        let to_stream = packing.write_to(&mut stream).unwrap();
        prop_assert_eq!(&to_file, &to_stream);
        prop_assert_eq!(stream.len() as u64, packing.size());
        prop_assert_eq!(Digest::of(&stream), to_stream.digest);
        prop_assert!(fs::read(&path).unwrap() == stream);

        // What an independent reader and the definition of the set digest say.
        let mut zip = zip::ZipArchive::new(io::Cursor::new(&stream)).unwrap();
        let mut lines = Sha256::new();
        for (name, bytes) in &contents {
            let mut found = Vec::new();
            zip.by_name(name).unwrap().read_to_end(&mut found).unwrap();
            prop_assert!(found == *bytes);
            lines.update(format!("{}  {name}\n", Digest::of(bytes).hex()));
        }
        prop_assert_eq!(Digest::from_hasher(lines), to_stream.set_digest);
        prop_assert_eq!(zip.len(), contents.len() + 1);

        let artifact = Artifact::open(&path).unwrap();
        prop_assert_eq!(artifact.set_digest(), Some(to_stream.set_digest));
        prop_assert_eq!(artifact.files(), &to_stream.files[..]);
        prop_assert_eq!(artifact.verify().unwrap().digest, to_stream.digest);
        for (name, bytes) in &contents {
            prop_assert!(artifact.read(name, u64::MAX).unwrap() == *bytes);
        }
    }
}
