//! Publications that are called off or killed, and then run again.

use std::fs;
use std::time::{Duration, Instant};

use mlwm_spec::ExitCode;
use mlwm_storage::{Progress, ProgressEvent};
use tokio_util::sync::CancellationToken;

use crate::child::{command, printed};
use crate::common::{Place, manifest, output, task, tree};

async fn assert_converged(place: &Place, local: &std::path::Path) {
    place.verify().await.unwrap();
    let listed = place.store.list(&place.uri).await.unwrap();
    let names: Vec<String> = listed.into_iter().map(|object| object.path).collect();
    assert_eq!(names, tree(local).into_keys().collect::<Vec<_>>());
    assert!(!place.has_sibling(".publishing.json").await);
    if place.folder.is_some() {
        let beside = fs::read_dir(place.uri.local_path().unwrap().parent().unwrap()).unwrap();
        assert_eq!(
            beside.count(),
            2,
            "the output, its manifest and nothing else"
        );
    }
}

#[tokio::test]
async fn called_off_at_any_point_then_run_again() {
    for place in Place::all("call-off").await {
        let local = output(1);
        for stop_at in [0, 1, 5, 12, 24, 25] {
            let cancel = CancellationToken::new();
            let stop = cancel.clone();
            let progress = Progress::new(move |event: ProgressEvent| {
                if event.done_objects == stop_at {
                    stop.cancel();
                }
            });
            let make = |objects| manifest(task("a"), &place.uri, objects);
            let error = place
                .store
                .publish(
                    local.path().into(),
                    &place.uri,
                    task("a"),
                    make,
                    &progress,
                    &cancel,
                )
                .await
                .unwrap_err();
            assert_eq!(error.exit_code(), ExitCode::Interrupted, "{error}");
            assert!(!place.has_sibling(".manifest.json").await);
        }
        place.publish(local.path(), task("a")).await.unwrap();
        assert_converged(&place, local.path()).await;
    }
}

#[tokio::test]
async fn leftovers_of_another_task_are_replaced() {
    for place in Place::all("leftovers").await {
        let other = output(2);
        fs::create_dir_all(other.path().join("only/in/the/other")).unwrap();
        fs::write(other.path().join("only/in/the/other/0"), b"old").unwrap();
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let progress = Progress::new(move |event: ProgressEvent| {
            if event.done_objects == 24 {
                stop.cancel();
            }
        });
        let make = |objects| manifest(task("other"), &place.uri, objects);
        let _ = place
            .store
            .publish(
                other.path().into(),
                &place.uri,
                task("other"),
                make,
                &progress,
                &cancel,
            )
            .await
            .unwrap_err();
        assert!(place.has_sibling(".publishing.json").await);
        assert!(!place.store.list(&place.uri).await.unwrap().is_empty());

        let local = output(1);
        place.publish(local.path(), task("a")).await.unwrap();
        assert_converged(&place, local.path()).await;
    }
}

#[tokio::test]
async fn a_marker_that_outlived_its_publication_is_removed() {
    for place in Place::all("late-kill").await {
        let local = output(1);
        place.publish(local.path(), task("a")).await.unwrap();
        // As if killed between the manifest and the end.
        let marker = format!(
            "{{\"version\":1,\"task\":\"{}\",\"attempt\":\"0\"}}",
            task("a")
        );
        match &place.folder {
            Some(_) => {
                let path = place
                    .uri
                    .sibling_suffix(".publishing.json")
                    .local_path()
                    .unwrap();
                fs::write(&path, marker).unwrap();
                let orphan = path.with_file_name(".out.zarr.manifest.json.0123456789ab.mlwm-part");
                fs::write(orphan, "half a manif").unwrap();
            }
            None => {
                let marker = marker.as_bytes();
                place.plant_at(".publishing.json", marker).await;
            }
        }
        place.publish(local.path(), task("a")).await.unwrap();
        assert_converged(&place, local.path()).await;
    }
}

#[tokio::test]
async fn killed_at_random_then_run_again() {
    for place in Place::all("kill").await {
        let environment = place.environment();
        let local = output(1);
        let mut killed = 0;
        // Each child lives a little longer than the one before, until one reaches the end.
        let mut life = Duration::from_millis(20);
        loop {
            let mut child = command("publish", &place.uri, local.path(), &environment)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let born = Instant::now();
            let ended = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break Some(status);
                }
                if born.elapsed() > life {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    break None;
                }
                std::thread::sleep(Duration::from_millis(2));
            };
            if place.has_sibling(".manifest.json").await {
                // Visible means complete, whenever the child was killed.
                place.verify().await.unwrap();
            }
            if ended.is_some() {
                break;
            }
            killed += 1;
            life += Duration::from_millis(25).max(life / 4);
        }
        assert!(killed >= 2, "{:?}: only {killed} were killed", place.uri);
        let last = command("publish", &place.uri, local.path(), &environment)
            .output()
            .unwrap();
        assert_eq!(
            printed(&last, "JOB"),
            format!("ok {}", tree(local.path()).len())
        );
        assert_converged(&place, local.path()).await;
    }
}
