//! The session of a build by BuildKit: a connection to the engine on which the engine asks, in
//! gRPC, for the secrets that the build reads. It ends with the session.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioExecutor;
use prost::Message;
use tokio::task::JoinHandle;

use super::secret::BuildSecret;
use crate::connect::Engine;
use crate::error::Error;

const GET_SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// The frame that a message of gRPC begins with: whether it is compressed, and its length.
const FRAME: usize = 5;
/// Bytes of a question.
const QUESTION: usize = 64 * 1024;

/// A session, as long as this lives.
pub(super) struct Session {
    /// What a build names it by.
    pub(super) id: String,
    serving: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Clone, PartialEq, Message)]
struct SecretQuestion {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct SecretAnswer {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct HealthAnswer {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// gRPC's codes.
#[derive(Clone, Copy)]
enum Code {
    InvalidArgument = 3,
    NotFound = 5,
    Unimplemented = 12,
}

impl Session {
    /// Opens a session in which the engine finds these secrets.
    pub(super) async fn open(engine: &Engine, secrets: &[BuildSecret]) -> Result<Self, Error> {
        let action = "begin a session of BuildKit";
        let id = super::unique_name();
        let request = Request::post("/")
            .header("Connection", "Upgrade")
            .header("Upgrade", "h2c")
            .header("X-Docker-Expose-Session-Uuid", &id)
            .header("X-Docker-Expose-Session-Name", "mlwm")
            .header("X-Docker-Expose-Session-Grpc-Method", GET_SECRET)
            .body(
                Empty::new()
                    .map_err(|never: Infallible| match never {})
                    .boxed_unsync(),
            );
        let refused = |message: String| Error::Refused {
            action: action.to_owned(),
            message,
        };
        let request = request.map_err(|error| refused(error.to_string()))?;
        let answer = engine.send(action, "/session", request).await?;
        let connection = hyper::upgrade::on(answer).await;
        let connection = connection.map_err(|error| refused(error.to_string()))?;
        let secrets: Arc<[BuildSecret]> = secrets.into();
        let service = service_fn(move |request| respond(Arc::clone(&secrets), request));
        let serving =
            http2::Builder::new(TokioExecutor::new()).serve_connection(connection, service);
        // How it ends does not matter: a build that misses its session says so.
        let serving = tokio::spawn(async { drop(serving.await) });
        Ok(Self { id, serving })
    }
}

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

async fn respond(
    secrets: Arc<[BuildSecret]>,
    request: Request<Incoming>,
) -> Result<Reply, Infallible> {
    let method = request.uri().path().to_owned();
    let question = Limited::new(request.into_body(), QUESTION).collect().await;
    let question = question.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(reply(match method.as_str() {
        GET_SECRET => secret(&secrets, &question),
        HEALTH => Ok(HealthAnswer { status: 1 }.encode_to_vec()),
        _ => Err(Code::Unimplemented),
    }))
}

fn secret(secrets: &[BuildSecret], question: &[u8]) -> Result<Vec<u8>, Code> {
    let question = question.get(FRAME..).ok_or(Code::InvalidArgument)?;
    let question = SecretQuestion::decode(question).map_err(|_| Code::InvalidArgument)?;
    let found = secrets.iter().find(|secret| secret.id() == question.id);
    let found = found.ok_or(Code::NotFound)?;
    let answer = SecretAnswer {
        data: found.value().to_vec(),
    };
    Ok(answer.encode_to_vec())
}

/// An answer of gRPC: a framed message, if there is one, and the code in the trailers.
fn reply(answer: Result<Vec<u8>, Code>) -> Reply {
    let mut body = BytesMut::new();
    let code = match answer {
        Ok(message) => {
            body.put_u8(0);
            body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
            body.extend_from_slice(&message);
            0
        }
        Err(code) => code as u16,
    };
    let mut trailers = HeaderMap::new();
    trailers.insert(
        HeaderName::from_static("grpc-status"),
        HeaderValue::from(code),
    );
    let body = Full::new(body.freeze()).with_trailers(async { Some(Ok(trailers)) });
    let mut reply = Response::new(body.boxed_unsync());
    let kind = HeaderValue::from_static("application/grpc");
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply
}
