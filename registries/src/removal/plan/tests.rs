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
        name: None,
        age,
        path: format!("signatures/{content}"),
    };
    Inventory {
        listing: Listing {
            publications,
            faults: Vec::new(),
        },
        objects,
        signatures: vec![signature("one"), signature("two"), signature("left")],
        claims: vec![ClaimEntry {
            name: "a".parse().unwrap(),
            tag: Some("v3".parse().unwrap()),
            path: "artifacts/a/v3.claims/x".into(),
        }],
    }
}

fn found(references: &[&str]) -> Vec<FoundReference> {
    let found = references.iter().map(|reference| FoundReference {
        configuration: "configurations/x".into(),
        reference: reference.parse().unwrap(),
    });
    found.collect()
}

fn planned_of(
    inventory: &Inventory,
    name: &str,
    tag: Option<&str>,
    references: &[&str],
) -> RemovalPlan {
    let request = RemovalRequest {
        name: name.parse().unwrap(),
        tag: tag.map(|tag| tag.parse().unwrap()),
        references: found(references),
    };
    requested(inventory, &request, URI)
}

fn planned(name: &str, tag: Option<&str>, references: &[&str]) -> RemovalPlan {
    planned_of(&inventory(), name, tag, references)
}

/// The same with one publication more, which nobody can read.
fn with_fault(name: &str, tag: &str) -> Inventory {
    let mut inventory = inventory();
    inventory.listing.faults.push(Fault {
        name: name.parse().unwrap(),
        tag: tag.parse().unwrap(),
        why: "its format is 2".into(),
    });
    inventory
}

/// Names and tags of the publications that go.
fn going(plan: &RemovalPlan) -> Vec<String> {
    let going = plan.publications.iter();
    going
        .map(|one| format!("{}:{}", one.name, one.tag))
        .collect()
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
    let plan = unreferenced(&inventory(), &found(&["a", "a:v2", "b"]), URI);
    assert_eq!(plan.objects, ["objects/a/left.zip"]);
    assert_eq!(plan.bytes, 7);
    assert_eq!(plan.signatures, ["signatures/left"]);
    // `a:v1` is only another tag of what is needed.
    assert_eq!(going(&plan), ["a:v1"]);
    assert!(plan.claims.is_empty() && plan.only_copies.is_empty() && plan.refusals.is_empty());
}

#[test]
fn two_tags_of_one_content_that_both_go_do_not_keep_each_other() {
    let plan = unreferenced(&inventory(), &found(&["b"]), URI);
    assert_eq!(going(&plan), ["a:latest", "a:v1", "a:v2"]);
    // `b` keeps the other content, in a zip of its own.
    assert_eq!(plan.only_copies, [Digest::of("one")]);
    let zips = [
        "objects/a/one.zip",
        "objects/a/two.zip",
        "objects/a/left.zip",
    ];
    assert_eq!(
        (&plan.objects[..], plan.bytes),
        (&zips.map(String::from)[..], 27)
    );
    assert!(plan.kept.is_empty());
    assert_eq!(plan.signatures, ["signatures/one", "signatures/left"]);
}

#[test]
fn what_a_configuration_means_stays_pinned_or_not() {
    let pin = format!("s3://elsewhere/x@{}", Digest::of("one"));
    for (references, expected) in [
        (&["a"][..], &["a:v1", "a:v2", "b:latest"][..]),
        (&["a:v1", "b"], &["a:latest", "a:v2"]),
        (
            &["s3://bucket/models/a", "s3://bucket/other/b"],
            &["a:v1", "a:v2", "b:latest"],
        ),
        (&[&pin], &["a:v2", "b:latest"]),
        (&["a.zip"], &["a:latest", "a:v1", "a:v2", "b:latest"]),
    ] {
        let plan = unreferenced(&inventory(), &found(references), URI);
        assert_eq!(going(&plan), expected, "{references:?}");
        assert!(plan.refusals.is_empty(), "{references:?}");
    }
}

#[test]
fn what_cannot_be_read_keeps_only_what_it_may_need() {
    // Another name is not concerned, but for signatures, which names share.
    let other = planned_of(&with_fault("z", "v1"), "a", None, &[]);
    assert_eq!(other.objects.len(), 2);
    assert!(other.refusals.is_empty() && other.signatures.is_empty());
    // A zip of its own name could be the one that it needs.
    let inventory = with_fault("a", "v9");
    let zip = planned_of(&inventory, "a", Some("v2"), &[]);
    assert!(zip.refusals[0].contains("a:v9"), "{:?}", zip.refusals);
    // A tag of a zip that stays anyhow goes, and the bad one itself.
    assert!(
        planned_of(&inventory, "a", Some("v1"), &[])
            .refusals
            .is_empty()
    );
    for tag in [Some("v9"), None] {
        let plan = planned_of(&inventory, "a", tag, &[]);
        assert_eq!(plan.faults.len(), 1);
        assert!(plan.refusals.is_empty(), "{:?}", plan.refusals);
    }
    let alone = planned_of(&inventory, "a", Some("v9"), &[]);
    assert!(alone.publications.is_empty() && alone.objects.is_empty());
    // Whatever is meant could be needed, and nothing is swept.
    for (reference, refused) in [("a:v9", true), ("a", false), ("a:v2", false)] {
        let plan = planned_of(&inventory, "a", Some("v9"), &[reference]);
        assert_eq!(!plan.refusals.is_empty(), refused, "{reference}");
    }
    assert_eq!(unreferenced(&inventory, &[], URI).refusals.len(), 1);
}
