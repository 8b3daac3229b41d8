//! An upload in parts that survives the process: begin, send, list, complete, abandon.

use bytes::Bytes;
use mlwm_spec::Digest;
use quick_xml::se;
use reqwest::Method;
use reqwest::header::IF_NONE_MATCH;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::S3;
use super::wire::{Ask, code};
use crate::transfer::http::{self, Peer, Refusal, encode};
use crate::transfer::retry::{Cause, Failure, persist};
use crate::transfer::stall::StallWatch;
use crate::{Error, Options, Uri};

/// A list of a thousand parts has about 300 bytes for each.
const ANSWER_LIMIT: usize = 4 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Begun {
    upload_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PartList {
    #[serde(default)]
    is_truncated: bool,
    next_part_number_marker: Option<String>,
    #[serde(default, rename = "Part")]
    parts: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UploadList {
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    #[serde(default, rename = "Upload")]
    uploads: Vec<Unfinished>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Unfinished {
    key: String,
    upload_id: String,
}

/// A part that the server has.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Part {
    pub(super) part_number: u32,
    #[serde(rename = "ETag")]
    pub(super) etag: String,
    #[serde(skip_serializing)]
    pub(super) size: u64,
}

#[derive(Serialize)]
#[serde(rename = "CompleteMultipartUpload")]
struct Completion<'a> {
    #[serde(rename = "Part")]
    parts: &'a [Part],
}

/// How completing ended.
pub(super) enum Completed {
    /// The object is there.
    Done,
    /// There is no such upload: it may have been completed before.
    Gone,
    /// Another object has the name.
    Taken,
    /// A part is not the one that was sent: a request of a process that was killed may have come
    /// after it, and cut short.
    Amiss,
}

/// An upload on the server.
pub(super) struct Upload<'a> {
    pub(super) s3: &'a S3,
    pub(super) uri: &'a Uri,
    pub(super) id: String,
}

impl S3 {
    /// Begins an upload; its identifier.
    pub(super) async fn begin(&self, uri: &Uri) -> Result<String, Failure> {
        let ask = Ask::new(Method::POST, uri, "uploads=".to_owned());
        let begun: Begun = self.ask_xml(ask).await?;
        Ok(begun.upload_id)
    }

    /// Begins an upload and calls it off: whether it may be done.
    pub(crate) async fn try_upload(&self, uri: &Uri) -> Result<(), Failure> {
        let id = self.begin(uri).await?;
        let upload = Upload { s3: self, uri, id };
        // Who may not do that may publish nevertheless, which ends what is left.
        let _ = upload.abort().await;
        Ok(())
    }

    /// Ends the uploads of objects below `uri` that were begun and not completed.
    pub(crate) async fn end_uploads(&self, uri: &Uri, options: &Options) -> Result<(), Error> {
        let go_on = CancellationToken::new();
        let place = uri.to_string();
        let below = format!("{}/", uri.key());
        let mut from = (String::new(), String::new());
        loop {
            let ask = || self.uploads(uri, &from);
            let page = persist(&place, options.retry_for, &go_on, ask).await?;
            for unfinished in page.uploads {
                let Some(name) = unfinished.key.strip_prefix(&below) else {
                    continue;
                };
                let upload = Upload {
                    s3: self,
                    uri: &uri.join(name)?,
                    id: unfinished.upload_id,
                };
                persist(&place, options.retry_for, &go_on, || upload.abort()).await?;
            }
            let next = (
                page.next_key_marker.unwrap_or_default(),
                page.next_upload_id_marker.unwrap_or_default(),
            );
            if !page.is_truncated || next == from {
                return Ok(());
            }
            from = next;
        }
    }

    /// A page of the uploads below `uri` that are under way.
    async fn uploads(
        &self,
        uri: &Uri,
        (key, id): &(String, String),
    ) -> Result<UploadList, Failure> {
        let prefix = encode(&format!("{}/", uri.key()), false);
        // Sorted by name, as the signature wants it.
        let query = match key.as_str() {
            "" => format!("prefix={prefix}&uploads="),
            key => format!(
                "key-marker={}&prefix={prefix}&upload-id-marker={}&uploads=",
                encode(key, false),
                encode(id, false)
            ),
        };
        let bucket = uri.root();
        let ask = Ask::new(Method::GET, &bucket, query);
        Ok(self.ask_xml(ask).await?)
    }

    async fn ask_xml<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, Refusal> {
        let place = ask.uri.to_string();
        let peer = Peer {
            uri: &place,
            endpoint: &self.endpoint,
        };
        let watch = StallWatch::new(self.stall);
        let answer = self.ask(ask, &watch).await?;
        let headers = answer.headers().clone();
        let body = http::read_small(answer, ANSWER_LIMIT, &peer, &watch).await?;
        // Completing answers with a success before it knows, and may then say otherwise.
        if let Some(code) = code(&body) {
            let failure = peer.refused(500, &headers, Some(&code));
            return Err(Refusal {
                status: 500,
                code: Some(code),
                object_size: None,
                failure,
            });
        }
        let text = String::from_utf8_lossy(&body);
        quick_xml::de::from_str(&text).map_err(|_| {
            let error = peer.service("the answer was not one of the S3 protocol".to_owned());
            Failure::permanent(error).into()
        })
    }
}

impl Upload<'_> {
    fn query(&self, more: &str) -> String {
        // Sorted by name, as the signature wants it.
        format!("{more}uploadId={}", encode(&self.id, false))
    }

    /// The parts the server has, by number; `None` if it does not know the upload.
    pub(super) async fn parts(&self) -> Result<Option<Vec<Part>>, Failure> {
        let mut parts = Vec::new();
        let mut after = String::new();
        loop {
            let query = match after.as_str() {
                "" => self.query(""),
                after => format!(
                    "part-number-marker={}&{}",
                    encode(after, false),
                    self.query("")
                ),
            };
            let ask = Ask::new(Method::GET, self.uri, query);
            let page: PartList = match self.s3.ask_xml(ask).await {
                Ok(page) => page,
                Err(refusal) if is_gone(&refusal) => return Ok(None),
                Err(refusal) => return Err(refusal.failure),
            };
            parts.extend(page.parts);
            match page.next_part_number_marker {
                Some(next) if page.is_truncated && next != after => after = next,
                _ => return Ok(Some(parts)),
            }
        }
    }

    /// Sends a part once; `None` if the server does not know the upload.
    pub(super) async fn send(
        &self,
        number: u32,
        bytes: Bytes,
        sha256: Digest,
    ) -> Result<Option<Part>, Failure> {
        let size = bytes.len() as u64;
        let query = self.query(&format!("partNumber={number}&"));
        let ask = Ask::new(Method::PUT, self.uri, query).with_body(bytes, sha256);
        let watch = StallWatch::new(self.s3.stall);
        let answer = match self.s3.ask(ask, &watch).await {
            Ok(answer) => answer,
            Err(refusal) if is_gone(&refusal) => return Ok(None),
            Err(refusal) => return Err(refusal.failure),
        };
        let etag = answer.headers().get(reqwest::header::ETAG);
        let Some(etag) = etag.and_then(|etag| etag.to_str().ok()) else {
            let place = self.uri.to_string();
            let peer = Peer {
                uri: &place,
                endpoint: &self.s3.endpoint,
            };
            let error = peer.service("it took a part without an entity tag".to_owned());
            return Err(Failure::permanent(error));
        };
        Ok(Some(Part {
            part_number: number,
            etag: etag.to_owned(),
            size,
        }))
    }

    /// Makes the object of these parts, unless there is one, where the server can tell.
    pub(super) async fn complete(&self, parts: &[Part]) -> Result<Completed, Failure> {
        let body = se::to_string(&Completion { parts }).unwrap_or_default();
        let body = Bytes::from(body);
        let sha256 = Digest::of(&body);
        let mut conditional = true;
        loop {
            let mut ask =
                Ask::new(Method::POST, self.uri, self.query("")).with_body(body.clone(), sha256);
            if conditional {
                ask = ask.with_header(IF_NONE_MATCH, "*");
            }
            let done: Result<serde::de::IgnoredAny, Refusal> = self.s3.ask_xml(ask).await;
            return match done {
                Ok(_) => Ok(Completed::Done),
                Err(refusal) if is_gone(&refusal) => Ok(Completed::Gone),
                Err(refusal)
                    if refusal.has_code("InvalidPart") || refusal.has_code("EntityTooSmall") =>
                {
                    Ok(Completed::Amiss)
                }
                Err(refusal) if refusal.is(412) => Ok(Completed::Taken),
                // Another process is completing an upload of the same name.
                Err(refusal) if refusal.is(409) => Err(Failure {
                    cause: Cause::Transient { after: None },
                    ..refusal.failure
                }),
                Err(refusal) if conditional && refusal.is(501) => {
                    conditional = false;
                    continue;
                }
                Err(refusal) => Err(refusal.failure),
            };
        }
    }

    /// Removes the parts from the server.
    pub(super) async fn abort(&self) -> Result<(), Failure> {
        let ask = Ask::new(Method::DELETE, self.uri, self.query(""));
        match self.s3.ask(ask, &StallWatch::new(self.s3.stall)).await {
            Ok(_) => Ok(()),
            Err(refusal) if is_gone(&refusal) => Ok(()),
            Err(refusal) => Err(refusal.failure),
        }
    }
}

fn is_gone(refusal: &Refusal) -> bool {
    refusal.has_code("NoSuchUpload")
}
