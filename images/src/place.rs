//! Where images are: what `base_image`, `--push` and `--output` name.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use mlwm_spec::Digest;
use mlwm_storage::ByteRange;
use mlwm_storage::oci::{OciOptions, OciUri, Repository};

use crate::Error;
use crate::image::{Image, LayerSource};
use crate::layout::{LIMIT, Layout};
use crate::oci::{Descriptor, Found, Index, Platform};

/// An image in a registry, a layout or a local engine.
///
/// - `oci:FOLDER[:TAG]` is an OCI layout;
/// - `HOST[:PORT]/PATH[:TAG][@sha256:…]` an image in a registry, where `HOST` has a dot or a port or
///   is `localhost`;
/// - any other `NAME[:TAG]` an image of the local engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In an OCI layout.
    Layout {
        /// The folder.
        folder: PathBuf,
        /// The tag; without it, the only image.
        tag: Option<String>,
        /// What it must be.
        digest: Option<Digest>,
    },
    /// In a registry.
    Registry {
        /// The repository.
        repository: OciUri,
        /// The tag; `latest` without it and without a digest.
        tag: Option<String>,
        /// What it must be.
        digest: Option<Digest>,
    },
    /// In the local engine.
    Engine(String),
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::Reference {
            reference: mlwm_spec::without_credentials(text)
                .escape_debug()
                .to_string(),
            why: why.to_owned(),
        };
        if let Some(layout) = text.strip_prefix("oci:") {
            if layout.starts_with("//") {
                return Err(bad(
                    "oci:// is a registry of artifacts: write host/path:tag, or oci:FOLDER for a layout",
                ));
            }
            let (layout, digest) = split_digest(layout).map_err(bad)?;
            let slash = layout.rfind('/').map_or(0, |at| at + 1);
            let (folder, tag) = match layout[slash..].split_once(':') {
                Some((_, tag)) => (&layout[..layout.len() - tag.len() - 1], Some(tag)),
                None => (layout, None),
            };
            if folder.is_empty() || tag.is_some_and(|tag| !is_tag(tag)) {
                return Err(bad("write oci:FOLDER:TAG"));
            }
            return Ok(Self::Layout {
                folder: folder.into(),
                tag: tag.map(str::to_owned),
                digest,
            });
        }
        if text.contains("://") {
            return Err(bad("leave out what is before `//`: write HOST/PATH:TAG"));
        }
        let (name, digest) = split_digest(text).map_err(bad)?;
        let host = name.split_once('/').map(|(host, _)| host);
        if !host.is_some_and(|host| host == "localhost" || host.contains(['.', ':'])) {
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
            return match name.is_empty() || !name.chars().all(plain) {
                true => Err(bad(
                    "use letters, digits, `.`, `_`, `-` and `/`, and a tag after `:`",
                )),
                false => Ok(Self::Engine(text.to_owned())),
            };
        }
        let slash = name.rfind('/').map_or(0, |at| at + 1);
        let (path, tag) = match name[slash..].split_once(':') {
            Some((_, tag)) => (&name[..name.len() - tag.len() - 1], Some(tag)),
            None => (name, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("what follows the last `:` is not a tag"));
        }
        Ok(Self::Registry {
            repository: format!("oci://{path}").parse()?,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, tag, digest) = match self {
            Self::Engine(reference) => return f.write_str(reference),
            Self::Layout {
                folder,
                tag,
                digest,
            } => (format!("oci:{}", folder.display()), tag, digest),
            Self::Registry {
                repository,
                tag,
                digest,
            } => {
                let uri = repository.to_string();
                (uri.trim_start_matches("oci://").to_owned(), tag, digest)
            }
        };
        f.write_str(&name)?;
        if let Some(tag) = tag {
            write!(f, ":{tag}")?;
        }
        match digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

fn split_digest(text: &str) -> Result<(&str, Option<Digest>), &'static str> {
    match text.split_once('@') {
        None => Ok((text, None)),
        Some((name, digest)) => match digest.parse() {
            Ok(digest) => Ok((name, Some(digest))),
            Err(_) => Err("after `@` there must be `sha256:` and 64 hexadecimal digits"),
        },
    }
}

fn is_tag(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=128).contains(&text.len()) && text.chars().all(plain) && !text.starts_with(['.', '-'])
}

/// Looks up an image for a kind of machine, in a layout or a registry. `None` if nothing is there.
pub async fn find(
    place: &Place,
    platform: &Platform,
    options: &OciOptions,
) -> Result<Option<Image>, Error> {
    let bad = |why: String| Error::BadImage {
        image: place.to_string(),
        why,
    };
    let image = match place {
        Place::Engine(_) => return Err(bad("it is in an engine".to_owned())),
        Place::Layout {
            folder,
            tag,
            digest,
        } => in_layout(&Layout::at(folder), tag.as_deref(), *digest, platform, &bad)?,
        Place::Registry {
            repository,
            tag,
            digest,
        } => {
            let repository = Repository::open(repository, options)?;
            let asked = digest.map(|digest| digest.to_string());
            let asked = asked.or(tag.clone()).unwrap_or_else(|| "latest".to_owned());
            in_registry(&repository, &asked, platform, &bad).await?
        }
    };
    image
        .map(|image| image.checked_for(platform, &place.to_string()))
        .transpose()
}

fn in_layout(
    layout: &Layout,
    tag: Option<&str>,
    pinned: Option<Digest>,
    platform: &Platform,
    bad: &impl Fn(String) -> Error,
) -> Result<Option<Image>, Error> {
    let Some(entry) = layout.entry(tag)? else {
        return Ok(None);
    };
    if let Some(pinned) = pinned.filter(|pinned| *pinned != entry.digest) {
        let found = entry.digest;
        return Err(bad(format!("it is {found} now, not the pinned {pinned}")));
    }
    let mut found = layout.found(&entry)?;
    if let (_, Found::Several(index)) = &found {
        found = layout.found(&of_platform(index, platform).map_err(bad)?)?;
    }
    match found {
        (bytes, Found::Image(manifest)) => layout.image(bytes, manifest).map(Some),
        _ => Err(bad("an index lists an index".to_owned())),
    }
}

async fn in_registry(
    repository: &Repository,
    asked: &str,
    platform: &Platform,
    bad: &impl Fn(String) -> Error,
) -> Result<Option<Image>, Error> {
    let Some(mut document) = repository.manifest(asked).await? else {
        return Ok(None);
    };
    let mut found = Found::parse(&document.bytes, &document.media_type).map_err(bad)?;
    if let Found::Several(index) = &found {
        let entry = of_platform(index, platform).map_err(bad)?;
        let gone = || bad(format!("its manifest for {platform} is gone"));
        let one = repository.manifest(&entry.digest.to_string()).await?;
        document = one.ok_or_else(gone)?;
        found = Found::parse(&document.bytes, &document.media_type).map_err(bad)?;
    }
    let Found::Image(manifest) = found else {
        return Err(bad("an index lists an index".to_owned()));
    };
    let blob = &manifest.config;
    if blob.size > LIMIT {
        let size = blob.size;
        return Err(bad(format!(
            "its config has {size} bytes, which is too many"
        )));
    }
    let range = ByteRange::From {
        start: 0,
        length: blob.size,
    };
    let config = repository.read_blob_range(&blob.digest, range).await?.bytes;
    if Digest::of(&config) != blob.digest {
        let digest = blob.digest;
        return Err(bad(format!("its config does not have the digest {digest}")));
    }
    let source = |_: &Descriptor| LayerSource::Registry(repository.clone());
    let image = Image::read(document.bytes.into(), manifest, config.into(), source);
    image.map(Some).map_err(bad)
}

/// The first entry of an index that is for a platform.
fn of_platform(index: &Index, platform: &Platform) -> Result<Descriptor, String> {
    let platforms = || {
        index
            .manifests
            .iter()
            .filter_map(|entry| Some((entry, entry.platform.as_ref()?)))
    };
    let fitting = platforms().find(|(_, has)| has.is_for(platform));
    fitting.map(|(entry, _)| entry.clone()).ok_or_else(|| {
        let has: Vec<String> = platforms().map(|(_, has)| has.to_string()).collect();
        let has = has.join(", ");
        format!("it is for {has}, and one for {platform} is wanted")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_say_where_an_image_is() {
        let pin = format!("@{}", Digest::of("x"));
        for text in ["mlwm-base:bookworm", "mlwm/danra:latest", "base"] {
            assert_eq!(
                text.parse::<Place>().unwrap(),
                Place::Engine(text.to_owned())
            );
        }
        for text in [
            "localhost:5000/a/b:v1".to_owned(),
            format!("registry.example.org/a{pin}"),
            format!("registry.example.org/a:v1{pin}"),
            "oci:build/layout:danra".to_owned(),
            "oci:/a:b/layout".to_owned(),
        ] {
            let place: Place = text.parse().unwrap();
            assert!(!matches!(place, Place::Engine(_)), "{text}");
            assert_eq!(place.to_string(), text);
        }
        for bad in [
            "",
            "oci:",
            "oci://host/a",
            "https://host.org/a",
            "localhost/a:-",
            "a b",
            "host.org/a@sha256:12",
            "u:p@host.org/a",
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
