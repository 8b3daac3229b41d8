//! What a builder says while it builds, as lines: the classic one and Podman in text, BuildKit in
//! messages of protobuf.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::Deserialize;
use serde_json::Value;

use crate::lines::Lines;

/// A message of the builder: one JSON object.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    id: String,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    aux: Value,
}

/// What has been said so far.
#[derive(Default)]
pub(super) struct Progress {
    text: Lines,
    /// Output of BuildKit's steps, which run at the same time.
    steps: BTreeMap<String, Lines>,
    named: BTreeSet<String>,
    /// Identifier of the image.
    pub(super) image: Option<String>,
    /// Why there is none.
    error: Option<String>,
    /// The step of BuildKit that failed.
    failed: Option<String>,
}

/// What BuildKit calls the step that looks for a base, before its name.
const BASE_STEP: &str = "[internal] load metadata for ";
/// What it says of steps that stop because another one failed.
const CANCELED: &str = "context canceled";

impl Progress {
    /// Takes one message. What is none is a line.
    pub(super) fn push(&mut self, message: &str, line: &mut impl FnMut(String)) {
        let Ok(said) = serde_json::from_str::<Said>(message) else {
            line(message.to_owned());
            return;
        };
        if !said.error.is_empty() {
            self.error = Some(said.error);
        }
        if let Some(id) = said.aux["ID"].as_str() {
            self.image = Some(id.to_owned());
        }
        self.text.push(said.stream.as_bytes(), line);
        if !said.status.is_empty() {
            line(said.status);
        }
        if said.id == "moby.buildkit.trace"
            && let Some(trace) = said
                .aux
                .as_str()
                .and_then(|trace| STANDARD.decode(trace).ok())
            && let Ok(trace) = Trace::decode(trace.as_slice())
        {
            self.trace(trace, line);
        }
    }

    /// Why there is no image, if the builder said so.
    pub(super) fn failure(&self) -> Option<String> {
        let error = self.error.as_deref()?;
        let step = self.failed.as_deref();
        Some(match step.and_then(|step| step.strip_prefix(BASE_STEP)) {
            Some(base) => format!(
                "its base {base} is not in the engine and cannot be fetched ({error}): fetch it with `docker pull`, or name another one"
            ),
            None => error.to_owned(),
        })
    }

    fn trace(&mut self, trace: Trace, line: &mut impl FnMut(String)) {
        for step in trace.steps {
            // Those of BuildKit itself say nothing of the Containerfile.
            let internal = step.name.starts_with("[internal]");
            if !step.error.is_empty() && !step.error.contains(CANCELED) {
                self.failed.get_or_insert_with(|| step.name.clone());
            }
            if step.started.is_some() && !internal && self.named.insert(step.digest) {
                line(step.name);
            }
        }
        for log in trace.logs {
            self.steps
                .entry(log.step)
                .or_default()
                .push(&log.text, line);
        }
    }

    /// The end: what is left of lines.
    pub(super) fn finish(&mut self, line: &mut impl FnMut(String)) {
        self.text.finish(line);
        for step in self.steps.values_mut() {
            step.finish(line);
        }
    }
}

/// BuildKit's `StatusResponse`, as far as it is shown.
#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    steps: Vec<Step>,
    #[prost(message, repeated, tag = "3")]
    logs: Vec<Log>,
}

/// `Vertex`.
#[derive(Clone, PartialEq, Message)]
struct Step {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(message, optional, tag = "5")]
    started: Option<Time>,
    #[prost(string, tag = "7")]
    error: String,
}

/// `google.protobuf.Timestamp`; only whether it is there matters.
#[derive(Clone, PartialEq, Message)]
struct Time {}

/// `VertexLog`.
#[derive(Clone, PartialEq, Message)]
struct Log {
    #[prost(string, tag = "1")]
    step: String,
    #[prost(bytes = "vec", tag = "4")]
    text: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_named_once_and_their_lines_are_whole() {
        let step = |digest: &str, name: &str, started: bool| Step {
            digest: digest.to_owned(),
            name: name.to_owned(),
            started: started.then_some(Time {}),
            error: String::new(),
        };
        let log = |digest: &str, text: &str| Log {
            step: digest.to_owned(),
            text: text.into(),
        };
        let traces = [
            Trace {
                steps: vec![
                    step("a", "[1/2] FROM base", false),
                    step("i", "[internal] load", true),
                ],
                logs: vec![],
            },
            Trace {
                steps: vec![step("a", "[1/2] FROM base", true), step("b", "RUN b", true)],
                logs: vec![log("a", "one li"), log("b", "other\n")],
            },
            Trace {
                steps: vec![step("a", "[1/2] FROM base", true)],
                logs: vec![log("a", "ne\nrest")],
            },
        ];
        let mut progress = Progress::default();
        let mut lines = Vec::new();
        for trace in traces {
            let aux = STANDARD.encode(trace.encode_to_vec());
            let said = serde_json::json!({"id": "moby.buildkit.trace", "aux": aux});
            progress.push(&said.to_string(), &mut |line| lines.push(line));
        }
        progress.push(r#"{"aux":{"ID":"sha256:1"}}"#, &mut |_| ());
        progress.push(r#"{"error":"no"}"#, &mut |_| ());
        progress.finish(&mut |line| lines.push(line));
        assert_eq!(
            lines,
            ["[1/2] FROM base", "RUN b", "other", "one line", "rest"]
        );
        assert_eq!(progress.image.as_deref(), Some("sha256:1"));
        assert_eq!(progress.failure().as_deref(), Some("no"));
    }

    #[test]
    fn a_base_that_cannot_be_found_is_named() {
        let step = |name: &str, error: &str| Step {
            name: name.to_owned(),
            error: error.to_owned(),
            ..Step::default()
        };
        let trace = Trace {
            steps: vec![
                step("[internal] load metadata for other:1", "context canceled"),
                step("[internal] load metadata for base:1", "no route"),
            ],
            logs: vec![],
        };
        let mut progress = Progress::default();
        progress.trace(trace, &mut |_| ());
        assert_eq!(progress.failure(), None);
        progress.push(r#"{"error":"no route"}"#, &mut |_| ());
        let failure = progress.failure().unwrap();
        assert!(failure.contains("base base:1 is not in"), "{failure}");
    }
}
