//! The cache, used by several at once.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mlwm_registries::{Cache, PruneRequest, RegistryOptions};
use mlwm_spec::{ArtifactReference, PublishedArtifact};
use mlwm_storage::{Phase, Progress};

use crate::common::{NAME, Place, push_of, zip};

fn reference(text: &str) -> PublishedArtifact {
    match text.parse().unwrap() {
        ArtifactReference::Published(published) => published,
        ArtifactReference::File(file) => panic!("{file} is a file"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_at_once_fetch_once() {
    for place in Place::all("cache") {
        let registry = place.open().await;
        let publication = registry
            .push(push_of(zip(1), "latest"))
            .await
            .unwrap()
            .publication;
        let folder = place.scratch().join("cache");
        let started = Arc::new(AtomicU32::new(0));
        let tasks: Vec<_> = (0..6)
            .map(|_| {
                // Each with a cache, a registry and locks of its own, as processes have.
                let (cache, uri, started) =
                    (Cache::at(&folder), place.uri.clone(), Arc::clone(&started));
                let options = RegistryOptions {
                    progress: Progress::new(move |event| {
                        let begins = event.phase == Phase::Downloading && event.done_bytes == 0;
                        started.fetch_add(
                            u32::from(begins && event.done_objects == 0),
                            Ordering::SeqCst,
                        );
                    }),
                    ..place.options.clone()
                };
                tokio::spawn(async move {
                    let reference = reference(&format!("{uri}/{NAME}"));
                    cache.get(&reference, None, options).await.unwrap().path
                })
            })
            .collect();
        let mut paths: Vec<PathBuf> = Vec::new();
        for task in tasks {
            paths.push(task.await.unwrap());
        }
        paths.dedup();
        assert_eq!(paths.len(), 1);
        assert_eq!(fs::read(&paths[0]).unwrap(), fs::read(zip(1)).unwrap());
        assert_eq!(started.load(Ordering::SeqCst), 1, "{}", place.uri);

        let listed = Cache::at(&folder).list().unwrap();
        assert_eq!((listed.len(), listed[0].digest), (1, publication.digest));
        assert_eq!(listed[0].name.as_str(), NAME);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_and_there_needs_no_registry_and_what_is_used_is_not_pruned() {
    let place = Place::directory();
    let registry = place.open().await;
    let publication = registry
        .push(push_of(zip(1), "latest"))
        .await
        .unwrap()
        .publication;
    let cache = Cache::at(place.scratch().join("cache"));
    let pinned = format!("{NAME}@{}", publication.digest);
    let get = |default: Option<&'static str>, text: String| {
        let (cache, options) = (cache.clone(), place.options.clone());
        async move { cache.get(&reference(&text), default, options).await }
    };
    let error = get(None, pinned.clone()).await.unwrap_err();
    assert!(error.to_string().contains("MLWM_REGISTRY"), "{error}");
    let held = get(None, format!("{}/{pinned}", place.uri)).await.unwrap();
    let away = get(Some("/nonexistent"), pinned.clone()).await.unwrap();
    assert_eq!(away.path, held.path);

    let all = PruneRequest {
        keep_bytes: Some(0),
        ..PruneRequest::default()
    };
    let pruned = cache.prune(all).await.unwrap();
    assert_eq!((pruned.removed.len(), pruned.in_use.len()), (0, 1));
    assert!(held.path.exists());
    let path = held.path.clone();
    drop((held, away));
    let dry = PruneRequest {
        dry_run: true,
        ..all
    };
    let pruned = cache.prune(dry).await.unwrap();
    assert_eq!(
        (pruned.removed.len(), pruned.freed_bytes),
        (1, publication.size)
    );
    assert!(path.exists());
    cache.prune(all).await.unwrap();
    let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(left, 0, "nothing of it is left");
    let error = get(Some("/nonexistent"), pinned).await.unwrap_err();
    assert!(error.to_string().contains("has no"), "{error}");
}
