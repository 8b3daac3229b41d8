//! A user signs a model, and someone else checks the signature: with mlwm, and offline with the
//! `minisign` of Debian alone.

use std::fs;
use std::process::{Command, Stdio};

use mlwm_tests::places::Place;
use mlwm_tests::site::{Ran, Site, example_artifact, noise_artifact, ran};

const PASSWORD: &str = "correct horse battery staple";

fn site_with_key(place: &Place) -> Site {
    let mut site = place.site();
    site.env("MLWM_SIGNING_PASSWORD", PASSWORD);
    fs::copy(example_artifact(), site.path("danra.zip")).unwrap();
    site.mlwm(&["artifact", "key", "new", "models"])
        .expect(0, &["models.key", "models.pub"]);
    site
}

fn minisign(site: &Site, arguments: &[&str]) -> Ran {
    let output = Command::new("minisign")
        .current_dir(site.path("."))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("minisign is there: run `ci/setup --tests`");
    ran(&output)
}

#[test]
fn minisign_checks_what_mlwm_signed() {
    let site = site_with_key(&Place::directory());
    site.mlwm(&["artifact", "sign", "danra.zip", "--key", "models.key"])
        .expect(0, &["danra.zip.minisig"]);
    let digest = mlwm_tests::site::sha256(&site.path("danra.zip"));
    minisign(&site, &["-Vm", "danra.zip", "-p", "models.pub"]).expect(
        0,
        &["Signature and comment signature verified", "danra", &digest],
    );

    let verify = ["artifact", "verify", "danra.zip", "--key"];
    site.mlwm(&[&verify[..], &["models.pub"]].concat())
        .expect(0, &["signature"]);
    // The key itself is as good as its file.
    let text = fs::read_to_string(site.path("models.pub")).unwrap();
    let key = text.lines().nth(1).unwrap();
    site.mlwm(&[&verify[..], &[key]].concat()).expect(0, &[]);

    // A key is no one else's.
    site.mlwm(&["artifact", "key", "new", "others"])
        .expect(0, &[]);
    site.mlwm(&[&verify[..], &["others.pub"]].concat())
        .expect(13, &["danra"]);
    // An existing key is never overwritten.
    site.mlwm(&["artifact", "key", "new", "models"])
        .expect(31, &["models.key"]);
    assert_eq!(fs::read_to_string(site.path("models.pub")).unwrap(), text);
}

#[test]
fn mlwm_checks_what_minisign_signed() {
    let site = site_with_key(&Place::directory());
    minisign(&site, &["-G", "-W", "-p", "theirs.pub", "-s", "theirs.key"]).expect(0, &[]);
    minisign(&site, &["-S", "-s", "theirs.key", "-m", "danra.zip"]).expect(0, &[]);
    let verify = ["artifact", "verify", "danra.zip", "--key", "theirs.pub"];
    site.mlwm(&verify).expect(0, &["signature"]);
    // One bit of the signature.
    let path = site.path("danra.zip.minisig");
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let middle = lines[1].len() / 2;
    let flipped = if lines[1].as_bytes()[middle] == b'A' {
        "B"
    } else {
        "A"
    };
    lines[1].replace_range(middle..=middle, flipped);
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    site.mlwm(&verify).expect(13, &["signature"]);
}

#[test]
fn the_secret_key_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mut site = site_with_key(&Place::directory());
    let mode = fs::metadata(site.path("models.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    site.env("MLWM_SIGNING_PASSWORD", "wrong");
    let ran = site.mlwm(&["artifact", "sign", "danra.zip", "--key", "models.key"]);
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("password"), "{}", ran.stderr);
    assert!(!ran.stderr.contains(PASSWORD), "{}", ran.stderr);
    assert!(!site.path("danra.zip.minisig").exists());
}

fn signatures_travel_with_the_artifact(place: &Place) {
    let site = site_with_key(place);
    let reference = place.reference("danra");
    let verify = ["artifact", "verify", &reference, "--key", "models.pub"];
    site.mlwm(&["artifact", "push", "danra.zip", &place.uri])
        .expect(0, &[]);
    site.mlwm(&verify).expect(13, &["danra"]);
    site.mlwm(&["artifact", "sign", &reference, "--key", "models.key"])
        .expect(0, &["danra"]);
    site.mlwm(&verify).expect(0, &["signature"]);
    let listed = site.mlwm(&["artifact", "list", &place.uri]);
    listed.expect(0, &["danra"]);

    // From now on nothing unsigned comes in.
    site.mlwm(&[
        "artifact",
        "policy",
        &place.uri,
        "--require-signature-by",
        "models.pub",
    ])
    .expect(0, &[]);
    let other = noise_artifact("other", 100_000, 1);
    let push = ["artifact", "push", other.to_str().unwrap(), &place.uri];
    let refused = site.mlwm(&push);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("sign"), "{}", refused.stderr);
    site.mlwm(&[&push[..], &["--sign", "models.key"]].concat())
        .expect(0, &["other@sha256:"]);
    site.mlwm(&[
        "artifact",
        "verify",
        &place.reference("other"),
        "--key",
        "models.pub",
    ])
    .expect(0, &["signature"]);
}

#[test]
fn in_a_directory() {
    signatures_travel_with_the_artifact(&Place::directory());
}

#[test]
fn in_garage() {
    signatures_travel_with_the_artifact(&Place::garage());
}

/// What a user trusts is asked for wherever something is fetched, whatever the registry requires.
#[test]
fn the_keys_of_the_user_are_obeyed_everywhere() {
    let place = Place::directory();
    let mut site = site_with_key(&place);
    site.mlwm(&["artifact", "key", "new", "others"])
        .expect(0, &[]);
    let (reference, digest) = (
        place.reference("danra"),
        mlwm_tests::site::sha256(&site.path("danra.zip")),
    );
    let with = |arguments: &[&'static str], key: &'static str| {
        let trusting = ["--key", key];
        [arguments, &trusting].concat()
    };
    site.mlwm(&["artifact", "push", "danra.zip", &place.uri])
        .expect(0, &[]);
    site.mlwm(&[
        "artifact",
        "bundle",
        "danra.zip",
        "--output",
        "unsigned.tar",
    ])
    .expect(0, &[]);
    let import = ["artifact", "import", "unsigned.tar", "elsewhere"];
    site.mlwm(&with(&import, "models.pub"))
        .expect(13, &["no valid signature"]);
    let pull = [
        "artifact", "pull", &reference, "--output", "got.zip", "--key",
    ];
    site.mlwm(&[&pull[..], &["models.pub"]].concat())
        .expect(13, &["danra", "no valid signature"]);
    assert!(!site.path("got.zip").exists());

    site.configure(
        "danra",
        &format!(
            "docker_image: localhost/none:latest\nartifact: {reference}@{digest}\nforecast_duration: PT18H\n\
             inputs:\n  surface:\n    uri: ./store/single_levels.zarr\n    internal_path: /volume/inputs/single_levels.zarr\n    \
             datastore_inputs: [danra.danra_surface, danra.danra_forcing, danra.danra_static]\n\
             outputs:\n  surface:\n    uri: ./published/surface.zarr\n    internal_path: /volume/outputs/surface.zarr\n"
        ),
    );
    // In the cache it is without a signature that anybody asked for.
    site.run("danra", &["--dry-run"]).expect(0, &[&digest]);
    let trusted = format!(
        "{}:{}",
        site.path("others.pub").display(),
        site.path("models.pub").display()
    );
    site.env("MLWM_TRUSTED_KEYS", &trusted);
    let pull = &pull[..pull.len() - 1];
    site.mlwm(pull).expect(13, &["no valid signature"]);
    let refused = site.run("danra", &["--dry-run"]);
    refused.expect(13, &["danra", "no valid signature"]);

    site.mlwm(&["artifact", "sign", &reference, "--key", "models.key"])
        .expect(0, &[]);
    site.run("danra", &["--dry-run"]).expect(0, &[&digest]);
    site.mlwm(pull).expect(0, &[&digest]);
    // The command line says which, not which more.
    site.mlwm(&[pull, &["--key", "others.pub"]].concat())
        .expect(13, &["no valid signature"]);

    // What was damaged in the cache is fetched again.
    let hex = &digest["sha256:".len()..];
    let cached = site.path(&format!("cache/mlwm/artifacts/sha256/{hex}.zip"));
    let good = fs::read(&cached).unwrap();
    fs::write(&cached, &good[..good.len() / 2]).unwrap();
    site.run("danra", &["--dry-run"]).expect(0, &[&digest]);
    assert!(fs::read(&cached).unwrap() == good);
    site.env("MLWM_TRUSTED_KEYS", "");
    let mut changed = good.clone();
    changed[good.len() / 2] ^= 1;
    fs::write(&cached, changed).unwrap();
    site.mlwm(&["check"])
        .expect(13, &["damaged", "mlwm cache remove sha256:"]);
    site.run("danra", &["--dry-run"]).expect(0, &[&digest]);
    assert!(fs::read(&cached).unwrap() == good);
    site.mlwm(&["cache", "remove", &digest])
        .expect(0, &["removed"]);
    site.mlwm(&["cache", "remove", "danra"])
        .expect(11, &["the cache has no danra"]);
    site.env("MLWM_TRUSTED_KEYS", "absent.pub");
    site.mlwm(pull)
        .expect(11, &["MLWM_TRUSTED_KEYS", "absent.pub"]);
    site.env("MLWM_TRUSTED_KEYS", "");

    // A signature of what the zip was before does not go with it.
    let other = noise_artifact("other", 100_000, 1);
    fs::copy(&other, site.path("other.zip")).unwrap();
    site.mlwm(&["artifact", "sign", "danra.zip", "--key", "models.key"])
        .expect(0, &[]);
    fs::rename(
        site.path("danra.zip.minisig"),
        site.path("other.zip.minisig"),
    )
    .unwrap();
    let push = ["artifact", "push", "other.zip", &place.uri];
    site.mlwm(&push)
        .expect(13, &["says that it is of", &digest]);
    site.mlwm(&[&push[..], &["--sign", "models.key"]].concat())
        .expect(0, &["published"]);
    // Neither is another zip bundled than the one that is pinned.
    let pinned = format!("other.zip@{digest}");
    fs::remove_file(site.path("other.zip.minisig")).unwrap();
    let bundle = ["artifact", "bundle", &pinned, "--output", "other.tar"];
    site.mlwm(&bundle)
        .expect(13, &["other.zip", "pins", &digest]);
    let bundle = ["artifact", "bundle", "other.zip", "--tag", "v7"];
    site.mlwm(&[&bundle[..], &["--output", "other.tar"]].concat())
        .expect(0, &[]);
    site.mlwm(&["artifact", "import", "other.tar", "elsewhere"])
        .expect(0, &["other:v7@sha256:"]);
}

/// What was published before signatures were asked for goes nowhere without one.
#[test]
fn a_registry_that_requires_signatures_gives_and_takes_nothing_without() {
    let place = Place::directory();
    let mut site = site_with_key(&place);
    let reference = place.reference("danra");
    let push = ["artifact", "push", "danra.zip", &place.uri];
    site.mlwm(&push).expect(0, &["published"]);
    site.mlwm(&["artifact", "pull", &reference, "--output", "was.zip"])
        .expect(0, &[]);
    let commands: [&[&str]; 6] = [
        &["artifact", "pull", &reference, "--output", "pulled.zip"],
        &[
            "artifact",
            "extract",
            &reference,
            "files",
            "--only",
            "configs/*",
        ],
        &["artifact", "bundle", &reference, "--output", "models.tar"],
        &["artifact", "tag", &reference, "stable"],
        &["artifact", "verify", &reference],
        &push,
    ];
    let refused = |site: &Site| {
        for command in commands {
            site.mlwm(command)
                .expect(13, &["danra has no valid signature by a key that"]);
        }
        for absent in [
            "pulled.zip",
            "files",
            "models.tar",
            "cache/mlwm/transfers/x",
        ] {
            assert!(!site.path(absent).exists(), "{absent}");
        }
        assert_eq!(site.files("cache/mlwm/transfers"), Vec::<String>::new());
        // To look at it is allowed.
        site.mlwm(&["artifact", "inspect", &reference])
            .expect(0, &[]);
        site.mlwm(&["artifact", "diff", &reference, "was.zip"])
            .expect(0, &[]);
    };
    site.env(
        "MLWM_TRUSTED_KEYS",
        &site.path("models.pub").display().to_string(),
    );
    refused(&site);
    site.env("MLWM_TRUSTED_KEYS", "");
    let policy = ["artifact", "policy", &place.uri, "--require-signature-by"];
    site.mlwm(&[&policy[..], &["models.pub"]].concat())
        .expect(0, &[]);
    refused(&site);

    // Somebody else's signature is there before the one that is asked for.
    site.mlwm(&["artifact", "key", "new", "others"])
        .expect(0, &[]);
    for key in ["others.key", "models.key"] {
        site.mlwm(&["artifact", "sign", &reference, "--key", key])
            .expect(0, &[]);
    }
    for command in commands {
        site.mlwm(command).expect(0, &[]);
    }
    minisign(&site, &["-Vm", "pulled.zip", "-p", "models.pub"]).expect(0, &["verified"]);
    site.mlwm(&["artifact", "verify", &reference, "--key", "others.pub"])
        .expect(0, &["signature by key"]);

    // The digest of a bundle is told whether it was written or was there.
    let bundle = ["artifact", "bundle", &reference, "--output", "models.tar"];
    let again = site.mlwm(&[&bundle[..], &["--json"]].concat()).json();
    assert_eq!(again["unchanged"], true);
    let digest = mlwm_tests::site::sha256(&site.path("models.tar"));
    assert_eq!(again["digest"], digest);
}

#[test]
fn slips_are_told_before_anything_is_done() {
    let place = Place::directory();
    let site = site_with_key(&place);
    let prune = |more: &[&str]| site.mlwm(&[&["cache", "prune"], more].concat());
    prune(&["--keep", "50"]).expect(2, &["write its unit", "50GB"]);
    prune(&["--keep", "0"]).expect(0, &[]);
    prune(&["--keep", "50MB"]).expect(0, &[]);
    prune(&["--json"]).expect(2, &["--unused-for", "--keep", "--all"]);
    prune(&["--json", "--all"]).expect(0, &["freed_bytes"]);

    // Nothing was sent, so nothing is said to have been.
    let push = ["artifact", "push", "danra.zip", &place.uri];
    site.mlwm(&push).expect(0, &["uploading", "/s"]);
    let again = site.mlwm(&push).expect(0, &["already published"]);
    assert!(!again.stderr.contains("uploading"), "{}", again.stderr);

    // What only looks needs no place of its own; what transfers says how to get one.
    let homeless = |arguments: &[&str], home: Option<&str>| {
        let mut command = site.command(arguments);
        command.env_remove("XDG_CACHE_HOME").env_remove("HOME");
        command.envs(home.map(|home| ("HOME", home)));
        ran(&command.output().unwrap())
    };
    let reference = place.reference("danra");
    homeless(&["artifact", "list", &place.uri], None).expect(0, &["danra"]);
    homeless(&["artifact", "inspect", &reference], None).expect(0, &["danra"]);
    homeless(&push, None).expect(10, &["XDG_CACHE_HOME"]);
    let home = site.path("danra.zip").display().to_string();
    homeless(&push, Some(&home)).expect(30, &["set XDG_CACHE_HOME to a folder you may write to"]);

    let bundle = ["artifact", "bundle", "danra.zip", "--output", "p.tar"];
    site.mlwm(&[&bundle[..], &["--part-size", "100kB"]].concat())
        .expect(0, &["p.tar.001"]);
    fs::remove_file(site.path("p.tar.parts.json")).unwrap();
    for name in ["p.tar", "p.tar.001", "p.tar.parts.json"] {
        site.mlwm(&["artifact", "import", name, "elsewhere"])
            .expect(
                13,
                &["p.tar.001 is there, but its list p.tar.parts.json is missing: copy it too"],
            );
    }
}
