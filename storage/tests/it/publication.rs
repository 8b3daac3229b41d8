//! Publishing and verifying.

use std::fs;

use mlwm_spec::{Digest, ExitCode};
use mlwm_storage::{Error, Outcome};

use crate::common::{Place, manifest, output, task, tree};

#[tokio::test]
async fn publish_verify_stage_round_trip() {
    for place in Place::all("round-trip").await {
        let local = output(1);
        let published = place.publish(local.path(), task("a")).await.unwrap();
        assert_eq!(published.outcome, Outcome::Published, "{:?}", place.uri);
        let expected = tree(local.path());
        assert_eq!(published.manifest.objects.len(), expected.len());
        for object in &published.manifest.objects {
            assert_eq!(
                object.sha256,
                Digest::of(&expected[&object.path]),
                "{}",
                object.path
            );
        }
        assert!(!place.has_sibling(".publishing.json").await);

        let verified = place.verify().await.unwrap();
        assert_eq!(verified.manifest, published.manifest);
        assert_eq!(
            verified.bytes,
            expected.values().map(|v| v.len() as u64).sum::<u64>()
        );

        let dest = tempfile::tempdir().unwrap();
        let staged = place.stage(&dest.path().join("in.zarr")).await.unwrap();
        assert_eq!(tree(&dest.path().join("in.zarr")), expected);
        assert_eq!(staged.objects, published.manifest.objects);
        assert_eq!(
            staged.listing,
            place.store.listing_digest(&place.uri).await.unwrap().digest
        );
        assert_eq!(
            fs::read_dir(dest.path()).unwrap().count(),
            1,
            "no scratch is left"
        );

        let again = place.publish(local.path(), task("a")).await.unwrap();
        assert_eq!(again.outcome, Outcome::AlreadyPublished);
        assert_eq!(again.manifest, published.manifest);
    }
}

#[tokio::test]
async fn another_publication_is_a_conflict_and_nothing_is_touched() {
    for place in Place::all("conflict").await {
        let first = output(1);
        place.publish(first.path(), task("a")).await.unwrap();
        let before = place.store.listing_digest(&place.uri).await.unwrap();
        for (salt, name) in [(1, "b"), (2, "a"), (2, "b")] {
            let error = place
                .publish(output(salt).path(), task(name))
                .await
                .unwrap_err();
            assert!(matches!(error, Error::Conflict { .. }), "{error}");
            assert_eq!(error.exit_code(), ExitCode::Conflict);
            assert!(
                error.to_string().contains(&task("a").to_string()),
                "{error}"
            );
            assert!(
                error.to_string().contains(&task(name).to_string()),
                "{error}"
            );
        }
        assert_eq!(
            place.store.listing_digest(&place.uri).await.unwrap(),
            before
        );
        assert!(!place.has_sibling(".publishing.json").await);
        place.verify().await.unwrap();
    }
}

#[tokio::test]
async fn data_of_others_is_a_conflict_and_nothing_is_touched() {
    for place in Place::all("foreign").await {
        place.plant("theirs/0", b"precious").await;
        let error = place
            .publish(output(1).path(), task("a"))
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::ForeignData { objects: 1, .. }),
            "{error}"
        );
        assert_eq!(error.exit_code(), ExitCode::Conflict);
        let theirs = place
            .store
            .get(&place.uri.join("theirs/0").unwrap(), 100)
            .await
            .unwrap();
        assert_eq!(theirs.as_deref(), Some(&b"precious"[..]));
        assert!(!place.has_sibling(".publishing.json").await);
        assert!(!place.has_sibling(".manifest.json").await);
    }
}

#[tokio::test]
async fn verify_finds_every_difference() {
    for place in Place::all("verify").await {
        let error = place.verify().await.unwrap_err();
        assert!(matches!(error, Error::NotPublished { .. }), "{error}");
        place.publish(output(1).path(), task("a")).await.unwrap();

        let original = fs::read(output(1).path().join("wind/c/3")).unwrap();
        let mut flipped = original.clone();
        flipped[2500] ^= 1;
        for (name, content, what) in [
            ("wind/c/3", &flipped[..], "`wind/c/3` has other content"),
            (
                "wind/c/3",
                &original[1..],
                "`wind/c/3` has 4999 bytes instead of 5000",
            ),
        ] {
            place.plant(name, content).await;
            let error = place.verify().await.unwrap_err();
            assert_eq!(error.exit_code(), ExitCode::InputCorrupt);
            assert!(error.to_string().contains(what), "{error}");
        }
        place.plant("wind/c/3", &original).await;
        place.verify().await.unwrap();
        place.plant("more", b"x").await;
        let error = place.verify().await.unwrap_err();
        assert!(
            error.to_string().contains("`more` does not belong to it"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_is_not_an_output_is_refused() {
    let place = Place::file().await;
    let empty = tempfile::tempdir().unwrap();
    fs::create_dir_all(empty.path().join("a/b")).unwrap();
    let error = place.publish(empty.path(), task("a")).await.unwrap_err();
    assert!(matches!(error, Error::EmptyOutput { .. }), "{error}");

    let linked = output(1);
    std::os::unix::fs::symlink("/etc/passwd", linked.path().join("wind/link")).unwrap();
    let error = place.publish(linked.path(), task("a")).await.unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");

    let socket = output(1);
    let _held = std::os::unix::net::UnixListener::bind(socket.path().join("s")).unwrap();
    let error = place.publish(socket.path(), task("a")).await.unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");

    let control = output(1);
    fs::write(control.path().join("a\tb"), b"").unwrap();
    let error = place.publish(control.path(), task("a")).await.unwrap_err();
    assert!(error.to_string().contains("control character"), "{error}");
    assert!(
        !place.uri.local_path().unwrap().exists(),
        "nothing was written"
    );
}

#[tokio::test]
async fn a_manifest_of_something_else_is_not_written() {
    for place in Place::all("wrong-manifest").await {
        let local = output(1);
        let cancel = tokio_util::sync::CancellationToken::new();
        let error = place
            .store
            .publish(
                local.path().into(),
                &place.uri,
                task("a"),
                |objects| manifest(task("a"), &place.uri, objects[1..].to_vec()),
                &mlwm_storage::Progress::none(),
                &cancel,
            )
            .await
            .unwrap_err();
        assert!(matches!(error, Error::WrongManifest { .. }), "{error}");
        assert!(!place.has_sibling(".manifest.json").await);
        place.publish(local.path(), task("a")).await.unwrap();
        place.verify().await.unwrap();
    }
}

#[tokio::test]
async fn two_publishers_at_once_never_mix() {
    for round in 0..4 {
        for place in Place::all(&format!("race-{round}")).await {
            let (one, two) = (output(1), output(2));
            let (first, second) = tokio::join!(
                place.publish(one.path(), task("one")),
                place.publish(two.path(), task("two")),
            );
            let winners = usize::from(first.is_ok()) + usize::from(second.is_ok());
            assert!(
                winners <= 1,
                "{:?}: both believe to have published",
                place.uri
            );
            // Whoever did not win may try again once all is quiet; exactly one forecast is there.
            let later = [
                place.publish(one.path(), task("one")).await,
                place.publish(two.path(), task("two")).await,
            ];
            assert_eq!(
                later.iter().filter(|result| result.is_ok()).count(),
                1,
                "{later:?}"
            );
            place.verify().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_slow_publication_stops_when_another_takes_over() {
    for mut place in Place::all("take-over").await {
        // Long enough for what is on its way to the slowest server to arrive or end.
        place.options.watch = std::time::Duration::from_millis(400);
        place.store = mlwm_storage::Store::open_with(&place.uri, place.options.clone())
            .await
            .unwrap();
        let (one, two) = (output(1), output(2));
        let (begun, wait) = std::sync::mpsc::channel();
        let progress = mlwm_storage::Progress::new(move |event: mlwm_storage::ProgressEvent| {
            if event.done_objects == 2 {
                let _ = begun.send(());
            }
            // It would need seconds for its objects, and the other one needs less.
            std::thread::sleep(std::time::Duration::from_millis(80));
        });
        let (uri, folder) = (place.uri.clone(), one.path().to_owned());
        let options = mlwm_storage::Options {
            in_flight: 2,
            ..place.options.clone()
        };
        let slow = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(4)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let store = mlwm_storage::Store::open_with(&uri, options).await.unwrap();
                let cancel = tokio_util::sync::CancellationToken::new();
                let make = |objects| manifest(task("one"), &uri, objects);
                store
                    .publish(
                        folder.as_path().into(),
                        &uri,
                        task("one"),
                        make,
                        &progress,
                        &cancel,
                    )
                    .await
            })
        });
        tokio::task::spawn_blocking(move || wait.recv())
            .await
            .unwrap()
            .unwrap();
        place.publish(two.path(), task("two")).await.unwrap();
        let error = tokio::task::spawn_blocking(|| slow.join().unwrap())
            .await
            .unwrap();
        let error = error.unwrap_err();
        assert!(matches!(error, Error::TakenOver { .. }), "{error}");
        place.verify().await.unwrap();
        let dest = tempfile::tempdir().unwrap();
        place.stage(dest.path()).await.unwrap();
        assert_eq!(tree(dest.path()), tree(two.path()));
    }
}
