//! Key pairs and their files, as minisign writes and reads them.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use minisign::{KeyPair, PublicKeyBox, SecretKeyBox};

use super::{KeyId, SignatureError};

/// Largest file of a key that is read, in bytes.
const MAX_FILE: u64 = 20_000;

/// The key that checks signatures.
#[derive(Clone)]
pub struct PublicKey(minisign::PublicKey);

impl PublicKey {
    /// Reads the text of a `.pub` file, or only the line of base64 in it.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let shown = || text.trim().chars().take(80).collect::<String>();
        let mut lines = text.trim().lines().map(str::trim);
        let line = match (lines.next(), lines.next()) {
            (Some(line), None) => line,
            (Some(comment), Some(line)) if comment.starts_with("untrusted comment:") => line,
            _ => return Err(SignatureError::PublicKey(shown())),
        };
        let is_ed25519 = line.starts_with("RW");
        minisign::PublicKey::from_base64(line)
            .ok()
            .filter(|_| is_ed25519 && lines.next().is_none())
            .map(Self)
            .ok_or_else(|| SignatureError::PublicKey(shown()))
    }

    /// Reads a `.pub` file.
    pub fn read(path: &Path) -> Result<Self, SignatureError> {
        Self::parse(&read_text(path)?)
            .map_err(|_| SignatureError::PublicKey(path.display().to_string()))
    }

    /// Its id.
    pub fn key_id(&self) -> KeyId {
        KeyId::of(self.0.keynum())
    }

    /// The line of base64 in its file.
    pub fn to_base64(&self) -> String {
        self.0.to_base64()
    }

    pub(super) fn inner(&self) -> &minisign::PublicKey {
        &self.0
    }
}

/// The library compares only the curve points.
impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bytes() == other.0.to_bytes()
    }
}

impl Eq for PublicKey {}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base64())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The key that signs, opened. It has no text form, so that it cannot get into a log.
pub struct SecretKey {
    secret: minisign::SecretKey,
    public: PublicKey,
}

impl SecretKey {
    /// Opens the file of a secret key. The password is asked for only if the key has one.
    ///
    /// Keys that minisign itself made need 1 GiB of memory for a moment, and those of
    /// [`generate`] 32 MiB: that is what protects the password.
    pub fn read(
        path: &Path,
        password: impl FnOnce() -> io::Result<String>,
    ) -> Result<Self, SignatureError> {
        // What the base64 starts with: Ed25519, no password or scrypt, BLAKE2b.
        const PLAIN: &str = "RWQAAEIy";
        const WITH_PASSWORD: &str = "RWRTY0Iy";
        let wrong = |why| SignatureError::SecretKey {
            path: path.to_owned(),
            why,
        };
        let text = read_text(path)?;
        let line = text.lines().nth(1).unwrap_or_default();
        let secret = if line.starts_with(PLAIN) {
            open_plain(line).ok_or_else(|| wrong("it is damaged"))?
        } else if line.starts_with(WITH_PASSWORD) {
            let password = password().map_err(SignatureError::NoPassword)?;
            let opened = SecretKeyBox::from(text).into_secret_key(Some(password));
            opened.map_err(|error| match error.kind() {
                minisign::ErrorKind::Verify => SignatureError::Password {
                    path: path.to_owned(),
                },
                _ => wrong("it is damaged"),
            })?
        } else {
            return Err(wrong("it does not start like one"));
        };
        Self::of(secret).ok_or_else(|| wrong("it is damaged"))
    }

    fn of(secret: minisign::SecretKey) -> Option<Self> {
        let public = minisign::PublicKey::from_secret_key(&secret).ok()?;
        Some(Self {
            secret,
            public: PublicKey(public),
        })
    }

    /// The key that checks what this one signs.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Its id.
    pub fn key_id(&self) -> KeyId {
        self.public.key_id()
    }

    pub(super) fn inner(&self) -> &minisign::SecretKey {
        &self.secret
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.key_id())
    }
}

/// A new key pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    /// File of the secret key, mode 0600.
    pub secret: PathBuf,
    /// File of the public key.
    pub public: PathBuf,
    /// The public key.
    pub key: PublicKey,
}

/// Makes a key pair and writes it into two files, neither of which may be there. Without a
/// password, whoever can read the secret file can sign.
pub fn generate(
    secret: &Path,
    public: &Path,
    password: Option<String>,
) -> Result<KeyFiles, SignatureError> {
    let failed = |error: minisign::PError| SignatureError::Library {
        action: "make a key pair",
        why: error.to_string(),
    };
    let (pair, comment) = match password {
        Some(password) if password.is_empty() => return Err(SignatureError::EmptyPassword),
        Some(password) => (
            KeyPair::generate_encrypted_keypair(Some(password)),
            "minisign encrypted secret key",
        ),
        None => (
            KeyPair::generate_unencrypted_keypair(),
            "minisign secret key without password",
        ),
    };
    let KeyPair { pk, sk } = pair.map_err(failed)?;
    let secret_text: String = sk.to_box(Some(comment)).map_err(failed)?.into();
    let public_text: PublicKeyBox = pk.to_box().map_err(failed)?;
    create(secret, 0o600, &secret_text)?;
    if let Err(error) = create(public, 0o644, &public_text.to_string()) {
        // Just made by this call, and useless alone.
        let _ = fs::remove_file(secret);
        return Err(error);
    }
    Ok(KeyFiles {
        secret: secret.to_owned(),
        public: public.to_owned(),
        key: PublicKey(pk),
    })
}

/// A key without password. minisign up to 0.11 leaves its checksum out, which the library does not
/// know; whether secret and public half belong together is found out by every signature.
fn open_plain(line: &str) -> Option<minisign::SecretKey> {
    const CHECKSUM: usize = 32;
    let bytes = BASE64.decode(line.trim()).ok()?;
    let has_checksum = bytes.iter().rev().take(CHECKSUM).any(|byte| *byte != 0);
    if has_checksum {
        let sealed = SecretKeyBox::from(format!("untrusted comment:\n{line}\n"));
        return sealed.into_unencrypted_secret_key().ok();
    }
    minisign::SecretKey::from_bytes(&bytes).ok()
}

fn create(path: &Path, mode: u32, text: &str) -> Result<(), SignatureError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => SignatureError::KeyExists(path.to_owned()),
        _ => SignatureError::File {
            action: "write",
            path: path.to_owned(),
            source,
        },
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(failed)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|error| {
        let _ = fs::remove_file(path);
        failed(error)
    })
}

fn read_text(path: &Path) -> Result<String, SignatureError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|source| SignatureError::File {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
    Ok(text)
}
