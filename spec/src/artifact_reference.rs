//! How an inference artifact is named: `<name>[:<tag>][@sha256:<hex>]`, in a registry that is given
//! by its URI (`docs/registries.md` §1), or a local zip.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, without_credentials};

/// Ends the path of a local artifact, and never a published name.
const ZIP: &str = ".zip";

/// Kinds of registries that have a scheme.
const SCHEMES: [&str; 4] = ["file", "s3", "gs", "oci"];

/// The name of an artifact: letters, digits, `.`, `_`, `-`; no leading dot, at most 128, not ending
/// in `.zip`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtifactName(String);

/// One of the publications of a name: `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`, as OCI has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

/// An artifact as it is named on a command line or in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ArtifactReference {
    /// A zip on this machine.
    File(ArtifactFile),
    /// A publication in a registry.
    Published(PublishedArtifact),
}

/// A zip on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArtifactFile {
    /// Its path, absolute or relative to the current folder; ends in `.zip`.
    pub path: String,
    /// What its SHA-256 must be.
    pub digest: Option<Digest>,
}

/// A publication in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PublishedArtifact {
    /// URI or folder of the registry, without a final `/` (but for the root folder); absent where
    /// the registry of the environment is meant.
    pub registry: Option<String>,
    /// The name.
    pub name: ArtifactName,
    /// The tag; absent where none was written.
    pub tag: Option<Tag>,
    /// What the SHA-256 of its zip must be.
    pub digest: Option<Digest>,
}

/// A text that names no artifact.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// Nothing.
    #[error(
        "an empty text names no artifact: write a name like `gefion-1`, a URI like s3://bucket/models/gefion-1, or the path of a .zip"
    )]
    Empty,
    /// The last part is not a name.
    #[error(
        "`{0}` is not the name of an artifact: use 1 to 128 letters, digits, `.`, `_` and `-`, no dot in front, no `.zip` at the end"
    )]
    Name(String),
    /// What follows the colon is not a tag.
    #[error(
        "`{0}` is not a tag: use 1 to 128 letters, digits, `.`, `_` and `-`, beginning with a letter, digit or `_`"
    )]
    Tag(String),
    /// What follows the `@` is not a digest.
    #[error("`@{0}` pins no content: write `@sha256:` followed by 64 hexadecimal digits")]
    Pin(String),
    /// A scheme that no registry has.
    #[error(
        "`{0}` is in no registry that mlwm can reach: start it with s3://, gs://, oci:// or file://, or write a path"
    )]
    Scheme(String),
    /// A URI without the name of an artifact.
    #[error("`{0}` names a registry and no artifact in it: append `/<name>`")]
    NoName(String),
    /// One slash, where a scheme has two.
    #[error("`{0}` has one slash after its scheme: write `{1}`, or ./{0} if you mean a folder")]
    OneSlash(String, String),
    /// An artifact, where a registry is to be named.
    #[error(
        "`{0}` names an artifact, and a registry is wanted here: leave out `{1}`, and give a tag with --tag"
    )]
    NoRegistry(String, String),
    /// Credentials.
    #[error(
        "a URI with a user or password would be recorded with every forecast: give credentials by the environment of mlwm"
    )]
    Credentials,
    /// A place that is not written plainly.
    #[error(
        "`{0}` holds `..`, `?`, `#`, `%`, `\\`, white space, control characters or an empty part: write the place plainly"
    )]
    Characters(String),
}

impl ArtifactName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `latest`: the tag that an absent tag means. It is a publication like any other, and as
    /// permanent; OCI clients look for it by themselves.
    pub fn latest() -> Self {
        Self("latest".to_owned())
    }

    /// Whether this is `latest`.
    pub fn is_latest(&self) -> bool {
        self.0 == "latest"
    }
}

impl ArtifactReference {
    /// The digest that the content must have.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::File(file) => file.digest,
            Self::Published(published) => published.digest,
        }
    }
}

/// 1 to 128 characters of which names and tags are made.
fn is_plain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=128).contains(&text.len()) && text.bytes().all(plain)
}

impl FromStr for ArtifactName {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        match is_plain(text) && !text.starts_with('.') && !text.ends_with(ZIP) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidReference::Name(text.escape_debug().to_string())),
        }
    }
}

impl FromStr for Tag {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        match is_plain(text) && !text.starts_with(['.', '-']) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidReference::Tag(text.escape_debug().to_string())),
        }
    }
}

impl FromStr for ArtifactReference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.is_empty() {
            return Err(InvalidReference::Empty);
        }
        let (place, digest) = split_pin(text)?;
        let scheme = check_place(place)?;
        if place.ends_with(ZIP) && scheme.is_none_or(|scheme| scheme == "file") {
            let path = place.strip_prefix("file://").unwrap_or(place).to_owned();
            return Ok(Self::File(ArtifactFile { path, digest }));
        }
        let (registry, published) = split_registry(place)?;
        let (name, tag) = match published.split_once(':') {
            Some((name, tag)) => (name, Some(tag.parse()?)),
            None => (published, None),
        };
        Ok(Self::Published(PublishedArtifact {
            registry: registry.map(str::to_owned),
            name: name.parse()?,
            tag,
            digest,
        }))
    }
}

/// `a@sha256:…` is `a` and the digest. An `@` in a folder's name is none of a pin.
fn split_pin(text: &str) -> Result<(&str, Option<Digest>), InvalidReference> {
    let last = text.rfind('/').map_or(0, |slash| slash + 1);
    let Some(at) = text[last..].find('@') else {
        return Ok((text, None));
    };
    let (place, pin) = text.split_at(last + at);
    let pin = &pin[1..];
    // `s3://user:secret@bucket` has no path, and its last part looks like a pinned name.
    if place
        .rsplit_once('/')
        .is_some_and(|(before, _)| before.ends_with(":/"))
    {
        return match pin.parse() {
            Ok(digest) => Ok((place, Some(digest))),
            Err(_) => Err(InvalidReference::Credentials),
        };
    }
    let digest = pin
        .parse()
        .map_err(|_| InvalidReference::Pin(pin.escape_debug().to_string()))?;
    Ok((place, Some(digest)))
}

/// Refuses what names no registry that mlwm could refer to later: a scheme that it does not know, a
/// path that is not written plainly, an artifact.
pub fn check_registry(text: &str) -> Result<(), InvalidReference> {
    if text.is_empty() {
        return Err(InvalidReference::Empty);
    }
    let place = match text.trim_end_matches('/') {
        "" | "file:" => return Ok(()),
        place => place,
    };
    check_place(place)?;
    let path = place.split_once("://").map_or(place, |(_, rest)| {
        rest.split_once('/').map_or("", |(_, path)| path)
    });
    let last = path.rsplit('/').next().unwrap_or_default();
    match last.find([':', '@']) {
        Some(at) => Err(InvalidReference::NoRegistry(
            shown(text),
            shown(&last[at..]),
        )),
        None => Ok(()),
    }
}

/// Refuses places that no reference has. Gives the scheme.
fn check_place(place: &str) -> Result<Option<&str>, InvalidReference> {
    let Some((scheme, _)) = place.split_once("://") else {
        return match place.split_once(":/") {
            Some((scheme, path)) if SCHEMES.contains(&scheme) => Err(InvalidReference::OneSlash(
                shown(place),
                shown(&format!("{scheme}://{}", path.trim_start_matches('/'))),
            )),
            _ => Ok(None),
        };
    };
    if !SCHEMES.contains(&scheme) {
        return Err(InvalidReference::Scheme(shown(place)));
    }
    check_uri(place)?;
    Ok(Some(scheme))
}

fn check_uri(uri: &str) -> Result<(), InvalidReference> {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
    let authority = rest.split('/').next().unwrap_or_default();
    // A secret may hold `/`, so that all before a later `@` may be one.
    if authority.contains('@') || (scheme != "file" && rest.contains('@')) {
        return Err(InvalidReference::Credentials);
    }
    let special =
        |c: char| c.is_control() || c.is_whitespace() || matches!(c, '?' | '#' | '%' | '\\');
    let mut parts = rest.split('/').skip(1);
    if rest.contains(special) || parts.any(|part| matches!(part, "" | "." | "..")) {
        return Err(InvalidReference::Characters(shown(uri)));
    }
    Ok(())
}

/// The registry, and the name with its tag: what follows the last `/`.
fn split_registry(place: &str) -> Result<(Option<&str>, &str), InvalidReference> {
    let no_name = || InvalidReference::NoName(shown(place));
    let Some((registry, published)) = place.rsplit_once('/') else {
        return Ok((None, place));
    };
    if published.is_empty() {
        return Err(no_name());
    }
    let registry = match registry {
        "" => "/",
        // `file:///name`: the root folder.
        "file://" => "file:///",
        // `s3://bucket`: a registry.
        uri if uri.ends_with(":/") => return Err(no_name()),
        slashes if slashes.bytes().all(|b| b == b'/') => "/",
        folder if !folder.contains("://") => folder.trim_end_matches('/'),
        uri => uri,
    };
    Ok((Some(registry), published))
}

/// A text for a message, without control characters and without what a query may hold.
fn shown(text: &str) -> String {
    let text = text.split('?').next().unwrap_or_default();
    without_credentials(text).escape_debug().to_string()
}

impl fmt::Display for ArtifactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ArtifactFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        pin(self.digest, f)
    }
}

impl fmt::Display for PublishedArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            f.write_str(registry)?;
            if !registry.ends_with('/') {
                f.write_str("/")?;
            }
        }
        write!(f, "{}", self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        pin(self.digest, f)
    }
}

fn pin(digest: Option<Digest>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match digest {
        Some(digest) => write!(f, "@{digest}"),
        None => Ok(()),
    }
}

impl fmt::Display for ArtifactReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.fmt(f),
            Self::Published(published) => published.fmt(f),
        }
    }
}

macro_rules! text_form {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = InvalidReference;

            fn try_from(text: String) -> Result<Self, InvalidReference> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    )*};
}

text_form!(ArtifactName, Tag, ArtifactReference);

#[cfg(test)]
mod tests;
