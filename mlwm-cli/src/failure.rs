//! The error of a command: a sentence and an exit code.

use std::fmt;
use std::io;
use std::path::Path;

use mlwm_spec::{ExitCode, LocalFailure};

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: ExitCode,
}

impl Failure {
    pub(crate) fn new(code: ExitCode, message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            code,
        }
    }

    /// A local file could not be used.
    pub(crate) fn local(action: &str, path: &Path, source: &io::Error) -> Self {
        let failure = LocalFailure {
            action,
            path,
            source,
        };
        Self::new(failure.exit_code(), failure)
    }

    pub(crate) fn code(&self) -> ExitCode {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The errors of the crates below know their exit code.
macro_rules! from_error {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error.exit_code(), error)
            }
        }
    )*};
}

from_error!(
    mlwm_cycles::Error,
    mlwm_engines::Error,
    mlwm_images::Error,
    mlwm_ledger::Error,
    mlwm_registries::Error,
    mlwm_storage::Error,
);

impl From<mlwm_artifacts::Error> for Failure {
    fn from(error: mlwm_artifacts::Error) -> Self {
        // It may lie in a registry, and what failed be a request.
        mlwm_registries::Error::from(error).into()
    }
}

impl From<mlwm_datasets::Error> for Failure {
    fn from(error: mlwm_datasets::Error) -> Self {
        use mlwm_datasets::Error::{NoVariable, NotZarr, Read};
        let code = match error {
            NoVariable { .. } | NotZarr { .. } | Read { .. } => ExitCode::InputMissing,
            _ => ExitCode::InputCorrupt,
        };
        Self::new(code, error)
    }
}

impl From<mlwm_registries::signature::SignatureError> for Failure {
    fn from(error: mlwm_registries::signature::SignatureError) -> Self {
        use mlwm_registries::signature::SignatureError::{
            EmptyPassword, File, KeyExists, NoPassword, Password, PublicKey, SecretKey,
        };
        let code = match error {
            KeyExists(_) => ExitCode::Conflict,
            File {
                action,
                ref path,
                ref source,
            } => LocalFailure {
                action,
                path,
                source,
            }
            .exit_code(),
            EmptyPassword | NoPassword(_) | Password { .. } | PublicKey(_) | SecretKey { .. } => {
                ExitCode::Usage
            }
            _ => ExitCode::ArtifactMismatch,
        };
        Self::new(code, error)
    }
}
