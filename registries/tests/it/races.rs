//! Publishers that race.

use std::sync::Arc;

use mlwm_registries::{Error, Registry};
use mlwm_spec::Digest;
use tokio::sync::Barrier;

use crate::common::{Place, name, push_of, tag, zip};

const ROUNDS: u32 = 50;

async fn push_at_once(
    registries: [&Registry; 2],
    variants: [u32; 2],
    round: u32,
) -> [Result<Digest, Error>; 2] {
    let barrier = Arc::new(Barrier::new(2));
    let start = |who: usize| {
        let (registry, barrier) = (registries[who].clone(), Arc::clone(&barrier));
        let request = push_of(zip(variants[who]), &format!("round-{round}"));
        tokio::spawn(async move {
            barrier.wait().await;
            let pushed = registry.push(request).await?;
            Ok(pushed.publication.digest)
        })
    };
    let (first, second) = tokio::join!(start(0), start(1));
    [first.unwrap(), second.unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_publish_different_content_never_do_both_succeed() {
    for place in Place::all("race") {
        let one = place.open_elsewhere("one").await;
        let two = place.open_elsewhere("two").await;
        let mut won = [0; 2];
        for round in 0..ROUNDS {
            let results = push_at_once([&one, &two], [1, 2], round).await;
            let tag = tag(&format!("round-{round}"));
            for (who, result) in results.iter().enumerate() {
                match result {
                    Ok(digest) => {
                        let found = one.publication(&name(), Some(&tag), None).await.unwrap();
                        assert_eq!(found.digest, *digest, "{} {round}", place.uri);
                        won[who] += 1;
                    }
                    Err(Error::Conflict { .. } | Error::Claimed { .. }) => {}
                    Err(error) => panic!("{} {round}: {error}", place.uri),
                }
            }
            let both = results.iter().all(Result::is_ok);
            assert!(!both, "{} {round}", place.uri);
        }
        assert_eq!(won[0] + won[1], ROUNDS, "{}: somebody wins", place.uri);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_publish_the_same_content_both_succeed() {
    for place in Place::all("same") {
        let one = place.open_elsewhere("one").await;
        let two = place.open_elsewhere("two").await;
        for round in 0..10 {
            // With separate journals, and with the same: there one waits for the other.
            let pair = if round % 2 == 0 {
                [&one, &two]
            } else {
                [&one, &one]
            };
            for result in push_at_once(pair, [1, 1], round).await {
                result.unwrap_or_else(|error| panic!("{} {round}: {error}", place.uri));
            }
        }
        assert_eq!(one.list(Some(&name())).await.unwrap().len(), 10);
    }
}

/// The first publishers of a name make its repository, and send the same small blobs at once.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_two_publishers_of_a_name_in_an_oci_registry_do_not_disturb_each_other() {
    for round in 0..ROUNDS {
        let place = Place::oci(&format!("first-{round}"));
        let (one, two) = (
            place.open_elsewhere("one").await,
            place.open_elsewhere("two").await,
        );
        let same = round % 2 == 0;
        let results = push_at_once([&one, &two], [1, if same { 1 } else { 2 }], round).await;
        for result in &results {
            match result {
                Err(Error::Conflict { .. } | Error::Claimed { .. }) if !same => {}
                Err(error) => panic!("{round}: {error}"),
                Ok(_) => {}
            }
        }
        let won = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(won, if same { 2 } else { 1 }, "{round}");
    }
}
