//! One module per command: it parses, calls and prints.

pub(crate) mod artifact;
pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod image;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod paths;
pub(crate) mod plan;
pub(crate) mod plot;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod verify;
pub(crate) mod why;

use std::path::PathBuf;

use mlwm_cycles::Artifacts;
use mlwm_registries::{Cache, Unpacked};
use mlwm_spec::ExitCode;
use mlwm_spec::manifest::MANIFEST_SUFFIX;
use mlwm_storage::Uri;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::transfer::Transfer;

/// Names the registry of references without one.
pub(crate) const REGISTRY: &str = "MLWM_REGISTRY";

/// The registry that a bare name means, if one is set.
pub(crate) fn default_registry() -> Option<String> {
    std::env::var(REGISTRY).ok().filter(|uri| !uri.is_empty())
}

/// Where the configurations lie.
#[derive(clap::Args)]
pub(crate) struct Configurations {
    /// Folder of the configurations, one subfolder each.
    #[arg(
        long = "configurations",
        env = "MLWM_CONFIGURATIONS",
        value_name = "DIR",
        default_value = "configurations"
    )]
    pub(crate) folder: PathBuf,
}

/// Where the work is done.
#[derive(clap::Args)]
pub(crate) struct Workdir {
    /// Folder for the ledger, staged inputs, outputs before publication, and logs. Several mlwm may
    /// share one, also from several hosts.
    #[arg(
        long = "workdir",
        env = "MLWM_WORKDIR",
        value_name = "DIR",
        default_value = "mlwm-work"
    )]
    pub(crate) workdir: PathBuf,
}

/// The URI of an output, from that or from the URI of its manifest.
pub(crate) fn output_of(text: &str) -> Result<Uri, mlwm_storage::Error> {
    text.strip_suffix(MANIFEST_SUFFIX).unwrap_or(text).parse()
}

/// The runtime for commands that talk to an engine or a store.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            let message = format!("cannot start the threads that mlwm works with: {error}");
            Failure::new(ExitCode::Failed, message)
        })
}

/// Cancels on SIGINT and SIGTERM, and says `what` happens then; a second signal ends the process at
/// once. Called inside the runtime.
pub(crate) fn stop_on_signal(
    cancel: &CancellationToken,
    what: &'static str,
) -> Result<(), Failure> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signals = listen(kind)?;
        let cancel = cancel.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if cancel.is_cancelled() {
                    std::process::exit(ExitCode::Interrupted.number().into());
                }
                note!("{what}");
                cancel.cancel();
            }
        });
    }
    Ok(())
}

/// Goes on when the terminal is closed in which the command was begun. Called inside the runtime.
pub(crate) fn outlive_terminal() -> Result<(), Failure> {
    let mut signals = listen(SignalKind::hangup())?;
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            note!("the terminal is gone: it goes on, and stops at SIGTERM");
        }
    });
    Ok(())
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| {
        let message = format!("cannot listen for signals: {error}");
        Failure::new(ExitCode::Failed, message)
    })
}

/// Where the artifacts of configurations come from; transfers are shown and called off by
/// `transfer`.
pub(crate) fn artifacts(transfer: &Transfer) -> Result<Artifacts, Failure> {
    Ok(Artifacts {
        cache: Cache::open_default()?,
        registry: default_registry(),
        options: transfer.options(),
        receipts: Artifacts::receipts(false),
        unpacked: Unpacked::open_default(Artifacts::receipts(false))?,
    })
}
