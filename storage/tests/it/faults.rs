//! What happens when a store refuses, breaks or is silent; and that no secret is told.

use std::fs;
use std::time::{Duration, Instant};

use mlwm_spec::ExitCode;
use mlwm_storage::{Error, Store, Uri};
use mlwm_tests::s3::{Key, Proxy, free_port};

use crate::common::{GARAGE, MOTO, Place, noise, output, task, tree};

#[tokio::test]
async fn every_kind_of_refusal_is_told_apart_and_tells_no_secret() {
    GARAGE.bucket("garage-refuse");
    let stranger = GARAGE.key_without_rights("stranger");
    let reader = GARAGE.key_without_rights("reader");
    GARAGE.allow_reading("garage-refuse", &reader.id);
    let mut wrong_secret = GARAGE.key.clone();
    wrong_secret.secret = "d4".repeat(32);
    let unknown = Key {
        id: "GKunknownunknown000000000".to_owned(),
        secret: "e5".repeat(32),
    };

    let garage = &GARAGE.endpoint;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let cases = [
        (garage, "garage", &stranger, "garage-refuse", "AccessDenied"),
        (
            garage,
            "garage",
            &wrong_secret,
            "garage-refuse",
            "AccessDenied",
        ),
        (garage, "garage", &unknown, "garage-refuse", "AccessDenied"),
        (
            garage,
            "garage",
            &GARAGE.key,
            "garage-no-such",
            "BucketMissing",
        ),
        (garage, "elsewhere", &GARAGE.key, "garage-refuse", "Service"),
        (
            &nobody,
            "garage",
            &GARAGE.key,
            "garage-refuse",
            "Unreachable",
        ),
        (
            &MOTO.endpoint,
            "us-east-1",
            &MOTO.key,
            "moto-no-such",
            "BucketMissing",
        ),
    ];
    let local = output(1);
    for (endpoint, region, key, bucket, kind) in cases {
        let place = Place::at(endpoint, region, key, bucket).await;
        let dest = tempfile::tempdir().unwrap();
        let errors = [
            place.store.list(&place.uri).await.unwrap_err(),
            place.store.get(&place.uri, 10).await.unwrap_err(),
            place.stage(dest.path()).await.unwrap_err(),
            place.verify().await.unwrap_err(),
            place.publish(local.path(), task("a")).await.unwrap_err(),
        ];
        // What only cannot be reached may be reached when there is something to write.
        let is_told = matches!(kind, "AccessDenied" | "BucketMissing");
        let told = place.store.check_writable(&place.uri).await.err();
        assert_eq!(told.is_some(), is_told, "{kind}: {told:?}");
        for error in errors.into_iter().chain(told) {
            let debug = format!("{error:?}");
            assert!(debug.starts_with(kind), "{kind}: {debug}");
            assert_eq!(error.exit_code(), ExitCode::StorageFailed);
            let text = format!("{error} {debug} {:?}", place.store);
            for secret in [
                &key.id,
                &key.secret,
                &"Signature=".to_owned(),
                &"list-type".to_owned(),
            ] {
                assert!(!text.contains(secret.as_str()), "{text}");
            }
            assert!(!text.contains('?'), "{text}");
        }
    }
}

#[tokio::test]
async fn a_key_that_may_only_read_cannot_publish() {
    let owner = Place::s3(&GARAGE, "garage-read-only").await;
    owner.plant("a", b"1").await;
    let reader = GARAGE.key_without_rights("read-only");
    GARAGE.allow_reading("garage-read-only", &reader.id);
    let place = Place::at(&GARAGE.endpoint, "garage", &reader, "garage-read-only").await;
    let dest = tempfile::tempdir().unwrap();
    place.stage(dest.path()).await.unwrap();
    let mut place = place;
    place.uri = place.uri.sibling_suffix(".new");
    let told = place.store.check_writable(&place.uri).await.unwrap_err();
    assert!(matches!(told, Error::AccessDenied { .. }), "{told}");
    let error = place
        .publish(output(1).path(), task("a"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::AccessDenied { .. }), "{error}");
    assert!(!error.to_string().contains(&reader.id), "{error}");
}

#[tokio::test]
async fn a_place_is_tried_without_a_trace() {
    for place in Place::all("tried").await {
        place.store.check_writable(&place.uri).await.unwrap();
        let all = place.uri.to_string();
        let above: Uri = all.trim_end_matches("/forecasts/out.zarr").parse().unwrap();
        assert_eq!(place.store.list(&above).await.unwrap(), [], "{above}");
    }
    let objects = GARAGE.objects(&["uploads", "garage-tried"]);
    assert_eq!(objects.trim(), "", "no upload is left");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below: Uri = file.join("out.zarr").to_str().unwrap().parse().unwrap();
    let store = Store::open(&below).await.unwrap();
    let error = store.check_writable(&below).await.unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
}

#[tokio::test]
async fn broken_connections_are_begun_again() {
    for (server, bucket) in [(&*GARAGE, "garage-broken"), (&*MOTO, "moto-broken")] {
        let direct = Place::s3(server, bucket).await;
        let local = output(1);
        direct.publish(local.path(), task("a")).await.unwrap();
        let proxy = Proxy::to(&server.endpoint);
        let place = Place::at(&proxy.endpoint, server.region, &server.key, bucket).await;
        for after in [300, 3_000, 700_000] {
            let before = proxy.cuts_done();
            proxy.cut(5, after);
            let dest = tempfile::tempdir().unwrap();
            place.stage(dest.path()).await.unwrap();
            assert_eq!(tree(dest.path()), tree(local.path()));
            assert!(proxy.cuts_done() > before, "the proxy cut nothing");
        }
    }
}

#[tokio::test]
async fn broken_uploads_are_begun_again() {
    for (server, bucket) in [(&*GARAGE, "garage-broken-up"), (&*MOTO, "moto-broken-up")] {
        server.bucket(bucket);
        let proxy = Proxy::to(&server.endpoint);
        let place = Place::at(&proxy.endpoint, server.region, &server.key, bucket).await;
        let local = output(1);
        proxy.cut(6, 200);
        place.publish(local.path(), task("a")).await.unwrap();
        assert!(proxy.cuts_done() > 0);
        place.verify().await.unwrap();
    }
}

#[tokio::test]
async fn a_download_that_falls_silent_is_begun_again() {
    let direct = Place::s3(&GARAGE, "garage-silent").await;
    direct.plant("big", &noise(1, 30_000_000)).await;
    let proxy = Proxy::to(&GARAGE.endpoint);
    let place = Place::at(&proxy.endpoint, "garage", &GARAGE.key, "garage-silent").await;
    // First the listing passes, then nothing for longer than the store's patience of 2 s.
    let dest = tempfile::tempdir().unwrap();
    place.store.list(&place.uri).await.unwrap();
    let started = Instant::now();
    let staging = place.stage(dest.path());
    let breaking = async {
        tokio::time::sleep(Duration::from_millis(15)).await;
        proxy.silence(true);
        tokio::time::sleep(Duration::from_secs(3)).await;
        proxy.silence(false);
    };
    let (staged, ()) = tokio::join!(staging, breaking);
    staged.unwrap();
    assert!(started.elapsed() > Duration::from_secs(2));
    assert_eq!(
        fs::read(dest.path().join("big")).unwrap(),
        noise(1, 30_000_000)
    );
}

#[tokio::test]
async fn a_server_that_never_answers_is_a_timeout() {
    GARAGE.bucket("garage-never");
    let proxy = Proxy::to(&GARAGE.endpoint);
    proxy.silence(true);
    let place = Place::at(&proxy.endpoint, "garage", &GARAGE.key, "garage-never").await;
    let error = place.store.list(&place.uri).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changes_meanwhile_is_an_error() {
    for (server, bucket) in [(&*GARAGE, "garage-changes"), (&*MOTO, "moto-changes")] {
        let direct = Place::s3(server, bucket).await;
        direct.plant("big", &noise(1, 40_000_000)).await;
        let parent = tempfile::tempdir().unwrap();
        let dest = parent.path().join("in");
        let (begun, wait) = std::sync::mpsc::channel();
        let progress = mlwm_storage::Progress::new(move |event: mlwm_storage::ProgressEvent| {
            if event.done_bytes > 0 && event.done_bytes < 10_000_000 {
                // Holds the download until the object has been replaced.
                let _ = begun.send(());
                std::thread::sleep(Duration::from_secs(2));
            }
        });
        let cancel = tokio_util::sync::CancellationToken::new();
        // Memory for one part, so that no part is read ahead of the change.
        let options = mlwm_storage::Options {
            memory_bytes: 8 << 20,
            s3: Some(
                mlwm_storage::S3Access::with_key(
                    &server.endpoint,
                    server.region,
                    &server.key.id,
                    &server.key.secret,
                )
                .unwrap(),
            ),
            ..Default::default()
        };
        let store = mlwm_storage::Store::open_with(&direct.uri, options)
            .await
            .unwrap();
        let uri = direct.uri.clone();
        let staging =
            tokio::spawn(async move { store.stage(&uri, &dest, &progress, &cancel).await });
        tokio::task::spawn_blocking(move || wait.recv())
            .await
            .unwrap()
            .unwrap();
        direct.plant("big", &noise(2, 40_000_000)).await;
        let error = staging.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error}");
        assert!(!parent.path().join("in").exists());
    }
}

#[tokio::test]
async fn an_output_that_changes_meanwhile_is_not_published() {
    for place in Place::all("local-changes").await {
        let local = output(1);
        let victim = local.path().join("wind/c/7");
        let cancel = tokio_util::sync::CancellationToken::new();
        let progress = mlwm_storage::Progress::new(move |event: mlwm_storage::ProgressEvent| {
            if event.done_objects == 0 {
                let _ = fs::write(&victim, b"something else now");
            }
        });
        let make = |objects| crate::common::manifest(task("a"), &place.uri, objects);
        let publish = place.store.publish(
            local.path().into(),
            &place.uri,
            task("a"),
            make,
            &progress,
            &cancel,
        );
        let error = publish.await.unwrap_err();
        assert!(matches!(error, Error::LocalChanged { .. }), "{error}");
        assert!(!place.has_sibling(".manifest.json").await);
    }
}
