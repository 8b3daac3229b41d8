//! Removing, and what is left.

use std::fs;
use std::time::{Duration, SystemTime};

use mlwm_registries::{Error, FoundReference, Publication, Registry, RemovalRequest, TagMove};
use mlwm_spec::ExitCode;
use mlwm_storage::oci::{OciOptions, Repository};
use mlwm_storage::{Store, Uri};

use crate::common::{NAME, Place, name, push_of, tag, zip};
use crate::trust::{key, signed};

fn removal(of: Option<&str>) -> RemovalRequest {
    RemovalRequest {
        name: name(),
        tag: of.map(tag),
        references: Vec::new(),
    }
}

fn reference_to(place: &Place, of: &str) -> FoundReference {
    FoundReference {
        configuration: "configurations/x".into(),
        reference: format!("{}/{}:{of}", place.uri, name()).parse().unwrap(),
    }
}

/// Pushes a variant under a tag.
async fn pushed(registry: &Registry, variant: u32, tag: &str) -> Publication {
    let pushed = registry.push(push_of(zip(variant), tag)).await.unwrap();
    pushed.publication
}

async fn tags(registry: &Registry) -> Vec<String> {
    let listed = registry.list(None).await.unwrap();
    listed.iter().map(|one| one.tag.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_goes_alone_and_the_last_copy_only_with_yes() {
    for place in Place::all("removal") {
        let registry = place.open().await;
        let pushed = registry.push(push_of(zip(1), "latest")).await.unwrap();
        let publication = pushed.publication;
        let v1 = registry.tag(&publication, &tag("v1"), TagMove::Never).await;
        v1.unwrap();

        let plan = registry.plan_removal(&removal(Some("v1"))).await.unwrap();
        assert!(plan.objects.is_empty() && plan.only_copies.is_empty());
        registry.remove(&plan, false).await.unwrap();
        let left = registry.list(None).await.unwrap();
        assert_eq!(left.len(), 1, "{}", place.uri);
        assert_eq!(left[0].tag, tag("latest"));
        let to = place.scratch().join("still.zip");
        registry.pull(&left[0], &to).await.unwrap();

        let mut request = removal(None);
        request.references.push(reference_to(&place, "latest"));
        let plan = registry.plan_removal(&request).await.unwrap();
        let error = registry.remove(&plan, true).await.unwrap_err();
        assert!(error.to_string().contains("configurations/x"), "{error}");

        let plan = registry.plan_removal(&removal(None)).await.unwrap();
        let error = registry.remove(&plan, false).await.unwrap_err();
        assert!(matches!(error, Error::OnlyCopy { .. }), "{error}");
        assert_eq!(registry.list(None).await.unwrap().len(), 1);
        registry.remove(&plan, true).await.unwrap();
        assert!(registry.list(None).await.unwrap().is_empty());
        let gone = registry.plan_removal(&removal(None)).await.unwrap_err();
        assert_eq!(gone.exit_code(), ExitCode::InputMissing);

        // The name is free again.
        assert!(registry.push(push_of(zip(2), "latest")).await.unwrap().new);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_push_left_is_swept_after_a_day() {
    let place = Place::directory();
    let registry = place.open().await;
    registry.push(push_of(zip(1), "latest")).await.unwrap();
    let objects = place.scratch().join("models/objects").join(name().as_str());
    let (young, old) = (objects.join("00.zip"), objects.join("11.zip"));
    for path in [&young, &old] {
        fs::write(path, "left behind").unwrap();
    }
    let yesterday = SystemTime::now() - Duration::from_secs(25 * 3600);
    let file = fs::File::options().write(true).open(&old).unwrap();
    file.set_modified(yesterday).unwrap();
    let references = [reference_to(&place, "latest")];
    let plan = registry.plan_unreferenced(&references).await.unwrap();
    assert_eq!(plan.objects, [format!("objects/{}/11.zip", name())]);
    registry.remove(&plan, false).await.unwrap();
    assert!(young.exists() && !old.exists());
    let publication = registry.publication(&name(), None, None).await.unwrap();
    let to = place.scratch().join("pulled.zip");
    registry.pull(&publication, &to).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_unreferenced_goes_at_once_or_not_at_all() {
    for place in Place::all("unreferenced") {
        let registry = place.open().await;
        let one = pushed(&registry, 1, "latest").await;
        registry
            .tag(&one, &tag("v1"), TagMove::Never)
            .await
            .unwrap();
        pushed(&registry, 2, "v2").await;
        let before = tags(&registry).await;

        // Two tags of one content that both go.
        let plan = registry.plan_unreferenced(&[]).await.unwrap();
        assert_eq!(plan.only_copies.len(), 2, "{}", place.uri);
        let error = registry.remove(&plan, false).await.unwrap_err();
        assert!(matches!(error, Error::OnlyCopy { .. }), "{error}");
        assert_eq!(tags(&registry).await, before);

        // What a configuration means without a pin stays, and does not stand in the way.
        let references = [reference_to(&place, "v2")];
        let plan = registry.plan_unreferenced(&references).await.unwrap();
        assert_eq!(plan.only_copies, [one.digest]);
        let removed = registry.remove(&plan, true).await.unwrap();
        assert_eq!(removed.publications.len(), 2);
        assert_eq!((removed.objects, removed.bytes), (plan.objects, plan.bytes));
        assert_eq!(tags(&registry).await, ["v2"]);
        let plan = registry.plan_unreferenced(&references).await.unwrap();
        assert!(plan.is_empty(), "{plan:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_many_tags_takes_few_requests_for_each() {
    const TAGS: usize = 24;
    for (place, proxy) in Place::counted("many") {
        let registry = place.open().await;
        let one = pushed(&registry, 1, "latest").await;
        for number in 1..TAGS {
            let another = tag(&format!("v{number}"));
            registry.tag(&one, &another, TagMove::Never).await.unwrap();
        }
        proxy.reset();
        let plan = registry.plan_unreferenced(&[]).await.unwrap();
        registry.remove(&plan, true).await.unwrap();
        let requests = proxy.counts().requests.len();
        assert!(requests <= 3 * TAGS, "{}: {requests} requests", place.uri);
        assert!(tags(&registry).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_was_given_after_planning_keeps_its_zip_and_signatures() {
    for place in Place::all("later") {
        let registry = place.open().await;
        let one = pushed(&registry, 1, "v1").await;
        let (key, _) = key(&place, "ours");
        let signature = signed(1, &key);
        registry.add_signature(&one, &signature).await.unwrap();
        let plan = registry.plan_removal(&removal(Some("v1"))).await.unwrap();
        assert_eq!((plan.objects.len(), plan.signatures.len()), (1, 1));
        registry
            .tag(&one, &tag("v2"), TagMove::Never)
            .await
            .unwrap();
        let removed = registry.remove(&plan, true).await.unwrap();
        assert!(removed.objects.is_empty(), "{}: {removed:?}", place.uri);
        assert_eq!(removed.kept[0].tags, [tag("v2")]);
        assert_eq!(tags(&registry).await, ["v2"]);
        let left = registry.list(None).await.unwrap().remove(0);
        let to = place.scratch().join("left.zip");
        registry.pull(&left, &to).await.unwrap();
        assert_eq!(registry.signatures(&left).await.unwrap().len(), 1);
    }
}

/// Every order in which a tag and a removal of the same zip come: whoever is told that it succeeded
/// did, and no record is without its zip.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_is_given_while_its_zip_is_removed_has_it_or_fails() {
    let places = [
        (Place::directory(), Duration::from_micros(150)),
        (
            Place::claimed("tag-meanwhile").remove(0),
            Duration::from_millis(2),
        ),
    ];
    for (place, step) in places {
        let registry = place.open().await;
        let mut won = 0;
        for round in 0..40 {
            let one = pushed(&registry, 1, "v1").await;
            let plan = registry.plan_removal(&removal(Some("v1"))).await.unwrap();
            let v2 = tag("v2");
            // Now the one, now the other comes later.
            let late = |whose: u32| step * if round % 2 == whose { round } else { 0 };
            let (removed, tagged) = tokio::join!(
                async {
                    tokio::time::sleep(late(0)).await;
                    registry.remove(&plan, true).await
                },
                async {
                    tokio::time::sleep(late(1)).await;
                    registry.tag(&one, &v2, TagMove::Never).await
                }
            );
            removed.unwrap();
            let left = registry.list(None).await.unwrap();
            assert_eq!(
                tagged.is_ok(),
                left.len() == 1,
                "{} {round}: {left:?}",
                place.uri
            );
            for publication in &left {
                registry.artifact(publication).await.unwrap();
                won += 1;
            }
            if let Err(error) = tagged {
                assert!(matches!(error, Error::Damaged { .. }), "{error}");
            }
            for publication in left {
                let of = Some(publication.tag.as_str());
                let plan = registry.plan_removal(&removal(of)).await.unwrap();
                registry.remove(&plan, true).await.unwrap();
            }
        }
        assert!(won > 0, "{}: no tag was in time", place.uri);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_that_is_marked_or_gone_gets_no_tag_and_a_moved_tag_stays_where_it_was() {
    let place = Place::directory();
    let registry = place.open().await;
    let one = pushed(&registry, 1, "latest").await;
    let two = pushed(&registry, 2, "v2").await;
    registry
        .tag(&one, &tag("stable"), TagMove::Never)
        .await
        .unwrap();
    let object = place.scratch().join("models").join(&two.object);
    let mark = object.with_extension("zip.removing.00");
    fs::write(&mark, "removing\n").unwrap();
    for turn in ["marked", "gone"] {
        if turn == "gone" {
            fs::remove_file(&mark).unwrap();
            fs::remove_file(&object).unwrap();
        }
        let added = registry.tag(&two, &tag("v3"), TagMove::Never).await;
        assert!(
            matches!(added, Err(Error::Damaged { .. })),
            "{turn}: {added:?}"
        );
        let moved = registry.tag(&two, &tag("stable"), TagMove::IfKept).await;
        assert!(
            matches!(moved, Err(Error::Damaged { .. })),
            "{turn}: {moved:?}"
        );
        assert_eq!(tags(&registry).await, ["latest", "stable", "v2"], "{turn}");
        let stable = registry
            .publication(&name(), Some(&tag("stable")), None)
            .await;
        assert_eq!(stable.unwrap().digest, one.digest, "{turn}");
    }
    // A mark of a removal that was killed is swept with what it left.
    let swept = object.with_file_name("22.zip");
    let yesterday = SystemTime::now() - Duration::from_secs(25 * 3600);
    for path in [&swept, &swept.with_extension("zip.removing.00")] {
        fs::write(path, "left behind").unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(yesterday).unwrap();
    }
    let references = ["latest", "v2", "stable"].map(|of| reference_to(&place, of));
    let plan = registry.plan_unreferenced(&references).await.unwrap();
    assert_eq!(plan.objects.len(), 2);
    registry.remove(&plan, false).await.unwrap();
    let left = fs::read_dir(object.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "only the zip of `latest` is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_before_an_error_is_told() {
    let place = Place::directory();
    let registry = place.open().await;
    let one = pushed(&registry, 1, "latest").await;
    let plan = registry.plan_removal(&removal(None)).await.unwrap();
    // No file any more: it cannot be removed.
    let object = place.scratch().join("models").join(&one.object);
    fs::remove_file(&object).unwrap();
    fs::create_dir_all(object.join("x")).unwrap();
    match registry.remove(&plan, true).await.unwrap_err() {
        Error::RemovedInPart { removed, .. } => {
            assert_eq!(removed.publications, [one]);
            assert!(removed.objects.is_empty());
        }
        error => panic!("{error}"),
    }
    let left = fs::read_dir(object.parent().unwrap()).unwrap();
    assert_eq!(left.count(), 1, "no mark is left");
}

/// Puts a record where it belongs that no mlwm of today can read.
async fn put_bad_record(place: &Place, of: &str) {
    if place.uri.starts_with("oci://") {
        let uri = format!("{}/{NAME}", place.uri).parse().unwrap();
        let repository = Repository::open(&uri, &OciOptions::default()).unwrap();
        let config = repository.push_blob_bytes(b"{}".to_vec()).await.unwrap();
        let manifest = |kind: &str| {
            let media_type = "application/vnd.oci.image.manifest.v1+json";
            let manifest = serde_json::json!({
                "schemaVersion": 2,
                "mediaType": media_type,
                "artifactType": kind,
                "config": {
                    "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2
                },
                "layers": [],
            });
            (media_type, serde_json::to_vec(&manifest).unwrap())
        };
        let (kind, bytes) = manifest("application/vnd.mlwm.inference-artifact.v2");
        repository.push_manifest(of, kind, bytes).await.unwrap();
        // What is no artifact at all is nobody's concern.
        let (kind, bytes) = manifest("application/vnd.somebody.else");
        repository
            .push_manifest("foreign", kind, bytes)
            .await
            .unwrap();
        return;
    }
    let root: Uri = place.uri.parse().unwrap();
    let storage = place.options.storage.clone();
    let store = Store::open_with(&root, storage).await.unwrap();
    let path = root.join(&format!("artifacts/{NAME}/{of}.json")).unwrap();
    store.put(&path, b"{\"format\":2}".to_vec()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_is_shown_and_can_be_removed_alone() {
    for place in Place::all("unreadable") {
        let registry = place.open().await;
        let one = pushed(&registry, 1, "v1").await;
        registry
            .tag(&one, &tag("v2"), TagMove::Never)
            .await
            .unwrap();
        let two = pushed(&registry, 2, "v3").await;
        put_bad_record(&place, "latest").await;

        let listing = registry.listing(None).await.unwrap();
        assert_eq!(listing.publications.len(), 3, "{}", place.uri);
        assert_eq!(listing.faults.len(), 1, "{}", place.uri);
        assert_eq!(listing.faults[0].tag, tag("latest"));
        let error = registry.publication(&name(), None, None).await.unwrap_err();
        assert!(matches!(error, Error::BadRecord { .. }), "{error}");
        for publication in [&one, &two] {
            let digest = publication.digest;
            let pinned = registry.publication(&name(), None, Some(digest)).await;
            assert_eq!(pinned.unwrap().digest, digest);
        }

        // A tag whose zip stays; but no zip that it might need, and no sweep.
        let plan = registry.plan_removal(&removal(Some("v2"))).await.unwrap();
        registry.remove(&plan, false).await.unwrap();
        for plan in [
            registry.plan_removal(&removal(Some("v3"))).await.unwrap(),
            registry.plan_unreferenced(&[]).await.unwrap(),
        ] {
            let error = registry.remove(&plan, true).await.unwrap_err();
            assert!(error.to_string().contains("latest"), "{error}");
        }
        assert_eq!(tags(&registry).await, ["v1", "v3"], "{}", place.uri);

        let plan = registry
            .plan_removal(&removal(Some("latest")))
            .await
            .unwrap();
        let error = registry.remove(&plan, false).await.unwrap_err();
        assert!(matches!(error, Error::UnknownContent { .. }), "{error}");
        let removed = registry.remove(&plan, true).await.unwrap();
        assert_eq!(removed.faults, listing.faults);
        assert!(registry.listing(None).await.unwrap().faults.is_empty());
        for left in registry.list(None).await.unwrap() {
            registry.artifact(&left).await.unwrap();
        }
        let plan = registry.plan_removal(&removal(Some("v3"))).await.unwrap();
        registry.remove(&plan, true).await.unwrap();
        assert_eq!(pushed(&registry, 1, "latest").await.digest, one.digest);
    }
}
