//! Real S3 servers on the loopback interface, for tests: Garage (a storage system that people
//! run, which ignores `If-None-Match` on writes) and moto (a Python imitation of Amazon's, which
//! honours it); and a proxy that breaks connections.
//!
//! The binaries come from `ci/setup`. They are looked for in `MLWM_TEST_GARAGE` (the program
//! `garage`) and `MLWM_TEST_PYTHON` (a `python` beside which lies `moto_server`), else in
//! `~/.cache/mlwm`. A server ends when its value is dropped, or with the test process, however
//! that ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::site::{python, ran, repository};

/// A key that a test server knows.
#[derive(Clone)]
pub struct Key {
    /// What AWS calls the access key ID.
    pub id: String,
    /// What AWS calls the secret access key.
    pub secret: String,
}

/// A running S3 server.
pub struct S3Server {
    /// `http://127.0.0.1:<port>`
    pub endpoint: String,
    /// The region its signatures must name.
    pub region: &'static str,
    /// A key that may do everything in every bucket made with [`S3Server::bucket`].
    pub key: Key,
    kind: Kind,
    port: u16,
    supervisor: Child,
    folder: TempDir,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Garage,
    Moto,
}

/// Runs a server in the background and ends it when standard input closes: that happens even if
/// the test process is killed.
const SUPERVISE: &str = r#""$@" </dev/null & child=$!; read -r _; kill -9 $child; wait $child"#;

impl S3Server {
    /// Starts Garage: one node, SQLite, nothing replicated.
    pub fn garage() -> Self {
        let folder = crate::scratch::folder();
        let (api, rpc) = (free_port(), free_port());
        let root = folder.path().display();
        let config = format!(
            r#"
metadata_dir = "{root}/meta"
data_dir = "{root}/data"
db_engine = "sqlite"
replication_factor = 1
metadata_fsync = false
data_fsync = false
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{secret}"

[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:{api}"
"#,
            secret = "5a".repeat(32),
        );
        std::fs::write(folder.path().join("garage.toml"), config).unwrap();
        let key = Key {
            id: format!("GK{}", "0123456789ab".repeat(2)),
            secret: "c3".repeat(32),
        };
        Self::start(Kind::Garage, folder, api, "garage", key)
    }

    /// Starts moto. It does not check signatures.
    pub fn moto() -> Self {
        let folder = crate::scratch::folder();
        let port = free_port();
        let key = Key {
            id: "AKIAMOTOEXAMPLE".to_owned(),
            secret: "moto-secret".to_owned(),
        };
        Self::start(Kind::Moto, folder, port, "us-east-1", key)
    }

    fn start(kind: Kind, folder: TempDir, port: u16, region: &'static str, key: Key) -> Self {
        let server = Self {
            endpoint: format!("http://127.0.0.1:{port}"),
            region,
            supervisor: supervise(kind, folder.path(), port, &key),
            key,
            kind,
            port,
            folder,
        };
        server.wait_until_ready();
        server
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        drop(self.supervisor.stdin.take());
        self.supervisor.wait().unwrap();
    }

    /// Starts a server that was killed again: at the same port, and with what it had kept on its
    /// disk (which moto does not do).
    pub fn start_again(&mut self) {
        self.supervisor = supervise(self.kind, self.folder.path(), self.port, &self.key);
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let ready = TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && (self.kind == Kind::Moto
                    || self.garage_cli(&["bucket", "list"]).status.success());
            if ready {
                return;
            }
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(self.folder.path().join("log"));
                panic!("the S3 server did not start: {}", log.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes a bucket that [`S3Server::key`] may use; returns its name.
    pub fn bucket(&self, name: &str) -> String {
        match self.kind {
            Kind::Garage => {
                self.garage_ok(&["bucket", "create", name]);
                self.allow(name, &self.key.id);
            }
            Kind::Moto => {
                let mut stream = TcpStream::connect(&self.endpoint["http://".len()..]).unwrap();
                let request = format!(
                    "PUT /{name} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\
                     Connection: close\r\n\r\n",
                    host = &self.endpoint["http://".len()..],
                );
                stream.write_all(request.as_bytes()).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            }
        }
        name.to_owned()
    }

    /// A new key without any right (Garage).
    pub fn key_without_rights(&self, name: &str) -> Key {
        let text = self.garage_ok(&["key", "create", name]);
        let field = |label: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(label))
                .expect("a key");
            line[label.len()..].trim().to_owned()
        };
        Key {
            id: field("Key ID:"),
            secret: field("Secret key:"),
        }
    }

    /// Gives a key every right to a bucket (Garage).
    pub fn allow(&self, bucket: &str, key_id: &str) {
        let rights = ["--read", "--write", "--owner"];
        self.garage_ok(
            &[
                &["bucket", "allow"],
                &rights[..],
                &[bucket, "--key", key_id],
            ]
            .concat(),
        );
    }

    /// Gives a key the right to read a bucket, and no other (Garage).
    pub fn allow_reading(&self, bucket: &str, key_id: &str) {
        self.garage_ok(&["bucket", "allow", "--read", bucket, "--key", key_id]);
    }

    /// The variables for a child process that is to use this server, and no other settings of
    /// this machine; an empty value unsets what is inherited.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = bare_environment();
        environment.extend([
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_REGION", self.region.to_owned()),
            ("AWS_ACCESS_KEY_ID", self.key.id.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.key.secret.clone()),
        ]);
        environment
    }

    /// Runs `tests/oracles/objects.py`, a client that is not ours, against this server; what it prints.
    pub fn objects(&self, arguments: &[&str]) -> String {
        let output = Command::new(python())
            .arg(repository().join("tests/oracles/objects.py"))
            .args(arguments)
            // boto3 takes an empty variable for a setting.
            .env_remove("AWS_CA_BUNDLE")
            .envs(
                self.environment()
                    .into_iter()
                    .filter(|(_, value)| !value.is_empty()),
            )
            .output()
            .unwrap();
        ran(&output).expect(0, &[]).stdout
    }

    fn garage_cli(&self, arguments: &[&str]) -> Output {
        Command::new(garage_program())
            .arg("-c")
            .arg(self.folder.path().join("garage.toml"))
            .args(arguments)
            .env("RUST_LOG", "error")
            .output()
            .unwrap()
    }

    fn garage_ok(&self, arguments: &[&str]) -> String {
        assert!(self.kind == Kind::Garage, "only Garage can do that");
        let output = self.garage_cli(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "garage {arguments:?}: {text}{errors}"
        );
        text
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

/// Variables for a child process that finds no AWS settings of this machine.
pub fn bare_environment() -> Vec<(&'static str, String)> {
    let nowhere = "/nonexistent/mlwm-test".to_owned();
    vec![
        ("AWS_CONFIG_FILE", nowhere.clone()),
        ("AWS_SHARED_CREDENTIALS_FILE", nowhere),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_CA_BUNDLE", String::new()),
        ("NO_PROXY", "127.0.0.1,localhost".to_owned()),
    ]
}

fn supervise(kind: Kind, folder: &Path, port: u16, key: &Key) -> Child {
    let mut command = match kind {
        Kind::Garage => {
            let mut command = supervised(&garage_program());
            command
                .arg("-c")
                .arg(folder.join("garage.toml"))
                .args(["server", "--single-node", "--default-access-key"])
                .env("GARAGE_DEFAULT_ACCESS_KEY", &key.id)
                .env("GARAGE_DEFAULT_SECRET_KEY", &key.secret)
                .env("RUST_LOG", "error");
            command
        }
        Kind::Moto => {
            let mut command = supervised(&moto_program());
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        }
    };
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    command
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("`sh` must be there")
}

pub(crate) fn supervised(program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", SUPERVISE, "sh"]).arg(program);
    command
}

fn garage_program() -> PathBuf {
    program("MLWM_TEST_GARAGE", "garage/bin/garage", |path| path)
}

fn moto_program() -> PathBuf {
    python_script("moto_server")
}

/// A program that a Python package installed beside the Python of the oracles.
pub(crate) fn python_script(name: &str) -> PathBuf {
    program("MLWM_TEST_PYTHON", "python/bin/python", |path| {
        path.with_file_name(name)
    })
}

fn program(variable: &str, default: &str, find: impl Fn(PathBuf) -> PathBuf) -> PathBuf {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => {
            let home = std::env::var_os("HOME").expect("HOME must be set");
            PathBuf::from(home).join(".cache/mlwm").join(default)
        }
    };
    let path = find(path);
    assert!(
        path.exists(),
        "{} is missing: run ci/setup, or set {variable}",
        path.display()
    );
    path
}

/// A port of the loopback interface that nothing listens to.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A proxy in front of a server that can break what passes through it.
pub struct Proxy {
    /// `http://127.0.0.1:<port>`
    pub endpoint: String,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    /// Connections that are still to be cut.
    cuts: AtomicI64,
    /// A connection is cut after this many bytes of answers.
    after: AtomicU64,
    /// Nothing passes any more.
    silent: AtomicBool,
    /// Connections that were cut.
    done: AtomicU64,
}

impl Proxy {
    /// Starts a proxy to `endpoint` (`http://host:port`).
    pub fn to(endpoint: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let upstream = endpoint["http://".len()..].to_owned();
        let faults = Arc::new(Faults::default());
        let shared = Arc::clone(&faults);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&upstream) else {
                    continue;
                };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (up, down) = (Arc::clone(&shared), Arc::clone(&shared));
                std::thread::spawn(move || forward(from, to, &up, false));
                std::thread::spawn(move || forward(server, client, &down, true));
            }
        });
        Self {
            endpoint: format!("http://127.0.0.1:{port}"),
            faults,
        }
    }

    /// Cuts the next `connections` that have carried `bytes` of answers.
    pub fn cut(&self, connections: i64, bytes: u64) {
        self.faults.after.store(bytes, Ordering::SeqCst);
        self.faults.cuts.store(connections, Ordering::SeqCst);
    }

    /// Lets nothing pass, without closing anything; or lets it pass again.
    pub fn silence(&self, silent: bool) {
        self.faults.silent.store(silent, Ordering::SeqCst);
    }

    /// How many connections were cut.
    pub fn cuts_done(&self) -> u64 {
        self.faults.done.load(Ordering::SeqCst)
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, faults: &Faults, answers: bool) {
    let mut buffer = [0; 16 << 10];
    let mut carried = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        while faults.silent.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        carried += count as u64;
        let due = answers && carried > faults.after.load(Ordering::SeqCst);
        if due && faults.cuts.fetch_sub(1, Ordering::SeqCst) > 0 {
            faults.done.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
