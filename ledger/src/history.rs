//! Reading: what was done, what is under way, and how it went.

use std::collections::BTreeMap;

use mlwm_spec::AnalysisTime;
use rusqlite::types::Type;
use rusqlite::{Row, params};
use serde::Serialize;

use crate::record::{RunId, State, TaskName};
use crate::{Error, Ledger};

/// How many attempts are looked at for those of one configuration: enough for a week of many models, and read
/// in a moment.
const LOOKED_AT: u32 = 20_000;

/// One analysis time: how far each configuration is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CycleRow {
    /// The time the forecasts start from.
    pub analysis_time: AnalysisTime,
    /// By configuration.
    pub cells: BTreeMap<String, Cell>,
}

/// The tasks of a configuration in a cycle: how many are in each state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Cell(pub BTreeMap<State, u64>);

impl Cell {
    /// How many tasks are in a state.
    pub fn count(&self, state: State) -> u64 {
        self.0.get(&state).copied().unwrap_or_default()
    }

    /// How many tasks there are.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRecord {
    /// Which one.
    pub id: RunId,
    /// Its host.
    pub host: String,
    /// What tells whether its process still lives there.
    pub process: String,
}

/// An attempt at a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptRecord {
    /// The task.
    #[serde(flatten)]
    pub task: TaskName,
    /// Which attempt: 1 is the first.
    pub number: u32,
    /// Running, or how it ended.
    pub state: State,
    /// Milliseconds since 1970-01-01T00:00Z.
    pub started: i64,
    /// The same; `None` as long as it runs.
    pub ended: Option<i64>,
    /// Exit code that says why it ended.
    pub exit_code: Option<u8>,
    /// Identity of the task, once its inputs were known.
    pub identity: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// The container's log.
    pub log: Option<String>,
    /// Bytes staged.
    pub bytes_in: u64,
    /// Bytes published.
    pub bytes_out: u64,
    /// The most memory that the container used, in bytes, where that is known.
    pub peak_memory: Option<u64>,
    /// What it went through, in this order.
    pub phases: Vec<PhaseRecord>,
}

/// A phase of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseRecord {
    /// Its name.
    pub name: String,
    /// Milliseconds since 1970-01-01T00:00Z.
    pub started: i64,
    /// How long it took; `None` if it has not ended well.
    pub seconds: Option<f64>,
    /// Bytes moved, for transfers.
    pub bytes: Option<u64>,
}

/// A published output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutputRecord {
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub uri: String,
    /// Where its manifest lies.
    pub manifest: String,
    /// Digest over all its objects.
    pub digest: String,
}

impl Ledger {
    /// The newest `limit` cycles from `from` to `to`, the newest first.
    pub fn cycles(
        &self,
        from: Option<AnalysisTime>,
        to: Option<AnalysisTime>,
        limit: u32,
    ) -> Result<Vec<CycleRow>, Error> {
        let from = from.map_or(i64::MIN, AnalysisTime::unix_seconds);
        let to = to.map_or(i64::MAX, AnalysisTime::unix_seconds);
        let counts = self.rows(
            "SELECT analysis_time, configuration, state, tasks FROM counts
             WHERE tasks > 0 AND analysis_time BETWEEN ?1 AND ?2 AND analysis_time >= coalesce(
                 (SELECT DISTINCT analysis_time FROM counts WHERE analysis_time BETWEEN ?1 AND ?2
                  ORDER BY analysis_time DESC LIMIT 1 OFFSET ?3 - 1), ?1)
             ORDER BY analysis_time DESC",
            params![from, to, limit],
            |row| {
                let time = time_of(row, 0)?;
                let state = state_of(row, 2)?;
                Ok((time, row.get::<_, String>(1)?, state, count_of(row, 3)?))
            },
        )?;
        let mut cycles: Vec<CycleRow> = Vec::new();
        for (analysis_time, configuration, state, count) in counts {
            if cycles
                .last()
                .is_none_or(|row| row.analysis_time != analysis_time)
            {
                cycles.push(CycleRow {
                    analysis_time,
                    cells: BTreeMap::new(),
                });
            }
            if let Some(row) = cycles.last_mut() {
                let cell = row.cells.entry(configuration).or_default();
                cell.0.insert(state, count);
            }
        }
        Ok(cycles)
    }

    /// The tasks of a cycle with their states, by configuration and member.
    pub fn tasks(&self, analysis_time: AnalysisTime) -> Result<Vec<(TaskName, State)>, Error> {
        self.rows(
            "SELECT analysis_time, configuration, member, state FROM tasks
             WHERE analysis_time = ?1 ORDER BY configuration, member",
            [analysis_time.unix_seconds()],
            |row| {
                let task = TaskName {
                    analysis_time: time_of(row, 0)?,
                    configuration: row.get(1)?,
                    member: row.get(2)?,
                };
                Ok((task, state_of(row, 3)?))
            },
        )
    }

    /// All attempts at a task, the first one first.
    pub fn attempts(&self, task: &TaskName) -> Result<Vec<AttemptRecord>, Error> {
        self.attempts_where(
            "analysis_time = ?1 AND configuration = ?2 AND member = ?3 ORDER BY number",
            params![
                task.analysis_time.unix_seconds(),
                task.configuration,
                task.member
            ],
        )
    }

    /// The newest attempt at each task of a cycle, by configuration and member.
    pub fn newest_attempts(
        &self,
        analysis_time: AnalysisTime,
    ) -> Result<Vec<AttemptRecord>, Error> {
        self.attempts_where(
            "analysis_time = ?1 AND number = (SELECT max(number) FROM attempts WHERE task = tasks.id)
             ORDER BY configuration, member",
            [analysis_time.unix_seconds()],
        )
    }

    /// The newest attempts, `most` at most, that ran a container and published what a configuration makes of
    /// this forecast duration; the newest first. Those of very long ago are not looked for.
    pub fn successes(
        &self,
        configuration: &str,
        forecast_duration: Option<&str>,
        most: u32,
    ) -> Result<Vec<AttemptRecord>, Error> {
        self.attempts_where(
            "attempts.id > (SELECT coalesce(max(id), 0) - ?4 FROM attempts)
                 AND attempts.state = 'published' AND configuration = ?1 AND forecast_duration IS ?2
                 AND EXISTS (SELECT 1 FROM phases
                     WHERE attempt = attempts.id AND name = 'run' AND seconds IS NOT NULL)
             ORDER BY attempts.id DESC LIMIT ?3",
            params![configuration, forecast_duration, most, LOOKED_AT],
        )
    }

    /// What is published of a task.
    pub fn outputs(&self, task: &TaskName) -> Result<Vec<OutputRecord>, Error> {
        self.rows(
            "SELECT name, uri, manifest, digest FROM outputs JOIN tasks ON tasks.id = task
             WHERE analysis_time = ?1 AND configuration = ?2 AND member = ?3 ORDER BY name",
            params![
                task.analysis_time.unix_seconds(),
                task.configuration,
                task.member
            ],
            |row| {
                Ok(OutputRecord {
                    name: row.get(0)?,
                    uri: row.get(1)?,
                    manifest: row.get(2)?,
                    digest: row.get(3)?,
                })
            },
        )
    }

    /// The runs that have not ended, or were killed.
    pub fn open_runs(&self) -> Result<Vec<RunRecord>, Error> {
        self.rows(
            "SELECT id, host, process FROM runs WHERE ended IS NULL ORDER BY id",
            [],
            |row| {
                Ok(RunRecord {
                    id: RunId(row.get(0)?),
                    host: row.get(1)?,
                    process: row.get(2)?,
                })
            },
        )
    }

    fn attempts_where(
        &self,
        condition: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<AttemptRecord>, Error> {
        let query = format!(
            "SELECT attempts.id, analysis_time, configuration, member, number, attempts.state,
                 started, ended, exit_code, identity, error, log, bytes_in, bytes_out, peak_memory
             FROM attempts JOIN tasks ON tasks.id = task WHERE {condition}"
        );
        let found = self.rows(&query, parameters, |row| {
            let id: i64 = row.get(0)?;
            let state = match row.get_ref(5)? {
                rusqlite::types::ValueRef::Null => State::Running,
                _ => state_of(row, 5)?,
            };
            let attempt = AttemptRecord {
                task: TaskName {
                    analysis_time: time_of(row, 1)?,
                    configuration: row.get(2)?,
                    member: row.get(3)?,
                },
                number: row.get(4)?,
                state,
                started: row.get(6)?,
                ended: row.get(7)?,
                exit_code: row.get(8)?,
                identity: row.get(9)?,
                error: row.get(10)?,
                log: row.get(11)?,
                bytes_in: count_of(row, 12)?,
                bytes_out: count_of(row, 13)?,
                peak_memory: row.get::<_, Option<i64>>(14)?.map(i64::unsigned_abs),
                phases: Vec::new(),
            };
            Ok((id, attempt))
        })?;
        let mut attempts = Vec::with_capacity(found.len());
        for (id, mut attempt) in found {
            attempt.phases = self.phases(id)?;
            attempts.push(attempt);
        }
        Ok(attempts)
    }

    fn phases(&self, attempt: i64) -> Result<Vec<PhaseRecord>, Error> {
        self.rows(
            "SELECT name, started, seconds, bytes FROM phases WHERE attempt = ?1 ORDER BY started",
            [attempt],
            |row| {
                Ok(PhaseRecord {
                    name: row.get(0)?,
                    started: row.get(1)?,
                    seconds: row.get(2)?,
                    bytes: row.get::<_, Option<i64>>(3)?.map(i64::unsigned_abs),
                })
            },
        )
    }

    fn rows<T>(
        &self,
        query: &str,
        parameters: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let connection = self.connection();
        let rows: rusqlite::Result<Vec<T>> = (|| {
            let mut statement = connection.prepare_cached(query)?;
            let rows = statement.query_map(parameters, read)?;
            rows.collect()
        })();
        rows.map_err(self.failed("read"))
    }
}

fn time_of(row: &Row<'_>, column: usize) -> rusqlite::Result<AnalysisTime> {
    let seconds = row.get(column)?;
    AnalysisTime::from_unix_seconds(seconds)
        .ok_or(rusqlite::Error::IntegralValueOutOfRange(column, seconds))
}

fn state_of(row: &Row<'_>, column: usize) -> rusqlite::Result<State> {
    let text: String = row.get(column)?;
    text.parse().map_err(|()| {
        let unknown = format!("`{text}` is no state of a task");
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, unknown.into())
    })
}

fn count_of(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::unsigned_abs)
}
