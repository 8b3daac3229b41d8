//! The ledger of a working folder.

use std::path::{Path, PathBuf};

use mlwm_engines::owner::{self, Owner};
use mlwm_ledger::Ledger;

use crate::Error;

/// Where the ledger of a working folder lies.
pub fn ledger_file(workdir: &Path) -> PathBuf {
    workdir.join("ledger.sqlite")
}

/// Notes in a ledger which runs were killed, as far as that can be seen from here.
pub fn note_killed(ledger: &Ledger) -> Result<(), Error> {
    for run in ledger.open_runs()? {
        if owner_is_dead(&run.host, &run.process) {
            ledger.lose_run(run.id)?;
        }
    }
    Ok(())
}

/// Whether a process, as [`owner::this_process`] names it, is known to be dead.
pub(crate) fn owner_is_dead(host: &str, process: &str) -> bool {
    match owner::judge(Some(process)) {
        Owner::Alive => false,
        Owner::Dead => true,
        // This host was started again since.
        Owner::Unknown => host == this_host() && owner::is_of_other_boot(process),
    }
}

/// The name of this host.
pub(crate) fn this_host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
