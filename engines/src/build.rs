//! Building images with the engine's own builder.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::time::Duration;

use bollard::body_try_stream;
use bollard::query_parameters::BuildImageOptionsBuilder;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use mlwm_spec::Digest;

use crate::connect::Engine;
use crate::error::{Error, one_line};

/// Time within which the engine must have taken the context and begun to answer.
const CONTEXT_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// Lines of the builder that go into the error of a build that ends without an image.
const LAST_LINES: usize = 5;

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
}

impl Engine {
    /// Builds an image from a context, a tar archive, which is streamed to the engine as it is
    /// made. Nothing is pulled. Each line that the builder prints goes to `on_line`. An error of
    /// the context breaks the build off.
    pub async fn build(
        &self,
        context: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        request: &BuildRequest,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Digest, Error> {
        let to_map = |map: &BTreeMap<String, String>| -> HashMap<String, String> {
            map.clone().into_iter().collect()
        };
        let options = BuildImageOptionsBuilder::default()
            .t(&request.tag)
            .dockerfile(&request.dockerfile)
            .labels(&to_map(&request.labels))
            .buildargs(&to_map(&request.build_args))
            .rm(true)
            .forcerm(true)
            .build();
        let failed = |message: String| Error::Build {
            tag: request.tag.clone(),
            message,
        };

        // The engine answers only after it has read the context, which may be large.
        let docker = self.docker.clone().with_timeout(CONTEXT_TIMEOUT);
        let mut answer = docker.build_image(options, None, Some(body_try_stream(context)));
        let mut id = None;
        let mut last = VecDeque::new();
        let mut partial = String::new();
        while let Some(message) = answer.next().await {
            let message =
                message.map_err(|error| match Error::from_engine("build an image", error) {
                    Error::Refused { message, .. } => failed(message),
                    other => other,
                })?;
            id = message.aux.and_then(|aux| aux.id).or(id);
            partial.push_str(&message.stream.or(message.status).unwrap_or_default());
            while let Some(end) = partial.find('\n') {
                let line: String = partial.drain(..=end).collect();
                let line = line.trim_end();
                if !line.is_empty() {
                    on_line(line);
                    last.push_back(line.to_owned());
                    if last.len() > LAST_LINES {
                        last.pop_front();
                    }
                }
            }
        }
        // An answer that ends without an error has not always made an image.
        let Some(id) = id else {
            let last: Vec<String> = last.into();
            return Err(failed(format!(
                "the builder stopped after: {}",
                one_line(&last.join("; "))
            )));
        };
        match self.image(&request.tag).await? {
            Some(image) if image.id.to_string() == id || image.id.hex() == id => Ok(image.id),
            _ => Err(failed(format!(
                "it was built as {id}, but has not got its reference"
            ))),
        }
    }
}
