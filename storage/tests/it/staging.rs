//! Staging and listing.

use std::fs;
use std::sync::{Arc, Mutex};

use mlwm_spec::manifest::content_digest;
use mlwm_spec::{Digest, ExitCode};
use mlwm_storage::{Error, Phase, Progress, ProgressEvent};
use tokio_util::sync::CancellationToken;

use crate::common::{Place, output, task, tree};

#[tokio::test]
async fn nothing_there_is_input_missing() {
    for place in Place::all("nothing").await {
        let dest = tempfile::tempdir().unwrap();
        let error = place.stage(&dest.path().join("in")).await.unwrap_err();
        assert!(matches!(error, Error::NothingAt { .. }), "{error}");
        assert_eq!(error.exit_code(), ExitCode::InputMissing);
        assert!(place.store.list(&place.uri).await.unwrap().is_empty());
        assert_eq!(place.store.get(&place.uri, 10).await.unwrap(), None);
    }
}

#[tokio::test]
async fn an_object_is_staged_as_a_file() {
    for place in Place::all("file").await {
        place.plant("a/state.pkl", b"12345").await;
        place.plant("a/state.pkl2", b"other").await;
        let uri = place.uri.join("a/state.pkl").unwrap();
        let parent = tempfile::tempdir().unwrap();
        let dest = parent.path().join("in");
        let (none, cancel) = (Progress::none(), CancellationToken::new());
        let staged = place.store.stage(&uri, &dest, &none, &cancel).await;
        let staged = staged.unwrap();
        assert_eq!(fs::read(&dest).unwrap(), b"12345");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        assert_eq!((staged.objects.len(), staged.bytes), (1, 5));
        assert_eq!(staged.objects[0].path, "state.pkl");
        assert_eq!(staged.objects[0].sha256, Digest::of(b"12345"));
        let listing = place.store.listing_digest(&uri).await.unwrap();
        assert_eq!((listing.digest, listing.objects), (staged.listing, 1));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        place.plant("a/state.pkl", b"54321").await;
        let changed = place.store.listing_digest(&uri).await.unwrap();
        assert_ne!(changed.digest, staged.listing);
    }
}

#[tokio::test]
async fn a_neighbour_with_the_same_beginning_is_not_listed() {
    for place in Place::all("neighbour").await {
        place.plant("a", b"1").await;
        let neighbour = place.uri.sibling_suffix("2");
        assert!(place.store.list(&neighbour).await.unwrap().is_empty());
        let listed = place.store.list(&place.uri).await.unwrap();
        assert_eq!(
            listed.iter().map(|o| o.path.as_str()).collect::<Vec<_>>(),
            ["a"]
        );
    }
}

#[tokio::test]
async fn the_listing_digest_changes_with_content() {
    for place in Place::all("listing").await {
        place.plant("a", b"1").await;
        place.plant("b/c", b"2").await;
        let first = place.store.listing_digest(&place.uri).await.unwrap();
        assert_eq!((first.objects, first.bytes), (2, 2));
        assert_eq!(place.store.listing_digest(&place.uri).await.unwrap(), first);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        place.plant("a", b"3").await;
        let second = place.store.listing_digest(&place.uri).await.unwrap();
        assert_ne!(second.digest, first.digest);
    }
}

#[tokio::test]
async fn small_objects_have_a_limit() {
    for place in Place::all("limit").await {
        place.plant("a", b"12345").await;
        let uri = place.uri.join("a").unwrap();
        assert_eq!(
            place.store.get(&uri, 5).await.unwrap().as_deref(),
            Some(&b"12345"[..])
        );
        let error = place.store.get(&uri, 4).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: 4, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_destination_that_holds_something_is_left_alone() {
    let place = Place::file().await;
    place.plant("a", b"1").await;
    let dest = tempfile::tempdir().unwrap();
    fs::write(dest.path().join("mine"), b"x").unwrap();
    let error = place.stage(dest.path()).await.unwrap_err();
    assert!(
        matches!(error, Error::DestinationNotEmpty { .. }),
        "{error}"
    );
    assert_eq!(tree(dest.path()).len(), 1);
}

#[tokio::test]
async fn staging_continues_where_it_was_interrupted() {
    for place in Place::all("continue").await {
        let local = output(1);
        let published = place.publish(local.path(), task("a")).await.unwrap();
        let parent = tempfile::tempdir().unwrap();
        let dest = parent.path().join("in.zarr");
        let cancel = CancellationToken::new();
        let (stop, at) = (cancel.clone(), 6);
        let progress = Progress::new(move |event: ProgressEvent| {
            if event.done_objects >= at {
                stop.cancel();
            }
        });
        let narrow = place.store.clone();
        let error = narrow
            .stage(&place.uri, &dest, &progress, &cancel)
            .await
            .unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Interrupted, "{error}");
        assert!(!dest.exists(), "an incomplete dataset is not visible");
        let kept = tree(&parent.path().join(".in.zarr.mlwm-staging/data"));
        assert!(kept.len() >= 6, "{}", kept.len());

        let staged = place.stage(&dest).await.unwrap();
        assert_eq!(tree(&dest), tree(local.path()));
        assert_eq!(staged.objects, published.manifest.objects);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn leftovers_of_an_older_input_are_not_used() {
    for place in Place::all("older").await {
        place.plant("a", b"old content").await;
        place.plant("b", b"b").await;
        let parent = tempfile::tempdir().unwrap();
        let dest = parent.path().join("in");
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let progress = Progress::new(move |event: ProgressEvent| {
            if event.done_objects == 2 {
                stop.cancel();
            }
        });
        // Called off when all is there but before the name is given, or done: both are fine.
        let _ = place
            .store
            .stage(&place.uri, &dest, &progress, &cancel)
            .await;
        if dest.exists() {
            fs::rename(&dest, parent.path().join("done")).unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        place.plant("a", b"new content").await;
        let staged = place.stage(&dest).await.unwrap();
        assert_eq!(fs::read(dest.join("a")).unwrap(), b"new content");
        assert_eq!(staged.objects[0].sha256, Digest::of("new content"));
    }
}

#[tokio::test]
async fn progress_never_goes_back_and_ends_complete() {
    for place in Place::all("progress").await {
        let events: Arc<Mutex<Vec<ProgressEvent>>> = Arc::default();
        let sink = Arc::clone(&events);
        let progress = Progress::new(move |event| sink.lock().unwrap().push(event));
        let local = output(1);
        let total: u64 = tree(local.path()).values().map(|v| v.len() as u64).sum();
        let cancel = CancellationToken::new();
        let make = |objects| crate::common::manifest(task("a"), &place.uri, objects);
        let publish = place.store.publish(
            local.path().into(),
            &place.uri,
            task("a"),
            make,
            &progress,
            &cancel,
        );
        publish.await.unwrap();
        let dest = tempfile::tempdir().unwrap();
        let staged = place
            .store
            .stage(&place.uri, dest.path(), &progress, &cancel)
            .await
            .unwrap();
        assert_eq!(staged.digest, content_digest(&staged.objects));
        place
            .store
            .verify(&place.uri, &progress, &cancel)
            .await
            .unwrap();
        let events = events.lock().unwrap();
        for phase in [Phase::Uploading, Phase::Staging, Phase::Verifying] {
            let of_phase: Vec<_> = events.iter().filter(|event| event.phase == phase).collect();
            for pair in of_phase.windows(2) {
                assert!(pair[0].done_bytes <= pair[1].done_bytes, "{pair:?}");
                assert!(pair[0].done_objects <= pair[1].done_objects, "{pair:?}");
            }
            let last = of_phase.last().unwrap();
            assert_eq!(
                (last.done_bytes, last.total_bytes),
                (total, total),
                "{phase:?}"
            );
            assert_eq!(last.done_objects, last.total_objects);
        }
    }
}

#[tokio::test]
async fn too_little_room_is_found_before_anything_is_written() {
    let place = Place::file().await;
    // A sparse file: larger than any disk here, and nothing on this one.
    let path = place.uri.local_path().unwrap();
    fs::create_dir_all(&path).unwrap();
    let big = fs::File::create(path.join("big")).unwrap();
    big.set_len(1 << 43).unwrap();
    let dest = tempfile::tempdir().unwrap();
    let error = place.stage(&dest.path().join("in")).await.unwrap_err();
    assert!(matches!(error, Error::NotEnoughSpace { .. }), "{error}");
    assert_eq!(error.exit_code(), ExitCode::StorageFailed);
}
