//! What a step read, and what became of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::new_store::say;
use crate::{Error, Problems, time};

/// The name of the report in the folder of the result, unless it is asked for elsewhere.
pub const REPORT: &str = "report.json";

/// What a step read, and what became of it. The same input gives the same report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The step.
    pub step: &'static str,
    /// The version of mlwm.
    pub version: &'static str,
    /// What it was given.
    pub files: Vec<FileReport>,
    /// What it made, by name: what each variable is of.
    pub variables: BTreeMap<String, Map<String, Value>>,
    /// Which variable has what at which time.
    pub presence: Presence,
    /// What is missing, where that is allowed.
    pub missing: Vec<String>,
    /// What is not as it might be taken for, though nothing is wrong.
    pub notes: Vec<String>,
    /// Why there is no result.
    pub problems: Vec<String>,
}

/// What became of a file.
#[derive(Debug, Serialize)]
pub struct FileReport {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// How many fields (GRIB messages, or variables of NetCDF) it has.
    pub read: u64,
    /// How many are in the result.
    pub used: u64,
    /// Those that are not.
    pub refused: Vec<Refused>,
    /// Times of the file that are not in the result, because that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

/// Times that follow each other in a file and are not in the result.
#[derive(Debug, Serialize)]
pub struct LeftOut {
    /// How many.
    pub times: usize,
    /// The first of them.
    pub from: String,
    /// The last of them.
    pub to: String,
    /// Why.
    pub reason: String,
}

/// Something that was read and is not in the result.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// What it is.
    pub what: String,
    /// Its first byte in the file, of a GRIB message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Why it is not used.
    pub reason: String,
}

/// Which variable has how many fields for which time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The times of the result.
    pub times: Vec<String>,
    /// How many fields each variable (at each level) has for each of the times.
    pub fields: BTreeMap<String, Vec<u32>>,
}

impl Presence {
    /// With these times, in seconds since 1970-01-01T00:00Z, and no variable.
    pub fn of_times(times: &[i64]) -> Self {
        Self {
            times: times.iter().map(|&time| time::text(time)).collect(),
            fields: BTreeMap::new(),
        }
    }
}

impl Report {
    /// Of a step that has read nothing yet.
    pub fn new(step: &'static str) -> Self {
        Self {
            step,
            version: env!("CARGO_PKG_VERSION"),
            files: Vec::new(),
            variables: BTreeMap::new(),
            presence: Presence::default(),
            missing: Vec::new(),
            notes: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Fails if there are problems, which the report then tells, too, where it was asked for.
    ///
    /// # Errors
    /// [`Error::Problems`], [`Error::Write`].
    pub fn refuse(&mut self, problems: Problems, asked: Option<&Path>) -> Result<(), Error> {
        if problems.is_empty() {
            return Ok(());
        }
        self.problems = problems.all().to_vec();
        if let Some(path) = asked {
            write_json(path, self)?;
        }
        Err(Error::Problems(problems))
    }

    /// Writes the report of a whole result: where it was asked for, or into the folder of the result.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn finish(&self, asked: Option<&Path>, folder: &Path) -> Result<(), Error> {
        for note in &self.notes {
            say(&format!("note: {note}"));
        }
        match asked {
            Some(path) => write_json(path, self),
            None => write_json(&folder.join(REPORT), self),
        }
    }
}

/// Writes a document, which appears whole or not at all.
pub(crate) fn write_json(path: &Path, document: &impl Serialize) -> Result<(), Error> {
    let failed = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    let mut text = serde_json::to_vec(document).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.part"));
    fs::write(&partial, text)
        .and_then(|()| fs::rename(&partial, path))
        .map_err(failed)
}
