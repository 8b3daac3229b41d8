//! Publishers that race.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mlwm_registries::{Error, PushRequest, Registry, RegistryOptions, RemovalRequest, TagMove};
use mlwm_spec::Digest;
use mlwm_storage::oci::{OciOptions, Repository};
use mlwm_storage::{Phase, Progress};
use tokio::sync::{Barrier, mpsc};

use crate::common::{NAME, Place, name, push_of, tag, zip};
use crate::trust::{key, signed};

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

/// The signature of a zip in an OCI registry is of a manifest that is there, whoever wrote it last.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn signatures_of_the_same_content_are_of_what_was_published() {
    let place = Place::oci("subjects");
    let (ours, public) = key(&place, "ours");
    let request = PushRequest {
        signatures: vec![signed(1, &ours)],
        ..push_of(zip(1), "latest")
    };
    // The second sees that nothing is published, and is held up until the first has published.
    let published = Arc::new(AtomicBool::new(false));
    let (began, mut begun) = mpsc::unbounded_channel();
    let go_on = Arc::clone(&published);
    let options = RegistryOptions {
        transfers: Some(place.scratch().join("second")),
        progress: Progress::new(move |_| {
            began.send(()).unwrap();
            // What else the runtime has given to this thread must go on.
            tokio::task::block_in_place(|| {
                while !go_on.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        }),
        ..place.options.clone()
    };
    let second = Registry::open(&place.uri, options).await.unwrap();
    let second = tokio::spawn({
        let request = request.clone();
        async move { second.push(request).await }
    });
    begun.recv().await.unwrap();
    let first = place.open().await.push(request).await.unwrap();
    assert!(first.new);
    // The time of publication, which is in the manifest, has seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    published.store(true, Ordering::SeqCst);
    let second = second.await.unwrap().unwrap();
    assert_eq!(
        (second.new, &second.publication),
        (false, &first.publication)
    );

    let uri = format!("{}/{NAME}", place.uri).parse().unwrap();
    let repository = Repository::open(&uri, &OciOptions::default()).unwrap();
    let hex = first.publication.digest.hex();
    let tag = format!("sha256-{hex}.{}.minisig", public.key_id());
    let signature = repository.manifest(&tag).await.unwrap().unwrap();
    let signature: serde_json::Value = serde_json::from_slice(&signature.bytes).unwrap();
    assert_eq!(signature["subject"]["digest"], first.publication.object);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_never_replaces_what_came_meanwhile() {
    for place in Place::all("meanwhile") {
        let publisher = place.open().await;
        let pushed = publisher.push(push_of(zip(1), "latest")).await.unwrap();
        for (content, taken) in [(fs::read(zip(1)).unwrap(), false), (b"other".into(), true)] {
            let to = place.scratch().join(format!("{taken}.zip"));
            let (path, bytes) = (to.clone(), content.clone());
            let options = RegistryOptions {
                progress: Progress::new(move |event| {
                    if event.phase == Phase::Downloading {
                        fs::write(&path, &bytes).unwrap();
                    }
                }),
                ..place.options.clone()
            };
            let registry = Registry::open(&place.uri, options).await.unwrap();
            let pulled = registry.pull(&pushed.publication, &to).await;
            match taken {
                false => drop(pulled.unwrap()),
                true => {
                    let error = pulled.unwrap_err();
                    assert!(matches!(error, Error::InTheWay { .. }), "{error}");
                }
            }
            assert_eq!(fs::read(&to).unwrap(), content, "{}", place.uri);
        }
        let left = fs::read_dir(place.scratch()).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let hidden: Vec<String> = left.filter(|name| name.starts_with('.')).collect();
        assert!(hidden.is_empty(), "{hidden:?}");
    }
}

/// Pushes a variant as `v1`, and leaves what a push leaves that was killed after its record was
/// written.
async fn push_killed_at_the_end(place: &Place, variant: u32) {
    let (folder, kept) = (
        place.options.transfers.clone().unwrap(),
        place.scratch().join("kept"),
    );
    fs::create_dir_all(&kept).unwrap();
    let (from, to) = (folder.clone(), kept.clone());
    let options = RegistryOptions {
        progress: Progress::new(move |_| _ = copy_tickets(&from, &to)),
        ..place.options.clone()
    };
    let registry = Registry::open(&place.uri, options).await.unwrap();
    registry.push(push_of(zip(variant), "v1")).await.unwrap();
    assert_eq!(copy_tickets(&kept, &folder), 1);
}

fn copy_tickets(from: &Path, to: &Path) -> usize {
    let tickets = fs::read_dir(from)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_ticket = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("push-") && name.ends_with(".json")
    };
    let tickets: Vec<PathBuf> = tickets.filter(is_ticket).collect();
    for ticket in &tickets {
        fs::copy(ticket, to.join(ticket.file_name().unwrap())).unwrap();
    }
    tickets.len()
}

async fn remove(registry: &Registry, of: &str) {
    let request = RemovalRequest {
        name: name(),
        tag: Some(tag(of)),
        references: Vec::new(),
    };
    let plan = registry.plan_removal(&request).await.unwrap();
    registry.remove(&plan, true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_goes_on_leaves_the_zip_that_another_tag_got_meanwhile() {
    for place in [Place::directory(), Place::moto("killed")] {
        push_killed_at_the_end(&place, 1).await;
        let elsewhere = place.open_elsewhere("somebody").await;
        let v1 = elsewhere.publication(&name(), Some(&tag("v1")), None).await;
        let v1 = v1.unwrap();
        elsewhere
            .tag(&v1, &tag("v2"), TagMove::Never)
            .await
            .unwrap();
        remove(&elsewhere, "v1").await;
        elsewhere.push(push_of(zip(2), "v1")).await.unwrap();

        let again = place.open().await.push(push_of(zip(1), "v1")).await;
        assert!(matches!(again, Err(Error::Conflict { .. })), "{again:?}");
        let v2 = elsewhere.publication(&name(), Some(&tag("v2")), None).await;
        let to = place.scratch().join("v2.zip");
        elsewhere.pull(&v2.unwrap(), &to).await.unwrap();
        assert_eq!(fs::read(to).unwrap(), fs::read(zip(1)).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_damaged_in_the_store_before_it_was_published_is_sent_again() {
    let place = Place::directory();
    push_killed_at_the_end(&place, 1).await;
    let registry = place.open().await;
    let v1 = registry.publication(&name(), Some(&tag("v1")), None).await;
    let root = Path::new(&place.uri);
    // As if it had been killed before the record.
    fs::remove_file(root.join(format!("artifacts/{NAME}/v1.json"))).unwrap();
    let object = root.join(v1.unwrap().object);
    let mut bytes = fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object, bytes).unwrap();

    let refused = registry.push(push_of(zip(1), "v1")).await.unwrap_err();
    assert!(matches!(refused, Error::Changed { .. }), "{refused}");
    let pushed = registry.push(push_of(zip(1), "v1")).await.unwrap();
    let to = place.scratch().join("v1.zip");
    registry.pull(&pushed.publication, &to).await.unwrap();
    assert_eq!(fs::read(to).unwrap(), fs::read(zip(1)).unwrap());
}
