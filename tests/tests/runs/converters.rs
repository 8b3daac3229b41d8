//! Converters: inputs that a container makes into what the model reads.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use mlwm_tests::images::example_on_python;
use mlwm_tests::scripted::{image, image_moved, no_container_left};
use mlwm_tests::site::{Ran, Site, copy, example, oracle, ran};
use mlwm_tests::synthetic;
use serde_json::{Value, json};
use tempfile::TempDir;

const TIME: &str = "2026-10-01T00:00Z";
const RUN: [&str; 3] = ["run", "--analysis-time", TIME];
/// Rows of a hemisphere: a state has some megabytes.
const ROWS: &str = "40";

/// The synthetic model, and the pickles that members 1 to 3 start from.
static CASE: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = mlwm_tests::scratch::folder();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let rows = ["--rows", ROWS, "--members"];
    oracle(
        "synthetic.py",
        &[&["make", &at("case")], &rows[..], &["0"]].concat(),
    );
    oracle(
        "synthetic.py",
        &[&["pickles", &at("pickles")], &rows[..], &["4"]].concat(),
    );
    folder
});

static MODEL: LazyLock<String> =
    LazyLock::new(|| synthetic::image("converted", &CASE.path().join("case")));

/// The image of `examples/pickle-states`, on a base with the Python of these tests.
static CONVERTER: LazyLock<String> =
    LazyLock::new(|| example_on_python("pickle-states", "python", &["numpy"]));

/// A site with three members whose states are pickles.
fn pickles(more: &str) -> Site {
    let site = Site::new();
    copy(
        &CASE.path().join("pickles"),
        &site.path("store/20261001_0000/input"),
    );
    let yaml = format!(
        "docker_image: {}
members: 1-3
forecast_duration: P3D
time_layout: time
retries: 0
inputs:
  state:
    uri: './store/{{analysis_time:%Y%m%d_%H%M}}/input/input_state_member_{{member:03}}.pkl'
    internal_path: /in/state.npz
    convert:
      docker_image: {}
{more}
outputs:
  fields:
    uri: './published/{{analysis_time}}/member{{member}}.zarr'
    internal_path: /out/fields.zarr
    windows: {{length: PT24H, missing: [sd]}}
",
        *MODEL, *CONVERTER
    );
    site.configure("aifs", &yaml);
    site
}

fn state(site: &Site, member: u32) -> String {
    let name = format!("store/20261001_0000/input/input_state_member_{member:03}.pkl");
    site.path(&name).display().to_string()
}

fn output(member: u32) -> String {
    format!("published/2026-10-01T0000Z/member{member}.zarr")
}

fn manifest(site: &Site, output: &str) -> Value {
    let text = fs::read(site.path(&format!("{output}.manifest.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn is_published(site: &Site, member: u32) -> bool {
    site.path(&format!("{}.manifest.json", output(member)))
        .is_file()
}

fn nothing_is_left(site: &Site) {
    assert_eq!(site.files("mlwm-work/tasks"), [""; 0]);
    assert_eq!(site.files("mlwm-work/warm"), [""; 0]);
    no_container_left(site);
}

/// The files below a folder with their bytes, each once, however many names it has.
fn files(folder: &Path, found: &mut BTreeMap<u64, u64>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(file) if file.is_dir() => files(&entry.path(), found),
            Ok(file) => drop(found.insert(file.ino(), file.len())),
            // Removed in the meantime.
            Err(_) => {}
        }
    }
}

/// One container for all members holds all the room that there is, and the converters of the next members do not
/// wait for it.
#[test]
fn pickles_become_forecasts_within_the_space_there_is() {
    let site = pickles("");
    let plan = site
        .mlwm(&["plan", "--analysis-time", TIME])
        .expect(0, &[])
        .json();
    let input = &plan["tasks"][1]["inputs"][0];
    let uri = "./store/20261001_0000/input/input_state_member_002.pkl";
    assert_eq!(input["uri"], uri);
    let told = &input["convert"]["environment"];
    assert_eq!(told["MLWM_CONVERT_OUT"], "/convert/out/state.npz");

    site.mlwm(&[&RUN[..], &["--disk", "2MiB"]].concat())
        .expect(10, &["take", "with what is converted of them"]);
    let budget: u64 = 8 << 20;
    let run = [&RUN[..], &["--disk", "8MiB", "--jobs", "1"]].concat();
    let mut child = site
        .command(&run)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let tasks = ["tasks", "warm"].map(|name| site.path("mlwm-work").join(name));
    let mut most: u64 = 0;
    while child.try_wait().unwrap().is_none() {
        let mut found = BTreeMap::new();
        tasks.iter().for_each(|folder| files(folder, &mut found));
        most = most.max(found.values().sum::<u64>());
        std::thread::sleep(Duration::from_millis(5));
    }
    let ran = ran(&child.wait_with_output().unwrap()).expect(0, &["published", "held at most"]);
    assert!(ran.stderr.contains("6:00:00 before"), "{}", ran.stderr);
    let raw = fs::metadata(state(&site, 1)).unwrap().len();
    assert!(most > raw && most <= budget, "{most}");

    let id = Command::new("docker")
        .args(["image", "inspect", "--format", "{{.Id}}", &CONVERTER])
        .output()
        .unwrap();
    let id = String::from_utf8(id.stdout).unwrap().trim().to_owned();
    for member in 1..=3 {
        let store = site.path(&output(member));
        let manifest = manifest(&site, &output(member));
        let (seed, member_text) = (manifest["seed"].to_string(), member.to_string());
        let which = ["check", "--member", &member_text, "--seed", &seed];
        let what = ["--steps", "12", "--rows", ROWS, store.to_str().unwrap()];
        oracle("synthetic.py", &[which, what].concat());
        let input = &manifest["inputs"][0];
        assert_eq!(
            input["converter"],
            json!({"name": &*CONVERTER, "digest": id})
        );
        assert_eq!(
            (&input["objects"], &input["bytes"]),
            (&json!(1), &json!(raw))
        );
    }
    nothing_is_left(&site);

    site.mlwm(&["why", &output(2)])
        .expect(0, &["input_state_member_002.pkl", "converted by", &id]);
    let statement = site.mlwm(&["why", "--json", &output(2)]).json();
    let made_of = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
    let converter = made_of.as_array().unwrap().last().unwrap();
    assert_eq!(converter["name"], "converter of input state");
    let log = site.mlwm(&["logs", "--analysis-time", TIME, "--member", "3"]);
    let log = log
        .expect(0, &["2026-10-01T00:00Z and 6:00:00 before"])
        .stdout;
    assert!(
        log.lines().count() > 1,
        "the model says something, too: {log}"
    );
    site.mlwm(&RUN).expect(0, &["already published"]);
    site.mlwm(&["replay", &output(3)])
        .expect(0, &["the same to the bit"]);
}

#[test]
fn a_member_whose_pickle_is_of_another_day_or_damaged_fails_alone() {
    let site = pickles("      environment: {STATE_AGE_HOURS: 6.0}");
    let other = site.path("other").display().to_string();
    let which = ["pickles", &other, "--rows", ROWS, "--members", "2"];
    oracle(
        "synthetic.py",
        &[&which[..], &["--date", "2026-09-30T00:00"]].concat(),
    );
    let yesterdays = site.path("other/input_state_member_001.pkl");
    fs::copy(yesterdays, state(&site, 1)).unwrap();
    let cut = File::options().write(true).open(state(&site, 3)).unwrap();
    cut.set_len(100_000).unwrap();
    let truncated = [
        "member 3: failed: the input `state`",
        "input_state_member_003.pkl",
        "exit code 1",
        "pickle data was truncated",
    ];
    let stale = ["valid at 2026-09-29T18:00Z, 2026-09-30T00:00Z"];
    let texts = [&truncated[..], &stale].concat();
    site.mlwm(&RUN).expect(20, &texts);
    assert_eq!(
        [1, 2, 3].map(|member| is_published(&site, member)),
        [false, true, false]
    );
    nothing_is_left(&site);
}

/// What a program in a pickle can do: it says how each of its attempts went, and leaves a link.
const HOSTILE: &str = r#"
import os, socket, sys
def attempt(what, does):
    try:
        print("hostile:", what, "done:", does())
    except OSError as error:
        print("hostile:", what, "refused:", error.strerror)
for name in ("/written", "/usr/local/lib/convert.py", "/convert/in/state"):
    attempt("write " + name, lambda: open(name, "a").write("x"))
attempt("connect", lambda: socket.create_connection(("HOST", PORT), 2))
attempt("unlink", lambda: os.unlink("/convert/in/state"))
print("hostile: interfaces", [name for _, name in socket.if_nameindex()])
print("hostile: environment", sorted(os.environ.items()))
print("hostile: docker", os.path.exists("/var/run/docker.sock"))
os.symlink("/etc/passwd", os.environ["MLWM_CONVERT_OUT"])
sys.stdout.flush()
os._exit(0)
"#;

#[test]
fn a_hostile_pickle_reaches_nothing_and_nothing_of_it_is_published() {
    let mut site = pickles("");
    site.env("AWS_SECRET_ACCESS_KEY", "planted-secret");
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let gateway = Command::new("docker")
        .args(["network", "inspect", "bridge", "--format"])
        .arg("{{(index .IPAM.Config 0).Gateway}}")
        .output()
        .unwrap();
    let gateway = String::from_utf8(gateway.stdout).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let program = HOSTILE
        .replace("HOST", gateway.trim())
        .replace("PORT", &port);
    oracle("synthetic.py", &["hostile", &state(&site, 2), &program]);
    let pickle = fs::read(state(&site, 2)).unwrap();
    let ran = site
        .mlwm(&RUN)
        .expect(23, &["neither a file nor a folder", "member 2: failed"]);
    for text in [
        "write /written refused: Read-only file system",
        "write /usr/local/lib/convert.py refused: Read-only file system",
        "write /convert/in/state refused: Read-only file system",
        "connect refused: Network is unreachable",
        "unlink refused",
        "interfaces ['lo']",
        "docker False",
    ] {
        let text = format!("hostile: {text}");
        assert!(
            ran.stderr.contains(&text),
            "{text} is not in {}",
            ran.stderr
        );
    }
    assert!(!ran.stderr.contains("planted-secret"), "{}", ran.stderr);
    assert!(listener.accept().is_err(), "it came through");
    assert!(fs::read(state(&site, 2)).unwrap() == pickle);
    assert_eq!(
        [1, 2, 3].map(|member| is_published(&site, member)),
        [true, false, true]
    );
    assert_eq!(site.files(&output(2)), [""; 0]);
    nothing_is_left(&site);
}

/// A site whose input is a Zarr store that `converts` makes of what is staged, and whose model copies it.
fn copied(name: &str, converts: &str, more: &str) -> Site {
    let site = Site::new();
    copy(
        &example("source/single_levels.zarr"),
        &site.path("store/single_levels.zarr"),
    );
    let yaml = format!(
        "docker_image: {}
retries: 0
inputs:
  surface:
    uri: ./store/single_levels.zarr
    internal_path: /in/surface.zarr
    convert:
      docker_image: {}
{more}
outputs:
  surface: {{uri: ./published/surface.zarr, internal_path: /out/surface.zarr}}
",
        image(
            "copies-converted",
            "echo the model runs; cp -r /in/surface.zarr/. /out/surface.zarr/"
        ),
        image(name, converts)
    );
    site.configure("danra", &yaml);
    site
}

const COPIES: &str = "cp -r $MLWM_CONVERT_IN $MLWM_CONVERT_OUT";

#[track_caller]
fn refused(site: &Site, code: i32, texts: &[&str]) -> Ran {
    let ran = site.mlwm(&RUN).expect(code, texts);
    assert!(!ran.stderr.contains("the model runs"), "{}", ran.stderr);
    site.expect_nothing_left();
    no_container_left(site);
    ran
}

#[test]
fn what_a_converter_leaves_is_one_thing_of_the_right_name_and_size() {
    for (name, converts, text) in [
        (
            "nothing",
            "true",
            "left nothing in /convert/out/surface.zarr",
        ),
        ("empty", "mkdir $MLWM_CONVERT_OUT", "left nothing"),
        (
            "other",
            "echo x > /convert/out/other",
            "left `other` in /convert/out, where only `surface.zarr`",
        ),
        (
            "link",
            "mkdir $MLWM_CONVERT_OUT; ln -s /etc/passwd $MLWM_CONVERT_OUT/.zattrs",
            "holds `.zattrs`, which is neither a file nor a folder",
        ),
        (
            "much",
            "truncate -s 1G $MLWM_CONVERT_OUT",
            "wrote 1GiB, and may write",
        ),
    ] {
        let site = copied(&format!("converts-{name}"), converts, "");
        refused(
            &site,
            23,
            &["the input `surface`", "was not converted", text],
        );
    }
}

#[test]
fn a_converter_is_bounded_and_its_image_is_there_before_anything_is_staged() {
    let site = copied("converts-late", "sleep 1000", "      timeout: PT2S");
    refused(&site, 22, &["the input `surface`", "timeout of PT2S"]);

    let fills = "head -c 30M /dev/zero > $MLWM_CONVERT_OUT; sleep 1000";
    let site = copied("converts-full", fills, "      resources: {disk: 20MiB}");
    refused(&site, 23, &["may write 20MiB", "convert.resources.disk"]);

    let site = copied("converts-copies", COPIES, "");
    let config = site.path("configurations/danra/config.yaml");
    let text = fs::read_to_string(&config).unwrap();
    let none = text.replace("converts-copies:", "converts-none:");
    site.configure("danra", &none);
    let ran = refused(&site, 14, &["mlwm-test/converts-none:latest", "`surface`"]);
    assert!(!ran.stderr.contains("stage"), "{}", ran.stderr);
}

#[test]
fn what_another_image_of_the_converter_would_make_is_another_forecast() {
    let site = copied("converts-moving", COPIES, "");
    site.mlwm(&RUN).expect(0, &["published"]);
    site.mlwm(&RUN).expect(0, &["already published"]);
    let published = manifest(&site, "published/surface.zarr");
    image_moved("converts-moving", &format!("echo moved; {COPIES}"));
    let now = site.mlwm(&RUN).expect(31, &["its converter is sha256:"]);
    let before = published["inputs"][0]["converter"]["digest"].as_str();
    assert!(now.stderr.contains(before.unwrap()), "{}", now.stderr);
    // By content: the tag has moved.
    let again = site
        .mlwm(&["replay", "published/surface.zarr"])
        .expect(0, &["the same to the bit"]);
    assert!(!again.stderr.contains("moved"), "{}", again.stderr);
    site.mlwm(&[&RUN[..], &["--republish"]].concat())
        .expect(0, &["moved", "published"]);
    assert_ne!(
        manifest(&site, "published/surface.zarr")["task"],
        published["task"]
    );
}

#[test]
fn killed_while_converting_the_same_command_publishes_the_same() {
    let site = copied("converts-copies", COPIES, "");
    let list = site.path("places");
    let counted = site
        .command_of("mlwm-kill-points", &RUN)
        .env("MLWM_KILL_LIST", &list)
        .output();
    ran(&counted.unwrap()).expect(0, &["published"]);
    let stored = |site: &Site| -> Vec<(String, Vec<u8>)> {
        let files = site.files("published/surface.zarr").into_iter();
        let read = |file: String| {
            let bytes = fs::read(site.path(&format!("published/surface.zarr/{file}")));
            (file, bytes.unwrap())
        };
        files.map(read).collect()
    };
    let undisturbed = stored(&site);
    let names = fs::read_to_string(&list).unwrap();
    let places = names.lines().enumerate();
    let places: Vec<(usize, &str)> = places
        .filter(|(_, name)| name.starts_with("convert:"))
        .collect();
    assert!(places.len() >= 4 && undisturbed.len() > 10, "{places:?}");
    for (place, name) in places {
        for folder in ["published", "mlwm-work"] {
            fs::remove_dir_all(site.path(folder)).unwrap();
        }
        let killed = site
            .command_of("mlwm-kill-points", &RUN)
            .env("MLWM_KILL_AT", (place + 1).to_string())
            .output()
            .unwrap();
        assert_eq!(killed.status.code(), None, "{name}: {killed:?}");
        assert!(!site.path("published/surface.zarr.manifest.json").exists());
        site.mlwm(&RUN).expect(0, &["published"]);
        assert!(stored(&site) == undisturbed, "killed at {name}");
        assert_eq!(site.files("mlwm-work/tasks"), [""; 0]);
    }
    no_container_left(&site);
}

/// mlwm dies while the container runs: the next one removes that.
#[test]
fn the_container_of_a_killed_conversion_is_swept() {
    let site = copied(
        "converts-slowly",
        &format!("echo begins; sleep 3; {COPIES}"),
        "",
    );
    let mut child = site
        .command(&RUN)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let log = site.path("mlwm-work/log");
    for _ in 0..1000 {
        let mut found = BTreeMap::new();
        files(&log, &mut found);
        if found.values().sum::<u64>() > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    site.mlwm(&RUN).expect(0, &["published"]);
    let named = Command::new("docker")
        .args(["ps", "--all", "--quiet", "--filter"])
        .arg("ancestor=mlwm-test/converts-slowly")
        .output()
        .unwrap();
    assert_eq!(ran(&named).expect(0, &[]).stdout, "");
}
