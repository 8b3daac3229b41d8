//! An image is tested on the golden case of its artifact before anybody uses it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use mlwm_tests::site::{Ran, Site, copy, example, example_configuration, python, ran};

/// Builds `danra.zip` in the site with the golden case in `golden`.
fn build(site: &Site, golden: &Path) -> Ran {
    let text = |relative: &str| example(relative).display().to_string();
    site.mlwm(&[
        "artifact",
        "build",
        "danra",
        "--nl-config",
        &text("train/config.yaml"),
        "--training-args",
        &text("train/training_cli_args.yaml"),
        "--onnx",
        &text("onnx/graph_lam.onnx"),
        "--interface",
        &text("onnx/graph_lam.json"),
        "--golden",
        golden.to_str().unwrap(),
        "--output",
        "danra.zip",
    ])
}

fn configuration(image: &str) -> String {
    let yaml = example_configuration();
    let reference = yaml.lines().next().unwrap();
    yaml.replace(reference, &format!("docker_image: {image}"))
}

/// A site whose artifact has a golden case, of which a script made something else, and whose image
/// is built.
fn site_with(image: &str, script: &str) -> Site {
    let site = Site::new();
    copy(&example("golden"), &site.path("golden"));
    change(&site, script);
    build(&site, Path::new("golden")).expect(0, &["sha256:"]);
    site.configure("danra", &configuration(image));
    site.mlwm(&["image", "build", "danra"])
        .expect(0, &["sha256:"]);
    site
}

/// Runs Python in the folder of the golden case, with xarray as `xr` and `save(dataset, path)`.
fn change(site: &Site, script: &str) {
    let before = "import shutil, xarray as xr\n\
        def save(dataset, path):\n    \
            shutil.rmtree(path)\n    \
            dataset.load().drop_encoding().to_zarr(path, zarr_format=2, consolidated=False)\n\
        case = open('case.yaml').read()\n\
        expected = xr.open_zarr('expected/surface.zarr', consolidated=False).load()\n\
        source = xr.open_zarr('inputs/single_levels.zarr', consolidated=False).load()\n";
    let output = Command::new(python())
        .current_dir(site.path("golden"))
        .args(["-c", &format!("{before}{script}")])
        .output()
        .unwrap();
    ran(&output).expect(0, &[]);
}

/// The site of the tests that change nothing in its artifact.
static UNCHANGED: LazyLock<Site> = LazyLock::new(|| site_with("mlwm-test/golden:latest", ""));

#[test]
fn an_image_that_forecasts_what_neural_lam_does_passes() {
    let site = &*UNCHANGED;
    let done = site
        .mlwm(&["image", "test", "danra", "--json", "--workdir", "passes"])
        .expect(0, &[])
        .json();
    assert_eq!(done["passed"], true);
    let variables = done["report"]["variables"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|one| &one["variable"]).collect();
    assert_eq!(names, ["t2m", "u10m", "v10m"]);
    for variable in variables {
        // Three steps of 30 × 28 points, by hand.
        assert_eq!(variable["values"], 3 * 30 * 28);
        assert_eq!(variable["outside"], 0);
        let largest = variable["largest"].as_f64().unwrap();
        assert!(largest > 0.0 && largest < 1e-4, "{largest}");
    }
    // Nothing but the log is left, and nothing is published.
    let left = site.files("passes");
    assert!(
        left.iter()
            .all(|file| file.starts_with("log/") || file == ".lock"),
        "{left:?}"
    );
    assert!(left.iter().any(|file| file.ends_with("golden.log")));
    assert!(!site.path("published").exists());
}

#[test]
fn nothing_is_said_to_be_published() {
    let test = ["image", "test", "danra", "--workdir", "said"];
    let done = UNCHANGED
        .mlwm(&test)
        .expect(0, &["its golden case expects"]);
    assert!(!done.stderr.contains("publish"), "{}", done.stderr);
    assert!(done.stderr.contains("verify"), "{}", done.stderr);
}

#[test]
fn an_artifact_that_is_mounted_is_tested_the_same() {
    let site = Site::new();
    fs::copy(UNCHANGED.path("danra.zip"), site.path("danra.zip")).unwrap();
    let image = "mlwm-test/golden-mounted:latest";
    let yaml = configuration(image) + "artifact_delivery: mount\n";
    site.configure("danra", &yaml);
    site.mlwm(&["image", "build", "danra"])
        .expect(0, &["sha256:"]);
    let done = site
        .mlwm(&["image", "test", "danra", "--json"])
        .expect(0, &[]);
    assert_eq!(done.json()["passed"], true);
    remove(image);
}

#[test]
fn the_case_lies_in_the_artifact_as_it_was_given() {
    let site = &*UNCHANGED;
    site.mlwm(&["artifact", "verify", "danra.zip"])
        .expect(0, &[]);
    let output = Command::new("unzip")
        .current_dir(site.path(""))
        .args(["-q", "danra.zip", "golden/*", "-d", "unzipped"])
        .output()
        .unwrap();
    ran(&output).expect(0, &[]);
    let output = Command::new("diff")
        .args(["-r"])
        .arg(site.path("unzipped/golden"))
        .arg(example("golden"))
        .output()
        .unwrap();
    ran(&output).expect(0, &[]);
}

#[test]
fn another_forecast_is_told_by_variable() {
    // One value of 2520, half a degree away.
    let script = "expected.t2m[2, 10, 11] += 0.5\nsave(expected, 'expected/surface.zarr')\n";
    let site = site_with("mlwm-test/golden-differs:latest", script);
    let test = ["image", "test", "danra"];
    site.mlwm(&test)
        .expect(24, &["t2m", "5.00", "golden case expects"]);
    let mut json = test.to_vec();
    json.push("--json");
    let done = site.mlwm(&json).expect(24, &[]).json();
    assert_eq!(
        (&done["passed"], &done["exit_code"]),
        (&false.into(), &24.into())
    );
    let outside: Vec<_> = done["report"]["variables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["outside"].as_u64().unwrap())
        .collect();
    assert_eq!(outside, [1, 0, 0]);
    // A tolerance that allows it.
    change(
        &site,
        "open('case.yaml', 'w').write(case + '  t2m: {relative: 0.01}\\n')\n",
    );
    fs::remove_file(site.path("danra.zip")).unwrap();
    build(&site, Path::new("golden")).expect(0, &[]);
    // The image is of the other artifact.
    site.mlwm(&test).expect(13, &["mlwm image build danra"]);
    site.mlwm(&["image", "build", "danra"]).expect(0, &[]);
    site.mlwm(&test).expect(0, &["1e-2 of it"]);
    remove("mlwm-test/golden-differs:latest");
}

#[test]
fn only_what_a_configuration_puts_out_is_compared() {
    let site = Site::new();
    fs::copy(UNCHANGED.path("danra.zip"), site.path("danra.zip")).unwrap();
    let yaml = configuration("mlwm-test/golden:latest");
    let output = "    internal_path: /volume/outputs/surface.zarr\n";
    let wind = format!("{output}    variables: [u10m, v10m]\n");
    site.configure("danra", &yaml.replace(output, &wind));
    let done = site
        .mlwm(&["image", "test", "danra", "--json"])
        .expect(0, &[])
        .json();
    let variables = done["report"]["variables"].as_array().unwrap();
    assert_eq!(variables.len(), 2);
    // An input that the case does not have.
    let feeds = "[danra.danra_surface, danra.danra_forcing, danra.danra_static]";
    let two = "[danra.danra_surface, danra.danra_forcing]\n  more:\n    uri: ./more.zarr\n    \
               internal_path: /volume/inputs/more.zarr\n    datastore_inputs: []";
    site.configure("danra", &yaml.replace(feeds, two));
    site.mlwm(&["image", "test", "danra"]).expect(10, &["more"]);
}

#[test]
fn an_artifact_without_a_case_is_not_tested_and_can_be_refused() {
    let site = Site::with_example();
    let test = ["image", "test", "--all"];
    site.mlwm(&test).expect(0, &["not tested", "--golden"]);
    let mut required = test.to_vec();
    required.push("--require-golden");
    site.mlwm(&required).expect(13, &["--golden"]);
    // An image of another artifact, or none.
    let site = Site::new();
    fs::copy(UNCHANGED.path("danra.zip"), site.path("danra.zip")).unwrap();
    site.configure("danra", &configuration("mlwm-test/no-such-image:latest"));
    let failed = site.mlwm(&["image", "test", "danra"]);
    let failed = failed.expect(14, &["no-such-image"]);
    let why = failed.stderr.matches("is not in the engine").count();
    assert_eq!(why, 1, "{}", failed.stderr);
    site.mlwm(&["image", "test", "danra", "--image", "mlwm-base:bookworm"])
        .expect(13, &["mlwm-base:bookworm"]);
}

#[test]
fn a_case_that_does_not_fit_the_model_is_not_packed() {
    let cases = [
        (
            "save(source.isel(time=slice(0, 4)), 'inputs/single_levels.zarr')",
            13,
            "the model cannot use",
        ),
        (
            "save(expected.isel(time=slice(0, 2)), 'expected/surface.zarr')",
            13,
            "at other times",
        ),
        (
            "save(expected.rename(t2m='t850'), 'expected/surface.zarr')",
            13,
            "t850",
        ),
        (
            "open('case.yaml', 'w').write(case.replace('danra.danra_static', 'danra.nothing'))",
            13,
            "danra.nothing",
        ),
        (
            "open('case.yaml', 'w').write(case.replace('PT9H', 'PT10H'))",
            13,
            "PT10H",
        ),
        (
            "open('case.yaml', 'w').write(case.replace('version: 1', 'version: 2'))",
            10,
            "version 2",
        ),
        (
            "open('case.yaml', 'w').write(case.replace('absolute', 'abslute'))",
            10,
            "abslute",
        ),
        (
            "open('case.yaml', 'w').write(case.replace('\"*\"', 'u10m'))",
            13,
            "no tolerance for `t2m`",
        ),
        (
            "open('case.yaml', 'w').write(case.replace('[surface]', '[../surface]'))",
            10,
            "../surface",
        ),
        (
            "open('case.yaml', 'w').write(case.replace('[surface]', '[surfaces]'))",
            11,
            "surfaces.zarr",
        ),
        (
            "import os; os.symlink('/etc/passwd', 'inputs/single_levels.zarr/link')",
            13,
            "neither a file nor a folder",
        ),
        (
            "import os; os.truncate('expected/surface.zarr/t2m/0.0.0', 5)",
            13,
            "t2m",
        ),
        (
            "import os; os.remove('expected/surface.zarr/t2m/0.0.0')",
            13,
            "`t2m`",
        ),
        (
            "import os; f = open('inputs/single_levels.zarr/big', 'w'); os.truncate(f.fileno(), 65 << 20)",
            13,
            "67108864",
        ),
    ];
    for (script, code, text) in cases {
        let site = Site::new();
        copy(&example("golden"), &site.path("golden"));
        change(&site, script);
        let refused = build(&site, Path::new("golden"));
        let said = refused.stderr.clone();
        refused.expect(code, &[text]);
        assert!(said.contains("golden"), "{script}: {said}");
        assert!(!site.path("danra.zip").exists(), "{script}");
    }
}

#[test]
fn the_bundled_case_is_cut_out_of_the_bundled_data() {
    let script = format!(
        "import xarray as xr\n\
         source = xr.open_zarr(r'{}').sel(time=slice('2022-04-07T00', '2022-04-07T15'))\n\
         expected = xr.open_zarr(r'{}').sel(time=slice('2022-04-07T06', '2022-04-07T12'))\n\
         golden = r'{}'\n\
         xr.testing.assert_identical(source.load(), xr.open_zarr(golden + '/inputs/single_levels.zarr', consolidated=False).load())\n\
         xr.testing.assert_identical(expected.load(), xr.open_zarr(golden + '/expected/surface.zarr', consolidated=False).load())\n",
        example("source/single_levels.zarr").display(),
        example("oracle/graph_lam/forecast.zarr").display(),
        example("golden").display(),
    );
    let output = Command::new(python())
        .args(["-c", &script])
        .output()
        .unwrap();
    ran(&output).expect(0, &[]);
}

fn remove(image: &str) {
    let output = Command::new("docker").args(["rmi", image]).output();
    ran(&output.unwrap()).expect(0, &[]);
}
