//! Requests that `bollard` does not make: a build with BuildKit's session, or with Podman's secrets.

use std::error::Error as _;
use std::io;

use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use bytes::Bytes;

use crate::connect::{Endpoint, Engine};
use crate::error::{Error, one_line};

/// Bytes of an answer that is a refusal.
const REFUSAL: usize = 64 * 1024;

/// What is sent with a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

impl Engine {
    /// Sends a request to `<path>` of the engine's API, on a connection of its own. An answer that
    /// is a refusal is an error.
    pub(crate) async fn send(
        &self,
        action: &str,
        path: &str,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Error> {
        let lost = |source: io::Error| Error::Lost {
            action: action.to_owned(),
            source: Box::new(source.into()),
        };
        let invalid = |error: hyper::http::Error| lost(io::Error::other(error));
        let host = match &self.endpoint {
            Endpoint::Unix(_) => "localhost",
            Endpoint::Tcp(address) => address.as_str(),
        };
        let uri = format!("/v{}{path}", self.info.api_version);
        *request.uri_mut() = uri
            .parse()
            .map_err(|error| lost(io::Error::other(format!("`{path}` is no request: {error}"))))?;
        let host = hyper::header::HeaderValue::from_str(host)
            .map_err(|error| invalid(hyper::http::Error::from(error)))?;
        request.headers_mut().insert(hyper::header::HOST, host);
        let answer = match &self.endpoint {
            Endpoint::Unix(path) => {
                exchange(UnixStream::connect(path).await.map_err(lost)?, request).await
            }
            Endpoint::Tcp(address) => {
                exchange(TcpStream::connect(address).await.map_err(lost)?, request).await
            }
        };
        let answer = answer.map_err(|error| lost(as_io(error)))?;
        let status = answer.status();
        if status.is_success() || status == hyper::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        let body = http_body_util::Limited::new(answer.into_body(), REFUSAL);
        let body = body
            .collect()
            .await
            .map_err(io::Error::other)
            .map_err(lost)?;
        Err(Error::Refused {
            action: action.to_owned(),
            message: refusal(&body.to_bytes()),
        })
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Body>,
) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the connection; what goes wrong in it is told by the answer.
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await
}

/// An error of HTTP as one of what it happened in, if it says.
pub(crate) fn as_io(error: hyper::Error) -> io::Error {
    match error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
    {
        Some(source) => io::Error::new(source.kind(), source.to_string()),
        None => io::Error::other(error),
    }
}

/// What an engine says when it refuses: JSON, or what is in its place.
fn refusal(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    let message = match serde_json::from_slice(body) {
        Ok(Refusal { message }) => message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    one_line(&message)
}
