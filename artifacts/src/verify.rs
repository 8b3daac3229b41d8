//! Verifying an artifact: every byte of the zip is accounted for.

use std::io;

use crate::artifact::Artifact;
use crate::error::Error;

/// What was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Number of files, `artifact.yaml` included.
    pub files: usize,
    /// Sum of their sizes.
    pub bytes: u64,
}

impl Artifact {
    /// Reads every file and compares it with `artifact.yaml`; that none is missing and none is
    /// extra was checked on opening. The headers of the zip must be those that mlwm writes, so
    /// that there is exactly one zip of the same content (format §5), and no byte in it that could
    /// change unnoticed.
    pub fn verify(&self) -> Result<Verified, Error> {
        if !self.has_hashes {
            return Err(Error::NoHashes {
                path: self.path().to_owned(),
            });
        }
        let mut bytes = 0;
        for entry in self.files() {
            let mut reader = self.reader(&entry.path)?;
            bytes += io::copy(&mut reader, &mut io::sink()).map_err(|e| self.read_error(e))?;
        }
        if let Some(why) = &self.deviation {
            return Err(Error::Repacked {
                path: self.path().to_owned(),
                why: why.clone(),
            });
        }
        Ok(Verified {
            files: self.files().len(),
            bytes,
        })
    }
}
