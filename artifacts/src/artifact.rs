//! Reading an artifact.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use mlwm_spec::{DatastoreConfig, Digest, Interface, NeuralLamConfig, yaml};

use crate::error::{Error, io_error};
use crate::facts;
use crate::form::Plan;
use crate::framing::{self, Directory, Member};
use crate::hashing::digest_of;
use crate::layout::{ARTIFACT_YAML, INTERFACE_JSON, NEURAL_LAM_CONFIG, datastore_config_member};
use crate::member::{MemberReader, check};
use crate::record::{self, FileEntry, Found, Record, set_digest};
use crate::source::{FileSource, ReadAt, Span, Tail};

/// Largest `artifact.yaml`, configuration or interface that is read, in bytes.
const MAX_TEXT: u64 = 64 << 20;

/// What is read on opening, at once: in an artifact of usual size the directory, `artifact.yaml`
/// and everything else but the model, since the files of the model come first (format §6).
const TAIL: u64 = 1 << 20;

/// An artifact: a zip whose directory has been read and checked. The bytes of its members are
/// checked when they are read, or all at once by [`Artifact::verify`].
pub struct Artifact {
    path: PathBuf,
    source: Arc<Tail>,
    name: String,
    /// From `artifact.yaml`; not in one of the Python tool.
    mlwm_version: Option<String>,
    set_digest: Option<Digest>,
    files: Vec<FileEntry>,
    /// In the order of `files`.
    members: Vec<Member>,
    /// Position in `files`.
    positions: HashMap<String, usize>,
    /// None if the zip has not the form that mlwm writes.
    plan: Option<Plan>,
    digest: OnceLock<Digest>,
}

impl fmt::Debug for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifact")
            .field("path", &self.path)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Artifact {
    /// Reads the directory and `artifact.yaml` of the artifact at `path`. Names, sizes and kinds of
    /// all members are checked; contents are not (see [`Artifact::verify`]).
    pub fn open(path: &Path) -> Result<Self, Error> {
        let source = FileSource::open(path)?;
        Self::from_source(Arc::new(source), path)
    }

    /// The same for an artifact that lies elsewhere, such as in a registry; `path` is what errors
    /// call it. One read at the end of the source is all that an artifact of usual size needs.
    pub fn from_source(source: Arc<dyn ReadAt>, path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let source = Tail::read(source, TAIL).map_err(io_error("read", &path))?;
        let Directory { members, plan } =
            framing::read(&source).map_err(|source| Error::Framing {
                path: path.clone(),
                source,
            })?;
        let names = members.iter().map(|member| member.placed.name.clone());
        let mut artifact = Self {
            path,
            source: Arc::new(source),
            name: String::new(),
            mlwm_version: None,
            set_digest: None,
            files: members
                .iter()
                .map(|member| FileEntry {
                    path: member.placed.name.clone(),
                    size: member.placed.size,
                    sha256: None,
                })
                .collect(),
            positions: names.zip(0..).collect(),
            members,
            plan,
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
                self.mlwm_version = Some(record.mlwm_version);
                self.set_digest = Some(record.set_digest);
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
        let found = set_digest(record.files.iter().map(|file| (&*file.path, file.sha256)));
        if found != record.set_digest {
            return Err(Error::SetDigest {
                path: self.path.clone(),
                recorded: record.set_digest,
                found,
            });
        }
        Ok(())
    }

    /// The zip, or what else it was opened as.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the zip in bytes.
    pub fn size(&self) -> u64 {
        self.source.size()
    }

    /// The name in `artifact.yaml`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of mlwm that wrote it; none for an artifact of the Python tool.
    pub fn mlwm_version(&self) -> Option<&str> {
        self.mlwm_version.as_deref()
    }

    /// SHA-256 over names and hashes of all files but `artifact.yaml` (format §3): the identity of
    /// the contents, however they are packed. None for an artifact of the Python tool.
    pub fn set_digest(&self) -> Option<Digest> {
        self.set_digest
    }

    /// All files, `artifact.yaml` too, in the order they lie in the zip.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// Whether there is a file of this name.
    pub fn contains(&self, member: &str) -> bool {
        self.positions.contains_key(member)
    }

    /// SHA-256 of the whole zip: what an artifact is pinned by. Read once, then remembered; known
    /// without reading after [`Artifact::verify`].
    pub fn digest(&self) -> Result<Digest, Error> {
        if let Some(digest) = self.digest.get() {
            return Ok(*digest);
        }
        let whole = Span::new(Arc::clone(self.source.inner()), 0, self.size());
        let digest = digest_of(whole).map_err(io_error("read", &self.path))?;
        Ok(self.remember(digest))
    }

    /// The digest of the zip, if it has been computed.
    pub(crate) fn known_digest(&self) -> Option<Digest> {
        self.digest.get().copied()
    }

    pub(crate) fn remember(&self, digest: Digest) -> Digest {
        *self.digest.get_or_init(|| digest)
    }

    /// Reads one file. The reader compares the records around it, size, CRC-32 and (where
    /// recorded) SHA-256 at the end, and fails there if they differ.
    pub fn reader(&self, member: &str) -> Result<MemberReader, Error> {
        let position = self.position(member)?;
        Ok(self.reader_at(position, self.files[position].sha256))
    }

    /// The same without SHA-256, for who knows the digest of the whole artifact, or compares that of
    /// the file otherwise.
    pub fn quick_reader(&self, member: &str) -> Result<MemberReader, Error> {
        Ok(self.reader_at(self.position(member)?, None))
    }

    fn reader_at(&self, position: usize, sha256: Option<Digest>) -> MemberReader {
        let member = self.members[position].clone();
        let source = Arc::clone(&self.source) as _;
        MemberReader::new(&self.path, source, member, sha256, self.plan.is_some())
    }

    fn position(&self, member: &str) -> Result<usize, Error> {
        let position = self.positions.get(member).copied();
        position.ok_or_else(|| self.no_member(member, ""))
    }

    /// The place of a file's bytes in the zip: offset and length. They are checked by nobody here.
    pub(crate) fn place(&self, member: &str) -> Result<(u64, u64), Error> {
        let placed = &self.members[self.position(member)?].placed;
        Ok((placed.data_at, placed.size))
    }

    /// The source, of which the last bytes are in memory.
    pub(crate) fn source(&self) -> Arc<dyn ReadAt> {
        Arc::clone(&self.source) as _
    }

    /// The source as it is now.
    pub(crate) fn fresh_source(&self) -> Arc<dyn ReadAt> {
        Arc::clone(self.source.inner())
    }

    /// Where everything lies in a zip of the form that mlwm writes.
    pub(crate) fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// The CRC-32 of every file that the directory records, in order.
    pub(crate) fn checksums(&self) -> impl Iterator<Item = u32> {
        self.members.iter().map(|member| member.crc32)
    }

    /// Compares what the bytes of the file at `position` give with what is recorded.
    pub(crate) fn check_content(
        &self,
        position: usize,
        sha256: Digest,
        crc32: u32,
    ) -> Result<(), Error> {
        let recorded = self.files[position].sha256;
        let sha256 = recorded.map(|recorded| (recorded, sha256));
        check(&self.path, &self.members[position], sha256, crc32)
    }

    /// The bytes of a file of at most `limit` bytes, checked.
    pub fn read(&self, member: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let mut reader = self.reader(member)?;
        if reader.size() > limit {
            return Err(Error::TooLarge {
                path: self.path.clone(),
                member: member.to_owned(),
                size: reader.size(),
                limit,
            });
        }
        let mut bytes = Vec::new();
        reader
            .read_to_end(&mut bytes)
            .map_err(|error| self.read_error(error))?;
        Ok(bytes)
    }

    /// The interface of the model, if the artifact has one.
    pub fn interface(&self) -> Result<Option<Interface>, Error> {
        if !self.contains(INTERFACE_JSON) {
            return Ok(None);
        }
        let text = self.read_text(INTERFACE_JSON)?;
        facts::parse_interface(&text, &self.source_name(INTERFACE_JSON)).map(Some)
    }

    /// The configurations of the datastores by name, in the order of the neural-lam configuration; a
    /// model of another kind has none.
    pub fn datastores(&self) -> Result<Vec<(String, DatastoreConfig)>, Error> {
        if !self.contains(NEURAL_LAM_CONFIG) {
            return Ok(Vec::new());
        }
        let text = self.read_text(NEURAL_LAM_CONFIG)?;
        let config: NeuralLamConfig = yaml::parse(&text, &self.source_name(NEURAL_LAM_CONFIG))?;
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

    pub(crate) fn read_text(&self, member: &str) -> Result<String, Error> {
        String::from_utf8(self.read(member, MAX_TEXT)?).map_err(|_| Error::Configuration {
            path: self.source_name(member),
            why: "it is not UTF-8 text".to_owned(),
        })
    }

    fn source_name(&self, member: &str) -> String {
        format!("{} in {}", member, self.path.display())
    }

    pub(crate) fn no_member(&self, member: &str, hint: &'static str) -> Error {
        Error::NoMember {
            path: self.path.clone(),
            member: member.to_owned(),
            hint,
        }
    }
}
