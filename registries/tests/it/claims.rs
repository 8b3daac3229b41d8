//! Claims that dead publishers left, in stores without conditional writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mlwm_registries::{Error, Registry, RegistryOptions, RemovalRequest};
use mlwm_spec::Digest;
use mlwm_storage::{Phase, Progress, Store, Uri};

use crate::common::{NAME, Place, name, push_of, tag, zip};

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_a_dead_publisher_is_named_removed_and_nothing_is_sent_twice() {
    for place in Place::claimed("claims") {
        let root: Uri = place.uri.parse().unwrap();
        let store = Store::open_with(&root, place.options.storage.clone())
            .await
            .unwrap();
        let probe = root.join("probe").unwrap();
        let conditional = store.has_conditional_create(&probe).await.unwrap();
        assert!(!conditional, "{} is here for its lack of them", place.uri);
        // Smaller than any digest: it goes first, and never does.
        let rival = format!("artifacts/{NAME}/v1.claims/{}.dead", "0".repeat(64));
        let claim = root.join(&rival).unwrap();
        store.put(&claim, b"claimed\n".to_vec()).await.unwrap();

        let sent = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&sent);
        let options = RegistryOptions {
            progress: Progress::new(move |event| {
                if event.phase == Phase::Uploading {
                    seen.fetch_max(event.done_bytes, Ordering::SeqCst);
                }
            }),
            ..place.options.clone()
        };
        let registry = Registry::open(&place.uri, options).await.unwrap();
        let error = registry.push(push_of(zip(1), "v1")).await.unwrap_err();
        assert!(matches!(error, Error::Claimed { .. }), "{error}");
        let bytes = std::fs::read(zip(1)).unwrap();
        assert_eq!(sent.swap(0, Ordering::SeqCst), bytes.len() as u64);

        let request = RemovalRequest {
            name: name(),
            tag: Some(tag("v1")),
            references: Vec::new(),
        };
        let plan = registry.plan_removal(&request).await.unwrap();
        assert_eq!(plan.claims, [rival]);
        assert!(plan.publications.is_empty() && plan.objects.is_empty());
        registry.remove(&plan, false).await.unwrap();

        let pushed = registry.push(push_of(zip(1), "v1")).await.unwrap();
        assert!(pushed.new);
        assert_eq!(pushed.publication.digest, Digest::of(&bytes));
        assert_eq!(sent.load(Ordering::SeqCst), 0, "it had arrived before");
        let folder = root.join(&format!("artifacts/{NAME}/v1.claims")).unwrap();
        assert!(store.list(&folder).await.unwrap().is_empty());
    }
}
