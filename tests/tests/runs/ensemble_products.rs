//! What is published of the members of an ensemble together: products of their values, and the manifest that
//! names them.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;

use mlwm_tests::scripted::{image, image_moved, no_container_left};
use mlwm_tests::site::{Site, oracle};
use serde_json::Value;

const TIME: &str = "2022-04-07T03:00Z";
const RUN: [&str; 3] = ["run", "--analysis-time", TIME];
const ENSEMBLE: &str = "published/ensemble.zarr";
const COPIES: &str = "cp -r /in/surface/whole/. /out/surface.zarr/";

/// A site with four members, whose forecasts `script` copies, and products of them.
fn site(name: &str, script: &str, more: &str) -> Site {
    let site = Site::new();
    let store = site.path("store");
    oracle(
        "windows.py",
        &["make", store.to_str().unwrap(), "4", "whole"],
    );
    let yaml = format!(
        "docker_image: {}
members: 0-3
forecast_duration: PT60H
time_layout: time
retries: 0
inputs:
  surface: {{uri: './store/member{{member}}', internal_path: /in/surface}}
outputs:
  surface:
    uri: ./published/member{{member}}.zarr
    internal_path: /out/surface.zarr
    variables: [t2m, msl]
    windows: {{length: PT24H}}
ensemble:
  uri: ./{ENSEMBLE}
  products:
    t2m: [mean, spread, p90, above_201500]
    msl: [min, max]
{more}",
        image(name, script)
    );
    site.configure("danra", &yaml);
    site
}

fn manifest(site: &Site) -> Option<Value> {
    let text = fs::read(site.path(&format!("{ENSEMBLE}.manifest.json"))).ok()?;
    Some(serde_json::from_slice(&text).unwrap())
}

/// The products are those of these members.
#[track_caller]
fn is_of(site: &Site, members: &str, list: &str) {
    let store = site.path(ENSEMBLE);
    oracle("windows.py", &["products", store.to_str().unwrap(), list]);
    let manifest = manifest(site).unwrap();
    assert_eq!(manifest["ensemble"]["members"], members, "{manifest}");
    assert_eq!(manifest["ensemble"]["wanted"], "0-3");
    let inputs = manifest["inputs"].as_array().unwrap();
    let names: Vec<String> = list
        .split(',')
        .map(|member| format!("member{member}.surface"))
        .collect();
    let named: Vec<&str> = inputs
        .iter()
        .map(|input| input["name"].as_str().unwrap())
        .collect();
    assert_eq!(named, names);
    site.mlwm(&["verify", ENSEMBLE])
        .expect(0, &["all as published"]);
}

/// Path and content of the ensemble's objects.
fn content(site: &Site) -> BTreeMap<String, Vec<u8>> {
    let files = site.files(ENSEMBLE).into_iter();
    files
        .map(|file| {
            let mut bytes = fs::read(site.path(ENSEMBLE).join(&file)).unwrap();
            if file == "ensemble.json" {
                // It names places, which lie elsewhere for every site.
                bytes = Vec::new();
            }
            (file, bytes)
        })
        .collect()
}

fn nothing_is_left(site: &Site) {
    assert_eq!(site.files("mlwm-work/tasks"), [""; 0]);
    no_container_left(site);
}

#[test]
fn an_ensemble_is_published_when_all_its_members_are_and_is_the_last_object() {
    let site = site("products", COPIES, "");
    site.mlwm(&RUN).expect(0, &["ensemble: published", "all"]);
    is_of(&site, "0-3", "0,1,2,3");
    let written = |file: &str| {
        let found = fs::metadata(site.path("published").join(file)).unwrap();
        found.modified().unwrap()
    };
    let last = written("ensemble.zarr.manifest.json");
    let others = site.files("published").into_iter();
    for file in others.filter(|file| file != "ensemble.zarr.manifest.json") {
        assert!(written(&file) <= last, "{file} came behind the manifest");
    }
    let record: Value =
        serde_json::from_slice(&fs::read(site.path(ENSEMBLE).join("ensemble.json")).unwrap())
            .unwrap();
    let member = fs::read(site.path("published/member2.zarr.manifest.json")).unwrap();
    let member: Value = serde_json::from_slice(&member).unwrap();
    assert_eq!(
        record["members"][2]["outputs"]["surface"]["task"],
        member["task"]
    );
    site.mlwm(&["why", ENSEMBLE])
        .expect(0, &["0-3 of 0-3", "member2.surface"]);
    nothing_is_left(&site);

    let before = written("ensemble.zarr.manifest.json");
    site.mlwm(&RUN).expect(0, &["ensemble: already published"]);
    assert_eq!(written("ensemble.zarr.manifest.json"), before);
}

#[test]
fn without_all_members_there_is_no_ensemble_and_with_a_quorum_there_is() {
    let fails = format!("if [ $MLWM_MEMBER = 1 ]; then exit 3; fi; {COPIES}");
    let strict = site("products-fails", &fails, "");
    strict
        .mlwm(&RUN)
        .expect(23, &["3 members are published and 4 are wanted, 1 missing"]);
    assert!(manifest(&strict).is_none());
    assert_eq!(strict.files(ENSEMBLE), [""; 0]);

    let lenient = site("products-fails", &fails, "  quorum: 3\n");
    // The member failed all the same.
    lenient.mlwm(&RUN).expect(20, &["ensemble: published"]);
    is_of(&lenient, "0,2-3", "0,2,3");
    assert_eq!(manifest(&lenient).unwrap()["ensemble"]["quorum"], 3);
    nothing_is_left(&lenient);
}

#[test]
fn whoever_publishes_the_last_member_publishes_the_ensemble_whatever_their_order() {
    let whole = site("products", COPIES, "");
    whole.mlwm(&RUN).expect(0, &[]);
    let divided = site("products", COPIES, "  quorum: 2\n");
    for members in ["3", "1-2"] {
        let run = [&RUN[..], &["--members", members]].concat();
        divided.mlwm(&run).expect(0, &["published"]);
        // The quorum says nothing of members that may be under way elsewhere.
        assert!(manifest(&divided).is_none());
    }
    let run = [&RUN[..], &["--members", "0"]].concat();
    divided.mlwm(&run).expect(0, &["ensemble: published"]);
    is_of(&divided, "0-3", "0,1,2,3");
    assert!(content(&divided) == content(&whole), "the same bytes");
}

#[test]
fn an_ensemble_of_other_members_is_not_replaced_unless_asked_for() {
    // Member 1 fails as long as there is no such file in its input.
    let fails = format!("if [ -e /in/surface/whole/fails ]; then exit 3; fi; {COPIES}");
    let site = site("products-mended", &fails, "  quorum: 3\n");
    let fault = site.path("store/member1/whole/fails");
    fs::write(&fault, "").unwrap();
    site.mlwm(&RUN).expect(20, &["ensemble: published"]);
    fs::remove_file(fault).unwrap();
    site.mlwm(&RUN)
        .expect(31, &["made of members 0,2-3", "--republish"]);
    is_of(&site, "0,2-3", "0,2,3");
    let run = [&RUN[..], &["--republish"]].concat();
    site.mlwm(&run).expect(0, &["ensemble: published"]);
    is_of(&site, "0-3", "0,1,2,3");
    assert_eq!(
        manifest(&site).unwrap()["replaces"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    nothing_is_left(&site);
}

/// What a store has of a member that was published before is looked at: names and sizes of all of it, and the bytes of
/// what products are made of.
#[test]
fn of_a_damaged_member_no_ensemble_is_made() {
    let site = site("products", COPIES, "");
    let run = |members| site.mlwm(&[&RUN[..], &["--members", members]].concat());
    run("0-2").expect(0, &["published"]);
    let shard = site.path("published/member1.zarr/msl/c/1/0");
    let whole = fs::read(&shard).unwrap();
    fs::remove_file(&shard).unwrap();
    run("3").expect(31, &["`msl/c/1/0` is missing", "member1.zarr"]);
    fs::write(&shard, &whole[..100]).unwrap();
    run("3").expect(31, &["`msl/c/1/0` has 100 bytes", "member1.zarr"]);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&shard, flipped).unwrap();
    run("3").expect(12, &["msl/c/1/0", "member1.zarr"]);
    assert!(manifest(&site).is_none());
    assert!(!site.files(ENSEMBLE).contains(&"zarr.json".to_owned()));

    fs::write(&shard, whole).unwrap();
    run("3").expect(0, &["ensemble: published"]);
    is_of(&site, "0-3", "0,1,2,3");
    nothing_is_left(&site);
}

/// The manifest of an ensemble stands for its members, too.
#[test]
fn an_ensemble_is_verified_with_its_members() {
    let site = site("products", COPIES, "");
    site.mlwm(&RUN).expect(0, &["ensemble: published"]);
    site.mlwm(&["verify", ENSEMBLE])
        .expect(0, &["4 outputs of members 0-3", "all as the ensemble"]);
    let shard = site.path("published/member1.zarr/msl/c/1/0");
    let whole = fs::read(&shard).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&shard, flipped).unwrap();
    let found = ["member1.zarr", "msl/c/1/0", "has other content"];
    site.mlwm(&["verify", ENSEMBLE]).expect(12, &found);
    fs::write(&shard, whole).unwrap();

    // A member that is whole, but not the one that it was made of.
    for part in ["", ".manifest.json"] {
        let other = site.path(&format!("published/member2.zarr{part}"));
        let place = site.path(&format!("published/member1.zarr{part}"));
        fs::rename(&place, site.path(&format!("published/aside{part}"))).unwrap();
        fs::rename(other, place).unwrap();
    }
    site.mlwm(&["verify", "published/member1.zarr"])
        .expect(0, &["published at", "member2.zarr"]);
    site.mlwm(&["verify", ENSEMBLE])
        .expect(12, &["ensemble.zarr", "it was made of member1.surface"]);
}

#[test]
fn members_that_were_made_otherwise_are_no_ensemble() {
    let site = site("products-mixed", COPIES, "");
    let run =
        |members, more: &[&str]| site.mlwm(&[&RUN[..], &["--members", members], more].concat());
    run("0-1", &[]).expect(0, &["published"]);
    // Another image by the same name.
    image_moved("products-mixed", &format!("{COPIES}; echo newer"));
    run("2-3", &[]).expect(31, &["members 0 and 2 were made with different images"]);
    assert!(manifest(&site).is_none());
    run("0-1", &["--republish"]).expect(0, &["ensemble: published"]);
    is_of(&site, "0-3", "0,1,2,3");

    // Another configuration has no members yet; those that it makes are not mixed with the others.
    for folder in ["published", "mlwm-work"] {
        fs::remove_dir_all(site.path(folder)).unwrap();
    }
    run("0-1", &[]).expect(0, &["published"]);
    let yaml = fs::read_to_string(site.path("configurations/danra/config.yaml")).unwrap();
    site.configure("danra", &(yaml + "environment: {OTHER: 1}\n"));
    run("2-3", &[]).expect(0, &["published"]);
    assert!(manifest(&site).is_none());
    let all = run("0-3", &[]).expect(31, &["2 members are published and 4 are wanted"]);
    assert!(
        all.stderr.contains("its configuration is"),
        "{}",
        all.stderr
    );
    assert!(manifest(&site).is_none());
}

#[test]
fn products_that_need_more_than_the_disk_may_hold_are_refused() {
    let site = site("products", COPIES, "");
    let run = [&RUN[..], &["--disk", "10MB"]].concat();
    site.mlwm(&run)
        .expect(23, &["--disk", "of the working folder"]);
    assert!(manifest(&site).is_none());
    // What the members published stays, and is all that the ensemble needs.
    let plan = site.mlwm(&["plan", "--analysis-time", TIME]).expect(0, &[]);
    fs::write(site.path("plan.json"), plan.stdout).unwrap();
    site.mlwm(&["run", "--plan", "plan.json"])
        .expect(0, &["already published", "ensemble: published"]);
    is_of(&site, "0-3", "0,1,2,3");
    nothing_is_left(&site);
}

#[test]
fn killed_while_it_makes_an_ensemble_the_same_command_finishes() {
    let site = site("products", COPIES, "");
    let list = site.path("places");
    let status = site
        .command_of("mlwm-kill-points", &RUN)
        .env("MLWM_KILL_LIST", &list)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    let undisturbed = content(&site);
    let places = fs::read_to_string(&list).unwrap();
    let places: Vec<&str> = places.lines().collect();
    let first = |name: &str| 1 + places.iter().position(|place| *place == name).unwrap();
    let last = |name: &str| 1 + places.iter().rposition(|place| *place == name).unwrap();
    // The members stay: what is killed is the ensemble.
    let chosen = [
        first("ensemble: window made"),
        last("ensemble: window made"),
        first("ensemble: window sent"),
        last("ensemble: window sent"),
        first("ensemble: sent"),
        first("ensemble: published"),
    ];
    for place in chosen {
        for folder in ["published", "mlwm-work"] {
            fs::remove_dir_all(site.path(folder)).unwrap();
        }
        let status = site
            .command_of("mlwm-kill-points", &RUN)
            .env("MLWM_KILL_AT", place.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(!status.unwrap().success(), "it did not come to {place}");
        let ran = site.mlwm(&RUN).expect(0, &["published"]);
        assert!(content(&site) == undisturbed, "killed at {place}");
        assert!(ran.stdout.contains("already published"), "{}", ran.stdout);
        is_of(&site, "0-3", "0,1,2,3");
        nothing_is_left(&site);
    }
}

#[test]
fn a_configuration_of_an_ensemble_that_cannot_be_is_refused() {
    let whole = site("products", COPIES, "");
    let config = whole.path("configurations/danra/config.yaml");
    let yaml = fs::read_to_string(&config).unwrap();
    for (from, to, said) in [
        ("    msl: [min, max]", "    msl: [median]", "p90"),
        (
            "    msl: [min, max]",
            "    sst: [min]",
            "`sst` is not among",
        ),
        ("    msl: [min, max]", "    msl: [min, min]", "repeats"),
        ("members: 0-3", "members: 0", "no spread"),
        (
            "ensemble.zarr",
            "ensemble{member}.zarr",
            "take {member} out",
        ),
        (
            "  products:",
            "  quorum: 5\n  products:",
            "from 1 to the number of members",
        ),
        ("  products:", "  of: other\n  products:", "has `windows`"),
        (
            "./published/ensemble.zarr",
            "./published/member0.zarr",
            "where `outputs.surface` lies",
        ),
    ] {
        assert!(yaml.contains(from), "{from}");
        whole.configure("danra", &yaml.replace(from, to));
        whole
            .mlwm(&["plan", "--analysis-time", TIME])
            .expect(10, &[said]);
    }
}
