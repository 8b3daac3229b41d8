//! Fetching an artifact (`docs/registries.md` §8).

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use mlwm_artifacts::Artifact;

use crate::policy::{StoredSignature, Trust};
use crate::registry::{Backend, Registry, blocking};
use crate::{Error, Publication};

/// What the name ends in of a zip that has arrived and is not yet checked.
const FETCHED: &str = ".mlwm-fetched";

/// What came of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The zip.
    pub zip: PathBuf,
    /// Its provenance, if the registry has one.
    pub provenance: Option<PathBuf>,
    /// Its signatures: `<zip>.minisig`, further ones `<zip>.<key id>.minisig`.
    pub signatures: Vec<PathBuf>,
}

impl Registry {
    /// Brings the zip of a publication, its provenance and its signatures to `destination`: a file
    /// that ends in `.zip`, or a folder that gets `<name>.zip`. The zip appears when its digest,
    /// its form and the signatures that are required are right. When it is interrupted, the same
    /// call continues.
    pub async fn pull(
        &self,
        publication: &Publication,
        destination: &Path,
    ) -> Result<Pulled, Error> {
        let zip = match destination
            .extension()
            .is_some_and(|ending| ending == "zip")
        {
            true => destination.to_owned(),
            false => destination.join(format!("{}.zip", publication.name)),
        };
        let zip = std::path::absolute(&zip).map_err(Error::local("resolve", &zip))?;
        let signatures = self.signatures(publication).await?;
        let provenance = self.provenance(publication).await?;
        let trust = self.trust().await?;
        let check = Check {
            what: self.named(&publication.name, Some(&publication.tag)),
            publication: publication.clone(),
            signatures: signatures.clone(),
            trust,
        };
        if !self.is_there(publication, &zip).await? {
            self.fetch(publication, &zip, check).await?;
        } else {
            let there = zip.clone();
            blocking(move || check.run(&there)).await?;
        }
        blocking(move || write_beside(zip, provenance, signatures)).await
    }

    /// Whether the destination is the zip already; an error if it is something else.
    async fn is_there(&self, publication: &Publication, zip: &Path) -> Result<bool, Error> {
        if !zip.exists() {
            return Ok(false);
        }
        let (expected, path) = (publication.clone(), zip.to_owned());
        match blocking(move || holds(&path, &expected)).await? {
            true => Ok(true),
            false => Err(Error::InTheWay {
                path: zip.to_owned(),
                expected: publication.digest.to_string(),
            }),
        }
    }

    async fn fetch(
        &self,
        publication: &Publication,
        zip: &Path,
        check: Check,
    ) -> Result<(), Error> {
        let file = zip.file_name().unwrap_or_default().to_string_lossy();
        let hex = publication.digest.hex();
        let fetched = zip.with_file_name(format!(".{file}.{}{FETCHED}", &hex[..16]));
        let (expected, path) = (publication.clone(), fetched.clone());
        // A pull that was killed may have left it.
        if !blocking(move || holds(&path, &expected)).await? {
            match &self.backend {
                Backend::Objects(objects) => objects.download(publication, &fetched).await?,
                Backend::Oci(oci) => oci.download(publication, &fetched).await?,
            }
        }
        let zip = zip.to_owned();
        blocking(move || {
            if let Err(error) = check.run(&fetched) {
                std::fs::remove_file(&fetched).map_err(Error::local("remove", &fetched))?;
                return Err(error);
            }
            std::fs::rename(&fetched, &zip).map_err(Error::local("rename to", &zip))?;
            sync_folder_of(&zip)
        })
        .await
    }
}

/// What a zip that has arrived must be, besides its bytes being those of its digest.
struct Check {
    what: String,
    publication: Publication,
    signatures: Vec<StoredSignature>,
    trust: Trust,
}

impl Check {
    fn run(&self, zip: &Path) -> Result<(), Error> {
        let damaged = |why: String| Error::Damaged {
            publication: self.what.clone(),
            why,
        };
        let artifact = Artifact::open(zip).map_err(|error| damaged(error.to_string()))?;
        if artifact.set_digest() != Some(self.publication.set_digest) {
            let why = "its zip has other files than its record says";
            return Err(damaged(why.to_owned()));
        }
        self.trust.check(&self.what, &self.signatures, || {
            File::open(zip).map_err(Error::local("open", zip))
        })
    }
}

/// Whether the file at `path` is the zip of `publication`.
pub(crate) fn holds(path: &Path, publication: &Publication) -> Result<bool, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::local("open", path)(error)),
    };
    let size = file
        .metadata()
        .map_err(Error::local("look at", path))?
        .len();
    if size != publication.size {
        return Ok(false);
    }
    let digest = crate::digest_of(file).map_err(Error::local("read", path))?;
    Ok(digest == publication.digest)
}

fn write_beside(
    zip: PathBuf,
    provenance: Option<String>,
    signatures: Vec<StoredSignature>,
) -> Result<Pulled, Error> {
    let provenance = match provenance {
        Some(text) => {
            let path = zip.with_extension("provenance.yaml");
            write_small(&path, text.as_bytes())?;
            Some(path)
        }
        None => None,
    };
    let mut written = Vec::new();
    for signature in &signatures {
        let mut path = zip.clone().into_os_string();
        if !written.is_empty() {
            path.push(format!(".{}", signature.key_id));
        }
        path.push(".minisig");
        let path = PathBuf::from(path);
        write_small(&path, signature.text.as_bytes())?;
        written.push(path);
    }
    Ok(Pulled {
        zip,
        provenance,
        signatures: written,
    })
}

/// Writes a small file, which appears as a whole, in place of whatever is there.
pub(crate) fn write_small(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;

    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".writing-")
        // As any file that is created: what the umask leaves of it.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(Error::local("create a file in", folder))?;
    file.write_all(bytes).map_err(Error::local("write", path))?;
    file.persist(path)
        .map_err(|failed| Error::local("write", path)(failed.error))?;
    Ok(())
}

fn sync_folder_of(path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder)
        .and_then(|open| open.sync_all())
        .map_err(Error::local("synchronise the folder", folder))
}
