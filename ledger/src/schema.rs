//! The tables, and how a ledger of an older version is brought to them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use backon::{BlockingRetryable, ConstantBuilder};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::Error;

/// How long a writer waits for another.
const BUSY: Duration = Duration::from_secs(30);
/// Between two tries where SQLite itself does not wait.
const BETWEEN: Duration = Duration::from_millis(20);
/// How often it is tried: for as long.
const TRIES: usize = 1500;

/// Each brings the tables from the version before it to its own; `user_version` says how many were
/// carried out. Never change one that was released: add another.
const MIGRATIONS: [&str; 2] = [include_str!("schema/1.sql"), include_str!("schema/2.sql")];

/// File systems that several hosts see, by the number that `statfs` gives: NFS, SMB, CIFS, Lustre,
/// GPFS, Ceph, BeeGFS, AFS, FUSE (sshfs and others), 9p.
const SHARED: [i64; 10] = [
    0x6969,
    0xfe53_4d42,
    0xff53_4d42,
    0x0bd0_0bd0,
    0x4750_4653,
    0x00c3_6400,
    0x1983_0326,
    0x5346_414f,
    0x6573_5546,
    0x0102_1997,
];

/// Opens a ledger for writing, and makes it if there is none.
pub(crate) fn open(path: &Path) -> Result<Connection, Error> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let unusable = |source| Error::Folder {
        path: folder.to_owned(),
        source,
    };
    fs::create_dir_all(folder).map_err(unusable)?;
    let shared = is_shared(folder).map_err(unusable)?;
    let failed = |source| Error::Database {
        action: "open",
        path: path.to_owned(),
        source,
    };
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    // A write-ahead log needs memory that all its readers share: on the file system of several
    // hosts the older kind of journal is used.
    let journal = if shared { "truncate" } else { "wal" };
    // SQLite does not wait for others when the kind is changed, as it is when a ledger is made.
    let pauses = ConstantBuilder::default()
        .with_delay(BETWEEN)
        .with_max_times(TRIES);
    (|| set_journal(&connection, journal))
        .retry(pauses)
        .when(|error| error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
        .call()
        .map_err(failed)?;
    // What is written must outlive the machine: it says what was intended.
    connection
        .pragma_update(None, "synchronous", "full")
        .map_err(failed)?;
    connection
        .pragma_update(None, "foreign_keys", true)
        .map_err(failed)?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

fn set_journal(connection: &Connection, journal: &str) -> rusqlite::Result<()> {
    let now: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    match now == journal {
        true => Ok(()),
        false => connection.pragma_update(None, "journal_mode", journal),
    }
}

/// Opens a ledger for reading, if there is one.
pub(crate) fn look(path: &Path) -> Result<Option<Connection>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let failed = |source| Error::Database {
        action: "open",
        path: path.to_owned(),
        source,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    match version(&connection, path)? {
        // Its maker has not come further yet, or was killed there: nothing is in it.
        0 => Ok(None),
        known if known == newest() => Ok(Some(connection)),
        // To be read, an older one must be brought to the form of this version.
        _ => open(path).map(Some),
    }
}

fn newest() -> i64 {
    MIGRATIONS.len() as i64
}

fn version(connection: &Connection, path: &Path) -> Result<i64, Error> {
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| Error::Database {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
    match version > newest() {
        true => Err(Error::Newer {
            path: path.to_owned(),
            version,
            known: newest(),
        }),
        false => Ok(version),
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    if version(connection, path)? == newest() {
        return Ok(());
    }
    let failed = |source| Error::Database {
        action: "make",
        path: path.to_owned(),
        source,
    };
    // Another process may do the same: who waits here finds it done.
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed)?;
    let done = version(&transaction, path)?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(done).unwrap_or(0)) {
        transaction.execute_batch(migration).map_err(failed)?;
    }
    transaction
        .pragma_update(None, "user_version", newest())
        .map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// Whether several hosts may see a folder.
fn is_shared(folder: &Path) -> std::io::Result<bool> {
    let kind = rustix::fs::statfs(folder)?.f_type;
    #[allow(clippy::unnecessary_cast, reason = "its type differs by platform")]
    let kind = kind as i64;
    Ok(SHARED.contains(&kind))
}
