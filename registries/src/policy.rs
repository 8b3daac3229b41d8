//! What a registry requires, and the signatures it keeps (`docs/registries.md` §11).

use std::io::Read;

use mlwm_spec::Digest;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::record::{REGISTRY_VERSION, check_version};
use crate::registry::RegistryOptions;
use crate::signature::{self, PublicKey, Signature, SignatureError};

/// What a registry requires of those who publish and fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Version of the layout.
    pub format: u32,
    /// Public keys of minisign (the line of base64): every artifact must be signed with one of
    /// them. Empty: no signature is needed.
    #[serde(default)]
    pub require_signature_by: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            format: REGISTRY_VERSION,
            require_signature_by: Vec::new(),
        }
    }
}

impl Policy {
    /// Reads `registry.json`; `source` is what an error calls it.
    pub(crate) fn parse(bytes: &[u8], source: &str) -> Result<Self, Error> {
        check_version(bytes, source)?;
        let policy: Self = serde_json::from_slice(bytes).map_err(|error| Error::BadRecord {
            record: source.to_owned(),
            why: error.to_string(),
        })?;
        policy.keys(source)?;
        Ok(policy)
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>, Error> {
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::Broken(format!("the policy cannot be written ({error})")))?;
        json.push(b'\n');
        Ok(json)
    }

    /// The keys. One that is none is an error: it would silently let everything pass.
    pub(crate) fn keys(&self, source: &str) -> Result<Vec<PublicKey>, Error> {
        let parse = |text: &String| {
            PublicKey::parse(text).map_err(|error| Error::Signature {
                what: source.to_owned(),
                why: error.to_string(),
            })
        };
        self.require_signature_by.iter().map(parse).collect()
    }
}

/// A signature as a registry keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredSignature {
    /// Id of the key, 16 hexadecimal digits.
    pub key_id: String,
    /// What the signer vouches for in words; not to be believed before it is verified.
    pub trusted_comment: String,
    /// The content of the `.minisig` file.
    pub text: String,
}

impl StoredSignature {
    /// Takes the text of a `.minisig` file, called `source` in an error.
    pub(crate) fn parse(text: &str, source: &str) -> Result<Self, Error> {
        let signature = Signature::parse(text).map_err(|error| Error::Signature {
            what: source.to_owned(),
            why: error.to_string(),
        })?;
        Ok(Self {
            key_id: signature.key_id().to_string(),
            trusted_comment: signature.trusted_comment().to_owned(),
            text: text.to_owned(),
        })
    }

    /// Takes what a registry keeps as the signature of `key_id`.
    pub(crate) fn read(key_id: &str, bytes: Vec<u8>) -> Result<Self, Error> {
        let source = format!("the signature of key {key_id} in the registry");
        let text = String::from_utf8(bytes).map_err(|_| Error::Signature {
            what: source.clone(),
            why: "it is not text".to_owned(),
        })?;
        let signature = Self::parse(&text, &source)?;
        if signature.key_id != key_id {
            return Err(Error::Signature {
                what: source,
                why: format!("it is a signature of key {}", signature.key_id),
            });
        }
        Ok(signature)
    }

    /// Whether it holds for `what`, which `open` gives a reader of, by one of `keys`.
    fn check<R: Read>(
        &self,
        what: &str,
        keys: &[PublicKey],
        open: impl Fn() -> Result<R, Error>,
    ) -> Result<(), Error> {
        let bad = |error| match error {
            // This says nothing about the signature.
            SignatureError::Content(error) => Error::local("read", what)(error),
            error => self.refused(what, error.to_string()),
        };
        let signature = Signature::parse(&self.text).map_err(bad)?;
        signature::verify(open()?, &signature, keys).map_err(bad)?;
        Ok(())
    }

    /// Refuses it if its comment says, as those of mlwm do, that it is of other content.
    fn check_comment(&self, what: &str, digest: Digest) -> Result<(), Error> {
        match signature::named_digest(&self.trusted_comment) {
            Some(named) if named.parse() != Ok(digest) => {
                let why = format!("it says that it is of {named}, but this is {digest}");
                Err(self.refused(what, why))
            }
            _ => Ok(()),
        }
    }

    fn refused(&self, what: &str, why: String) -> Error {
        Error::Signature {
            what: format!("{what} and its signature by key {}", self.key_id),
            why,
        }
    }
}

/// Who requires signatures, and with which keys: one of the keys of each must have signed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust(Vec<(String, Vec<PublicKey>)>);

impl Trust {
    /// What this user requires, whatever the registry does.
    pub(crate) fn of_user(options: &RegistryOptions) -> Self {
        let mut trust = Self::default();
        trust.require("this command", options.trusted_keys.clone());
        trust
    }

    /// Whether nobody requires any.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn require(&mut self, who: impl Into<String>, keys: Vec<PublicKey>) {
        if !keys.is_empty() {
            self.0.push((who.into(), keys));
        }
    }

    /// Refuses at once what has no signature by a key that is needed, whether it holds or not.
    pub(crate) fn expect(&self, what: &str, signatures: &[StoredSignature]) -> Result<(), Error> {
        for (who, keys) in &self.0 {
            if by(keys, signatures).next().is_none() {
                return Err(unsigned(what, who, keys));
            }
        }
        Ok(())
    }

    /// Checks the signatures of `what`, which `open` gives a reader of each time. One that does not
    /// hold is no obstacle if another one does. Gives those that were asked for and hold.
    pub(crate) fn check<R: Read>(
        &self,
        what: &str,
        signatures: &[StoredSignature],
        open: impl Fn() -> Result<R, Error>,
    ) -> Result<Vec<StoredSignature>, Error> {
        let mut holding = Vec::new();
        for (who, keys) in &self.0 {
            let mut outcome = Err(unsigned(what, who, keys));
            for stored in by(keys, signatures) {
                outcome = stored.check(what, keys, &open).map(|()| stored.clone());
                if !matches!(outcome, Err(Error::Signature { .. })) {
                    break;
                }
            }
            holding.push(outcome?);
        }
        Ok(holding)
    }

    /// Refuses signatures that are not to be kept with `what`: those of other content, and those by
    /// known keys that do not hold.
    pub(crate) fn check_new<R: Read>(
        &self,
        what: &str,
        digest: Digest,
        signatures: &[StoredSignature],
        open: impl Fn() -> Result<R, Error>,
    ) -> Result<(), Error> {
        for stored in signatures {
            stored.check_comment(what, digest)?;
        }
        for (_, keys) in &self.0 {
            for stored in by(keys, signatures) {
                stored.check(what, keys, &open)?;
            }
        }
        Ok(())
    }
}

/// The signatures by one of these keys.
fn by<'a>(
    keys: &'a [PublicKey],
    signatures: &'a [StoredSignature],
) -> impl Iterator<Item = &'a StoredSignature> {
    let known = |id: &str| keys.iter().any(|key| key.key_id().to_string() == id);
    signatures
        .iter()
        .filter(move |stored| known(&stored.key_id))
}

fn unsigned(what: &str, who: &str, keys: &[PublicKey]) -> Error {
    let ids: Vec<String> = keys.iter().map(|key| key.key_id().to_string()).collect();
    Error::Unsigned {
        what: what.to_owned(),
        who: who.to_owned(),
        keys: ids.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_back_and_a_wrong_key_is_no_policy() {
        let policy = Policy::default();
        assert_eq!(
            Policy::parse(&policy.to_json().unwrap(), "r").unwrap(),
            policy
        );
        for text in [
            "{}",
            "{\"format\": 2}",
            "{\"format\": 1, \"require_signature_by\": [\"nonsense\"]}",
            "{\"format\": 1, \"require\": []}",
        ] {
            assert!(Policy::parse(text.as_bytes(), "r").is_err(), "{text}");
        }
    }
}
