//! Removing from a registry (`docs/registries.md` §6): what goes is decided before anything does.

pub(crate) mod plan;

use mlwm_spec::{ArtifactName, ArtifactReference, Digest, Tag};
use serde::Serialize;

use crate::listing::Fault;
use crate::registry::{Backend, Registry, name_and_tag, nanoseconds};
use crate::{Error, Publication};

/// So many things an error lists.
const NAMED: usize = 5;

/// What is to be removed.
#[derive(Clone, Debug)]
pub struct RemovalRequest {
    /// The name.
    pub name: ArtifactName,
    /// The tag; `None`: all publications of the name.
    pub tag: Option<Tag>,
    /// What configurations refer to, in whichever registry.
    pub references: Vec<FoundReference>,
}

/// An artifact that a configuration needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundReference {
    /// The configuration, as an error calls it.
    pub configuration: String,
    /// What it needs.
    pub reference: ArtifactReference,
}

/// What will be removed, and what stands against it; or what has been removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RemovalPlan {
    /// Publications whose record goes.
    pub publications: Vec<Publication>,
    /// Publications that nobody can read, whose record goes. Their zips stay for a sweep.
    pub faults: Vec<Fault>,
    /// Zips that go: paths below the registry, or digests of manifests in an OCI registry.
    pub objects: Vec<String>,
    /// Bytes of these zips.
    pub bytes: u64,
    /// Zips that stay, since other tags name them.
    pub kept: Vec<KeptObject>,
    /// Signatures that go: paths, or `<name>:<tag>` in an OCI registry.
    pub signatures: Vec<String>,
    /// Claims of publishers that died: paths, or `<name>:<tag>` in an OCI registry.
    pub claims: Vec<String>,
    /// Why nothing may be removed; empty if it may.
    pub refusals: Vec<String>,
    /// Contents that the registry will not have any more.
    pub only_copies: Vec<Digest>,
}

/// A zip that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeptObject {
    /// The zip.
    pub object: String,
    /// The tags that need it.
    pub tags: Vec<Tag>,
}

impl RemovalPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.publications.is_empty()
            && self.faults.is_empty()
            && self.objects.is_empty()
            && self.signatures.is_empty()
            && self.claims.is_empty()
    }
}

impl Registry {
    /// What removing takes, and what stands against it. Nothing is changed.
    pub async fn plan_removal(&self, request: &RemovalRequest) -> Result<RemovalPlan, Error> {
        let (name, tag) = (&request.name, request.tag.as_ref());
        let inventory = match &self.backend {
            Backend::Objects(objects) => objects.inventory(Some(name), nanoseconds()).await?,
            Backend::Oci(oci) => oci.inventory(Some(name), tag).await?,
        };
        let plan = plan::requested(&inventory, request, self.uri());
        match plan.is_empty() {
            true => Err(self.not_found(&name_and_tag(name, tag))),
            false => Ok(plan),
        }
    }

    /// What removing only the claims to a publication takes, which nobody has published: what was
    /// published meanwhile is not touched. Nothing is changed.
    pub async fn plan_claims(&self, name: &ArtifactName, tag: &Tag) -> Result<RemovalPlan, Error> {
        let request = RemovalRequest {
            name: name.clone(),
            tag: Some(tag.clone()),
            references: Vec::new(),
        };
        let plan = self.plan_removal(&request).await?;
        if !plan.publications.is_empty() || !plan.faults.is_empty() {
            return Err(Error::Published {
                publication: self.named(name, Some(tag)),
            });
        }
        Ok(RemovalPlan {
            claims: plan.claims,
            ..RemovalPlan::default()
        })
    }

    /// What removing everything takes that none of the references means or pins, and what pushes
    /// that were killed left behind for a day. An OCI registry cleans up the latter by itself.
    pub async fn plan_unreferenced(
        &self,
        references: &[FoundReference],
    ) -> Result<RemovalPlan, Error> {
        let inventory = match &self.backend {
            Backend::Objects(objects) => objects.inventory(None, nanoseconds()).await?,
            Backend::Oci(oci) => oci.inventory(None, None).await?,
        };
        Ok(plan::unreferenced(&inventory, references, self.uri()))
    }

    /// Removes what was planned, and tells what that was: less, if something needs it by now.
    /// `yes`: also if the registry then has a content no more.
    pub async fn remove(&self, plan: &RemovalPlan, yes: bool) -> Result<RemovalPlan, Error> {
        let what = || {
            let publications = plan
                .publications
                .iter()
                .map(|going| (&going.name, &going.tag));
            let faults = plan.faults.iter().map(|going| (&going.name, &going.tag));
            let all = publications.chain(faults);
            let all: Vec<String> = all.map(|(name, tag)| self.named(name, Some(tag))).collect();
            match all.is_empty() {
                true => self.uri().to_owned(),
                false => some_of(&all, ", "),
            }
        };
        if !plan.refusals.is_empty() {
            return Err(Error::StillUsed {
                what: what(),
                why: some_of(&plan.refusals, "; "),
            });
        }
        if !plan.only_copies.is_empty() && !yes {
            return Err(Error::OnlyCopy {
                what: what(),
                digests: some_of(&plan.only_copies, ", "),
            });
        }
        if let (Some(fault), false) = (plan.faults.first(), yes) {
            return Err(Error::UnknownContent {
                publication: self.named(&fault.name, Some(&fault.tag)),
                why: fault.why.clone(),
            });
        }
        let mut removed = RemovalPlan::default();
        let done = match &self.backend {
            Backend::Objects(objects) => objects.carry_out(plan, &mut removed).await,
            Backend::Oci(oci) => oci.carry_out(plan, &mut removed).await,
        };
        match done {
            Ok(()) => Ok(removed),
            Err(error) if removed.is_empty() => Err(error),
            Err(error) => Err(Error::RemovedInPart {
                removed: Box::new(removed),
                source: Box::new(error),
            }),
        }
    }
}

/// The first few, and how many more there are.
fn some_of<T: ToString>(all: &[T], separator: &str) -> String {
    let shown: Vec<String> = all.iter().take(NAMED).map(T::to_string).collect();
    let shown = shown.join(separator);
    match all.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown}{separator}and {more} more"),
    }
}
