//! Where images are: what `base_image`, `--push` and `--output` name.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use mlwm_spec::Digest;
use mlwm_storage::oci::{OciOptions, OciUri, Repository};

use crate::Error;
use crate::image::{Image, LayerSource};
use crate::layout::Layout;
use crate::oci::{Found, Index, Manifest, Platform};

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

/// Looks up an image for a kind of machine. `None` if nothing is there.
pub async fn find(
    place: &Place,
    platform: &Platform,
    options: &OciOptions,
) -> Result<Option<Image>, Error> {
    let bad = |why: String| Error::BadImage {
        image: place.to_string(),
        why,
    };
    let (image, expected) = match place {
        Place::Engine(_) => return Err(bad("it is in an engine".to_owned())),
        Place::Layout {
            folder,
            tag,
            digest,
        } => {
            let layout = Layout::at(folder);
            let Some(entry) = layout.entry(tag.as_deref())? else {
                return Ok(None);
            };
            check_pin(*digest, entry.digest).map_err(bad)?;
            let image = match layout.found(&entry)? {
                (bytes, Found::Image(manifest)) => layout.image(bytes, manifest)?,
                (_, Found::Several(index)) => {
                    let entry = of_platform(&index, platform).map_err(bad)?;
                    match layout.found(&entry)? {
                        (bytes, Found::Image(manifest)) => layout.image(bytes, manifest)?,
                        _ => return Err(bad("an index lists an index".to_owned())),
                    }
                }
            };
            (image, entry.digest)
        }
        Place::Registry {
            repository,
            tag,
            digest,
        } => {
            let repository = Repository::open(repository, options)?;
            let asked = digest.map(|digest| digest.to_string());
            let asked = asked.or(tag.clone()).unwrap_or_else(|| "latest".to_owned());
            let Some(found) = repository.manifest(&asked).await? else {
                return Ok(None);
            };
            let said = found.digest;
            let image = match Found::parse(&found.bytes, &found.media_type).map_err(bad)? {
                Found::Image(manifest) => remote_image(&repository, found.bytes.into(), manifest)
                    .await
                    .map_err(bad)?,
                Found::Several(index) => {
                    let entry = of_platform(&index, platform).map_err(bad)?;
                    let one = repository.manifest(&entry.digest.to_string()).await?;
                    let one =
                        one.ok_or_else(|| bad(format!("its manifest for {platform} is gone")))?;
                    match Found::parse(&one.bytes, &one.media_type).map_err(bad)? {
                        Found::Image(manifest) => {
                            remote_image(&repository, one.bytes.into(), manifest)
                                .await
                                .map_err(bad)?
                        }
                        Found::Several(_) => return Err(bad("an index lists an index".to_owned())),
                    }
                }
            };
            (image, said)
        }
    };
    let _ = expected;
    let has = image.platform();
    match has.is_for(platform) {
        true => Ok(Some(image)),
        false => Err(bad(format!(
            "it is for {has}, and one for {platform} is wanted"
        ))),
    }
}

fn check_pin(pinned: Option<Digest>, found: Digest) -> Result<(), String> {
    match pinned {
        Some(pinned) if pinned != found => {
            Err(format!("it is {found} now, not the pinned {pinned}"))
        }
        _ => Ok(()),
    }
}

fn of_platform(index: &Index, platform: &Platform) -> Result<crate::oci::Descriptor, String> {
    let mut fitting = index.manifests.iter().filter(|entry| {
        entry
            .platform
            .as_ref()
            .is_some_and(|has| has.is_for(platform))
    });
    fitting.next().cloned().ok_or_else(|| {
        let has: Vec<String> = index
            .manifests
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            .map(ToString::to_string)
            .collect();
        format!(
            "it is for {}, and one for {platform} is wanted",
            has.join(", ")
        )
    })
}

async fn remote_image(
    repository: &Repository,
    bytes: Vec<u8>,
    manifest: Manifest,
) -> Result<Image, String> {
    let blob = &manifest.config;
    if blob.size > crate::layout::LIMIT {
        return Err(format!(
            "its config has {} bytes, which is too many",
            blob.size
        ));
    }
    let range = mlwm_storage::ByteRange::From {
        start: 0,
        length: blob.size,
    };
    let config = repository.read_blob_range(&blob.digest, range).await;
    let config: Vec<u8> = config.map_err(|error| error.to_string())?.bytes.into();
    if Digest::of(&config) != blob.digest {
        return Err(format!(
            "its config does not have the digest {}",
            blob.digest
        ));
    }
    let source = |_: &crate::oci::Descriptor| LayerSource::Registry(repository.clone());
    Image::read(bytes, manifest, config, source)
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
            "localhost/a:-",
            "a b",
            "host.org/a@sha256:12",
            "u:p@host.org/a",
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
