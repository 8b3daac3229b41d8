//! The ledger: the history of runs, tasks and attempts, in one SQLite file.
//!
//! What is published is told by the manifests in the stores; the ledger says how it came about, and
//! can be lost: [`Ledger::found`] fills a new one from manifests. Intent is written before an
//! action, its result after it, so that an attempt without an end is one that was killed. It may be
//! read while it is written, by any number of processes.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod error;
mod history;
mod record;
mod schema;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

pub use error::Error;
pub use history::{AttemptRecord, Cell, CycleRow, OutputRecord, PhaseRecord, RunRecord};
pub use record::{AttemptId, AttemptResult, Found, NewRun, Published, RunId, State, TaskName};

/// The history of one working folder.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Ledger {
    /// Opens the ledger in a file to write to it; makes it, or brings it to the form of this
    /// version, if need be.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            connection: Mutex::new(schema::open(path)?),
            path: path.to_owned(),
        })
    }

    /// Opens the ledger in a file to read it; `None` if there is none.
    pub fn look(path: &Path) -> Result<Option<Self>, Error> {
        let Some(connection) = schema::look(path)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            connection: Mutex::new(connection),
            path: path.to_owned(),
        }))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic in another thread has rolled its transaction back.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, action: &'static str) -> impl Fn(rusqlite::Error) -> Error {
        let path = self.path.clone();
        move |source| Error::Database {
            action,
            path: path.clone(),
            source,
        }
    }
}
