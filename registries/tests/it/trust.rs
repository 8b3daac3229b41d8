//! Signatures that are required.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlwm_registries::signature::{PublicKey, SecretKey, generate, sign};
use mlwm_registries::{Error, Policy, PushRequest};
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
        assert_eq!(registry.policy().await.unwrap(), Policy::default());
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
