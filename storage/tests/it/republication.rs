//! Another output in the place of one that was published.

use mlwm_spec::Manifest;
use mlwm_spec::manifest::content_digest;
use mlwm_storage::{Error, Outcome, Phase, Progress, WITHDRAWN_SUFFIX};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::common::{Place, output, task};

/// What was kept of a manifest that was withdrawn.
async fn record(place: &Place, of: &Manifest) -> Value {
    let content = content_digest(&of.objects);
    let suffix = format!("{WITHDRAWN_SUFFIX}{}.json", &content.hex()[..16]);
    let uri = place.uri.sibling_suffix(&suffix);
    let bytes = place.store.get(&uri, 1 << 20).await.unwrap();
    serde_json::from_slice(&bytes.expect("a record of what was withdrawn")).unwrap()
}

#[tokio::test]
async fn what_is_replaced_stays_on_record() {
    for place in Place::all("replaced").await {
        let (none, cancel) = (Progress::none(), CancellationToken::new());
        let first = place.publish(output(1).path(), task("a")).await.unwrap();
        let two = output(2);
        let second = place.republish(two.path(), task("b"), &none, &cancel).await;
        let second = second.unwrap();
        assert_eq!(second.outcome, Outcome::Published);
        let replaced: Vec<_> = second
            .manifest
            .replaces
            .iter()
            .map(|old| old.task)
            .collect();
        assert_eq!(replaced, [task("a")]);
        let kept = record(&place, &first.manifest).await;
        assert_eq!(kept["replaced_by"], task("b").to_string());
        let kept: Manifest = serde_json::from_value(kept["manifest"].clone()).unwrap();
        assert_eq!(kept, first.manifest);
        assert_eq!(place.verify().await.unwrap().manifest, second.manifest);

        // The same again replaces nothing.
        let again = place.republish(two.path(), task("b"), &none, &cancel).await;
        assert_eq!(again.unwrap().outcome, Outcome::AlreadyPublished);
        let third = place
            .republish(output(3).path(), task("c"), &none, &cancel)
            .await;
        let replaces = third.unwrap().manifest.replaces;
        let replaced: Vec<_> = replaces.iter().map(|old| old.task).collect();
        assert_eq!(replaced, [task("a"), task("b")]);
        assert!(!place.has_sibling(".publishing.json").await);
    }
}

#[tokio::test]
async fn a_damaged_output_is_replaced_by_the_same() {
    for place in Place::all("repaired").await {
        let (none, cancel) = (Progress::none(), CancellationToken::new());
        let local = output(1);
        let published = place.publish(local.path(), task("a")).await.unwrap();
        let object = published
            .manifest
            .objects
            .iter()
            .max_by_key(|object| object.size);
        let object = object.unwrap();
        let flipped = vec![b'!'; usize::try_from(object.size).unwrap()];
        place.plant(&object.path, &flipped).await;
        place.verify().await.unwrap_err();
        let repaired = place
            .republish(local.path(), task("a"), &none, &cancel)
            .await;
        assert_eq!(repaired.unwrap().outcome, Outcome::Published);
        assert_eq!(
            place.verify().await.unwrap().manifest.objects,
            published.manifest.objects
        );
    }
}

/// Interrupted between withdrawal and publication, nothing is visible, and a plain publication of
/// the new task goes on and still knows what it replaces.
#[tokio::test]
async fn an_interrupted_replacement_goes_on() {
    for place in Place::all("interrupted-replacement").await {
        place.publish(output(1).path(), task("a")).await.unwrap();
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let progress = Progress::new(move |event| {
            if event.phase == Phase::Uploading {
                stop.cancel();
            }
        });
        let two = output(2);
        let error = place
            .republish(two.path(), task("b"), &progress, &cancel)
            .await;
        assert!(matches!(error, Err(Error::Interrupted { .. })), "{error:?}");
        assert!(!place.has_sibling(".manifest.json").await);
        assert!(place.has_sibling(".publishing.json").await);
        let published = place.publish(two.path(), task("b")).await.unwrap();
        let replaces = published.manifest.replaces;
        assert_eq!((replaces.len(), replaces[0].task), (1, task("a")));
        place.verify().await.unwrap();
    }
}
