//! A proxy that answers in place of the server, or breaks off, as a test says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It is answered with this status and `Retry-After`, and the server does not see it.
    Answer(u16, Option<u32>),
    /// The answer is that of an S3 server to which the credentials are too old.
    Expired,
    /// The connection ends after so many bytes of its body; the server sees what came before.
    CutRequest(usize),
    /// The connection ends after so many bytes of the answer's body.
    CutAnswer(usize),
    /// The connection is reset after so many bytes of the answer's body.
    ResetAnswer(usize),
    /// The answer comes so many bytes at a time, with so much time between.
    Trickle(usize, Duration),
    /// The server sees it, but the answer is lost.
    LoseAnswer,
    /// Nothing more is read or written for so long, then the connection ends.
    Silence(Duration),
    /// The answer is passed on so much later.
    LateAnswer(Duration),
    /// The server sees a request without the header `Range`.
    IgnoreRange,
    /// The answer does not say which part of an object it is.
    HideRange,
}

type Rule = Box<dyn FnMut(&str) -> Option<Fault> + Send>;

/// The proxy.
pub struct Faulty {
    /// `http://127.0.0.1:<port>`
    pub endpoint: String,
    shared: Arc<Shared>,
}

struct Shared {
    rule: Mutex<Rule>,
    /// First lines of all requests, with the faults they met.
    seen: Mutex<Vec<(String, Option<Fault>)>>,
}

impl Faulty {
    /// Starts a proxy to `endpoint`. `rule` is asked with the first line of every request.
    pub fn to(endpoint: &str, rule: impl FnMut(&str) -> Option<Fault> + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = endpoint["http://".len()..].to_owned();
        let shared = Arc::new(Shared {
            rule: Mutex::new(Box::new(rule)),
            seen: Mutex::default(),
        });
        let passed = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (upstream, shared) = (upstream.clone(), Arc::clone(&passed));
                std::thread::spawn(move || {
                    // A connection that ends is what is tested.
                    let _ = serve(client, &upstream, &shared);
                });
            }
        });
        Self {
            endpoint: format!("http://{address}"),
            shared,
        }
    }

    /// First lines of all requests so far, with the faults they met.
    pub fn seen(&self) -> Vec<(String, Option<Fault>)> {
        self.shared.seen.lock().unwrap().clone()
    }
}

/// A rule that applies each fault once, to requests whose first line has all of `parts`.
pub fn once_each(
    parts: &'static [&'static str],
    faults: impl IntoIterator<Item = Fault>,
) -> impl FnMut(&str) -> Option<Fault> + Send {
    let mut faults: std::collections::VecDeque<Fault> = faults.into_iter().collect();
    move |line| {
        let meant = parts.iter().all(|part| line.contains(part));
        meant.then(|| faults.pop_front()).flatten()
    }
}

/// Passes one request; the connection is not used again.
fn serve(client: TcpStream, upstream: &str, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while reader.read_line(&mut head)? > 2 {}
    let Some(line) = head.lines().next().map(ToOwned::to_owned) else {
        return Ok(());
    };
    let fault = (shared.rule.lock().unwrap())(&line);
    shared.seen.lock().unwrap().push((line, fault));
    let length = header(&head, "content-length").and_then(|text| text.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    let mut client = client;
    match fault {
        Some(Fault::Silence(time)) => {
            std::thread::sleep(time);
            return client.shutdown(Shutdown::Both);
        }
        Some(Fault::CutRequest(after)) => body.truncate(after),
        _ => {}
    }
    reader.read_exact(&mut body)?;
    if let Some(Fault::Answer(..) | Fault::Expired) = fault {
        let (status, more, text) = match fault {
            Some(Fault::Answer(status, after)) => {
                let after = after.map(|seconds| format!("Retry-After: {seconds}\r\n"));
                (status, after.unwrap_or_default(), "")
            }
            _ => (
                400,
                String::new(),
                "<Error><Code>ExpiredToken</Code></Error>",
            ),
        };
        let size = text.len();
        return write!(
            client,
            "HTTP/1.1 {status} Fault\r\n{more}Connection: close\r\nContent-Length: {size}\r\n\r\n{text}"
        );
    }
    let mut server = TcpStream::connect(upstream)?;
    server.write_all(single(&head, matches!(fault, Some(Fault::IgnoreRange))).as_bytes())?;
    server.write_all(&body)?;
    if let Some(Fault::CutRequest(_)) = fault {
        server.shutdown(Shutdown::Both)?;
        return client.shutdown(Shutdown::Both);
    }
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    // Not every server says that the connection, which is not used again, ends.
    if let Some(at) = answer.windows(2).position(|window| window == b"\r\n") {
        answer.splice(at..at, *b"\r\nConnection: close");
    }
    if let Some(Fault::LateAnswer(time)) = fault {
        std::thread::sleep(time);
    }
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map_or(answer.len(), |at| at + 4);
    if let Some(Fault::HideRange) = fault {
        let head = answer[..end].to_ascii_lowercase();
        let name = b"content-range";
        let at = head.windows(name.len()).position(|window| window == name);
        answer[at.expect("an answer with a part")] = b'x';
    }
    let passed = match fault {
        Some(Fault::LoseAnswer) => 0,
        Some(Fault::CutAnswer(after) | Fault::ResetAnswer(after)) => answer.len().min(end + after),
        _ => answer.len(),
    };
    match fault {
        Some(Fault::Trickle(bytes, pause)) => {
            for piece in answer.chunks(bytes) {
                client.write_all(piece)?;
                std::thread::sleep(pause);
            }
        }
        _ => client.write_all(&answer[..passed])?,
    }
    if let Some(Fault::ResetAnswer(_)) = fault {
        // What is closed without lingering is reset.
        return SockRef::from(&client).set_linger(Some(Duration::ZERO));
    }
    client.shutdown(Shutdown::Both)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The head of a request that is the only one of its connection.
fn single(head: &str, without_range: bool) -> String {
    let kept = head.trim_end().lines().filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        let dropped = name.eq_ignore_ascii_case("connection")
            || (without_range && name.eq_ignore_ascii_case("range"));
        !dropped
    });
    let lines: Vec<&str> = kept.collect();
    format!("{}\r\nConnection: close\r\n\r\n", lines.join("\r\n"))
}
