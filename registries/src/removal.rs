//! What is removed from a registry, decided before anything is (`docs/registries.md` §6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mlwm_spec::{ArtifactName, ArtifactReference, Digest, PublishedArtifact, Tag};
use serde::Serialize;

use crate::Publication;

/// What nothing names for so long was left behind by a push that was killed.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 3600);

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

/// What will be removed, and what stands against it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RemovalPlan {
    /// Whose publications go; none if only what was left behind goes.
    pub name: Option<ArtifactName>,
    /// Publications whose record goes.
    pub publications: Vec<Publication>,
    /// Zips that go: paths below the registry, or digests of manifests in an OCI registry.
    pub objects: Vec<String>,
    /// Bytes of these zips.
    pub bytes: u64,
    /// Zips that stay, since other tags name them.
    pub kept: Vec<KeptObject>,
    /// Signatures that go: paths or tags.
    pub signatures: Vec<String>,
    /// Claims of publishers that died: paths or tags.
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

/// What there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) publications: Vec<Publication>,
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
    pub(crate) age: Duration,
    pub(crate) path: String,
}

#[derive(Clone, Debug)]
pub(crate) struct ClaimEntry {
    pub(crate) name: ArtifactName,
    pub(crate) tag: Tag,
    pub(crate) path: String,
}

impl RemovalPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.publications.is_empty()
            && self.objects.is_empty()
            && self.signatures.is_empty()
            && self.claims.is_empty()
    }
}

/// What removing `request` from the registry `uri` takes.
pub(crate) fn plan(inventory: &Inventory, request: &RemovalRequest, uri: &str) -> RemovalPlan {
    let wanted = |name: &ArtifactName, tag: &Tag| {
        *name == request.name && request.tag.as_ref().is_none_or(|wanted| wanted == tag)
    };
    let (going, staying): (Vec<_>, Vec<_>) = inventory
        .publications
        .iter()
        .partition(|publication| wanted(&publication.name, &publication.tag));
    let mut plan = RemovalPlan {
        name: Some(request.name.clone()),
        claims: inventory
            .claims
            .iter()
            .filter(|claim| wanted(&claim.name, &claim.tag))
            .map(|claim| claim.path.clone())
            .collect(),
        refusals: refusals(&going, &staying, request, uri),
        ..RemovalPlan::default()
    };
    let objects: BTreeSet<&String> = going.iter().map(|going| &going.object).collect();
    for object in objects {
        let tags: Vec<Tag> = staying
            .iter()
            .filter(|publication| publication.object == *object)
            .map(|publication| publication.tag.clone())
            .collect();
        if !tags.is_empty() {
            let object = object.clone();
            plan.kept.push(KeptObject { object, tags });
        } else if let Some(entry) = inventory.objects.get(object) {
            plan.objects.push(object.clone());
            plan.bytes += entry.size;
        }
    }
    let kept: BTreeSet<Digest> = staying.iter().map(|staying| staying.digest).collect();
    let lost: BTreeSet<Digest> = going
        .iter()
        .map(|going| going.digest)
        .filter(|digest| !kept.contains(digest))
        .collect();
    plan.signatures = inventory
        .signatures
        .iter()
        .filter(|signature| lost.contains(&signature.digest))
        .map(|signature| signature.path.clone())
        .collect();
    plan.only_copies = lost.into_iter().collect();
    plan.publications = going.into_iter().cloned().collect();
    plan
}

/// What pushes that were killed left behind.
pub(crate) fn sweep(inventory: &Inventory) -> RemovalPlan {
    let named: BTreeSet<&String> = inventory
        .publications
        .iter()
        .map(|publication| &publication.object)
        .collect();
    let contents: BTreeSet<Digest> = inventory
        .publications
        .iter()
        .map(|publication| publication.digest)
        .collect();
    let mut plan = RemovalPlan::default();
    for (object, entry) in &inventory.objects {
        if !named.contains(object) && entry.age >= LEFT_BEHIND {
            plan.objects.push(object.clone());
            plan.bytes += entry.size;
        }
    }
    plan.signatures = inventory
        .signatures
        .iter()
        .filter(|signature| !contents.contains(&signature.digest) && signature.age >= LEFT_BEHIND)
        .map(|signature| signature.path.clone())
        .collect();
    plan
}

/// A configuration must find afterwards what it refers to now.
fn refusals(
    going: &[&Publication],
    staying: &[&Publication],
    request: &RemovalRequest,
    uri: &str,
) -> Vec<String> {
    request
        .references
        .iter()
        .filter_map(|found| {
            let ArtifactReference::Published(reference) = &found.reference else {
                return None;
            };
            let here = reference
                .registry
                .as_ref()
                .is_none_or(|registry| crate::registry::same_place(registry, uri));
            let found_in = |among: &[&Publication]| {
                among
                    .iter()
                    .any(|publication| is_meant(publication, reference))
            };
            (here && found_in(going) && !found_in(staying))
                .then(|| format!("{} refers to {reference}", found.configuration))
        })
        .collect()
}

/// Whether a reference leads to a publication: by its tag, or by its content alone.
pub(crate) fn is_meant(publication: &Publication, reference: &PublishedArtifact) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::REGISTRY_VERSION;

    const URI: &str = "s3://bucket/models";

    fn publication(name: &str, tag: &str, content: &str) -> Publication {
        Publication {
            format: REGISTRY_VERSION,
            name: name.parse().unwrap(),
            tag: tag.parse().unwrap(),
            digest: Digest::of(content),
            set_digest: Digest::of(content),
            size: 10,
            files: 1,
            published_at: String::new(),
            object: format!("objects/{name}/{content}.zip"),
            provenance: None,
        }
    }

    /// `a:latest` and `a:v1` are one object, `a:v2` another; `b:latest` has the content of `a:v2`
    /// in an object of its own; `objects/a/left.zip` is no one's.
    fn inventory() -> Inventory {
        let publications = vec![
            publication("a", "latest", "one"),
            publication("a", "v1", "one"),
            publication("a", "v2", "two"),
            publication("b", "latest", "two"),
        ];
        let age = Duration::from_secs(25 * 3600);
        let mut objects: BTreeMap<String, ObjectEntry> = publications
            .iter()
            .map(|publication| (publication.object.clone(), ObjectEntry { size: 10, age }))
            .collect();
        objects.insert("objects/a/left.zip".into(), ObjectEntry { size: 7, age });
        let young = Duration::from_secs(23 * 3600);
        objects.insert(
            "objects/a/young.zip".into(),
            ObjectEntry {
                size: 7,
                age: young,
            },
        );
        let signature = |content: &str| SignatureEntry {
            digest: Digest::of(content),
            age,
            path: format!("signatures/{content}"),
        };
        Inventory {
            publications,
            objects,
            signatures: vec![signature("one"), signature("two"), signature("left")],
            claims: vec![ClaimEntry {
                name: "a".parse().unwrap(),
                tag: "v3".parse().unwrap(),
                path: "artifacts/a/v3.claims/x".into(),
            }],
        }
    }

    fn planned(name: &str, tag: Option<&str>, references: &[&str]) -> RemovalPlan {
        let request = RemovalRequest {
            name: name.parse().unwrap(),
            tag: tag.map(|tag| tag.parse().unwrap()),
            references: references
                .iter()
                .map(|reference| FoundReference {
                    configuration: "configurations/x".into(),
                    reference: reference.parse().unwrap(),
                })
                .collect(),
        };
        plan(&inventory(), &request, URI)
    }

    #[test]
    fn another_tag_keeps_the_zip_and_its_signatures() {
        let plan = planned("a", Some("v1"), &[]);
        assert_eq!(plan.publications.len(), 1);
        assert!(plan.objects.is_empty() && plan.signatures.is_empty());
        assert_eq!(plan.kept[0].tags, [Tag::latest()]);
        assert!(plan.only_copies.is_empty());
    }

    #[test]
    fn another_name_keeps_the_content_but_not_the_zip() {
        let plan = planned("a", Some("v2"), &[]);
        assert_eq!(plan.objects, ["objects/a/two.zip"]);
        assert_eq!(plan.bytes, 10);
        assert!(plan.signatures.is_empty() && plan.only_copies.is_empty());
    }

    #[test]
    fn the_last_publication_of_a_content_is_told() {
        let plan = planned("a", None, &[]);
        assert_eq!(plan.publications.len(), 3);
        assert_eq!(plan.objects, ["objects/a/one.zip", "objects/a/two.zip"]);
        assert_eq!(plan.only_copies, [Digest::of("one")]);
        assert_eq!(plan.signatures, ["signatures/one"]);
        assert_eq!(plan.claims, ["artifacts/a/v3.claims/x"]);
        let claims = planned("a", Some("v3"), &[]);
        assert_eq!((claims.publications.len(), claims.claims.len()), (0, 1));
        assert!(planned("c", None, &[]).is_empty());
    }

    #[test]
    fn what_a_configuration_refers_to_is_refused() {
        let one = Digest::of("one");
        let refused = |tag, reference: &str| !planned("a", tag, &[reference]).refusals.is_empty();
        for (tag, reference, expected) in [
            (Some("latest"), "a", true),
            (Some("latest"), "s3://bucket/models/a", true),
            (Some("latest"), "s3://bucket/other/a", false),
            (Some("latest"), "a:v1", false),
            (Some("latest"), "b", false),
            (Some("latest"), "a.zip", false),
            // The content is also `a:v1`.
            (Some("latest"), &format!("a@{one}"), false),
            (Some("latest"), &format!("a:latest@{one}"), true),
            (None, &format!("a@{one}"), true),
            (Some("v2"), &format!("a@{}", Digest::of("two")), true),
        ] {
            assert_eq!(refused(tag, reference), expected, "{tag:?} {reference}");
        }
        let plan = planned("a", None, &["a"]);
        assert_eq!(plan.refusals, ["configurations/x refers to a"]);
    }

    #[test]
    fn only_what_nothing_names_for_a_day_is_swept() {
        let plan = sweep(&inventory());
        assert_eq!(plan.objects, ["objects/a/left.zip"]);
        assert_eq!(plan.bytes, 7);
        assert_eq!(plan.signatures, ["signatures/left"]);
        assert!(plan.publications.is_empty() && plan.claims.is_empty());
    }
}
