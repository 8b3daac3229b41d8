//! Signatures that are required.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlwm_registries::signature::{PublicKey, SecretKey, Signature, generate, sign};
use mlwm_registries::{Cache, Error, Policy, PushRequest, TagMove};
use mlwm_spec::Digest;
use mlwm_storage::Progress;

use crate::common::{NAME, Place, push_of, zip};

/// A key pair without a password.
pub(crate) fn key(place: &Place, name: &str) -> (SecretKey, PublicKey) {
    let file = |ending: &str| place.scratch().join(format!("{name}.{ending}"));
    let (secret, public) = (file("key"), file("pub"));
    generate(&secret, &public, None).unwrap();
    let secret = SecretKey::read(&secret, || panic!("it has no password")).unwrap();
    (secret, PublicKey::read(&public).unwrap())
}

pub(crate) fn signed(variant: u32, key: &SecretKey) -> String {
    let digest = Digest::of(fs::read(zip(variant)).unwrap());
    let content = File::open(zip(variant)).unwrap();
    sign(content, NAME, digest, key).unwrap().to_text()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_signed_as_the_registry_requires_goes_in() {
    for place in Place::all("trust") {
        let registry = place.open().await;
        let (ours, public) = key(&place, "ours");
        let (theirs, _) = key(&place, "theirs");
        match registry.policy().await {
            Ok(policy) => assert_eq!(policy, Policy::default()),
            // It is made by what is first written into it.
            Err(error) => assert!(matches!(error, Error::NoFolder { .. }), "{error}"),
        }
        let policy = Policy {
            require_signature_by: vec![public.to_base64()],
            ..Policy::default()
        };
        registry.set_policy(&policy).await.unwrap();
        assert_eq!(registry.policy().await.unwrap(), policy);

        let unsigned = push_of(zip(1), "latest");
        let push = |signatures: Vec<String>| PushRequest {
            signatures,
            ..unsigned.clone()
        };
        for (signatures, what) in [
            (vec![], "unsigned"),
            (vec![signed(1, &theirs)], "by another key"),
            (vec![signed(2, &ours)], "of other content"),
        ] {
            let error = registry.push(push(signatures)).await.unwrap_err();
            assert!(
                matches!(error, Error::Unsigned { .. } | Error::Signature { .. }),
                "{what}: {error}"
            );
            assert!(registry.list(None).await.unwrap().is_empty(), "{what}");
        }
        // A signature is another one each time.
        let wanted = signed(1, &ours);
        let both = vec![signed(1, &theirs), wanted.clone()];
        let publication = registry.push(push(both)).await.unwrap().publication;
        let kept = registry.signatures(&publication).await.unwrap();
        assert_eq!(kept.len(), 2, "{}", place.uri);
        let to = place.scratch().join("pulled.zip");
        let pulled = registry.pull(&publication, &to).await.unwrap();
        assert_eq!(
            pulled.signatures[0],
            place.scratch().join("pulled.zip.minisig")
        );
        assert_eq!(pulled.signatures.len(), 2);
        let texts: Vec<String> = pulled
            .signatures
            .iter()
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        assert!(texts.contains(&wanted));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_refuses_what_this_user_does_not_trust() {
    for mut place in Place::all("untrusted") {
        let (ours, public) = key(&place, "ours");
        let open = place.open().await;
        let publication = open
            .push(push_of(zip(1), "latest"))
            .await
            .unwrap()
            .publication;
        place.options.trusted_keys = vec![public];
        let fetched = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&fetched);
        place.options.progress = Progress::new(move |_| seen.store(true, Ordering::SeqCst));
        let registry = place.open().await;
        let to = place.scratch().join("pulled.zip");
        let error = registry.pull(&publication, &to).await.unwrap_err();
        assert!(matches!(error, Error::Unsigned { .. }), "{error}");
        assert!(!to.exists());
        // It is told before anything is fetched.
        assert!(!fetched.load(Ordering::SeqCst), "{}", place.uri);
        open.add_signature(&publication, &signed(1, &ours))
            .await
            .unwrap();
        registry.pull(&publication, &to).await.unwrap();
        assert!(to.exists());
    }
}

/// The signature with one character changed in what the key signed.
fn broken(signature: &str) -> String {
    let mut lines: Vec<String> = signature.lines().map(str::to_owned).collect();
    let other = if lines[1].as_bytes()[60] == b'A' {
        "B"
    } else {
        "A"
    };
    lines[1].replace_range(60..61, other);
    lines.join("\n") + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_signature_neither_replaces_a_good_one_nor_stands_in_its_way() {
    for place in Place::all("wrong") {
        let registry = place.open().await;
        let (ours, public) = key(&place, "ours");
        let (theirs, their_public) = key(&place, "theirs");
        let (unknown, _) = key(&place, "unknown");
        let policy = Policy {
            require_signature_by: vec![public.to_base64(), their_public.to_base64()],
            ..Policy::default()
        };
        registry.set_policy(&policy).await.unwrap();
        let good = [signed(1, &ours), signed(1, &theirs)];
        let request = |signatures: &[String]| PushRequest {
            signatures: signatures.to_vec(),
            ..push_of(zip(1), "latest")
        };
        let publication = registry.push(request(&good)).await.unwrap().publication;
        for wrong in [broken(&good[0]), signed(2, &ours), signed(2, &unknown)] {
            let both = [wrong.clone(), signed(1, &theirs)];
            let again = registry.push(request(&both)).await.unwrap_err();
            assert!(matches!(again, Error::Signature { .. }), "{again}");
            let other_tag = PushRequest {
                tag: "v2".parse().unwrap(),
                ..request(&both)
            };
            let new = registry.push(other_tag).await.unwrap_err();
            assert!(matches!(new, Error::Signature { .. }), "{new}");
            let added = registry.add_signature(&publication, &wrong).await;
            let added = added.unwrap_err();
            assert!(matches!(added, Error::Signature { .. }), "{added}");
        }
        let mut kept: Vec<String> = registry
            .signatures(&publication)
            .await
            .unwrap()
            .into_iter()
            .map(|signature| signature.text)
            .collect();
        kept.sort();
        let mut expected = good.to_vec();
        expected.sort();
        assert_eq!(kept, expected, "{}", place.uri);
        // A signature of what is published is as good as before.
        registry
            .add_signature(&publication, &signed(1, &unknown))
            .await
            .unwrap();
    }

    // What was damaged in the registry is no obstacle as long as another one holds.
    let place = Place::directory();
    let registry = place.open().await;
    let keys = ["ours", "theirs"].map(|name| key(&place, name));
    let policy = Policy {
        require_signature_by: keys.iter().map(|(_, public)| public.to_base64()).collect(),
        ..Policy::default()
    };
    registry.set_policy(&policy).await.unwrap();
    let good = keys.each_ref().map(|(secret, _)| signed(1, secret));
    let pushed = registry.push(PushRequest {
        signatures: good.to_vec(),
        ..push_of(zip(1), "latest")
    });
    let publication = pushed.await.unwrap().publication;
    let folder = format!("{}/signatures/{}", place.uri, publication.digest.hex());
    for (number, (_, public)) in keys.iter().enumerate() {
        let stored = format!("{folder}/{}.minisig", public.key_id());
        fs::write(stored, broken(&good[number])).unwrap();
        let to = place.scratch().join(format!("{number}.zip"));
        match registry.pull(&publication, &to).await {
            Ok(_) => assert_eq!(number, 0),
            Err(error) => {
                assert_eq!(number, 1, "{error}");
                assert!(matches!(error, Error::Signature { .. }), "{error}");
                assert!(!to.exists());
            }
        }
    }
}

/// What was published before a policy was set goes out as little as something unsigned comes in.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_holds_for_what_was_there_before() {
    for place in Place::all("before") {
        let registry = place.open().await;
        let (ours, public) = key(&place, "ours");
        let (theirs, _) = key(&place, "aaa-theirs");
        let unsigned = push_of(zip(1), "latest");
        let pushed = registry.push(unsigned.clone()).await.unwrap();
        let publication = pushed.publication;
        registry.check_trust(&publication).await.unwrap();
        let policy = Policy {
            require_signature_by: vec![public.to_base64()],
            ..Policy::default()
        };
        registry.set_policy(&policy).await.unwrap();
        registry
            .add_signature(&publication, &signed(1, &theirs))
            .await
            .unwrap();
        let (v2, uri) = ("v2".parse().unwrap(), &place.uri);
        let to = place.scratch().join("pulled.zip");
        let wanted = registry.pull(&publication, &to).await.unwrap_err();
        let tagged = registry.tag(&publication, &v2, TagMove::Never).await;
        for refused in [
            registry.check_trust(&publication).await.unwrap_err(),
            tagged.unwrap_err(),
            registry.push(unsigned.clone()).await.unwrap_err(),
        ] {
            assert!(matches!(refused, Error::Unsigned { .. }), "{refused}");
            assert_eq!(refused.to_string(), wanted.to_string(), "{uri}");
        }
        let transfers = fs::read_dir(place.options.transfers.as_ref().unwrap()).unwrap();
        assert_eq!(transfers.count(), 0, "{uri}");
        let cache = Cache::at(place.scratch().join("cache"));
        let fetched = cache.fetch(&registry, &publication).await;
        assert!(matches!(fetched, Err(Error::Unsigned { .. })));

        let again = PushRequest {
            signatures: vec![signed(1, &ours)],
            ..unsigned.clone()
        };
        assert!(!registry.push(again).await.unwrap().new);
        // What is there vouches for it.
        assert!(!registry.push(unsigned).await.unwrap().new);
        registry.check_trust(&publication).await.unwrap();
        registry
            .tag(&publication, &v2, TagMove::Never)
            .await
            .unwrap();
        cache.fetch(&registry, &publication).await.unwrap();

        // Where one key is asked for, its signature is the one that other programs look for.
        let pulled = registry.pull(&publication, &to).await.unwrap();
        let text = |number: usize| fs::read_to_string(&pulled.signatures[number]).unwrap();
        let by = |key: &PublicKey, text: &str| {
            let signature = Signature::parse(text).unwrap();
            signature.key_id() == key.key_id()
        };
        assert!(pulled.signatures[0].ends_with("pulled.zip.minisig"));
        assert!(by(&public, &text(0)) && !by(&public, &text(1)), "{uri}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_signature_is_the_one_that_other_programs_look_for() {
    for place in [Place::directory(), Place::moto("oldest")] {
        let registry = place.open().await;
        let mut keys = ["one", "two"].map(|name| key(&place, name));
        // Not in the order of their ids.
        keys.sort_by_key(|(_, public)| std::cmp::Reverse(public.key_id().to_string()));
        let pushed = registry.push(push_of(zip(1), "latest")).await.unwrap();
        for (secret, _) in &keys {
            let text = signed(1, secret);
            registry
                .add_signature(&pushed.publication, &text)
                .await
                .unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        }
        let to = place.scratch().join("pulled.zip");
        let pulled = registry.pull(&pushed.publication, &to).await.unwrap();
        let first = fs::read_to_string(&pulled.signatures[0]).unwrap();
        let first = Signature::parse(&first).unwrap();
        assert_eq!(first.key_id(), keys[0].1.key_id(), "{}", place.uri);
    }
}
