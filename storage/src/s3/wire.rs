//! Requests that mlwm signs and sends itself, because it must know when each byte moves and what a
//! server said about an unfinished upload.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use mlwm_spec::Digest;
use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpRequest, HttpRequestBody};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, HeaderName, HeaderValue, RANGE};

use super::S3;
use crate::credentials::{Chain, CredentialFailure};
use crate::transfer::http::{self, Peer, Refusal, encode};
use crate::transfer::object::Getter;
use crate::transfer::retry::{Cause, Failure};
use crate::transfer::stall::StallWatch;
use crate::{Error, S3Access, Uri};

/// The client for these requests, and what signs them.
pub(super) struct Wire {
    client: reqwest::Client,
    /// URL of the bucket.
    bucket: String,
    region: String,
    credentials: Option<Arc<Chain>>,
}

/// One request.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) uri: &'a Uri,
    /// Encoded.
    pub(super) query: String,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Bytes,
    pub(super) sha256: Digest,
}

impl<'a> Ask<'a> {
    /// A request without a body.
    pub(super) fn new(method: Method, uri: &'a Uri, query: String) -> Self {
        Self {
            method,
            uri,
            query,
            headers: Vec::new(),
            body: Bytes::new(),
            sha256: Digest::of(""),
        }
    }

    pub(super) fn with_body(mut self, body: Bytes, sha256: Digest) -> Self {
        self.body = body;
        self.sha256 = sha256;
        self
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

impl Wire {
    pub(super) fn open(
        bucket: &str,
        access: &S3Access,
        credentials: Option<Arc<Chain>>,
    ) -> Result<Self, Error> {
        let base = match &access.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => format!("https://s3.{}.amazonaws.com", access.region),
        };
        let encrypted = base.starts_with("https://");
        Ok(Self {
            client: http::client(access.ca_bundle.as_ref().filter(|_| encrypted))?,
            bucket: format!("{base}/{bucket}"),
            region: access.region.clone(),
            credentials,
        })
    }
}

impl S3 {
    /// Signs and sends a request once.
    pub(super) async fn ask(
        &self,
        ask: Ask<'_>,
        watch: &StallWatch,
    ) -> Result<reqwest::Response, Refusal> {
        let place = ask.uri.to_string();
        let peer = Peer {
            uri: &place,
            endpoint: &self.endpoint,
        };
        let request = self.signed(ask, &peer, watch).await?;
        let sent = http::send(&self.wire.client, request, &peer, watch, code).await;
        if let Err(refusal) = &sent
            && refusal.failure.cause == Cause::Credentials
            && let Some(credentials) = &self.wire.credentials
        {
            credentials.forget().await;
        }
        sent
    }

    async fn signed(
        &self,
        ask: Ask<'_>,
        peer: &Peer<'_>,
        watch: &StallWatch,
    ) -> Result<reqwest::Request, Failure> {
        let mut url = format!("{}/{}", self.wire.bucket, encode(ask.uri.key(), true));
        if !ask.query.is_empty() {
            url = format!("{url}?{}", ask.query);
        }
        let unusable = || Failure::permanent(peer.service("the request cannot be made".to_owned()));
        let mut signing = HttpRequest::new(HttpRequestBody::empty());
        *signing.method_mut() = ask.method.clone();
        *signing.uri_mut() = url.parse().map_err(|_| unusable())?;
        for (name, value) in &ask.headers {
            let value = HeaderValue::from_str(value).map_err(|_| unusable())?;
            signing.headers_mut().insert(name, value);
        }
        if let Some(credentials) = &self.wire.credentials {
            let credential = watch.guard(credentials.current()).await;
            let credential = credential
                .map_err(|_| peer.stalled())?
                .map_err(|error| Failure::permanent(no_credentials(peer, &error)))?;
            AwsAuthorizer::new(&credential, "s3", &self.wire.region)
                .try_authorize(&mut signing, Some(&ask.sha256.bytes()))
                .map_err(|_| unusable())?;
        }
        let mut request = reqwest::Request::new(ask.method, url.parse().map_err(|_| unusable())?);
        *request.headers_mut() = signing.headers().clone();
        if !ask.body.is_empty() || matches!(*request.method(), Method::PUT | Method::POST) {
            let length = HeaderValue::from(ask.body.len());
            request.headers_mut().insert(CONTENT_LENGTH, length);
        }
        if !ask.body.is_empty() {
            *request.body_mut() = Some(watch.body(ask.body));
        }
        Ok(request)
    }
}

impl Getter for S3 {
    fn get<'a>(
        &'a self,
        uri: &'a Uri,
        range: Option<String>,
        watch: &'a StallWatch,
    ) -> BoxFuture<'a, Result<reqwest::Response, Refusal>> {
        let mut ask = Ask::new(Method::GET, uri, String::new());
        if let Some(range) = range {
            ask = ask.with_header(RANGE, &range);
        }
        Box::pin(self.ask(ask, watch))
    }

    fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

fn no_credentials(peer: &Peer<'_>, error: &object_store::Error) -> Error {
    let reason = match error {
        object_store::Error::Generic { source, .. } => source
            .downcast_ref::<CredentialFailure>()
            .map(|failure| failure.reason.clone()),
        _ => None,
    };
    Error::NoCredentials {
        uri: peer.uri.to_owned(),
        reason: reason.unwrap_or_else(|| "they could not be had".to_owned()),
    }
}

/// The code in an error's answer.
pub(super) fn code(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    Some(code.to_owned())
}
