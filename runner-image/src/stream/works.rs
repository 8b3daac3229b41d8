//! The works of a stream, as they appear.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlwm_spec::contract::stream::{END, IN};

use crate::RunnerError;

/// How often is looked whether something is there.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// The folder that works appear in.
pub(super) struct Works {
    folder: PathBuf,
    served: BTreeSet<String>,
}

impl Works {
    pub(super) fn of(stream: &Path) -> Self {
        Self {
            folder: stream.join(IN),
            served: BTreeSet::new(),
        }
    }

    /// The next work and its folder, once there is one; `None` if there will be none.
    pub(super) fn next(&mut self) -> Result<Option<(String, PathBuf)>, RunnerError> {
        loop {
            // Asked first: a work that came before the end is then seen.
            let is_over = self.folder.join(END).exists();
            if let Some(name) = self.first_unserved()? {
                let folder = self.folder.join(&name);
                self.served.insert(name.clone());
                return Ok(Some((name, folder)));
            }
            if is_over {
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }

    fn first_unserved(&self) -> Result<Option<String>, RunnerError> {
        let failed = |error: std::io::Error| RunnerError::Stream {
            path: self.folder.clone(),
            reason: error.to_string(),
        };
        let mut first: Option<String> = None;
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let is_work = !name.starts_with('.') && entry.path().is_dir();
            if is_work
                && !self.served.contains(&name)
                && first.as_ref().is_none_or(|first| name < *first)
            {
                first = Some(name);
            }
        }
        Ok(first)
    }
}
