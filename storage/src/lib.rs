//! Stores behind a URI: staging, publishing, transfers.
//!
//! A [`Uri`] names a place on a file system, in an S3 bucket or in a bucket of Google Cloud
//! Storage. [`stage`] brings the objects below it into a local folder, [`publish`] brings a local
//! folder to it, [`verify`] reads a published output again. Each is all or nothing, can be called
//! off, and continues when it is run again. The functions use the settings of the environment (see
//! [`S3Access`] and [`GcsAccess`]); the methods of a [`Store`], which holds its connections, those
//! it was opened with.
//!
//! [`Store::upload_content`] and [`Store::download`] carry one big object, and survive being
//! killed: what the other side has acknowledged is not sent again. What an upload must remember
//! for that lies in its [`Journals`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod content;
mod credentials;
mod error;
mod fault;
mod gcs;
mod kept;
mod lifetime;
mod local;
mod names;
pub mod oci;
pub mod points;
mod pool;
mod progress;
mod publish;
mod remove;
mod s3;
mod stage;
mod store;
mod transfer;
mod tree;
mod uri;
mod verify;

pub use content::{BytesContent, Content, FileContent};
pub use credentials::S3Access;
pub use error::{Error, Rivals};
pub use gcs::GcsAccess;
pub use lifetime::s3_credentials_end;
pub use progress::{Phase, Progress, ProgressEvent};
pub use publish::{
    MARKER_SUFFIX, Outcome, Published, Publishing, Source, WITHDRAWN_SUFFIX, kept_objects,
    local_objects, publish, republish,
};
pub use remove::{refuse_removed, remove_published};
pub use stage::{Staged, stage};
pub use store::{Listed, Listing, Options, Store, listing_digest};
pub use transfer::journal::Journals;
pub use transfer::{ByteRange, Expected, RangePart};
pub use tree::create_folders;
pub use uri::{Scheme, Uri};
pub use verify::{Verified, verify};
