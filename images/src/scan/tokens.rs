//! Secrets that are known by their form, whatever they are called.

use std::collections::BTreeSet;

use super::values::{entropy, is_placeholder};

/// A kind of token: services give theirs a beginning so that they can be found where they leak.
struct Token {
    start: &'static str,
    /// What may follow besides letters and digits.
    also: &'static str,
    /// How many such characters follow at least and at most.
    length: (usize, usize),
    what: &'static str,
}

const fn token(
    start: &'static str,
    also: &'static str,
    length: (usize, usize),
    what: &'static str,
) -> Token {
    Token {
        start,
        also,
        length,
        what,
    }
}

const ANY: usize = 4096;
const AWS: &str = "an AWS access key id";
const GITHUB: &str = "a GitHub token";
const GITLAB: &str = "a GitLab token";
const SLACK: &str = "a Slack token";
const GOOGLE: &str = "a Google key or token";
pub(super) const PASSWORD_IN_URL: &str = "a password in a URL";
const PROVIDER: &str = "a token of a service";

/// The beginnings, as the services document them.
const TOKENS: &[Token] = &[
    // An access key id is public by itself, but lies beside its secret, and says whose it is.
    token("AKIA", "", (16, 16), AWS),
    token("ASIA", "", (16, 16), AWS),
    token("ghp_", "", (36, ANY), GITHUB),
    token("gho_", "", (36, ANY), GITHUB),
    token("ghu_", "", (36, ANY), GITHUB),
    token("ghs_", "", (36, ANY), GITHUB),
    token("ghr_", "", (36, ANY), GITHUB),
    token("github_pat_", "_", (22, ANY), GITHUB),
    token("glpat-", "-_.", (20, ANY), GITLAB),
    token("gldt-", "-_", (20, ANY), GITLAB),
    token("glrt-", "-_.", (20, ANY), GITLAB),
    token("glcbt-", "-_", (20, ANY), GITLAB),
    token("hf_", "", (30, 60), "a Hugging Face token"),
    token("xoxa-", "-", (10, ANY), SLACK),
    token("xoxb-", "-", (10, ANY), SLACK),
    token("xoxp-", "-", (10, ANY), SLACK),
    token("xoxr-", "-", (10, ANY), SLACK),
    token("xoxs-", "-", (10, ANY), SLACK),
    token("xapp-", "-", (10, ANY), SLACK),
    token("AIza", "-_", (35, 35), GOOGLE),
    token("ya29.", "-_", (20, ANY), GOOGLE),
    token("GOCSPX-", "-_", (20, ANY), GOOGLE),
    token("dckr_pat_", "-_", (20, ANY), "a Docker Hub token"),
    token("npm_", "", (36, 36), PROVIDER),
    token("pypi-", "-_", (64, ANY), PROVIDER),
    token("sk-ant-", "-_", (20, ANY), PROVIDER),
    token("sk-proj-", "-_", (20, ANY), PROVIDER),
    token("sk_live_", "", (20, ANY), PROVIDER),
    token("AGE-SECRET-KEY-1", "", (50, ANY), "a private key of age"),
];

/// What a line has in it of such forms.
pub(super) fn search(text: &str) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        // A token does not begin within a word, or within base64.
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let inside = before.is_some_and(|b| b.is_ascii_alphanumeric() || b"_+/".contains(&b));
        if inside || !byte.is_ascii_alphabetic() {
            continue;
        }
        let rest = &bytes[at..];
        let tokens = TOKENS.iter().filter(|token| is_token(token, rest));
        found.extend(tokens.map(|token| token.what));
        if rest.starts_with(b"eyJ") && is_web_token(rest) {
            found.insert("a JSON web token");
        }
    }
    if has_private_key(text) {
        found.insert("a private key");
    }
    if has_password_in_url(text) {
        found.insert(PASSWORD_IN_URL);
    }
    found
}

fn is_token(token: &Token, text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(token.start.as_bytes()) else {
        return false;
    };
    let secret = run(rest, token.also);
    let (least, most) = token.length;
    let next = rest.get(secret.len());
    // Documentation has such as AKIA…EXAMPLE and ghp_xxxx….
    (least..=most).contains(&secret.len())
        && next.is_none_or(|b| *b != b'_')
        && !secret
            .windows(7)
            .any(|part| part.eq_ignore_ascii_case(b"example"))
        && (secret.iter().any(u8::is_ascii_digit) || token.start == "hf_")
        && entropy(secret) > 2.5
}

/// Three parts in base64, of which the first two are JSON: the second may be anything.
fn is_web_token(text: &[u8]) -> bool {
    let head = run(text, "-_");
    let Some(rest) = text[head.len()..].strip_prefix(b".") else {
        return false;
    };
    let body = run(rest, "-_");
    let Some(rest) = rest[body.len()..].strip_prefix(b".") else {
        return false;
    };
    let signature = run(rest, "-_");
    head.len() >= 16 && body.starts_with(b"eyJ") && signature.len() >= 20
}

fn run<'t>(text: &'t [u8], also: &str) -> &'t [u8] {
    let end = text
        .iter()
        .position(|b| !(b.is_ascii_alphanumeric() || also.as_bytes().contains(b)));
    &text[..end.unwrap_or(text.len())]
}

/// The first line of a private key: PEM (RSA, EC, OpenSSH, PGP), PuTTY or minisign.
///
/// A program that reads keys has that line in quotes with nothing behind it: that is none.
fn has_private_key(text: &str) -> bool {
    if text.starts_with("PuTTY-User-Key-File-") {
        return true;
    }
    // Signatures say `untrusted comment: signature from … secret key`.
    if let Some(comment) = text.strip_prefix("untrusted comment: ")
        && comment.contains("secret key")
        && !comment.contains("signature")
    {
        return true;
    }
    let starts = text.match_indices("-----BEGIN ");
    starts.into_iter().any(|(at, begin)| {
        let Some((kind, rest)) = text[at + begin.len()..].split_once("-----") else {
            return false;
        };
        let private = kind.ends_with("PRIVATE KEY") || kind == "PGP PRIVATE KEY BLOCK";
        let rest = rest.trim_end();
        let breaks = ["\\\\n", "\\n", "\\r\\n", " "];
        let body = breaks.iter().find_map(|end| rest.strip_prefix(end));
        private
            && (rest.is_empty() || body.is_some_and(|body| run(body.as_bytes(), "+/").len() >= 16))
    })
}

/// `scheme://user:password@host`.
fn has_password_in_url(text: &str) -> bool {
    text.match_indices("://").any(|(at, mark)| {
        let rest = &text[at + mark.len()..];
        let ends = |c: char| "/?#\"'`,;".contains(c) || c.is_whitespace();
        let host = rest.split(ends).next().unwrap_or_default();
        let password = host
            .rsplit_once('@')
            .and_then(|(user, _)| user.split_once(':'));
        // A pattern or a template has brackets.
        password.is_some_and(|(user, password)| {
            !password.contains(|c| "<>{}[]()^|\\".contains(c))
                && password != user
                && !is_placeholder(password)
        })
    })
}
