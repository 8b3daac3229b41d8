//! Where inference artifacts are published and kept: registries, the local cache, bundles for
//! machines without a network, signatures.
//!
//! A [`Registry`] is a directory, a bucket or an OCI registry; what it keeps is specified in
//! `docs/registries.md`, and the numbers of sections in comments refer to it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod bundle;
mod cache;
mod claims;
mod error;
mod listing;
mod manifest;
mod objects;
mod oci;
mod outgoing;
mod policy;
mod pull;
mod push;
mod random;
mod record;
mod registry;
mod remote;
mod removal;
pub mod signature;
mod stopping;
mod transfers;

pub use cache::{
    Cache, CacheEntry, CachedArtifact, KeptEntry, KeptKind, PruneRequest, Pruned, Unpacked,
    UnpackedArtifact, hold_kept,
};
pub use error::Error;
pub use listing::{Fault, Listing};
pub use outgoing::{PushContent, StoredZip};
pub use policy::{Policy, StoredSignature};
pub use pull::Pulled;
pub use push::{PushRequest, Pushed};
pub use record::{Publication, REGISTRY_VERSION};
pub use registry::{Registry, RegistryOptions, TagMove};
pub use removal::{FoundReference, KeptObject, RemovalPlan, RemovalRequest};
pub use transfers::cache_home;

use std::io::{self, Read};

use mlwm_spec::Digest;
use sha2::{Digest as _, Sha256};

/// SHA-256 of all that a reader gives.
fn digest_of(mut source: impl Read) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(Digest::from_hasher(hasher)),
            read => hasher.update(&buffer[..read]),
        }
    }
}
