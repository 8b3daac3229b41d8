//! `mlwm-step fetch`: files from elsewhere into one folder, whole or not at all.

mod http;
mod pattern;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use mlwm_spec::patience::{DEFAULT_PATIENCE, PATIENCE, patience};
use mlwm_spec::{Digest, ExitCode, without_credentials};
use mlwm_storage::{Progress, Staged, Uri, stage};
use reqwest::Url;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::output::whole;
use crate::report::write_json;

/// Files from elsewhere into one folder: `https://`, `http://`, `s3://`, `gs://`, `file://` or a path.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Where the files are: of HTTP one file each; else an object, all below a place, or what is called like
    /// `s3://bucket/data/*.grib`.
    #[arg(required = true, value_name = "URI")]
    pub uris: Vec<String>,
    /// The folder to write: something new, or an empty one.
    #[arg(required = true)]
    pub target: PathBuf,
    /// What the SHA-256 of a file must be, by its name in the folder; of a folder, that of each of its files.
    #[arg(long = "sha256", value_name = "NAME=DIGEST")]
    pub digests: Vec<ExpectedDigest>,
    /// Write here what came: the URI, size and SHA-256 of each file.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// The digest that a file must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedDigest {
    name: String,
    digest: Digest,
}

impl FromStr for ExpectedDigest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write a name and 64 hexadecimal digits, `a.grib=12ab…`".to_owned();
        let (name, digest) = text.split_once('=').ok_or_else(wrong)?;
        let hex = digest
            .strip_prefix("sha256:")
            .unwrap_or(digest)
            .to_lowercase();
        let digest = format!("sha256:{hex}").parse().map_err(|_| wrong())?;
        Ok(Self {
            name: name.to_owned(),
            digest,
        })
    }
}

/// A file that came.
#[derive(Debug, Serialize)]
struct Fetched {
    /// Where it was.
    uri: String,
    /// Its path in the folder.
    name: String,
    bytes: u64,
    sha256: Digest,
    /// What the server calls this version of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
}

/// A place that something is fetched from, and what it is called here.
struct Source {
    /// As people may see it.
    shown: String,
    name: String,
    place: Place,
}

enum Place {
    Http(Url),
    Stored(Uri),
}

/// Fetches.
///
/// # Errors
/// [`Error::Fetch`], [`Error::Storage`], [`Error::Write`]; the folder is there only if everything came.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let value = std::env::var_os(PATIENCE).unwrap_or_default();
    let patience = patience(Some(&value.to_string_lossy())).unwrap_or(DEFAULT_PATIENCE);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Write {
            path: arguments.target.clone(),
            source,
        })?;
    let sources = runtime.block_on(sources(&arguments.uris))?;
    whole(&arguments.target, |folder| {
        let mut fetched = Vec::new();
        for source in &sources {
            let has_digest = arguments
                .digests
                .iter()
                .any(|expected| expected.name == source.name);
            fetched.extend(runtime.block_on(fetch(source, folder, has_digest, patience))?);
        }
        check(&fetched, &arguments.digests)?;
        match &arguments.report {
            Some(path) => write_json(path, &fetched),
            None => Ok(()),
        }
    })
}

/// The places with the names that they get, which are all different.
async fn sources(uris: &[String]) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    for text in uris {
        if text.starts_with("http://") || text.starts_with("https://") {
            sources.push(Source::of_http(text)?);
            continue;
        }
        for uri in pattern::places(text).await? {
            sources.push(Source::of_store(uri)?);
        }
    }
    check_names(&sources)?;
    Ok(sources)
}

/// Refuses names that two sources would have.
fn check_names(sources: &[Source]) -> Result<(), Error> {
    let mut names = BTreeSet::new();
    for source in sources {
        if !names.insert(&source.name) {
            return Err(refused(
                &source.shown,
                format!(
                    "another one would be called `{}`, too: fetch them one by one",
                    source.name
                ),
                ExitCode::BadConfiguration,
            ));
        }
    }
    Ok(())
}

impl Source {
    fn of_store(uri: Uri) -> Result<Self, Error> {
        // Not the last part of what is shown, in which a file's name is encoded.
        let name = match uri.name() {
            "" => uri.bucket().unwrap_or_default(),
            name => name,
        };
        let name = name.to_owned();
        Self::named(uri.to_string(), name, Place::Stored(uri))
    }

    fn of_http(text: &str) -> Result<Self, Error> {
        let shown = shown(text);
        let url: Url = text.parse().map_err(|error| {
            refused(
                &shown,
                format!("it is no URL ({error})"),
                ExitCode::BadConfiguration,
            )
        })?;
        let name = url
            .path_segments()
            .and_then(Iterator::last)
            .unwrap_or_default();
        let name = name.to_owned();
        Self::named(shown, name, Place::Http(url))
    }

    fn named(shown: String, name: String, place: Place) -> Result<Self, Error> {
        if matches!(name.as_str(), "" | "." | "..") {
            let reason = "it does not end with the name of a file".to_owned();
            return Err(refused(&shown, reason, ExitCode::BadConfiguration));
        }
        Ok(Self { shown, name, place })
    }
}

/// A URL without what may be secret: credentials, and the query, which signed URLs have theirs in.
fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    without_credentials(plain)
}

async fn fetch(
    source: &Source,
    folder: &Path,
    has_digest: bool,
    patience: std::time::Duration,
) -> Result<Vec<Fetched>, Error> {
    let to = folder.join(&source.name);
    match &source.place {
        Place::Http(url) => {
            let came = http::download(url, &source.shown, &to, has_digest, patience).await?;
            Ok(vec![Fetched {
                uri: source.shown.clone(),
                name: source.name.clone(),
                bytes: came.bytes,
                sha256: came.sha256,
                etag: came.etag,
            }])
        }
        Place::Stored(uri) => {
            let staged = stage(uri, &to, &Progress::none(), &CancellationToken::new()).await?;
            Ok(staged_files(source, staged, to.is_file()))
        }
    }
}

fn staged_files(source: &Source, staged: Staged, is_file: bool) -> Vec<Fetched> {
    let file = |object: mlwm_spec::manifest::ObjectRecord| Fetched {
        uri: source.shown.clone(),
        name: match is_file {
            true => source.name.clone(),
            false => format!("{}/{}", source.name, object.path),
        },
        bytes: object.size,
        sha256: object.sha256,
        etag: None,
    };
    staged.objects.into_iter().map(file).collect()
}

/// Compares what came with what is expected.
fn check(fetched: &[Fetched], expected: &[ExpectedDigest]) -> Result<(), Error> {
    for ExpectedDigest { name, digest } in expected {
        match fetched.iter().find(|file| file.name == *name) {
            None => {
                let reason = "nothing of this name came".to_owned();
                return Err(refused(name, reason, ExitCode::InputMissing));
            }
            Some(file) if file.sha256 != *digest => {
                return Err(refused(
                    &file.uri,
                    format!(
                        "its SHA-256 is {}, but should be {digest}: it is damaged, or another version",
                        file.sha256
                    ),
                    ExitCode::InputCorrupt,
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn refused(uri: &str, reason: String, code: ExitCode) -> Error {
    Error::Fetch {
        uri: uri.to_owned(),
        reason,
        code,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sources_of(uris: &[&str]) -> Result<Vec<Source>, Error> {
        let uris: Vec<String> = uris.iter().map(|uri| (*uri).to_owned()).collect();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.build().unwrap().block_on(sources(&uris))
    }

    #[test]
    fn sources_have_different_names_and_no_secrets() {
        let found = sources_of(&[
            "https://me:word@host/a/b.grib?token=1",
            "s3://bucket/c",
            "s3://bucket",
            "/data/a b.grib",
        ]);
        let found = found.unwrap();
        let names: Vec<&str> = found.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["b.grib", "c", "bucket", "a b.grib"]);
        assert_eq!(found[0].shown, "https://…@host/a/b.grib");
        for wrong in [
            &["http://a/x", "http://b/x"][..],
            &["http://a/"],
            &["file:///"],
        ] {
            assert!(sources_of(wrong).is_err(), "{wrong:?}");
        }
    }
}
