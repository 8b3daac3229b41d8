//! What a value looks like.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What stands where a secret would be, in lower case.
const PLACEHOLDERS: &[&str] = &[
    "apikey",
    "auto",
    "basic",
    "bearer",
    "bool",
    "boolean",
    "changeit",
    "changeme",
    "default",
    "disabled",
    "dummy",
    "empty",
    "enabled",
    "example",
    "fake",
    "false",
    "file",
    "files",
    "foo",
    "int",
    "integer",
    "key",
    "needed",
    "nil",
    "no",
    "none",
    "null",
    "number",
    "object",
    "off",
    "on",
    "optional",
    "pass",
    // Of the example in OpenSSL's own configuration.
    "passinsta",
    "passwd",
    "password",
    "passphrase",
    "placeholder",
    "pwd",
    "pw",
    "redacted",
    "required",
    "secret",
    "str",
    "string",
    "test",
    "todo",
    "token",
    "true",
    "undefined",
    "unset",
    "yes",
];

/// Whether it is no secret but what stands for one: empty, a variable, a template, a path, a URL, a
/// boolean, or one of the words and fillers that documentation has.
pub(super) fn is_placeholder(value: &str) -> bool {
    let value = value.trim();
    let lower = value.to_lowercase();
    let word: String = lower.chars().filter(|c| c.is_alphanumeric()).collect();
    let starts = [
        "$", "%", "<", "[", "{", "(", "/", "./", "../", "~", "@", "&", "|", ">", "\\",
    ];
    let templates = [
        "${", "{{", "$(", "%s", "...", "…", "://", "your-", "your_", "my-", "my_",
    ];
    let same = |c: char| "x*.-_?#0".contains(c);
    let variable = value.contains('_') && value.chars().all(|c| c == '_' || c.is_ascii_uppercase());
    let drive = value.as_bytes().get(1..3).is_some_and(|at| at == b":\\");
    word.is_empty()
        || starts.iter().any(|start| value.starts_with(start))
        || templates.iter().any(|part| lower.contains(part))
        || lower.chars().all(same)
        || PLACEHOLDERS.contains(&word.as_str())
        || ["changeme", "placeholder", "example", "xxxx"]
            .iter()
            .any(|part| word.contains(part))
        || drive
        || variable
}

/// Bits of a character, by how often each is in the text (Shannon).
pub(super) fn entropy(text: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in text {
        counts[usize::from(*byte)] += 1;
    }
    let total = text.len() as f64;
    let shares = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / total);
    -shares.map(|share| share * share.log2()).sum::<f64>()
}

/// Whether it looks drawn at random, in hexadecimal digits or in base64.
///
/// `key` says that its name promises a key: then it may have the length of a digest too. Under any
/// other name 32, 40, 48, 56, 64, 96 or 128 hexadecimal digits are a digest, far more often than not.
/// Longer than 128 is no key but data, such as a model in base64.
pub(super) fn is_random(value: &str, key: bool) -> bool {
    if !(32..=128).contains(&value.len()) || value.starts_with("sha") || is_uuid(value) {
        return false;
    }
    let bytes = value.as_bytes();
    let has = |class: fn(&u8) -> bool| bytes.iter().any(class);
    let digits = has(u8::is_ascii_digit);
    if bytes.iter().all(u8::is_ascii_hexdigit) {
        let digest = [32, 40, 48, 56, 64, 96, 128].contains(&bytes.len());
        return digits && has(u8::is_ascii_alphabetic) && entropy(bytes) > 3.0 && (key || !digest);
    }
    let bytes = value.trim_end_matches('=').as_bytes();
    let base64 = bytes
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || b"+/-_".contains(b));
    let alphabet = ["abcdefgh", "ABCDEFGH"]
        .iter()
        .any(|part| value.contains(part));
    let mixed = digits && has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    base64 && mixed && !alphabet && entropy(bytes) > 4.2 && !is_made_of_words(bytes)
}

/// Whether it is many pieces, or one in which letters of one case follow each other as in words:
/// in random text more than half of all neighbours are of different classes.
fn is_made_of_words(text: &[u8]) -> bool {
    let pieces = text.split(|b| !b.is_ascii_alphanumeric());
    let longest = pieces.max_by_key(|piece| piece.len()).unwrap_or_default();
    let class = |b: u8| (b.is_ascii_digit(), b.is_ascii_uppercase());
    let changes = longest
        .windows(2)
        .filter(|two| class(two[0]) != class(two[1]))
        .count();
    longest.len() < 12 || changes * 5 < longest.len() * 2
}

fn is_uuid(value: &str) -> bool {
    let lengths: Vec<usize> = value.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12]
}

/// Whether it is the secret of an AWS access key: 40 characters of base64, not a commit's digest.
pub(super) fn is_aws_secret(value: &str) -> bool {
    value.len() == 40
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b))
        && !value.bytes().all(|b| b.is_ascii_hexdigit())
        && entropy(value.as_bytes()) > 3.5
        && !value.to_lowercase().contains("example")
}

/// Whether it is what Docker's config has of a registry: `user:password` in base64.
pub(super) fn is_docker_auth(value: &str) -> bool {
    let Ok(plain) = STANDARD.decode(value) else {
        return false;
    };
    let plain = String::from_utf8(plain).unwrap_or_default();
    let printable = plain.chars().all(|c| !c.is_control());
    let password = plain.split_once(':').map(|(_, password)| password);
    printable && password.is_some_and(|password| !is_placeholder(password))
}
