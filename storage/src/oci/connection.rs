//! Requests to a registry: proof of who asks, redirections, and what answers mean.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use url::Host;

use super::OciOptions;
use super::credentials::LoginFiles;
use super::token::{Access, Tokens};
use super::uri::OciUri;
use crate::Error;
use crate::transfer::http::{self, Peer, Refusal, passes, retry_after};
use crate::transfer::retry::{Cause, Failure, persist};
use crate::transfer::stall::StallWatch;

/// How often a registry may send a request on to another place.
const REDIRECTS: usize = 5;

/// An answer that says what went wrong is small.
const ERROR_LIMIT: usize = 64 << 10;

/// A connection to a registry for one repository, or for its catalog.
#[derive(Debug)]
pub(crate) struct Connection {
    client: reqwest::Client,
    uri: OciUri,
    place: String,
    endpoint: String,
    root: Url,
    /// Hosts that are spoken to without encryption, beside this computer.
    insecure: Vec<String>,
    tokens: Tokens,
    stall: Duration,
    retry_for: Duration,
    /// Whether the registry has ever answered.
    answered: AtomicBool,
}

/// How long a registry is tried that has never answered: its address may be wrong.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

impl Connection {
    pub(crate) fn open(uri: &OciUri, options: &OciOptions) -> Result<Self, Error> {
        let host = uri.host();
        let plain = uri.is_loopback() || options.insecure.contains(&host);
        let scheme = if plain { "http" } else { "https" };
        let root = format!("{scheme}://{}/", uri.api_host());
        let root = Url::parse(&root).map_err(|error| Error::InvalidUri {
            uri: uri.to_string(),
            reason: error.to_string(),
        })?;
        let logins = match &options.logins {
            Some(file) => LoginFiles::only(file, options.stall),
            None => LoginFiles::of_environment(options.stall),
        };
        Ok(Self {
            client: http::client(None)?,
            uri: uri.clone(),
            place: uri.to_string(),
            endpoint: host,
            root,
            insecure: options.insecure.clone(),
            tokens: Tokens::new(logins),
            stall: options.stall,
            retry_for: options.retry_for,
            answered: AtomicBool::new(false),
        })
    }

    pub(crate) fn uri(&self) -> &OciUri {
        &self.uri
    }

    /// The repository, as errors name it.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn root(&self) -> &Url {
        &self.root
    }

    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub(crate) fn stall(&self) -> Duration {
        self.stall
    }

    /// How long failures in a row are put up with.
    pub(crate) fn retry_for(&self) -> Duration {
        match self.answered.load(Ordering::Relaxed) {
            true => self.retry_for,
            false => self.retry_for.min(FIRST_ANSWER),
        }
    }

    pub(crate) fn peer(&self) -> Peer<'_> {
        Peer {
            uri: &self.place,
            endpoint: &self.endpoint,
        }
    }

    /// The error for what the registry does not let this user do.
    pub(crate) fn denied(&self, reason: &str) -> Error {
        Error::RegistryAccess {
            uri: self.place.clone(),
            host: self.endpoint.clone(),
            reason: reason.to_owned(),
        }
    }

    /// The URL of `path` below the repository, with these parameters.
    pub(crate) fn url(&self, path: &str, parameters: &[(&str, &str)]) -> Url {
        let mut url = self.root.clone();
        url.set_path(&format!("/v2/{}/{path}", self.uri.repository()));
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        url
    }

    /// Where an answer sends on to, `None` if it does not say.
    fn location(&self, response: &Response) -> Option<Url> {
        let text = response.headers().get(LOCATION)?.to_str().ok()?;
        self.joined(response.url(), text)
    }

    /// What `text`, in an answer of the place `base`, points to.
    pub(crate) fn joined(&self, base: &Url, text: &str) -> Option<Url> {
        let mut url = base.join(text).ok()?;
        // A registry behind a proxy that does the encryption may not know of it.
        let same_host = url.host_str() == self.root.host_str();
        if is_encrypted(&self.root) && url.scheme() == "http" && same_host {
            let port = url.port().filter(|port| *port != 80);
            let _ = url.set_scheme("https");
            let _ = url.set_port(port.or(self.root.port()));
        }
        Some(url)
    }

    /// Where an answer wants a blob to be sent, `None` if it does not say.
    pub(crate) fn upload_location(&self, response: &Response) -> Result<Option<Url>, Failure> {
        match self.location(response) {
            Some(url) if !self.may_have_content(&url) => {
                let reason = "it wants a blob to be sent without encryption";
                let error = self.peer().service(reason.to_owned());
                Err(Failure::permanent(error))
            }
            url => Ok(url),
        }
    }

    /// Whether content may be sent there: encrypted, unless this registry, or that other host, is
    /// one that is spoken to without.
    fn may_have_content(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else {
            return false;
        };
        let with_port = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let near = self.root.host_str() == Some(host) || is_loopback(url);
        let allowed = near && !is_encrypted(&self.root) || self.insecure.contains(&with_port);
        is_encrypted(url) || url.scheme() == "http" && allowed
    }

    /// Whether a URL is of the registry itself, to which proofs are shown.
    pub(crate) fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.root.origin()
    }

    /// Sends a request once, and follows redirections of what only reads. Any status but 401 is
    /// an answer; after 401, the next attempt shows a new proof.
    ///
    /// The proof goes to the registry alone: blobs and upload sessions may be at other servers,
    /// with URLs that are proof enough.
    pub(crate) async fn send(
        &self,
        access: &Access,
        method: Method,
        mut url: Url,
        watch: &StallWatch,
        complete: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        for _ in 0..=REDIRECTS {
            let mut request = complete(self.client.request(method.clone(), url.clone()));
            let own = self.is_own(&url);
            if own {
                request = self.tokens.prove(request, access, self).await?;
            }
            let response = match watch.guard(request.send()).await {
                Ok(sent) => sent.map_err(|error| self.peer().unanswered(error))?,
                Err(_) => return Err(self.peer().stalled()),
            };
            self.answered.store(true, Ordering::Relaxed);
            if own && response.status() == StatusCode::UNAUTHORIZED {
                let headers = response.headers();
                self.tokens.refused(headers, access, &self.uri).await;
                return Err(Failure {
                    error: self.denied("HTTP 401"),
                    cause: Cause::Credentials,
                });
            }
            let reads = matches!(method, Method::GET | Method::HEAD);
            if !(reads && response.status().is_redirection()) {
                return Ok(response);
            }
            let odd = |what: &str| Failure::permanent(self.peer().service(what.to_owned()));
            let next = self.location(&response);
            let next = next.ok_or_else(|| odd("it redirects to nowhere"))?;
            if next.scheme() != "http" && !is_encrypted(&next)
                || is_encrypted(&url) && !is_encrypted(&next)
            {
                return Err(odd("it redirects to where the transfer is not encrypted"));
            }
            url = next;
        }
        let reason = "it redirects in a circle".to_owned();
        Err(Failure::permanent(self.peer().service(reason)))
    }

    /// Sends a request without or with a small body, again while what fails may pass; gives
    /// answers with one of these statuses.
    pub(crate) async fn ask(
        &self,
        access: &Access,
        method: Method,
        url: &Url,
        statuses: &[u16],
        complete: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let never = CancellationToken::new();
        persist(&self.place, self.retry_for(), &never, || async {
            let watch = StallWatch::new(self.stall);
            let (method, url) = (method.clone(), url.clone());
            let response = self.send(access, method, url, &watch, &complete).await?;
            self.expect(response, statuses).await
        })
        .await
    }

    /// Reads what is at a URL, again while what fails may pass; `None` if there is nothing.
    pub(crate) async fn fetch(
        &self,
        access: &Access,
        url: &Url,
        limit: usize,
        complete: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Option<Fetched>, Error> {
        let never = CancellationToken::new();
        persist(&self.place, self.retry_for(), &never, || async {
            let watch = StallWatch::new(self.stall);
            let get = self.send(access, Method::GET, url.clone(), &watch, &complete);
            let response = self.expect(get.await?, &[200, 404]).await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let (headers, url) = (response.headers().clone(), response.url().clone());
            let bytes = self.whole(response, limit, &watch).await?;
            Ok(Some(Fetched {
                url,
                headers,
                bytes,
            }))
        })
        .await
    }

    /// The answer if it has one of these statuses, else what it means.
    pub(crate) async fn expect(
        &self,
        response: Response,
        statuses: &[u16],
    ) -> Result<Response, Failure> {
        if statuses.contains(&response.status().as_u16()) {
            return Ok(response);
        }
        Err(self.refused(response).await.failure)
    }

    /// What an answer means that nobody wanted.
    pub(crate) async fn refused(&self, response: Response) -> Refusal {
        let status = response.status().as_u16();
        let after = retry_after(response.headers());
        let watch = StallWatch::new(self.stall);
        let text = self.whole(response, ERROR_LIMIT, &watch).await;
        let code = text.ok().as_deref().and_then(code);
        let said = match &code {
            Some(code) => format!("HTTP {status}, {code}"),
            None => format!("HTTP {status}"),
        };
        let passes = passes(status);
        let advice = match (status, code.as_deref()) {
            (_, Some("NAME_INVALID")) => ": the registry takes other names of repositories only",
            (404, Some("NAME_UNKNOWN")) => ": create the repository at the registry first",
            (_, Some("UNSUPPORTED")) | (405 | 501, _) => ": the registry does not do that",
            (413, _) => ": the registry, or a proxy before it, limits the size of requests",
            _ if passes => ": run the same command again",
            _ => "",
        };
        let failure = match status {
            401 | 403 => Failure::permanent(self.denied(&said)),
            _ => Failure {
                error: self.peer().service(format!("{said}{advice}")),
                cause: match passes {
                    true => Cause::Transient { after },
                    false => Cause::Permanent,
                },
            },
        };
        Refusal {
            status,
            code,
            object_size: None,
            failure,
        }
    }

    /// A whole answer, which is at most `limit` bytes long.
    pub(crate) async fn whole(
        &self,
        mut response: Response,
        limit: usize,
        watch: &StallWatch,
    ) -> Result<Bytes, Failure> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.piece(&mut response, watch).await? {
            if whole.len() + piece.len() > limit {
                return Err(Failure::permanent(Error::TooLarge {
                    uri: self.place.clone(),
                    limit: limit as u64,
                }));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// The next bytes of an answer.
    pub(crate) async fn piece(
        &self,
        response: &mut Response,
        watch: &StallWatch,
    ) -> Result<Option<Bytes>, Failure> {
        match watch.guard(response.chunk()).await {
            Ok(piece) => {
                watch.beat();
                piece.map_err(|error| self.peer().broken(error))
            }
            Err(_) => Err(self.peer().stalled()),
        }
    }
}

/// A whole small answer.
pub(crate) struct Fetched {
    /// Where it was in the end.
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

fn is_encrypted(url: &Url) -> bool {
    url.scheme() == "https"
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The protocol's code in an answer that says what went wrong. Nothing else of it is passed on:
/// messages and details may repeat anything.
fn code(text: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(text).ok()?;
    let code = answer["errors"][0]["code"].as_str()?;
    let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    ((1..=64).contains(&code.len()) && code.chars().all(plain)).then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_answer_is_repeated_but_the_code() {
        let answer = br#"{"errors":[{"code":"DENIED","message":"SECRET","detail":"SECRET"}]}"#;
        assert_eq!(code(answer).as_deref(), Some("DENIED"));
        for text in [
            r#"{"errors":[{"code":"a SECRET"}]}"#,
            r#"{"errors":[]}"#,
            r#"{"errors":"SECRET"}"#,
            "SECRET",
            "",
        ] {
            assert_eq!(code(text.as_bytes()), None, "{text}");
        }
    }

    fn options() -> OciOptions {
        OciOptions {
            insecure: vec!["listed:5000".to_owned()],
            logins: Some("/nonexistent".into()),
            ..OciOptions::default()
        }
    }

    #[test]
    fn content_goes_nowhere_unencrypted_but_where_that_is_allowed() {
        let connection = |uri: &str| Connection::open(&uri.parse().unwrap(), &options()).unwrap();
        let (secure, plain) = (
            connection("oci://far:5000/a"),
            connection("oci://[::1]:50/a"),
        );
        for (connection, text, expected, allowed) in [
            (&secure, "/s?x=1", "https://far:5000/s?x=1", true),
            (&secure, "http://far:5000/s", "https://far:5000/s", true),
            (&secure, "http://far/s", "https://far:5000/s", true),
            (&secure, "https://other/s", "https://other/s", true),
            (&secure, "http://other/s", "http://other/s", false),
            (&secure, "http://listed/s", "http://listed/s", false),
            (
                &secure,
                "http://listed:5000/s",
                "http://listed:5000/s",
                true,
            ),
            (&secure, "file:///s", "file:///s", false),
            (&plain, "/s", "http://[::1]:50/s", true),
            (&plain, "http://[::1]:51/s", "http://[::1]:51/s", true),
            (&plain, "http://127.0.0.1:5/s", "http://127.0.0.1:5/s", true),
            (&plain, "http://other/s", "http://other/s", false),
            (&plain, "https://other/s", "https://other/s", true),
        ] {
            let url = connection.joined(&connection.url("x", &[]), text).unwrap();
            assert_eq!(url.as_str(), expected);
            assert_eq!(connection.may_have_content(&url), allowed, "{url}");
        }
    }

    #[test]
    fn plain_text_is_for_this_computer_and_listed_hosts() {
        let options = options();
        for (uri, url) in [
            ("oci://127.0.0.1:5000/a", "http://127.0.0.1:5000/v2/a/x?b=c"),
            ("oci://[::1]:5000/a", "http://[::1]:5000/v2/a/x?b=c"),
            ("oci://listed:5000/a", "http://listed:5000/v2/a/x?b=c"),
            ("oci://listed/a", "https://listed/v2/a/x?b=c"),
            (
                "oci://docker.io/a/b",
                "https://registry-1.docker.io/v2/a/b/x?b=c",
            ),
        ] {
            let connection = Connection::open(&uri.parse().unwrap(), &options).unwrap();
            assert_eq!(connection.url("x", &[("b", "c")]).as_str(), url);
        }
    }
}
