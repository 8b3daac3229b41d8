//! Writing: what is intended, and what came of it.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use jiff::Timestamp;
use mlwm_spec::{AnalysisTime, Digest, ExitCode};
use rusqlite::{
    Connection, OptionalExtension, Transaction, TransactionBehavior, named_params, params,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Ledger};

/// What a task is called: the same in every run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskName {
    /// The configuration.
    pub configuration: String,
    /// The time the forecast starts from.
    pub analysis_time: AnalysisTime,
    /// Ensemble member.
    pub member: u32,
}

/// How far a task or an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It shall be done.
    Planned,
    /// It is being done.
    Running,
    /// Its outputs are published.
    Published,
    /// It failed.
    Failed,
    /// It was told to stop.
    Interrupted,
    /// Who did it was killed.
    Lost,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Planned,
        Self::Running,
        Self::Published,
        Self::Failed,
        Self::Interrupted,
        Self::Lost,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Published => "published",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|state| state.name() == text).ok_or(())
    }
}

/// A run that begins.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// The host.
    pub host: String,
    /// What tells whether its process still lives there.
    pub process: String,
    /// Version of mlwm.
    pub version: String,
    /// SHA-256 of the plan.
    pub plan: Digest,
}

/// A run in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId(pub(crate) i64);

/// An attempt in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptId {
    id: i64,
    task: i64,
    /// When it began, by the clock that may be set and by one that only goes on.
    started: i64,
    began: Instant,
}

impl AttemptId {
    /// Milliseconds since 1970-01-01T00:00Z, counted on from the attempt's beginning: whoever sets the
    /// clock meanwhile changes neither how long it took nor the order of its phases.
    fn now(&self) -> i64 {
        let since = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.started.saturating_add(since)
    }
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub struct AttemptResult {
    /// Published, failed or interrupted.
    pub state: State,
    /// Why.
    pub exit_code: ExitCode,
    /// Identity of the task, once its inputs were known.
    pub identity: Option<Digest>,
    /// What went wrong, in full.
    pub error: Option<String>,
    /// The container's log, if one was started.
    pub log: Option<String>,
    /// Bytes staged.
    pub bytes_in: u64,
    /// Bytes published.
    pub bytes_out: u64,
    /// The most memory that the container used, in bytes, where the engine says it.
    pub peak_memory: Option<u64>,
    /// Length of the forecast as the container is told it, if it is.
    pub forecast_duration: Option<String>,
    /// What was published.
    pub outputs: Vec<Published>,
}

/// A published output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub uri: String,
    /// Where its manifest lies.
    pub manifest: String,
    /// Digest over all its objects.
    pub digest: Digest,
}

/// A task that was found to be published.
#[derive(Clone, Debug)]
pub struct Found {
    /// The task.
    pub task: TaskName,
    /// Its identity.
    pub identity: Digest,
    /// When its container began and ended, if that is known: milliseconds since 1970-01-01T00:00Z.
    pub times: Option<(i64, i64)>,
    /// What is published.
    pub outputs: Vec<Published>,
}

impl Ledger {
    /// A run begins, and shall do these tasks. Those that are published stay so.
    pub fn begin_run<'a>(
        &self,
        run: &NewRun,
        tasks: impl IntoIterator<Item = &'a TaskName>,
    ) -> Result<RunId, Error> {
        self.write("begin a run in", |transaction| {
            transaction.execute(
                "INSERT INTO runs (started, host, process, version, plan)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    now(),
                    run.host,
                    run.process,
                    run.version,
                    run.plan.to_string()
                ],
            )?;
            let id = RunId(transaction.last_insert_rowid());
            for task in tasks {
                task_id(transaction, task)?;
            }
            Ok(id)
        })
    }

    /// A run has ended.
    pub fn end_run(&self, run: RunId, exit_code: ExitCode) -> Result<(), Error> {
        self.write("end a run in", |transaction| {
            transaction.execute(
                "UPDATE runs SET ended = ?2, exit_code = ?3 WHERE id = ?1",
                params![run.0, now(), exit_code.number()],
            )?;
            Ok(())
        })
    }

    /// A run was killed, and with it its attempts.
    pub fn lose_run(&self, run: RunId) -> Result<(), Error> {
        self.write("note a killed run in", |transaction| {
            transaction.execute(
                "UPDATE tasks SET state = 'lost' WHERE state = 'running' AND id IN
                     (SELECT task FROM attempts WHERE run = ?1 AND ended IS NULL)",
                [run.0],
            )?;
            // The clock may have been set back since it began.
            transaction.execute(
                "UPDATE attempts SET ended = max(started, ?2), state = 'lost'
                 WHERE run = ?1 AND ended IS NULL",
                params![run.0, now()],
            )?;
            transaction.execute(
                "UPDATE runs SET ended = max(started, ?2) WHERE id = ?1 AND ended IS NULL",
                params![run.0, now()],
            )?;
            Ok(())
        })
    }

    /// An attempt at a task begins; also its number, 1 for the first. On the disk before this returns.
    pub fn begin_attempt(&self, run: RunId, task: &TaskName) -> Result<(AttemptId, u32), Error> {
        let (started, began) = (now(), Instant::now());
        self.write("begin an attempt in", |transaction| {
            let task = task_id(transaction, task)?;
            transaction
                .prepare_cached(
                    "INSERT INTO attempts (task, run, number, started) VALUES (?1, ?2,
                         1 + (SELECT coalesce(max(number), 0) FROM attempts WHERE task = ?1), ?3)",
                )?
                .execute(params![task, run.0, started])?;
            let id = transaction.last_insert_rowid();
            let number = transaction
                .prepare_cached("SELECT number FROM attempts WHERE id = ?1")?
                .query_row([id], |row| row.get(0))?;
            set_state(transaction, task, State::Running)?;
            let attempt = AttemptId {
                id,
                task,
                started,
                began,
            };
            Ok((attempt, number))
        })
    }

    /// A phase of an attempt begins.
    pub fn begin_phase(&self, attempt: AttemptId, phase: &str) -> Result<(), Error> {
        self.jot("note a phase in", |transaction| {
            transaction
                .prepare_cached(
                    "INSERT INTO phases (attempt, name, started) VALUES (?1, ?2, ?3)
                     ON CONFLICT DO UPDATE SET started = excluded.started, seconds = NULL",
                )?
                .execute(params![attempt.id, phase, attempt.now()])?;
            Ok(())
        })
    }

    /// A phase of an attempt has ended well, after `seconds`.
    pub fn end_phase(
        &self,
        attempt: AttemptId,
        phase: &str,
        seconds: f64,
        bytes: Option<u64>,
    ) -> Result<(), Error> {
        self.jot("note a phase in", |transaction| {
            transaction
                .prepare_cached(
                    "UPDATE phases SET seconds = ?3, bytes = ?4 WHERE attempt = ?1 AND name = ?2",
                )?
                .execute(params![attempt.id, phase, seconds, bytes.map(signed)])?;
            Ok(())
        })
    }

    /// Where the log of an attempt's container is.
    pub fn has_log(&self, attempt: AttemptId, log: &str) -> Result<(), Error> {
        self.jot("note a log in", |transaction| {
            transaction
                .prepare_cached("UPDATE attempts SET log = ?2 WHERE id = ?1")?
                .execute(params![attempt.id, log])?;
            Ok(())
        })
    }

    /// An attempt has ended. On the disk before this returns.
    pub fn end_attempt(&self, attempt: AttemptId, result: &AttemptResult) -> Result<(), Error> {
        self.write("end an attempt in", |transaction| {
            transaction
                .prepare_cached(
                    "UPDATE attempts SET ended = :ended, state = :state, exit_code = :exit_code,
                         identity = :identity, error = :error, log = :log, bytes_in = :bytes_in,
                         bytes_out = :bytes_out, peak_memory = :peak_memory,
                         forecast_duration = :forecast_duration WHERE id = :id",
                )?
                .execute(named_params! {
                    ":id": attempt.id,
                    ":ended": attempt.now(),
                    ":state": result.state.name(),
                    ":exit_code": result.exit_code.number(),
                    ":identity": result.identity.map(|identity| identity.to_string()),
                    ":error": result.error,
                    ":log": result.log,
                    ":bytes_in": signed(result.bytes_in),
                    ":bytes_out": signed(result.bytes_out),
                    ":peak_memory": result.peak_memory.map(signed),
                    ":forecast_duration": result.forecast_duration,
                })?;
            set_state(transaction, attempt.task, result.state)?;
            put_outputs(transaction, attempt.task, &result.outputs)
        })
    }

    /// A task was found to be published. An attempt is made up for it unless the newest one says the
    /// same.
    pub fn found(&self, found: &Found) -> Result<(), Error> {
        self.write("note a publication in", |transaction| {
            let task = task_id(transaction, &found.task)?;
            let identity = found.identity.to_string();
            let newest: Option<(Option<String>, Option<String>)> = transaction
                .prepare_cached(
                    "SELECT state, identity FROM attempts WHERE task = ?1
                     ORDER BY number DESC LIMIT 1",
                )?
                .query_row([task], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let known = newest.is_some_and(|(state, of)| {
                state.as_deref() == Some(State::Published.name()) && of.as_ref() == Some(&identity)
            });
            if !known {
                let (started, ended) = found.times.unwrap_or_else(|| (now(), now()));
                transaction
                    .prepare_cached(
                        "INSERT INTO attempts (task, number, started, ended, state, exit_code, identity)
                         VALUES (?1, 1 + (SELECT coalesce(max(number), 0) FROM attempts WHERE task = ?1),
                             ?2, ?3, 'published', 0, ?4)",
                    )?
                    .execute(params![task, started, ended.max(started), identity])?;
            }
            set_state(transaction, task, State::Published)?;
            put_outputs(transaction, task, &found.outputs)
        })
    }

    /// Does all of `work` or nothing; it is on the disk when this returns.
    fn write<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        transact(&mut self.connection(), work).map_err(self.failed(action))
    }

    /// The same for what is told while an attempt runs: it outlives the process, and what the machine
    /// loses of it when it breaks down is not missed.
    fn jot<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let mut connection = self.connection();
        let written = (|| {
            connection.pragma_update(None, "synchronous", "normal")?;
            let done = transact(&mut connection, work);
            connection.pragma_update(None, "synchronous", "full")?;
            done
        })();
        written.map_err(self.failed(action))
    }
}

fn transact<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&transaction)?;
    transaction.commit()?;
    Ok(done)
}

fn task_id(transaction: &Transaction<'_>, task: &TaskName) -> rusqlite::Result<i64> {
    let key = params![
        task.analysis_time.unix_seconds(),
        task.configuration,
        task.member
    ];
    let known = transaction
        .prepare_cached(
            "SELECT id FROM tasks WHERE analysis_time = ?1 AND configuration = ?2 AND member = ?3",
        )?
        .query_row(key, |row| row.get(0))
        .optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    transaction
        .prepare_cached(
            "INSERT INTO tasks (analysis_time, configuration, member, state)
             VALUES (?1, ?2, ?3, 'planned')",
        )?
        .execute(key)?;
    Ok(transaction.last_insert_rowid())
}

fn set_state(transaction: &Transaction<'_>, task: i64, state: State) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE tasks SET state = ?2 WHERE id = ?1")?
        .execute(params![task, state.name()])?;
    Ok(())
}

fn put_outputs(
    transaction: &Transaction<'_>,
    task: i64,
    outputs: &[Published],
) -> rusqlite::Result<()> {
    for output in outputs {
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO outputs (task, name, uri, manifest, digest)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                task,
                output.name,
                output.uri,
                output.manifest,
                output.digest.to_string()
            ])?;
    }
    Ok(())
}

/// Milliseconds since 1970-01-01T00:00Z.
fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

/// SQLite's integers have a sign.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
