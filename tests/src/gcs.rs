//! An imitation of Google Cloud Storage on the loopback interface, for tests: the PyPI package
//! `gcp-storage-emulator`. It has resumable uploads, and ignores `ifGenerationMatch`.
//!
//! It comes from `ci/setup --tests` and is looked for beside the Python of the oracles. A server
//! ends when its value is dropped, or with the test process, however that ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::s3::{free_port, python_script, supervised};

/// A running server.
pub struct GcsServer {
    /// `http://127.0.0.1:<port>`, the value for `STORAGE_EMULATOR_HOST`.
    pub endpoint: String,
    supervisor: Child,
    folder: TempDir,
}

impl GcsServer {
    /// Starts the emulator with a folder of its own.
    pub fn start() -> Self {
        let folder = crate::scratch::folder();
        let port = free_port();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let supervisor = supervised(&python_script("gcp-storage-emulator"))
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .args(["start", "--quiet", "--host", "127.0.0.1", "--port"])
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("`sh` must be there");
        let server = Self {
            endpoint: format!("http://127.0.0.1:{port}"),
            supervisor,
            folder,
        };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.ask("GET", "/", "").is_ok_and(is_ok) {
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(self.folder.path().join("log"));
                panic!("the emulator did not start: {}", log.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes a bucket; returns its name.
    pub fn bucket(&self, name: &str) -> String {
        let body = format!(r#"{{"name": "{name}"}}"#);
        let answer = self.ask("POST", "/storage/v1/b?project=test", &body);
        let answer = answer.unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        name.to_owned()
    }

    /// The folder in which the emulator keeps what it is given.
    pub fn data(&self) -> &Path {
        self.folder.path()
    }

    /// The variables for a child process that is to use this server, and no other settings of
    /// this machine.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("STORAGE_EMULATOR_HOST", self.endpoint.clone()),
            ("NO_PROXY", "127.0.0.1,localhost".to_owned()),
        ]
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> std::io::Result<String> {
        let host = &self.endpoint["http://".len()..];
        let mut stream = TcpStream::connect(host)?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

fn is_ok(answer: String) -> bool {
    answer.contains(" 200 ")
}

impl Drop for GcsServer {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_makes_a_bucket_and_ends() {
        let server = GcsServer::start();
        let bucket = server.bucket("models");
        let listed = server.ask("GET", "/storage/v1/b?project=test", "").unwrap();
        assert!(listed.contains(&bucket), "{listed}");
        let endpoint = server.endpoint.clone();
        drop(server);
        assert!(TcpStream::connect(&endpoint["http://".len()..]).is_err());
    }
}
