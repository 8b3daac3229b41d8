//! What the name of a value says of it.

/// What a name promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// A secret.
    Secret,
    /// A token, which in language models and parsers is a word or its number.
    Token,
    /// Something that a digest of it could be: `key`, `auth`, `salt`.
    Key,
    /// A digest, a version or another value that everyone may know.
    Harmless,
    /// Nothing.
    Nothing,
}

/// Words whose values are secrets, as the end of a word too: `PGPASSWORD`, `authtoken`.
const SECRETS: &[&str] = &[
    "secret",
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "credential",
    "credentials",
];

/// The same as two words.
const PAIRS: &[(&str, &str)] = &[("api", "key"), ("access", "key"), ("private", "key")];

/// Words behind which a value is about a secret and is none: `password_file`, `token_type`, or that
/// make it a digest.
const ABOUT: &[&str] = &[
    "arn", "class", "count", "digest", "enabled", "endpoint", "env", "expires", "expiry", "field",
    "file", "filename", "format", "hash", "header", "id", "ids", "index", "kind", "len", "length",
    "limit", "md5", "mode", "name", "param", "path", "policy", "prefix", "prompt", "provider",
    "regex", "required", "sha1", "sha256", "sha512", "size", "source", "suffix", "ttl", "type",
    "uri", "url", "var",
];

/// Words of digests and of identifiers, which look drawn at random and are public.
const DIGESTS: &[&str] = &[
    "blake2",
    "blake2b",
    "blake3",
    "checksum",
    "checksums",
    "commit",
    "crc32",
    "crc32c",
    "digest",
    "digests",
    "etag",
    "fingerprint",
    "guid",
    "h1",
    "hash",
    "hashes",
    "integrity",
    "md5",
    "nonce",
    "oid",
    "rev",
    "revision",
    "sha",
    "sha1",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "shasum",
    "signature",
    "uuid",
];

/// Variables of well-known base images (CUDA's, Python's) and of every system.
const KNOWN: &[&str] = &[
    "GPG_KEY",
    "GPG_KEYS",
    "PATH",
    "LD_LIBRARY_PATH",
    "PWD",
    "OLDPWD",
    "HOME",
];
const KNOWN_STARTS: &[&str] = &["NV_", "NVIDIA_", "NCCL_", "CUDA_", "CUDNN_"];

pub(super) fn promise(name: &str) -> Promise {
    if KNOWN.contains(&name) || KNOWN_STARTS.iter().any(|start| name.starts_with(start)) {
        return Promise::Harmless;
    }
    let words = words(name);
    let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    let last = words.last().map(String::as_str).unwrap_or_default();
    if ABOUT.contains(&last) || has(&["public", "pub"]) {
        return Promise::Harmless;
    }
    let ends = |end: &&str| words.iter().any(|word| word.ends_with(*end));
    let pair = |&(a, b): &(&str, &str)| words.windows(2).any(|w| w[0] == a && w[1] == b);
    if SECRETS.iter().any(ends) || PAIRS.iter().any(pair) {
        return Promise::Secret;
    }
    if ends(&"token") {
        return Promise::Token;
    }
    if has(DIGESTS) {
        return Promise::Harmless;
    }
    if has(&["gpg", "pgp", "cache"]) {
        return Promise::Nothing;
    }
    match has(&["key", "auth", "salt"]) {
        true => Promise::Key,
        false => Promise::Nothing,
    }
}

/// Whether it names what AWS calls a secret access key.
pub(super) fn is_aws_secret(name: &str) -> bool {
    let joined = words(name).concat();
    joined.contains("secretaccesskey")
        || joined.contains("secretkey")
        || joined.contains("awssecret")
}

/// The words of `SOME_NAME`, `some-name` and `someName` in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        let begins = before.is_lowercase() && c.is_uppercase();
        if (begins || !c.is_alphanumeric()) && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}
