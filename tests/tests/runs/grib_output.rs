//! Outputs as GRIB: a file for each window, read by ECMWF's own library.

use std::collections::BTreeMap;
use std::fs;

use mlwm_tests::scripted::{image, no_container_left, windowed};
use mlwm_tests::site::{Site, oracle, ran};
use serde_json::Value;

const RUN: [&str; 3] = ["run", "--analysis-time", "2022-04-07T03:00Z"];
const MEMBERS: usize = 2;

/// A site whose models' windows are in their inputs.
fn site(image: &str, grid: &str, kind: &[&str]) -> Site {
    let site = Site::new();
    let store = site.path("store");
    let make = ["make", store.to_str().unwrap(), "2", grid];
    oracle("grib_output.py", &[&make, kind].concat());
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
          rain_in_all: {{parameter: lsp, since: start}}
          wind: {{parameter: u, level: pressure}}
          soil: {{parameter: vsw, level: [1, 2], type_of_level: soilLayer}}
{grid}"
    );
    site.configure("aifs", &yaml);
}

/// Changes something in the configuration; what it was before.
fn change(site: &Site, from: &str, to: &str) -> String {
    let path = site.path("configurations/aifs/config.yaml");
    let yaml = fs::read_to_string(&path).unwrap();
    assert!(yaml.contains(from), "{yaml}");
    site.configure("aifs", &yaml.replace(from, to));
    yaml
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
    no_container_left(site);
}

/// Nothing was begun: no container, no place, not even the working folder.
#[track_caller]
fn refused(site: &Site, code: i32, texts: &[&str]) {
    site.mlwm(&RUN).expect(code, texts);
    assert!(!site.path("mlwm-work").exists());
    assert!(!site.path("published").exists());
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
        assert!(
            manifest["grib"]["eccodes"]
                .as_str()
                .unwrap()
                .starts_with("2.")
        );
    }
    nothing_is_left(&site);
    let before = published(&site);
    site.mlwm(&RUN).expect(0, &["published"]);
    // One member alone is of the same ensemble.
    site.mlwm(&["replay", "published/member1"])
        .expect(0, &["the same to the bit"]);
    fs::remove_dir_all(site.path("published/member1")).unwrap();
    fs::remove_file(site.path("published/member1.manifest.json")).unwrap();
    site.mlwm(&[&RUN[..], &["--members", "1"]].concat())
        .expect(0, &["published"]);
    assert!(published(&site) == before, "the same bytes");
}

/// I18: the windows that AIFS has.
#[test]
fn windows_of_three_days_have_twelve_steps_each() {
    let site = site(&windowed("grib"), "O16", &["days"]);
    change(
        &site,
        "forecast_duration: PT60H",
        "forecast_duration: PT144H",
    );
    change(&site, "length: PT24H", "length: PT72H");
    site.mlwm(&RUN).expect(0, &["published", "cos_wd"]);
    read_by_others(&site, "O16", &["days"]);
    for member in 0..2 {
        let manifest = manifest(&site, member);
        assert_eq!(manifest["objects"].as_array().unwrap().len(), 2);
        assert_eq!(manifest["grib"]["not_encoded"][0]["variable"], "cos_wd");
    }
    nothing_is_left(&site);
}

#[test]
fn another_form_takes_the_place_of_a_published_one_only_if_that_is_asked_for() {
    let site = site(&windowed("grib"), "O16", &[]);
    site.mlwm(&RUN).expect(0, &["published"]);
    let before = published(&site);
    change(
        &site,
        "prefix: aifs_ens",
        "bits_per_value: 12\n        prefix: aifs_ens",
    );
    site.mlwm(&RUN).expect(31, &["configuration"]);
    assert!(published(&site) == before);
    site.mlwm(&[&RUN[..], &["--republish"]].concat())
        .expect(0, &["published"]);
    let after = published(&site);
    assert!(after.keys().eq(before.keys()) && after != before);
    for member in 0..2 {
        let manifest = manifest(&site, member);
        assert_eq!(manifest["replaces"].as_array().unwrap().len(), 1);
        assert_eq!(manifest["grib"]["not_encoded"][0]["variable"], "cos_wd");
        site.mlwm(&["verify", &format!("published/member{member}")])
            .expect(0, &["all as published"]);
    }
    nothing_is_left(&site);
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

/// An image that does not know windows writes the whole forecast; latitudes and longitudes show the grid.
#[test]
fn a_forecast_on_latitudes_and_longitudes_that_is_written_at_once_becomes_windows_too() {
    let copies = image("grib-whole", "cp -r /in/surface/whole/. /out/surface/");
    let site = site(&copies, "regular", &["whole"]);
    site.mlwm(&RUN).expect(0, &["published"]);
    read_by_others(&site, "regular", &[]);
    nothing_is_left(&site);
}

/// Missing values are a bitmap where they may be; what is left out is not looked at.
#[test]
fn values_are_missing_only_where_they_may_be() {
    let site = site(&windowed("grib"), "O16", &["gaps"]);
    site.mlwm(&RUN)
        .expect(23, &["window h000-024", "2t", "missing"]);
    assert!(published(&site).is_empty());
    configure(&site, &windowed("grib"), "O16", "      missing: [2t]\n");
    site.mlwm(&RUN).expect(0, &["published"]);
    read_by_others(&site, "O16", &["gaps"]);
}

#[test]
fn what_is_wrong_in_a_window_fails_its_member_alone() {
    let site = site(&windowed("grib"), "O16", &["nan"]);
    let before = change(&site, "level: pressure", "level: height");
    site.mlwm(&RUN).expect(
        23,
        &["`wind`", "`height` is not the first of", "pressure: 2"],
    );
    assert!(published(&site).is_empty());
    site.configure("aifs", &before);
    site.mlwm(&RUN).expect(23, &["window h024-048", "2t"]);
    let places: Vec<String> = published(&site).into_keys().collect();
    assert_eq!(places.len(), 3 + 1, "{places:?}");
    assert!(!site.path("published/member1.manifest.json").exists());
    nothing_is_left(&site);
}

#[test]
fn points_of_another_grid_or_in_another_order_are_refused() {
    let site = site(&windowed("grib"), "O16", &["order"]);
    site.mlwm(&RUN)
        .expect(23, &["the latitude of point 0", "O16"]);
    change(&site, "grid: O16", "grid: O32");
    site.mlwm(&RUN)
        .expect(23, &["O32 has 5248 points", "a field has 1600"]);
    change(&site, "        grid: O32\n", "");
    site.mlwm(&RUN).expect(23, &["name their `grid`"]);
    assert!(published(&site).is_empty());
    nothing_is_left(&site);
}

#[test]
fn what_cannot_become_grib_is_refused_before_anything_is_begun() {
    let mut site = site("mlwm-test/never:latest", "O16", &[]);
    for (from, to, texts) in [
        ("parameter: vsw", "parameter: cos_wd", ["`soil`", "no code"]),
        ("soilLayer", "aLayer", ["`soil`", "aLayer"]),
        (
            ", level: [1, 2], type_of_level: soilLayer",
            "",
            ["`soil`", "no level"],
        ),
        (
            "parameter: vsw, level: [1, 2], type_of_level: soilLayer",
            "parameter: lsp",
            ["`rain_in_all` and `soil`", "the same code"],
        ),
        ("grid: O16", "grid: N17", ["N17", "no sample"]),
    ] {
        let before = change(&site, from, to);
        refused(&site, 10, &texts);
        site.configure("aifs", &before);
    }
    site.env("MLWM_ECCODES", "/nonexistent");
    refused(&site, 15, &["libeccodes0", "/nonexistent", "MLWM_ECCODES"]);
    // Where no output is GRIB, nobody needs it.
    let yaml = fs::read_to_string(site.path("configurations/aifs/config.yaml")).unwrap();
    let (zarr, _) = yaml.split_once("      grib:").unwrap();
    site.configure("aifs", zarr);
    site.mlwm(&RUN).expect(14, &["mlwm-test/never:latest"]);
}

#[test]
fn a_configuration_says_what_grib_cannot_be() {
    let site = site("mlwm-test/never:latest", "O16", &[]);
    site.mlwm(&["check"]).expect(0, &["ok"]);
    for (from, to, text) in [
        (
            "      grib:",
            "      stored_as: {2t: float16}\n      grib:",
            "bits_per_value",
        ),
        (
            "prefix: aifs_ens_forecast",
            "prefix: a/b",
            "cannot begin the name of a file",
        ),
        (
            "prefix: aifs_ens_forecast",
            "prefix: a\n        bits_per_value: 33",
            "1 to 32 bits",
        ),
        (
            "prefix: aifs_ens_forecast",
            "prefix: a\n        bits: 8",
            "bits",
        ),
        ("grid: O16", "grid: F16", "`O96` or `N320`"),
        ("level: [1, 2], type", "type", "there is no `level`"),
        (
            "    windows:",
            "    variables: [2t]\n    windows:",
            "not among the `variables`",
        ),
        (
            "outputs:",
            "ensemble: {uri: ./published/all, products: {2t: [mean]}}\noutputs:",
            "this output is GRIB",
        ),
    ] {
        let before = change(&site, from, to);
        site.mlwm(&["check"]).expect(10, &[text]);
        site.configure("aifs", &before);
    }
}

/// Killed at some of the places at which it can be, or at all that `MLWM_TEST_KILLS=all` asks for.
#[test]
fn killed_between_windows_the_same_command_publishes_the_same() {
    let site = site(&windowed("grib"), "O16", &[]);
    let list = site.path("places");
    let counted = site
        .command_of("mlwm-kill-points", &RUN)
        .env("MLWM_KILL_LIST", &list)
        .output();
    ran(&counted.unwrap()).expect(0, &["published"]);
    let places = fs::read_to_string(&list).unwrap();
    assert!(places.contains("window: encoded"), "{places}");
    let places = places.lines().count();
    let undisturbed = published(&site);
    assert_eq!(undisturbed.len(), 3 * MEMBERS);
    let all = std::env::var("MLWM_TEST_KILLS").is_ok_and(|text| text == "all");
    let each = if all { 1 } else { places / 4 };
    for place in (each / 2 + 1..=places).step_by(each) {
        for folder in ["published", "mlwm-work"] {
            fs::remove_dir_all(site.path(folder)).unwrap();
        }
        let mut command = site.command_of("mlwm-kill-points", &RUN);
        let killed = command.env("MLWM_KILL_AT", place.to_string()).output();
        let killed = killed.unwrap();
        // How often windows are looked for is not the same twice: it may end before it comes there.
        assert!(
            killed.status.code().is_none_or(|code| code == 0),
            "{place}: {killed:?}"
        );
        site.mlwm(&RUN).expect(0, &["published"]);
        assert!(published(&site) == undisturbed, "killed at place {place}");
        for member in ["published/member0", "published/member1"] {
            site.mlwm(&["verify", member])
                .expect(0, &["all as published"]);
        }
        nothing_is_left(&site);
    }
}
