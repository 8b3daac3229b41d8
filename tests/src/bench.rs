//! An ensemble that is read from a bucket of a real store and published to it: each member's windows lie in its input.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use mlwm_spec::manifest::MANIFEST_SUFFIX;
use mlwm_spec::{Digest, Manifest};
use serde_json::Value;

use crate::counting_proxy::CountingProxy;
use crate::s3::S3Server;
use crate::scripted::{no_container_left, windowed};
use crate::site::{Ran, Site, oracle, python, ran, repository};

/// The analysis time of all of them.
pub const TIME: &str = "2022-04-07T03:00Z";
/// How many members there are, if a test does not say it.
pub const MEMBERS: u64 = 3;
/// Longer than anything that is waited for takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// The store.
pub static SERVER: LazyLock<S3Server> = LazyLock::new(S3Server::garage);

/// A site whose members' windows are in their inputs, in a bucket, to which they are published, too.
pub struct Bench {
    /// The site; its configuration is `danra`.
    pub site: Site,
    /// The bucket.
    pub bucket: String,
    image: String,
    members: u64,
    more: String,
}

impl Bench {
    /// With a model that does nothing but write its windows.
    pub fn new(bucket: &str) -> Self {
        Self::of(bucket, MEMBERS, &windowed("to-a-store"), "retries: 0\n")
    }

    /// With so many members, another model, and more in the configuration: keys of the output, then others.
    pub fn of(bucket: &str, members: u64, image: &str, more: &str) -> Self {
        let bench = Self {
            site: Site::new(),
            bucket: SERVER.bucket(bucket),
            image: image.to_owned(),
            members,
            more: more.to_owned(),
        };
        let store = bench.site.path("store");
        let store = store.to_str().unwrap();
        oracle("windows.py", &["make", store, &members.to_string()]);
        put(Path::new(store), &bench.bucket, "in");
        bench.publish_to("out");
        bench
    }

    /// With members that are published together, too, with the products that `windows.py` knows.
    pub fn of_ensemble(bucket: &str) -> Self {
        let more = format!(
            "retries: 0
ensemble:
  uri: s3://{bucket}/out/ensemble.zarr
  products: {{t2m: [mean, spread, p90, above_201500], msl: [min, max]}}
"
        );
        Self::of(bucket, MEMBERS, &windowed("to-a-store"), &more)
    }

    /// From now on it is published to this folder of the bucket.
    pub fn publish_to(&self, folder: &str) {
        let place = format!("s3://{}", self.bucket);
        let (from, to) = (format!("{place}/in"), format!("{place}/{folder}"));
        let yaml = configuration(&self.image, self.members, &from, &to, &self.more);
        self.site.configure("danra", &yaml);
    }

    /// A command that finds the store at an endpoint.
    pub fn command(&self, arguments: &[&str], endpoint: &str) -> Command {
        self.command_of("mlwm", arguments, endpoint)
    }

    /// The same of another program that `cargo build` makes.
    pub fn command_of(&self, name: &str, arguments: &[&str], endpoint: &str) -> Command {
        let mut command = self.site.command_of(name, arguments);
        command.envs(SERVER.environment());
        command.env("AWS_ENDPOINT_URL", endpoint);
        command.env("MLWM_PATIENCE", "PT10S");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs one.
    pub fn mlwm(&self, arguments: &[&str], endpoint: &str) -> Ran {
        ran(&self.command(arguments, endpoint).output().unwrap())
    }

    /// All objects of a folder with their content, by a client that is not ours.
    pub fn objects(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let got = tempfile::tempdir().unwrap();
        self.bring(folder, got.path());
        contents(&got.path().join(folder))
    }

    /// Brings a folder of the bucket to a local one.
    pub fn bring(&self, folder: &str, to: &Path) {
        let folder = format!("{folder}/");
        objects(&["get", &self.bucket, &folder, to.to_str().unwrap()]);
    }

    /// The names of all objects of a folder, by a client that is not ours.
    pub fn names(&self, folder: &str) -> BTreeSet<String> {
        let folder = format!("{folder}/");
        let listed = objects(&["list", &self.bucket, &folder]);
        let names = listed.lines().filter_map(|key| key.strip_prefix(&folder));
        names.map(str::to_owned).collect()
    }

    /// Removes all that runs made: what they published in a folder, and their working folder.
    pub fn forget(&self, folder: &str) {
        objects(&["remove", &self.bucket, &format!("{folder}/")]);
        fs::remove_dir_all(self.site.path("mlwm-work")).unwrap();
    }

    /// Fails unless the members and their ensemble are published, with the right values, and nothing else is.
    #[track_caller]
    pub fn ensemble_is_published(&self) {
        let stores = self.stores("out").into_keys();
        let members = (0..self.members).map(|member| format!("member{member}.zarr"));
        assert!(stores.eq(["ensemble.zarr".to_owned()].into_iter().chain(members)));
    }

    /// The stores that lie in a folder, by their names. Fails unless each has a manifest and all that this lists, each
    /// value is as it should be, and nothing else lies there. An ensemble is one of all members.
    #[track_caller]
    pub fn stores(&self, folder: &str) -> BTreeMap<String, Manifest> {
        let got = tempfile::tempdir().unwrap();
        self.bring(folder, got.path());
        let root = got.path().join(folder);
        let mut objects = contents(&root);
        let mut stores = BTreeMap::new();
        for name in objects.keys().cloned().collect::<Vec<_>>() {
            let Some(store) = name.strip_suffix(MANIFEST_SUFFIX) else {
                continue;
            };
            let manifest = objects.remove(&name).unwrap();
            let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
            let mut variables = BTreeSet::new();
            for object in &manifest.objects {
                let found = objects.remove(&format!("{store}/{}", object.path));
                assert_eq!(Digest::of(found.unwrap()), object.sha256, "{}", object.path);
                let variable = object.path.split('/').next().unwrap();
                variables.extend(["msl", "t2m"].into_iter().filter(|name| *name == variable));
            }
            let (path, member) = (root.join(store), manifest.member.to_string());
            let path = path.to_str().unwrap();
            let variables = Vec::from_iter(variables).join(",");
            match &manifest.ensemble {
                None => oracle("windows.py", &["check", path, &member, &variables]),
                Some(_) => {
                    let members: Vec<String> =
                        (0..self.members).map(|member| member.to_string()).collect();
                    oracle("windows.py", &["products", path, &members.join(",")])
                }
            };
            stores.insert(store.to_owned(), manifest);
        }
        let left: Vec<&String> = objects.keys().collect();
        assert_eq!(left, [""; 0], "these belong to nothing");
        stores
    }

    /// Fails unless all members are published in a folder, with the right values, and nothing else is.
    #[track_caller]
    pub fn all_is_published(&self, folder: &str) {
        let stores = self.stores(folder).into_keys();
        let wanted = (0..self.members).map(|member| format!("member{member}.zarr"));
        assert!(stores.eq(wanted));
    }

    /// Fails if anything lies in the working folder but its history, or a container is left.
    #[track_caller]
    pub fn nothing_is_left(&self) {
        assert_eq!(self.site.files("mlwm-work/tasks"), [""; 0]);
        assert_eq!(self.site.files("mlwm-work/warm"), [""; 0]);
        no_container_left(&self.site);
    }
}

/// What the ledger says of each member of a site; nothing as long as none is begun.
pub fn tasks(site: &Site) -> Vec<Value> {
    let status = site.mlwm(&["status", "--analysis-time", TIME, "--json"]);
    if status.code == 11 {
        return Vec::new();
    }
    let status = status.expect(0, &[]).json();
    status["tasks"].as_array().unwrap().clone()
}

/// The attempts at each member, the first one first.
pub fn attempts(site: &Site) -> Vec<Vec<Value>> {
    let tasks = tasks(site);
    let attempts = tasks.iter().map(|task| task["attempts"].as_array());
    attempts.map(|all| all.unwrap().clone()).collect()
}

/// How often a model began with each member: it says so, in the logs of its attempts.
pub fn begun(site: &Site, members: u64) -> Vec<usize> {
    let of = |member| {
        let says = format!("member {member} with");
        logs(site, member).matches(&says).count()
    };
    (0..members).map(of).collect()
}

/// A configuration whose members' windows lie in their inputs below `from`, and are published below `to`.
pub fn configuration(image: &str, members: u64, from: &str, to: &str, more: &str) -> String {
    format!(
        "docker_image: {image}
members: 0-{}
forecast_duration: PT60H
time_layout: time
timeout: PT5M
inputs:
  surface: {{uri: '{from}/member{{member}}', internal_path: /in/surface}}
outputs:
  surface:
    uri: '{to}/member{{member}}.zarr'
    internal_path: /out/surface.zarr
    variables: [t2m, msl]
    windows: {{length: PT24H}}
{more}",
        members - 1
    )
}

/// Brings a local folder to a bucket, by a client that is not ours.
pub fn put(folder: &Path, bucket: &str, prefix: &str) {
    objects(&["put", folder.to_str().unwrap(), bucket, prefix]);
}

fn objects(arguments: &[&str]) -> String {
    let mut objects = Command::new(python());
    objects
        .arg(repository().join("tests/oracles/objects.py"))
        .args(arguments);
    let done = ran(&at_the_store(&mut objects).output().unwrap());
    done.expect(0, &[]).stdout
}

/// Gives a command what it needs to find the store.
fn at_the_store(command: &mut Command) -> &mut Command {
    command
        .envs(SERVER.environment())
        .env_remove("AWS_CA_BUNDLE")
}

/// All files below a folder with their content.
fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().display().to_string();
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

/// How often an object of each member's input was brought through a proxy: the one that came most often.
pub fn brought(proxy: &CountingProxy, members: u64) -> Vec<usize> {
    let requests = proxy.counts().requests;
    let of = |member| {
        let begins = format!("/in/member{member}/");
        let of_member = |request: &&String| request.starts_with("GET") && request.contains(&begins);
        let all: Vec<&String> = requests.iter().filter(of_member).collect();
        let times = |request: &&String| all.iter().filter(|other| *other == request).count();
        all.iter().map(times).max().unwrap_or(0)
    };
    (0..members).map(of).collect()
}

/// Requests through a proxy that send something of a member.
pub fn sent(proxy: &CountingProxy, member: u64) -> usize {
    let requests = proxy.counts().requests;
    let begins = format!("/out/member{member}.zarr");
    let sends = |request: &&String| !request.starts_with("GET") && !request.starts_with("HEAD");
    let of_member = requests.iter().filter(|request| request.contains(&begins));
    of_member.filter(sends).count()
}

/// What containers printed in all attempts at a member.
pub fn logs(site: &Site, member: u64) -> String {
    let files = site.files("mlwm-work/log").into_iter();
    let of_member = files.filter(|file| file.contains(&format!("_member{member}.")));
    of_member
        .map(|file| fs::read_to_string(site.path("mlwm-work/log").join(file)).unwrap())
        .collect()
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "it never came to this: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// Reads what is published in a bucket all the time, by a client that is not ours.
pub struct Reader(Child);

impl Reader {
    /// Begins to read what lies in a folder.
    pub fn of(bench: &Bench, folder: &str) -> Self {
        let mut reader = Command::new(python());
        reader
            .arg(repository().join("tests/oracles/reader.py"))
            .args([&*bench.bucket, &format!("{folder}/")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self(at_the_store(&mut reader).spawn().unwrap())
    }

    /// Fails if it ever saw a manifest some of whose objects were not there, or other ones; says how often it
    /// looked, and how many manifests it saw last.
    #[track_caller]
    pub fn saw_only_what_is_whole(mut self) -> (usize, usize) {
        drop(self.0.stdin.take());
        let said = ran(&self.0.wait_with_output().unwrap())
            .expect(0, &[])
            .stdout;
        let (looks, manifests) = said.trim().split_once(' ').unwrap();
        (looks.parse().unwrap(), manifests.parse().unwrap())
    }
}
