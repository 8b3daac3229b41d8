//! Containers that serve several members, and play tricks with what they wrote: what they hand over is theirs, and
//! nothing of the host or of others comes with it.

use std::fs;
use std::process::Stdio;

use mlwm_tests::scripted::{no_container_left, streaming_image};
use mlwm_tests::site::{Site, oracle};
use mlwm_tests::space::most_taken;

const TIME: &str = "2022-04-07T03:00Z";
const RUN: [&str; 3] = ["run", "--analysis-time", TIME];
/// What lies on the host, and is nobody's business.
const SECRET: &str = "a line that only this host has";

/// A site with two members that one container serves: it copies their inputs, then does `trick`, which knows `$out`
/// and `$window`, and where the secret of the site lies.
fn site(name: &str, trick: impl Fn(&str) -> String) -> Site {
    let site = Site::with_example();
    fs::create_dir(site.path("host")).unwrap();
    fs::write(site.path("host/secret"), SECRET).unwrap();
    let trick = trick(site.path("host").to_str().unwrap());
    let writes = format!(
        r#"
  window=h000-006
  while [ ! -e $s/in/$work/go/$window ]; do sleep 0.05; done
  out=$s/out/$work/surface
  cp -r $s/in/$work/inputs/surface $out/.$window
  chmod -R u+w $out/.$window
  mv $out/.$window $out/$window
  {trick}
  say '"window":"h000-006"'"#
    );
    let yaml = format!(
        "docker_image: {}
members: 0-1
forecast_duration: PT6H
retries: 0
inputs:
  surface: {{uri: ./store/single_levels.zarr, internal_path: /in/surface.zarr}}
outputs:
  surface: {{uri: './published/member{{member}}.zarr', internal_path: /out/surface.zarr}}
",
        streaming_image(name, &writes)
    );
    site.configure("danra", &yaml);
    site
}

#[track_caller]
fn nothing_was_touched(site: &Site) {
    assert_eq!(site.files("host"), ["secret"]);
    assert_eq!(
        fs::read(site.path("host/secret")).unwrap(),
        SECRET.as_bytes()
    );
    for file in site.files("published") {
        let bytes = fs::read(site.path("published").join(&file)).unwrap();
        let found = bytes
            .windows(SECRET.len())
            .any(|part| part == SECRET.as_bytes());
        assert!(!found, "{file} has the secret");
    }
    assert_eq!(site.files("mlwm-work/tasks"), [""; 0]);
    assert_eq!(site.files("mlwm-work/warm"), [""; 0]);
    no_container_left(site);
}

#[test]
fn links_are_not_followed_wherever_they_are() {
    for (name, trick, said) in [
        (
            "links-file",
            "ln -sfn HOST/secret $out/$window/.zattrs",
            "`.zattrs`, which is neither a file nor a folder",
        ),
        (
            "links-pipe",
            "rm $out/$window/.zattrs; mkfifo $out/$window/.zattrs",
            "`.zattrs`, which is neither a file nor a folder",
        ),
        (
            "links-window",
            "rm -r $out/$window; ln -s HOST $out/$window",
            "was not written, or is a link",
        ),
        (
            "links-output",
            "rm -r $out; ln -s HOST $out",
            "was not written, or is a link",
        ),
    ] {
        let site = site(name, |host| trick.replace("HOST", host));
        site.mlwm(&RUN).expect(23, &[said]);
        assert_eq!(site.files("published"), [""; 0]);
        nothing_was_touched(&site);
    }
}

/// While it is looked at, and until the container ends: a file that was seen to be one is no link later.
#[test]
fn a_file_that_becomes_a_link_again_and_again_is_taken_as_a_file_or_not_at_all() {
    let site = site("swaps", |host| {
        format!(
            r#"cd $out/$window
  ( while :; do
      echo '{{}}' > file; mv -fT file .zattrs; ln -s {host}/secret link; mv -fT link .zattrs
    done ) 2>/dev/null &
  cd /"#
        )
    });
    for _ in 0..5 {
        let ran = site.mlwm(&RUN);
        let all = format!("{}{}", ran.stdout, ran.stderr);
        assert!([0, 23].contains(&ran.code), "{all}");
        assert!(!all.contains(SECRET), "{all}");
        nothing_was_touched(&site);
        let _ = fs::remove_dir_all(site.path("published"));
    }
}

/// What is in the way of a member to come is that member's fault alone.
#[test]
fn folders_of_members_to_come_are_not_made_where_a_link_leads() {
    let site = site("in-the-way", |host| {
        format!("if [ $work = 0000 ]; then ln -s {host} $s/out/0001; ln -s {host} $s/out/0002; fi")
    });
    let ran = site.mlwm(&RUN);
    assert!([0, 30].contains(&ran.code), "{}", ran.stderr);
    assert!(site.path("published/member0.zarr.manifest.json").is_file());
    nothing_was_touched(&site);
}

/// A site with three members whose windows lie in their inputs; the model does `spoil` with each, which lies in `$new`.
fn cut(name: &str, spoil: &str) -> Site {
    let site = Site::new();
    let store = site.path("store");
    oracle("windows.py", &["make", store.to_str().unwrap(), "3"]);
    let writes = format!(
        r#"
  for path in $s/in/$work/inputs/surface/*; do
    window=$(basename $path)
    while [ ! -e $s/in/$work/go/$window ]; do sleep 0.05; done
    new=$s/out/$work/surface/.$window
    cp -r $path $new
    {spoil}
    mv $new $s/out/$work/surface/$window
    say "\"window\":\"$window\""
  done"#
    );
    let yaml = format!(
        "docker_image: {}
members: 0-2
forecast_duration: PT60H
time_layout: time
retries: 0
inputs:
  surface: {{uri: './store/member{{member}}', internal_path: /in/surface}}
outputs:
  surface:
    uri: ./published/member{{member}}.zarr
    internal_path: /out/surface.zarr
    variables: [t2m, msl]
    windows: {{length: PT24H}}
",
        streaming_image(name, &writes)
    );
    site.configure("danra", &yaml);
    site
}

#[track_caller]
fn all_is_published(site: &Site) {
    for member in ["0", "1", "2"] {
        let store = format!("published/member{member}.zarr");
        let path = site.path(&store);
        oracle("windows.py", &["check", path.to_str().unwrap(), member]);
        site.mlwm(&["verify", &store])
            .expect(0, &["all as published"]);
    }
    assert_eq!(site.files("mlwm-work/tasks"), [""; 0]);
    assert_eq!(site.files("mlwm-work/warm"), [""; 0]);
    no_container_left(site);
}

/// A file that is a terabyte long and takes nothing does not make others wait for a terabyte.
#[test]
fn a_window_with_a_file_that_is_only_long_takes_what_it_takes() {
    let site = cut("only-long", "truncate --size 1T $new/core");
    let run = [&RUN[..], &["--disk", "16MiB"]].concat();
    site.mlwm(&run).expect(0, &["published"]);
    all_is_published(&site);
}

/// I6: what is reserved for windows is all that a model may write.
#[test]
fn a_model_that_writes_more_than_its_windows_may_take_is_stopped() {
    let writes = "if [ $window = h024-048 ]; then head -c 60M /dev/zero > $new/core; sleep 60; fi";
    let site = cut("writes-on", writes);
    let run = [&RUN[..], &["--disk", "16MiB", "--members", "0"]].concat();
    let said = ["are reserved for its windows, and was killed", "--disk"];
    site.mlwm(&run).expect(20, &said);
    let is_manifest = |file: &String| file.ends_with(".manifest.json");
    assert!(!site.files("published").iter().any(is_manifest));
    assert_eq!(site.files("mlwm-work/tasks"), [""; 0]);
    assert_eq!(site.files("mlwm-work/warm"), [""; 0]);
    no_container_left(&site);
}

/// What a narrow type has no number for is not published as infinity.
#[test]
fn a_value_that_does_not_fit_the_declared_type_is_refused_by_name() {
    let site = cut("overflows", "");
    let config = site.path("configurations/danra/config.yaml");
    let yaml = fs::read_to_string(config).unwrap();
    let narrow = "windows: {length: PT24H, stored_as: {msl: float16}}";
    let narrow = yaml.replace("windows: {length: PT24H}", narrow);
    assert_ne!(narrow, yaml);
    site.configure("danra", &narrow);
    // The pressure in Pa; the greatest number of float16 is 65504.
    let ran = site.mlwm(&RUN).expect(
        23,
        &[
            "the variable `msl` has the value 100010 at the lead time 6 h",
            "does not fit float16",
        ],
    );
    for member in 0..3 {
        let said = format!("member {member}: failed");
        assert!(ran.stderr.contains(&said), "{}", ran.stderr);
    }
    site.expect_nothing_left();
    site.configure("danra", &yaml);
    site.mlwm(&RUN).expect(0, &["published"]);
    all_is_published(&site);
}

/// What is published is withdrawn when all that takes its place is there: the windows are kept until then.
#[test]
fn windows_that_are_published_anew_are_kept_within_the_space_there_is() {
    let site = cut("anew", "");
    let run = [&RUN[..], &["--disk", "16MiB"]].concat();
    site.mlwm(&run).expect(0, &["published"]);
    let config = site.path("configurations/danra/config.yaml");
    let yaml = fs::read_to_string(config).unwrap() + "environment: {AGAIN: '1'}\n";
    site.configure("danra", &yaml);
    site.mlwm(&run).expect(31, &["configuration"]);
    let again = [&RUN[..], &["--republish", "--report", "report.json"]].concat();
    // The inputs of a member and one window fit, but not what is made of it.
    let small = [&again[..], &["--disk", "7500000"]].concat();
    let ran = site.mlwm(&small);
    assert_ne!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("--disk"), "{}", ran.stderr);
    all_is_published(&site);
    let budget: u64 = 16 << 20;
    let enough = [&again[..], &["--disk", "16MiB"]].concat();
    let mut command = site.command(&enough);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (ran, most) = most_taken(&site, command.spawn().unwrap());
    ran.expect(0, &["published", "held at most"]);
    assert!(most <= budget, "{most}");
    let report = fs::read(site.path("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let held = report["disk"]["most"].as_u64().unwrap();
    assert!(held <= budget, "{held}");
    all_is_published(&site);
}
