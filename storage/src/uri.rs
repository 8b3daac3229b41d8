//! The name of a place in a store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Error;
use crate::names;

/// The kind of store that a URI names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// The local file system: `file://`.
    File,
    /// An S3 bucket: `s3://`.
    S3,
    /// A Google Cloud Storage bucket: `gs://`.
    Gs,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::S3 => "s3",
            Self::Gs => "gs",
        })
    }
}

/// The name of a place in a store: `file:///absolute/path`, `s3://bucket/prefix` or
/// `gs://bucket/prefix`. A plain path, absolute or relative to the current folder, is read as
/// `file://`. It never ends with `/`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uri(Place);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    /// An absolute path in UTF-8 without `.` and `..`; its root is the empty text.
    File(String),
    /// A bucket, and the key without leading and trailing `/`.
    Bucket {
        scheme: Scheme,
        bucket: String,
        key: String,
    },
}

impl Uri {
    /// The kind of store.
    pub fn scheme(&self) -> Scheme {
        match self.0 {
            Place::File(_) => Scheme::File,
            Place::Bucket { scheme, .. } => scheme,
        }
    }

    /// The place `relative` (with `/`) below this one.
    pub fn join(&self, relative: &str) -> Result<Self, Error> {
        let relative = relative.trim_end_matches('/');
        names::check(relative).map_err(|reason| invalid(relative, reason))?;
        let mut joined = self.clone();
        let text = joined.text_mut();
        let absolute = matches!(self.0, Place::File(_));
        if absolute || !text.is_empty() {
            text.push('/');
        }
        text.push_str(relative);
        Ok(joined)
    }

    /// The place beside this one that has `suffix` appended to its name:
    /// `a/b.zarr` and `.manifest.json` give `a/b.zarr.manifest.json`.
    pub fn sibling_suffix(&self, suffix: &str) -> Self {
        let mut sibling = self.clone();
        sibling.text_mut().push_str(suffix);
        sibling
    }

    /// The local path of a `file://` URI.
    pub fn local_path(&self) -> Option<PathBuf> {
        match &self.0 {
            Place::File(path) if path.is_empty() => Some(PathBuf::from("/")),
            Place::File(path) => Some(PathBuf::from(path)),
            Place::Bucket { .. } => None,
        }
    }

    /// The bucket of an `s3://` or `gs://` URI.
    pub fn bucket(&self) -> Option<&str> {
        match &self.0 {
            Place::File(_) => None,
            Place::Bucket { bucket, .. } => Some(bucket),
        }
    }

    /// Whether this is a whole bucket, or the root folder.
    pub fn is_root(&self) -> bool {
        self.key().is_empty()
    }

    /// The whole bucket, or the root folder.
    pub(crate) fn root(&self) -> Self {
        let mut root = self.clone();
        root.text_mut().clear();
        root
    }

    /// The place that this one lies in; `None` for a whole bucket or the root folder.
    pub(crate) fn parent(&self) -> Option<Self> {
        let mut parent = self.clone();
        let key = parent.text_mut();
        if key.is_empty() {
            return None;
        }
        key.truncate(key.rfind('/').unwrap_or_default());
        Some(parent)
    }

    /// The last part of the path; empty for a whole bucket or the root folder.
    pub fn name(&self) -> &str {
        self.key().rsplit('/').next().unwrap_or_default()
    }

    /// The path inside the store: the key, or the absolute path.
    pub(crate) fn key(&self) -> &str {
        match &self.0 {
            Place::File(path) => path,
            Place::Bucket { key, .. } => key,
        }
    }

    fn text_mut(&mut self) -> &mut String {
        match &mut self.0 {
            Place::File(path) => path,
            Place::Bucket { key, .. } => key,
        }
    }

    pub(crate) fn from_path(path: &Path, original: &str) -> Result<Self, Error> {
        let absolute = std::path::absolute(path).map_err(|error| {
            invalid(original, &format!("the path cannot be resolved ({error})"))
        })?;
        let text = absolute
            .to_str()
            .ok_or_else(|| invalid(original, "the path is not UTF-8"))?
            .trim_matches('/')
            .to_owned();
        if text.is_empty() {
            return Ok(Self(Place::File(String::new())));
        }
        names::check(&text).map_err(|reason| invalid(original, reason))?;
        Ok(Self(Place::File(format!("/{text}"))))
    }

    fn in_bucket(scheme: Scheme, rest: &str, original: &str) -> Result<Self, Error> {
        if rest.contains(['?', '#']) {
            return Err(invalid(
                original,
                "`?` and `#` have no meaning in the URI of an object",
            ));
        }
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            let reason = format!("the bucket is missing: write {scheme}://bucket/prefix");
            return Err(invalid(original, &reason));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !bucket.chars().all(allowed) || bucket.starts_with('.') {
            let reason = "a bucket's name has only letters, digits, `.`, `-` and `_`";
            return Err(invalid(original, reason));
        }
        let key = key.trim_end_matches('/');
        if !key.is_empty() {
            names::check(key).map_err(|reason| invalid(original, reason))?;
        }
        Ok(Self(Place::Bucket {
            scheme,
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        }))
    }
}

impl FromStr for Uri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Some((scheme, rest)) = text.split_once("://") else {
            if text.is_empty() {
                return Err(invalid(text, "it is empty"));
            }
            return Self::from_path(Path::new(text), text);
        };
        if rest
            .split('/')
            .next()
            .is_some_and(|authority| authority.contains('@'))
        {
            let reason = "credentials do not belong in a URI: use AWS_PROFILE, the AWS_ variables or \
                 GOOGLE_APPLICATION_CREDENTIALS";
            return Err(invalid(text, reason));
        }
        match scheme {
            "s3" => Self::in_bucket(Scheme::S3, rest, text),
            "gs" => Self::in_bucket(Scheme::Gs, rest, text),
            "file" => {
                // `Url` would resolve `..` silently, encoded or not.
                let plain = rest.to_ascii_lowercase().replace("%2e", ".");
                if plain.split('/').any(|segment| segment == "..") {
                    return Err(invalid(text, "it has a `..`"));
                }
                let url = url::Url::parse(text).map_err(|e| invalid(text, &e.to_string()))?;
                if url.query().is_some() || url.fragment().is_some() {
                    let reason = "write `?` as %3F and `#` as %23 in a file URI";
                    return Err(invalid(text, reason));
                }
                let path = url.to_file_path().map_err(|()| {
                    invalid(text, "write file:///absolute/path, with three slashes")
                })?;
                Self::from_path(&path, text)
            }
            _ => Err(invalid(
                text,
                &format!("{scheme}:// is not supported: use file://, s3:// or gs://"),
            )),
        }
    }
}

/// The error for `text`, which may hold credentials: they and a query are cut out of it.
fn invalid(text: &str, reason: &str) -> Error {
    let text = text.split('?').next().unwrap_or_default();
    let shown = mlwm_spec::without_credentials(text);
    Error::InvalidUri {
        uri: shown.escape_debug().to_string(),
        reason: reason.to_owned(),
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::File(path) if path.is_empty() => f.write_str("file:///"),
            Place::File(path) => match url::Url::from_file_path(path) {
                Ok(url) => f.write_str(url.as_str()),
                Err(()) => write!(f, "file://{path}"),
            },
            Place::Bucket {
                scheme,
                bucket,
                key,
            } => {
                write!(f, "{scheme}://{bucket}")?;
                if !key.is_empty() {
                    write!(f, "/{key}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip() {
        for (text, expected) in [
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://my.bucket-1/a/b c/", "s3://my.bucket-1/a/b c"),
            ("gs://bucket", "gs://bucket"),
            ("gs://bucket/a/b.zarr/", "gs://bucket/a/b.zarr"),
            ("s3://bucket/100%25", "s3://bucket/100%25"),
            ("/a/b.zarr/", "file:///a/b.zarr"),
            ("/a//./b", "file:///a/b"),
            ("/", "file:///"),
            ("file:///a/b%20c", "file:///a/b%20c"),
            ("/a/b c?#%", "file:///a/b%20c%3F%23%25"),
        ] {
            let uri: Uri = text.parse().unwrap();
            assert_eq!(uri.to_string(), expected, "{text}");
            assert_eq!(uri.to_string().parse::<Uri>().unwrap(), uri, "{text}");
        }
        let relative: Uri = "some/where".parse().unwrap();
        let expected = std::env::current_dir().unwrap().join("some/where");
        assert_eq!(relative.local_path().unwrap(), expected);
        let spaced: Uri = "file:///a/b%20c".parse().unwrap();
        assert_eq!(spaced.local_path().unwrap(), Path::new("/a/b c"));
    }

    #[test]
    fn refuses_what_is_no_place() {
        for (text, part) in [
            ("", "empty"),
            (
                "az://bucket/x",
                "not supported: use file://, s3:// or gs://",
            ),
            ("https://host/x", "not supported"),
            ("gs://", "write gs://bucket/prefix"),
            ("s3://", "bucket is missing"),
            ("s3:///x", "bucket is missing"),
            ("s3://b$d/x", "a bucket's name"),
            ("s3://../x", "a bucket's name"),
            ("s3://bucket/a/../b", "`..`"),
            ("s3://bucket/a//b", "empty part"),
            ("s3://bucket/a\nb", "control character"),
            ("s3://bucket/x?versionId=1", "no meaning"),
            ("/a/../b", "`..`"),
            ("../b", "`..`"),
            ("file:///a/../b", "`..`"),
            ("file:///a/%2E%2E/b", "`..`"),
            ("file://host/a", "three slashes"),
            ("file:///a?x", "%3F"),
        ] {
            let error = text.parse::<Uri>().unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn credentials_in_a_uri_are_refused_and_not_repeated() {
        for text in [
            "s3://KEYID:SECRET@bucket/x",
            "s3://KEYID@bucket",
            "s3://KEYID:SEC/SECRET@bucket/x",
            "file://KEYID:SECRET@host/x",
            "gs://KEYID:SECRET@bucket/x",
            "https://KEYID:SECRET@host/x?X-Amz-Signature=SECRET",
            "https://host/x?X-Amz-Signature=SECRET",
            "s3://bucket/x?X-Amz-Signature=SECRET",
            "file:///x?X-Amz-Signature=SECRET",
        ] {
            let error = text.parse::<Uri>().unwrap_err();
            let all = format!("{error} {error:?}");
            assert!(
                !all.contains("SECRET") && !all.contains("KEYID"),
                "{text}: {all}"
            );
        }
    }

    #[test]
    fn join_and_sibling() {
        let uri: Uri = "s3://bucket/a/out.zarr".parse().unwrap();
        assert_eq!(
            uri.join("c/0").unwrap().to_string(),
            "s3://bucket/a/out.zarr/c/0"
        );
        assert_eq!(
            uri.sibling_suffix(".manifest.json").to_string(),
            "s3://bucket/a/out.zarr.manifest.json"
        );
        let bucket: Uri = "s3://bucket".parse().unwrap();
        assert_eq!(bucket.join("a").unwrap().to_string(), "s3://bucket/a");
        let root: Uri = "/".parse().unwrap();
        assert_eq!(root.join("a").unwrap().to_string(), "file:///a");
        for relative in ["", "/a", "../a", "a/..", "a//b", "."] {
            assert!(uri.join(relative).is_err(), "{relative}");
        }
    }
}
