//! What an error of the S3 client means, in words that cannot hold a secret.
//!
//! The client's errors embed the request's URL with its query, and the server's answer, in which
//! some servers repeat the access key, the string that was signed, or the signature. Nothing of
//! them is passed on but the HTTP status, the error code of the S3 protocol (a single word), and
//! the innermost text of a network error.

use std::error::Error as StdError;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};

use crate::Error;
use crate::credentials::CredentialFailure;

/// Where a request went.
pub(crate) struct Request<'a> {
    /// URI of the object or folder.
    pub(crate) uri: String,
    /// The endpoint, without credentials.
    pub(crate) endpoint: &'a str,
}

/// The S3 protocol's code in an error, such as `NoSuchBucket`.
pub(crate) fn code(error: &object_store::Error) -> Option<String> {
    let text = error.to_string();
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let plain = (1..=64).contains(&code.len())
        && code.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
    plain.then(|| code.to_owned())
}

/// The HTTP status in an error. The client has it in no public field; it is in the text that
/// `RequestError::Status` and `RetryError` write.
pub(crate) fn status(error: &object_store::Error) -> Option<u16> {
    let text = error.to_string();
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// The error of mlwm for an error of the S3 client.
pub(crate) fn classify(error: &object_store::Error, request: &Request<'_>) -> Error {
    let uri = request.uri.clone();
    let endpoint = request.endpoint.to_owned();
    if let Some(failure) = in_chain::<CredentialFailure>(error) {
        return Error::NoCredentials {
            uri,
            reason: failure.reason.clone(),
        };
    }
    if let object_store::Error::InvalidPath { source } = error {
        return unsafe_name(uri, source);
    }
    let code = code(error);
    let status = status(error);
    if code.as_deref() == Some("NoSuchBucket") {
        return Error::BucketMissing { uri, endpoint };
    }
    if matches!(error, object_store::Error::Precondition { .. }) {
        return Error::Changed { uri };
    }
    if is_refusal(code.as_deref(), status) {
        let code = code.unwrap_or_else(|| format!("HTTP {}", status.unwrap_or(403)));
        return Error::AccessDenied {
            uri,
            endpoint,
            code,
        };
    }
    if let Some(http) = in_chain::<HttpError>(error) {
        return match http.kind() {
            HttpErrorKind::Connect => Error::Unreachable {
                uri,
                endpoint,
                reason: innermost(http),
            },
            HttpErrorKind::Timeout => Error::TimedOut { uri, endpoint },
            _ => Error::Service {
                uri,
                endpoint,
                reason: format!("the connection broke: {}", innermost(http)),
            },
        };
    }
    let reason = match (status, code) {
        (Some(status), Some(code)) => format!("HTTP {status}, {code}{}", advice(&code)),
        (Some(status), None) => format!("HTTP {status}{}", redirect_advice(status)),
        (None, Some(code)) => format!("{code}{}", advice(&code)),
        (None, None) if error.to_string().contains("redirect without LOCATION") => {
            format!("it redirects{}", redirect_advice(301))
        }
        (None, None) => "the answer was not one of the S3 protocol".to_owned(),
    };
    Error::Service {
        uri,
        endpoint,
        reason,
    }
}

/// Whether the same request may succeed a little later.
pub(crate) fn is_transient(error: &object_store::Error) -> bool {
    if let Some(status) = status(error) {
        return status >= 500 || status == 429 || status == 408;
    }
    in_chain::<HttpError>(error).is_some()
}

/// Whether a connection broke that had been made.
pub(crate) fn is_broken_connection(error: &object_store::Error) -> bool {
    in_chain::<HttpError>(error)
        .is_some_and(|http| !matches!(http.kind(), HttpErrorKind::Connect | HttpErrorKind::Timeout))
}

pub(crate) fn is_refusal(code: Option<&str>, status: Option<u16>) -> bool {
    const CODES: [&str; 10] = [
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "Forbidden",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnauthorizedAccess",
    ];
    matches!(status, Some(401 | 403)) || code.is_some_and(|code| CODES.contains(&code))
}

pub(crate) fn advice(code: &str) -> &'static str {
    match code {
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "IllegalLocationConstraintException" => ": set AWS_REGION to the region of the bucket",
        "InvalidRequest" | "NotImplemented" => ": the server does not do what mlwm asks of it",
        "SlowDown" | "ServiceUnavailable" | "InternalError" => ": run the same command again",
        _ => "",
    }
}

pub(crate) fn redirect_advice(status: u16) -> &'static str {
    match status {
        301 | 302 | 307 | 308 => ": set AWS_REGION to the region of the bucket",
        500.. => ": run the same command again",
        _ => "",
    }
}

fn unsafe_name(uri: String, error: &object_store::path::Error) -> Error {
    use object_store::path::Error as PathError;
    let (name, reason) = match error {
        PathError::EmptySegment { path } => (path, "it has an empty part between two `/`"),
        PathError::BadSegment { path, .. } => (path, "it has a `.`, `..` or control character"),
        _ => {
            return Error::Service {
                uri,
                endpoint: "the store".to_owned(),
                reason: "it lists a name that is not a path".to_owned(),
            };
        }
    };
    Error::UnsafeName {
        uri,
        name: name.escape_debug().to_string(),
        reason: reason.to_owned(),
    }
}

/// The first error of type `T` among `error` and its causes.
fn in_chain<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<T>())
}

/// The operating system's or TLS library's word for a network error, which knows no URL.
pub(crate) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let last = std::iter::successors(Some(error), |&error| error.source()).last();
    let Some(last) = last else {
        return "unknown".to_owned();
    };
    if let Some(io) = last.downcast_ref::<io::Error>()
        && io.raw_os_error().is_some()
    {
        return io.to_string();
    }
    let text = last.to_string();
    let harmless = !text.contains("://") && !text.contains('?') && !text.contains('@');
    if harmless {
        text.chars().take(160).collect()
    } else {
        "network error".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Text(String);

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: Box::new(Text(text.to_owned())),
        }
    }

    /// An answer as servers really give it, with all that must not be repeated.
    const ANSWER: &str = "Error performing GET http://host/b?X-Amz-Signature=PLANTED in 3ms - \
        Server returned non-2xx status code: 403 Forbidden: <Error>\
        <Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>PLANTED</AWSAccessKeyId>\
        <StringToSign>AWS4-HMAC-SHA256 PLANTED</StringToSign>\
        <SignatureProvided>PLANTED</SignatureProvided></Error>";

    #[test]
    fn nothing_of_an_answer_is_repeated_but_status_and_code() {
        let http = |kind| object_store::Error::Generic {
            store: "S3",
            source: Box::new(HttpError::new(
                kind,
                Text("http://host/?sig=PLANTED failed".to_owned()),
            )),
        };
        let path = || "b/PLANTED?sig=PLANTED".to_owned();
        let source = || Box::new(Text(ANSWER.to_owned())).into();
        let errors = [
            (generic(ANSWER), "AccessDenied"),
            (
                generic("status code: 503 <Code>SlowDown</Code> PLANTED"),
                "Service",
            ),
            (
                generic("status code: 404 <Code>NoSuchBucket</Code> PLANTED"),
                "BucketMissing",
            ),
            (generic("<Code>has spaces PLANTED</Code>"), "Service"),
            (generic("PLANTED"), "Service"),
            (http(HttpErrorKind::Connect), "Unreachable"),
            (http(HttpErrorKind::Timeout), "TimedOut"),
            (http(HttpErrorKind::Decode), "Service"),
            (
                object_store::Error::NotFound {
                    path: path(),
                    source: source(),
                },
                "AccessDenied",
            ),
            (
                object_store::Error::Precondition {
                    path: path(),
                    source: source(),
                },
                "Changed",
            ),
            (
                object_store::Error::Unauthenticated {
                    path: path(),
                    source: source(),
                },
                "AccessDenied",
            ),
        ];
        for (error, kind) in errors {
            let request = Request {
                uri: "s3://bucket/key".to_owned(),
                endpoint: "http://host",
            };
            let found = classify(&error, &request);
            let text = format!("{found} {found:?}");
            assert!(format!("{found:?}").starts_with(kind), "{kind}: {text}");
            assert!(
                !text.contains("PLANTED") && !text.contains("X-Amz"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        for (text, expected) in [
            ("status code: 503 x", true),
            ("status code: 429 x", true),
            ("status code: 403 x", false),
            ("status code: 404 x", false),
            ("something else", false),
        ] {
            assert_eq!(is_transient(&generic(text)), expected, "{text}");
        }
    }
}
