//! What a registry has, with what of it cannot be read.

use mlwm_spec::{ArtifactName, Tag};
use serde::Serialize;

use crate::{Error, Publication};

/// What a registry has, ordered by name and tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// What can be read.
    pub publications: Vec<Publication>,
    /// What cannot.
    pub faults: Vec<Fault>,
}

/// A publication that cannot be read: damaged, or written by a later mlwm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What it is published as.
    pub name: ArtifactName,
    /// Its tag.
    pub tag: Tag,
    /// What is wrong, and with which record.
    pub why: String,
}

/// One publication as it was found.
pub(crate) type Found = Result<Publication, Fault>;

/// Tells a record that cannot be understood from a registry that cannot be read; `None` if the
/// record is gone.
pub(crate) fn found(
    read: Result<Option<Publication>, Error>,
    name: &ArtifactName,
    tag: &Tag,
) -> Result<Option<Found>, Error> {
    match read {
        Ok(publication) => Ok(publication.map(Ok)),
        Err(
            error
            @ (Error::BadRecord { .. } | Error::Storage(mlwm_storage::Error::TooLarge { .. })),
        ) => Ok(Some(Err(Fault {
            name: name.clone(),
            tag: tag.clone(),
            why: error.to_string(),
        }))),
        Err(error) => Err(error),
    }
}

impl FromIterator<Found> for Listing {
    fn from_iter<T: IntoIterator<Item = Found>>(all: T) -> Self {
        let mut listing = Self::default();
        for one in all {
            match one {
                Ok(publication) => listing.publications.push(publication),
                Err(fault) => listing.faults.push(fault),
            }
        }
        let publications = &mut listing.publications;
        publications.sort_by(|a, b| (&a.name, &a.tag).cmp(&(&b.name, &b.tag)));
        let faults = &mut listing.faults;
        faults.sort_by(|a, b| (&a.name, &a.tag).cmp(&(&b.name, &b.tag)));
        listing
    }
}
