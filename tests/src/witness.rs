//! What may be seen while runs are killed: by a reader of what is published, and by the engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mlwm_spec::Manifest;

use crate::site::{Site, ran};

/// Looks at what is published again and again while `work` is done: whatever a manifest lists must
/// be there, whole. Returns how often it looked.
pub fn watched(site: &Site, outputs: &[&str], work: impl FnOnce()) -> u64 {
    let (done, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    // Also if the work fails: else it would be watched for ever.
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    std::thread::scope(|scope| {
        let _ends = Ends(&done);
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                for output in outputs {
                    look(&site.path("published").join(output));
                    looks.fetch_add(1, Ordering::SeqCst);
                }
                // The work needs the processor, too.
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        work();
    });
    looks.load(Ordering::SeqCst)
}

/// What a reader does who follows manifests. What is replaced may be withdrawn while it looks: then
/// the manifest is no more what it was.
fn look(output: &Path) {
    let manifest = output.with_extension("zarr.manifest.json");
    let Ok(text) = fs::read(&manifest) else {
        return;
    };
    let listed: Manifest = serde_json::from_slice(&text).expect("a manifest appears whole");
    for object in &listed.objects {
        let size = fs::metadata(output.join(&object.path)).map(|found| found.len());
        if size.as_ref().ok() != Some(&object.size) {
            let now = fs::read(&manifest).ok();
            assert_ne!(now, Some(text), "{}: {size:?}", object.path);
            return;
        }
    }
}

/// Sees every container of mlwm start and end.
pub struct Witness {
    events: Child,
    /// Reads all along, so that the engine never waits for it.
    lines: Option<JoinHandle<Vec<String>>>,
}

impl Witness {
    /// Sees what starts from now on.
    pub fn begin() -> Self {
        let format = "{{.Action}} {{.Actor.ID}} {{index .Actor.Attributes \"io.mlwm.task\"}}";
        let mut docker = Command::new("docker");
        docker.args(["events", "--format", format]);
        for filter in ["label=io.mlwm.contract=1", "event=start", "event=die"] {
            docker.args(["--filter", filter]);
        }
        let mut events = docker.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(events.stdout.take().unwrap()).lines();
        let lines = std::thread::spawn(move || lines.map_while(Result::ok).collect());
        // Until it listens: what is missed then is only not looked at.
        std::thread::sleep(Duration::from_millis(300));
        Self {
            events,
            lines: Some(lines),
        }
    }

    /// Fails if two containers of one task ran at once; returns how many ran in all.
    #[track_caller]
    pub fn saw_one_at_a_time(mut self, tasks: &BTreeSet<String>) -> usize {
        std::thread::sleep(Duration::from_millis(300));
        self.events.kill().unwrap();
        let lines = self.lines.take().unwrap().join().unwrap();
        let (mut running, mut all) = (BTreeMap::new(), 0);
        for line in lines {
            let [action, id, task] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            if !tasks.contains(task) {
                continue;
            }
            let running: &mut BTreeSet<String> = running.entry(task.to_owned()).or_default();
            if action == "start" {
                running.insert(id.to_owned());
                assert_eq!(running.len(), 1, "{task} ran twice at once");
                all += 1;
            } else {
                running.remove(id);
            }
        }
        all
    }
}

/// Counts the containers that are created of images with a label.
pub struct Created {
    events: Child,
    lines: Option<JoinHandle<usize>>,
}

impl Created {
    /// Counts from now on.
    pub fn with(label: &str) -> Self {
        let mut docker = Command::new("docker");
        // What comes before it listens, it is told then.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = now.as_secs_f64().to_string();
        docker.args(["events", "--since", &now, "--format", "{{.Actor.ID}}"]);
        let label = format!("label={label}");
        for filter in ["type=container", "event=create", &label] {
            docker.args(["--filter", filter]);
        }
        let mut events = docker.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(events.stdout.take().unwrap()).lines();
        let lines = std::thread::spawn(move || lines.map_while(Result::ok).count());
        Self {
            events,
            lines: Some(lines),
        }
    }

    /// How many there were.
    pub fn count(mut self) -> usize {
        std::thread::sleep(Duration::from_millis(500));
        self.events.kill().unwrap();
        self.lines.take().unwrap().join().unwrap()
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        let _ = self.events.kill();
        let _ = self.events.wait();
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // Also if a test fails before it was asked what it saw.
        let _ = self.events.kill();
        let _ = self.events.wait();
    }
}

/// Containers of these tasks.
pub fn containers(tasks: &BTreeSet<String>, more: &[&str]) -> Vec<String> {
    let of = |task: &String| {
        let label = format!("label=io.mlwm.task={task}");
        let listed = Command::new("docker")
            .args(["ps", "--quiet", "--no-trunc", "--filter", &label])
            .args(more)
            .output()
            .unwrap();
        let listed = ran(&listed).expect(0, &[]);
        listed.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    tasks.iter().flat_map(of).collect()
}

/// SIGKILL for whatever runs of these tasks, which may end by itself just now.
pub fn kill_containers(tasks: &BTreeSet<String>) {
    for id in containers(tasks, &[]) {
        Command::new("docker").args(["kill", &id]).output().unwrap();
    }
}

/// The containers of the runs of a site: they have a folder of it.
pub fn containers_of(site: &Site) -> Vec<String> {
    let folder = site.path("").canonicalize().unwrap();
    let docker = |arguments: &[&str]| {
        let output = Command::new("docker").args(arguments).output().unwrap();
        ran(&output).stdout
    };
    let label = "label=io.mlwm.contract=1";
    let all = docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", label]);
    // One that is gone by now has no mounts.
    let mounts = |id: &str| docker(&["inspect", "--format", "{{json .Mounts}}", id]);
    let of_site = all
        .lines()
        .filter(|id| mounts(id).contains(folder.to_str().unwrap()));
    of_site.map(str::to_owned).collect()
}

/// The container of the run of a site, when it comes.
pub fn container_of(site: &Site) -> String {
    for _ in 0..200 {
        if let Some(id) = containers_of(site).pop() {
            return id;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("no container comes")
}
