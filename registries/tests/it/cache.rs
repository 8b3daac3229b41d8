//! The cache, used by several at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use mlwm_registries::{Cache, Error, PruneRequest, PushRequest, RegistryOptions};
use mlwm_spec::{ArtifactReference, PublishedArtifact};
use mlwm_storage::{Phase, Progress};

use crate::common::{NAME, Place, push_of, zip};
use crate::trust::{key, signed};

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
    assert!(error.to_string().contains("no folder"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_told_removed_and_fetched_again() {
    let mut place = Place::directory();
    let (ours, public) = key(&place, "ours");
    let registry = place.open().await;
    let request = PushRequest {
        signatures: vec![signed(1, &ours)],
        ..push_of(zip(1), "latest")
    };
    let publication = registry.push(request).await.unwrap().publication;
    let cache = Cache::at(place.scratch().join("cache"));
    let held = cache.fetch(&registry, &publication).await.unwrap();
    assert!(held.is_intact().unwrap());
    let path = held.path.clone();
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&path, &bad).unwrap();
    assert!(!held.is_intact().unwrap());
    assert!(!cache.remove(publication.digest).unwrap(), "it is in use");
    drop(held);

    // Who checks signatures notices, and is not told that a file is in the way.
    place.options.trusted_keys = vec![public];
    let checking = place.open().await;
    let error = cache.fetch(&checking, &publication).await.unwrap_err();
    assert!(matches!(error, Error::DamagedInCache { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("mlwm cache remove {}", publication.digest)));
    assert!(cache.has(publication.digest).unwrap());
    assert!(cache.remove(publication.digest).unwrap());
    assert!(!cache.has(publication.digest).unwrap());
    let held = cache.fetch(&checking, &publication).await.unwrap();
    assert!(held.is_intact().unwrap());

    // Damaged, and a kill left it without its note.
    drop(held);
    fs::write(&path, &bad).unwrap();
    fs::remove_file(path.with_extension("json")).unwrap();
    let held = cache.fetch(&registry, &publication).await.unwrap();
    assert_eq!(fs::read(&held.path).unwrap(), good);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_killed_processes_left_is_pruned_when_it_is_old() {
    let place = Place::directory();
    let registry = place.open().await;
    let pushed = registry.push(push_of(zip(1), "latest")).await.unwrap();
    let transfers = place.scratch().join("old-transfers");
    fs::create_dir(&transfers).unwrap();
    let cache = Cache::at(place.scratch().join("cache")).with_transfers(&transfers);
    let held = cache.fetch(&registry, &pushed.publication).await.unwrap();
    let contents = held.path.parent().unwrap().to_owned();
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let kept = names(&contents);
    let gone = "ab".repeat(32);
    let left = |days: u64| {
        for name in [
            ".writing-x1".to_owned(),
            format!(".{gone}.zip.abababababababab.mlwm-part"),
            format!("{gone}.json"),
            format!("{gone}.lock"),
            format!("{gone}.zip.minisig"),
        ] {
            write_old(&contents.join(name), days);
        }
        for name in [
            "push-1.json",
            "push-1.lock",
            "0123.json",
            "0123.lock",
            "0123.new",
        ] {
            write_old(&transfers.join(name), days * 14);
        }
    };
    let prune = async |dry_run| {
        let request = PruneRequest {
            dry_run,
            ..PruneRequest::default()
        };
        cache.prune(request).await.unwrap().unfinished.len()
    };
    left(0);
    assert_eq!(prune(false).await, 0, "it may be going on");
    left(1);
    assert_eq!(prune(true).await, 10);
    assert_eq!(names(&contents).len(), kept.len() + 5);
    let busy = fs::File::open(transfers.join("push-1.lock")).unwrap();
    busy.lock().unwrap();
    assert_eq!(prune(false).await, 8);
    assert_eq!(names(&contents), kept);
    assert_eq!(names(&transfers), ["push-1.json", "push-1.lock"]);
    drop(busy);
    assert_eq!(prune(false).await, 2);
    assert_eq!(names(&transfers), [""; 0]);
}

fn write_old(path: &Path, days: u64) {
    let file = fs::File::create(path).unwrap();
    let age = Duration::from_secs(days * 24 * 3600);
    file.set_modified(SystemTime::now() - age).unwrap();
}
