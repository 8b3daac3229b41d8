//! Why a container ended as it did, for who has to do something about it.

use std::path::{Path, PathBuf};

use mlwm_engines::{Ended, Limits};
use mlwm_spec::Period;
use mlwm_spec::bytes::ByteSize;
use mlwm_spec::configuration::Resources;

use crate::Error;
use crate::disk::Excess;

/// What libraries say when they may not make another process or thread. That alone may have other
/// causes: it is only a hint.
const NO_PROCESS: [&str; 6] = [
    "fork: Resource temporarily unavailable",
    "fork: retry",
    "Cannot fork",
    "can't start new thread",
    "pthread_create failed",
    "Thread creation failed",
];

/// What a container with these resources and this timeout came to: an error unless it ended well.
pub(crate) fn judge(
    (resources, timeout): (&Resources, Option<Period>),
    ended: &Ended,
    excess: Option<Excess>,
    log: &Path,
    last: Vec<String>,
) -> Result<(), Error> {
    let log = log.to_owned();
    if let Some(excess) = excess {
        return Err(exceeded(resources, excess, log, last));
    }
    if ended.cancelled {
        return Err(Error::Interrupted);
    }
    let hint = hint(resources, ended, &last);
    if let Some(timeout) = timeout.filter(|_| ended.timed_out) {
        return Err(Error::Timeout {
            timeout,
            hint,
            log,
            last,
        });
    }
    let code = ended.exit_code;
    // Podman does not tell of a kill for want of memory, and Docker not always (it hears of it from a
    // control group that may be gone already): a container with a limit that was killed, and not by
    // us, is taken to have run into it.
    let limit = resources.memory;
    let killed = code == 137 && limit.is_some();
    match (code, ended.oom_killed || killed) {
        (0, false) => Ok(()),
        // Also if the first process lived on: what it made without the one that was killed is not
        // to be trusted.
        (_, true) => Err(Error::OutOfMemory {
            limit: match (limit, ended.oom_killed) {
                (Some(limit), true) => format!("its {limit}"),
                (Some(limit), false) => {
                    format!("its {limit} (the engine says only that it was killed)")
                }
                (None, _) => "the machine has".to_owned(),
            },
            log,
            last,
        }),
        (_, false) => Err(Error::ContainerFailed {
            code,
            hint,
            log,
            last,
        }),
    }
}

fn exceeded(resources: &Resources, excess: Excess, log: PathBuf, last: Vec<String>) -> Error {
    match excess {
        Excess::Limit { written, room } => Error::DiskLimit {
            written: whole(written),
            limit: match resources.disk {
                Some(limit) if room <= limit.0 => format!("its `resources.disk` of {limit}"),
                _ => format!("`--disk` allows ({} for what it writes)", whole(room)),
            },
            log,
            last,
        },
        Excess::Windows { written, room } => Error::WindowsOverran {
            written,
            room,
            log,
            last,
        },
        Excess::Reserve {
            written,
            free,
            reserve,
        } => Error::DiskReserve {
            written: whole(written),
            free: whole(free),
            reserve: whole(reserve),
            log,
            last,
        },
    }
}

/// A size in whole MiB.
pub(crate) fn whole(bytes: u64) -> ByteSize {
    ByteSize(bytes.div_ceil(1 << 20) << 20)
}

/// The limits that a container seems to have run into; empty, or to be read after a semicolon.
fn hint(resources: &Resources, ended: &Ended, last: &[String]) -> String {
    let limits = Limits::of(resources);
    let processes = limits.processes;
    let said = |text: &str| last.iter().any(|line| line.contains(text));
    let mut hint = String::new();
    if ended
        .peak_processes
        .is_some_and(|peak| peak >= u64::from(processes))
    {
        hint += &format!(
            "; it had {processes} processes and threads, as many as it may: find out why, or raise \
             `resources.processes`"
        );
    } else if NO_PROCESS.iter().any(|text| said(text)) {
        hint += &format!(
            "; it may have {processes} processes and threads (`resources.processes`), and seems to \
             have wanted more"
        );
    }
    if said("No space left on device") {
        hint += &format!(
            "; `/tmp` holds {} (half of `resources.memory`, if that is given) and `/dev/shm` {} \
             (`resources.shm_size`)",
            ByteSize(limits.tmp),
            ByteSize(limits.shm)
        );
    }
    if said("Read-only file system") {
        hint += "; it can write to its outputs and `/tmp` alone";
    }
    hint
}
