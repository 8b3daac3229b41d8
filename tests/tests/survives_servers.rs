//! What a cycle needs dies while it runs: its store, its engine, itself together with its container.
//! The same command then finishes the work.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mlwm_spec::Manifest;
use mlwm_tests::counting_proxy::{CountingProxy, Direction};
use mlwm_tests::s3::S3Server;
use mlwm_tests::scripted::{image, no_container_left, scripted};
use mlwm_tests::site::{Ran, Site, python, ran, repository};
use serde_json::Value;

const TIME: &str = "2022-04-07T03:00Z";
const RUN: [&str; 3] = ["run", "--analysis-time", TIME];

/// Makes 200 objects of 20 kB beside the example's.
const MANY_OBJECTS: &str = "cp -r /in/surface.zarr/. /out/surface.zarr/; \
     mkdir /out/surface.zarr/more; \
     for i in $(seq 200); do printf '%20000d' $i > /out/surface.zarr/more/$i; done";

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_there() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{what} does not come"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn start(site: &Site) -> Child {
    let mut command = site.command(&RUN);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn end(run: Child) -> Ran {
    ran(&run.wait_with_output().unwrap())
}

/// Waits until the container has said something.
fn wait_for_container(site: &Site) {
    let begun = || {
        let logs = site.files("mlwm-work/log");
        logs.iter().any(|log| {
            let text = fs::read_to_string(site.path("mlwm-work/log").join(log));
            text.unwrap_or_default().contains("begun")
        })
    };
    wait_for("the container", begun);
}

fn attempts(site: &Site) -> Vec<Value> {
    let status = site.mlwm(&["status", "--analysis-time", TIME, "--json"]);
    let attempts = &status.json()["tasks"][0]["attempts"];
    attempts.as_array().unwrap().clone()
}

fn states(site: &Site) -> Vec<Value> {
    let attempts = attempts(site).into_iter();
    attempts.map(|attempt| attempt["state"].clone()).collect()
}

fn has_run(attempt: &Value) -> bool {
    let phases = attempt["phases"].as_array().unwrap();
    phases.iter().any(|phase| phase["name"] == "run")
}

/// Fails if a task is held by anybody: the newest claim of each is marked as let go.
#[track_caller]
fn no_claim_held(site: &Site) {
    let mut newest = BTreeMap::new();
    for file in site.files("mlwm-work/claims") {
        let (task, generation) = file.rsplit_once('.').unwrap();
        let generation: u64 = generation.parse().unwrap();
        let known = newest.entry(task.to_owned()).or_insert(0);
        *known = generation.max(*known);
    }
    assert!(!newest.is_empty());
    for (task, generation) in newest {
        let path = site.path(&format!("mlwm-work/claims/{task}.{generation}"));
        let claim: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(claim["released"], true, "{task}: {claim}");
    }
}

/// A site whose model makes the output `<folder>/surface.zarr` of a bucket, by way of an endpoint.
fn site_with_bucket(server: &S3Server, endpoint: &str, yaml: &str) -> Site {
    let mut site = Site::with_example();
    for (name, value) in server.environment() {
        site.env(name, &value);
    }
    site.env("AWS_ENDPOINT_URL", endpoint);
    site.configure("danra", yaml);
    site
}

fn to_bucket(image: &str, bucket: &str, folder: &str, retries: &str) -> String {
    format!(
        "docker_image: {image}
inputs:
  surface: {{uri: ./store/single_levels.zarr, internal_path: /in/surface.zarr}}
outputs:
  surface: {{uri: 's3://{bucket}/{folder}/surface.zarr', internal_path: /out/surface.zarr}}
retries: {retries}
"
    )
}

/// Every object below a folder of a bucket with its content, by a client that is not ours.
fn objects(server: &S3Server, bucket: &str, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let got = tempfile::tempdir().unwrap();
    let output = Command::new(python())
        .arg(repository().join("tests/oracles/objects.py"))
        .args(["get", bucket, folder])
        .arg(got.path())
        .envs(server.environment())
        .env_remove("AWS_CA_BUNDLE")
        .output()
        .unwrap();
    ran(&output).expect(0, &[]);
    let mut found = BTreeMap::new();
    collect(&got.path().join(folder), "", &mut found);
    found
}

fn collect(folder: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), found);
        } else {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
}

/// The data of a publication, which must be what its manifest says.
fn data(mut objects: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let manifest = objects.remove("surface.zarr.manifest.json");
    let manifest: Manifest = serde_json::from_slice(&manifest.expect("a manifest")).unwrap();
    let listed = manifest.objects.iter().map(|object| object.path.clone());
    let found = objects.keys();
    let found = found.map(|name| name.strip_prefix("surface.zarr/").unwrap().to_owned());
    assert!(found.eq(listed), "{:?}", objects.keys());
    objects
}

#[test]
fn a_store_that_is_killed_in_the_middle_of_a_publication_gets_the_rest_later() {
    let mut server = S3Server::garage();
    let bucket = server.bucket("killed");
    let proxy = CountingProxy::to(&server.endpoint);
    let image = image("many-objects", MANY_OBJECTS);
    let yaml = to_bucket(&image, &bucket, "undisturbed", "0");
    let site = site_with_bucket(&server, &proxy.endpoint, &yaml);
    site.mlwm(&RUN).expect(0, &["published"]);
    let undisturbed = data(objects(&server, &bucket, "undisturbed"));
    assert!(undisturbed.len() > 200);
    fs::remove_dir_all(site.path("mlwm-work")).unwrap();

    site.configure("danra", &to_bucket(&image, &bucket, "killed", "0"));
    proxy.reset();
    proxy.hold_after(Direction::Sent, 2_000_000);
    let run = start(&site);
    assert!(proxy.wait_until_held(Duration::from_secs(60)));
    server.kill();
    proxy.release();
    let uri = format!("s3://{bucket}/killed/surface.zarr");
    end(run).expect(30, &["the complete output is kept in", &uri]);
    no_claim_held(&site);
    site.mlwm(&["status"]).expect(0, &["failed"]);

    server.start_again();
    let part = objects(&server, &bucket, "killed");
    assert!(!part.contains_key("surface.zarr.manifest.json"));
    let arrived = part.keys().filter(|name| name.contains("/more/")).count();
    assert!(0 < arrived && arrived < 200, "{arrived}");
    site.mlwm(&["verify", &uri]).expect(11, &["not completely"]);

    site.mlwm(&RUN).expect(0, &["published"]);
    let published = data(objects(&server, &bucket, "killed"));
    assert!(published == undisturbed);
    site.mlwm(&["verify", &uri])
        .expect(0, &["all as published"]);
    let attempts = attempts(&site);
    assert_eq!(states(&site), ["failed", "published"]);
    assert!(
        has_run(&attempts[0]) && !has_run(&attempts[1]),
        "{attempts:?}"
    );
    assert_eq!(site.files("mlwm-work/tasks"), [""; 0]);
    no_claim_held(&site);
}

#[test]
fn a_store_that_comes_back_between_attempts_is_published_to_by_the_same_run() {
    let mut server = S3Server::garage();
    let bucket = server.bucket("back");
    let proxy = CountingProxy::to(&server.endpoint);
    let retries = "{infrastructure: 5, delay: PT2S}";
    let yaml = to_bucket(
        &image("many-objects", MANY_OBJECTS),
        &bucket,
        "out",
        retries,
    );
    let site = site_with_bucket(&server, &proxy.endpoint, &yaml);
    proxy.hold_after(Direction::Sent, 2_000_000);
    let run = start(&site);
    assert!(proxy.wait_until_held(Duration::from_secs(60)));
    server.kill();
    proxy.release();
    wait_for("the failure", || states(&site).contains(&"failed".into()));
    server.start_again();
    end(run).expect(0, &["published"]);
    data(objects(&server, &bucket, "out"));
    let attempts = attempts(&site);
    assert_eq!(states(&site).last().unwrap(), "published");
    let runs = attempts.iter().filter(|attempt| has_run(attempt)).count();
    assert_eq!(runs, 1, "{attempts:?}");
}

/// A Docker of its own, which other tests do not miss.
struct Docker {
    folder: tempfile::TempDir,
    daemon: Child,
}

impl Docker {
    /// Starts it, with an image of the system's Docker.
    fn with(image: &str) -> Self {
        let folder = mlwm_tests::scratch::folder();
        let daemon = Self::spawn(folder.path());
        let docker = Self { folder, daemon };
        assert!(docker.answers(), "{}", docker.log());
        let mut save = Command::new("docker")
            .args(["save", image])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let saved = save.stdout.take().unwrap();
        let loaded = docker.command(&["load"]).stdin(saved).output().unwrap();
        ran(&loaded).expect(0, &[image]);
        assert!(save.wait().unwrap().success());
        docker
    }

    fn spawn(folder: &Path) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        // In a network of its own: a daemon without a bridge removes that of the machine's.
        Command::new("unshare")
            .args(["--net", "dockerd"])
            .args(["--data-root", &path("data"), "--exec-root", &path("exec")])
            .args(["--pidfile", &path("pid")])
            .args(["--host", &format!("unix://{}", path("socket"))])
            .args(["--bridge", "none", "--iptables=false"])
            .args(["--ip-forward=false", "--ip-masq=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("dockerd is installed, and this is root")
    }

    fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("socket").display())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.host()]).args(arguments);
        command
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Whether it answers, within a minute.
    fn answers(&self) -> bool {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) {
            let asked = self.command(&["version"]).output();
            if asked.is_ok_and(|asked| asked.status.success()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        false
    }

    /// Kills it with SIGKILL.
    fn kill(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        // Its containerd dies with it. Where nobody has it reaped, the next daemon would think that
        // it lives.
        let pid = self.folder.path().join("exec/containerd/containerd.pid");
        if let Ok(id) = fs::read_to_string(&pid) {
            let _ = Command::new("kill").args(["-9", id.trim()]).output();
            let _ = fs::remove_file(pid);
        }
        let _ = fs::remove_file(self.folder.path().join("pid"));
    }

    fn start_again(&mut self) {
        self.daemon = Self::spawn(self.folder.path());
        assert!(self.answers(), "{}", self.log());
    }

    fn containers(&self) -> String {
        let listed = self.command(&["ps", "--all", "--quiet"]).output().unwrap();
        ran(&listed).expect(0, &[]).stdout
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // One that is dead leaves containers behind, which it ends when it comes back. It stops what
        // it has started when it is asked to end.
        if self.daemon.try_wait().is_ok_and(|ended| ended.is_some()) {
            self.daemon = Self::spawn(self.folder.path());
            self.answers();
        }
        let id = self.daemon.id().to_string();
        let _ = Command::new("kill").arg(id).status();
        let _ = self.daemon.wait();
        let folder = self.folder.path().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut left: Vec<&str> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|place| place.starts_with(&folder))
            .collect();
        left.sort_unstable();
        for place in left.into_iter().rev() {
            let _ = Command::new("umount").args(["--lazy", place]).status();
        }
    }
}

const SLOW_MODEL: &str = "echo begun; sleep 4; cp -r /in/surface.zarr/. /out/surface.zarr/";

#[test]
fn an_engine_that_is_killed_while_the_model_runs_is_waited_for() {
    let more = "retries: {infrastructure: 3, delay: PT2S}\n";
    let mut site = scripted("slow", SLOW_MODEL, more);
    let mut docker = Docker::with("mlwm-test/slow:latest");
    site.env("DOCKER_HOST", &docker.host());

    let run = start(&site);
    wait_for_container(&site);
    docker.kill();
    std::thread::sleep(Duration::from_secs(1));
    docker.start_again();
    end(run).expect(0, &["published"]);
    site.mlwm(&["verify", "published/surface.zarr"])
        .expect(0, &["all as published"]);
    assert_eq!(docker.containers(), "");
    // The container died with its engine, or lived on and ended well.
    let states = states(&site);
    assert_eq!(states.last().unwrap(), "published");
    let failed = &attempts(&site)[0];
    if states.len() > 1 {
        assert_eq!(failed["exit_code"], 15, "{failed}");
        let error = failed["error"].as_str().unwrap();
        assert!(error.contains("while the engine was away"), "{error}");
    }
    no_claim_held(&site);
}

#[test]
fn an_engine_that_stays_away_ends_the_run_in_time() {
    let mut site = scripted("slow", SLOW_MODEL, "retries: 0\n");
    let mut docker = Docker::with("mlwm-test/slow:latest");
    site.env("DOCKER_HOST", &docker.host());
    site.env("MLWM_PATIENCE", "PT2S");

    let run = start(&site);
    wait_for_container(&site);
    docker.kill();
    end(run).expect(15, &["lost the engine", "systemctl status docker"]);
    site.expect_nothing_left();
    no_claim_held(&site);
    site.mlwm(&["status"]).expect(0, &["failed"]);
    site.mlwm(&RUN)
        .expect(15, &["no container engine answers", "nothing listens"]);

    docker.start_again();
    site.mlwm(&RUN).expect(0, &["published"]);
    assert_eq!(docker.containers(), "");
}

#[test]
fn killed_together_with_its_container_the_same_command_finishes() {
    let script = format!("{SLOW_MODEL}; echo done");
    let site = scripted("both", &script, "");
    let undisturbed = {
        let site = scripted("both", &script, "");
        site.mlwm(&RUN).expect(0, &["published"]);
        published(&site)
    };
    let mut run = start(&site);
    wait_for_container(&site);
    let containers = containers_of(&site);
    assert_eq!(containers.len(), 1);
    let mut docker = Command::new("docker");
    docker.args(["kill", &containers[0]]);
    let killed = docker.stdout(Stdio::piped()).spawn().unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    end(killed).expect(0, &[]);
    site.mlwm(&["status"]).expect(0, &["lost"]);
    assert!(site.files("published").is_empty());

    site.mlwm(&RUN).expect(0, &["published"]);
    assert_eq!(published(&site), undisturbed);
    let again = site.mlwm(&RUN).expect(0, &["already published"]);
    assert!(!again.stderr.contains("run "), "{}", again.stderr);
    assert_eq!(states(&site), ["lost", "published"]);
    assert_eq!(containers_of(&site), [""; 0]);
    assert_eq!(site.files("mlwm-work/tasks"), [""; 0]);
    no_claim_held(&site);
    no_container_left(&site);
}

/// The published data of a site.
fn published(site: &Site) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    collect(&site.path("published"), "", &mut found);
    data(found)
}

/// The containers, running or not, that have mounted something of a site.
fn containers_of(site: &Site) -> Vec<String> {
    let folder = site.path("").canonicalize().unwrap();
    let listed = Command::new("docker")
        .args(["ps", "--all", "--quiet", "--no-trunc"])
        .args(["--filter", "label=io.mlwm.contract=1"])
        .output()
        .unwrap();
    let listed = ran(&listed).stdout;
    let ours = listed.lines().filter(|id| {
        let mounts = Command::new("docker")
            .args(["inspect", "--format", "{{json .Mounts}}", id])
            .output()
            .unwrap();
        ran(&mounts).stdout.contains(folder.to_str().unwrap())
    });
    ours.map(str::to_owned).collect()
}
