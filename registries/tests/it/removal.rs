//! Removing, and what is left.

use std::fs;
use std::time::{Duration, SystemTime};

use mlwm_registries::{Error, FoundReference, RemovalRequest};
use mlwm_spec::ExitCode;

use crate::common::{Place, name, push_of, tag, zip};

fn removal(of: Option<&str>) -> RemovalRequest {
    RemovalRequest {
        name: name(),
        tag: of.map(tag),
        references: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_goes_alone_and_the_last_copy_only_with_yes() {
    for place in Place::all("removal") {
        let registry = place.open().await;
        let pushed = registry.push(push_of(zip(1), "latest")).await.unwrap();
        let publication = pushed.publication;
        registry.tag(&publication, &tag("v1"), false).await.unwrap();

        let plan = registry.plan_removal(&removal(Some("v1"))).await.unwrap();
        assert!(plan.objects.is_empty() && plan.only_copies.is_empty());
        registry.remove(&plan, false).await.unwrap();
        let left = registry.list(None).await.unwrap();
        assert_eq!(left.len(), 1, "{}", place.uri);
        assert_eq!(left[0].tag, tag("latest"));
        let to = place.scratch().join("still.zip");
        registry.pull(&left[0], &to).await.unwrap();

        let mut request = removal(None);
        request.references.push(FoundReference {
            configuration: "configurations/x".into(),
            reference: format!("{}/{}", place.uri, name()).parse().unwrap(),
        });
        let plan = registry.plan_removal(&request).await.unwrap();
        let error = registry.remove(&plan, true).await.unwrap_err();
        assert!(error.to_string().contains("configurations/x"), "{error}");

        let plan = registry.plan_removal(&removal(None)).await.unwrap();
        let error = registry.remove(&plan, false).await.unwrap_err();
        assert!(matches!(error, Error::OnlyCopy { .. }), "{error}");
        assert_eq!(registry.list(None).await.unwrap().len(), 1);
        registry.remove(&plan, true).await.unwrap();
        assert!(registry.list(None).await.unwrap().is_empty());
        let gone = registry.plan_removal(&removal(None)).await.unwrap_err();
        assert_eq!(gone.exit_code(), ExitCode::InputMissing);

        // The name is free again.
        assert!(registry.push(push_of(zip(2), "latest")).await.unwrap().new);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_push_left_is_swept_after_a_day() {
    let place = Place::directory();
    let registry = place.open().await;
    registry.push(push_of(zip(1), "latest")).await.unwrap();
    let objects = place.scratch().join("models/objects").join(name().as_str());
    let (young, old) = (objects.join("00.zip"), objects.join("11.zip"));
    for path in [&young, &old] {
        fs::write(path, "left behind").unwrap();
    }
    let yesterday = SystemTime::now() - Duration::from_secs(25 * 3600);
    let file = fs::File::options().write(true).open(&old).unwrap();
    file.set_modified(yesterday).unwrap();
    let plan = registry.plan_sweep().await.unwrap();
    assert_eq!(plan.objects, [format!("objects/{}/11.zip", name())]);
    registry.remove(&plan, false).await.unwrap();
    assert!(young.exists() && !old.exists());
    let publication = registry.publication(&name(), None, None).await.unwrap();
    let to = place.scratch().join("pulled.zip");
    registry.pull(&publication, &to).await.unwrap();
}
