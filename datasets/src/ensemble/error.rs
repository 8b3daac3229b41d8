//! What can go wrong with the products of an ensemble.

use std::path::PathBuf;

use mlwm_spec::{Digest, ExitCode};

use crate::forecast_store::StoreError;

/// Why products of an ensemble cannot be accumulated or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnsembleError {
    /// Products that cannot be made as declared.
    #[error("the products of `{variable}` cannot be made: {reason}")]
    Product {
        /// The variable.
        variable: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A member that is included already, with other content.
    #[error(
        "member {member} is included in `{}` with the content {included}, but now has {given}: \
         remove the files of the ensemble's products and add all members again", path.display()
    )]
    OtherContent {
        /// The file.
        path: PathBuf,
        /// The member.
        member: u32,
        /// The digest of what is included.
        included: Digest,
        /// The digest of what was to be added.
        given: Digest,
    },
    /// A point at which some members have a value and others do not.
    #[error(
        "`{variable}` of member {member} {} at the lead time {lead}, point {point}, unlike the \
         members before it: declare where that may be", if *is_missing {"is missing"} else {"has a value"}
    )]
    Mixed {
        /// The variable.
        variable: String,
        /// The member being added.
        member: u32,
        /// Whether it is the one without a value.
        is_missing: bool,
        /// The lead time: `6 h`.
        lead: String,
        /// The place in the plane, in row-major order.
        point: usize,
    },
    /// A value too large for exact sums.
    #[error(
        "`{variable}` has the value {value} at the lead time {lead}, point {point}: mean and \
         spread are exact up to 2^30 only"
    )]
    Overflow {
        /// The variable.
        variable: String,
        /// The value.
        value: f32,
        /// The lead time: `6 h`.
        lead: String,
        /// The place in the plane, in row-major order.
        point: usize,
    },
    /// More members than an accumulation can hold.
    #[error("`{variable}` has {members} members already, the most that its products can have")]
    TooMany {
        /// The variable.
        variable: String,
        /// How many there are.
        members: usize,
    },
    /// Other members than those that are due.
    #[error("`{}` does not hold the members that are due: {difference}", path.display())]
    Members {
        /// The file.
        path: PathBuf,
        /// Which are missing, which are too many.
        difference: String,
    },
    /// A file of another ensemble, of other products, or of another version of mlwm.
    #[error(
        "`{}` holds other products than those that are due ({reason}): remove it and add all \
         members again", path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// A file that is not as it was written.
    #[error("`{}` is damaged ({reason}): remove it and add all members again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A window that cannot be read, or a store that cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EnsembleError {
    /// The exit code of this error.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Product { .. } | Self::TooMany { .. } => ExitCode::BadConfiguration,
            Self::OtherContent { .. } | Self::Other { .. } => ExitCode::Conflict,
            Self::Mixed { .. } | Self::Overflow { .. } | Self::Members { .. } => {
                ExitCode::Incomplete
            }
            Self::Damaged { .. } | Self::Read { .. } => ExitCode::StorageFailed,
            Self::Store(error) => error.exit_code(),
        }
    }
}
