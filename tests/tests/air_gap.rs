//! A user carries models to a machine without a network: a bundle in parts, an import that is killed
//! in the middle, signatures that are checked at the other end.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use mlwm_tests::counting_proxy::Direction;
use mlwm_tests::places::{Place, size};
use mlwm_tests::site::{Site, noise_artifact, sha256};

/// A registry with a signed, large model and a small one; the folder holds the key.
fn published() -> (Place, Site, [String; 2]) {
    let place = Place::directory();
    let mut site = place.site();
    site.env("MLWM_SIGNING_PASSWORD", "password");
    site.mlwm(&["artifact", "key", "new", "models"])
        .expect(0, &[]);
    let (large, small) = (
        noise_artifact("large", 40 << 20, 4),
        noise_artifact("small", 100_000, 5),
    );
    for (path, more) in [(&large, &["--sign", "models.key"][..]), (&small, &[])] {
        let push = ["artifact", "push", path.to_str().unwrap(), &place.uri];
        site.mlwm(&[&push[..], more].concat()).expect(0, &[]);
    }
    (place, site, [sha256(&large), sha256(&small)])
}

fn bundle(place: &Place, site: &Site, more: &[&str]) {
    let (large, small) = (place.reference("large"), place.reference("small"));
    let bundle = [
        "artifact",
        "bundle",
        &large,
        &small,
        "--output",
        "models.tar",
    ];
    site.mlwm(&[&bundle[..], more].concat()).expect(0, &[]);
}

#[test]
fn parts_come_together_and_signatures_hold() {
    let (place, site, digests) = published();
    bundle(&place, &site, &["--part-size", "9MB"]);
    let parts: Vec<String> = site
        .files(".")
        .into_iter()
        .filter(|path| path.starts_with("models.tar."))
        .collect();
    assert!(parts.len() >= 6, "{parts:?}");
    for part in parts.iter().filter(|part| !part.ends_with(".json")) {
        assert!(size(&site.path(part)) <= 9_000_000, "{part}");
    }

    // The other machine: only what was carried there.
    let there = Place::garage();
    let other = there.site();
    for part in &parts {
        fs::copy(site.path(part), other.path(part)).unwrap();
    }
    fs::copy(site.path("models.pub"), other.path("models.pub")).unwrap();
    other
        .mlwm(&["artifact", "import", "models.tar", &there.uri])
        .expect(0, &["large", "small"]);
    let large = there.reference("large");
    other
        .mlwm(&["artifact", "verify", &large, "--key", "models.pub"])
        .expect(0, &[&digests[0], "signature"]);
    for (name, digest) in ["large", "small"].iter().zip(&digests) {
        let pull = [
            "artifact",
            "pull",
            &there.reference(name),
            "--output",
            "got.zip",
        ];
        other.mlwm(&pull).expect(0, &[digest]);
        assert_eq!(sha256(&other.path("got.zip")), *digest);
        fs::remove_file(other.path("got.zip")).unwrap();
    }

    // Again: all of it is there.
    there.proxy.as_ref().unwrap().reset();
    other
        .mlwm(&["artifact", "import", "models.tar", &there.uri])
        .expect(0, &[]);
    let sent = there.proxy.as_ref().unwrap().counts().sent;
    assert!(sent < 64 << 10, "{sent} bytes were sent again");
}

#[test]
fn the_same_models_make_the_same_bundle() {
    let (place, site, _) = published();
    bundle(&place, &site, &[]);
    let first = sha256(&site.path("models.tar"));
    fs::remove_file(site.path("models.tar")).unwrap();
    bundle(&place, &site, &[]);
    assert_eq!(sha256(&site.path("models.tar")), first);
}

#[test]
fn an_import_that_is_killed_goes_on() {
    let (place, site, digests) = published();
    bundle(&place, &site, &[]);
    let there = Place::garage();
    let other = there.site();
    fs::copy(site.path("models.tar"), other.path("models.tar")).unwrap();
    let proxy = there.proxy.as_ref().unwrap();
    let import = ["artifact", "import", "models.tar", &there.uri];
    proxy.hold_after(Direction::Sent, 30 << 20);
    let mut child = other
        .command(&import)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert!(proxy.wait_until_held(Duration::from_secs(60)));
    child.kill().unwrap();
    child.wait().unwrap();
    let acknowledged = proxy.counts().acknowledged;
    assert!(acknowledged >= 8 << 20, "{acknowledged}");
    proxy.reset();
    other.mlwm(&import).expect(0, &[]);
    let sent = proxy.counts().sent;
    let all = size(&site.path("models.tar"));
    assert!(
        sent <= all - acknowledged + (8 << 20) + (256 << 10),
        "{acknowledged} were acknowledged, then {sent} of {all} were sent"
    );
    for (name, digest) in ["large", "small"].iter().zip(&digests) {
        other
            .mlwm(&["artifact", "verify", &there.reference(name)])
            .expect(0, &[digest]);
    }
}

#[test]
fn a_part_that_is_missing_or_damaged_is_named() {
    let (place, site, _) = published();
    bundle(&place, &site, &["--part-size", "9MB"]);
    let there = site.path("there");
    let import = ["artifact", "import", "models.tar", there.to_str().unwrap()];
    let second = site.path("models.tar.002");
    let good = fs::read(&second).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&second, bad).unwrap();
    let ran = site.mlwm(&import);
    assert_ne!(ran.code, 0);
    fs::remove_file(&second).unwrap();
    let ran = site.mlwm(&import);
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("models.tar.002"), "{}", ran.stderr);
    fs::write(&second, good).unwrap();
    site.mlwm(&import).expect(0, &["large", "small"]);
}
