//! Signatures of artifacts, in the format of minisign.
//!
//! minisign is one small command that is packaged everywhere: `minisign -Vm model.zip -p key.pub`
//! checks a signature on a machine without a network, and without mlwm. The signed content is
//! hashed as a stream (minisign's *prehashed* form), so that any size can be signed.

mod keys;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use minisign::SignatureBox;
use mlwm_spec::{Digest, LocalFailure};
use sha2::{Digest as _, Sha256};

pub use self::keys::{KeyFiles, PublicKey, SecretKey, generate};

/// Largest text of a signature that is read, in bytes. minisign's own limit is about the same.
const MAX_TEXT: usize = 20_000;
/// Length of the signature of signature and comment, 64 bytes in base64.
const GLOBAL_LENGTH: usize = 88;

/// Why something could not be signed, or a signature does not hold.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// A file that could not be read or written.
    #[error("{}", LocalFailure { action, path, source })]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A key is already there.
    #[error("{0} is already there and is not replaced: move it away or choose another name")]
    KeyExists(std::path::PathBuf),
    /// Not a public key.
    #[error(
        "`{0}` is not a minisign public key: give its file, or the line of 56 characters in it that starts with `RW`"
    )]
    PublicKey(String),
    /// Not a secret key.
    #[error("{path} is not a minisign secret key: {why}")]
    SecretKey {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// The password does not open the key.
    #[error("the password does not open the secret key {path}")]
    Password {
        /// The file of the key.
        path: std::path::PathBuf,
    },
    /// No password could be had.
    #[error(
        "could not get the password of the secret key: {0}; set MLWM_SIGNING_PASSWORD or use a terminal"
    )]
    NoPassword(io::Error),
    /// A key with a password that protects nothing.
    #[error("an empty password protects nothing: give one, or ask for a key without password")]
    EmptyPassword,
    /// The content could not be read.
    #[error("could not read what is signed: {0}")]
    Content(io::Error),
    /// The content is not what it was said to be.
    #[error("the content to be signed has digest {found}, expected is {expected}: it was changed")]
    OtherContent {
        /// What it was said to be.
        expected: Digest,
        /// What was read.
        found: Digest,
    },
    /// Not a signature.
    #[error("it is not a minisign signature: {0}")]
    Malformed(String),
    /// A signature of a kind that would need the whole content in memory.
    #[error("it is a signature of minisign's old kind: sign again without `-l`")]
    Legacy,
    /// Signed by somebody else.
    #[error("it is signed by key {signer}, which is not among the trusted keys ({trusted})")]
    UnknownKey {
        /// Who signed.
        signer: KeyId,
        /// Who may.
        trusted: String,
    },
    /// Two trusted keys with one id.
    #[error("two different trusted keys have the id {0}: remove the one that is not meant")]
    AmbiguousKey(KeyId),
    /// The content or the comment is not what was signed.
    #[error(
        "the signature of key {signer} does not hold: the content or the signature was changed"
    )]
    Bad {
        /// Who is said to have signed.
        signer: KeyId,
    },
    /// The trusted comment is about something else.
    #[error(
        "the signature of key {signer} holds, but its trusted comment is about {named} and the content is {found}"
    )]
    OtherDigest {
        /// Who signed.
        signer: KeyId,
        /// The digest in the comment.
        named: String,
        /// The digest of the content.
        found: Digest,
    },
    /// The library failed.
    #[error("could not {action}: {why}")]
    Library {
        /// What was tried.
        action: &'static str,
        /// What it said.
        why: String,
    },
}

/// The id of a key pair: 16 hexadecimal digits, as minisign prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u64);

impl KeyId {
    fn of(number: &[u8]) -> Self {
        let little_endian = number.iter().rev();
        Self(little_endian.fold(0, |id, byte| id << 8 | u64::from(*byte)))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A detached signature: the content of a `.minisig` file.
#[derive(Clone)]
pub struct Signature {
    parts: SignatureBox,
    trusted_comment: String,
}

impl Signature {
    /// Reads the text of a `.minisig` file. Nothing is verified.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let malformed = |why: &str| SignatureError::Malformed(why.to_owned());
        if text.len() > MAX_TEXT {
            return Err(malformed("it is too long"));
        }
        let parts = SignatureBox::from_string(text)
            .map_err(|error| SignatureError::Malformed(error.to_string()))?;
        // The library ignores what is too much, and takes a second signature of any length.
        let mut lines = text.lines();
        let base64 = [lines.nth(1), lines.nth(1)].map(|line| line.unwrap_or_default().trim());
        let written = parts.to_string();
        let mut canonical = written.lines();
        let same = [canonical.nth(1), canonical.nth(1)] == base64.map(Some);
        let is_64_bytes = base64[1].len() == GLOBAL_LENGTH && base64[1].ends_with("==");
        if !same || !is_64_bytes || lines.any(|line| !line.trim().is_empty()) {
            return Err(malformed("a line is cut off, changed or too much"));
        }
        let trusted_comment = parts
            .trusted_comment()
            .map_err(|error| SignatureError::Malformed(error.to_string()))?;
        if !parts.is_prehashed() {
            return Err(SignatureError::Legacy);
        }
        Ok(Self {
            parts,
            trusted_comment,
        })
    }

    /// The text of the `.minisig` file.
    pub fn to_text(&self) -> String {
        self.parts.to_string()
    }

    /// The key that is said to have signed.
    pub fn key_id(&self) -> KeyId {
        KeyId::of(self.parts.keynum())
    }

    /// The comment that is signed too. Not to be believed before [`verify`].
    pub fn trusted_comment(&self) -> &str {
        &self.trusted_comment
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature")
            .field("key_id", &self.key_id())
            .field("trusted_comment", &self.trusted_comment)
            .finish_non_exhaustive()
    }
}

/// Signs an artifact that is read from `content` to its end, once, in bounded memory. The trusted
/// comment is `mlwm <name> sha256:<hex>`.
///
/// # Errors
///
/// Content that has another digest than `digest`, or cannot be read.
pub fn sign(
    content: impl Read,
    name: &str,
    digest: Digest,
    key: &SecretKey,
) -> Result<Signature, SignatureError> {
    let mut content = Hashed::new(content);
    let comment = format!("mlwm {name} {digest}");
    let untrusted = format!("signature of {name} by minisign key {}", key.key_id());
    let public = key.public_key();
    let signed = minisign::sign(
        Some(public.inner()),
        key.inner(),
        &mut content,
        Some(&comment),
        Some(&untrusted),
    );
    if let Some(error) = content.failure.take() {
        return Err(SignatureError::Content(error));
    }
    let parts = signed.map_err(|error| SignatureError::Library {
        action: "sign",
        why: error.to_string(),
    })?;
    let found = content.digest();
    if found != digest {
        return Err(SignatureError::OtherContent {
            expected: digest,
            found,
        });
    }
    Ok(Signature {
        parts,
        trusted_comment: comment,
    })
}

/// A signature that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Who signed.
    pub key_id: KeyId,
    /// Digest of the content that was read.
    pub digest: Digest,
    /// The signed comment.
    pub trusted_comment: String,
}

/// Checks that one of the trusted keys signed what `content` gives, which is read to its end,
/// once, in bounded memory. Content is not read if the signer is not trusted.
///
/// A trusted comment that starts with `mlwm` must name the digest of the content; any other says
/// nothing about it (minisign's own is a time and a file name).
///
/// # Errors
///
/// An unknown signer, content or comment that were changed, a comment about another artifact.
pub fn verify(
    content: impl Read,
    signature: &Signature,
    trusted: &[PublicKey],
) -> Result<Verified, SignatureError> {
    let signer = signature.key_id();
    let key = signer_among(trusted, signer)?;
    let mut content = Hashed::new(content);
    let outcome = minisign::verify(
        key.inner(),
        &signature.parts,
        &mut content,
        true,
        false,
        false,
    );
    if let Some(error) = content.failure.take() {
        return Err(SignatureError::Content(error));
    }
    outcome.map_err(|_| SignatureError::Bad { signer })?;
    let digest = content.digest();
    check_comment(signature, digest)?;
    Ok(Verified {
        key_id: signer,
        digest,
        trusted_comment: signature.trusted_comment.clone(),
    })
}

fn signer_among(trusted: &[PublicKey], signer: KeyId) -> Result<&PublicKey, SignatureError> {
    let mut with_id = trusted.iter().filter(|key| key.key_id() == signer);
    let Some(key) = with_id.next() else {
        let ids: Vec<String> = trusted.iter().map(|key| key.key_id().to_string()).collect();
        return Err(SignatureError::UnknownKey {
            signer,
            trusted: if ids.is_empty() {
                "there are none".to_owned()
            } else {
                ids.join(", ")
            },
        });
    };
    if with_id.any(|other| other != key) {
        return Err(SignatureError::AmbiguousKey(signer));
    }
    Ok(key)
}

fn check_comment(signature: &Signature, found: Digest) -> Result<(), SignatureError> {
    match named_digest(&signature.trusted_comment) {
        Some(named) if named.parse() != Ok(found) => Err(SignatureError::OtherDigest {
            signer: signature.key_id(),
            named: named.to_owned(),
            found,
        }),
        _ => Ok(()),
    }
}

/// What a trusted comment of mlwm, `mlwm <name> sha256:<hex>`, says is the digest of the content;
/// `None` for the comment of another program.
pub(crate) fn named_digest(comment: &str) -> Option<&str> {
    let mut words = comment.split(' ');
    (words.next() == Some("mlwm")).then(|| words.next_back().unwrap_or_default())
}

/// Hashes what is read through it, and keeps an error of the reader apart from those of the
/// library.
struct Hashed<R> {
    content: R,
    sha256: Sha256,
    failure: Option<io::Error>,
}

impl<R: Read> Hashed<R> {
    fn new(content: R) -> Self {
        Self {
            content,
            sha256: Sha256::new(),
            failure: None,
        }
    }

    fn digest(self) -> Digest {
        Digest::from_hasher(self.sha256)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.content.read(buffer) {
                Ok(length) => {
                    self.sha256.update(&buffer[..length]);
                    return Ok(length);
                }
                // The library does not try again by itself.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    self.failure = Some(error);
                    return Err(kind.into());
                }
            }
        }
    }
}

/// The library asks for it, and uses it only to print the content.
impl<R> Seek for Hashed<R> {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
