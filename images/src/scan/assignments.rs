//! Values that are assigned to a name: `NAME=value`, `name: value`, `"name": "value"`, `--name value`.

use std::collections::BTreeSet;

use super::Kind;
use super::names::{self, Promise, promise};
use super::values::{is_aws_secret, is_docker_auth, is_placeholder, is_random};

/// A name and what it is given.
struct Assignment<'t> {
    name: &'t str,
    value: &'t str,
    /// Whether the value is in quotes.
    quoted: bool,
    /// Whether more words follow that belong to it, as in prose.
    more: bool,
}

/// What a line has in it of assignments of secrets.
pub(super) fn search(text: &str, kind: Kind) -> BTreeSet<&'static str> {
    let mut assignments = assignments(text);
    if kind == Kind::Config {
        assignments.extend(options(text));
    }
    let found = assignments
        .iter()
        .filter_map(|assignment| judge(assignment, kind));
    found.collect()
}

fn judge(assignment: &Assignment<'_>, kind: Kind) -> Option<&'static str> {
    let &Assignment {
        name,
        value,
        quoted,
        more,
    } = assignment;
    if kind == Kind::Source && !quoted {
        return None;
    }
    let promise = promise(name);
    if names::is_aws_secret(name) && is_aws_secret(value) {
        return Some("an AWS secret access key");
    }
    if name == "auth" && is_docker_auth(value) {
        return Some("a registry's password as Docker's config has it");
    }
    let promised = matches!(promise, Promise::Secret | Promise::Token);
    if promised && !more && is_secret(name, value, kind, promise) {
        return Some("a value of a name that says it is a secret");
    }
    // Digests and versions of base images are not searched for what looks drawn at random.
    if promise != Promise::Harmless && is_random(value, promise != Promise::Nothing) {
        return Some("a value that looks drawn at random, as keys are");
    }
    None
}

/// Whether the value of a name that promises a secret is one.
fn is_secret(name: &str, value: &str, kind: Kind, promise: Promise) -> bool {
    if is_placeholder(value) || value.eq_ignore_ascii_case(name) {
        return false;
    }
    // The number of a word in a vocabulary, or how many there are.
    let number = value.parse::<f64>().is_ok();
    // A word of a vocabulary, or the name of another field: drawn tokens have digits.
    let word = value.chars().all(|c| c.is_alphabetic() || c == '_');
    if promise == Promise::Token && word && kind != Kind::Config {
        return false;
    }
    if number && (promise == Promise::Token || value.len() < 4) {
        return false;
    }
    let has = |class: fn(char) -> bool| value.contains(class);
    let spaces = has(char::is_whitespace);
    match kind {
        Kind::Config => true,
        Kind::Settings => !spaces && value.len() >= 4 && !value.contains(['(', '$']),
        Kind::Source => {
            let mixed = has(|c| c.is_ascii_digit()) && has(|c| c.is_ascii_alphabetic());
            !spaces && mixed && value.len() >= 8 && !value.contains(['(', '{', '%', '\\'])
        }
        Kind::Package => false,
    }
}

/// Every `name = value` and `name: value` of a line.
fn assignments(text: &str) -> Vec<Assignment<'_>> {
    let bytes = text.as_bytes();
    let separators = text.match_indices(['=', ':']);
    separators
        .filter_map(|(at, separator)| {
            let next = bytes.get(at + 1).copied().unwrap_or(b' ');
            let before = at.checked_sub(1).map_or(b' ', |before| bytes[before]);
            // `==`, `!=`, `<=`, `::` and `://` assign nothing.
            let two = b"=:".contains(&before) && before != b':' || b"!<>".contains(&before);
            if next == b'=' && separator == "=" || two || text[at..].starts_with("://") {
                return None;
            }
            if separator == ":" && (next == b':' || next == b'=') {
                return None;
            }
            let name = name_before(text[..at].trim_end_matches(':'))?;
            value_behind(name, &text[at + 1..], separator == ":")
        })
        .collect()
}

/// The name that a text ends with, without quotes and the type of a declaration (`name: str`).
fn name_before(text: &str) -> Option<&str> {
    let text = text.trim_end();
    let text = text.trim_end_matches(['"', '\'', '`', ']', '\\']);
    let name = last_name(text);
    // `Some::Password` is a type.
    if text[..text.len() - name.len()].ends_with("::") {
        return None;
    }
    let declared = text[..text.len() - name.len()].trim_end_matches(['&', ' ']);
    let declared = declared.strip_suffix(':').map(last_name);
    let name = declared.filter(|name| !name.is_empty()).unwrap_or(name);
    let name = name.trim_start_matches(['-', '.']);
    (!name.is_empty()).then_some(name)
}

fn last_name(text: &str) -> &str {
    let part = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let start = text.rfind(|c| !part(c)).map(|at| {
        let width = text[at..].chars().next().map_or(1, char::len_utf8);
        at + width
    });
    &text[start.unwrap_or(0)..]
}

/// The value that a text begins with; in YAML (`plain`) one without quotes goes to the line's end.
fn value_behind<'t>(name: &'t str, text: &'t str, plain: bool) -> Option<Assignment<'t>> {
    let text = text.strip_prefix('>').unwrap_or(text).trim_start();
    let prefixes = ["b", "r", "f", "u", "&"];
    let bare = prefixes.iter().find_map(|prefix| {
        let rest = text.strip_prefix(prefix)?;
        rest.starts_with(['"', '\'']).then_some(rest)
    });
    let text = bare.unwrap_or(text);
    let quote = text.chars().next().filter(|c| "\"'`".contains(*c));
    if let Some(quote) = quote {
        let inner = &text[1..];
        // A longer line may have been cut within the quotes.
        let value = &inner[..inner.find(quote).unwrap_or(inner.len())];
        return Some(Assignment {
            name,
            value: value.trim_end_matches('\\'),
            quoted: true,
            more: false,
        });
    }
    let ends = |c: char| c.is_whitespace() || ",;&\"'`)]}".contains(c);
    let value = &text[..text.find(ends).unwrap_or(text.len())];
    let rest = text[value.len()..].trim();
    let more = plain && rest.starts_with(|c: char| c.is_alphanumeric());
    (!value.is_empty()).then_some(Assignment {
        name,
        value,
        quoted: false,
        more,
    })
}

/// Every `--name value` of a command.
fn options(text: &str) -> Vec<Assignment<'_>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let pairs = words.windows(2).filter_map(|two| {
        let name = two[0].strip_prefix("--")?;
        let value = two[1].trim_matches(['"', '\'', ';', ',', ']', ')']);
        (!name.contains('=') && !value.starts_with('-')).then_some(Assignment {
            name,
            value,
            quoted: false,
            more: false,
        })
    });
    pairs.collect()
}
