//! Models that are a shell script on the example's data.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::site::{Site, ran};

/// An image whose container runs this shell script.
pub fn image(name: &str, script: &str) -> String {
    let reference = format!("mlwm-test/{name}:latest");
    let base = std::env::var("MLWM_TEST_BASE_IMAGE").unwrap_or("mlwm-base:bookworm".into());
    let command =
        serde_json::to_string(&["/bin/bash", "-c", script]).expect("docker build can be fed");
    build(&reference, &format!("FROM {base}\nENTRYPOINT {command}\n"));
    reference
}

/// Has an image built from these lines.
fn build(reference: &str, text: &str) {
    let mut build = Command::new("docker")
        .args(["build", "--quiet", "--tag", reference, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("docker runs");
    build
        .stdin
        .take()
        .expect("docker build can be fed")
        .write_all(text.as_bytes())
        .expect("docker build can be fed");
    assert!(
        build.wait().expect("docker build can be fed").success(),
        "docker build of {reference}"
    );
}

/// A streaming model whose windows lie in its input, one folder each.
pub fn windowed(name: &str) -> String {
    let writes = r#"
  for path in $s/in/$work/inputs/surface/*; do
    window=$(basename $path)
    while [ ! -e $s/in/$work/go/$window ]; do sleep 0.05; done
    cp -r $path $s/out/$work/surface/.$window
    mv $s/out/$work/surface/.$window $s/out/$work/surface/$window
    say "\"window\":\"$window\""
  done"#;
    streaming_image(name, writes)
}

/// The image of a streaming model, a shell script that does `writes` for each member: that knows `$member`,
/// `$seed`, `$work`, the folder `$s` of the stream, and `say`, which prints a line of the contract.
pub fn streaming_image(name: &str, writes: &str) -> String {
    let script = format!(
        r#"echo "loads the model"
s=$MLWM_STREAM
n=0
say() {{ echo "::mlwm {{\"work\":\"$work\",$1}}"; }}
fact() {{ sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" $s/in/$work/work.json; }}
while true; do
  work=$(printf %04d $n)
  if [ ! -e $s/in/$work ]; then
    if [ -e $s/in/end ]; then exit 0; fi
    sleep 0.05
    continue
  fi
  member=$(fact member)
  seed=$(fact seed)
  echo "member $member with $seed"
  say '"step":1,"of":2'
  {writes}
  say '"done":true'
  n=$((n + 1))
done"#
    );
    let plain = image(&format!("{name}-plain"), &script);
    let reference = format!("mlwm-test/{name}:latest");
    build(
        &reference,
        &format!("FROM {plain}\nLABEL io.mlwm.streaming=1\n"),
    );
    reference
}

/// A site whose configuration `danra` runs `script` on the example's data.
pub fn scripted(name: &str, script: &str, more: &str) -> Site {
    let site = Site::with_example();
    let yaml = format!(
        "docker_image: {}
inputs:
  surface:
    uri: ./store/single_levels.zarr
    internal_path: /in/surface.zarr
outputs:
  surface:
    uri: ./published/surface.zarr
    internal_path: /out/surface.zarr
    variables: [t2m]
{more}",
        image(name, script)
    );
    site.configure("danra", &yaml);
    site
}

/// Fails if a container of mlwm that has ended stays. Those of other tests, which run at the same
/// time, are seen for a moment, too.
#[track_caller]
pub fn no_container_left() {
    let ended = || {
        let listed = Command::new("docker")
            .args([
                "ps",
                "--all",
                "--quiet",
                "--filter",
                "label=io.mlwm.contract=1",
            ])
            .args(["--filter", "status=exited"])
            .output()
            .expect("docker runs");
        ran(&listed)
            .stdout
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let mut left = ended();
    for _ in 0..100 {
        if left.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
        let now = ended();
        left.retain(|id| now.contains(id));
    }
    panic!("containers are left: {left:?}");
}
