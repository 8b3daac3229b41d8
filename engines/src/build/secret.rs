//! What a build may read and an image must never hold.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::error::Error;

/// BuildKit takes no larger ones.
const LARGEST: usize = 500 * 1024;
/// A part of a secret that is shorter is in every log.
const SHORTEST_PART: usize = 6;

/// A secret for `RUN --mount=type=secret,id=…`. What it prints as does not hold its value.
#[derive(Clone, PartialEq, Eq)]
pub struct BuildSecret {
    id: String,
    value: Vec<u8>,
}

impl fmt::Debug for BuildSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildSecret")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl BuildSecret {
    /// A secret with this identifier and value, up to 500 KiB.
    pub fn new(id: &str, value: Vec<u8>) -> Result<Self, Error> {
        let refused = |reason: &str| Error::Secret {
            given: id.to_owned(),
            reason: reason.to_owned(),
        };
        let known = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if id.is_empty() || !id.chars().all(known) {
            return Err(refused(
                "its identifier is not of letters, digits, `_`, `.` and `-`",
            ));
        }
        if value.len() > LARGEST {
            return Err(refused("it is larger than 500 KiB"));
        }
        Ok(Self {
            id: id.to_owned(),
            value,
        })
    }

    /// Reads what `id=NAME,src=FILE` or `id=NAME,env=VARIABLE` names.
    pub fn read(given: &str) -> Result<Self, Error> {
        let refused = |reason: String| Error::Secret {
            given: given.to_owned(),
            reason,
        };
        let (mut id, mut value) = (None, None);
        for part in given.split(',') {
            match part.split_once('=') {
                Some(("id", name)) => id = Some(name),
                Some(("src" | "source", path)) => {
                    let read = fs::read(Path::new(path));
                    value = Some(
                        read.map_err(|error| refused(format!("cannot read {path}: {error}")))?,
                    );
                }
                Some(("env", name)) => {
                    let found = std::env::var_os(name);
                    let found = found.ok_or_else(|| refused(format!("{name} is not set")))?;
                    value = Some(found.into_encoded_bytes());
                }
                Some(("type", "file" | "env")) => {}
                // What is there may be the value itself, which is not repeated.
                _ => {
                    return Err(Error::Secret {
                        given: "…".to_owned(),
                        reason: FORM.to_owned(),
                    });
                }
            }
        }
        match (id, value) {
            (Some(id), Some(value)) => Self::new(id, value),
            _ => Err(refused(FORM.to_owned())),
        }
    }

    /// What `RUN --mount=type=secret,id=…` calls it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its value: never to be shown.
    pub fn value(&self) -> &[u8] {
        &self.value
    }
}

const FORM: &str = "write id=NAME,src=FILE or id=NAME,env=VARIABLE";

/// Takes the values of secrets out of what a builder or a container prints, line by line as they may come.
pub struct Redaction(Vec<String>);

impl Redaction {
    /// Of these values; lines of fewer than 6 characters stay, since they would be found in any text.
    pub fn of<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut parts = Vec::new();
        for value in values {
            let text = String::from_utf8_lossy(value);
            let lines = text.lines().map(str::trim);
            let lines = lines.filter(|line| line.len() >= SHORTEST_PART);
            parts.extend(lines.map(str::to_owned));
        }
        // One may begin with another.
        parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
        Self(parts)
    }

    /// The text with `mark` in the place of each.
    pub fn apply(&self, text: &str, mark: &str) -> String {
        let redact = |text: String, part: &String| text.replace(part.as_str(), mark);
        self.0.iter().fold(text.to_owned(), redact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_from_files_and_variables() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "hunter2\n").unwrap();
        let secret = BuildSecret::read(&format!("id=token,src={}", file.display())).unwrap();
        assert_eq!((secret.id(), secret.value()), ("token", &b"hunter2\n"[..]));
        assert!(!format!("{secret:?}").contains("hunter2"));
        let home = std::env::var("HOME").unwrap();
        let secret = BuildSecret::read("type=env,id=home,env=HOME").unwrap();
        assert_eq!(secret.value(), home.as_bytes());
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_repeated() {
        for (given, why) in [
            ("id=a,src=/no/such/file", "/no/such/file"),
            ("id=a,env=MLWM_TEST_NOT_SET", "not set"),
            ("id=a", "src=FILE"),
            ("id=a b,env=HOME", "letters"),
            ("src=/etc/hostname", "id=NAME"),
        ] {
            let error = BuildSecret::read(given).unwrap_err().to_string();
            assert!(error.contains(why), "{given}: {error}");
        }
        for given in ["hunter2", "id=a,value=hunter2", "hunter2=a"] {
            let error = BuildSecret::read(given).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let large = BuildSecret::new("a", vec![0; LARGEST + 1]);
        assert!(large.unwrap_err().to_string().contains("500 KiB"));
    }

    #[test]
    fn values_are_taken_out_of_logs() {
        let secret = |value: &str| BuildSecret::new("a", value.into()).unwrap();
        let secrets = ["hunter2", "hunter2-and-more\nsecond line\n", "ab"].map(secret);
        let redaction = Redaction::of(secrets.iter().map(BuildSecret::value));
        let said = redaction.apply("about: hunter2, hunter2-and-more; second line!", "***");
        assert_eq!(said, "about: ***, ***; ***!");
    }
}
