//! Whether a place can be written to, found out before there is anything to write.

use std::path::Path;
use std::time::Duration;

use rustix::fs::Access;
use tokio_util::sync::CancellationToken;

use super::{Place, Store};
use crate::transfer::retry::persist;
use crate::{Error, Uri, pool};

/// The name of what is begun to be uploaded, and never is.
const TRIED: &str = "mlwm-may-write";

impl Store {
    /// Fails if what is at `uri` could not be written because the store refuses: it has no such bucket, or the
    /// credentials may not. Nothing is made there: in a bucket, an upload is begun and called off. A store that
    /// cannot be asked just now is none that refuses.
    ///
    /// # Errors
    /// [`Error::AccessDenied`], [`Error::BucketMissing`] or [`Error::NoCredentials`], and for a folder
    /// [`Error::Local`].
    pub async fn check_writable(&self, uri: &Uri) -> Result<(), Error> {
        if let Place::File(path) = self.place(uri)? {
            return pool::blocking(uri, move || check_folder(&path)).await;
        }
        // Below the place, as all that is published: rights may end there.
        let tried = uri.join(TRIED)?;
        let ask = async || match self.place(&tried)? {
            Place::File(_) => Ok(()),
            Place::S3(s3) => s3.try_upload(&tried).await,
            Place::Gcs(gcs) => gcs.try_upload(&tried).await,
        };
        // Again with new credentials, but not where it only may pass.
        let (place, go_on) = (tried.to_string(), CancellationToken::new());
        match persist(&place, Duration::ZERO, &go_on, ask).await {
            Err(error) if is_refused(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn is_refused(error: &Error) -> bool {
    let has_none = matches!(
        error,
        Error::NoCredentials { .. } | Error::NoGoogleCredentials { .. }
    );
    has_none || error.is_refusal()
}

/// Looks at the folder that is there already of all that would be made.
fn check_folder(path: &Path) -> Result<(), Error> {
    let there = path.ancestors().find(|folder| folder.exists());
    let there = there.unwrap_or(Path::new("/"));
    rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|errno| Error::local("write into", there)(errno.into()))
}
