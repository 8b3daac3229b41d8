//! The files of layers that we did not make: what the commands of a `Containerfile` left. What a
//! later layer removes still lies in the lower one, and is found there.

use std::fs;
use std::io::{self, Cursor, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use mlwm_engines::BuildSecret;
use mlwm_spec::Digest;

use super::known::Known;
use super::{Finding, SEARCHED, finding, scan_file};
use crate::Error;
use crate::image::{Image, Layer};

/// Bytes that a layer may have without compression.
const LARGEST: u64 = 64 << 30;
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// What is found if it is a value that the build was given.
const OF_THE_BUILD: &str = "a secret that the build was given";
/// What decides what is found: a note is of no use once it is another.
const RULES: [&str; 6] = [
    include_str!("../scan.rs"),
    include_str!("assignments.rs"),
    include_str!("layers.rs"),
    include_str!("names.rs"),
    include_str!("tokens.rs"),
    include_str!("values.rs"),
];

/// Searches the text files of an image's layers; not of those that it has from `base`, if it was
/// built on that. That a layer holds nothing is noted in the folder `notes`, and it is not read again.
/// The values of the secrets that it was built with are searched for in all files, each time: no note
/// could say which values they were.
pub fn scan_layers(
    image: &Image,
    base: Option<&Image>,
    secrets: &[BuildSecret],
    notes: &Path,
) -> Result<Vec<Finding>, Error> {
    let known = Known::of(secrets);
    let lower = base.map(Image::diff_ids).unwrap_or_default();
    let lower = match image.diff_ids().starts_with(&lower) {
        true => lower.len(),
        false => 0,
    };
    let rules = Digest::of(RULES.concat());
    let mut findings = Vec::new();
    if known.is_in(&image.config) {
        findings.push(finding("config", OF_THE_BUILD));
    }
    for layer in &image.layers[lower..] {
        let digest = layer.descriptor.digest;
        let note = notes.join(format!("{}.clean-{}", digest.hex(), &rules.hex()[..16]));
        if known.is_empty() && note.is_file() {
            continue;
        }
        let found = scan_layer(layer, &known)?;
        if found.is_empty() {
            fs::create_dir_all(notes).map_err(Error::local("create the folder", notes))?;
            fs::write(&note, "").map_err(Error::local("write", &note))?;
        }
        findings.extend(found);
    }
    findings.sort();
    findings.dedup();
    Ok(findings)
}

fn scan_layer(layer: &Layer, known: &Known) -> Result<Vec<Finding>, Error> {
    let unreadable = |source| Error::Layer {
        layer: layer.descriptor.digest,
        source,
    };
    scan(&mut layer.open()?, known).map_err(unreadable)
}

/// Searches a tar archive, compressed with gzip or not. It is read to its last byte, so that a reader
/// that checks its digest has done so.
fn scan(reader: &mut dyn Read, known: &Known) -> io::Result<Vec<Finding>> {
    let mut beginning = Vec::new();
    reader.take(ZSTD.len() as u64).read_to_end(&mut beginning)?;
    if beginning == ZSTD {
        return Err(io::Error::other(
            "it is compressed with zstd and cannot be searched for secrets: build it with gzip or none",
        ));
    }
    let gzip = beginning.starts_with(&GZIP);
    let mut whole = Cursor::new(beginning).chain(reader);
    let findings = match gzip {
        true => scan_tar(
            &mut Bounded::new(MultiGzDecoder::new(&mut whole), LARGEST),
            known,
        )?,
        false => scan_tar(&mut whole, known)?,
    };
    io::copy(&mut whole, &mut io::sink())?;
    Ok(findings)
}

fn scan_tar(reader: &mut dyn Read, known: &Known) -> io::Result<Vec<Finding>> {
    use tar::EntryType::{Continuous, GNUSparse, Regular};
    let mut findings = Vec::new();
    let mut archive = tar::Archive::new(&mut *reader);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !matches!(
            entry.header().entry_type(),
            Regular | Continuous | GNUSparse
        ) {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path.trim_start_matches("./").trim_start_matches('/');
        let path = format!("/{}", path.replace(char::is_control, "?"));
        if known.is_empty() {
            findings.extend(scan_file(&path, &mut entry)?);
            continue;
        }
        // What is read of it for one search is kept for the other.
        let mut beginning = Vec::new();
        (&mut entry).take(SEARCHED).read_to_end(&mut beginning)?;
        findings.extend(scan_file(&path, &mut beginning.as_slice())?);
        if known.is_read(&mut beginning.as_slice().chain(entry))? {
            findings.push(finding(&format!("file {path}"), OF_THE_BUILD));
        }
    }
    io::copy(reader, &mut io::sink())?;
    Ok(findings)
}

/// Fails when more comes than there should be: a few bytes can be compressed from very many.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Bounded<R> {
    fn new(inner: R, left: u64) -> Self {
        Self { inner, left }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other("it has more than 64 GiB without compression: make it smaller")
        })?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, path, text.as_bytes())
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn layers_are_searched_compressed_or_not_and_read_to_their_end() {
        let long = format!("{}/a.env", "long".repeat(60));
        let plain = archive(&[
            (
                "./workspace/settings.yaml",
                "a: 1\nb: 2\n\npassword: hunter2\n",
            ),
            (&long, "TOKEN=hunter2"),
            ("bin/tool", "\x7fELF\0\0password: hunter2"),
        ]);
        let nothing = Known::of(&[]);
        for layer in [&plain, &gzip(&plain)] {
            let mut reader = layer.as_slice();
            let found = scan(&mut reader, &nothing).unwrap();
            let places: Vec<&str> = found.iter().map(|found| found.place.as_str()).collect();
            let second = format!("file /{long} line 1");
            assert_eq!(
                places,
                ["file /workspace/settings.yaml line 4", second.as_str()]
            );
            assert!(reader.is_empty());
            let cut = scan(&mut &layer[..layer.len() / 3], &nothing);
            assert!(cut.is_err());
        }
        let zstd = scan(&mut [0x28, 0xb5, 0x2f, 0xfd, 0, 0].as_slice(), &nothing).unwrap_err();
        assert!(zstd.to_string().contains("zstd"));
    }

    #[test]
    fn secrets_of_the_build_are_found_in_all_files() {
        let long = format!("{}correct horse", "x".repeat(SEARCHED as usize));
        let layer = archive(&[
            ("bin/tool", "\x7fELF\0\0correct horse"),
            ("bin/other", "\x7fELF\0\0correct house"),
            ("long", &long),
            ("settings", "password: hunter2"),
        ]);
        let secret = BuildSecret::new("a", b"correct horse\n".to_vec()).unwrap();
        let found = scan(&mut layer.as_slice(), &Known::of(&[secret])).unwrap();
        let places: Vec<&str> = found.iter().map(|found| found.place.as_str()).collect();
        assert_eq!(
            places,
            ["file /bin/tool", "file /long", "file /settings line 1"]
        );
    }

    #[test]
    fn what_grows_without_end_is_not_read_to_it() {
        let bomb = gzip(&vec![0; 1 << 20]);
        let mut bounded = Bounded::new(MultiGzDecoder::new(bomb.as_slice()), 1 << 19);
        let error = io::copy(&mut bounded, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("without compression"), "{error}");
        let mut enough = Bounded::new(MultiGzDecoder::new(bomb.as_slice()), 1 << 20);
        assert_eq!(io::copy(&mut enough, &mut io::sink()).unwrap(), 1 << 20);
    }

    #[test]
    fn names_do_not_reach_the_terminal_as_they_are() {
        let layer = archive(&[("a\x1b[2Jb.env", "TOKEN=hunter2")]);
        let found = scan(&mut layer.as_slice(), &Known::of(&[])).unwrap();
        assert_eq!(found[0].place, "file /a?[2Jb.env line 1");
    }
}
