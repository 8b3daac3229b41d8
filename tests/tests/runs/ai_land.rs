//! The pipeline of `configurations/ai-land`: from months of GRIB and NetCDF to an emulator and its scores.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use mlwm_tests::scripted::no_container_left;
use mlwm_tests::site::{Ran, Site, copy, oracle, program, repository};

const TIME: &str = "2020-03-01T00:00Z";
/// The image of `mlwm-step`, from the program that `cargo build` made.
static STEP_IMAGE: LazyLock<&str> = LazyLock::new(|| {
    let reference = "mlwm-test/step:latest";
    let folder = mlwm_tests::scratch::folder();
    fs::copy(program("mlwm-step"), folder.path().join("mlwm-step")).unwrap();
    let built = Command::new("docker")
        .args(["build", "--quiet", "--build-arg", "BASE=mlwm-base:bookworm"])
        .args(["--tag", reference, "--file"])
        .arg(repository().join("step-image/Containerfile"))
        .arg(folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{told}");
    reference
});

/// The configurations as they are, but for three months instead of two years, of which the last is held out.
fn site() -> Site {
    let site = Site::new();
    let land = site.path("configurations/ai-land");
    copy(&repository().join("configurations/ai-land"), &land);
    change(
        &land.join("config.yaml"),
        &[
            ("2020-01..2021-12", "2020-01..2020-03"),
            ("--until, 2021-01-01", "--until, 2020-03-01"),
            ("--to=2021-12-31T18:00Z", "--to=2020-03-31T18:00Z"),
            ("mlwm-step:latest", *STEP_IMAGE),
        ],
    );
    copy(&repository().join("examples/ai-land"), &site.path("land"));
    let configuration = |name: &str| site.path(&format!("land/{name}/config.yaml"));
    change(&configuration("land-emulator"), &[("P730D", "P29D")]);
    change(
        &configuration("land-scores"),
        &[(", --since, 2021-01-01", "")],
    );
    site
}

/// Replaces texts in a file, each of which must be there.
fn change(path: &Path, texts: &[(&str, &str)]) {
    let mut text = fs::read_to_string(path).unwrap();
    for (from, to) in texts {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    fs::write(path, text).unwrap();
}

/// Builds the image of the steps in Python, trusting what pip trusts on this machine.
fn build_python_image(site: &Site) {
    let mut arguments = vec!["image".to_owned(), "build".to_owned(), "ai-land".to_owned()];
    if let Ok(bundle) = std::env::var("PIP_CERT") {
        arguments.extend(["--ca-bundle".to_owned(), bundle]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    site.mlwm(&arguments).expect(0, &["mlwm/ai-land:latest"]);
}

fn run(site: &Site) -> Ran {
    site.mlwm(&["run", "--model", "ai-land", "--analysis-time", TIME])
}

/// Starts it, and kills it after a while unless it has come to its end; whether it was killed.
fn run_killed(site: &Site, after: Duration) -> bool {
    let began = Instant::now();
    let mut child = site
        .command(&["run", "--model", "ai-land", "--analysis-time", TIME])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while began.elapsed() < after && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    child.wait().unwrap().signal() == Some(9)
}

/// What is published, without manifests, which have places and times of the run in them.
fn published(site: &Site) -> Vec<(String, Vec<u8>)> {
    let files = site.files("demo/land").into_iter();
    files
        .filter(|file| !file.contains("manifest"))
        .map(|file| {
            let bytes = fs::read(site.path(&format!("demo/land/{file}"))).unwrap();
            (file, bytes)
        })
        .collect()
}

#[test]
fn from_months_of_grib_to_a_scored_forecast_also_when_it_is_killed() {
    let whole = site();
    build_python_image(&whole);
    run(&whole).expect(0, &["ai-land/land", "ai-land/train"]);
    let report = fs::read(whole.path("demo/land/check/report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(
        (&report["valid"], &report["times"]["count"]),
        (&true.into(), &364.into())
    );
    for picture in [
        "maps/swvl1/swvl1",
        "maps/stl1/stl1",
        "maps/snowc/snowc",
        "series/swvl3",
        "presence/presence",
    ] {
        let picture = whole.path(&format!("demo/land/{picture}.png"));
        assert!(fs::read(picture).unwrap().starts_with(b"\x89PNG"));
    }
    // Every value of the store, from the messages themselves.
    let (raw, land) = (
        whole.path("demo/land/raw"),
        whole.path("demo/land/land.zarr"),
    );
    oracle(
        "land_store.py",
        &[&raw.to_string_lossy(), &land.to_string_lossy()],
    );

    let killed = site();
    let kills = [4, 9, 14, 19].map(|seconds| run_killed(&killed, Duration::from_secs(seconds)));
    assert!(kills[0] && kills[1], "{kills:?}");
    run(&killed).expect(0, &[]);
    let (expected, found) = (published(&whole), published(&killed));
    let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&found), names(&expected));
    for ((name, expected), (_, found)) in expected.iter().zip(&found) {
        assert!(expected == found, "{name} is another after kills");
    }
    assert_eq!(killed.files("mlwm-work/tasks"), Vec::<String>::new());

    forecast(&whole);
    no_container_left(&whole);
    no_container_left(&killed);
}

/// Makes an artifact of the emulator, forecasts the month that it has not learnt from, and looks at the scores.
fn forecast(site: &Site) {
    site.mlwm(&[
        "artifact",
        "build",
        "land-emulator",
        "--onnx",
        "demo/land/emulator/model.onnx",
        "--interface",
        "demo/land/emulator/interface.json",
        "--output",
        "demo/land/artifacts",
    ])
    .expect(0, &["sha256:"]);
    site.mlwm(&[
        "image",
        "build",
        "land-emulator",
        "--configurations",
        "land",
    ])
    .expect(0, &["sha256:"]);
    site.mlwm(&["run", "--configurations", "land", "--analysis-time", TIME])
        .expect(0, &["land-emulator", "land-scores"]);
    same_as_in_python(site);
    let scores = "demo/land/scores/2020-03-01T0000Z";
    let text = fs::read_to_string(site.path(&format!("{scores}/scores.json"))).unwrap();
    let made: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(made["times"], 116, "{text}");
    for (variable, least) in [
        ("swvl1", 0.8),
        ("swvl2", 0.9),
        ("swvl3", 0.9),
        ("stl1", 0.9),
        ("stl2", 0.9),
        ("stl3", 0.9),
        ("snowc", 0.5),
    ] {
        let r2 = made["all_points"][variable]["r2"].as_f64().unwrap();
        assert!(r2 > least, "{variable}: {r2} in {text}");
    }
    let figure = fs::read(site.path(&format!("{scores}/comparison.png"))).unwrap();
    assert!(figure.starts_with(b"\x89PNG"));
}

/// What the container forecast is what ONNX Runtime does in Python with the same model and store, bit for bit.
fn same_as_in_python(site: &Site) {
    let text = |relative: &str| site.path(relative).to_str().unwrap().to_owned();
    copy(&site.path("demo/land/emulator"), &site.path("unpacked"));
    fs::rename(
        site.path("unpacked/model.onnx"),
        site.path("unpacked/checkpoint.onnx"),
    )
    .unwrap();
    let (artifact, rolled) = (text("unpacked"), text("rolled.npy"));
    let stores = serde_json::json!({"land": text("demo/land/land.zarr")}).to_string();
    oracle(
        "points.py",
        &["roll", &artifact, &stores, TIME, "116", &rolled],
    );
    let forecast = text("demo/land/forecast/2020-03-01T0000Z.zarr");
    oracle("points.py", &["compare", &rolled, &artifact, &forecast]);
}
