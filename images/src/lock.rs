//! What the image of a configuration is made of, pinned in a file beside it: `mlwm.lock`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use mlwm_spec::{Digest, yaml};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::image::Image;

/// The version of the file.
const VERSION: u32 = 1;

/// A lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    lock_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<LockedBase>,
    /// SHA-256 of the artifact's zip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact: Option<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockedBase {
    /// As the configuration names it.
    image: String,
    /// Digest of the manifest for the platform.
    digest: Digest,
    platform: String,
}

impl Lock {
    /// Of what was found: the base as the configuration names it, if it names one.
    pub fn new(base: Option<(&str, &Image)>, artifact: Option<Digest>) -> Self {
        Self {
            lock_version: VERSION,
            base: base.map(|(named, image)| LockedBase {
                image: named.to_owned(),
                digest: image.digest(),
                platform: image.platform().to_string(),
            }),
            artifact,
        }
    }

    /// Reads a lock file; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::local("read", path))?,
        };
        let lock: Self = yaml::parse(&text, &path.to_string_lossy())?;
        match lock.lock_version {
            VERSION => Ok(Some(lock)),
            version => Err(Error::LockVersion {
                path: path.to_owned(),
                version,
            }),
        }
    }

    /// Writes it, in one step.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let mut text = format!("# Written by `mlwm image lock`.\nlock_version: {VERSION}\n");
        if let Some(base) = &self.base {
            text += &format!(
                "base:\n  image: {}\n  digest: {}\n  platform: {}\n",
                serde_json::json!(base.image),
                base.digest,
                base.platform
            );
        }
        if let Some(artifact) = self.artifact {
            text += &format!("artifact: {artifact}\n");
        }
        crate::layout::write(path, text.as_bytes())
    }

    /// Refuses a configuration that says something else than the lock.
    pub fn check(
        &self,
        path: &Path,
        base: Option<&str>,
        artifact: Option<Digest>,
    ) -> Result<(), Error> {
        let stale = |what: &str, locked: String, found: String| Error::Locked {
            path: path.to_owned(),
            what: what.to_owned(),
            locked,
            found,
        };
        let locked = self.base.as_ref().map(|base| base.image.as_str());
        if locked != base {
            let text = |base: Option<&str>| base.unwrap_or("none").to_owned();
            return Err(stale("the base", text(locked), text(base)));
        }
        if self.artifact != artifact {
            let text = |digest: Option<Digest>| digest.map_or("none".to_owned(), |d| d.to_string());
            return Err(stale("the artifact", text(self.artifact), text(artifact)));
        }
        Ok(())
    }

    /// Refuses a base that is another one than the locked.
    pub fn check_base(&self, path: &Path, image: &Image) -> Result<(), Error> {
        match &self.base {
            Some(base) if base.digest != image.digest() => Err(Error::Locked {
                path: path.to_owned(),
                what: format!("the base {}", base.image),
                locked: base.digest.to_string(),
                found: image.digest().to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// In one line.
    pub fn summary(&self) -> String {
        let base = self
            .base
            .as_ref()
            .map(|base| format!("base {}@{}", base.image, base.digest));
        let artifact = self.artifact.map(|digest| format!("artifact {digest}"));
        let parts: Vec<String> = base.into_iter().chain(artifact).collect();
        parts.join(", ")
    }
}
