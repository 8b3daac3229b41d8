//! Outputs as GRIB: a file for each window, read by ECMWF's own library.

use std::collections::BTreeMap;
use std::fs;

use mlwm_tests::scripted::{image, no_container_left, windowed};
use mlwm_tests::site::{Ran, Site, oracle, ran};
use serde_json::Value;

const RUN: [&str; 3] = ["run", "--analysis-time", "2022-04-07T03:00Z"];
const MEMBERS: usize = 2;

/// A site whose models' windows are in their inputs.
fn site(image: &str, grid: &str, fault: &[&str]) -> Site {
    let site = Site::new();
    let store = site.path("store");
    let make = ["make", store.to_str().unwrap(), "2", grid];
    oracle("grib_output.py", &[&make, fault].concat());
    configure(&site, image, grid, "");
    site
}

/// The configuration of such a site, with more keys of `windows`.
fn configure(site: &Site, image: &str, grid: &str, more: &str) {
    let grid = match grid {
        "regular" => String::new(),
        named => format!("        grid: {named}\n"),
    };
    let yaml = format!(
        "docker_image: {image}
members: 0-1
forecast_duration: PT60H
time_layout: time
retries: 0
inputs:
  surface: {{uri: './store/member{{member}}', internal_path: /in/surface}}
outputs:
  surface:
    uri: ./published/member{{member}}
    internal_path: /out/surface
    windows:
      length: PT24H
{more}      grib:
        prefix: aifs_ens_forecast
        parameters:
          rain_in_all: {{parameter: cp, since: start}}
          soil: {{parameter: vsw, level: 2, type_of_level: soilLayer}}
{grid}"
    );
    site.configure("aifs", &yaml);
}

/// Changes a line of the configuration.
fn change(site: &Site, from: &str, to: &str) {
    let path = site.path("configurations/aifs/config.yaml");
    let yaml = fs::read_to_string(&path).unwrap();
    assert!(yaml.contains(from), "{yaml}");
    site.configure("aifs", &yaml.replace(from, to));
}

/// What is published, by name.
fn published(site: &Site) -> BTreeMap<String, Vec<u8>> {
    let files = site.files("published").into_iter();
    files
        .filter(|file| file.ends_with(".grib"))
        .map(|file| {
            let bytes = fs::read(site.path("published").join(&file)).unwrap();
            (file, bytes)
        })
        .collect()
}

#[track_caller]
fn read_by_others(site: &Site, grid: &str, more: &[&str]) {
    for member in ["0", "1"] {
        let folder = site.path(&format!("published/member{member}"));
        let check = ["check", folder.to_str().unwrap(), member, "2", grid];
        oracle("grib_output.py", &[&check, more].concat());
        site.mlwm(&["verify", &format!("published/member{member}")])
            .expect(0, &["all as published"]);
    }
}

fn manifest(site: &Site, member: u32) -> Value {
    let path = site.path(&format!("published/member{member}.manifest.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn nothing_is_left(site: &Site) {
    assert_eq!(site.files("mlwm-work/tasks"), [""; 0]);
    assert_eq!(site.files("mlwm-work/warm"), [""; 0]);
    no_container_left();
}

/// Nothing was begun: no container, no place, not even the working folder.
#[track_caller]
fn refused(site: &Site, code: i32, texts: &[&str]) -> Ran {
    let ran = site.mlwm(&RUN).expect(code, texts);
    assert!(!site.path("mlwm-work").exists());
    assert!(!site.path("published").exists());
    ran
}

#[test]
fn an_independent_reader_finds_every_field_of_every_window() {
    let site = site(&windowed("grib"), "O16", &[]);
    let first = site.mlwm(&RUN).expect(0, &["published", "cos_wd"]);
    read_by_others(&site, "O16", &[]);
    for member in 0..2 {
        let manifest = manifest(&site, member);
        let not_encoded = &manifest["grib"]["not_encoded"];
        assert_eq!(not_encoded.as_array().unwrap().len(), 1, "{not_encoded}");
        assert_eq!(not_encoded[0]["variable"], "cos_wd");
        let reason = not_encoded[0]["reason"].as_str().unwrap();
        assert!(reason.contains("no code"), "{reason}");
        assert!(first.stdout.contains(reason) || first.stderr.contains(reason));
        assert_eq!(manifest["objects"].as_array().unwrap().len(), 3);
        assert!(manifest["grib"]["eccodes"].as_str().unwrap().starts_with("2."));
    }
    nothing_is_left(&site);
    let before = published(&site);
    site.mlwm(&RUN).expect(0, &["published"]);
    // One member alone is of the same ensemble.
    site.mlwm(&[&RUN[..], &["--members", "1", "--republish"]].concat())
        .expect(0, &["published"]);
    assert_eq!(manifest(&site, 1)["replaces"].as_array().unwrap().len(), 1);
    assert!(published(&site) == before, "the same bytes");
    site.mlwm(&["replay", "published/member1"])
        .expect(0, &["the same to the bit"]);
    site.mlwm(&["verify", "published/member1"])
        .expect(0, &["all as published"]);
}

#[test]
fn a_flipped_byte_is_found() {
    let site = site(&windowed("grib"), "O16", &[]);
    site.mlwm(&RUN).expect(0, &["published"]);
    let name = "member1/aifs_ens_forecast_20220407_0300_member001_h024-048.grib";
    let path = site.path("published").join(name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let verified = site.mlwm(&["verify", "published/member1"]);
    assert_ne!(verified.code, 0);
    assert!(verified.stdout.contains("h024-048") || verified.stderr.contains("h024-048"));
    site.mlwm(&["verify", "published/member0"])
        .expect(0, &["all as published"]);
}
