//! Reading an artifact.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use mlwm_spec::{DatastoreConfig, Digest, Interface, NeuralLamConfig, yaml};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, io_error};
use crate::facts;
use crate::framing::{self, Directory, Member};
use crate::layout::{ARTIFACT_YAML, INTERFACE_JSON, NEURAL_LAM_CONFIG, datastore_config_member};
use crate::record::{self, FileEntry, Found, Record};

/// Largest `artifact.yaml`, configuration or interface that is read, in bytes.
const MAX_TEXT: u64 = 64 << 20;

/// An artifact: a zip whose directory has been read and checked. The bytes of its members are
/// checked when they are read, or all at once by [`Artifact::verify`].
#[derive(Debug)]
pub struct Artifact {
    path: PathBuf,
    file: Arc<File>,
    length: u64,
    name: String,
    files: Vec<FileEntry>,
    /// By name, with the position in `files`.
    members: HashMap<String, (usize, Member)>,
    pub(crate) deviation: Option<String>,
    pub(crate) has_hashes: bool,
    digest: OnceLock<Digest>,
}

impl Artifact {
    /// Reads the directory and `artifact.yaml` of the artifact at `path`. Names, sizes and kinds of
    /// all members are checked; contents are not (see [`Artifact::verify`]).
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let metadata = file.metadata().map_err(io_error("open", path))?;
        if !metadata.is_file() {
            return Err(Error::NotAnArtifact {
                path: path.to_owned(),
                why: "it is not a file",
            });
        }
        let Directory { members, deviation } =
            framing::read(&file, metadata.len()).map_err(|source| Error::Framing {
                path: path.to_owned(),
                source,
            })?;
        let mut artifact = Self {
            path: path.to_owned(),
            file: Arc::new(file),
            length: metadata.len(),
            name: String::new(),
            files: members
                .iter()
                .map(|member| FileEntry {
                    path: member.name.clone(),
                    size: member.size,
                    sha256: None,
                })
                .collect(),
            members: members
                .into_iter()
                .enumerate()
                .map(|(position, member)| (member.name.clone(), (position, member)))
                .collect(),
            deviation,
            has_hashes: false,
            digest: OnceLock::new(),
        };
        artifact.read_record()?;
        Ok(artifact)
    }

    /// Takes name and hashes from `artifact.yaml`, which must list every other member and no more.
    fn read_record(&mut self) -> Result<(), Error> {
        if !self.contains(ARTIFACT_YAML) {
            return Err(Error::NotAnArtifact {
                path: self.path.clone(),
                why: "it has no artifact.yaml",
            });
        }
        let text = self.read_text(ARTIFACT_YAML)?;
        match record::parse(&text, &self.source_name(ARTIFACT_YAML))? {
            Found::WithoutHashes { name } => self.name = name,
            Found::Record(record) => {
                self.take_hashes(&record, Digest::of(&text))?;
                self.name = record.name;
                self.has_hashes = true;
            }
        }
        Ok(())
    }

    fn take_hashes(&mut self, record: &Record, of_record: Digest) -> Result<(), Error> {
        let mut listed: HashMap<&str, (u64, Digest)> = HashMap::new();
        for file in &record.files {
            listed.insert(&file.path, (file.size, file.sha256));
            if !self.contains(&file.path) {
                return Err(self.no_member(&file.path, "; fetch or build it again"));
            }
        }
        // A name listed twice, or artifact.yaml itself: this mlwm writes neither.
        if listed.len() != record.files.len() || listed.contains_key(ARTIFACT_YAML) {
            return Err(Error::NotAnArtifact {
                path: self.path.clone(),
                why: "its artifact.yaml lists a file twice, or itself",
            });
        }
        for entry in &mut self.files {
            if entry.path == ARTIFACT_YAML {
                entry.sha256 = Some(of_record);
                continue;
            }
            let (expected, sha256) =
                *listed
                    .get(entry.path.as_str())
                    .ok_or_else(|| Error::ExtraMember {
                        path: self.path.clone(),
                        member: entry.path.clone(),
                    })?;
            if expected != entry.size {
                return Err(Error::Size {
                    path: self.path.clone(),
                    member: entry.path.clone(),
                    expected,
                    found: entry.size,
                });
            }
            entry.sha256 = Some(sha256);
        }
        Ok(())
    }

    /// The zip.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the zip in bytes.
    pub fn size(&self) -> u64 {
        self.length
    }

    /// The name in `artifact.yaml`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All files, `artifact.yaml` too, in the order they lie in the zip.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// Whether there is a file of this name.
    pub fn contains(&self, member: &str) -> bool {
        self.members.contains_key(member)
    }

    /// SHA-256 of the whole zip: what an artifact is pinned by. Read once, then remembered.
    pub fn digest(&self) -> Result<Digest, Error> {
        if let Some(digest) = self.digest.get() {
            return Ok(*digest);
        }
        let whole = Span::new(&self.file, 0, self.length);
        let digest = digest_of(whole).map_err(io_error("read", &self.path))?;
        Ok(*self.digest.get_or_init(|| digest))
    }

    /// Reads one file. The reader compares size, CRC-32 and (where recorded) SHA-256 at the end,
    /// and fails there if they differ.
    pub fn reader(&self, member: &str) -> Result<MemberReader, Error> {
        let (position, found) = self
            .members
            .get(member)
            .ok_or_else(|| self.no_member(member, ""))?;
        Ok(MemberReader {
            artifact: self.path.clone(),
            span: Span::new(&self.file, found.offset, found.size),
            member: found.clone(),
            expected: self.files[*position].sha256,
            sha256: Sha256::new(),
            crc32: crc32fast::Hasher::new(),
        })
    }

    /// The bytes of a file of at most `limit` bytes, checked.
    pub fn read(&self, member: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let mut reader = self.reader(member)?;
        if reader.member.size > limit {
            return Err(Error::TooLarge {
                path: self.path.clone(),
                member: member.to_owned(),
                size: reader.member.size,
                limit,
            });
        }
        let mut bytes = Vec::new();
        reader
            .read_to_end(&mut bytes)
            .map_err(|error| self.read_error(error))?;
        Ok(bytes)
    }

    /// The interface of the ONNX model, if the artifact has one.
    pub fn interface(&self) -> Result<Option<Interface>, Error> {
        if !self.contains(INTERFACE_JSON) {
            return Ok(None);
        }
        let text = self.read_text(INTERFACE_JSON)?;
        facts::parse_interface(&text, &self.source_name(INTERFACE_JSON)).map(Some)
    }

    /// The neural-lam configuration.
    pub fn neural_lam_config(&self) -> Result<NeuralLamConfig, Error> {
        let text = self.read_text(NEURAL_LAM_CONFIG)?;
        Ok(yaml::parse(&text, &self.source_name(NEURAL_LAM_CONFIG))?)
    }

    /// The configurations of the datastores by name, in the order of the neural-lam configuration.
    pub fn datastores(&self) -> Result<Vec<(String, DatastoreConfig)>, Error> {
        let config = self.neural_lam_config()?;
        let named = config
            .named_datastores()
            .map_err(|source| Error::Datastores {
                path: self.source_name(NEURAL_LAM_CONFIG),
                source,
            })?;
        named
            .into_iter()
            .map(|(name, _)| {
                let member = datastore_config_member(&name);
                let text = self.read_text(&member)?;
                Ok((name, yaml::parse(&text, &self.source_name(&member))?))
            })
            .collect()
    }

    /// What went wrong in a [`MemberReader`].
    pub(crate) fn read_error(&self, error: io::Error) -> Error {
        match error.downcast::<Error>() {
            Ok(ours) => ours,
            Err(source) => io_error("read", &self.path)(source),
        }
    }

    fn read_text(&self, member: &str) -> Result<String, Error> {
        String::from_utf8(self.read(member, MAX_TEXT)?).map_err(|_| Error::Configuration {
            path: self.source_name(member),
            why: "it is not UTF-8 text".to_owned(),
        })
    }

    fn source_name(&self, member: &str) -> String {
        format!("{} in {}", member, self.path.display())
    }

    fn no_member(&self, member: &str, hint: &'static str) -> Error {
        Error::NoMember {
            path: self.path.clone(),
            member: member.to_owned(),
            hint,
        }
    }
}

/// A part of a file, read without moving the file's own position.
#[derive(Debug)]
struct Span {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Span {
    fn new(file: &Arc<File>, at: u64, length: u64) -> Self {
        Self {
            file: Arc::clone(file),
            at,
            left: length,
        }
    }
}

impl Read for Span {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// Reads one file of an artifact and checks it: the read that would report the end fails with
/// [`Error::Hash`] (inside [`io::Error`]) if the bytes were not those recorded.
#[derive(Debug)]
pub struct MemberReader {
    artifact: PathBuf,
    span: Span,
    member: Member,
    expected: Option<Digest>,
    sha256: Sha256,
    crc32: crc32fast::Hasher,
}

impl MemberReader {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.member.size
    }

    fn check(&self) -> io::Result<()> {
        let crc32 = self.crc32.clone().finalize();
        let sha256 = Digest::from_hasher(self.sha256.clone());
        let (expected, found) = match self.expected {
            Some(expected) if expected != sha256 => (expected.to_string(), sha256.to_string()),
            _ if crc32 != self.member.crc32 => (
                format!("crc32:{:08x}", self.member.crc32),
                format!("crc32:{crc32:08x}"),
            ),
            _ => return Ok(()),
        };
        Err(io::Error::other(Error::Hash {
            path: self.artifact.clone(),
            member: self.member.name.clone(),
            expected,
            found,
        }))
    }
}

impl Read for MemberReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.span.read(buffer)?;
        let bytes = &buffer[..read];
        self.crc32.update(bytes);
        self.sha256.update(bytes);
        if read == 0 {
            self.check()?;
        }
        Ok(read)
    }
}

/// SHA-256 of all that a reader gives.
pub(crate) fn digest_of(mut source: impl Read) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(Digest::from_hasher(hasher)),
            read => hasher.update(&buffer[..read]),
        }
    }
}
