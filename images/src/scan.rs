//! A search for secrets in an image before it is pushed: what is in a layer stays in it for everyone
//! who can pull it, even if a later layer removes it.
//!
//! The search knows the forms that secrets commonly have (`tokens`), names that promise one and
//! values that look drawn at random (`assignments`, `names`, `values`). It cannot find them all: a
//! compressed file, a secret in a binary or a password that is a word in a program's source pass.

mod assignments;
mod known;
mod layers;
mod names;
mod tokens;
mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Cursor, Read};

use serde_json::Value;

use crate::labels;

pub use layers::scan_layers;

/// Bytes of a file that are searched: text files with settings are never longer.
const SEARCHED: u64 = 16 * 1024 * 1024;
/// Bytes of a file that say whether it is text.
const SAMPLE: u64 = 8 * 1024;
/// Bytes of a line that are searched at once, and how many of them are seen again with the next.
const LINE: u64 = 64 * 1024;
const OVERLAP: usize = 1024;

/// Something that looks like a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where: `environment NAME`, `label NAME`, `history 3` and `file /path line 4`, counted from 1,
    /// `entrypoint`, `cmd`, `healthcheck`, `onbuild`, `author` or `comment`.
    pub place: String,
    /// Which rule found it; never the secret itself.
    pub what: String,
}

/// Places whose findings were looked at and are no secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed(Vec<String>);

impl Allowed {
    /// Each is a place as a finding names it, or the beginning of places with a `*` behind it.
    pub fn new(places: Vec<String>) -> Self {
        Self(places)
    }

    /// The places as they were given, to be recorded.
    pub fn places(&self) -> &[String] {
        &self.0
    }

    fn has(&self, place: &str) -> bool {
        self.0
            .iter()
            .any(|allowed| match allowed.strip_suffix('*') {
                Some(beginning) => place.starts_with(beginning),
                None => place == allowed,
            })
    }
}

/// The findings that forbid a push, and those that are allowed.
pub fn refused(findings: Vec<Finding>, allowed: &Allowed) -> (Vec<Finding>, Vec<Finding>) {
    findings
        .into_iter()
        .partition(|finding| !allowed.has(&finding.place))
}

/// What a text is, which decides how much a name such as `token` in it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Of an image's config: a value of such a name is a secret.
    Config,
    /// A file with settings: the same, if the value is one word.
    Settings,
    /// A program's source or prose, in which much is called a token or password: only a quoted value
    /// that is no word.
    Source,
    /// Of what packages install, which is public and full of examples: only the forms of tokens and
    /// private keys.
    Package,
}

/// What a text has in it: the names of the rules.
fn search(text: &str, kind: Kind) -> BTreeSet<&'static str> {
    let mut found = tokens::search(text);
    if kind == Kind::Package {
        found.remove(tokens::PASSWORD_IN_URL);
        return found;
    }
    found.extend(assignments::search(text, kind));
    // A document within a string, such as JSON in a label.
    if text.contains("\\\"") {
        found.extend(assignments::search(&text.replace("\\\"", "\""), kind));
    }
    found
}

/// Searches the config of an image (the OCI document): environment, labels, history and commands.
pub(crate) fn scan_config(document: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |place: &str, text: &str| {
        let found: BTreeSet<_> = text
            .lines()
            .flat_map(|line| search(line, Kind::Config))
            .collect();
        findings.extend(found.into_iter().map(|what| finding(place, what)));
    };
    let config = &document["config"];
    for variable in strings(&config["Env"]) {
        let name = variable.split('=').next().unwrap_or_default();
        add(&format!("environment {name}"), variable);
    }
    for (name, value) in config["Labels"].as_object().into_iter().flatten() {
        let mut text = format!("{name}={}", value.as_str().unwrap_or_default());
        if name == labels::BASE_NAME {
            // The tag of an image is no value of its name.
            text = text.replace(':', " ");
        }
        add(&format!("label {name}"), &text);
    }
    let history = document["history"].as_array();
    for (step, number) in history.into_iter().flatten().zip(1..) {
        for key in ["created_by", "comment", "author"] {
            let text = step[key].as_str().unwrap_or_default();
            add(&format!("history {number}"), text);
        }
    }
    let commands = [
        ("entrypoint", &config["Entrypoint"]),
        ("cmd", &config["Cmd"]),
        ("healthcheck", &config["Healthcheck"]["Test"]),
        ("onbuild", &config["OnBuild"]),
    ];
    for (place, words) in commands {
        add(place, &strings(words).collect::<Vec<_>>().join(" "));
    }
    for place in ["author", "comment"] {
        add(place, document[place].as_str().unwrap_or_default());
    }
    findings.sort();
    findings.dedup();
    findings
}

/// Searches a file. Only its first 16 MiB are read, and none of it is searched if its beginning is
/// no text: has a zero byte or is not UTF-8.
pub(crate) fn scan_file(path: &str, reader: &mut dyn Read) -> io::Result<Vec<Finding>> {
    let mut sample = Vec::new();
    reader.take(SAMPLE).read_to_end(&mut sample)?;
    if !is_text(&sample) {
        return Ok(Vec::new());
    }
    let kind = kind(path, &sample);
    let rest = reader.take(SEARCHED - sample.len() as u64);
    let mut reader = BufReader::new(Cursor::new(sample).chain(rest));
    let mut findings = BTreeSet::new();
    let mut line = Vec::new();
    let mut number = 1;
    loop {
        let read = (&mut reader)
            .take(LINE - line.len() as u64)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let found = search(&String::from_utf8_lossy(&line), kind);
        let place = format!("file {path} line {number}");
        findings.extend(found.into_iter().map(|what| finding(&place, what)));
        if line.ends_with(b"\n") {
            number += 1;
            line.clear();
        } else {
            line.drain(..line.len().saturating_sub(OVERLAP));
        }
    }
    Ok(findings.into_iter().collect())
}

fn finding(place: &str, what: &str) -> Finding {
    Finding {
        place: place.to_owned(),
        what: what.to_owned(),
    }
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn is_text(sample: &[u8]) -> bool {
    let utf8 = match std::str::from_utf8(sample) {
        Ok(_) => true,
        // The sample may end within a character.
        Err(error) => error.error_len().is_none(),
    };
    utf8 && !sample.contains(&0)
}

/// What a file is, by where it lies, the end of its name or its first line.
fn kind(path: &str, sample: &[u8]) -> Kind {
    const SOURCE: &[&str] = &[
        "c", "cc", "cpp", "css", "csv", "cu", "cuh", "f90", "go", "h", "hpp", "htm", "html",
        "ipynb", "java", "jl", "js", "lua", "map", "md", "mjs", "php", "pl", "pm", "po", "pod",
        "pxd", "py", "pyi", "pyx", "r", "rb", "rs", "rst", "svg", "tex", "ts", "txt",
    ];
    let installed = ["/site-packages/", "/dist-packages/"];
    if path.starts_with("/usr/share/") || installed.iter().any(|folder| path.contains(folder)) {
        return Kind::Package;
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let end = name.rsplit_once('.').map(|(_, end)| end.to_lowercase());
    let first = sample
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    let script = first.starts_with("#!") && ["python", "perl"].iter().any(|p| first.contains(p));
    match end {
        Some(end) if SOURCE.contains(&end.as_str()) => Kind::Source,
        _ if script => Kind::Source,
        // Python's packages have their description in these.
        _ if ["METADATA", "PKG-INFO", "README", "LICENSE"].contains(&name) => Kind::Source,
        _ => Kind::Settings,
    }
}
