//! CI builds, tests and pushes the image of every model that changed: the script, and the steps of
//! the workflows as they stand in their files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use mlwm_tests::registry::{LOGIN, Registry};
use mlwm_tests::site::{Ran, Site, copy, example, program, python, ran, repository};
use serde_json::Value;

/// A clone of this project in which `mlwm` is built: its scripts, workflows and configurations, with
/// the images under a name of this test.
fn clone(image: &str) -> Site {
    let site = Site::new();
    copy(&repository().join("ci"), &site.path("ci"));
    for script in ["images", "bundled-artifact"] {
        let mode = fs::metadata(repository().join("ci").join(script)).unwrap();
        fs::set_permissions(site.path("ci").join(script), mode.permissions()).unwrap();
    }
    fs::create_dir_all(site.path("target/release")).unwrap();
    symlink(program("mlwm"), site.path("target/release/mlwm")).unwrap();
    symlink(example("").parent().unwrap(), site.path("examples")).unwrap();
    copy(
        &repository().join("configurations"),
        &site.path("configurations"),
    );
    let path = site.path("configurations/danra_graph_lam/config.yaml");
    let yaml = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("docker_image: {image}\n{yaml}")).unwrap();
    site
}

/// Runs a script as a step of CI, with these variables.
fn bash(site: &Site, script: &str, variables: &[(&str, &str)]) -> Ran {
    let output = Command::new("bash")
        .current_dir(site.path(""))
        .args(["-e", "-o", "pipefail", "-c", script])
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            !name.starts_with("GITHUB_")
                && (!name.starts_with("MLWM_") || name == "MLWM_ONNXRUNTIME")
        }))
        .env("XDG_CACHE_HOME", site.path("cache"))
        .env("DOCKER_CONFIG", site.path("docker"))
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    ran(&output)
}

/// A YAML file, as PyYAML reads it.
fn yaml(path: &Path) -> Value {
    // A key `on` is true in YAML 1.1, and JSON has texts alone for keys.
    let script = "import json, sys, yaml\n\
                  print(json.dumps(yaml.safe_load(open(sys.argv[1])), default=str))";
    let output = Command::new(python())
        .args(["-c", script])
        .arg(path)
        .output();
    ran(&output.unwrap()).expect(0, &[]).json()
}

/// The script of a step of a job of the GitHub workflow.
fn github(job: &str, step: &str) -> String {
    let workflow = yaml(&repository().join(".github/workflows/images.yml"));
    let steps = workflow["jobs"][job]["steps"].as_array().unwrap();
    let found = steps.iter().find(|one| one["name"] == step);
    let found = found.unwrap_or_else(|| panic!("{job} has no step {step}"));
    found["run"].as_str().unwrap().to_owned()
}

/// The lines of the script of a GitLab job.
fn gitlab(file: &str, job: &str, part: &str) -> Vec<String> {
    let pipeline = yaml(&repository().join(file));
    let lines = pipeline[job][part].as_array().unwrap();
    let lines = lines.iter().map(|line| line.as_str().unwrap().to_owned());
    lines.collect()
}

/// The tags of a repository, by skopeo; none if it is not there.
fn tags(server: &Registry, repository: &str) -> Vec<String> {
    let (user, password) = LOGIN;
    let output = Command::new("skopeo")
        .args(["list-tags", "--tls-verify=false", "--creds"])
        .arg(format!("{user}:{password}"))
        .arg(format!("docker://{}/{repository}", server.host))
        .output();
    let listed = ran(&output.unwrap());
    match listed.code {
        0 => {
            let tags = listed.json()["Tags"].as_array().unwrap().clone();
            tags.iter()
                .map(|tag| tag.as_str().unwrap().to_owned())
                .collect()
        }
        _ => Vec::new(),
    }
}

/// What skopeo says of an image.
fn inspect(server: &Registry, image: &str) -> Value {
    let (user, password) = LOGIN;
    let output = Command::new("skopeo")
        .args(["inspect", "--tls-verify=false", "--creds"])
        .arg(format!("{user}:{password}"))
        .arg(format!("docker://{}/{image}", server.host))
        .output();
    ran(&output.unwrap()).expect(0, &[]).json()
}

/// Removes an image from the engine, if it is there.
struct Image(&'static str);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", self.0]).output();
    }
}

#[test]
fn the_matrix_of_the_workflows_is_the_configurations() {
    let site = clone("mlwm-test/ci-matrix:latest");
    let output = site.path("github-output");
    let script = github("models", "List the models");
    bash(
        &site,
        &script,
        &[("GITHUB_OUTPUT", output.to_str().unwrap())],
    )
    .expect(0, &[]);
    let said = fs::read_to_string(output).unwrap();
    let names = said.trim_end().strip_prefix("names=").unwrap();
    let names: Vec<String> = serde_json::from_str(names).unwrap();
    let mut folders: Vec<String> = fs::read_dir(repository().join("configurations"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    assert_eq!(names, folders);

    let lines = gitlab(".gitlab-ci.yml", "models", "script");
    assert!(lines[0].starts_with("cargo build "), "{lines:?}");
    bash(&site, &lines[1..].join("\n"), &[]).expect(0, &[]);
    let child = yaml(&site.path("images.yml"));
    assert_eq!(child["include"][0]["local"], "ci/gitlab-image.yml");
    for name in &names {
        let job = &child[format!("image of {name}")];
        assert_eq!(job["extends"], ".image");
        assert_eq!(job["variables"]["MODEL"], name.as_str());
    }
    assert_eq!(child.as_object().unwrap().len(), names.len() + 1);
    assert!(yaml(&repository().join("ci/gitlab-image.yml"))[".image"].is_object());
}

#[test]
fn secrets_reach_steps_by_their_environment_alone() {
    let workflow = yaml(&repository().join(".github/workflows/images.yml"));
    let mut secrets = 0;
    for job in workflow["jobs"].as_object().unwrap().values() {
        for step in job["steps"].as_array().unwrap() {
            let run = step["run"].as_str().unwrap_or_default();
            // What an expression says would become part of the command.
            assert!(!run.contains("${{"), "{run}");
            secrets += usize::from(step["env"].to_string().contains("secrets."));
            assert!(run.contains("--password-stdin") || !step.to_string().contains("secrets."));
        }
    }
    assert_eq!(secrets, 1);
}

#[test]
fn a_run_on_github_pushes_what_changed_and_a_pull_request_nothing() {
    let image = Image("mlwm-test/ci-github:latest");
    let server = Registry::with_password();
    let site = clone(image.0);
    let (user, password) = LOGIN;
    let mut variables = vec![
        ("REGISTRY", server.host.as_str()),
        ("MODEL", "danra_graph_lam"),
        ("GITHUB_ACTOR", user),
        ("TOKEN", password),
        ("GITHUB_REPOSITORY", "Forecasts/Models"),
        ("GITHUB_SERVER_URL", "https://git.example.org"),
        ("GITHUB_SHA", "57a0013"),
        ("GITHUB_EVENT_NAME", "pull_request"),
    ];
    let artifact = github("image", "Build the artifact of the bundled model");
    bash(&site, &artifact, &variables).expect(0, &["sha256:"]);
    let login = github("image", "Log in");
    let said = bash(&site, &login, &variables).expect(0, &["Login Succeeded"]);
    let all = format!("{} {}", said.stdout, said.stderr);
    assert!(
        !all.split_whitespace().any(|word| word == password),
        "{all}"
    );

    let step = github("image", "Build, test and push");
    let proposed = bash(&site, &step, &variables).expect(0, &["danra_graph_lam: built"]);
    assert!(proposed.stdout.contains("rebuild: no image there"));
    assert!(proposed.stdout.contains("largest difference"));
    let repository = "forecasts/models/danra_graph_lam";
    assert_eq!(tags(&server, repository), Vec::<String>::new());

    variables.pop();
    variables.push(("GITHUB_EVENT_NAME", "push"));
    bash(&site, &step, &variables).expect(0, &["danra_graph_lam: pushed"]);
    assert_eq!(tags(&server, repository), ["latest"]);
    let pushed = inspect(&server, &format!("{repository}:latest"));
    let labels = &pushed["Labels"];
    assert_eq!(
        labels["org.opencontainers.image.source"],
        "https://git.example.org/Forecasts/Models"
    );
    assert_eq!(labels["org.opencontainers.image.revision"], "57a0013");
    let zip = site.path("demo/artifacts/danra_graph_lam.zip");
    assert_eq!(
        labels["io.mlwm.artifact.digest"],
        mlwm_tests::site::sha256(&zip)
    );

    // A later revision in which nothing of the model changed.
    variables.push(("GITHUB_SHA", "9484d95"));
    let again = bash(&site, &step, &variables).expect(0, &["danra_graph_lam: up to date"]);
    assert!(!again.stderr.contains("image build"), "{}", again.stderr);
    let after = inspect(&server, &format!("{repository}:latest"));
    assert_eq!(after["Digest"], pushed["Digest"]);
}

#[test]
fn a_run_on_gitlab_pushes_from_the_default_branch() {
    let image = Image("mlwm-test/ci-gitlab:latest");
    let server = Registry::with_password();
    let site = clone(image.0);
    let (user, password) = LOGIN;
    let place = format!("{}/forecasts/models", server.host);
    let mut variables = vec![
        ("MODEL", "danra_graph_lam"),
        ("CI_REGISTRY", server.host.as_str()),
        ("CI_REGISTRY_IMAGE", &place),
        ("CI_REGISTRY_USER", user),
        ("CI_REGISTRY_PASSWORD", password),
        ("CI_PROJECT_URL", "https://git.example.org/forecasts/models"),
        ("CI_COMMIT_SHA", "57a0013"),
        ("CI_DEFAULT_BRANCH", "main"),
        ("CI_COMMIT_BRANCH", "idea"),
    ];
    let script = gitlab("ci/gitlab-image.yml", ".image", "script").join("\n");
    bash(&site, &script, &variables).expect(0, &["danra_graph_lam: built"]);
    let repository = "forecasts/models/danra_graph_lam";
    assert_eq!(tags(&server, repository), Vec::<String>::new());
    variables.pop();
    variables.push(("CI_COMMIT_BRANCH", "main"));
    bash(&site, &script, &variables).expect(0, &["danra_graph_lam: pushed"]);
    assert_eq!(tags(&server, repository), ["latest"]);
}

#[test]
fn one_model_that_fails_does_not_keep_the_others_back_nor_is_it_pushed() {
    let image = Image("mlwm-test/ci-several:latest");
    let wrong = Image("mlwm-test/ci-several-wrong:latest");
    let server = Registry::open();
    let site = clone(image.0);
    bash(&site, "ci/bundled-artifact", &[]).expect(0, &[]);

    // The same model, of which a golden case expects another forecast.
    fs::remove_file(site.path("examples")).unwrap();
    let example = site.path("examples/neural-lam");
    copy(&mlwm_tests::site::example(""), &example);
    let script = "import xarray as xr, shutil\n\
        path = 'examples/neural-lam/golden/expected/surface.zarr'\n\
        expected = xr.open_zarr(path, consolidated=False).load()\n\
        expected.u10m[0, 5, 5] -= 0.1\n\
        shutil.rmtree(path)\n\
        expected.drop_encoding().to_zarr(path, zarr_format=2, consolidated=False)\n";
    let output = Command::new(python())
        .current_dir(site.path(""))
        .args(["-c", script])
        .output();
    ran(&output.unwrap()).expect(0, &[]);
    let artifact = site.path("demo/artifacts/danra_graph_lam.zip");
    let right = site.path("right.zip");
    fs::rename(&artifact, &right).unwrap();
    bash(&site, "ci/bundled-artifact", &[]).expect(0, &[]);
    fs::rename(&artifact, site.path("wrong.zip")).unwrap();
    fs::rename(&right, &artifact).unwrap();
    let path = site.path("configurations/danra_graph_lam/config.yaml");
    let yaml = fs::read_to_string(path).unwrap();
    let other = yaml
        .replace(image.0, wrong.0)
        .replace("demo/artifacts/danra_graph_lam.zip", "wrong.zip");
    // It comes first.
    site.configure("a_wrong_model", &other);

    let push = format!("ci/images --push '{}/m/{{name}}:v1'", server.host);
    let done = bash(&site, &push, &[]).expect(
        24,
        &[
            "failed   a_wrong_model: did not pass its golden case (exit code 24)",
            "ok       danra_graph_lam: pushed",
            "skipped  surface_dummy_DINI",
        ],
    );
    assert!(done.stdout.contains("u10m"), "{}", done.stdout);
    assert_eq!(tags(&server, "m/danra_graph_lam"), ["v1"]);
    assert_eq!(tags(&server, "m/a_wrong_model"), Vec::<String>::new());

    // A lock that does not fit any more, and one that does.
    let mlwm = program("mlwm").display().to_string();
    bash(&site, &format!("{mlwm} image lock a_wrong_model"), &[]).expect(0, &[]);
    fs::copy(&artifact, site.path("wrong.zip")).unwrap();
    bash(&site, &format!("{push} a_wrong_model"), &[])
        .expect(13, &["failed   a_wrong_model: the lock does not fit"]);
    bash(&site, &format!("{mlwm} image lock a_wrong_model"), &[]).expect(0, &[]);
    bash(&site, &format!("{push} a_wrong_model"), &[]).expect(0, &["a_wrong_model: pushed"]);
    // Without a golden case it is pushed untested, or refused.
    let plain = mlwm_tests::site::example_artifact();
    fs::copy(plain, site.path("wrong.zip")).unwrap();
    fs::remove_file(site.path("configurations/a_wrong_model/mlwm.lock")).unwrap();
    bash(
        &site,
        &format!("{push} --require-golden a_wrong_model"),
        &[],
    )
    .expect(13, &["did not pass its golden case", "--golden"]);
    bash(&site, &format!("{push} a_wrong_model"), &[]).expect(0, &["not tested", "pushed"]);
}

#[test]
fn what_cannot_be_understood_is_said_before_anything_is_done() {
    let site = clone("mlwm-test/ci-usage:latest");
    bash(&site, "ci/images --nonsense", &[]).expect(2, &["usage: ci/images"]);
    bash(&site, "ci/images --help", &[]).expect(0, &["usage: ci/images", "--require-golden"]);
    bash(&site, "ci/images", &[("MLWM", "/no/such/mlwm")]).expect(2, &["there is no mlwm"]);
    bash(&site, "ci/images --push 127.0.0.1:1/all:v1", &[]).expect(2, &["put {name} into it"]);
    bash(&site, "ci/images nobody", &[]).expect(10, &["failed   nobody", "no configuration"]);
}
