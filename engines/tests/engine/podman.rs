//! The same on Podman's service, which answers Docker's API in its own way.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mlwm_engines::{Endpoint, Engine, Error, Kind, Mount, Output};
use mlwm_spec::ExitCode;
use mlwm_spec::bytes::ByteSize;
use mlwm_spec::configuration::Gpus;
use tokio_util::sync::CancellationToken;

use crate::builds::builds;
use crate::support::{BASE, LABEL, docker, run, script};

const CONTAINERS_CONF: &str = r#"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"#;

/// A service of Podman with a storage of its own, for as long as this lives.
struct Service {
    folder: PathBuf,
    child: Child,
}

impl Service {
    async fn start() -> Self {
        // Kept between runs of the tests, so that the image is loaded once.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("podman");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("containers.conf"), CONTAINERS_CONF).unwrap();
        let child = listen(&folder).await;
        let service = Self { folder, child };
        service.load_base().await;
        service
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn start_again(&mut self) {
        self.child = listen(&self.folder).await;
    }

    async fn engine(&self) -> Engine {
        Engine::connect_to(Endpoint::Unix(self.folder.join("podman.sock")))
            .await
            .unwrap()
    }

    async fn load_base(&self) {
        let found = podman(&self.folder)
            .args(["image", "exists", BASE])
            .status()
            .unwrap();
        if !found.success() {
            docker().await; // which has the image
            let mut save = Command::new("docker")
                .args(["save", BASE])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let load = podman(&self.folder)
                .arg("load")
                .stdin(save.stdout.take().unwrap())
                .output();
            assert!(save.wait().unwrap().success() && load.unwrap().status.success());
        }
    }

    fn containers(&self) -> String {
        let filter = format!("label={LABEL}");
        let output = podman(&self.folder)
            .args(["ps", "-aq", "--filter", &filter])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn listen(folder: &Path) -> Child {
    let socket = folder.join("podman.sock");
    let _ = std::fs::remove_file(&socket);
    let address = format!("unix://{}", socket.display());
    let child = podman(folder)
        .args(["system", "service", "--time=0", &address])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("podman is needed for this test: `apt-get install podman catatonit`");
    for _ in 0..200 {
        if socket.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    child
}

fn podman(folder: &Path) -> Command {
    let mut command = Command::new("podman");
    command
        .env("CONTAINERS_CONF", folder.join("containers.conf"))
        .args(["--root".as_ref(), folder.join("root").as_os_str()])
        .args(["--runroot".as_ref(), folder.join("runroot").as_os_str()]);
    command
}

/// One test, as there is one service.
#[tokio::test]
async fn podman_runs_and_builds() {
    let mut service = Service::start().await;
    let engine = service.engine().await;
    assert_eq!(engine.info().kind, Kind::Podman);
    let local = podman(&service.folder)
        .args(["tag", BASE, "localhost/mlwm-test/local"])
        .status();
    assert!(local.unwrap().success());
    let image = engine.image("mlwm-test/local").await.unwrap().unwrap();
    assert_eq!(image.id, engine.image(BASE).await.unwrap().unwrap().id);
    assert_eq!(engine.image("mlwm-test-absent:none").await.unwrap(), None);

    isolation_and_output(&engine).await;
    limits(&engine).await;
    refusals(&engine).await;
    let save = |reference: &str| {
        podman(&service.folder)
            .args(["save", reference])
            .output()
            .unwrap()
            .stdout
    };
    builds(&engine, &save).await;

    // Podman's containers outlive its service, and their end is learnt when it is back.
    let request = script("echo up; sleep 6; exit 9");
    let (running_engine, running_request) = (engine.clone(), request.clone());
    let running = tokio::spawn(async move {
        running_engine
            .run(&running_request, &mut |_| (), &CancellationToken::new())
            .await
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    service.stop();
    tokio::time::sleep(Duration::from_secs(6)).await;
    service.start_again().await;
    let ended = running.await.unwrap().unwrap();
    assert_eq!((ended.exit_code, ended.removed), (9, true));

    let request = script("sleep 600");
    let cancel = CancellationToken::new();
    let mut print = |_| ();
    let running = engine.run(&request, &mut print, &cancel);
    assert!(
        tokio::time::timeout(Duration::from_secs(2), running)
            .await
            .is_err()
    );
    assert_eq!(service.containers(), "", "containers are left behind");
}

async fn isolation_and_output(engine: &Engine) {
    let run_codes = run(engine, &script("exit 42")).await;
    assert_eq!(run_codes.ended().exit_code, 42);
    assert!(run_codes.ended().removed);

    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("dx2p5:km");
    std::fs::create_dir(&source).unwrap();
    let mut request = script(
        "id -u; grep -E 'CapBnd|NoNewPrivs' /proc/self/status | tr -d '\\t'; ls /sys/class/net
        touch /x 2>/dev/null || echo read-only; cp /bin/true /tmp/t && /tmp/t && echo runs
        touch /in/x 2>/dev/null || echo in-read-only; echo $MLWM_MEMBER $HOME; echo err >&2
        stat -c %a /tmp; seq 1 20000",
    );
    request.env.insert("MLWM_MEMBER".into(), "3".into());
    request.mounts = vec![Mount {
        source,
        target: "/in".into(),
        read_only: true,
    }];
    let run = run(engine, &request).await;
    let mut expected: Vec<String> = [
        "65534",
        "CapBnd:0000000000000000",
        "NoNewPrivs:1",
        "lo",
        "read-only",
        "runs",
        "in-read-only",
        "3 /tmp",
        "1777",
    ]
    .map(str::to_owned)
    .into();
    expected.extend((1..=20_000).map(|number| number.to_string()));
    assert_eq!(run.stdout(), expected);
    assert!(run.lines.contains(&Output::Stderr("err".into())));
}

async fn limits(engine: &Engine) {
    let mut request = script("exec bash -c 'head -c 1G /dev/zero | tail; exit 137'");
    request.resources.memory = Some(ByteSize(64 << 20));
    let run_greedy = run(engine, &request).await;
    assert_eq!(run_greedy.ended().exit_code, 137);
    // On cgroups of version 1, Podman does not see the kill (measured with 4.3).
    let version_2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    assert_eq!(
        run_greedy.ended().oom_killed,
        version_2,
        "{:?}",
        run_greedy.ended()
    );

    let mut request = script("trap 'echo bye; exit 5' TERM; while :; do sleep 0.1; done");
    request.timeout = Some(Duration::from_secs(1));
    let run_late = run(engine, &request).await;
    assert_eq!(
        (run_late.ended().exit_code, run_late.ended().timed_out),
        (5, true)
    );
    assert_eq!(run_late.stdout(), ["bye"]);
}

async fn refusals(engine: &Engine) {
    let mut request = script("true");
    request.image = "mlwm-test-absent:none".into();
    assert_eq!(
        run(engine, &request).await.error().exit_code(),
        ExitCode::ImageMissing
    );

    let mut request = script("true");
    request.resources.gpus = Some(Gpus::Count(1));
    let run_gpus = run(engine, &request).await;
    assert!(
        matches!(run_gpus.error(), Error::Gpus { .. }),
        "{}",
        run_gpus.error()
    );

    let dir = tempfile::tempdir().unwrap();
    let comma = dir.path().join("a,readonly=false");
    std::fs::create_dir(&comma).unwrap();
    let mut request = script("true");
    request.mounts = vec![Mount {
        source: comma,
        target: "/in".into(),
        read_only: true,
    }];
    let run_comma = run(engine, &request).await;
    assert!(
        matches!(run_comma.error(), Error::Request { .. }),
        "{:?}",
        run_comma.result
    );
}
