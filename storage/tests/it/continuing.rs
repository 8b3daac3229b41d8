//! Publications that go on where one was interrupted: what the store has is not sent again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use mlwm_storage::{
    Error, Listed, Options, Progress, ProgressEvent, Published, Source, Store, Uri,
};
use object_store::{MultipartUpload, ObjectStore};
use tokio_util::sync::CancellationToken;

use crate::common::{Place, client, manifest, noise, output, task, tree};

/// Publishes, and calls it off when so many objects have been sent; the last event of progress too.
async fn publish(
    place: &Place,
    local: &Path,
    notes: &Path,
    stop_at: Option<u64>,
) -> (Result<Published, Error>, ProgressEvent) {
    let cancel = CancellationToken::new();
    let (stop, last) = (cancel.clone(), Arc::new(Mutex::new(None)));
    let seen = Arc::clone(&last);
    let progress = Progress::new(move |event: ProgressEvent| {
        *seen.lock().unwrap() = Some(event);
        if Some(event.done_objects) == stop_at {
            stop.cancel();
        }
    });
    let source = Source {
        folder: local,
        notes: Some(notes),
    };
    let make = |objects| manifest(task("a"), &place.uri, objects);
    let published = place
        .store
        .publish(source, &place.uri, task("a"), make, &progress, &cancel)
        .await;
    let last = last.lock().unwrap().take().unwrap();
    (published, last)
}

async fn listed(place: &Place) -> BTreeMap<String, Listed> {
    let listed = place.store.list(&place.uri).await.unwrap();
    listed
        .into_iter()
        .map(|object| (object.path.clone(), object))
        .collect()
}

/// The objects that are noted.
fn noted(notes: &Path) -> Vec<String> {
    let text = fs::read_to_string(notes).unwrap();
    let path = |line: &str| {
        let note: serde_json::Value = serde_json::from_str(line).unwrap();
        note["path"].as_str().unwrap().to_owned()
    };
    text.lines().map(path).collect()
}

#[tokio::test]
async fn what_the_store_has_is_not_sent_again() {
    for place in Place::all("go-on").await {
        let local = output(1);
        let notes = local.path().with_extension("notes");
        let (called_off, _) = publish(&place, local.path(), &notes, Some(12)).await;
        called_off.unwrap_err();
        let before = listed(&place).await;
        assert!(!before.contains_key("zarr.json"));
        let noted = noted(&notes);

        let (published, last) = publish(&place, local.path(), &notes, None).await;
        published.unwrap();
        place.verify().await.unwrap();
        assert_eq!(listed(&place).await.len(), tree(local.path()).len());
        let after = listed(&place).await;
        // What was on its way when it was called off may have come without a note.
        assert!(noted.len() >= 10, "{noted:?}");
        for path in &noted {
            assert_eq!(before[path], after[path], "{path} of {:?}", place.uri);
        }
        let kept: u64 = noted.iter().map(|path| before[path].size).sum();
        assert_eq!(last.kept_bytes, kept, "{:?}", place.uri);
        fs::remove_file(notes).unwrap();
    }
}

#[tokio::test]
async fn what_has_changed_on_either_side_is_sent_again() {
    for place in Place::all("go-on-changed").await {
        let local = output(1);
        let notes = local.path().with_extension("notes");
        let (called_off, _) = publish(&place, local.path(), &notes, Some(20)).await;
        called_off.unwrap_err();
        let mut noted = noted(&notes);
        noted.retain(|path| path.starts_with("wind/"));
        let [theirs, ours, gone, ..] = &noted[..] else {
            panic!("too few were sent: {noted:?}");
        };
        // Of the same length, in the store and here; and one that the store has lost.
        place.plant(theirs, &noise(99, 5_000)).await;
        fs::write(local.path().join(ours), noise(98, 5_000)).unwrap();
        if let Some(folder) = &place.folder {
            fs::remove_file(folder.path().join("forecasts/out.zarr").join(gone)).unwrap();
        }
        // As if killed while it wrote a note.
        let text = fs::read(&notes).unwrap();
        fs::write(&notes, &text[..text.len() - 20]).unwrap();

        let (published, _) = publish(&place, local.path(), &notes, None).await;
        let published = published.unwrap();
        place.verify().await.unwrap();
        let expected = tree(local.path());
        assert_eq!(published.manifest.objects.len(), expected.len());
        for object in &published.manifest.objects {
            let digest = mlwm_spec::Digest::of(&expected[&object.path]);
            assert_eq!(digest, object.sha256, "{}", object.path);
        }
        // The notes stay readable behind the torn one.
        let text = fs::read_to_string(&notes).unwrap();
        let torn = text
            .lines()
            .filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err());
        assert_eq!(torn.count(), 1);
        fs::remove_file(notes).unwrap();
    }
}

#[tokio::test]
async fn pieces_that_come_again_are_not_sent_again() {
    let (none, go_on) = (Progress::none(), CancellationToken::new());
    for place in Place::all("go-on-pieces").await {
        let site = tempfile::tempdir().unwrap();
        let notes = site.path().join("of the task/notes");
        let window = |number: u8, content: u8| {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir_all(folder.path().join("t2m/c")).unwrap();
            let name = format!("t2m/c/{number}");
            fs::write(folder.path().join(name), vec![content; 3000]).unwrap();
            folder
        };
        let begin = async || {
            place
                .store
                .begin(&place.uri, task("a"), Some(&notes), &go_on)
                .await
                .unwrap()
        };
        let mut killed = begin().await;
        for number in 0..3 {
            let window = window(number, number);
            killed.add(window.path(), &none, &go_on).await.unwrap();
        }
        drop(killed);
        let before = listed(&place).await;
        assert_eq!(before.len(), 3);

        // The first comes again, the second is another, and the third does not come.
        let mut next = begin().await;
        for (number, content) in [(0, 0), (1, 7)] {
            let window = window(number, content);
            next.add(window.path(), &none, &go_on).await.unwrap();
        }
        let make = |objects| manifest(task("a"), &place.uri, objects);
        let published = next.finish(make, &go_on).await.unwrap();
        assert_eq!(published.manifest.objects.len(), 2);
        place.verify().await.unwrap();
        let after = listed(&place).await;
        assert_eq!(after.len(), 2);
        assert_eq!(after["t2m/c/0"], before["t2m/c/0"]);
        assert_ne!(after["t2m/c/1"], before["t2m/c/1"]);
    }
}

#[tokio::test]
async fn uploads_that_were_never_completed_are_ended() {
    for place in Place::all("never-completed").await {
        let Some(server) = place.server() else {
            continue;
        };
        let local = output(1);
        let notes = local.path().with_extension("notes");
        let (called_off, _) = publish(&place, local.path(), &notes, Some(1)).await;
        called_off.unwrap_err();
        let theirs = client(server, place.bucket());
        let begin = async |key: &str| {
            let key = object_store::path::Path::from(key);
            let mut upload = theirs.put_multipart_opts(&key, Default::default()).await;
            let upload = upload.as_mut().unwrap();
            upload.put_part(vec![7; 5 << 20].into()).await.unwrap();
        };
        begin("forecasts/out.zarr/temperature/c/0/0").await;
        begin("forecasts/out.zarr/temperature/c/1 ø%20+&=~#1/0").await;
        begin("forecasts/out.zarr2/of-another").await;
        assert_eq!(unfinished(&place).len(), 3);

        let (published, _) = publish(&place, local.path(), &notes, None).await;
        published.unwrap();
        assert_eq!(unfinished(&place), ["forecasts/out.zarr2/of-another"]);
        place.verify().await.unwrap();
        fs::remove_file(notes).unwrap();
    }
}

/// The uploads in parts that a server has under way, as another client sees them.
fn unfinished(place: &Place) -> Vec<String> {
    let script = "import boto3, os, sys\n\
        s3 = boto3.client('s3', endpoint_url=os.environ['AWS_ENDPOINT_URL'], \
            region_name=os.environ.get('AWS_REGION'), verify=False)\n\
        found = s3.list_multipart_uploads(Bucket=sys.argv[1]).get('Uploads', [])\n\
        print('\\n'.join(upload['Key'] for upload in found))";
    let ran = std::process::Command::new(mlwm_tests::site::python())
        .args(["-c", script, place.bucket()])
        .envs(place.environment())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{errors}");
    let text = String::from_utf8(ran.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Puts an object from a thread of its own, while all others wait.
fn put_by_another(uri: &Uri, options: &Options) {
    let put = async {
        let store = Store::open_with(uri, options.clone()).await.unwrap();
        store.put(uri, noise(97, 5_000)).await.unwrap();
    };
    let run = || tokio::runtime::Runtime::new().unwrap().block_on(put);
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap();
}

#[tokio::test]
async fn what_comes_in_behind_is_replaced() {
    for place in Place::all("comes-late").await {
        // What a process writes to a file system ends with it.
        if place.folder.is_some() {
            continue;
        }
        let local = output(1);
        let notes = local.path().with_extension("notes");
        let (called_off, _) = publish(&place, local.path(), &notes, Some(20)).await;
        called_off.unwrap_err();
        // Another object takes the place of one that was sent, before the last one is.
        let late = noted(&notes)
            .into_iter()
            .find(|path| path.starts_with("wind/"))
            .unwrap();
        let (planted, cancel) = (std::sync::Once::new(), CancellationToken::new());
        let (plant, options) = (place.uri.join(&late).unwrap(), place.options.clone());
        let total = tree(local.path()).len() as u64;
        let progress = Progress::new(move |event: ProgressEvent| {
            if event.done_objects + 1 == total {
                planted.call_once(|| put_by_another(&plant, &options));
            }
        });
        let source = Source {
            folder: local.path(),
            notes: Some(&notes),
        };
        let make = |objects| manifest(task("a"), &place.uri, objects);
        let published =
            place
                .store
                .publish(source, &place.uri, task("a"), make, &progress, &cancel);
        published.await.unwrap();
        place.verify().await.unwrap();
        fs::remove_file(notes).unwrap();
    }
}
