//! A checkpoint without ONNX, as AIFS is one, whose interface declares its input state: what docs/artifact-format.md
//! shows is packed, and no container gets a state that is not so.

use std::fs;
use std::path::Path;

use mlwm_tests::scripted::{image, labelled, no_container_left, streaming_image};
use mlwm_tests::site::{Ran, Site, copy, oracle, repository};
use mlwm_tests::witness::Created;
use serde_json::{Value, json};

const RUN: [&str; 3] = ["run", "--analysis-time", "2026-10-01T00:00Z"];
/// The points of the synthetic states' grid.
const CELLS: usize = 544;
const STORE: &str = "store/20261001_0000";

/// The first block of a language behind a heading of docs/artifact-format.md.
fn documented(heading: &str, language: &str) -> String {
    let text = fs::read_to_string(repository().join("docs/artifact-format.md")).unwrap();
    let (_, section) = text.split_once(heading).unwrap();
    let (_, block) = section.split_once(&format!("```{language}\n")).unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

/// The interface that the documentation shows, on the grid of the synthetic states.
fn interface() -> Value {
    let mut interface: Value = serde_json::from_str(&documented("### Version 4", "json")).unwrap();
    assert_eq!(interface["grid"]["shape"], json!([542_080]));
    interface["grid"]["shape"] = json!([CELLS]);
    interface
}

/// Packs a checkpoint that says of itself what it does in PyTorch, with an interface, by the documented command.
fn pack(site: &Site, interface: &Value) -> Ran {
    fs::write(site.path("interface.json"), interface.to_string()).unwrap();
    let checkpoint = site.path("aifs-ens-2.0.ckpt");
    oracle("checkpoint.py", &[checkpoint.to_str().unwrap(), "1000"]);
    let command = documented("### Version 4", "sh");
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("mlwm"));
    site.mlwm(&words.collect::<Vec<_>>())
}

/// A site with the artifact, a state for each member, right but for the kinds of faults that are given, and a forecast
/// that the container copies.
fn site(image: &str, faults: &[&str]) -> Site {
    let site = Site::new();
    pack(&site, &interface()).expect(0, &["sha256:"]);
    let case = site.path("case");
    oracle(
        "synthetic.py",
        &["make", case.to_str().unwrap(), "--members", "1"],
    );
    let made = site.path("store/made.zarr");
    oracle("synthetic.py", &["forecast", made.to_str().unwrap()]);
    let right = case.join("states/member000.zarr");
    for (member, fault) in faults.iter().enumerate() {
        place(&site, &right, member, fault);
    }
    configure(&site, image, faults.len());
    site
}

fn configure(site: &Site, image: &str, members: usize) {
    let yaml = format!(
        "docker_image: {image}
artifact: aifs-ens.zip
artifact_delivery: mount
members: 0-{}
forecast_duration: PT18H
retries: 0
inputs:
  state: {{uri: './store/{{analysis_time:%Y%m%d_%H%M}}/member{{member}}', internal_path: /in/state}}
  made: {{uri: ./store/made.zarr, internal_path: /in/made.zarr}}
outputs:
  fields:
    uri: ./published/member{{member}}.zarr
    internal_path: /out/fields.zarr
    variables: [2t, msl]
",
        members - 1
    );
    site.configure("aifs", &yaml);
}

/// The state of a member: the right one, or one with a fault or in another form, by the name that `synthetic.py` has
/// for it.
fn place(site: &Site, right: &Path, member: usize, fault: &str) {
    let target = site.path(&format!("{STORE}/member{member}"));
    if fault == "right" {
        return copy(right, &target);
    }
    let spoiled = site.path(&format!("spoiled{member}"));
    let [from, to] = [right, &spoiled].map(|path| path.to_str().unwrap());
    fs::create_dir_all(&spoiled).unwrap();
    oracle("synthetic.py", &["spoil", from, to, fault]);
    let made = fs::read_dir(&spoiled).unwrap().next().unwrap().unwrap();
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::rename(made.path(), target).unwrap();
}

/// The image of a test, with a label of its own, as one that an artifact is mounted into.
fn mounted(image: &str, label: &str) -> String {
    labelled(image, &format!("io.mlwm.artifact.delivery=mount {label}"))
}

/// A program that wants to see the checkpoint and the state.
const COPIES: &str = "set -e
test -s /workspace/inference_artifact/checkpoint.pkl
test -e /in/state
cp -r /in/made.zarr/. /out/fields.zarr/";

fn is_published(site: &Site, member: usize) -> bool {
    let manifest = format!("published/member{member}.zarr.manifest.json");
    site.path(&manifest).is_file()
}

/// What a run said of a member that failed.
#[track_caller]
fn said(ran: &Ran, member: usize) -> &str {
    let start = format!("member {member}: failed");
    let line = ran.stderr.lines().find(|line| line.contains(&start));
    line.unwrap_or_else(|| panic!("`{start}` is not in:\n{}", ran.stderr))
}

#[test]
fn a_documented_checkpoint_without_onnx_is_packed_and_forecasts_from_states_of_all_forms() {
    let label = "mlwm.test=program-states";
    let image = mounted(&image("program-states", COPIES), label);
    let site = site(&image, &["right", "npz", "netcdf-4"]);
    site.mlwm(&["artifact", "verify", "aifs-ens.zip"])
        .expect(0, &[]);
    site.mlwm(&["artifact", "inspect", "aifs-ens.zip"]).expect(
        0,
        &[
            "aifs-ens-2.0",
            "state: 10 fields at -6 h, 0 h",
            "predicts    2t 10u",
            "tp",
        ],
    );
    let expected = site.mlwm(&[&["plan"], &RUN[1..], &["--expect=json"]].concat());
    let expected: Value = serde_json::from_str(&expected.expect(0, &[]).stderr).unwrap();
    // 3 members x 2 variables x 544 points x 3 steps of float32.
    let bytes = expected.to_string();
    assert!(
        bytes.contains(&format!("\"bytes_out\":{}", 3 * 2 * CELLS * 3 * 4)),
        "{bytes}"
    );
    let created = Created::with(label);
    site.mlwm(&RUN).expect(0, &["published"]);
    assert_eq!(created.count(), 3);
    assert_eq!(
        [0, 1, 2].map(|member| is_published(&site, member)),
        [true; 3]
    );
    // The times of what the program writes are those of the declared steps.
    configure(&site, &image, 1);
    let longer = [&RUN[..], &["--forecast-duration", "PT24H", "--republish"]].concat();
    site.mlwm(&longer).expect(23, &["has 3 times"]);
    // Without a program of its own there is nothing that could run it.
    let own = fs::read_to_string(site.path("configurations/aifs/config.yaml")).unwrap();
    site.configure(
        "aifs",
        &own.replace(
            "artifact_delivery: mount\n",
            "base_image: mlwm-base:bookworm\n",
        ),
    );
    site.mlwm(&["image", "build", "aifs"])
        .expect(13, &["has no ONNX model, which the built-in runner needs"]);
    no_container_left(&site);
}

#[test]
fn a_state_that_is_not_as_declared_gets_no_container() {
    let label = "mlwm.test=program-no-states";
    let image = mounted(&image("program-no-states", COPIES), label);
    let faults = [
        ("right", &[][..]),
        (
            "date",
            &[
                "valid at 2026-09-29T18:00Z, 2026-09-30T00:00Z",
                "starts from 2026-09-30T18:00Z",
            ],
        ),
        (
            "interval",
            &["valid at 2026-09-30T00:00Z, 2026-10-01T00:00Z"],
        ),
        ("missing-field", &["has no `q_850`"]),
        ("extra-field", &["`w_850`", "does not know"]),
        (
            "shape",
            &["has the shape (time: 2, cell: 543)", "(time: 2, cell: 544)"],
        ),
        ("dtype", &["`msl`", "is of type float64", "needs float32"]),
        ("nan", &["`2t`", "1 values that are NaN"]),
        ("nan-mask", &["`sd`", "where it must be NaN"]),
        ("nan-on-land", &["`sd`", "but where `lsm` is 0"]),
        ("range", &["`msl`", "must be from 80000 to 120000"]),
        ("not-constant", &["`z`", "declared constant"]),
        ("netcdf-date", &["valid at 2026-09-29T18:00Z"]),
        ("netcdf-nan", &["`2t`", "NaN"]),
        ("netcdf-missing", &["has no `q_850`"]),
    ];
    let site = site(&image, &faults.map(|(fault, _)| fault));
    let created = Created::with(label);
    let report = site.path("report.json");
    let reported = [&RUN[..], &["--report", report.to_str().unwrap()]].concat();
    let ran = site.mlwm(&reported).expect(12, &["published"]);
    assert_eq!(created.count(), 1, "that of member 0");
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    for (member, (fault, texts)) in faults.iter().enumerate().skip(1) {
        let said = said(&ran, member);
        for text in [&format!("{STORE}/member{member}")[..]]
            .iter()
            .chain(*texts)
        {
            assert!(said.contains(text), "{fault}: `{text}` is not in: {said}");
        }
        let task = &report["tasks"][member];
        let code = match fault.contains("missing") {
            true => "input-missing",
            false => "input-corrupt",
        };
        assert_eq!(task["exit_code"], code, "{fault}: {task:#}");
        let folder = format!("published/member{member}.zarr");
        assert_eq!(site.files(&folder), [""; 0], "nothing was begun");
    }
    let others = 1..faults.len();
    assert!(
        is_published(&site, 0) && !others.into_iter().any(|member| is_published(&site, member))
    );
    assert_eq!(site.files("mlwm-work/tasks"), [""; 0]);

    // What is put right is all that is run.
    let right = site.path("case/states/member000.zarr");
    for member in [1, 3] {
        fs::remove_dir_all(site.path(&format!("{STORE}/member{member}"))).unwrap();
        place(&site, &right, member, "right");
    }
    let created = Created::with(label);
    site.mlwm(&[&RUN[..], &["--members", "0,1,3"]].concat())
        .expect(0, &["already published"]);
    assert_eq!(created.count(), 2);
    no_container_left(&site);
}

/// One container serves the members, and is not even made for those that cannot be served.
#[test]
fn a_container_of_several_members_gets_none_whose_state_is_wrong() {
    let writes = r#"for out in $s/out/$work/*; do
    cp -r $s/in/$work/inputs/made $out/.w
    mv $out/.w $out/h000-018
  done
  say '"window":"h000-018"'"#;
    let label = "mlwm.test=program-streams";
    let image = mounted(&streaming_image("program-streams", writes), label);
    let wrong = site(&image, &["date", "nan"]);
    let created = Created::with(label);
    let ran = wrong.mlwm(&RUN).expect(12, &["valid at"]);
    assert_eq!(created.count(), 0);
    assert!(said(&ran, 1).contains("`2t`"));
    wrong.expect_nothing_left();

    let some = site(&image, &["right", "date", "right"]);
    let created = Created::with(label);
    let ran = some.mlwm(&RUN).expect(12, &["published"]);
    assert_eq!(created.count(), 1);
    assert!(said(&ran, 1).contains("valid at 2026-09-29T18:00Z"));
    assert_eq!(
        [0, 1, 2].map(|member| is_published(&some, member)),
        [true, false, true]
    );
    no_container_left(&some);
}
