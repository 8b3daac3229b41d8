//! What it means that a local file could not be used: the same words, and the same exit code,
//! whichever part of mlwm met it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::ExitCode;

/// What is done to a file that is written. All else is reading.
const WRITING: [&str; 10] = [
    "create",
    "create a file in",
    "create the folder",
    "lock",
    "note the use of",
    "remove",
    "rename to",
    "synchronise the folder",
    "unpack to",
    "write",
];

/// What hidden names hold of files and folders that mlwm only works with, and nobody asked for.
const WORKING: [&str; 4] = [".mlwm-", ".building", ".extracting", ".writing-"];

/// A local file or folder that could not be used: one sentence that says what to do.
#[derive(Clone, Copy, Debug)]
pub struct LocalFailure<'a> {
    /// What was tried: "open", "write".
    pub action: &'a str,
    /// The file or folder.
    pub path: &'a Path,
    /// What the operating system said.
    pub source: &'a io::Error,
}

impl LocalFailure<'_> {
    /// The exit code of a command that ends with it.
    pub fn exit_code(&self) -> ExitCode {
        match self.source.kind() {
            ErrorKind::NotFound if !self.writes() => ExitCode::InputMissing,
            // Nothing that the operating system said.
            ErrorKind::Other | ErrorKind::InvalidData | ErrorKind::UnexpectedEof
                if self.source.raw_os_error().is_none() =>
            {
                ExitCode::Failed
            }
            _ => ExitCode::StorageFailed,
        }
    }

    fn writes(&self) -> bool {
        WRITING.contains(&self.action) || visible(self.path) != self.path
    }
}

impl fmt::Display for LocalFailure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            action,
            path,
            source,
        } = self;
        let folder = match *action {
            "create a file in" | "synchronise the folder" => path,
            _ => folder_of(path),
        };
        let (shown, folder) = (path.display(), folder.display());
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => write!(
                f,
                "the disk that holds {folder} is full: make room, then run the same command again"
            ),
            ErrorKind::ReadOnlyFilesystem => {
                write!(f, "{folder} can only be read: choose another folder")
            }
            ErrorKind::PermissionDenied if self.writes() => write!(
                f,
                "there is no permission to write to the folder {folder}: ask for it, or choose another folder"
            ),
            ErrorKind::PermissionDenied => {
                write!(f, "there is no permission to {action} {shown}: ask for it")
            }
            ErrorKind::NotFound if !self.writes() => {
                write!(
                    f,
                    "cannot {action} {shown}: it is not there; check the path"
                )
            }
            _ => write!(f, "cannot {action} {shown}: {source}"),
        }
    }
}

/// A path, or the folder in which mlwm works with it if nobody knows its name.
pub fn visible(path: &Path) -> &Path {
    match path.ancestors().filter(|part| is_working(part)).last() {
        Some(working) => parent(working),
        None => path,
    }
}

/// The folder that somebody named, of a file that is to lie in it or that mlwm works with there.
fn folder_of(path: &Path) -> &Path {
    match visible(path) {
        there if there == path => parent(path),
        folder => folder,
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Whether the last part of a path is a name that mlwm made up.
fn is_working(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with('.') && WORKING.iter().any(|mark| name.contains(mark)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(action: &str, path: &str, kind: ErrorKind) -> (String, ExitCode) {
        let (path, source) = (Path::new(path), io::Error::from(kind));
        let failure = LocalFailure {
            action,
            path,
            source: &source,
        };
        (failure.to_string(), failure.exit_code())
    }

    #[test]
    fn folders_are_named_and_not_what_mlwm_works_with_in_them() {
        for (path, folder) in [
            ("/ro/..m.zip.f0245.mlwm-fetched.9a.mlwm-part", "/ro"),
            ("/ro/.m.zip.9a.mlwm-upload", "/ro"),
            ("out/.m.zip.building/zip", "out"),
            (".m.extracting/files/stats/a", "."),
            ("out/.writing-x1", "out"),
            ("out/.b.tar.mlwm-writing.lock", "out"),
            ("out/m.zip", "out"),
            ("m.zip", "."),
            ("/", "/"),
            ("/home/.cache/m.zip", "/home/.cache"),
        ] {
            assert_eq!(folder_of(Path::new(path)), Path::new(folder), "{path}");
        }
        let (said, code) = failure("create", "/ro/.m.1.mlwm-part", ErrorKind::PermissionDenied);
        assert!(said.contains("write to the folder /ro:"), "{said}");
        assert_eq!(code, ExitCode::StorageFailed);
        let (said, code) = failure("write", "/d/.m.building/zip", ErrorKind::StorageFull);
        assert!(said.contains("holds /d is full: make room"), "{said}");
        assert_eq!(code, ExitCode::StorageFailed);
    }

    #[test]
    fn what_is_not_there_is_missing_where_it_is_read() {
        let (said, code) = failure("open", "m.zip", ErrorKind::NotFound);
        assert!(said.contains("m.zip: it is not there"), "{said}");
        assert_eq!(code, ExitCode::InputMissing);
        let (_, code) = failure("rename to", "m.zip", ErrorKind::NotFound);
        assert_eq!(code, ExitCode::StorageFailed);
        let (_, code) = failure("hash", "m.zip", ErrorKind::Other);
        assert_eq!(code, ExitCode::Failed);
    }
}
