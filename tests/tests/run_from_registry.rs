//! A user's configuration names an artifact in a registry: it is fetched once, into the cache, and
//! checked before anything is made of it.

use std::fs;

use mlwm_tests::places::Place;
use mlwm_tests::site::{Site, copy, example, example_artifact, example_configuration, sha256};

/// The example, with its artifact in a registry instead of the working folder.
fn site(place: &Place) -> (Site, String) {
    let site = place.site();
    copy(
        &example("source/single_levels.zarr"),
        &site.path("store/single_levels.zarr"),
    );
    let push = [
        "artifact",
        "push",
        example_artifact().to_str().unwrap(),
        &place.uri,
    ];
    site.mlwm(&push).expect(0, &[]);
    (site, sha256(example_artifact()))
}

fn configure(site: &Site, artifact: &str) {
    let yaml =
        example_configuration().replace("artifact: danra.zip", &format!("artifact: {artifact}"));
    assert!(yaml.contains(artifact));
    site.configure("danra", &yaml);
}

fn forecast_from(place: &Place) {
    let (site, digest) = site(place);
    configure(&site, &format!("{}@{digest}", place.reference("danra")));

    // Nothing is fetched by a check, which says what is pinned.
    if let Some(proxy) = &place.proxy {
        proxy.reset();
    }
    site.mlwm(&["check"]).expect(0, &["danra", &digest]);
    assert_eq!(place.requests(), 0);
    let listed = site
        .mlwm(&["cache", "list", "--json"])
        .expect(0, &[])
        .json();
    assert_eq!(listed.as_array().map(Vec::len), Some(0));

    site.run("danra", &["--dry-run"]).expect(0, &[&digest]);
    let listed = site
        .mlwm(&["cache", "list", "--json"])
        .expect(0, &[])
        .json();
    assert_eq!(listed[0]["digest"], digest);
    site.mlwm(&["image", "build", "danra"])
        .expect(0, &["sha256:"]);

    // Once fetched, the registry is not asked again.
    if let Some(proxy) = &place.proxy {
        proxy.reset();
    }
    site.run("danra", &[]).expect(0, &["published"]);
    assert_eq!(place.requests(), 0);
    site.mlwm(&["check"]).expect(0, &["danra"]);
    let manifests: Vec<String> = site
        .files("published")
        .into_iter()
        .filter(|path| path.ends_with(".manifest.json"))
        .collect();
    let manifest = fs::read_to_string(site.path("published").join(&manifests[0])).unwrap();
    assert!(manifest.contains(&digest), "{manifest}");

    site.mlwm(&["cache", "prune", "--all"]).expect(0, &[]);
    let listed = site
        .mlwm(&["cache", "list", "--json"])
        .expect(0, &[])
        .json();
    assert_eq!(listed.as_array().map(Vec::len), Some(0));
}

#[test]
fn from_a_directory() {
    forecast_from(&Place::directory());
}

#[test]
fn from_garage() {
    forecast_from(&Place::garage());
}

#[test]
fn a_reference_that_is_not_pinned_says_how_to_pin() {
    let place = Place::directory();
    let (site, digest) = site(&place);
    configure(&site, &place.reference("danra"));
    for ran in [site.mlwm(&["check"]), site.run("danra", &["--dry-run"])] {
        ran.expect(10, &["line 2", "@sha256:", "mlwm artifact list"]);
    }
    // A pin that nothing fulfils.
    let wrong = format!("sha256:{}", "0".repeat(64));
    configure(&site, &format!("{}@{wrong}", place.reference("danra")));
    let ran = site.run("danra", &[]);
    assert!([11, 13].contains(&ran.code), "{}", ran.stderr);
    assert!(ran.stderr.contains("danra"), "{}", ran.stderr);
    site.expect_nothing_left();
    // And the right one, through the registry of the environment.
    configure(&site, &format!("danra@{digest}"));
    site.run("danra", &["--dry-run"])
        .expect(2, &["MLWM_REGISTRY"]);
    let mut site = site;
    site.env("MLWM_REGISTRY", &place.uri);
    site.run("danra", &["--dry-run"]).expect(0, &[&digest]);
}
