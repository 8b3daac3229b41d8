//! Exit codes of the command `mlwm` and of a container that obeys the contract.
//!
//! The numbers are public and never change their meaning; `docs/exit-codes.md` lists them.

use serde::{Deserialize, Serialize};

/// Why a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum ExitCode {
    /// Everything asked for is done.
    Ok = 0,
    /// A fault of mlwm itself, or one that has no code of its own.
    Failed = 1,
    /// The command line could not be understood (the number that `clap` uses).
    Usage = 2,
    /// A configuration, datastore configuration or interface is wrong.
    BadConfiguration = 10,
    /// An input dataset, time, variable or level is not there.
    InputMissing = 11,
    /// An input is there but holds what it must not (NaN, wrong time step, wrong grid).
    InputCorrupt = 12,
    /// An artifact is damaged, or does not match its configuration, statistics or model.
    ArtifactMismatch = 13,
    /// The image of a configuration is not in the engine.
    ImageMissing = 14,
    /// The container engine does not answer, or has not what the task needs.
    EngineUnavailable = 15,
    /// A container ended with an exit code other than 0.
    ContainerFailed = 20,
    /// A container was killed for using more memory than it may.
    OutOfMemory = 21,
    /// A container was stopped at its time limit.
    Timeout = 22,
    /// A container said it succeeded, but an output is missing or incomplete.
    Incomplete = 23,
    /// An image does not make the forecast that its artifact's golden case expects.
    Differs = 24,
    /// A store did not answer, refused, or ran out of space.
    StorageFailed = 30,
    /// Something else is already published where this forecast would go.
    Conflict = 31,
    /// Stopped by a signal; the same command continues.
    Interrupted = 130,
}

impl ExitCode {
    /// All codes, in the order of their numbers.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::BadConfiguration,
        Self::InputMissing,
        Self::InputCorrupt,
        Self::ArtifactMismatch,
        Self::ImageMissing,
        Self::EngineUnavailable,
        Self::ContainerFailed,
        Self::OutOfMemory,
        Self::Timeout,
        Self::Incomplete,
        Self::Differs,
        Self::StorageFailed,
        Self::Conflict,
        Self::Interrupted,
    ];

    /// The number that the process exits with.
    pub fn number(self) -> u8 {
        self as u8
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_rise() {
        assert!(ExitCode::ALL.is_sorted_by(|a, b| a.number() < b.number()));
    }
}
