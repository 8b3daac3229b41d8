//! Transfers of single objects through a proxy that breaks, refuses, and is silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mlwm_spec::Digest;
use mlwm_storage::{ByteRange, Error, Store};

use crate::common::{GARAGE, GCS, MOTO, Place, noise};
use crate::faulty::{Fault, Faulty, once_each};
use crate::transfers::Bench;

/// A place behind the proxy.
async fn behind(proxy: &Faulty, bucket: &str) -> Bench {
    let place = if bucket.starts_with("gcs") {
        Place::gcs(&proxy.endpoint, bucket).await
    } else {
        let server = if bucket.starts_with("moto") {
            &*MOTO
        } else {
            &*GARAGE
        };
        Place::at(&proxy.endpoint, server.region, &server.key, bucket).await
    };
    Bench::new(place)
}

fn make_bucket(bucket: &str) -> &'static str {
    if bucket.starts_with("gcs") {
        GCS.bucket(bucket);
        &GCS.endpoint
    } else if bucket.starts_with("moto") {
        MOTO.bucket(bucket);
        &MOTO.endpoint
    } else {
        GARAGE.bucket(bucket);
        &GARAGE.endpoint
    }
}

/// How a server is asked to take a part.
fn part_request(bucket: &str) -> &'static [&'static str] {
    if bucket.starts_with("gcs") {
        &["PUT", "upload_id="]
    } else {
        &["PUT", "partNumber="]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_break_are_sent_again() {
    for bucket in ["garage-parts", "moto-parts", "gcs-parts"] {
        let upstream = make_bucket(bucket);
        for fault in [
            Fault::Answer(500, None),
            Fault::Answer(503, None),
            Fault::Answer(429, Some(1)),
            Fault::Answer(408, None),
            Fault::CutRequest(3_000_000),
            Fault::LoseAnswer,
            Fault::Silence(Duration::from_secs(30)),
        ] {
            let rule = once_each(part_request(bucket), [fault]);
            let proxy = Faulty::to(upstream, rule);
            let mut bench = behind(&proxy, bucket).await;
            bench.place.options.stall = Duration::from_millis(300);
            bench.place.options.retry_for = Duration::from_secs(10);
            bench.place.store = Store::open_with(&bench.place.uri, bench.place.options.clone())
                .await
                .unwrap();
            let content = noise(1, 20_000_003);
            let name = format!("{fault:?}");
            let began = Instant::now();
            let digest = bench.upload(&name, &content).await;
            assert_eq!(digest.unwrap(), Digest::of(&content), "{bucket} {fault:?}");
            let met = proxy.seen().iter().filter(|(_, met)| met.is_some()).count();
            assert_eq!(met, 1, "{bucket} {fault:?}: {:?}", proxy.seen());
            if let Fault::Answer(429, _) = fault {
                assert!(began.elapsed() >= Duration::from_secs(1), "{bucket}");
            }
            assert_eq!(bench.download(&name, &content).await.unwrap(), content);
        }
    }
}

/// A server that has a part may take longer to answer than it may be silent otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_has_arrived_is_not_sent_again_too_soon() {
    for bucket in ["garage-late", "gcs-late"] {
        let upstream = make_bucket(bucket);
        let stall = Duration::from_millis(500);
        let rule = once_each(part_request(bucket), [Fault::LateAnswer(stall * 2)]);
        let proxy = Faulty::to(upstream, rule);
        let mut bench = behind(&proxy, bucket).await;
        bench.place.options.stall = stall;
        bench.place.store = Store::open_with(&bench.place.uri, bench.place.options.clone())
            .await
            .unwrap();
        let content = noise(7, 20_000_003);
        bench.upload("object", &content).await.unwrap();
        assert_eq!(parts_sent(&proxy, bucket), 3, "{:?}", proxy.seen());
    }
}

/// How many parts have come to a proxy.
fn parts_sent(proxy: &Faulty, bucket: &str) -> usize {
    let is_part = |line: &str| part_request(bucket).iter().all(|part| line.contains(part));
    proxy
        .seen()
        .iter()
        .filter(|(line, _)| is_part(line))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_request_may_be_lost_too() {
    for (bucket, parts) in [
        ("garage-last", &["POST", "uploadId="] as &'static [_]),
        ("moto-last", &["POST", "uploadId="]),
    ] {
        let upstream = make_bucket(bucket);
        let proxy = Faulty::to(upstream, once_each(parts, [Fault::LoseAnswer]));
        let bench = behind(&proxy, bucket).await;
        let content = noise(2, 20_000_003);
        let digest = bench.upload("object", &content).await.unwrap();
        assert_eq!(digest, Digest::of(&content));
        assert_eq!(bench.download("object", &content).await.unwrap(), content);
        assert_eq!(bench.left_over(), [""; 0]);
    }
    // The third chunk is the last: the server is done, and the client does not hear it.
    let bucket = "gcs-last";
    let mut chunks = 0;
    let rule = move |line: &str| {
        chunks += usize::from(line.contains("upload_id="));
        (chunks == 3).then(|| {
            chunks += 1;
            Fault::LoseAnswer
        })
    };
    let proxy = Faulty::to(make_bucket(bucket), rule);
    let bench = behind(&proxy, bucket).await;
    let content = noise(2, 20_000_003);
    let digest = bench.upload("object", &content).await.unwrap();
    assert_eq!(digest, Digest::of(&content));
    assert!(proxy.seen().iter().any(|(_, fault)| fault.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_break_go_on_where_they_were() {
    for bucket in ["garage-downs", "moto-downs", "gcs-downs"] {
        let upstream = make_bucket(bucket);
        let direct = behind(&Faulty::to(upstream, |_| None), bucket).await;
        let content = noise(3, 20_000_003);
        direct.upload("object", &content).await.unwrap();
        // Garage checks the signature, which covers the range.
        let may_ignore = !bucket.starts_with("garage");
        for faults in [
            vec![Fault::Answer(503, None), Fault::Answer(429, Some(1))],
            vec![Fault::CutAnswer(5_000_000), Fault::CutAnswer(0)],
            vec![
                Fault::CutAnswer(5_000_000),
                if may_ignore {
                    Fault::IgnoreRange
                } else {
                    Fault::LoseAnswer
                },
            ],
            vec![Fault::Silence(Duration::from_secs(30))],
        ] {
            let rule = once_each(&["GET", "object"], faults.clone());
            let proxy = Faulty::to(upstream, rule);
            let bench = behind(&proxy, bucket).await;
            let fetched = bench.download("object", &content).await.unwrap();
            assert!(fetched == content, "{bucket} {faults:?}");
            let met = proxy.seen().iter().filter(|(_, met)| met.is_some()).count();
            assert_eq!(met, faults.len(), "{bucket} {faults:?}");
            assert_eq!(bench.left_over(), [""; 0]);
        }
    }
}

/// A part of an object that does not say which one it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_unknown_place_is_an_error() {
    for (bucket, read) in [
        ("garage-place", &["GET", "object"] as &'static [_]),
        ("gcs-place", &["GET", "alt=media"]),
    ] {
        let upstream = make_bucket(bucket);
        let content = noise(3, 20_000_003);
        let faults = [Fault::CutAnswer(5_000_000), Fault::HideRange];
        let proxy = Faulty::to(upstream, once_each(read, faults));
        let bench = behind(&proxy, bucket).await;
        bench.upload("object", &content).await.unwrap();
        let error = bench.download("object", &content).await.unwrap_err();
        assert!(error.to_string().contains("which bytes"), "{error}");

        let proxy = Faulty::to(upstream, once_each(read, [Fault::HideRange]));
        let bench = behind(&proxy, bucket).await;
        let uri = bench.uri("object");
        let (start, length) = (5, 10);
        let range = ByteRange::From { start, length };
        let error = bench.place.store.read_range(&uri, range).await.unwrap_err();
        assert!(error.to_string().contains("which bytes"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_will_not_pass_is_not_repeated() {
    for bucket in ["garage-final", "gcs-final"] {
        let upstream = make_bucket(bucket);
        let content = noise(4, 20_000_003);
        for status in [400, 403] {
            let rule = move |line: &str| {
                let meant = part_request(bucket).iter().all(|part| line.contains(part));
                meant.then_some(Fault::Answer(status, None))
            };
            let proxy = Faulty::to(upstream, rule);
            let bench = behind(&proxy, bucket).await;
            let error = bench.upload("object", &content).await.unwrap_err();
            let asked = proxy.seen().iter().filter(|(_, met)| met.is_some()).count();
            // Of the parts that were on their way together, each is refused once.
            assert!(asked <= 3, "{bucket} {status}: {asked} requests");
            let text = format!("{error} {error:?}");
            assert!(
                !text.contains("upload_id") && !text.contains("uploadId"),
                "{text}"
            );
            assert!(!text.contains('?'), "{text}");
        }
        let rule = |line: &str| line.starts_with("GET").then_some(Fault::Answer(403, None));
        let proxy = Faulty::to(upstream, rule);
        let bench = behind(&proxy, bucket).await;
        let error = bench.download("object", &content).await.unwrap_err();
        assert!(matches!(error, Error::AccessDenied { .. }), "{error}");
        let range = ByteRange::Last(10);
        let uri = bench.uri("object");
        bench.place.store.read_range(&uri, range).await.unwrap_err();
        assert_eq!(proxy.seen().len(), 2, "{:?}", proxy.seen());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_end_are_renewed_once() {
    let bucket = "garage-expired";
    let upstream = make_bucket(bucket);
    let content = noise(5, 20_000_003);
    let proxy = Faulty::to(
        upstream,
        once_each(&["PUT", "partNumber=2"], [Fault::Expired]),
    );
    let bench = behind(&proxy, bucket).await;
    bench.upload("object", &content).await.unwrap();

    let rule = |line: &str| line.contains("partNumber=2").then_some(Fault::Expired);
    let proxy = Faulty::to(upstream, rule);
    let bench = behind(&proxy, bucket).await;
    let error = bench.upload("other", &content).await.unwrap_err();
    assert!(matches!(error, Error::AccessDenied { .. }), "{error}");
    let asked = proxy.seen().iter().filter(|(_, met)| met.is_some()).count();
    assert_eq!(asked, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_the_server_forgot_is_begun_anew() {
    for bucket in ["garage-forgot", "gcs-forgot"] {
        let upstream = make_bucket(bucket);
        let content = noise(6, 40_000_000);
        // The journal of an upload that ended early, on a server that knows nothing of it.
        let closed = Arc::new(AtomicBool::new(true));
        let proxy = Faulty::to(upstream, closing(bucket, &closed));
        let bench = behind(&proxy, bucket).await;
        bench.upload("object", &content).await.unwrap_err();
        let journals = bench.left_over();
        assert_eq!(journals.len(), 2, "{journals:?}");
        forge_session(&bench, upstream, bucket);
        closed.store(false, Ordering::SeqCst);
        let digest = bench.upload("object", &content).await.unwrap();
        assert_eq!(digest, Digest::of(&content));
        assert_eq!(bench.download("object", &content).await.unwrap(), content);
        assert_eq!(bench.left_over(), [""; 0]);
    }
}

/// A rule that lets two parts pass and refuses more, while it is `closed`.
fn closing(
    bucket: &'static str,
    closed: &Arc<AtomicBool>,
) -> impl FnMut(&str) -> Option<Fault> + Send + 'static {
    let (mut parts, closed) = (0, Arc::clone(closed));
    move |line| {
        let meant = part_request(bucket).iter().all(|part| line.contains(part));
        parts += usize::from(meant);
        let refused = meant && parts > 2 && closed.load(Ordering::SeqCst);
        refused.then_some(Fault::Answer(403, None))
    }
}

/// What one server has of an object is no beginning for another.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_not_continued_at_another_server() {
    for bucket in ["garage-other", "gcs-other"] {
        let upstream = make_bucket(bucket);
        let content = noise(6, 40_000_000);
        let closed = Arc::new(AtomicBool::new(true));
        let first = Faulty::to(upstream, closing(bucket, &closed));
        let bench = behind(&first, bucket).await;
        bench.upload("object", &content).await.unwrap_err();

        let second = Faulty::to(upstream, |_| None);
        let other = Bench {
            place: behind(&second, bucket).await.place,
            folder: bench.folder,
        };
        other.upload("object", &content).await.unwrap();
        assert_eq!(parts_sent(&second, bucket), 5, "{:?}", second.seen());
    }
}

/// Puts into the journal an upload that the server does not know.
fn forge_session(bench: &Bench, upstream: &str, bucket: &str) {
    let folder = bench.folder.path().join("journals");
    let journal = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|kind| kind == "json"))
        .unwrap();
    let text = std::fs::read_to_string(&journal).unwrap();
    let (state, notes) = text.split_once('\n').unwrap();
    let mut state: serde_json::Value = serde_json::from_str(state).unwrap();
    if bucket.starts_with("gcs") {
        let url = format!("{upstream}/upload/storage/v1/b/{bucket}/o?upload_id=unknown");
        state["gcs_session"] = url.into();
    } else {
        state["s3_upload"] = "00".repeat(32).into();
    }
    std::fs::write(&journal, format!("{state}\n{notes}")).unwrap();
}
