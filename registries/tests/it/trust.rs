//! Signatures that are required.

use std::fs::{self, File};

use mlwm_registries::signature::{PublicKey, SecretKey, generate, sign};
use mlwm_registries::{Error, Policy, PushRequest};
use mlwm_spec::Digest;

use crate::common::{NAME, Place, push_of, zip};

/// A key pair without a password.
fn key(place: &Place, name: &str) -> (SecretKey, PublicKey) {
    let file = |ending: &str| place.scratch().join(format!("{name}.{ending}"));
    let (secret, public) = (file("key"), file("pub"));
    generate(&secret, &public, None).unwrap();
    let secret = SecretKey::read(&secret, || panic!("it has no password")).unwrap();
    (secret, PublicKey::read(&public).unwrap())
}

fn signed(variant: u32, key: &SecretKey) -> String {
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
        let registry = place.open().await;
        let to = place.scratch().join("pulled.zip");
        let error = registry.pull(&publication, &to).await.unwrap_err();
        assert!(matches!(error, Error::Unsigned { .. }), "{error}");
        assert!(!to.exists());
        open.add_signature(&publication, &signed(1, &ours))
            .await
            .unwrap();
        registry.pull(&publication, &to).await.unwrap();
        assert!(to.exists());
    }
}
