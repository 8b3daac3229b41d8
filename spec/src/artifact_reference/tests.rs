use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn published(text: &str) -> PublishedArtifact {
    match text.parse() {
        Ok(ArtifactReference::Published(published)) => published,
        other => panic!("{text}: {other:?}"),
    }
}

fn fault(text: &str) -> InvalidReference {
    match text.parse::<ArtifactReference>() {
        Err(fault) => fault,
        Ok(found) => panic!("{text}: {found:?}"),
    }
}

#[test]
fn registry_name_tag_and_pin_are_told_apart() {
    for (registry, as_parsed) in [
        ("s3://bucket/models/", "s3://bucket/models"),
        ("s3://bucket/", "s3://bucket"),
        ("gs://bucket/a/b/", "gs://bucket/a/b"),
        ("oci://host:5000/models/", "oci://host:5000/models"),
        ("oci://host:5000/", "oci://host:5000"),
        ("file:///dir/", "file:///dir"),
        ("file:///", "file:///"),
        ("/dir/", "/dir"),
        ("/", "/"),
        ("dir/", "dir"),
        ("../a b@c/", "../a b@c"),
    ] {
        for (tag, pin) in [("", ""), (":v2", ""), ("", HEX), (":v2", HEX)] {
            let at = if pin.is_empty() { "" } else { "@sha256:" };
            let text = format!("{registry}gefion-1{tag}{at}{pin}");
            let found = published(&text);
            assert_eq!(found.registry.as_deref(), Some(as_parsed), "{text}");
            assert_eq!(found.name.as_str(), "gefion-1");
            assert_eq!(found.tag.as_ref().map(Tag::as_str), tag.strip_prefix(':'));
            assert_eq!(
                found.digest.map(|digest| digest.hex()),
                (!pin.is_empty()).then(|| pin.into())
            );
            assert_eq!(found.to_string(), text);
        }
    }
    assert_eq!(published("gefion-1").registry, None);
    assert_eq!(published("gefion-1:latest").tag, Some(Tag::latest()));
}

#[test]
fn a_path_that_ends_in_zip_is_a_file() {
    for (text, path) in [
        ("model.zip", "model.zip"),
        ("/a b/model.zip", "/a b/model.zip"),
        ("file:///a/model.zip", "/a/model.zip"),
        ("./x@y/model:1.zip", "./x@y/model:1.zip"),
    ] {
        for (pin, digest) in [
            (String::new(), None),
            (format!("@sha256:{HEX}"), Some(Digest::of(""))),
        ] {
            let Ok(ArtifactReference::File(file)) = format!("{text}{pin}").parse() else {
                panic!("{text} is a file");
            };
            assert_eq!((file.path.as_str(), file.digest), (path, digest));
        }
    }
}

#[test]
fn what_names_nothing_is_refused_with_the_reason() {
    assert_eq!(fault(""), InvalidReference::Empty);
    for text in ["http://host/a", "S3://b/a", "s3a://b/a"] {
        assert!(matches!(fault(text), InvalidReference::Scheme(_)), "{text}");
    }
    for text in ["s3://bucket", "oci://host:5000", "dir/", "/", "file://host"] {
        let fault = fault(text);
        assert!(
            matches!(
                fault,
                InvalidReference::NoName(_) | InvalidReference::Characters(_)
            ),
            "{text}: {fault:?}"
        );
    }
    for text in [".a", "a b", "ä", "s3://b/m.zip", &"x".repeat(129), ":v1"] {
        let fault = fault(text);
        assert!(
            matches!(fault, InvalidReference::Name(_)),
            "{text}: {fault:?}"
        );
    }
    for text in [
        "a:",
        "a:.v",
        "a:-v",
        "a:b:c",
        &format!("a:{}", "x".repeat(129)),
    ] {
        assert!(matches!(fault(text), InvalidReference::Tag(_)), "{text}");
    }
    for text in [
        "a@",
        "a@sha256:12",
        "a:v@md5:12",
        "m.zip@x",
        &format!("a@sha256:{HEX}@sha256:{HEX}"),
    ] {
        assert!(matches!(fault(text), InvalidReference::Pin(_)), "{text}");
    }
    for text in [
        "s3://me:secret@bucket/a",
        "oci://me:secret@host",
        "s3://me@bucket",
    ] {
        let fault = fault(text);
        assert_eq!(fault, InvalidReference::Credentials, "{text}");
        assert!(!fault.to_string().contains("secret"));
    }
    for text in [
        "s3://b/../a",
        "s3://b//a",
        "s3://b/a%2e/c",
        "s3://b/x?y/a",
        "gs://b/a b/c",
        "s3://b/./a",
    ] {
        assert!(
            matches!(fault(text), InvalidReference::Characters(_)),
            "{text}"
        );
    }
}

fn name() -> impl Strategy<Value = ArtifactName> {
    "[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}".prop_filter_map("ends in .zip", |text| text.parse().ok())
}

fn registry() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        Just(None),
        "(s3|gs)://[a-z][a-z0-9-]{2,10}(/[a-z: =+]{0,3}[a-z]){0,3}"
            .prop_filter("plain", |text| !text.contains(' '))
            .prop_map(Some),
        "oci://[a-z.]{1,10}(:[0-9]{1,5})?(/[a-z]{1,5}){0,3}".prop_map(Some),
        "(file://)?(/[a-z.-]{0,3}[a-z]){1,3}".prop_map(Some),
        "[a-z. @]{0,5}[a-z](/[a-z. :@]{0,5}[a-z]){0,3}".prop_map(Some),
    ]
}

proptest! {
    #[test]
    fn text_round_trip(
        registry in registry(),
        name in name(),
        tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9._-]{0,20}"),
        content in proptest::option::of(any::<u64>()),
    ) {
        let reference = PublishedArtifact {
            registry,
            name,
            // `a:x.zip` would be a file.
            tag: tag.filter(|tag| !tag.ends_with(ZIP)).map(|tag| tag.parse().unwrap()),
            digest: content.map(|content| Digest::of(content.to_le_bytes())),
        };
        let text = reference.to_string();
        prop_assert_eq!(text.parse(), Ok(ArtifactReference::Published(reference)), "{}", text);
    }

    #[test]
    fn any_text_is_refused_or_means_the_same_when_written_again(text in "\\PC{0,40}|[a-z0-9:/.@-]{0,40}") {
        if let Ok(reference) = text.parse::<ArtifactReference>() {
            let written = reference.to_string();
            prop_assert_eq!(written.parse::<ArtifactReference>(), Ok(reference));
        }
    }
}

#[test]
fn a_registry_is_one_that_references_can_name() {
    for good in [
        "models",
        "/",
        "./s3:/models",
        "s3://bucket",
        "s3://bucket/models/",
        "oci://host:5000",
        "oci://host:5000/models",
        "file:///models",
    ] {
        assert_eq!(check_registry(good), Ok(()), "{good}");
    }
    for (bad, said) in [
        ("", "names no artifact"),
        ("s3:/bucket/models", "`s3://bucket/models`"),
        ("s4://bucket", "s3://, gs://, oci://"),
        ("http://host/models", "oci://"),
        ("s3://bucket/sp ace", "white space"),
        ("s3://bucket/models/gefion-1:v5", "leave out `:v5`"),
        ("models/gefion-1@sha256:12", "leave out `@sha256:12`"),
        ("s3://id:secret@bucket/models", "credentials"),
    ] {
        let error = check_registry(bad).unwrap_err().to_string();
        assert!(error.contains(said), "{bad}: {error}");
    }
    let error = "s3:/bucket/gefion-1".parse::<ArtifactReference>();
    let error = error.unwrap_err().to_string();
    assert!(error.contains("`s3://bucket/gefion-1`"), "{error}");
}
