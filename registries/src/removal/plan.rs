//! What is removed, decided from what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mlwm_spec::{ArtifactName, ArtifactReference, Digest, PublishedArtifact, Tag};

use super::{FoundReference, KeptObject, RemovalPlan, RemovalRequest};
use crate::Publication;
use crate::listing::{Fault, Listing};

/// What nothing names for so long was left behind by a push that was killed.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 3600);

/// What there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) listing: Listing,
    /// Zips by their path, or manifests by their digest.
    pub(crate) objects: BTreeMap<String, ObjectEntry>,
    pub(crate) signatures: Vec<SignatureEntry>,
    pub(crate) claims: Vec<ClaimEntry>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ObjectEntry {
    pub(crate) size: u64,
    pub(crate) age: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct SignatureEntry {
    pub(crate) digest: Digest,
    /// The name that it serves; `None`: all that have the content.
    pub(crate) name: Option<ArtifactName>,
    pub(crate) age: Duration,
    pub(crate) path: String,
}

#[derive(Clone, Debug)]
pub(crate) struct ClaimEntry {
    pub(crate) name: ArtifactName,
    /// `None` if the claim does not tell.
    pub(crate) tag: Option<Tag>,
    pub(crate) path: String,
}

/// What goes and what stays.
struct Split<'a> {
    going: Vec<&'a Publication>,
    staying: Vec<&'a Publication>,
    going_faults: Vec<&'a Fault>,
    staying_faults: Vec<&'a Fault>,
}

/// What removing `request` from the registry `uri` takes.
pub(crate) fn requested(inventory: &Inventory, request: &RemovalRequest, uri: &str) -> RemovalPlan {
    let wanted = |name: &ArtifactName, tag: Option<&Tag>| {
        *name == request.name && (request.tag.is_none() || request.tag.as_ref() == tag)
    };
    let Listing {
        publications,
        faults,
    } = &inventory.listing;
    let (going, staying) = publications
        .iter()
        .partition(|one| wanted(&one.name, Some(&one.tag)));
    let (going_faults, staying_faults) = faults
        .iter()
        .partition(|one| wanted(&one.name, Some(&one.tag)));
    let split = Split {
        going,
        staying,
        going_faults,
        staying_faults,
    };
    let mut plan = split.plan(inventory);
    plan.claims = paths(&inventory.claims, |claim| {
        wanted(&claim.name, claim.tag.as_ref())
    });
    plan.refusals = split.refusals(&request.references, uri);
    let zips_of = |name: &ArtifactName| {
        let mut going = plan.publications.iter();
        going.any(|going| going.name == *name && plan.objects.contains(&going.object))
    };
    let unknown = split.staying_faults.iter();
    let unknown = unknown.filter(|fault| zips_of(&fault.name));
    plan.refusals.extend(unknown.map(|fault| unread(fault)));
    plan
}

/// What removing everything that no reference means or pins takes, and what pushes that were
/// killed left behind.
pub(crate) fn unreferenced(
    inventory: &Inventory,
    references: &[FoundReference],
    uri: &str,
) -> RemovalPlan {
    let Listing {
        publications,
        faults,
    } = &inventory.listing;
    let (staying, going) = publications
        .iter()
        .partition(|one| references.iter().any(|found| found.needs(one, uri)));
    let split = Split {
        going,
        staying,
        going_faults: Vec::new(),
        staying_faults: faults.iter().collect(),
    };
    let mut plan = split.plan(inventory);
    plan.claims = paths(&inventory.claims, |claim| {
        let mut going = split.going.iter();
        going.any(|going| going.name == claim.name && Some(&going.tag) == claim.tag.as_ref())
    });
    sweep(inventory, &mut plan);
    plan.refusals = faults.iter().map(unread).collect();
    plan
}

/// Adds what pushes that were killed left behind.
fn sweep(inventory: &Inventory, plan: &mut RemovalPlan) {
    let publications = &inventory.listing.publications;
    let named: BTreeSet<&String> = publications.iter().map(|one| &one.object).collect();
    let contents: BTreeSet<Digest> = publications.iter().map(|one| one.digest).collect();
    for (object, entry) in &inventory.objects {
        if !named.contains(object) && entry.age >= LEFT_BEHIND {
            plan.objects.push(object.clone());
            plan.bytes += entry.size;
        }
    }
    let left = inventory
        .signatures
        .iter()
        .filter(|signature| !contents.contains(&signature.digest) && signature.age >= LEFT_BEHIND);
    plan.signatures
        .extend(left.map(|signature| signature.path.clone()));
}

impl Split<'_> {
    /// What goes, without claims and refusals.
    fn plan(&self, inventory: &Inventory) -> RemovalPlan {
        let mut plan = RemovalPlan {
            publications: self.going.iter().copied().cloned().collect(),
            faults: self.going_faults.iter().copied().cloned().collect(),
            ..RemovalPlan::default()
        };
        let mut needed: BTreeMap<&String, Vec<Tag>> = BTreeMap::new();
        for staying in &self.staying {
            let tags = needed.entry(&staying.object).or_default();
            tags.push(staying.tag.clone());
        }
        let objects: BTreeSet<&String> = self.going.iter().map(|going| &going.object).collect();
        for object in objects {
            if let Some(tags) = needed.get(object) {
                let (object, tags) = (object.clone(), tags.clone());
                plan.kept.push(KeptObject { object, tags });
            } else if let Some(entry) = inventory.objects.get(object) {
                plan.objects.push(object.clone());
                plan.bytes += entry.size;
            }
        }
        let kept: BTreeSet<Digest> = self.staying.iter().map(|staying| staying.digest).collect();
        let going: BTreeSet<Digest> = self.going.iter().map(|going| going.digest).collect();
        plan.only_copies = going.difference(&kept).copied().collect();
        plan.signatures = inventory
            .signatures
            .iter()
            .filter(|signature| going.contains(&signature.digest) && !self.needs(signature))
            .map(|signature| signature.path.clone())
            .collect();
        plan
    }

    /// Whether a signature serves something that stays; what cannot be read may have any content.
    fn needs(&self, signature: &SignatureEntry) -> bool {
        let of_name = |name: &ArtifactName| signature.name.as_ref().is_none_or(|of| of == name);
        let same = |one: &&Publication| one.digest == signature.digest && of_name(&one.name);
        self.staying.iter().any(same)
            || self.staying_faults.iter().any(|fault| of_name(&fault.name))
    }

    /// A configuration must find afterwards what it refers to now.
    fn refusals(&self, references: &[FoundReference], uri: &str) -> Vec<String> {
        let lost = references.iter().filter_map(|found| {
            let reference = found.in_registry(uri)?;
            let found_in =
                |among: &[&Publication]| among.iter().any(|one| is_meant(one, reference));
            let mut faults = self.going_faults.iter();
            let goes = found_in(&self.going) || faults.any(|fault| may_be_meant(fault, reference));
            (goes && !found_in(&self.staying))
                .then(|| format!("{} refers to {reference}", found.configuration))
        });
        lost.collect()
    }
}

impl FoundReference {
    /// What it means, if that may be in the registry `uri`.
    fn in_registry(&self, uri: &str) -> Option<&PublishedArtifact> {
        let ArtifactReference::Published(reference) = &self.reference else {
            return None;
        };
        let registry = reference.registry.as_ref();
        let here = registry.is_none_or(|registry| crate::registry::same_place(registry, uri));
        here.then_some(reference)
    }

    /// Whether it means this publication, or pins its content wherever that is.
    fn needs(&self, publication: &Publication, uri: &str) -> bool {
        self.reference.digest() == Some(publication.digest)
            || self
                .in_registry(uri)
                .is_some_and(|reference| is_meant(publication, reference))
    }
}

/// Whether a reference leads to a publication: by its tag, or by its content alone.
fn is_meant(publication: &Publication, reference: &PublishedArtifact) -> bool {
    let by_tag = match &reference.tag {
        Some(tag) => *tag == publication.tag,
        None => publication.tag.is_latest() || reference.digest.is_some(),
    };
    publication.name == reference.name
        && by_tag
        && reference
            .digest
            .is_none_or(|digest| digest == publication.digest)
}

/// Whether a reference could lead to a publication that cannot be read, whose content is unknown.
fn may_be_meant(fault: &Fault, reference: &PublishedArtifact) -> bool {
    let by_tag = match &reference.tag {
        Some(tag) => *tag == fault.tag,
        None => fault.tag.is_latest() || reference.digest.is_some(),
    };
    fault.name == reference.name && by_tag
}

/// Why zips must not go while this cannot be read.
fn unread(fault: &Fault) -> String {
    let Fault { name, tag, why } = fault;
    format!(
        "nobody knows which zip {name}:{tag} needs ({why}): use the mlwm that wrote it, or `mlwm \
         artifact remove` it first"
    )
}

fn paths(claims: &[ClaimEntry], wanted: impl Fn(&ClaimEntry) -> bool) -> Vec<String> {
    let wanted = claims.iter().filter(|claim| wanted(claim));
    wanted.map(|claim| claim.path.clone()).collect()
}

#[cfg(test)]
mod tests;
