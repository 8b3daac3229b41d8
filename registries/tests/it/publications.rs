//! Push, look, pull, tag.

use std::fs;
use std::sync::Arc;

use mlwm_artifacts::Artifact;
use mlwm_registries::{Error, PushContent, PushRequest, TagMove};
use mlwm_spec::{Digest, ExitCode};

use crate::common::{NAME, Place, name, packing, push_of, tag, zip};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_stays_and_comes_back() {
    for place in Place::all("publications") {
        let registry = place.open().await;
        let bytes = fs::read(zip(1)).unwrap();
        let pushed = registry.push(push_of(zip(1), "latest")).await.unwrap();
        assert!(pushed.new, "{}", place.uri);
        let publication = &pushed.publication;
        assert_eq!(publication.digest, Digest::of(&bytes));
        assert_eq!(publication.size, bytes.len() as u64);
        let artifact = Artifact::open(&zip(1)).unwrap();
        assert_eq!(Some(publication.set_digest), artifact.set_digest());
        assert_eq!(publication.files, artifact.files().len() as u64);

        let again = place.open_elsewhere("another").await;
        let pushed_again = again.push(push_of(zip(1), "latest")).await.unwrap();
        assert!(!pushed_again.new);
        assert_eq!(pushed_again.publication.digest, publication.digest);
        let error = again.push(push_of(zip(2), "latest")).await.unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Conflict, "{error}");
        assert!(matches!(error, Error::Conflict { .. }), "{error}");

        let found = registry.publication(&name(), None, None).await.unwrap();
        assert_eq!(found.digest, publication.digest);
        let remote = registry.artifact(&found).await.unwrap();
        assert_eq!(remote.files(), artifact.files());
        let checked = tokio::task::spawn_blocking(move || remote.verify());
        assert_eq!(checked.await.unwrap().unwrap().digest, publication.digest);

        let to = place.scratch().join("pulled");
        fs::create_dir(&to).unwrap();
        let pulled = registry.pull(&found, &to).await.unwrap();
        assert_eq!(pulled.zip, to.join("tiny-graph-lam.zip"));
        assert_eq!(fs::read(&pulled.zip).unwrap(), bytes);
        let provenance = fs::read_to_string(pulled.provenance.as_ref().unwrap()).unwrap();
        assert_eq!(provenance, "host: node\n");
        assert_eq!(
            fs::read_dir(&to).unwrap().count(),
            2,
            "nothing else is left"
        );
        // Again: nothing to do. Over something else: refused.
        registry.pull(&found, &to).await.unwrap();
        fs::write(&pulled.zip, "mine").unwrap();
        let error = registry.pull(&found, &to).await.unwrap_err();
        assert!(matches!(error, Error::InTheWay { .. }), "{error}");
        assert_eq!(fs::read(&pulled.zip).unwrap(), b"mine");
        let left = place.scratch().join("transfers");
        let left = fs::read_dir(left).unwrap().count();
        assert_eq!(left, 0, "no state of a transfer is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_another_name_for_the_same_zip_and_moves_only_on_request() {
    for place in Place::all("tags") {
        let registry = place.open().await;
        let one = registry.push(push_of(zip(1), "latest")).await.unwrap();
        let two = registry.push(push_of(zip(2), "v2")).await.unwrap();
        let (one, two) = (one.publication, two.publication);
        let tagged = registry
            .tag(&one, &tag("candidate"), TagMove::Never)
            .await
            .unwrap();
        assert_eq!((tagged.digest, &tagged.object), (one.digest, &one.object));
        let again = registry
            .tag(&one, &tag("candidate"), TagMove::Never)
            .await
            .unwrap();
        assert_eq!(again.digest, one.digest);

        let error = registry
            .tag(&two, &tag("candidate"), TagMove::Never)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("--move"), "{error}");
        registry
            .tag(&two, &tag("candidate"), TagMove::IfKept)
            .await
            .unwrap();
        let candidate = tag("candidate");
        let found = registry.publication(&name(), Some(&candidate), None).await;
        assert_eq!(found.unwrap().digest, two.digest);
        let error = registry
            .tag(&two, &tag("latest"), TagMove::EvenIfLost)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::TagTaken { .. }), "{error}");

        let listed = registry.list(None).await.unwrap();
        let listed: Vec<_> = listed
            .iter()
            .map(|publication| (publication.tag.as_str(), publication.digest))
            .collect();
        let expected = [
            ("candidate", two.digest),
            ("latest", one.digest),
            ("v2", two.digest),
        ];
        assert_eq!(listed, expected, "{}", place.uri);

        // What only this tag has is not lost without a word.
        let three = registry.push(push_of(zip(3), "v3")).await.unwrap();
        let lost = registry.tag(&one, &tag("v3"), TagMove::IfKept).await;
        let error = lost.unwrap_err();
        assert!(matches!(error, Error::TagTaken { .. }), "{error}");
        assert!(error.to_string().contains("--yes"), "{error}");
        let three = three.publication;
        let kept = registry.tag(&three, &tag("kept"), TagMove::Never).await;
        kept.unwrap();
        registry
            .tag(&one, &tag("v3"), TagMove::IfKept)
            .await
            .unwrap();
        registry
            .tag(&one, &tag("kept"), TagMove::EvenIfLost)
            .await
            .unwrap();
        let lost = registry
            .publication(&name(), None, Some(three.digest))
            .await;
        assert_eq!(lost.unwrap_err().exit_code(), ExitCode::InputMissing);

        // By its content alone, and what is not there.
        let by_digest = registry.publication(&name(), None, Some(two.digest)).await;
        assert_eq!(by_digest.unwrap().digest, two.digest);
        let v2 = tag("v2");
        let wrong = registry
            .publication(&name(), Some(&v2), Some(one.digest))
            .await;
        assert!(matches!(wrong, Err(Error::OtherDigest { .. })));
        let absent = registry.publication(&name(), Some(&tag("v4")), None).await;
        assert_eq!(absent.unwrap_err().exit_code(), ExitCode::InputMissing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_packed_on_its_way_is_the_zip_that_would_have_been_built() {
    for place in Place::all("packing") {
        let registry = place.open().await;
        let folder = place.scratch().to_owned();
        let packing = tokio::task::spawn_blocking(move || packing(3, &folder));
        let pushed = registry
            .push(PushRequest {
                content: PushContent::Packing(Arc::new(packing.await.unwrap())),
                ..push_of(zip(3), "latest")
            })
            .await
            .unwrap();
        let bytes = fs::read(zip(3)).unwrap();
        assert_eq!(pushed.publication.digest, Digest::of(&bytes));
        let again = registry.push(push_of(zip(3), "latest")).await.unwrap();
        assert!(!again.new);
        let to = place.scratch().join("a.zip");
        registry.pull(&pushed.publication, &to).await.unwrap();
        assert_eq!(fs::read(to).unwrap(), bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_zip_is_not_published() {
    for place in Place::all("damaged") {
        let registry = place.open().await;
        let mut bytes = fs::read(zip(1)).unwrap();
        let middle = bytes.len() / 4;
        bytes[middle] ^= 1;
        let damaged = place.scratch().join("damaged.zip");
        fs::write(&damaged, bytes).unwrap();
        let error = registry.push(push_of(damaged, "latest")).await.unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::ArtifactMismatch, "{error}");
        assert!(registry.list(None).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_that_its_registry_lost_or_changed_is_found_and_mended() {
    let place = Place::directory();
    let registry = place.open().await;
    let publication = registry
        .push(push_of(zip(1), "latest"))
        .await
        .unwrap()
        .publication;
    let object = place.scratch().join("models").join(&publication.object);
    let bytes = fs::read(&object).unwrap();
    let mut changed = bytes.clone();
    changed[100] ^= 1;
    fs::write(&object, &changed).unwrap();
    let to = place.scratch().join("pulled.zip");
    let error = registry.pull(&publication, &to).await.unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::InputCorrupt, "{error}");
    assert!(!to.exists());

    fs::remove_file(&object).unwrap();
    let error = registry.pull(&publication, &to).await.unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::InputMissing, "{error}");
    assert!(!registry.push(push_of(zip(1), "latest")).await.unwrap().new);
    registry.pull(&publication, &to).await.unwrap();
    assert_eq!(fs::read(&to).unwrap(), bytes);
}

/// Somebody who takes the zip of a killed push for remains may remove it while the push goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_goes_on_while_its_zip_is_removed_sends_it_again() {
    let place = Place::directory();
    let registry = place.open().await;
    let models = place.scratch().join("models");
    fs::create_dir(&models).unwrap();
    // The zip arrives, but its record cannot be written.
    fs::write(models.join("artifacts"), "").unwrap();
    registry.push(push_of(zip(1), "latest")).await.unwrap_err();
    fs::remove_file(models.join("artifacts")).unwrap();
    let objects = models.join("objects").join(NAME);
    let zips = || -> Vec<String> {
        let names = fs::read_dir(&objects).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".zip")).collect()
    };
    let [sent] = zips().try_into().unwrap();
    fs::write(objects.join(format!("{sent}.removing.0123")), "removing\n").unwrap();

    let pushed = registry.push(push_of(zip(1), "latest")).await.unwrap();
    assert!(pushed.new);
    let object = &pushed.publication.object;
    assert!(!object.ends_with(&sent), "{object}");
    assert!(zips().iter().any(|name| object.ends_with(name)), "{object}");
    let found = registry.publication(&name(), None, None).await.unwrap();
    assert_eq!(found, pushed.publication);
    let to = place.scratch().join("pulled.zip");
    registry.pull(&found, &to).await.unwrap();
    let left = fs::read_dir(place.scratch().join("transfers")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_that_an_oci_registry_keeps_are_refused_before_anything_is_read() {
    let place = Place::oci("reserved");
    let registry = place.open().await;
    for reserved in ["sha256-abc", "claim.x", "withdrawn.x"] {
        let absent = place.scratch().join("absent.zip");
        let error = registry.push(push_of(absent, reserved)).await.unwrap_err();
        assert!(matches!(error, Error::Reserved { .. }), "{error}");
        assert_eq!(error.exit_code(), ExitCode::Usage);
    }
    assert!(!place.scratch().join("transfers").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_nobody_answers_leaves_nothing_to_continue() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = free.local_addr().unwrap().to_string();
    drop(free);
    let mut place = Place::oci_at(&host, "nobody");
    place.options.oci.retry_for = std::time::Duration::from_millis(200);
    let registry = place.open().await;
    registry.push(push_of(zip(1), "latest")).await.unwrap_err();
    let left = fs::read_dir(place.scratch().join("transfers")).unwrap();
    assert_eq!(left.count(), 0);
}
