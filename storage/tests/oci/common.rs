//! What the tests share.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mlwm_spec::Digest;
use mlwm_storage::oci::{OciOptions, Repository};
use mlwm_storage::{BytesContent, Content, Error, Journals, Progress};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Bytes of a chunk in tests.
pub(crate) const CHUNK: u64 = 256 << 10;

/// Options with small chunks, little patience, and no login.
pub(crate) fn options(logins: Option<&Path>) -> OciOptions {
    let no_logins = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/oci/no_logins.json"
    ));
    OciOptions {
        chunk_bytes: CHUNK,
        stall: Duration::from_secs(2),
        retry_for: Duration::from_secs(30),
        insecure: Vec::new(),
        logins: Some(logins.unwrap_or(no_logins).to_owned()),
    }
}

pub(crate) fn repository(host: &str, name: &str) -> Repository {
    repository_with(host, name, &options(None))
}

pub(crate) fn repository_with(host: &str, name: &str, options: &OciOptions) -> Repository {
    let uri = format!("oci://{host}/{name}").parse().unwrap();
    Repository::open(&uri, options).unwrap()
}

/// `count` bytes in which no part is like another; the same for the same seed.
pub(crate) fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// A folder of journals and what it takes to upload.
pub(crate) struct Sender {
    folder: TempDir,
    pub(crate) cancel: CancellationToken,
}

impl Sender {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            cancel: CancellationToken::new(),
        }
    }

    pub(crate) fn journals(&self) -> Journals {
        Journals::at(self.folder.path())
    }

    /// How many uploads could be continued.
    pub(crate) fn left_over(&self) -> usize {
        let files = std::fs::read_dir(self.folder.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().ends_with(".json"))
            .count()
    }

    pub(crate) async fn send(&self, to: &Repository, bytes: &[u8]) -> Result<Digest, Error> {
        let content: Arc<dyn Content> = Arc::new(BytesContent::new(bytes.to_vec()));
        self.send_content(to, content, &Progress::none()).await
    }

    pub(crate) async fn send_content(
        &self,
        to: &Repository,
        content: Arc<dyn Content>,
        progress: &Progress,
    ) -> Result<Digest, Error> {
        let journals = self.journals();
        to.upload_blob(content, None, &journals, progress, &self.cancel)
            .await
    }
}

/// The blob as it comes back.
pub(crate) async fn fetch(from: &Repository, digest: &Digest, size: u64) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("blob");
    let cancel = CancellationToken::new();
    from.download_blob(digest, size, &file, &Progress::none(), &cancel)
        .await
        .unwrap();
    std::fs::read(file).unwrap()
}

/// Content that gives fewer bytes than it says it has.
pub(crate) struct Short(pub(crate) u64);

impl Content for Short {
    fn size(&self) -> u64 {
        self.0
    }

    fn fingerprint(&self) -> String {
        "short".to_owned()
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::repeat(7).take(self.0 - 1)))
    }
}
