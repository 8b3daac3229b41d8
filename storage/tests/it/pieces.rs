//! Publications whose objects come little by little.

use std::fs;

use mlwm_storage::{Error, Outcome, Progress};
use tokio_util::sync::CancellationToken;

use crate::common::{Place, manifest, output, task, tree};

/// A folder with some objects of one window.
fn window(number: u8) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("t2m/c")).unwrap();
    let bytes = vec![number; 3000 + usize::from(number)];
    fs::write(folder.path().join(format!("t2m/c/{number}")), bytes).unwrap();
    folder
}

fn metadata() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("zarr.json"), "{}").unwrap();
    folder
}

#[tokio::test]
async fn what_is_sent_in_pieces_is_seen_when_all_is_there_and_not_before() {
    let (none, go_on) = (Progress::none(), CancellationToken::new());
    for place in Place::all("pieces").await {
        let mut publishing = place
            .store
            .begin(&place.uri, task("a"), None, &go_on)
            .await
            .unwrap();
        let mut expected = std::collections::BTreeMap::new();
        for number in 0..3 {
            let local = window(number);
            expected.extend(tree(local.path()));
            let bytes = publishing.add(local.path(), &none, &go_on).await.unwrap();
            assert_eq!(bytes, 3000 + u64::from(number));
            assert!(!place.has_sibling(".manifest.json").await);
        }
        let local = window(1);
        let error = publishing
            .add(local.path(), &none, &go_on)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::SentTwice { .. }), "{error}");
        let local = metadata();
        expected.extend(tree(local.path()));
        publishing.add(local.path(), &none, &go_on).await.unwrap();
        let make = |objects| manifest(task("a"), &place.uri, objects);
        let published = publishing.finish(make, &go_on).await.unwrap();
        assert_eq!(published.outcome, Outcome::Published);
        assert_eq!(place.verify().await.unwrap().bytes, published.bytes);
        let dest = tempfile::tempdir().unwrap();
        place.stage(&dest.path().join("in.zarr")).await.unwrap();
        assert_eq!(tree(&dest.path().join("in.zarr")), expected);
        assert!(!place.has_sibling(".publishing.json").await);

        let again = place
            .store
            .begin(&place.uri, task("b"), None, &go_on)
            .await
            .unwrap_err();
        assert!(matches!(again, Error::Occupied { .. }), "{again}");
        place.verify().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_still_being_written_is_not_sent() {
    let (none, go_on) = (Progress::none(), CancellationToken::new());
    let site = tempfile::tempdir().unwrap();
    let uri = site.path().join("out.zarr").display().to_string();
    let uri: mlwm_storage::Uri = uri.parse().unwrap();
    let store = mlwm_storage::Store::open(&uri).await.unwrap();
    let begun = store.begin(&uri, task("a"), None, &go_on).await;
    let mut publishing = begun.unwrap();
    for name in [".2.partial", ".gone/2"] {
        let local = window(1);
        let path = local.path().join("t2m/c").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "half of").unwrap();
        let error = publishing.add(local.path(), &none, &go_on).await;
        let error = error.unwrap_err();
        assert!(matches!(&error, Error::Unfinished { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let local = window(1);
    fs::write(local.path().join(".zattrs"), "{}").unwrap();
    let sent = publishing.add(local.path(), &none, &go_on).await;
    assert_eq!(sent.unwrap(), 3003);
}

#[tokio::test]
async fn pieces_that_were_left_are_no_part_of_what_is_published_later() {
    let (none, go_on) = (Progress::none(), CancellationToken::new());
    for place in Place::all("left-pieces").await {
        let mut left = place
            .store
            .begin(&place.uri, task("a"), None, &go_on)
            .await
            .unwrap();
        left.add(window(7).path(), &none, &go_on).await.unwrap();
        drop(left);

        let mut next = place
            .store
            .begin(&place.uri, task("b"), None, &go_on)
            .await
            .unwrap();
        next.add(window(8).path(), &none, &go_on).await.unwrap();
        let make = |objects| manifest(task("b"), &place.uri, objects);
        let published = next.finish(make, &go_on).await.unwrap();
        let paths: Vec<&str> = published
            .manifest
            .objects
            .iter()
            .map(|o| o.path.as_str())
            .collect();
        assert_eq!(paths, ["t2m/c/8"]);
        place.verify().await.unwrap();
    }
}

#[tokio::test]
async fn of_two_that_send_pieces_the_later_one_wins() {
    let (none, go_on) = (Progress::none(), CancellationToken::new());
    for place in Place::all("rival-pieces").await {
        let mut first = place
            .store
            .begin(&place.uri, task("a"), None, &go_on)
            .await
            .unwrap();
        first.add(window(1).path(), &none, &go_on).await.unwrap();
        let mut second = place
            .store
            .begin(&place.uri, task("b"), None, &go_on)
            .await
            .unwrap();
        let error = first
            .add(window(2).path(), &none, &go_on)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::TakenOver { .. }), "{error}");
        second.add(output(1).path(), &none, &go_on).await.unwrap();
        let make = |objects| manifest(task("b"), &place.uri, objects);
        second.finish(make, &go_on).await.unwrap();
        place.verify().await.unwrap();
        let make = |objects| manifest(task("a"), &place.uri, objects);
        assert!(first.finish(make, &go_on).await.is_err());
        place.verify().await.unwrap();
    }
}
