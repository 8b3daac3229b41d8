//! The HTTP client, and what its errors and a server's answers mean, in words without secrets.
//!
//! A URL may hold a signature or be a capability, and servers repeat what was sent to them: of an
//! answer, only its status and the protocol's own error code (a single word) are passed on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, HeaderMap, LOCATION, RETRY_AFTER};

use super::retry::{Cause, Failure};
use super::stall::StallWatch;
use crate::{Error, fault};

/// A client that follows no redirects, and bounds nothing but the time to connect: silence is
/// what [`StallWatch`](super::stall::StallWatch) ends.
pub(crate) fn client(ca_bundle: Option<&PathBuf>) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("mlwm/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = ca_bundle {
        let certificates =
            certificates(path, |pem| reqwest::Certificate::from_pem_bundle(pem).ok())?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|error| Error::Settings {
        reason: format!(
            "no HTTP client can be made ({})",
            fault::innermost(&error.without_url())
        ),
    })
}

/// The certificates that `parse` finds in the file that `AWS_CA_BUNDLE` names.
pub(crate) fn certificates<C>(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Option<Vec<C>>,
) -> Result<Vec<C>, Error> {
    let wrong = |why: &str| Error::Settings {
        reason: format!("AWS_CA_BUNDLE names {}, which {why}", path.display()),
    };
    let pem = std::fs::read(path).map_err(|error| wrong(&format!("cannot be read ({error})")))?;
    parse(&pem).ok_or_else(|| wrong("holds no certificates in PEM form"))
}

/// A request that did not succeed.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The HTTP status; 0 if there was no answer.
    pub(crate) status: u16,
    /// The protocol's error code.
    pub(crate) code: Option<String>,
    /// How large the object is, where a range of it was refused.
    pub(crate) object_size: Option<u64>,
    /// What it means unless the caller knows better.
    pub(crate) failure: Failure,
}

impl Refusal {
    /// Whether the server gave this status.
    pub(crate) fn is(&self, status: u16) -> bool {
        self.status == status
    }

    /// Whether the server gave this error code.
    pub(crate) fn has_code(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self {
            status: 0,
            code: None,
            object_size: None,
            failure,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        refusal.failure
    }
}

/// The bytes of an error's answer that are looked at.
const ERROR_LIMIT: usize = 64 << 10;

/// Sends a request. An answer that is not a success is a [`Refusal`]; `code` finds the protocol's
/// error code in its body.
pub(crate) async fn send(
    client: &reqwest::Client,
    request: reqwest::Request,
    peer: &Peer<'_>,
    watch: &StallWatch,
    code: fn(&[u8]) -> Option<String>,
) -> Result<reqwest::Response, Refusal> {
    let answer = watch.guard(client.execute(request)).await;
    let answer = answer
        .map_err(|_| peer.stalled())?
        .map_err(|error| peer.unanswered(error))?;
    watch.beat();
    // 308 without a place to go to is Google's word for "go on".
    let go_on = answer.status().as_u16() == 308 && !answer.headers().contains_key(LOCATION);
    if answer.status().is_success() || go_on {
        return Ok(answer);
    }
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = read_small(answer, ERROR_LIMIT, peer, watch).await;
    let code = code(&body.unwrap_or_default()).filter(|code| is_plain(code));
    Err(Refusal {
        status,
        failure: peer.refused(status, &headers, code.as_deref()),
        object_size: parts_of_range(&headers).and_then(|(_, size)| size.parse().ok()),
        code,
    })
}

/// The body of an answer, which is cut after `limit` bytes.
pub(crate) async fn read_small(
    mut answer: reqwest::Response,
    limit: usize,
    peer: &Peer<'_>,
    watch: &StallWatch,
) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while body.len() < limit {
        let piece = watch.guard(answer.chunk()).await;
        let piece = piece.map_err(|_| peer.stalled())?;
        let Some(piece) = piece.map_err(|error| peer.broken(error))? else {
            break;
        };
        watch.beat();
        body.extend_from_slice(&piece[..piece.len().min(limit - body.len())]);
    }
    Ok(body)
}

/// Percent-encodes everything that is neither plain nor, where it is a path, a `/`.
pub(crate) fn encode(text: &str, slash: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            b'/' if slash => encoded.push('/'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// First byte and size of the whole object in `Content-Range: bytes 5-9/20`.
pub(crate) fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let (span, size) = parts_of_range(headers)?;
    let (start, _) = span.split_once('-')?;
    Some((start.parse().ok()?, size.parse().ok()?))
}

/// What a `Content-Range` says before and after the `/`.
fn parts_of_range(headers: &HeaderMap) -> Option<(&str, &str)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split_once('/')
}

/// One server, as errors name it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer<'a> {
    /// The URI of the object.
    pub(crate) uri: &'a str,
    /// The server, without credentials.
    pub(crate) endpoint: &'a str,
}

impl Peer<'_> {
    /// The failure of a request that got no answer, or of an answer that broke off.
    pub(crate) fn broken(&self, error: reqwest::Error) -> Failure {
        let (uri, endpoint) = (self.uri.to_owned(), self.endpoint.to_owned());
        if error.is_builder() {
            return Failure::permanent(self.service("the request cannot be made".to_owned()));
        }
        let reason = fault::innermost(&error.without_url());
        Failure::transient(Error::Service {
            uri,
            endpoint,
            reason: format!("the connection broke: {reason}"),
        })
    }

    /// The failure of a request whose connection could not be made or broke.
    pub(crate) fn unanswered(&self, error: reqwest::Error) -> Failure {
        let (uri, endpoint) = (self.uri.to_owned(), self.endpoint.to_owned());
        if error.is_timeout() {
            return Failure::transient(Error::TimedOut { uri, endpoint });
        }
        if error.is_connect() {
            let reason = fault::innermost(&error.without_url());
            return Failure::transient(Error::Unreachable {
                uri,
                endpoint,
                reason,
            });
        }
        self.broken(error)
    }

    /// The failure of a request in which nothing moved for too long.
    pub(crate) fn stalled(&self) -> Failure {
        Failure::transient(Error::TimedOut {
            uri: self.uri.to_owned(),
            endpoint: self.endpoint.to_owned(),
        })
    }

    /// An error that has no variant of its own.
    pub(crate) fn service(&self, reason: String) -> Error {
        Error::Service {
            uri: self.uri.to_owned(),
            endpoint: self.endpoint.to_owned(),
            reason,
        }
    }

    /// The failure that an answer means: its status, headers, and the protocol's error code.
    pub(crate) fn refused(&self, status: u16, headers: &HeaderMap, code: Option<&str>) -> Failure {
        const PASSING: [&str; 4] = [
            "RequestTimeout",
            "SlowDown",
            "InternalError",
            "ServiceUnavailable",
        ];
        let code = code.filter(|code| is_plain(code));
        let (uri, endpoint) = (self.uri.to_owned(), self.endpoint.to_owned());
        let expired = matches!(code, Some("ExpiredToken" | "TokenRefreshRequired"));
        if expired || fault::is_refusal(code, Some(status)) {
            let error = Error::AccessDenied {
                uri,
                endpoint,
                code: code.map_or_else(|| format!("HTTP {status}"), ToOwned::to_owned),
            };
            let cause = if expired || status == 401 {
                Cause::Credentials
            } else {
                Cause::Permanent
            };
            return Failure { error, cause };
        }
        let passes = passes(status) || code.is_some_and(|code| PASSING.contains(&code));
        let reason = match code {
            Some(code) => format!("HTTP {status}, {code}{}", fault::advice(code)),
            None => format!("HTTP {status}{}", fault::redirect_advice(status)),
        };
        let error = match code {
            Some("NoSuchBucket") => Error::BucketMissing { uri, endpoint },
            _ => self.service(reason),
        };
        let cause = if passes {
            Cause::Transient {
                after: retry_after(headers),
            }
        } else {
            Cause::Permanent
        };
        Failure { error, cause }
    }
}

/// Whether what a server answers with this status may pass by itself. 501 says that it cannot do
/// what it is asked at all.
pub(crate) fn passes(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502..=599)
}

/// Whether it is a word of a protocol, which can be passed on.
fn is_plain(code: &str) -> bool {
    (1..=64).contains(&code.len()) && code.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
}

/// How long the server wants to be left alone.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let wait = time.duration_since(jiff::Timestamp::now());
    // A time that has passed is no reason to wait.
    Some(Duration::try_from(wait).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn an_answer_is_classified_and_not_repeated() {
        let peer = Peer {
            uri: "s3://b/k",
            endpoint: "http://host",
        };
        let none = HeaderMap::new();
        let cases = [
            (403, Some("AccessDenied"), "AccessDenied", Cause::Permanent),
            (
                400,
                Some("ExpiredToken"),
                "AccessDenied",
                Cause::Credentials,
            ),
            (401, None, "AccessDenied", Cause::Credentials),
            (404, Some("NoSuchBucket"), "BucketMissing", Cause::Permanent),
            (404, None, "Service", Cause::Permanent),
            (400, Some("BadDigest"), "Service", Cause::Permanent),
            (
                400,
                Some("RequestTimeout"),
                "Service",
                Cause::Transient { after: None },
            ),
            (500, None, "Service", Cause::Transient { after: None }),
            (501, None, "Service", Cause::Permanent),
            (
                503,
                Some("PLANTED secret"),
                "Service",
                Cause::Transient { after: None },
            ),
        ];
        for (status, code, kind, cause) in cases {
            let failure = peer.refused(status, &none, code);
            let text = format!("{:?} {}", failure.error, failure.error);
            assert!(text.starts_with(kind), "{text}");
            assert_eq!(failure.cause, cause, "{text}");
            assert!(!text.contains("PLANTED"), "{text}");
        }
        let failure = peer.refused(429, &headers("retry-after", "7"), None);
        let after = Some(Duration::from_secs(7));
        assert_eq!(failure.cause, Cause::Transient { after });
    }

    #[test]
    fn headers_are_read() {
        let in_a_minute = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60);
        let date = in_a_minute
            .strftime("%a, %d %b %Y %H:%M:%S GMT")
            .to_string();
        let wait = retry_after(&headers("retry-after", &date)).unwrap();
        assert!((55..=61).contains(&wait.as_secs()), "{wait:?}");
        let past = retry_after(&headers("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(past, Some(Duration::ZERO));
        assert_eq!(retry_after(&headers("retry-after", "soon")), None);
        let range = |text| content_range(&headers("content-range", text));
        assert_eq!(range("bytes 5-9/20"), Some((5, 20)));
        assert_eq!(range("bytes */20"), None);
        assert_eq!(encode("a b/ø%", true), "a%20b/%C3%B8%25");
        assert_eq!(encode("a/b~", false), "a%2Fb~");
    }
}
