//! Images are taken by every program that takes images, by registries of all kinds, and are the same
//! wherever and by whomever they are built.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use mlwm_tests::images::{
    base_layout, configuration_on, digest_at, digest_in, site_on, small_base, tool,
};
use mlwm_tests::registry::Registry;
use mlwm_tests::site::{Ran, Site, program, ran, sha256};
use serde_json::{Value, json};

/// user:pass and user:wrong in base64.
const LOGIN: &str = "dXNlcjpwYXNz";
const WRONG_LOGIN: &str = "dXNlcjp3cm9uZw==";

fn log_in(site: &Site, host: &str, login: &str) {
    fs::create_dir_all(site.path("docker")).unwrap();
    let logins = json!({"auths": {host: {"auth": login}}}).to_string();
    fs::write(site.path("docker/config.json"), logins).unwrap();
}

/// Runs `mlwm` where the certificates in a file are trusted.
fn trusting(site: &Site, certificates: &Path, arguments: &[&str]) -> Ran {
    let mut command = site.command(arguments);
    ran(&command.env("SSL_CERT_FILE", certificates).output().unwrap())
}

#[test]
fn a_registry_with_encryption_and_a_password_has_base_and_image() {
    let (server, certificate) = Registry::with_tls_and_password();
    let host = server.host.as_str();
    let site = site_on("oci:base:v1");
    small_base(&site.path("base"), "amd64", "first");
    // skopeo looks for certificates in a folder.
    let trusted = site.path("trusted");
    fs::create_dir(&trusted).unwrap();
    fs::copy(&certificate, trusted.join("ca.crt")).unwrap();
    let trusted = trusted.to_str().unwrap();
    let seen = |name: &str| {
        let place = format!("docker://{host}/{name}");
        digest_at(&place, &["--cert-dir", trusted, "--creds", "user:pass"])
    };

    // A base from this machine, the wrong certificate, then the wrong login.
    let image = format!("{host}/models/danra:v1");
    let push = ["image", "build", "danra", "--push", &image];
    let (_, other_certificate) = Registry::with_tls();
    log_in(&site, host, LOGIN);
    trusting(&site, &other_certificate, &push).expect(30, &[host, "certificate"]);
    log_in(&site, host, WRONG_LOGIN);
    let refused = trusting(&site, &certificate, &push).expect(30, &["docker login", host]);
    for secret in ["wrong", WRONG_LOGIN] {
        assert!(!refused.stderr.contains(secret), "{}", refused.stderr);
    }
    fs::remove_dir_all(site.path("docker")).unwrap();
    trusting(&site, &certificate, &push).expect(30, &["docker login", host]);
    assert_eq!(seen("models/danra:v1"), None);

    log_in(&site, host, LOGIN);
    let pushed = trusting(&site, &certificate, &push).expect(0, &[]);
    assert_eq!(seen("models/danra:v1"), Some(digest_in(&pushed.stdout)));
    trusting(&site, &certificate, &push).expect(0, &["(unchanged)"]);

    // A base in the registry.
    let (layout, base) = (site.path("base"), format!("{host}/bases/small:v1"));
    let layout = format!("oci:{}:v1", layout.display());
    let to = format!("docker://{base}");
    let credentials = ["--dest-cert-dir", trusted, "--dest-creds", "user:pass"];
    let mut arguments = vec!["copy", "--quiet"];
    arguments.extend(credentials);
    arguments.extend([layout.as_str(), to.as_str()]);
    tool("skopeo", &arguments);
    site.configure("danra", &configuration_on(&base, "mlwm-test/danra:latest"));
    let image = format!("{host}/models/danra:v2");
    let push = ["image", "build", "danra", "--push", &image];
    trusting(&site, &other_certificate, &push).expect(30, &[host, "certificate"]);
    log_in(&site, host, WRONG_LOGIN);
    trusting(&site, &certificate, &push).expect(30, &["docker login", host]);
    assert_eq!(seen("models/danra:v2"), None);
    log_in(&site, host, LOGIN);
    let pushed = trusting(&site, &certificate, &push).expect(0, &[]);
    assert_eq!(seen("models/danra:v2"), Some(digest_in(&pushed.stdout)));
    trusting(&site, &certificate, &push).expect(0, &["(unchanged)"]);

    // All of it arrived, as another program finds that checks each layer.
    let copied = format!("oci:{}:v2", site.path("copied").display());
    let from = format!("docker://{image}");
    let credentials = ["--src-cert-dir", trusted, "--src-creds", "user:pass"];
    let mut arguments = vec!["copy", "--quiet"];
    arguments.extend(credentials);
    arguments.extend([from.as_str(), copied.as_str()]);
    tool("skopeo", &arguments);
    // The login is in no document, journal or other file that mlwm wrote.
    fs::remove_dir_all(site.path("docker")).unwrap();
    let grep = Command::new("grep")
        .args(["--recursive", "--files-with-matches", LOGIN])
        .arg(site.path("."))
        .output()
        .unwrap();
    assert_eq!(
        ran(&grep).code,
        1,
        "{}",
        String::from_utf8_lossy(&grep.stdout)
    );
}

/// An image of an engine that is removed when the test ends.
struct Cleanup(&'static str, String);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let _ = Command::new(self.0).args(["rmi", "-f", &self.1]).output();
    }
}

/// The output of `mlwm-runner --version` on this machine.
fn runner_version() -> String {
    tool(program("mlwm-runner").to_str().unwrap(), &["--version"])
}

#[test]
fn docker_runs_it_and_shows_its_labels_and_no_secret() {
    let planted = "AKIAPLANTED0KEY0ID00";
    let reference = format!("mlwm-test/places-{}:latest", std::process::id());
    let _cleanup = Cleanup("docker", reference.clone());
    let base = format!("oci:{}:v1", base_layout().display());
    let mut site = Site::new();
    fs::copy(mlwm_tests::site::example_artifact(), site.path("danra.zip")).unwrap();
    site.configure("danra", &configuration_on(&base, &reference));
    site.env("AWS_ACCESS_KEY_ID", planted);
    log_in(&site, "registry.example.org", LOGIN);
    let built = site
        .mlwm(&["image", "build", "danra"])
        .expect(0, &[&reference]);

    let run = [
        "run",
        "--rm",
        "--network",
        "none",
        "--read-only",
        "--user",
        "65534:65534",
    ];
    let mut arguments = run.to_vec();
    arguments.extend([reference.as_str(), "--version"]);
    assert_eq!(tool("docker", &arguments), runner_version());
    let inspected = tool("docker", &["image", "inspect", &reference]);
    let history = tool("docker", &["history", "--no-trunc", &reference]);
    for secret in [planted, LOGIN] {
        assert!(!inspected.contains(secret), "{inspected}");
        assert!(!history.contains(secret), "{history}");
    }
    let image: Value = serde_json::from_str(&inspected).unwrap();
    let (config, labels) = (&image[0]["Config"], &image[0]["Config"]["Labels"]);
    assert_eq!(config["Entrypoint"], json!(["/opt/mlwm/bin/mlwm-runner"]));
    let names = |config: &Value| -> Vec<String> {
        let entries = config["Env"].as_array().into_iter().flatten();
        let names = entries.flat_map(|entry| entry.as_str()?.split('=').next());
        names.map(str::to_owned).collect()
    };
    let of_base = tool("skopeo", &["inspect", "--config", &base]);
    let of_base: Value = serde_json::from_str(&of_base).unwrap();
    let mut expected = names(&of_base["config"]);
    expected.push("ORT_DYLIB_PATH".to_owned());
    assert_eq!(names(config), expected);
    let yaml = sha256(&site.path("configurations/danra/config.yaml"));
    let base_digest = digest_at(&base, &[]).unwrap();
    for (name, value) in [
        ("io.mlwm.configuration", "danra"),
        ("io.mlwm.configuration.digest", &yaml),
        ("io.mlwm.artifact.name", "danra"),
        ("io.mlwm.artifact.digest", &sha256(&site.path("danra.zip"))),
        ("io.mlwm.runner.digest", &sha256(&program("mlwm-runner"))),
        ("io.mlwm.contract", "1"),
        ("org.opencontainers.image.created", "1970-01-01T00:00:00Z"),
        ("org.opencontainers.image.base.name", &base),
        ("org.opencontainers.image.base.digest", &base_digest),
    ] {
        assert_eq!(labels[name], value, "{name}");
    }
    site.mlwm(&["image", "build", "danra"])
        .expect(0, &["(unchanged)", &digest_in(&built.stdout)]);
}

#[test]
fn podman_takes_and_runs_it() {
    let site = site_on(&format!("oci:{}:v1", base_layout().display()));
    site.mlwm(&["image", "build", "danra", "--output", "oci:out"])
        .expect(0, &[]);
    let layout = format!("oci:{}:danra", site.path("out").display());
    let reference = format!("localhost/mlwm-test/places-{}:v1", std::process::id());
    let stored = format!("containers-storage:{reference}");
    let _cleanup = Cleanup("podman", reference.clone());
    tool("skopeo", &["copy", "--quiet", &layout, &stored]);
    let shown = site
        .mlwm(&["image", "inspect", "oci:out:danra", "--json"])
        .json();
    let id = tool(
        "podman",
        &["image", "inspect", "--format", "{{.Id}}", &reference],
    );
    assert_eq!(shown["id"], format!("sha256:{}", id.trim()));
    // Where this machine does not let limits be raised, podman's own cannot be set.
    let mut run = vec![
        "run",
        "--rm",
        "--network",
        "none",
        "--read-only",
        "--cap-drop",
        "all",
    ];
    run.extend([
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
    ]);
    run.extend([reference.as_str(), "--version"]);
    assert_eq!(tool("podman", &run), runner_version());
    // The same image as an archive.
    let archive = site.path("image.tar").display().to_string();
    let other = reference.replace(":v1", ":v2");
    let _cleanup_other = Cleanup("podman", other.clone());
    let packed = format!("oci-archive:{archive}:{other}");
    tool("skopeo", &["copy", "--quiet", &layout, &packed]);
    tool("podman", &["load", "--quiet", "--input", &archive]);
    let loaded = tool(
        "podman",
        &["image", "inspect", "--format", "{{.Id}}", &other],
    );
    assert_eq!(loaded, id);
}

/// A copy of a project: a small base, an artifact, a configuration, and the programs.
struct Project {
    site: Site,
    user: Option<u32>,
    umask: &'static str,
}

impl Project {
    fn new(user: Option<u32>, umask: &'static str, date: &str) -> Self {
        let site = site_on("oci:base:v1");
        small_base(&site.path("base"), "amd64", "first");
        for name in ["mlwm", "mlwm-runner"] {
            fs::copy(program(name), site.path(name)).unwrap();
        }
        fs::copy(onnxruntime(), site.path("libonnxruntime.so")).unwrap();
        let project = Self { site, user, umask };
        project.shell(&format!(
            "find . -exec touch --date '{date}' {{}} + && chmod -R go-rwx ."
        ));
        if let Some(user) = user {
            give(&project.site.path("."), user);
        }
        project
    }

    /// The command of this project, as its user.
    fn build(&self, more: &[(&str, &str)]) -> String {
        let script = format!(
            "umask {} && exec ./mlwm image build danra --output oci:out",
            self.umask
        );
        let mut command = match self.user {
            None => Command::new("sh"),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", &user.to_string(), "--regid", &user.to_string()]);
                command.args(["--clear-groups", "sh"]);
                command
            }
        };
        let home = self.site.path(".");
        command
            .args(["-c", &script])
            .current_dir(&home)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", &home)
            .env("XDG_CACHE_HOME", self.site.path("cache"))
            .envs(more.iter().copied());
        digest_in(&ran(&command.output().unwrap()).expect(0, &[]).stdout)
    }

    /// The SHA-256 of every file of the layout.
    fn bytes(&self) -> String {
        self.shell("cd out && find . -type f -exec sha256sum {} + | sort")
    }

    fn shell(&self, script: &str) -> String {
        let output = Command::new("sh")
            .args(["-c", script])
            .current_dir(self.site.path("."))
            .output()
            .unwrap();
        ran(&output).expect(0, &[]).stdout
    }
}

fn onnxruntime() -> PathBuf {
    match std::env::var_os("MLWM_ONNXRUNTIME") {
        Some(path) => path.into(),
        None => {
            let home = std::env::var("HOME").unwrap();
            Path::new(&home).join(".cache/mlwm/onnxruntime/1.31.1/libonnxruntime.so")
        }
    }
}

fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), user);
        }
    }
}

/// Two copies of a project, of two users if the test may become another one.
#[test]
fn the_same_bytes_for_another_user_in_another_folder() {
    let root = tool("id", &["--user"]).trim() == "0";
    let one = Project::new(None, "022", "2020-02-02 02:02");
    let other = Project::new(root.then_some(65534), "077", "2024-04-04 04:04");
    let mode = |project: &Project, file: &str| {
        fs::metadata(project.site.path(file))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    let first = one.build(&[("TZ", "Pacific/Apia"), ("LANG", "C")]);
    let second = other.build(&[("TZ", "UTC"), ("LANG", "de_DE.UTF-8")]);
    assert_eq!(first, second);
    assert_eq!(one.bytes(), other.bytes());
    assert_ne!(
        mode(&one, "out"),
        mode(&other, "out"),
        "the umask was another one"
    );

    // A time that is given is part of the image, and the same everywhere, too.
    let time = [("SOURCE_DATE_EPOCH", "1700000000")];
    let (first, second) = (one.build(&time), other.build(&time));
    assert_eq!(first, second);
    assert_ne!(first, one.build(&[]));
    let source = format!("oci:{}:danra", one.site.path("out").display());
    one.build(&time);
    let created = tool("skopeo", &["inspect", "--format", "{{.Created}}", &source]);
    assert!(created.starts_with("2023-11-14 22:13:20"), "{created}");
}
