//! A proxy that understands as much of HTTP/1.1 as it needs to count what passes: requests, bytes
//! of bodies in both directions, and bytes that the server said it has. It can hold everything at a
//! chosen byte, so that a test kills a transfer exactly there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of bodies, either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Sent,
    /// From the server to the client.
    Received,
}

/// What has passed since the last [`CountingProxy::reset`].
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Requests, each as its method and path with query.
    pub requests: Vec<String>,
    /// Bytes of request bodies.
    pub sent: u64,
    /// Bytes of request bodies whose requests were answered by a status below 400.
    pub acknowledged: u64,
    /// Bytes of response bodies.
    pub received: u64,
}

#[derive(Default)]
struct State {
    counts: Counts,
    hold: Option<(Direction, u64)>,
    /// Method of the request whose answer is held.
    hold_answer: Option<&'static str>,
    held: bool,
    /// Connections of an older generation are dead.
    generation: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A running proxy; it lives as long as the test process.
pub struct CountingProxy {
    /// `http://127.0.0.1:<port>`
    pub endpoint: String,
    shared: Arc<Shared>,
}

impl CountingProxy {
    /// Starts a proxy to `endpoint` (`http://host:port`).
    pub fn to(endpoint: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let upstream = endpoint["http://".len()..].to_owned();
        let shared = Arc::new(Shared::default());
        let proxy = Self {
            endpoint: format!("http://127.0.0.1:{port}"),
            shared: Arc::clone(&shared),
        };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&upstream) else {
                    continue;
                };
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let generation = shared.lock().generation;
                    let connection = Connection {
                        shared,
                        generation,
                        client: BufReader::with_capacity(64 << 10, client),
                        server: BufReader::with_capacity(64 << 10, server),
                    };
                    connection.serve();
                });
            }
        });
        proxy
    }

    /// What has passed.
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts.clone()
    }

    /// Counts from nothing, and lets everything pass.
    pub fn reset(&self) {
        let mut state = self.shared.lock();
        state.counts = Counts::default();
        state.hold = None;
        state.hold_answer = None;
        state.held = false;
        state.generation += 1;
        self.shared.changed.notify_all();
    }

    /// Lets nothing pass any more once so many bytes have passed in a direction.
    pub fn hold_after(&self, direction: Direction, bytes: u64) {
        self.shared.lock().hold = Some((direction, bytes));
    }

    /// Lets nothing pass any more once the server has answered a request with this method: it has
    /// done what was asked, but the client does not know.
    pub fn hold_answer_to(&self, method: &'static str) {
        self.shared.lock().hold_answer = Some(method);
    }

    /// Lets what is held go on, as if nothing had been.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.hold = None;
        state.hold_answer = None;
        state.held = false;
        self.shared.changed.notify_all();
    }

    /// Waits until everything is held; `false` if that does not happen in time.
    pub fn wait_until_held(&self, timeout: Duration) -> bool {
        let state = self.shared.lock();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, timeout, |state| !state.held);
        waited.unwrap_or_else(PoisonError::into_inner).0.held
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Connection {
    shared: Arc<Shared>,
    generation: u64,
    client: BufReader<TcpStream>,
    server: BufReader<TcpStream>,
}

/// What a head says of the body that follows.
enum Body {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Connection {
    fn serve(mut self) {
        while self.exchange().is_ok_and(|go_on| go_on) {}
        let _ = self.client.get_ref().shutdown(Shutdown::Both);
        let _ = self.server.get_ref().shutdown(Shutdown::Both);
    }

    /// Passes one request and its answer; `false` if the connection is not used again.
    fn exchange(&mut self) -> io::Result<bool> {
        let Some(request) = head(&mut self.client)? else {
            return Ok(false);
        };
        let line = request.lines().next().unwrap_or_default();
        let method = line.split(' ').next().unwrap_or_default().to_owned();
        let asked = line.rsplit_once(' ').map_or(line, |(asked, _)| asked);
        self.pass(|state| state.counts.requests.push(asked.to_owned()))?;
        self.server.get_mut().write_all(request.as_bytes())?;
        let body = match body_of(&request) {
            Body::UntilClose => Body::None,
            body => body,
        };
        let sent = self.carry(body, Direction::Sent)?;

        let Some(answer) = head(&mut self.server)? else {
            return Ok(false);
        };
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status: u16 = status.unwrap_or(0);
        self.hold_answer(&method);
        // The answer counts as given once it is passed on.
        self.pass(|state| {
            if (200..400).contains(&status) {
                state.counts.acknowledged += sent;
            }
        })?;
        self.client.get_mut().write_all(answer.as_bytes())?;
        let body = match method == "HEAD" || [204, 304].contains(&status) {
            true => Body::None,
            false => body_of(&answer),
        };
        let says_close = |head: &str| {
            header(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
        };
        let closes = matches!(body, Body::UntilClose)
            || says_close(&request)
            || says_close(&answer)
            || answer.starts_with("HTTP/1.0");
        self.carry(body, Direction::Received)?;
        Ok(!closes)
    }

    /// Waits while everything is held; fails if the connection is dead by then.
    fn pass<T>(&self, change: impl FnOnce(&mut State) -> T) -> io::Result<T> {
        let state = self.shared.lock();
        let alive = |state: &mut State| state.held && state.generation == self.generation;
        let waited = self.shared.changed.wait_while(state, alive);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.generation != self.generation {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(change(&mut state))
    }

    fn hold_answer(&self, method: &str) {
        let mut state = self.shared.lock();
        if state.generation == self.generation && state.hold_answer == Some(method) {
            state.held = true;
            self.shared.changed.notify_all();
        }
    }

    fn carry(&mut self, body: Body, direction: Direction) -> io::Result<u64> {
        match body {
            Body::None => Ok(0),
            Body::Length(length) => self.carry_bytes(length, direction),
            Body::UntilClose => self.carry_bytes(u64::MAX, direction),
            Body::Chunked => {
                let mut all = 0;
                loop {
                    let (from, to) = self.ends(direction);
                    let mut line = String::new();
                    from.read_line(&mut line)?;
                    to.write_all(line.as_bytes())?;
                    let digits = line.trim().split(';').next().unwrap_or_default();
                    let size = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
                    all += self.carry_bytes(size, direction)?;
                    let (from, to) = self.ends(direction);
                    let mut end = String::new();
                    from.read_line(&mut end)?;
                    to.write_all(end.as_bytes())?;
                    if size == 0 {
                        return Ok(all);
                    }
                }
            }
        }
    }

    fn ends(&mut self, direction: Direction) -> (&mut BufReader<TcpStream>, &mut TcpStream) {
        match direction {
            Direction::Sent => (&mut self.client, self.server.get_mut()),
            Direction::Received => (&mut self.server, self.client.get_mut()),
        }
    }

    fn carry_bytes(&mut self, length: u64, direction: Direction) -> io::Result<u64> {
        let mut buffer = vec![0; 64 << 10];
        let mut done = 0;
        while done < length {
            let wanted = buffer
                .len()
                .min(usize::try_from(length - done).unwrap_or(usize::MAX));
            let read = self.ends(direction).0.read(&mut buffer[..wanted])?;
            if read == 0 {
                break;
            }
            self.pass(|_| ())?;
            self.ends(direction).1.write_all(&buffer[..read])?;
            done += read as u64;
            self.count(read as u64, direction);
        }
        Ok(done)
    }

    fn count(&self, bytes: u64, direction: Direction) {
        let mut state = self.shared.lock();
        if state.generation != self.generation {
            return;
        }
        let counted = match direction {
            Direction::Sent => &mut state.counts.sent,
            Direction::Received => &mut state.counts.received,
        };
        *counted += bytes;
        let counted = *counted;
        if state
            .hold
            .is_some_and(|(which, at)| which == direction && counted >= at)
        {
            state.held = true;
            self.shared.changed.notify_all();
        }
    }
}

/// The head of a message, with the empty line that ends it; `None` where the connection ended.
fn head(from: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if from.read_line(&mut head)? == 0 {
            return Ok(None);
        }
        if head[before..].trim().is_empty() {
            // An interim answer, such as `100 Continue`, is followed by the real one.
            if head.starts_with("HTTP/1.1 1") {
                head.clear();
                continue;
            }
            return Ok(Some(head));
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn body_of(head: &str) -> Body {
    if header(head, "transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        return Body::Chunked;
    }
    match header(head, "content-length").map(str::parse) {
        Some(Ok(length)) => Body::Length(length),
        _ => Body::UntilClose,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gcs::GcsServer;

    /// Uploads bytes through the proxy; what the server answered.
    fn upload(proxy: &CountingProxy, bytes: &[u8]) -> io::Result<String> {
        let host = &proxy.endpoint["http://".len()..];
        let mut stream = TcpStream::connect(host)?;
        write!(
            stream,
            "POST /upload/storage/v1/b/bucket/o?uploadType=media&name=object HTTP/1.1\r\n\
             Host: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        )?;
        stream.write_all(bytes)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn counts_what_passes_and_holds_where_it_should() {
        let server = GcsServer::start();
        server.bucket("bucket");
        let proxy = CountingProxy::to(&server.endpoint);
        let bytes = vec![7; 1 << 20];
        let answer = upload(&proxy, &bytes).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
        let counts = proxy.counts();
        assert_eq!(counts.requests.len(), 1);
        assert_eq!((counts.sent, counts.acknowledged), (1 << 20, 1 << 20));
        assert!(counts.received > 100, "the object's description");

        proxy.reset();
        proxy.hold_after(Direction::Sent, 1 << 19);
        std::thread::scope(|scope| {
            let held = scope.spawn(|| upload(&proxy, &bytes));
            assert!(proxy.wait_until_held(Duration::from_secs(20)));
            let counts = proxy.counts();
            assert!((1 << 19..1 << 20).contains(&counts.sent), "{}", counts.sent);
            assert_eq!(counts.acknowledged, 0);
            proxy.reset();
            let answer = held.join().unwrap().unwrap_or_default();
            assert!(!answer.contains(" 200 "), "{answer}");
        });
        assert_eq!(proxy.counts().acknowledged, 0);
        upload(&proxy, &bytes).unwrap();
        assert_eq!(proxy.counts().acknowledged, 1 << 20);
    }
}
