//! One request to the JSON interface.

use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use futures::future::BoxFuture;
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RANGE,
};
use reqwest::{Method, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::access::Tokens;
use super::{Gcs, GcsAccess};
use crate::transfer::http::{self, Peer, Refusal, encode};
use crate::transfer::object::Getter;
use crate::transfer::retry::{Cause, Failure};
use crate::transfer::stall::StallWatch;
use crate::{Error, Uri};

/// A page of a listing has a thousand objects of about 200 bytes.
const ANSWER_LIMIT: usize = 16 << 20;

/// The client, and what makes tokens.
pub(super) struct Wire {
    client: reqwest::Client,
    bucket: String,
    access: GcsAccess,
    tokens: RwLock<Option<std::sync::Arc<Tokens>>>,
}

impl Wire {
    pub(super) fn open(bucket: &str, access: GcsAccess) -> Result<Self, Error> {
        let tokens = access.credentials(bucket)?.map(std::sync::Arc::new);
        Ok(Self {
            client: http::client(None)?,
            bucket: bucket.to_owned(),
            access,
            tokens: RwLock::new(tokens),
        })
    }

    /// The header that says who asks.
    async fn authorization(&self, peer: &Peer<'_>) -> Result<Option<HeaderValue>, Failure> {
        let tokens = self
            .tokens
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Some(tokens) = tokens else {
            return Ok(None);
        };
        let missing = |reason: &str| {
            Failure::permanent(Error::NoGoogleCredentials {
                uri: peer.uri.to_owned(),
                reason: reason.to_owned(),
            })
        };
        // The error's text may quote a file or an answer.
        let token = tokens.0.get_credential().await;
        let token = token.map_err(|_| {
            missing("there are none, or the server that gives tokens for them refused")
        })?;
        let value = HeaderValue::from_str(&format!("Bearer {}", token.bearer));
        let mut value = value.map_err(|_| missing("the token is not one"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Makes new tokens the next time: the server says that these have ended.
    fn forget(&self) {
        if let Ok(fresh) = self.access.credentials(&self.bucket) {
            *self.tokens.write().unwrap_or_else(PoisonError::into_inner) =
                fresh.map(std::sync::Arc::new);
        }
    }
}

/// One request.
pub(super) struct Ask<'a> {
    method: Method,
    uri: &'a Uri,
    to: To,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
}

/// Where a request goes.
enum To {
    /// A path below the server's URL, with its query.
    Path(String),
    /// The URL of an upload session: whoever knows it may write.
    Session(String),
}

impl<'a> Ask<'a> {
    /// About the object at `uri`.
    pub(super) fn object(method: Method, uri: &'a Uri, query: &str) -> Self {
        let bucket = uri.bucket().unwrap_or_default();
        let name = encode(uri.key(), false);
        Self::to(
            method,
            uri,
            To::Path(format!("/storage/v1/b/{bucket}/o/{name}?{query}")),
        )
    }

    /// About the objects of the bucket of `uri`.
    pub(super) fn listing(uri: &'a Uri, query: &str) -> Self {
        let bucket = uri.bucket().unwrap_or_default();
        Self::to(
            Method::GET,
            uri,
            To::Path(format!("/storage/v1/b/{bucket}/o?{query}")),
        )
    }

    /// To bring an object to `uri`.
    pub(super) fn upload(uri: &'a Uri, query: &str) -> Self {
        let bucket = uri.bucket().unwrap_or_default();
        let path = format!("/upload/storage/v1/b/{bucket}/o?{query}");
        Self::to(Method::POST, uri, To::Path(path))
    }

    /// About an upload session.
    pub(super) fn session(method: Method, uri: &'a Uri, session: &str) -> Self {
        Self::to(method, uri, To::Session(session.to_owned()))
    }

    fn to(method: Method, uri: &'a Uri, to: To) -> Self {
        Self {
            method,
            uri,
            to,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    pub(super) fn with_body(self, body: Bytes, kind: &str) -> Self {
        let mut ask = self.with_header(CONTENT_TYPE, kind);
        ask.body = body;
        ask
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

impl Gcs {
    /// Sends a request once.
    pub(super) async fn ask(&self, ask: Ask<'_>, watch: &StallWatch) -> Result<Response, Refusal> {
        let place = ask.uri.to_string();
        let peer = self.peer(&place);
        let unusable = || Failure::permanent(peer.service("the request cannot be made".to_owned()));
        let (url, signed) = match ask.to {
            To::Path(path) => (format!("{}{path}", peer.endpoint), true),
            To::Session(url) => (url, false),
        };
        let mut request = reqwest::Request::new(ask.method, url.parse().map_err(|_| unusable())?);
        let headers = request.headers_mut();
        for (name, value) in &ask.headers {
            headers.insert(name, HeaderValue::from_str(value).map_err(|_| unusable())?);
        }
        if signed {
            let authorization = watch.guard(self.wire.authorization(&peer)).await;
            if let Some(value) = authorization.map_err(|_| peer.stalled())?? {
                headers.insert(AUTHORIZATION, value);
            }
        }
        headers.insert(CONTENT_LENGTH, HeaderValue::from(ask.body.len()));
        if !ask.body.is_empty() {
            *request.body_mut() = Some(watch.body(ask.body));
        }
        let sent = http::send(&self.wire.client, request, &peer, watch, code).await;
        if let Err(refusal) = &sent
            && refusal.failure.cause == Cause::Credentials
        {
            self.wire.forget();
        }
        sent
    }

    /// Sends a request once, and reads what it says.
    pub(super) async fn ask_json<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, Refusal> {
        let place = ask.uri.to_string();
        let watch = StallWatch::new(self.limits.stall);
        let answer = self.ask(ask, &watch).await?;
        Ok(self.json(&place, answer, &watch).await?)
    }

    /// Reads what an answer says.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        place: &str,
        answer: Response,
        watch: &StallWatch,
    ) -> Result<T, Failure> {
        let peer = self.peer(place);
        let body = http::read_small(answer, ANSWER_LIMIT, &peer, watch).await?;
        serde_json::from_slice(&body).map_err(|_| {
            let reason = "the answer was not one of Google Cloud Storage";
            Failure::permanent(peer.service(reason.to_owned()))
        })
    }

    pub(super) fn peer<'a>(&'a self, place: &'a str) -> Peer<'a> {
        Peer {
            uri: place,
            endpoint: self.wire.access.endpoint(),
        }
    }
}

impl Getter for Gcs {
    fn get<'a>(
        &'a self,
        uri: &'a Uri,
        range: Option<String>,
        watch: &'a StallWatch,
    ) -> BoxFuture<'a, Result<Response, Refusal>> {
        let mut ask = Ask::object(Method::GET, uri, "alt=media");
        if let Some(range) = range {
            ask = ask.with_header(RANGE, &range);
        }
        Box::pin(self.ask(ask, watch))
    }

    fn endpoint(&self) -> &str {
        self.wire.access.endpoint()
    }
}

/// The reason in an error's answer; a bucket that does not exist is told in its text only.
fn code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        error: Description,
    }
    #[derive(Deserialize)]
    struct Description {
        #[serde(default)]
        message: String,
        #[serde(default)]
        errors: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Reason {
        reason: String,
    }
    let text = String::from_utf8_lossy(body);
    const NO_BUCKET: &str = "The specified bucket does not exist";
    match serde_json::from_slice::<Answer>(body) {
        Ok(answer) if answer.error.message.starts_with(NO_BUCKET) => {
            Some("NoSuchBucket".to_owned())
        }
        Ok(answer) => answer.error.errors.into_iter().next().map(|e| e.reason),
        Err(_) => text.contains(NO_BUCKET).then(|| "NoSuchBucket".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_found() {
        let answer = br#"{"error": {"code": 404, "message": "The specified bucket does not exist.",
            "errors": [{"message": "x", "domain": "global", "reason": "notFound"}]}}"#;
        assert_eq!(code(answer).as_deref(), Some("NoSuchBucket"));
        let answer = br#"{"error": {"message": "No such object: b/PLANTED",
            "errors": [{"reason": "notFound"}]}}"#;
        assert_eq!(code(answer).as_deref(), Some("notFound"));
        assert_eq!(code(b"Not Found"), None);
        assert_eq!(code(b""), None);
    }
}
