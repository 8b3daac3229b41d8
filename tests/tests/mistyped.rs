//! A user mistypes where an artifact goes or comes from: told at once, and nothing is sent or made.

use std::fs::{self, File};

use mlwm_tests::site::{Site, noise_artifact};

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
    assert_eq!(site.files("."), Vec::<String>::new());
}

#[test]
fn options_that_go_with_others() {
    let site = Site::new();
    let build = ["artifact", "build", "x", "--tag", "v1"];
    site.mlwm(&build).expect(2, &["--push"]);
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
