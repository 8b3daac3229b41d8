//! Building images with the engine's own builder: BuildKit in Docker, Buildah in Podman.

mod progress;
mod secret;
mod session;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use hyper::header::CONTENT_TYPE;
use mlwm_spec::Digest;
use serde_json::json;
use url::form_urlencoded::Serializer;

pub use secret::{BuildSecret, Redaction};

use crate::connect::Engine;
use crate::error::{Error, one_line};
use crate::info::Kind;
use crate::wire::{Body, as_io};
use progress::Progress;
use session::Session;

/// Time within which the engine must have taken the context and begun to answer.
const CONTEXT_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// The longest message of a builder.
const LONGEST: usize = 16 << 20;
/// What a builder's lines have in the place of secrets.
const REDACTED: &str = "***";
/// Lines of the builder that go into the error of a build that ends without an image.
const LAST_LINES: usize = 5;
/// The first version of Podman that keeps secrets out of the build context.
const PODMAN_WITH_SECRETS: u32 = 4;

/// An image to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildRequest {
    /// Reference of the image.
    pub tag: String,
    /// Name of the `Containerfile` in the context.
    pub dockerfile: String,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Values for the `ARG`s of the `Containerfile`. They are recorded in the image: never
    /// credentials.
    pub build_args: BTreeMap<String, String>,
    /// What `RUN --mount=type=secret` finds. It is in no image, no log and no cache.
    pub secrets: Vec<BuildSecret>,
}

impl Engine {
    /// Builds an image from a context, a tar archive, which is streamed to the engine as it is
    /// made. Nothing is pulled that the engine has. Each line that the builder prints goes to
    /// `on_line`, without the values of secrets. An error of the context breaks the build off.
    pub async fn build(
        &self,
        context: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        request: &BuildRequest,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Digest, Error> {
        let redaction = Redaction::of(request.secrets.iter().map(BuildSecret::value));
        let failed = |message: &str| Error::Build {
            tag: request.tag.clone(),
            message: one_line(&redaction.apply(message, REDACTED)),
        };
        let (query, context, _session) = match self.info.kind {
            Kind::Docker => {
                let session = Session::open(self, &request.secrets).await?;
                // The second version of the builder is BuildKit.
                let query = [("version", "2"), ("session", session.id.as_str())];
                let query = query_of(request, &query);
                (query, context.boxed(), Some(session))
            }
            Kind::Podman => {
                let (list, archive) = self.in_context(request)?;
                let query = query_of(request, &[("secrets", list.as_str())]);
                let secrets = futures::stream::iter(archive.map(Ok));
                (query, secrets.chain(context).boxed(), None)
            }
        };
        let body: Body =
            StreamBody::new(context.map(|piece| piece.map(Frame::data))).boxed_unsync();
        let sent = Request::post("/")
            .header(CONTENT_TYPE, "application/x-tar")
            .body(body)
            .map_err(|error| failed(&error.to_string()))?;
        let action = "build an image";
        let path = format!("/build?{query}");
        // The engine answers only after it has read the context, which may be large.
        let answer = tokio::time::timeout(CONTEXT_TIMEOUT, self.send(action, &path, sent)).await;
        let answer = answer.map_err(|_| failed("the engine did not answer"))?;
        let mut answer = answer
            .map_err(|error| match error {
                Error::Refused { message, .. } => failed(&message),
                other => other,
            })?
            .into_body();

        let mut progress = Progress::default();
        let mut last = VecDeque::new();
        let mut line = |text: String| {
            let text = redaction.apply(text.trim_end(), REDACTED);
            if !text.is_empty() {
                on_line(&text);
                last.push_back(text);
                if last.len() > LAST_LINES {
                    last.pop_front();
                }
            }
        };
        let mut messages = Vec::new();
        while let Some(frame) = answer.frame().await {
            let frame = frame.map_err(|error| Error::Lost {
                action: action.to_owned(),
                source: Box::new(as_io(error).into()),
            })?;
            messages.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            while let Some(end) = messages.iter().position(|byte| *byte == b'\n') {
                let message: Vec<u8> = messages.drain(..=end).collect();
                progress.push(&String::from_utf8_lossy(&message), &mut line);
            }
            if messages.len() > LONGEST {
                return Err(failed("what the builder says cannot be understood"));
            }
        }
        if !messages.is_empty() {
            progress.push(&String::from_utf8_lossy(&messages), &mut line);
        }
        progress.finish(&mut line);
        if let Some(failure) = progress.failure() {
            return Err(failed(&failure));
        }
        // An answer that ends without an error has not always made an image.
        let Some(id) = progress.image else {
            let last: Vec<String> = last.into();
            return Err(failed(&format!(
                "the builder stopped after: {}",
                last.join("; ")
            )));
        };
        match self.image(&request.tag).await? {
            Some(image) if image.id.to_string() == id || image.id.hex() == id => Ok(image.id),
            _ => Err(failed(&format!(
                "it was built as {id}, but has not got its reference"
            ))),
        }
    }

    /// The secrets as Podman takes them: it moves what it finds under these names out of the context
    /// before it builds. Gives the list, and the beginning of an archive.
    fn in_context(
        &self,
        request: &BuildRequest,
    ) -> Result<(String, std::option::IntoIter<Bytes>), Error> {
        let version = &self.info.version;
        let major = version
            .split('.')
            .next()
            .and_then(|major| major.parse().ok());
        if !request.secrets.is_empty() && major.is_none_or(|major: u32| major < PODMAN_WITH_SECRETS)
        {
            return Err(Error::Build {
                tag: request.tag.clone(),
                message: format!(
                    "Podman {version} cannot keep secrets out of an image: use Podman {PODMAN_WITH_SECRETS} or later, or Docker"
                ),
            });
        }
        let unpacked = |error: io::Error| Error::Build {
            tag: request.tag.clone(),
            message: format!("its secrets cannot be sent: {error}"),
        };
        let mut archive = tar::Builder::new(Vec::new());
        let mut list = Vec::new();
        let beginning = format!(".secret-{}", unique_name());
        for (number, secret) in request.secrets.iter().enumerate() {
            let name = format!("{beginning}-{number}");
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o600);
            header.set_size(secret.value().len() as u64);
            let added = archive.append_data(&mut header, &name, secret.value());
            added.map_err(unpacked)?;
            list.push(format!("id={},src={name}", secret.id()));
        }
        // Without the end of an archive, as the context follows.
        let archive = Some(Bytes::from(archive.get_ref().clone()));
        Ok((json!(list).to_string(), archive.into_iter()))
    }
}

fn query_of(request: &BuildRequest, more: &[(&str, &str)]) -> String {
    Serializer::new(String::new())
        .append_pair("t", &request.tag)
        .append_pair("dockerfile", &request.dockerfile)
        .append_pair("labels", &json!(request.labels).to_string())
        .append_pair("buildargs", &json!(request.build_args).to_string())
        .append_pair("rm", "true")
        .append_pair("forcerm", "true")
        .extend_pairs(more)
        .finish()
}

/// A name that nobody else has.
fn unique_name() -> String {
    let [one, other] = [0, 1].map(|salt: u8| RandomState::new().hash_one(salt));
    format!("{one:016x}{other:016x}")
}
