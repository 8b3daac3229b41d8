//! What a registry keeps of a publication, and where (`docs/registries.md` §2).

use mlwm_spec::{ArtifactName, Digest, PublishedArtifact, Tag};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The version of the layout of a registry that this mlwm reads and writes.
pub const REGISTRY_VERSION: u32 = 1;

/// The record of one publication, `artifacts/<name>/<tag>.json`: never rewritten, but by a tag that
/// is moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// Version of the layout.
    pub format: u32,
    /// What it is published as.
    pub name: ArtifactName,
    /// Which publication of that name it is.
    pub tag: Tag,
    /// SHA-256 of the zip: what references pin.
    pub digest: Digest,
    /// Digest of the files in it, however they are packed.
    pub set_digest: Digest,
    /// Size of the zip in bytes.
    pub size: u64,
    /// Number of files in it.
    pub files: u64,
    /// When it was published, UTC.
    pub published_at: String,
    /// Where the zip lies: the path below a directory, S3 or GCS registry; the manifest's digest in
    /// an OCI registry.
    pub object: String,
    /// Where, when and from what it was built, as YAML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<String>,
}

impl Publication {
    /// The reference that pins exactly this content in `registry`.
    pub fn reference(&self, registry: Option<&str>) -> PublishedArtifact {
        PublishedArtifact {
            registry: registry.map(str::to_owned),
            name: self.name.clone(),
            tag: (!self.tag.is_latest()).then(|| self.tag.clone()),
            digest: Some(self.digest),
        }
    }

    /// The bytes of the record.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, Error> {
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::Broken(format!("a record cannot be written ({error})")))?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads a record that must be that of `name` and `tag`; `source` is what an error calls it.
    pub(crate) fn parse(
        bytes: &[u8],
        name: &ArtifactName,
        tag: &Tag,
        source: &str,
    ) -> Result<Self, Error> {
        let bad = |why: String| Error::BadRecord {
            record: source.to_owned(),
            why,
        };
        check_version(bytes, source)?;
        let record: Self = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        if (&record.name, &record.tag) != (name, tag) {
            return Err(bad(format!(
                "it is the record of {}:{}",
                record.name, record.tag
            )));
        }
        if !is_object_path(&record.object, name) {
            return Err(bad("its zip lies outside the registry's objects".to_owned()));
        }
        Ok(record)
    }
}

/// Refuses the JSON of a registry that a later mlwm wrote, before its keys are looked at.
pub(crate) fn check_version(bytes: &[u8], source: &str) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let bad = |why: String| Error::BadRecord {
        record: source.to_owned(),
        why,
    };
    let found: Version = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
    match found.format {
        REGISTRY_VERSION => Ok(()),
        format => Err(bad(format!(
            "its format is {format}, but this mlwm knows {REGISTRY_VERSION}: use a newer mlwm"
        ))),
    }
}

/// The policy of a registry.
pub(crate) const REGISTRY_JSON: &str = "registry.json";
/// The folder of the records.
pub(crate) const ARTIFACTS: &str = "artifacts";
/// The folder of the zips.
pub(crate) const OBJECTS: &str = "objects";
/// The folder of the signatures.
pub(crate) const SIGNATURES: &str = "signatures";

const RECORD_SUFFIX: &str = ".json";
const CLAIMS_SUFFIX: &str = ".claims";
const OBJECT_SUFFIX: &str = ".zip";
const SIGNATURE_SUFFIX: &str = ".minisig";

/// `artifacts/<name>`
pub(crate) fn records_of(name: &ArtifactName) -> String {
    format!("{ARTIFACTS}/{name}")
}

/// `artifacts/<name>/<tag>.json`
pub(crate) fn record_path(name: &ArtifactName, tag: &Tag) -> String {
    format!("{ARTIFACTS}/{name}/{tag}{RECORD_SUFFIX}")
}

/// `artifacts/<name>/<tag>.claims`
pub(crate) fn claims_path(name: &ArtifactName, tag: &Tag) -> String {
    format!("{ARTIFACTS}/{name}/{tag}{CLAIMS_SUFFIX}")
}

/// `objects/<name>/<key>.zip`
pub(crate) fn object_path(name: &ArtifactName, key: &str) -> String {
    format!("{OBJECTS}/{name}/{key}{OBJECT_SUFFIX}")
}

/// `signatures/<hex of digest>`
pub(crate) fn signatures_of(digest: Digest) -> String {
    format!("{SIGNATURES}/{}", digest.hex())
}

/// `signatures/<hex of digest>/<key id>.minisig`
pub(crate) fn signature_path(digest: Digest, key_id: &str) -> String {
    format!("{}/{key_id}{SIGNATURE_SUFFIX}", signatures_of(digest))
}

/// What a path below `artifacts` is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The record of a publication.
    Record(ArtifactName, Tag),
    /// A claim to a publication.
    Claim(ArtifactName, Tag),
}

/// Reads a path below `artifacts`; `None` for what mlwm did not write.
pub(crate) fn entry(path: &str) -> Option<Entry> {
    let (name, rest) = path.split_once('/')?;
    let name: ArtifactName = name.parse().ok()?;
    match rest.split_once('/') {
        None => {
            let tag = rest.strip_suffix(RECORD_SUFFIX)?.parse().ok()?;
            Some(Entry::Record(name, tag))
        }
        Some((folder, claim)) if !claim.contains('/') => {
            let tag = folder.strip_suffix(CLAIMS_SUFFIX)?.parse().ok()?;
            Some(Entry::Claim(name, tag))
        }
        Some(_) => None,
    }
}

/// The digest and key id of a path below `signatures`.
pub(crate) fn signature_entry(path: &str) -> Option<(Digest, &str)> {
    let (hex, file) = path.split_once('/')?;
    let digest = format!("sha256:{hex}").parse().ok()?;
    let key_id = file.strip_suffix(SIGNATURE_SUFFIX)?;
    is_key_id(key_id).then_some((digest, key_id))
}

/// Whether this is a minisign key id: 16 upper-case hexadecimal digits.
pub(crate) fn is_key_id(text: &str) -> bool {
    let digit = |b: u8| matches!(b, b'0'..=b'9' | b'A'..=b'F');
    text.len() == 16 && text.bytes().all(digit)
}

/// A record may name only a zip of its own name, or (in an OCI registry) a manifest.
fn is_object_path(object: &str, name: &ArtifactName) -> bool {
    let key = object
        .strip_prefix(&format!("{OBJECTS}/{name}/"))
        .and_then(|rest| rest.strip_suffix(OBJECT_SUFFIX));
    key.is_some_and(|key| !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Publication {
        Publication {
            format: REGISTRY_VERSION,
            name: "gefion-1".parse().unwrap(),
            tag: "v2".parse().unwrap(),
            digest: Digest::of("zip"),
            set_digest: Digest::of("set"),
            size: 3,
            files: 9,
            published_at: "2026-11-21T00:00:00Z".into(),
            object: "objects/gefion-1/0a1b.zip".into(),
            provenance: None,
        }
    }

    fn parse(record: &Publication) -> Result<Publication, Error> {
        let (name, tag) = ("gefion-1".parse().unwrap(), "v2".parse().unwrap());
        Publication::parse(&record.to_json().unwrap(), &name, &tag, "the record")
    }

    #[test]
    fn a_record_is_read_back() {
        assert_eq!(parse(&record()).unwrap(), record());
        let with = Publication {
            provenance: Some("host: node\n".into()),
            ..record()
        };
        assert_eq!(parse(&with).unwrap(), with);
    }

    #[test]
    fn a_record_of_something_else_or_that_leads_elsewhere_is_refused() {
        for (change, word) in [
            (
                Publication {
                    format: 2,
                    ..record()
                },
                "newer",
            ),
            (
                Publication {
                    tag: Tag::latest(),
                    ..record()
                },
                "record of",
            ),
            (
                Publication {
                    name: "other".parse().unwrap(),
                    ..record()
                },
                "record of",
            ),
            (
                Publication {
                    object: "objects/other/0a.zip".into(),
                    ..record()
                },
                "outside",
            ),
            (
                Publication {
                    object: "objects/gefion-1/../x.zip".into(),
                    ..record()
                },
                "outside",
            ),
            (
                Publication {
                    object: "objects/gefion-1/.zip".into(),
                    ..record()
                },
                "outside",
            ),
        ] {
            let error = parse(&change).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let (name, tag) = (record().name, record().tag);
        for text in ["", "{", "{\"format\":1}", "[]"] {
            assert!(Publication::parse(text.as_bytes(), &name, &tag, "r").is_err());
        }
    }

    #[test]
    fn paths_are_told_apart() {
        let (name, tag) = (record().name, record().tag);
        let below = |path: String| path.strip_prefix("artifacts/").unwrap().to_owned();
        assert_eq!(
            entry(&below(record_path(&name, &tag))),
            Some(Entry::Record(name.clone(), tag.clone()))
        );
        assert_eq!(
            entry(&format!("{}/x", below(claims_path(&name, &tag)))),
            Some(Entry::Claim(name.clone(), tag))
        );
        for other in [
            "a",
            "a/b",
            "a/.json",
            "a/b.json/c",
            "a/b.claims/c/d",
            ".x/b.json",
        ] {
            assert_eq!(entry(other), None, "{other}");
        }
        let digest = Digest::of("x");
        let path = signature_path(digest, "0123456789ABCDEF");
        let path = path.strip_prefix("signatures/").unwrap();
        assert_eq!(signature_entry(path), Some((digest, "0123456789ABCDEF")));
        assert_eq!(signature_entry("xx/0123456789ABCDEF.minisig"), None);
    }
}
