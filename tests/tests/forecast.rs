//! A forecaster runs a real model on data in a real S3 store, through real Docker.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use mlwm_tests::s3::S3Server;
use mlwm_tests::site::{Site, example, example_artifact, example_configuration, oracle, ran};

/// The oracle of the bundled example: what neural-lam itself predicts.
fn expected() -> PathBuf {
    example("oracle/graph_lam/forecast.zarr")
}

/// The example's configuration with input and output in a bucket.
fn in_bucket(bucket: &str) -> String {
    example_configuration()
        .replace("./store/", &format!("s3://{bucket}/in/"))
        .replace("./published/", &format!("s3://{bucket}/out/"))
}

#[test]
fn a_forecast_from_s3_equals_what_neural_lam_predicts() {
    let server = S3Server::garage();
    let bucket = server.bucket("forecasts");
    let source = example("source/single_levels.zarr");
    server.objects(&[
        "put",
        source.to_str().unwrap(),
        &bucket,
        "in/single_levels.zarr",
    ]);

    let mut site = Site::new();
    for (name, value) in server.environment() {
        site.env(name, &value);
    }
    fs::copy(example_artifact(), site.path("danra.zip")).unwrap();
    site.configure("danra", &in_bucket(&bucket));

    let done = site.run("danra", &[]).expect(0, &["published", "6 steps"]);
    for secret in [&server.key.secret, &server.key.id] {
        assert!(!done.stdout.contains(secret.as_str()) && !done.stderr.contains(secret.as_str()));
    }

    let back = site.path("back");
    server.objects(&["get", &bucket, "out/", back.to_str().unwrap()]);
    let forecast = back.join("out/2022-04-07T0300Z/member0/surface.zarr");
    let text = oracle(
        "compare.py",
        &[forecast.to_str().unwrap(), expected().to_str().unwrap()],
    );
    println!("{text}");
    let manifest = back.join("out/2022-04-07T0300Z/member0/surface.zarr.manifest.json");
    oracle(
        "manifest.py",
        &[forecast.to_str().unwrap(), manifest.to_str().unwrap()],
    );
    let record: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    assert_eq!(record["artifact"]["name"], "danra");
    assert_eq!(
        record["inputs"][0]["uri"],
        format!("s3://{bucket}/in/single_levels.zarr")
    );

    // The same command again has nothing to do, and reads nothing.
    site.run("danra", &[]).expect(0, &["already published"]);
    // Another duration is another task: what is published stays.
    site.run("danra", &["--forecast-duration", "PT3H"])
        .expect(31, &["forecast duration", "PT18H"]);
    let listed = server.objects(&["list", &bucket, "out/"]);
    assert!(
        !listed.contains("publishing"),
        "the marker is gone: {listed}"
    );
    site.expect_nothing_left();
}

#[test]
fn a_bucket_that_is_missing_or_closed_is_a_clear_error() {
    let server = S3Server::garage();
    let bucket = server.bucket("closed");
    let mut site = Site::new();
    for (name, value) in server.environment() {
        site.env(name, &value);
    }
    fs::copy(example_artifact(), site.path("danra.zip")).unwrap();
    site.configure("danra", &in_bucket("no-such-bucket"));
    site.run("danra", &[]).expect(30, &["no-such-bucket"]);
    let stranger = server.key_without_rights("stranger");
    site.env("AWS_ACCESS_KEY_ID", &stranger.id);
    site.env("AWS_SECRET_ACCESS_KEY", &stranger.secret);
    site.configure("danra", &in_bucket(&bucket));
    let done = site
        .run("danra", &[])
        .expect(30, &[&bucket, "refused access"]);
    assert!(!done.stderr.contains(&stranger.secret) && !done.stdout.contains(&stranger.secret));
    site.expect_nothing_left();
}

#[test]
fn other_start_times_and_numbers_of_steps() {
    let site = Site::with_example();
    let source = example("source/single_levels.zarr");
    for (time, path_time, duration, steps) in [
        ("2022-04-01T03:00Z", "2022-04-01T0300Z", "PT3H", "1"),
        ("2022-04-04T18:00Z", "2022-04-04T1800Z", "PT30H", "10"),
        ("2022-04-02T12:00Z", "2022-04-02T1200Z", "P5DT9H", "43"),
    ] {
        let more = [
            "--analysis-time",
            time,
            "--model",
            "danra",
            "--forecast-duration",
            duration,
        ];
        site.mlwm(&[&["run"], &more[..]].concat())
            .expect(0, &["published"]);
        let reference = site.path(&format!("reference-{steps}.zarr"));
        let unpacked = unpacked(&site);
        let inputs: Vec<String> = ["danra_surface", "danra_forcing", "danra_static"]
            .iter()
            .map(|input| format!("danra.{input}={}", source.display()))
            .collect();
        oracle(
            "reference_runner.py",
            &[
                "artifact",
                &unpacked,
                "--inputs",
                &inputs.join(","),
                "--steps",
                steps,
                "--analysis-time",
                time,
                "--out",
                reference.to_str().unwrap(),
            ],
        );
        let forecast = site.path(&format!("published/{path_time}/member0/surface.zarr"));
        let pair = [forecast.to_str().unwrap(), reference.to_str().unwrap()];
        println!(
            "{time} {steps} steps\n{}",
            oracle("compare_reference.py", &pair)
        );
    }
}

/// The example's artifact, unpacked by another program.
fn unpacked(site: &Site) -> String {
    let folder = site.path("unpacked").display().to_string();
    let unzip = Command::new("unzip")
        .args([
            "-qo",
            site.path("danra.zip").to_str().unwrap(),
            "-d",
            &folder,
        ])
        .output()
        .unwrap();
    ran(&unzip).expect(0, &[]);
    folder
}

#[test]
fn members_get_seeds_of_their_own_and_zarr_2_is_written_on_request() {
    let site = Site::with_example();
    let yaml = example_configuration();
    site.configure(
        "danra",
        &format!("{yaml}    zarr_format: 2\n    variables: [t2m]\n"),
    );
    site.run(
        "danra",
        &["--members", "0,3", "--forecast-duration", "PT6H"],
    )
    .expect(0, &["published"]);
    let seeds: Vec<serde_json::Value> = ["0", "3"]
        .iter()
        .map(|member| {
            let folder = format!("published/2022-04-07T0300Z/member{member}");
            assert!(
                site.path(&format!("{folder}/surface.zarr/.zmetadata"))
                    .is_file()
            );
            assert!(!site.path(&format!("{folder}/surface.zarr/u10m")).exists());
            let manifest = site.path(&format!("{folder}/surface.zarr.manifest.json"));
            let record: serde_json::Value =
                serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
            record["seed"].clone()
        })
        .collect();
    assert_ne!(seeds[0], seeds[1]);
}

#[test]
fn damage_to_what_is_published_is_seen() {
    let site = Site::with_example();
    site.run("danra", &[]).expect(0, &["published"]);
    fs::remove_file(site.path("published/2022-04-07T0300Z/member0/surface.zarr/t2m/c/3/0/0"))
        .unwrap();
    site.run("danra", &[])
        .expect(31, &["t2m/c/3/0/0", "missing"]);
}

#[test]
fn static_features_that_are_inside_the_model_need_no_input() {
    let site = Site::with_example();
    site.configure(
        "danra",
        &example_configuration().replace(", danra.danra_static", ""),
    );
    oracle(
        "spoil.py",
        &[
            site.path("store/single_levels.zarr").to_str().unwrap(),
            "drop",
            "orography",
        ],
    );
    site.run("danra", &["--forecast-duration", "PT3H"])
        .expect(0, &["published"]);
}

#[test]
fn dry_run_prints_the_plan_and_touches_nothing() {
    let site = Site::with_example();
    let done = site.run("danra", &["--dry-run"]).expect(0, &[]);
    let plan: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(plan["tasks"][0]["environment"]["NUM_EVAL_STEPS"], "6");
    assert!(!site.path("mlwm-work").exists());
    assert!(!site.path("published").exists());
}

#[test]
fn a_killed_run_is_finished_by_the_same_command() {
    let site = Site::with_example();
    for wait in [0, 100, 300, 600, 1000, 1500] {
        let mut child = site
            .command(&["run", "--analysis-time", "2022-04-07T03:00Z"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    site.run("danra", &[]).expect(0, &["published"]);
    let forecast = site.path("published/2022-04-07T0300Z/member0/surface.zarr");
    oracle(
        "compare.py",
        &[forecast.to_str().unwrap(), expected().to_str().unwrap()],
    );
    let markers: Vec<String> = site
        .files("published")
        .into_iter()
        .filter(|name| name.contains("publishing"))
        .collect();
    assert_eq!(markers, Vec::<String>::new());
}
