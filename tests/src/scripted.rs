//! Models that are a shell script on the example's data.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::site::{Ran, Site, ran};
use crate::witness::containers_of;

/// An image whose container runs this shell script.
pub fn image(name: &str, script: &str) -> String {
    let reference = reference(name);
    let base = std::env::var("MLWM_TEST_BASE_IMAGE").unwrap_or("mlwm-base:bookworm".into());
    let command =
        serde_json::to_string(&["/bin/bash", "-c", script]).expect("docker build can be fed");
    build(&reference, &format!("FROM {base}\nENTRYPOINT {command}\n"));
    reference
}

/// The image of that name is another one from now on, as where a tag has moved.
pub fn image_moved(name: &str, script: &str) {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.remove(&reference(name));
    drop(built);
    image(name, script);
}

fn reference(name: &str) -> String {
    format!("mlwm-test/{name}:latest")
}

/// What was built, by reference.
static BUILT: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Has an image built from these lines, once. The same name never means another image: tests run beside each other.
fn build(reference: &str, text: &str) {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(other) = built.get(reference) {
        assert_eq!(other, text, "two images are called {reference}");
        return;
    }
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
    built.insert(reference.to_owned(), text.to_owned());
}

/// A streaming model whose windows lie in its input, one folder each.
pub fn windowed(name: &str) -> String {
    windowed_with(name, "")
}

/// The same, which does `before` each window: that knows `$window`, and what [`streaming_image`] says.
pub fn windowed_with(name: &str, before: &str) -> String {
    let writes = format!(
        r#"
  for path in $s/in/$work/inputs/surface/*; do
    window=$(basename $path)
    {before}
    while [ ! -e $s/in/$work/go/$window ]; do sleep 0.05; done
    for out in $s/out/$work/*; do
      cp -r $path $out/.$window
      mv $out/.$window $out/$window
    done
    say "\"window\":\"$window\""
  done"#
    );
    streaming_image(name, &writes)
}

/// A streaming model stands still, and says so, until the test lets it go on ([`let_on`]).
pub const WAITS: &str = "echo waits; while [ ! -e $s/in/on ]; do sleep 0.05; done";

/// Lets the models of a site go on that are there now.
pub fn let_on(site: &Site) {
    signal(site, "on");
}

/// Puts a file into the folder `$s/in` of each streaming model of a site.
pub fn signal(site: &Site, name: &str) {
    for owner in site.files("mlwm-work/warm") {
        if let Some(folder) = owner.strip_suffix("/owner") {
            let file = site
                .path("mlwm-work/warm")
                .join(folder)
                .join("in")
                .join(name);
            // It may just be going.
            let _ = std::fs::write(file, "");
        }
    }
}

/// Waits until a run has ended; its models go on at once.
pub fn ended(site: &Site, run: Child) -> Ran {
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| run.wait_with_output().expect("it can be waited for"));
        while !ended.is_finished() {
            let_on(site);
            std::thread::sleep(Duration::from_millis(20));
        }
        ran(&ended.join().expect("it can be waited for"))
    })
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
    label(&reference, &plain, "io.mlwm.streaming=1");
    reference
}

/// An image with one more label.
pub fn labelled(image: &str, more: &str) -> String {
    let reference = image.replace(":latest", "-labelled:latest");
    label(&reference, image, more);
    reference
}

fn label(reference: &str, from: &str, label: &str) {
    build(reference, &format!("FROM {from}\nLABEL {label}\n"));
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

/// Fails if a container of a site's runs stays.
#[track_caller]
pub fn no_container_left(site: &Site) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let left = containers_of(site);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "containers are left: {left:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
