//! Stores behind a URI: staging, publishing, transfers.

mod error;
mod names;
mod progress;
mod publish;
mod stage;
mod store;
mod uri;
mod verify;

pub use error::Error;
pub use progress::{Phase, Progress, ProgressEvent};
pub use publish::{Outcome, Published, publish};
pub use stage::{Staged, stage};
pub use store::{Listed, Listing, Options, S3Access, Store, listing_digest};
pub use uri::{Scheme, Uri};
pub use verify::{Verified, verify};
