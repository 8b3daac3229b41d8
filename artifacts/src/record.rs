//! `artifact.yaml` (format §3): the name of the artifact and the size and SHA-256 of every other
//! member.

use mlwm_spec::Digest;
use mlwm_spec::yaml;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The version of the artifact format that this mlwm reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// A file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileEntry {
    /// Name of the member, `/` between folders.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes; none in artifacts of the Python tool, which recorded no hashes.
    pub sha256: Option<Digest>,
}

/// `artifact.yaml` as mlwm writes it. Nothing in it depends on where or when it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) format_version: u32,
    pub(crate) name: String,
    pub(crate) mlwm_version: String,
    pub(crate) set_digest: Digest,
    pub(crate) files: Vec<RecordedFile>,
}

/// One member in `artifact.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordedFile {
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) sha256: Digest,
}

/// `artifact.yaml` as it is found.
pub(crate) enum Found {
    /// Written by mlwm.
    Record(Record),
    /// Written by the Python tool: it has a name and no hashes (format §7).
    WithoutHashes { name: String },
}

/// Just enough to tell which of the two it is.
#[derive(Deserialize)]
struct Probe {
    format_version: Option<u32>,
    artifact_name: Option<String>,
}

/// SHA-256 over one line for each file, sorted by name (bytes): the 64 hexadecimal digits of its
/// SHA-256, two spaces and its name, as `sha256sum` prints them.
pub(crate) fn set_digest<'a>(files: impl IntoIterator<Item = (&'a str, Digest)>) -> Digest {
    let mut lines: Vec<_> = files.into_iter().collect();
    lines.sort_unstable_by_key(|(path, _)| *path);
    let text: String = lines
        .iter()
        .map(|(path, sha256)| format!("{}  {path}\n", sha256.hex()))
        .collect();
    Digest::of(text)
}

impl Record {
    /// The record of these files, which are all but `artifact.yaml`.
    pub(crate) fn new(name: &str, files: Vec<RecordedFile>) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            name: name.to_owned(),
            mlwm_version: env!("CARGO_PKG_VERSION").to_owned(),
            set_digest: set_digest(files.iter().map(|file| (&*file.path, file.sha256))),
            files,
        }
    }

    /// The bytes of `artifact.yaml`.
    pub(crate) fn to_yaml(&self) -> Result<String, Error> {
        serde_saphyr::to_string(self).map_err(|source| Error::WriteYaml {
            what: "artifact.yaml",
            source: Box::new(source),
        })
    }
}

/// Reads `artifact.yaml`; `source_name` is what an error calls it.
pub(crate) fn parse(text: &str, source_name: &str) -> Result<Found, Error> {
    let probe: Probe = yaml::parse(text, source_name)?;
    match (probe.format_version, probe.artifact_name) {
        (Some(FORMAT_VERSION), _) => Ok(Found::Record(yaml::parse(text, source_name)?)),
        (Some(found), _) => Err(Error::FormatVersion {
            path: source_name.to_owned(),
            found,
        }),
        (None, Some(name)) => Ok(Found::WithoutHashes { name }),
        (None, None) => Err(Error::NotAnArtifact {
            path: source_name.into(),
            why: "its artifact.yaml has no `format_version`",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            mlwm_version: "0.1.0".into(),
            ..Record::new(
                "model",
                vec![RecordedFile {
                    path: "configs/config.yaml".into(),
                    size: 3,
                    sha256: Digest::of("abc"),
                }],
            )
        }
    }

    #[test]
    fn is_read_back_and_looks_as_specified() {
        let text = record().to_yaml().unwrap();
        assert_eq!(
            text,
            "format_version: 1\nname: model\nmlwm_version: \"0.1.0\"\nset_digest: sha256:46873903173a373f4173c3a548086d0d0a77a69030a6f79dc64f084d2ed94736\nfiles:\n- path: configs/config.yaml\n  size: 3\n  sha256: sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n"
        );
        let Found::Record(back) = parse(&text, "artifact.yaml").unwrap() else {
            panic!("not a record");
        };
        assert_eq!(back, record());
    }

    #[test]
    fn other_versions_and_other_files_are_refused() {
        let newer = record()
            .to_yaml()
            .unwrap()
            .replace("format_version: 1", "format_version: 2");
        assert!(matches!(
            parse(&newer, "a"),
            Err(Error::FormatVersion { found: 2, .. })
        ));
        assert!(matches!(
            parse("x: 1\n", "a"),
            Err(Error::NotAnArtifact { .. })
        ));
        let extra = format!("{}surprise: 1\n", record().to_yaml().unwrap());
        assert!(matches!(parse(&extra, "a"), Err(Error::Yaml(_))));
    }

    #[test]
    fn the_python_tools_record_is_recognised() {
        let text = "argv: [x]\nartifact_name: tiny\nhostname: node\n";
        assert!(matches!(parse(text, "a"), Ok(Found::WithoutHashes { name }) if name == "tiny"));
    }
}
