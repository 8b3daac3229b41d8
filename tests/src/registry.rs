//! Real OCI registries on the loopback interface, for tests: Debian's `docker-registry`, open, with
//! a password, or with a token server; an imitation in Python that treats uploads as other
//! registries do; and a proxy that breaks what passes.
//!
//! `docker-registry` and `htpasswd` come from `ci/setup`; the registry is looked for in
//! `MLWM_TEST_REGISTRY`, else in `PATH`. A server ends when its value is dropped, or with the test
//! process, however that ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::s3::{python_script, supervised};

/// The login that every registry with logins knows.
pub const LOGIN: (&str, &str) = ("user", "pass");

/// A running registry.
pub struct Registry {
    /// `127.0.0.1:<port>`
    pub host: String,
    servers: Vec<Child>,
    folder: TempDir,
}

impl Registry {
    /// Debian's `docker-registry`, open to everybody, with deletion.
    pub fn open() -> Self {
        Self::docker("", crate::scratch::folder(), Vec::new())
    }

    /// The same, where [`LOGIN`] is asked for.
    pub fn with_password() -> Self {
        let folder = crate::scratch::folder();
        let auth = password(folder.path());
        Self::docker(&auth, folder, Vec::new())
    }

    /// The same, where a token server gives [`LOGIN`] tokens that are good for `seconds`, and says
    /// that they are for `claimed`. Whoever has the identity token `identity` gets them too;
    /// everybody may pull from `public/…`.
    pub fn with_tokens(seconds: f64, claimed: u64) -> Self {
        let folder = crate::scratch::folder();
        let script = folder.path().join("token_server.py");
        std::fs::write(&script, include_str!("registry/token_server.py")).unwrap();
        let mut command = supervised(&python_script("python"));
        command
            .arg(&script)
            .arg(folder.path())
            .args([seconds.to_string(), claimed.to_string()]);
        let (server, port) = start(command, &folder.path().join("tokens.log"));
        let auth = format!(
            "auth: {{token: {{realm: \"http://127.0.0.1:{port}/token\", service: registry, \
             issuer: mlwm-test, rootcertbundle: {}}}}}",
            folder.path().join("bundle.pem").display()
        );
        Self::docker(&auth, folder, vec![server])
    }

    /// The same, open, with encryption, under the name of this computer; and the file of the
    /// certificate that it shows.
    pub fn with_tls() -> (Self, PathBuf) {
        Self::encrypted("", crate::scratch::folder())
    }

    /// The same, where [`LOGIN`] is asked for.
    pub fn with_tls_and_password() -> (Self, PathBuf) {
        let folder = crate::scratch::folder();
        let auth = password(folder.path());
        Self::encrypted(&auth, folder)
    }

    fn encrypted(auth: &str, folder: TempDir) -> (Self, PathBuf) {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let name = name.trim();
        let mut addresses = (name, 0).to_socket_addrs().expect("a name that resolves");
        let address = addresses.next().unwrap().ip();
        let (key, certificate) = (folder.path().join("key"), folder.path().join("certificate"));
        let output = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-days", "2", "-subj", "/CN=test"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-addext", &format!("subjectAltName=DNS:{name}")])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .expect("`openssl` must be there: run ci/setup");
        assert!(output.status.success(), "{output:?}");
        let tls = format!(
            ", tls: {{certificate: {}, key: {}}}",
            certificate.display(),
            key.display()
        );
        let mut registry = Self::docker_at(&address.to_string(), &tls, auth, folder, Vec::new());
        let port = registry.host.rsplit_once(':').unwrap().1.to_owned();
        registry.host = format!("{name}:{port}").to_ascii_lowercase();
        (registry, certificate)
    }

    fn docker(auth: &str, folder: TempDir, servers: Vec<Child>) -> Self {
        Self::docker_at("127.0.0.1", "", auth, folder, servers)
    }

    fn docker_at(
        address: &str,
        tls: &str,
        auth: &str,
        folder: TempDir,
        mut servers: Vec<Child>,
    ) -> Self {
        let root = folder.path().display();
        let config = format!(
            "version: 0.1\n\
             log: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"{address}:0\", secret: test{tls}}}\n{auth}\n"
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = supervised(&program());
        command.arg("serve").arg(file);
        let (server, port) = start(command, &folder.path().join("log"));
        servers.push(server);
        Self {
            host: format!("127.0.0.1:{port}"),
            servers,
            folder,
        }
    }

    /// The imitation, with the options that `registry/imitation.py` explains.
    pub fn imitation(options: &serde_json::Value) -> Self {
        let folder = crate::scratch::folder();
        let script = folder.path().join("imitation.py");
        std::fs::write(&script, include_str!("registry/imitation.py")).unwrap();
        let mut command = supervised(&python_script("python"));
        command.arg(&script).arg(options.to_string());
        let (server, port) = start(command, &folder.path().join("log"));
        Self {
            host: format!("127.0.0.1:{port}"),
            servers: vec![server],
            folder,
        }
    }

    /// `http://127.0.0.1:<port>`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.host)
    }

    /// A file of logins, as `docker login` writes it, with [`LOGIN`] for `hosts`.
    pub fn logins(&self, hosts: &[&str]) -> PathBuf {
        // user:pass in base64
        let login = serde_json::json!({"auth": "dXNlcjpwYXNz"});
        self.logins_of(hosts, &login)
    }

    /// A file of logins with this entry for `hosts`.
    pub fn logins_of(&self, hosts: &[&str], login: &serde_json::Value) -> PathBuf {
        let entries = hosts.iter().map(|host| ((*host).to_owned(), login.clone()));
        let entries: serde_json::Map<_, _> = entries.collect();
        let file = self.folder.path().join("config.json");
        let text = serde_json::json!({"auths": entries}).to_string();
        std::fs::write(&file, text).unwrap();
        file
    }

    /// The requests to the token server, each as method, scopes, and `user` or `nobody`.
    pub fn token_requests(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("requests"));
        let text = text.unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// What the imitation counted.
    pub fn counts(&self) -> serde_json::Value {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        let request = "GET /counts HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    /// What the registry wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        for server in &mut self.servers {
            drop(server.stdin.take());
            let _ = server.wait();
        }
    }
}

/// The settings of a registry that asks for [`LOGIN`], whose file of passwords lies in `folder`.
fn password(folder: &Path) -> String {
    let file = folder.join("htpasswd");
    let (user, password) = LOGIN;
    let output = Command::new("htpasswd")
        .args(["-Bbn", user, password])
        .output()
        .expect("`htpasswd` must be there: run ci/setup");
    std::fs::write(&file, output.stdout).unwrap();
    format!(
        "auth: {{htpasswd: {{realm: test, path: {}}}}}",
        file.display()
    )
}

fn program() -> PathBuf {
    match std::env::var_os("MLWM_TEST_REGISTRY") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from("docker-registry"),
    }
}

/// Starts a server that writes to its log which port it has.
fn start(mut command: Command, log: &Path) -> (Child, u16) {
    let file = std::fs::File::create(log).unwrap();
    command
        .stdin(Stdio::piped())
        .stdout(file.try_clone().unwrap())
        .stderr(file);
    let child = command.spawn().expect("`sh` must be there");
    (child, port(log))
}

/// Waits for the port in the log of a server that has been started.
fn port(log: &Path) -> u16 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let told = text.split_once("listening on ");
        let port = told.and_then(|(_, rest)| {
            let (_, rest) = rest.split_once(':')?;
            let (digits, _) = rest.split_once(|c: char| !c.is_ascii_digit())?;
            digits.parse().ok()
        });
        if let Some(port) = port {
            return port;
        }
        assert!(
            Instant::now() < deadline,
            "a server did not start (see ci/setup): {text}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A proxy in front of a registry that breaks what passes through it.
pub struct Breaker {
    /// `127.0.0.1:<port>`
    pub host: String,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    /// Connections still to be cut after so many bytes from the client.
    cuts_sent: Cut,
    /// Connections still to be cut after so many bytes from the server.
    cuts_received: Cut,
    /// Connections still to be silent after so many bytes from the client.
    stalls: Cut,
    /// Requests still to be answered so.
    answers: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Cut {
    times: AtomicI64,
    after: AtomicU64,
}

impl Cut {
    fn set(&self, times: i64, after: u64) {
        self.after.store(after, Ordering::SeqCst);
        self.times.store(times, Ordering::SeqCst);
    }

    fn is_due(&self, carried: u64) -> bool {
        carried > self.after.load(Ordering::SeqCst)
            && self.times.load(Ordering::SeqCst) > 0
            && self.times.fetch_sub(1, Ordering::SeqCst) > 0
    }
}

impl Breaker {
    /// Starts a proxy to `host` (`host:port`).
    pub fn to(host: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let own = listener.local_addr().unwrap().to_string();
        let (upstream, faults) = (host.to_owned(), Arc::new(Faults::default()));
        let shared = Arc::clone(&faults);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&upstream) else {
                    continue;
                };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (up, down) = (Arc::clone(&shared), Arc::clone(&shared));
                std::thread::spawn(move || carry(from, to, &up, true));
                std::thread::spawn(move || carry(server, client, &down, false));
            }
        });
        Self { host: own, faults }
    }

    /// Cuts the next `times` connections that have carried `bytes` to the registry.
    pub fn cut_sending(&self, times: i64, bytes: u64) {
        self.faults.cuts_sent.set(times, bytes);
    }

    /// Cuts the next `times` connections that have carried `bytes` from the registry.
    pub fn cut_receiving(&self, times: i64, bytes: u64) {
        self.faults.cuts_received.set(times, bytes);
    }

    /// The next `times` connections that have carried `bytes` to the registry carry nothing more,
    /// and stay open.
    pub fn stall(&self, times: i64, bytes: u64) {
        self.faults.stalls.set(times, bytes);
    }

    /// Answers the next requests, such as `503 Service Unavailable\r\nRetry-After: 1`, one each,
    /// without asking the registry.
    pub fn answer(&self, heads: &[&str]) {
        let heads = heads.iter().rev().map(|head| (*head).to_owned());
        *self.faults.answers.lock().unwrap() = heads.collect();
    }

    /// How many of these answers are still to be given.
    pub fn answers_left(&self) -> usize {
        self.faults.answers.lock().unwrap().len()
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, faults: &Faults, up: bool) {
    let mut buffer = [0; 16 << 10];
    let mut carried = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        // A client writes the head of a request at once.
        if up && begins_request(&buffer[..count]) {
            let answer = faults.answers.lock().unwrap().pop();
            if let Some(head) = answer {
                let answer =
                    format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = from.write_all(answer.as_bytes());
                let _ = from.shutdown(Shutdown::Write);
                // What the client still sends is read, so that it gets the answer.
                while let Ok(1..) = from.read(&mut buffer) {}
                break;
            }
        }
        carried += count as u64;
        if up && faults.stalls.is_due(carried) {
            std::thread::sleep(Duration::from_secs(600));
        }
        let cuts = if up {
            &faults.cuts_sent
        } else {
            &faults.cuts_received
        };
        if cuts.is_due(carried) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn begins_request(bytes: &[u8]) -> bool {
    let methods = ["GET /", "HEAD /", "POST /", "PUT /", "PATCH /", "DELETE /"];
    methods
        .iter()
        .any(|method| bytes.starts_with(method.as_bytes()))
}
