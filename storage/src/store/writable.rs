//! Whether a place can be written to, found out before there is anything to write.

use std::path::Path;

use rustix::fs::Access;

use super::{Place, Store};
use crate::transfer::retry::Failure;
use crate::{Error, Uri, pool};

impl Store {
    /// Fails if what is at `uri` could not be written because the store refuses: it has no such bucket, or the
    /// credentials may not. Nothing is made there: in a bucket, an upload is begun and called off. A store that
    /// cannot be asked just now is none that refuses.
    ///
    /// # Errors
    /// [`Error::AccessDenied`], [`Error::BucketMissing`] or [`Error::NoCredentials`], and for a folder
    /// [`Error::Local`].
    pub async fn check_writable(&self, uri: &Uri) -> Result<(), Error> {
        let asked = match self.place(uri)? {
            Place::File(path) => return pool::blocking(uri, move || check_folder(&path)).await,
            Place::S3(s3) => s3.try_upload(uri).await,
            Place::Gcs(gcs) => gcs.try_upload(uri).await,
        };
        match asked {
            Err(Failure { error, .. }) if is_refused(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn is_refused(error: &Error) -> bool {
    matches!(
        error,
        Error::AccessDenied { .. } | Error::BucketMissing { .. } | Error::NoCredentials { .. }
    )
}

/// Looks at the folder that is there already of all that would be made.
fn check_folder(path: &Path) -> Result<(), Error> {
    let there = path.ancestors().find(|folder| folder.exists());
    let there = there.unwrap_or(Path::new("/"));
    rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|errno| Error::local("write into", there)(errno.into()))
}
