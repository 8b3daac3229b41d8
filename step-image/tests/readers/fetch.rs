//! Files over HTTP from a server that breaks off.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::common::files;
use crate::common::kills::{UnderWay, kill_and_run_again};
use crate::{python, refuse, report, step, succeed};

/// A server of files; what was asked for, in order.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What an answer is: its first line and headers, and its bytes.
type Answer = (String, Vec<u8>);

fn content(version: u8) -> Vec<u8> {
    (0..200_000_u32)
        .map(|at| (at % 251) as u8 ^ version)
        .collect()
}

impl Server {
    /// Answers the nth request, of a path and the values of `Range` and `If-Range`.
    fn start(answer: impl Fn(usize, &str, &str, &str) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let (path, range, if_range) = request(&stream);
                let number = seen.lock().unwrap().len();
                seen.lock()
                    .unwrap()
                    .push(format!("{path} {range} {if_range}"));
                let (head, body) = answer(number, &path, &range, &if_range);
                let mut stream = &stream;
                // The client may have gone.
                let _ = stream
                    .write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes());
                let _ = stream.write_all(&body);
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn request(stream: &TcpStream) -> (String, String, String) {
    // One that is killed may break off before it has asked.
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        let found = headers.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        });
        found.unwrap_or_default()
    };
    (path, header("range"), header("if-range"))
}

fn whole(version: u8, sent: usize) -> Answer {
    let content = content(version);
    let head = format!(
        "200 OK\r\nContent-Length: {}\r\nETag: \"v{version}\"",
        content.len()
    );
    (head, content[..sent].to_vec())
}

/// What is asked for with a range, but no more than so many bytes of it.
fn rest_of(range: &str, most: usize) -> Answer {
    let start = range.strip_prefix("bytes=").unwrap();
    let start: usize = start.trim_end_matches('-').parse().unwrap();
    let rest = content(1)[start..].to_vec();
    let head = format!(
        "206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-199999/200000\r\nETag: \"v1\"",
        rest.len()
    );
    (head, rest[..most.min(rest.len())].to_vec())
}

/// An answer in chunks, of which so many bytes come.
fn chunked(sent: usize) -> Answer {
    let mut body = Vec::new();
    for chunk in content(1)[..sent].chunks(30_000) {
        body.extend(format!("{:x}\r\n", chunk.len()).bytes());
        body.extend(chunk);
        body.extend(b"\r\n");
    }
    if sent == content(1).len() {
        body.extend(b"0\r\n\r\n");
    }
    let head = "200 OK\r\nTransfer-Encoding: chunked\r\nETag: \"v1\"";
    (head.to_owned(), body)
}

fn target(folder: &Path) -> String {
    folder.join("out").to_str().unwrap().to_owned()
}

#[test]
fn what_broke_off_goes_on_where_it_was() {
    let server = Server::start(|number, _, range, if_range| {
        if number == 0 {
            return whole(1, 80_000);
        }
        assert_eq!(if_range, "\"v1\"");
        rest_of(range, 200_000)
    });
    let folder = tempfile::tempdir().unwrap();
    let (out, came) = (target(folder.path()), folder.path().join("came.json"));
    let uri = format!("{}/data/a.grib?token=secret", server.address);
    succeed(&["fetch", &uri, &out, "--report", came.to_str().unwrap()]);
    assert_eq!(files(Path::new(&out))[Path::new("a.grib")], content(1));
    let asked = server.asked();
    assert!(asked.len() == 2 && asked[1].contains("bytes="), "{asked:?}");
    let said = report(&came);
    assert_eq!(said[0]["bytes"], 200_000);
    assert_eq!(said[0]["etag"], "\"v1\"");
    assert_eq!(said[0]["uri"], format!("{}/data/a.grib", server.address));
    let digest = said[0]["sha256"].as_str().unwrap().to_owned();
    let again = format!("{out}2");
    succeed(&[
        "fetch",
        &format!("{out}/a.grib"),
        &again,
        "--sha256",
        &format!("a.grib={digest}"),
    ]);
    assert_eq!(files(Path::new(&again)), files(Path::new(&out)));
}

#[test]
fn another_version_begins_anew() {
    let server = Server::start(|number, _, _, _| match number {
        0 => whole(1, 80_000),
        _ => whole(2, 200_000),
    });
    let folder = tempfile::tempdir().unwrap();
    let out = target(folder.path());
    succeed(&["fetch", &format!("{}/a.grib", server.address), &out]);
    assert_eq!(files(Path::new(&out))[Path::new("a.grib")], content(2));
}

#[test]
fn what_does_not_come_or_is_another_leaves_nothing() {
    let server = Server::start(|_, path, _, _| match path {
        "/gone" => ("404 Not Found\r\nContent-Length: 0".to_owned(), Vec::new()),
        _ => whole(1, 200_000),
    });
    let folder = tempfile::tempdir().unwrap();
    let (out, place) = (target(folder.path()), folder.path().join("out"));
    let good = format!("{}/a", server.address);
    let gone = format!("{}/gone", server.address);
    let said = refuse(&["fetch", &good, &gone, &out], 11, &place);
    assert!(said.contains("/gone`: the server says 404"), "{said}");
    let digest = format!("a={}", "0".repeat(64));
    let said = refuse(&["fetch", &good, &out, "--sha256", &digest], 12, &place);
    assert!(said.contains("its SHA-256 is"), "{said}");
    let said = refuse(
        &["fetch", &good, &format!("{good}?b"), &format!("{out}3")],
        10,
        &place,
    );
    assert!(said.contains("another one would be called `a`"), "{said}");
}

#[test]
fn what_ends_with_the_connection_is_refused_unless_its_digest_is_known() {
    // The answers of old servers, one of which loses the end of the file.
    let server = Server::start(|_, path, _, _| {
        let (_, body) = whole(1, if path == "/torn" { 150_000 } else { 200_000 });
        ("200 OK\r\nETag: \"v1\"".to_owned(), body)
    });
    let folder = tempfile::tempdir().unwrap();
    let (out, place) = (target(folder.path()), folder.path().join("out"));
    let (whole, torn) = (
        format!("{}/whole", server.address),
        format!("{}/torn", server.address),
    );
    for uri in [&whole, &torn] {
        let said = refuse(&["fetch", uri, &out], 30, &place);
        assert!(
            said.contains(&**uri)
                && said.contains("does not say how long it is")
                && said.contains("--sha256"),
            "{said}"
        );
    }
    assert_eq!(server.asked().len(), 2, "asking again would not help");
    let digest = python(
        "import hashlib, json, sys; print(json.dumps(hashlib.sha256(bytes(i % 251 ^ 1 for i in range(200_000))).hexdigest()))",
        &[],
    );
    let digest = digest.as_str().unwrap();
    let of_torn = format!("torn={digest}");
    let said = refuse(&["fetch", &torn, &out, "--sha256", &of_torn], 12, &place);
    assert!(said.contains("its SHA-256 is"), "{said}");
    succeed(&[
        "fetch",
        &whole,
        &out,
        "--sha256",
        &format!("whole={digest}"),
    ]);
    assert_eq!(files(&place)[Path::new("whole")], content(1));
}

#[test]
fn chunks_say_where_an_answer_ends() {
    let server = Server::start(|_, path, range, _| match (path, range) {
        ("/whole", _) => chunked(200_000),
        (_, "") => chunked(90_000),
        ("/torn", range) => rest_of(range, 200_000),
        // Of a whole whose length it does not know.
        (_, range) => {
            let (head, rest) = rest_of(range, 200_000);
            (head.replace("-199999/200000", "-199999/*"), rest)
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let (out, place) = (target(folder.path()), folder.path().join("out"));
    let uri = |name: &str| format!("{}/{name}", server.address);
    succeed(&["fetch", &uri("whole"), &uri("torn"), &out]);
    for name in ["whole", "torn"] {
        assert_eq!(files(&place)[Path::new(name)], content(1));
    }
    let other = folder.path().join("other");
    let said = refuse(
        &["fetch", &uri("unknown"), other.to_str().unwrap()],
        30,
        &other,
    );
    assert!(said.contains("does not say how long it is"), "{said}");
}

#[test]
fn killed_and_run_again_it_fetches_the_same_bytes() {
    // Each connection breaks off, so that there are several requests to be killed between.
    let server = Server::start(|_, _, range, _| match range {
        "" => whole(1, 60_000),
        range => rest_of(range, 60_000),
    });
    kill_and_run_again(UnderWay::Parts, |place| {
        let mut command = step(&["fetch", &format!("{}/a.grib", server.address)]);
        command.arg(place.join("out"));
        command.arg("--report").arg(place.join("came.json"));
        command
    });
    let asked = server.asked();
    assert!(
        asked.iter().any(|asked| asked.contains("bytes=")),
        "{asked:?}"
    );
}
