//! Publishing where the store cannot write on condition that nothing is there
//! (`docs/registries.md` §4, with the argument why of two that race only one can win).

use std::future::Future;

use mlwm_spec::Digest;

use crate::{Error, Publication};

/// How often a publisher that goes first looks whether the others have withdrawn.
const LOOKS: u32 = 20;

/// A publisher's word that it is about to write a record. No two are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// What is to be published.
    pub(crate) digest: Digest,
    /// Tells publishers of the same content apart.
    pub(crate) nonce: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// This publisher wrote the record.
    Written,
    /// The same content is published already.
    Same(Box<Publication>),
}

/// The place of one record and of the claims to it. What one call wrote, every later call sees,
/// whoever makes it.
pub(crate) trait Place: Sync {
    /// Name and tag, for errors.
    fn publication(&self) -> String;
    /// The record.
    fn record(&self) -> impl Future<Output = Result<Option<Publication>, Error>> + Send;
    /// All claims that are not withdrawn.
    fn claims(&self) -> impl Future<Output = Result<Vec<Claim>, Error>> + Send;
    /// Writes a claim.
    fn claim(&self, claim: &Claim) -> impl Future<Output = Result<(), Error>> + Send;
    /// Withdraws a claim.
    fn withdraw(&self, claim: &Claim) -> impl Future<Output = Result<(), Error>> + Send;
    /// Removes a claim to what is published, where the store can remove.
    fn clear(&self, claim: &Claim) -> impl Future<Output = Result<(), Error>> + Send;
    /// Writes the record, in place of whatever is there.
    fn write(&self) -> impl Future<Output = Result<(), Error>> + Send;
    /// Waits a moment for other publishers.
    fn settle(&self) -> impl Future<Output = Result<(), Error>> + Send;
}

impl Claim {
    /// A new claim to publish `digest`.
    pub(crate) fn new(digest: Digest) -> Result<Self, Error> {
        let nonce = crate::random::text()?[..12].to_owned();
        Ok(Self { digest, nonce })
    }

    /// Reads `<hex of digest>.<nonce>`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (hex, nonce) = text.split_once('.')?;
        let plain =
            (1..=32).contains(&nonce.len()) && nonce.bytes().all(|b| b.is_ascii_alphanumeric());
        plain.then_some(())?;
        Some(Self {
            digest: format!("sha256:{hex}").parse().ok()?,
            nonce: nonce.to_owned(),
        })
    }

    /// `<hex of digest>.<nonce>`
    pub(crate) fn text(&self) -> String {
        format!("{}.{}", self.digest.hex(), self.nonce)
    }
}

/// Publishes `digest`, which [`Place::write`] writes the record of.
pub(crate) async fn publish(place: &impl Place, digest: Digest) -> Result<Outcome, Error> {
    if let Some(there) = place.record().await? {
        return same_or_refused(place, there, digest);
    }
    let ours = Claim::new(digest)?;
    place.claim(&ours).await?;
    match may_write(place, digest).await {
        Ok(None) => {}
        // This publisher writes nothing any more, so nobody need wait for it.
        Ok(Some(there)) => {
            place.withdraw(&ours).await?;
            return same_or_refused(place, there, digest);
        }
        Err(error) => {
            // The error says more than that the claim is left over.
            let withdrawn = place.withdraw(&ours).await;
            if let (Ok(()), Error::Claimed { .. }) = (withdrawn, &error)
                && let Some(there) = awaited(place, digest).await?
            {
                return same_or_refused(place, there, digest);
            }
            return Err(error);
        }
    }
    // Should this fail, the record may yet arrive: then the claim stays.
    place.write().await?;
    look_again(place, digest).await?;
    clear(place, digest).await?;
    Ok(Outcome::Written)
}

/// Whether this publisher, whose claim is written, may write the record; or what is published.
async fn may_write(place: &impl Place, digest: Digest) -> Result<Option<Publication>, Error> {
    for look in 1.. {
        // In this order: a claim that is gone because its record was written shows as a record.
        let rivals = rivals(place, digest).await?;
        if let Some(there) = place.record().await? {
            return Ok(Some(there));
        }
        match rivals.into_iter().min() {
            None => break,
            Some(theirs) if theirs < digest || look == LOOKS => {
                return Err(Error::Claimed {
                    publication: place.publication(),
                    theirs,
                    ours: digest,
                });
            }
            // The smallest digest goes first, when the others have withdrawn.
            Some(_) => place.settle().await?,
        }
    }
    Ok(None)
}

/// What another publisher publishes, now that this one is out of its way; none if it seems to be
/// dead.
async fn awaited(place: &impl Place, digest: Digest) -> Result<Option<Publication>, Error> {
    for look in 1.. {
        // In this order: a claim that is gone because its record was written shows as a record.
        let rivals = rivals(place, digest).await?;
        let there = place.record().await?;
        if there.is_some() || rivals.is_empty() || look == LOOKS {
            return Ok(there);
        }
        place.settle().await?;
    }
    Ok(None)
}

/// A second line of defence, for stores that show what was written only after a while: whoever
/// claims something else must come to see the record.
async fn look_again(place: &impl Place, digest: Digest) -> Result<(), Error> {
    for look in 1.. {
        let rivals = rivals(place, digest).await?;
        match place.record().await? {
            Some(there) if there.digest == digest => {}
            other => {
                return Err(Error::Overtaken {
                    publication: place.publication(),
                    theirs: other.map_or(digest, |there| there.digest),
                    ours: digest,
                });
            }
        }
        if rivals.is_empty() || look == LOOKS {
            break;
        }
        place.settle().await?;
    }
    Ok(())
}

async fn rivals(place: &impl Place, digest: Digest) -> Result<Vec<Digest>, Error> {
    let claims = place.claims().await?;
    Ok(claims
        .into_iter()
        .map(|claim| claim.digest)
        .filter(|theirs| *theirs != digest)
        .collect())
}

/// Removes all claims to what is published now, those of publishers that died too: whoever looks
/// for claims from now on finds the record.
async fn clear(place: &impl Place, digest: Digest) -> Result<(), Error> {
    for claim in place.claims().await? {
        if claim.digest == digest {
            place.clear(&claim).await?;
        }
    }
    Ok(())
}

fn same_or_refused(
    place: &impl Place,
    there: Publication,
    digest: Digest,
) -> Result<Outcome, Error> {
    match there.digest == digest {
        true => Ok(Outcome::Same(Box::new(there))),
        false => Err(Error::Conflict {
            publication: place.publication(),
            theirs: there.digest,
            ours: digest,
        }),
    }
}

#[cfg(test)]
mod tests;
