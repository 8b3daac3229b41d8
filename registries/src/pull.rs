//! Fetching an artifact (`docs/registries.md` §8).

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use mlwm_artifacts::Artifact;
use tempfile::TempPath;
use tokio_util::sync::CancellationToken;

use crate::policy::{StoredSignature, Trust};
use crate::registry::{Backend, Registry, blocking};
use crate::stopping::{Stopping, unless_stopped};
use crate::{Error, Publication};

/// What the name ends in of a zip that has arrived and is not yet checked.
const FETCHED: &str = ".mlwm-fetched";

/// What the names of small files begin with while they are written.
pub(crate) const WRITING: &str = ".writing-";

/// What came of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The zip.
    pub zip: PathBuf,
    /// Its provenance, if the registry has one.
    pub provenance: Option<PathBuf>,
    /// Its signatures: `<zip>.minisig` is one by a key that is required, else the oldest; further
    /// ones are `<zip>.<key id>.minisig`.
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
        let mut signatures = self.signatures(publication).await?;
        let provenance = self.provenance(publication).await?;
        let trust = self.trust().await?;
        let what = self.named(&publication.name, Some(&publication.tag));
        trust.expect(&what, &signatures)?;
        let check = Check {
            what,
            publication: publication.clone(),
            signatures: signatures.clone(),
            trust,
            stop: self.options.cancel.clone(),
        };
        let holding = match self.is_there(publication, &zip).await? {
            false => self.fetch(publication, &zip, check).await?,
            true => {
                let there = zip.clone();
                blocking(move || check.run(&there)).await?
            }
        };
        // What this user requires comes before what the registry does.
        signatures.sort_by_key(|one| !holding.first().is_some_and(|first| first == one));
        blocking(move || write_beside(zip, provenance, signatures)).await
    }

    /// Whether the destination is the zip already; an error if it is something else.
    async fn is_there(&self, publication: &Publication, zip: &Path) -> Result<bool, Error> {
        if !zip.exists() {
            return Ok(false);
        }
        match self.holds(publication, zip).await? {
            true => Ok(true),
            false => Err(in_the_way(zip, publication)),
        }
    }

    async fn holds(&self, publication: &Publication, zip: &Path) -> Result<bool, Error> {
        let (expected, path) = (publication.clone(), zip.to_owned());
        let stop = self.options.cancel.clone();
        blocking(move || holds(&path, &expected, &stop)).await
    }

    async fn fetch(
        &self,
        publication: &Publication,
        zip: &Path,
        check: Check,
    ) -> Result<Vec<StoredSignature>, Error> {
        let file = zip.file_name().unwrap_or_default().to_string_lossy();
        let hex = publication.digest.hex();
        let fetched = zip.with_file_name(format!(".{file}.{}{FETCHED}", &hex[..16]));
        // A pull that was killed may have left it.
        if !self.holds(publication, &fetched).await? {
            match &self.backend {
                Backend::Objects(objects) => objects.download(publication, &fetched).await?,
                Backend::Oci(oci) => oci.download(publication, &fetched).await?,
            }
        }
        let (zip, expected) = (zip.to_owned(), publication.clone());
        blocking(move || {
            let checked = check.run(&fetched);
            if let Err(Error::Damaged { .. } | Error::Unsigned { .. } | Error::Signature { .. }) =
                checked
            {
                std::fs::remove_file(&fetched).map_err(Error::local("remove", &fetched))?;
            }
            let holding = checked?;
            put_in_place(&fetched, &zip, &expected, &check.stop)?;
            Ok(holding)
        })
        .await
    }
}

/// Gives what has arrived its name, which may have been taken meanwhile.
fn put_in_place(
    fetched: &Path,
    zip: &Path,
    expected: &Publication,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let arrived = TempPath::try_from_path(fetched).map_err(Error::local("look at", fetched))?;
    if let Err(failed) = arrived.persist_noclobber(zip) {
        if failed.error.kind() != ErrorKind::AlreadyExists {
            // It is as good as before for another attempt.
            let _ = failed.path.keep();
            return Err(Error::local("rename to", zip)(failed.error));
        }
        if !holds(zip, expected, stop)? {
            return Err(in_the_way(zip, expected));
        }
    }
    sync_folder_of(zip)
}

fn in_the_way(path: &Path, expected: &Publication) -> Error {
    Error::InTheWay {
        path: path.to_owned(),
        expected: expected.digest.to_string(),
    }
}

/// What a zip that has arrived must be, besides its bytes being those of its digest.
struct Check {
    what: String,
    publication: Publication,
    signatures: Vec<StoredSignature>,
    trust: Trust,
    stop: CancellationToken,
}

impl Check {
    /// Gives the signatures that are required and hold.
    fn run(&self, zip: &Path) -> Result<Vec<StoredSignature>, Error> {
        let damaged = |why: String| Error::Damaged {
            publication: self.what.clone(),
            why,
        };
        let artifact = Artifact::open(zip).map_err(|error| match error {
            mlwm_artifacts::Error::Io { .. } => Error::from(error),
            error => damaged(error.to_string()),
        })?;
        if artifact.set_digest() != Some(self.publication.set_digest) {
            let why = "its zip has other files than its record says";
            return Err(damaged(why.to_owned()));
        }
        let checked = self.trust.check(&self.what, &self.signatures, || {
            let file = File::open(zip).map_err(Error::local("open", zip))?;
            Ok(Stopping::new(file, &self.stop))
        });
        unless_stopped(&self.stop, checked)
    }
}

/// Whether the file at `path` is the zip of `publication`.
pub(crate) fn holds(
    path: &Path,
    publication: &Publication,
    stop: &CancellationToken,
) -> Result<bool, Error> {
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
    let digest = crate::digest_of(Stopping::new(file, stop)).map_err(Error::local("read", path));
    Ok(unless_stopped(stop, digest)? == publication.digest)
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
        .prefix(WRITING)
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
