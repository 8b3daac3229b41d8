//! A layer of ours whose digest is known.
//!
//! Its files were compared with their own digests when that of the layer was found, which takes two
//! SHA-256 of each. Afterwards one is enough, that of the layer: who takes its bytes compares them
//! with it. If a file has changed meanwhile, or the layer is another one, the files are compared
//! again, to say which.

use std::io::{self, Read};
use std::sync::Arc;

use mlwm_spec::Digest;
use mlwm_storage::{Content, FileContent};

use crate::Error;
use crate::tarball::Tarball;

/// A layer with its digest, and what the files of this machine that it is made of are like.
#[derive(Clone, Debug)]
pub(crate) struct Assembled {
    layer: Tarball,
    digest: Digest,
    sources: Arc<[FileContent]>,
}

impl Assembled {
    /// The layer, whose digest is found by `digest` after its files have been looked at.
    pub(crate) fn new(
        layer: Tarball,
        digest: impl FnOnce(&Tarball) -> Result<Digest, Error>,
    ) -> Result<Self, Error> {
        let sources = layer.sources().into_iter().map(FileContent::open);
        let sources = sources.collect::<Result<_, _>>()?;
        let digest = digest(&layer)?;
        Ok(Self {
            layer,
            digest,
            sources,
        })
    }

    /// SHA-256 of the layer.
    pub(crate) fn sha256(&self) -> Digest {
        self.digest
    }

    /// Compares each file with its digest; the error names the first one that is another.
    pub(crate) fn check(&self) -> io::Result<()> {
        io::copy(&mut self.layer.open()?, &mut io::sink()).map(drop)
    }

    fn has_changed(&self) -> bool {
        let same = |source: &FileContent| {
            FileContent::open(source.path()).is_ok_and(|found| found == *source)
        };
        !self.sources.iter().all(same)
    }
}

impl Content for Assembled {
    fn size(&self) -> u64 {
        self.layer.size()
    }

    fn fingerprint(&self) -> String {
        self.layer.fingerprint()
    }

    fn digest(&self) -> Option<Digest> {
        Some(self.digest)
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Reader {
            bytes: self.layer.open_unchecked(),
            of: self.clone(),
        }))
    }
}

/// Reads the layer, and looks at its end whether its files are what they were.
struct Reader {
    bytes: Box<dyn Read + Send>,
    of: Assembled,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer);
        let is_over = matches!(read, Ok(0)) && !buffer.is_empty();
        if (is_over || read.is_err()) && self.of.has_changed() {
            self.of.check()?;
        }
        read
    }
}
