//! The image, requests and engines that the tests use.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use mlwm_engines::{Ended, Endpoint, Engine, Error, Output, Request};
use mlwm_spec::configuration::Resources;
use tokio_util::sync::CancellationToken;

pub(crate) const BASE: &str = "mlwm-base:bookworm";
/// The label that marks the containers of one test.
pub(crate) const LABEL: &str = "io.mlwm.test";

/// Docker, with the base image in it.
pub(crate) async fn docker() -> Engine {
    static BASE_READY: OnceLock<()> = OnceLock::new();
    BASE_READY.get_or_init(|| {
        let found = Command::new("docker")
            .args(["image", "inspect", BASE])
            .output()
            .unwrap();
        if !found.status.success() {
            let make =
                format!("mmdebstrap --quiet --variant=minbase bookworm | docker import - {BASE}");
            let made = Command::new("bash")
                .args(["-o", "pipefail", "-c", &make])
                .status()
                .unwrap();
            assert!(made.success(), "could not make {BASE}");
        }
    });
    Engine::connect_to(Endpoint::Unix(PathBuf::from("/var/run/docker.sock")))
        .await
        .unwrap()
}

/// A request to run a script of bash, with a name and a label of its own.
pub(crate) fn script(script: &str) -> Request {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "mlwm-test-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    Request {
        image: BASE.to_owned(),
        env: BTreeMap::new(),
        mounts: Vec::new(),
        resources: Resources::default(),
        timeout: None,
        labels: BTreeMap::from([(LABEL.to_owned(), name.clone())]),
        command: Some(vec!["bash".into(), "-c".into(), script.to_owned()]),
        user: (65534, 65534),
        network: false,
        kill: CancellationToken::new(),
        name,
    }
}

/// What a container did.
pub(crate) struct Run {
    pub(crate) result: Result<Ended, Error>,
    pub(crate) lines: Vec<Output>,
}

impl Run {
    pub(crate) fn ended(&self) -> &Ended {
        self.result
            .as_ref()
            .unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn error(&self) -> &Error {
        self.result.as_ref().expect_err("an error")
    }

    pub(crate) fn stdout(&self) -> Vec<&str> {
        let out = self.lines.iter().filter_map(|line| match line {
            Output::Stdout(text) => Some(text.as_str()),
            Output::Stderr(_) => None,
        });
        out.collect()
    }
}

/// Runs a container to its end, and checks that nothing of it is left.
pub(crate) async fn run(engine: &Engine, request: &Request) -> Run {
    let mut lines = Vec::new();
    let result = engine
        .run(
            request,
            &mut |line| lines.push(line),
            &CancellationToken::new(),
        )
        .await;
    if let Endpoint::Unix(path) = engine.endpoint()
        && path == &PathBuf::from("/var/run/docker.sock")
    {
        assert_eq!(left_behind(request), "", "containers are left behind");
    }
    Run { result, lines }
}

/// The containers of a request that Docker still has, by an independent client.
pub(crate) fn left_behind(request: &Request) -> String {
    let filter = format!("label={LABEL}={}", request.labels[LABEL]);
    docker_cli(&["ps", "--all", "--quiet", "--filter", &filter])
}

pub(crate) fn docker_cli(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
