//! A user mistypes where an artifact goes or comes from: told at once, and nothing is sent or made.

use std::fs::{self, File};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use mlwm_tests::site::{Site, example_configuration, noise_artifact};

fn zip() -> String {
    noise_artifact("noise", 4096, 1).display().to_string()
}

#[test]
fn registries_that_are_none() {
    let site = Site::new();
    let zip = zip();
    for (registry, said) in [
        ("s3:/bucket/models", "`s3://bucket/models`"),
        ("oci:/host:5000/models", "`oci://host:5000/models`"),
        ("http://host/models", "oci://"),
        ("s3://bucket/sp ace/é%20", "write the place plainly"),
        ("s3://bucket/models/noise:v5", "--tag"),
        ("models/noise@sha256:12", "a registry is wanted"),
        ("s3://AKIA:se/cret@bucket/models", "credentials"),
        ("", "names no artifact"),
    ] {
        let pushed = site.mlwm(&["artifact", "push", &zip, registry]);
        let pushed = pushed.expect(2, &[said]);
        assert!(!pushed.stderr.contains("se/cret"), "{}", pushed.stderr);
        site.mlwm(&["artifact", "list", registry])
            .expect(2, &[said]);
    }
    site.mlwm(&["artifact", "inspect", "http://host/models/noise"])
        .expect(2, &["oci://"]);
    assert_eq!(site.files("."), Vec::<String>::new());
}

#[test]
fn options_that_go_with_others() {
    let site = Site::new();
    let build = ["artifact", "build", "x", "--tag", "v1"];
    site.mlwm(&build).expect(2, &["--push"]);
    let zip = zip();
    let bundle = [
        "artifact",
        "bundle",
        &zip,
        "--output",
        "b.tar",
        "--part-size",
        "0",
    ];
    site.mlwm(&bundle).expect(2, &["--part-size"]);
}

#[test]
fn what_is_not_there_has_one_exit_code() {
    let site = Site::new();
    let (zip, models) = (zip(), site.path("models"));
    let models = models.display().to_string();
    for command in [
        &["verify", "nosuch.zip"][..],
        &["push", "nosuch.zip", &models],
        &["import", "nosuch.tar", &models],
        &["sign", &zip, "--key", "nosuch.key"],
        &["push", &zip, &models, "--sign", "nosuch.key"],
        &["extract", &zip, "out", "--only", "nosuch"],
    ] {
        let arguments = [&["artifact"], command].concat();
        site.mlwm(&arguments).expect(11, &["nosuch"]);
    }
    for command in ["list", "policy"] {
        site.mlwm(&["artifact", command, "nosuch"])
            .expect(11, &["there is no folder", "nosuch"]);
    }
    site.mlwm(&["artifact", "inspect", "nosuch/noise"])
        .expect(11, &["there is no folder"]);
    site.mlwm(&["artifact", "push", &zip, "models"])
        .expect(0, &[]);
    site.mlwm(&["artifact", "list", "models", "--name", "gefion-1"])
        .expect(0, &["has no artifact named gefion-1"]);
}

#[test]
fn a_folder_in_the_place_of_a_zip() {
    let site = Site::new();
    fs::create_dir(site.path("a.zip")).unwrap();
    for command in [&["verify", "a.zip"][..], &["push", "a.zip", "models"]] {
        let arguments = [&["artifact"], command].concat();
        site.mlwm(&arguments)
            .expect(13, &["a.zip is a folder: give the zip"]);
    }
}

#[test]
fn where_nothing_can_be_written_the_folder_is_named() {
    let site = Site::new();
    let zip = zip();
    site.mlwm(&["artifact", "push", &zip, "models"])
        .expect(0, &[]);
    // A folder in which nobody can make a file, whoever asks.
    let into = "/sys/kernel";
    for command in [
        &["pull", "models/noise", "--output", into][..],
        &["extract", &zip, into],
        &["bundle", &zip, "--output", "/sys/kernel/models.tar"],
    ] {
        let arguments = [&["artifact"], command].concat();
        let ran = site.mlwm(&arguments);
        assert!(!ran.stderr.contains("/."), "{}", ran.stderr);
        assert!(!ran.stderr.contains("credentials"), "{}", ran.stderr);
        ran.expect(30, &["/sys/kernel"]);
    }
}

#[test]
fn only_claims_are_cleared_of_what_is_published() {
    let site = Site::new();
    let zip = zip();
    let claim = site.path("models/artifacts/noise/latest.claims");
    let claim = claim.join(format!("{}.abcdefabcdef", "0".repeat(64)));
    let leave = || {
        fs::create_dir_all(claim.parent().unwrap()).unwrap();
        fs::write(&claim, "claimed\n").unwrap();
    };
    let clear = ["artifact", "remove", "models/noise", "--claims-only"];
    leave();
    site.mlwm(&clear).expect(0, &["latest.claims"]);
    assert!(!claim.exists());
    site.mlwm(&clear).expect(11, &["has no noise"]);

    site.mlwm(&["artifact", "push", &zip, "models"])
        .expect(0, &[]);
    leave();
    site.mlwm(&clear).expect(31, &["is published"]);
    site.mlwm(&["artifact", "verify", "models/noise"])
        .expect(0, &["every size and hash is right"]);
}

#[test]
fn what_only_reads_ends_at_a_signal() {
    let site = Site::new();
    // Takes connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let registry = format!("oci://{}/models", silent.local_addr().unwrap());
    let noise = format!("{registry}/noise");
    for command in [["list", &registry], ["verify", &noise], ["inspect", &noise]] {
        let mut running = site.command(&["artifact", command[0], command[1]]);
        let running = running.stderr(Stdio::piped()).spawn().unwrap();
        let _waiting = silent.accept().unwrap();
        let kill = ["-INT", &running.id().to_string()];
        assert!(Command::new("kill").args(kill).status().unwrap().success());
        let output = running.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert!(!said.contains("is kept"), "{said}");
    }
}

#[test]
fn an_oci_registry_where_none_is() {
    let site = Site::new();
    site.mlwm(&["artifact", "list", "oci://127.0.0.1:1/models"])
        .expect(30, &["oci://127.0.0.1:1"]);
}

#[test]
fn standard_output_that_takes_nothing() {
    let site = Site::new();
    let mut inspect = site.command(&["artifact", "inspect", &zip(), "--json"]);
    let full = File::create("/dev/full").unwrap();
    let output = inspect.stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("standard output"), "{said}");
    // Nobody reads on: no error.
    let mut inspect = site.command(&["artifact", "inspect", &zip()]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = inspect.stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(fs::read_dir(site.path(".")).unwrap().count() <= 1);
}

/// What would be written more than once, or cannot be cut: before anything is staged. The model has steps of 3 hours.
#[test]
fn windows_that_cannot_be() {
    let site = Site::with_example();
    let yaml = example_configuration();
    let other = "  other: {uri: ./published/other.zarr, internal_path: /out/other.zarr";
    for (more, said) in [
        (
            "    windows: {length: PT90M}\n".to_owned(),
            "a length of whole hours",
        ),
        (
            "    windows: {length: PT6H}\n    zarr_format: 2\n".to_owned(),
            "is of Zarr format 3",
        ),
        (
            format!("    windows: {{length: PT6H}}\n{other}}}\n"),
            "`surface` is not cut like this one",
        ),
        (
            format!("    windows: {{length: PT6H}}\n{other}, windows: {{length: PT9H}}}}\n"),
            "`surface` is not cut like this one",
        ),
        (
            "    windows: {length: PT7H}\n".to_owned(),
            "no whole number of steps",
        ),
        (
            "    windows: {length: PT6H, hours: 3-18}\n".to_owned(),
            "the hours 3-18 begin or end within a window of PT6H",
        ),
        (
            "    windows: {length: PT6H, hours: 6-15}\n".to_owned(),
            "the hours 6-15 begin or end within a window of PT6H",
        ),
        (
            "    windows: {length: PT6H, hours: 6-24}\n".to_owned(),
            "the forecast has 18 hours",
        ),
    ] {
        site.configure("danra", &format!("{yaml}{more}time_layout: time\n"));
        site.run("danra", &[]).expect(10, &[said]);
        for folder in ["published", "mlwm-work/tasks", "mlwm-work/log"] {
            assert_eq!(site.files(folder), [""; 0], "{more}");
        }
    }
    let last = "    windows: {length: PT12H, hours: 12-18}\ntime_layout: time\n";
    site.configure("danra", &(yaml + last));
    site.run("danra", &["--dry-run"])
        .expect(0, &["\"hours\": \"12-18\""]);
}
