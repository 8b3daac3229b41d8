//! The members of an ensemble that are published.

use futures::{StreamExt, TryStreamExt};
use mlwm_spec::Manifest;
use mlwm_spec::manifest::{InputRecord, content_digest};
use mlwm_storage::{Listing, Store, Uri};

use crate::Error;
use crate::place::refuse_damage;
use crate::plan::PlannedEnsemble;

/// How many members are looked at at once.
const AT_ONCE: usize = 16;

/// A member all of whose outputs are published.
pub(super) struct Member {
    pub(super) number: u32,
    /// In the order of the outputs' names.
    pub(super) manifests: Vec<Manifest>,
    /// What an ensemble reads of it: its outputs.
    pub(super) inputs: Vec<InputRecord>,
}

/// The members that are published, whole and by this configuration, in ascending order.
///
/// # Errors
/// If a store has other objects than a member's manifest says; if members were made by different images or
/// artifacts, which belong to no one ensemble.
pub(super) async fn published(planned: &PlannedEnsemble) -> Result<Vec<Member>, Error> {
    let found: Vec<Option<Member>> = futures::stream::iter(planned.members.keys().copied())
        .map(|number| member(planned, number))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let members: Vec<Member> = found.into_iter().flatten().collect();
    let made_by = |member: &Member| {
        let first = member.manifests.first();
        first.map(|first| {
            let artifact = first.artifact.as_ref().map(|artifact| artifact.digest);
            (
                first.image.digest,
                artifact,
                first.forecast_duration.clone(),
            )
        })
    };
    let first = members.first().map(|first| (first.number, made_by(first)));
    if let Some((number, by)) = first
        && let Some(other) = members.iter().find(|member| made_by(member) != by)
    {
        return Err(Error::MixedMembers {
            ensemble: planned.title(),
            first: number,
            other: other.number,
        });
    }
    Ok(members)
}

async fn member(planned: &PlannedEnsemble, number: u32) -> Result<Option<Member>, Error> {
    let mut member = Member {
        number,
        manifests: Vec::new(),
        inputs: Vec::new(),
    };
    let places = planned.members.get(&number);
    for (output, uri) in places.into_iter().flatten() {
        let uri: Uri = uri.parse()?;
        let store = Store::open(&uri).await?;
        let manifest = store.manifest(&uri).await?.filter(|manifest| {
            manifest.ensemble.is_none()
                && manifest.configuration.digest == planned.configuration_digest
                && manifest.analysis_time == planned.analysis_time
                && manifest.member == number
        });
        let Some(manifest) = manifest else {
            return Ok(None);
        };
        let listed = store.list(&uri).await?;
        refuse_damage(&uri, &manifest, &listed)?;
        member.inputs.push(InputRecord {
            converter: None,
            name: format!("member{number}.{output}"),
            uri: uri.to_string(),
            digest: content_digest(&manifest.objects),
            listing: Listing::of(&listed).digest,
            objects: manifest.objects.len() as u64,
            bytes: manifest.objects.iter().map(|object| object.size).sum(),
        });
        member.manifests.push(manifest);
    }
    Ok(Some(member))
}
