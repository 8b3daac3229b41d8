//! A configuration brings a `Containerfile`: its environment is built without telling secrets, and
//! searched for them before it goes anywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mlwm_tests::images::{tool, tried};
use mlwm_tests::site::{Ran, Site, example_configuration};

const BASE: &str = "mlwm-base:bookworm";

/// What looks like a token; put together here, so that no scanner finds it in this file.
fn token() -> String {
    ["ghp_", "Zq3vR8tLm5xW2nB7kD4jF9hG6sA1pC0eYuTi"].concat()
}

/// A site with a configuration of this name, on a base if one is given.
struct Own {
    site: Site,
    name: &'static str,
}

impl Own {
    fn new(name: &'static str, base: Option<&str>, instructions: &str) -> Self {
        let site = Site::with_example();
        let yaml = example_configuration();
        let lines = yaml.lines().filter(|line| !line.starts_with("base_image:"));
        let yaml: Vec<&str> = lines.collect();
        let image = format!("mlwm-test/{name}:latest");
        let yaml = yaml.join("\n").replace("mlwm-test/danra:latest", &image);
        let base_image = base.map(|base| format!("\nbase_image: \"{base}\"\n"));
        site.configure(name, &format!("{yaml}\n{}", base_image.unwrap_or_default()));
        let own = Self { site, name };
        own.write("Containerfile", instructions);
        own
    }

    fn write(&self, path: &str, text: &str) {
        let path = format!("configurations/{}/{path}", self.name);
        let path = self.site.path(&path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn build(&self, more: &[&str]) -> Ran {
        let mut arguments = vec!["image", "build", self.name];
        arguments.extend(more);
        self.site.mlwm(&arguments)
    }

    fn image(&self) -> String {
        format!("mlwm-test/{}:latest", self.name)
    }

    /// What Docker has of it, environments and images.
    fn in_docker(&self) -> Vec<String> {
        let environments = format!("mlwm-environment/{}", self.name);
        let mut found = Vec::new();
        for reference in [environments, format!("mlwm-test/{}", self.name)] {
            let format = "{{.Repository}}:{{.Tag}}";
            let listed = tool("docker", &["images", "--format", format, &reference]);
            found.extend(listed.lines().map(str::to_owned));
        }
        found
    }

    fn remove(&self) {
        for reference in self.in_docker() {
            tool("docker", &["rmi", "--force", &reference]);
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.remove();
        }
    }
}

/// Instructions that no engine has carried out before: it would use what came of them then.
fn anew(instructions: &str) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    format!(
        "ARG BASE\nFROM ${{BASE}}\nENV BUILT={}\n{instructions}\n",
        now.as_nanos()
    )
}

/// Whether an archive holds a text, its layers included.
fn holds(archive: &[u8], text: &str) -> bool {
    let text = text.as_bytes();
    archive.windows(text.len()).any(|window| window == text)
}

const USES: &str = "RUN --mount=type=secret,id=token \
    sha256sum /run/secrets/token | cut -c1-64 >/opt/used; cat /run/secrets/token";

#[test]
fn a_step_reads_its_secret_which_is_then_nowhere() {
    let own = Own::new("reads-one", Some(BASE), &anew(USES));
    own.remove();
    let file = own.site.path("token");
    let value = token();
    fs::write(&file, &value).unwrap();
    own.build(&[])
        .expect(2, &["`token`", "--secret id=token,src=FILE"]);
    own.build(&["--secret", &value])
        .expect(2, &["id=NAME,src=FILE"]);
    assert_eq!(own.in_docker(), [""; 0], "nothing was built");

    let given = format!("id=token,src={}", file.display());
    let built = own.build(&["--secret", &given]).expect(0, &[&own.image()]);
    assert!(!format!("{}{}", built.stdout, built.stderr).contains(&value));
    let image = own.image();
    let used = tool("docker", &["run", "--rm", &image, "cat", "/opt/used"]);
    let digest = mlwm_tests::site::sha256(&file);
    assert_eq!(Some(used.trim()), digest.strip_prefix("sha256:"));
    for reference in own.in_docker() {
        let saved = Command::new("docker").args(["save", &reference]).output();
        let archive = saved.unwrap().stdout;
        assert!(holds(&archive, used.trim()), "{reference}");
        assert!(!holds(&archive, &value), "{reference} holds the secret");
    }
    let history = tool("docker", &["history", "--no-trunc", &image]);
    assert!(!history.contains(&value), "{history}");
    for path in own.site.files("") {
        let path = own.site.path(&path);
        if path != file && path.is_file() {
            assert!(!holds(&fs::read(&path).unwrap(), &value), "{path:?}");
        }
    }
    // Nothing is to be built, and no secret needed.
    own.build(&[]).expect(0, &["(unchanged)"]);
}

#[test]
fn steps_trust_the_certificates_of_a_network() {
    let counts = "RUN --mount=type=secret,id=ca-bundle F=/run/secrets/ca-bundle; \
                  if [ -s $F ]; then wc --bytes <$F; else echo none; fi >/opt/used";
    let own = Own::new("trusts", Some(BASE), &anew(counts));
    own.remove();
    let used = || tool("docker", &["run", "--rm", &own.image(), "cat", "/opt/used"]);
    fs::write(own.site.path("key.pem"), "-----BEGIN PUBLIC KEY-----").unwrap();
    own.build(&["--ca-bundle", "key.pem"])
        .expect(2, &["key.pem", "no certificate in PEM"]);
    own.build(&[]).expect(0, &[&own.image()]);
    assert_eq!(used().trim(), "none");

    own.write("Containerfile", &anew(counts));
    let bundle = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    fs::write(own.site.path("ca.pem"), bundle).unwrap();
    own.build(&["--ca-bundle", "ca.pem"])
        .expect(0, &[&own.image()]);
    assert_eq!(used().trim(), bundle.len().to_string());
}

#[test]
fn a_secret_that_steps_leave_in_the_image_is_found() {
    let value = token();
    for (instructions, variable, places) in [
        (
            "RUN --mount=type=secret,id=token echo \"token: $(cat /run/secrets/token)\" >/opt/a.yaml",
            value.as_str(),
            vec!["file /opt/a.yaml line 1 (a GitHub token)"],
        ),
        // It lies in the lower layer.
        (
            "RUN --mount=type=secret,id=token cp /run/secrets/token /opt/a.yaml\nRUN rm /opt/a.yaml",
            value.as_str(),
            vec!["file /opt/a.yaml line 1 (a GitHub token)"],
        ),
        // It looks like nothing, in a file that is no text.
        (
            "RUN --mount=type=secret,id=token (printf 'a\\000'; cat /run/secrets/token) >/opt/a.bin",
            "correct horse battery",
            vec!["file /opt/a.bin (a secret that the build was given)"],
        ),
    ] {
        let mut own = Own::new("leaks-one", Some(BASE), &anew(instructions));
        own.site.env("MLWM_TEST_TOKEN", variable);
        let given = ["--secret", "id=token,env=MLWM_TEST_TOKEN"];
        for _ in 0..2 {
            let refused = own.build(&given).expect(31, &places);
            assert!(!refused.stderr.contains(variable), "{}", refused.stderr);
        }
        let images = own.in_docker();
        assert!(
            images.iter().all(|image| *image != own.image()),
            "{images:?}"
        );
        let mut allowing = given.to_vec();
        let place = places[0].split(" (").next().unwrap();
        allowing.extend(["--allow-secret", place]);
        if place.contains("line") {
            allowing.extend(["--allow-secret", "file /opt/a.yaml"]);
        }
        own.build(&allowing).expect(0, &[]);
    }
}

#[test]
fn what_the_base_has_is_no_secret_of_ours() {
    // A plain system is searched in seconds, and holds nothing.
    let plain = Own::new(
        "plain-base",
        None,
        &format!("FROM {BASE}\nRUN echo a >/opt/a\n"),
    );
    let start = Instant::now();
    plain.build(&[]).expect(0, &[]);
    let first = start.elapsed();
    assert!(first < Duration::from_secs(120), "{first:?}");
    plain.build(&[]).expect(0, &["(unchanged)"]);

    // What another image has is found if the configuration does not say that it is its base.
    let secret = format!("FROM {BASE}\nRUN echo 'token: {}' >/opt/t.yaml\n", token());
    let folder = mlwm_tests::scratch::folder();
    fs::write(folder.path().join("Dockerfile"), secret).unwrap();
    let at = folder.path().to_str().unwrap();
    let base = "mlwm-test/base-with-token:latest";
    tool("docker", &["build", "--quiet", "--tag", base, at]);
    let on = format!("FROM {base}\nRUN echo a >/opt/a\n");
    let unsaid = Own::new("unsaid-base", None, &on);
    unsaid.build(&[]).expect(31, &["file /opt/t.yaml line 1"]);
    let said = "ARG BASE\nFROM ${BASE}\nRUN echo a >/opt/a\n";
    let said = Own::new("said-base", Some(base), said);
    // The history tells of it all the same, as the command is in it.
    let refused = said.build(&[]).expect(31, &["history"]);
    assert!(
        !refused.stderr.contains("/opt/t.yaml"),
        "{}",
        refused.stderr
    );
    tool("docker", &["rmi", "--force", base]);
}

#[test]
fn ignored_files_are_not_there_and_change_nothing() {
    let own = Own::new("ignores", Some(BASE), &anew("COPY . /opt/context"));
    own.write(
        ".dockerignore",
        "# of no use there\n**/*.log\nlogs\n!keep.log\n",
    );
    for path in [
        "run.py",
        "run.log",
        "keep.log",
        "logs/a",
        "a/b/c.log",
        "a/b/c.py",
    ] {
        own.write(path, "text\n");
    }
    own.build(&[]).expect(0, &[]);
    let find = "cd /opt/context && find . -type f | sort | tr '\\n' ' '";
    let found = tool("docker", &["run", "--rm", &own.image(), "sh", "-c", find]);
    assert_eq!(
        found.trim(),
        "./Containerfile ./a/b/c.py ./keep.log ./run.py"
    );
    own.write("a/b/c.log", "other\n");
    own.build(&[]).expect(0, &["(unchanged)"]);
    own.write("a/b/c.py", "other\n");
    let again = own.build(&[]).expect(0, &[]);
    assert!(!again.stdout.contains("unchanged"), "{}", again.stdout);
    own.write(".dockerignore", "a[b\n");
    own.build(&[]).expect(10, &[".dockerignore", "`a[b`"]);
}

#[test]
fn what_cannot_be_built_says_why_and_leaves_nothing() {
    for (instructions, texts) in [
        (
            anew("RUN echo about to fail; exit 7"),
            vec!["about to fail", "exit code: 7"],
        ),
        (anew("FLY to /opt"), vec!["FLY"]),
        (anew("COPY absent /opt"), vec!["absent"]),
        (
            "FROM localhost:1/mlwm-test/absent:none\n".to_owned(),
            vec![
                "its base localhost:1/mlwm-test/absent:none is not in the engine",
                "docker pull",
            ],
        ),
        (String::new(), vec!["could not be built"]),
    ] {
        let own = Own::new("cannot-be-built", Some(BASE), &instructions);
        own.remove();
        own.build(&[]).expect(1, &texts);
        assert_eq!(own.in_docker(), [""; 0]);
    }
}

/// Podman's service with a storage of its own, for as long as this lives.
struct Podman {
    folder: PathBuf,
    service: Child,
}

const CONTAINERS_CONF: &str =
    "[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";

impl Podman {
    fn start() -> Self {
        // Kept between runs of the tests, so that the base is loaded once.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("environments-podman");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("containers.conf"), CONTAINERS_CONF).unwrap();
        let socket = folder.join("podman.sock");
        let _ = fs::remove_file(&socket);
        let service = Self::command(&folder)
            .args(["system", "service", "--time=0"])
            .arg(format!("unix://{}", socket.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("podman is needed for this test: run ci/setup");
        let start = Instant::now();
        while !socket.exists() {
            assert!(start.elapsed() < Duration::from_secs(30), "podman starts");
            std::thread::sleep(Duration::from_millis(50));
        }
        let podman = Self { folder, service };
        let exists = podman.podman().args(["image", "exists", BASE]).status();
        if !exists.unwrap().success() {
            let archive = podman.folder.join("base.tar");
            let archive = archive.to_str().unwrap();
            tool("docker", &["save", "--output", archive, BASE]);
            let loaded = podman.podman().args(["load", "--input", archive]).output();
            assert!(loaded.unwrap().status.success());
            fs::remove_file(archive).unwrap();
        }
        podman
    }

    fn command(folder: &Path) -> Command {
        let mut command = Command::new("podman");
        command
            .env("CONTAINERS_CONF", folder.join("containers.conf"))
            .args(["--root".as_ref(), folder.join("root").as_os_str()])
            .args(["--runroot".as_ref(), Self::runroot(folder).as_os_str()]);
        command
    }

    /// The same for the same folder, as Podman wants it, and short, since it takes 50 characters at most.
    fn runroot(folder: &Path) -> PathBuf {
        let mut hasher = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(folder, &mut hasher);
        let name = format!(
            "mlwm-podman-{:08x}",
            std::hash::Hasher::finish(&hasher) as u32
        );
        std::env::temp_dir().join(name)
    }

    fn podman(&self) -> Command {
        Self::command(&self.folder)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

#[test]
fn podman_builds_environments_too() {
    let podman = Podman::start();
    let engine = format!("unix://{}", podman.folder.join("podman.sock").display());
    let own = |instructions: &str| {
        let mut own = Own::new("by-podman", Some(BASE), instructions);
        own.site.env("DOCKER_HOST", &engine);
        own.site.env("MLWM_TEST_TOKEN", &token());
        own
    };
    let given = ["--secret", "id=token,env=MLWM_TEST_TOKEN"];
    let uses = own(&anew(&format!("{USES}\nCOPY . /opt/context")));
    uses.build(&[]).expect(2, &["--secret id=token,src=FILE"]);
    let mut to_layout = given.to_vec();
    to_layout.extend(["--output", "oci:out"]);
    let built = uses.build(&to_layout).expect(0, &["oci:out"]);
    assert!(!format!("{}{}", built.stdout, built.stderr).contains(&token()));
    let layout = format!("oci:{}", uses.site.path("out").display());
    let unpacked = uses.site.path("unpacked");
    tool(
        "skopeo",
        &[
            "copy",
            "--quiet",
            &layout,
            &format!("dir:{}", unpacked.display()),
        ],
    );
    let mut names = String::new();
    for blob in fs::read_dir(&unpacked).unwrap().flatten() {
        let path = blob.path();
        let listed = tried("tar", &["--list", "--file", path.to_str().unwrap()]);
        if listed.code == 0 {
            names.push_str(&listed.stdout);
            let mut content = Command::new("tar");
            content
                .args(["--extract", "--to-stdout", "--file"])
                .arg(&path);
            assert!(!holds(&content.output().unwrap().stdout, &token()));
        }
    }
    assert!(names.contains("opt/context/Containerfile"), "{names}");
    assert!(!names.contains(".secret-"), "{names}");

    let leaks = own(&anew(
        "RUN --mount=type=secret,id=token cp /run/secrets/token /opt/a.yaml",
    ));
    leaks.build(&given).expect(31, &["file /opt/a.yaml line 1"]);
    let fails = own(&anew("RUN echo about to fail; exit 7"));
    fails.build(&[]).expect(1, &["about to fail", "7"]);
    let absent = own("FROM localhost:1/mlwm-test/absent:none\n");
    absent
        .build(&[])
        .expect(1, &["localhost:1/mlwm-test/absent:none"]);
}
