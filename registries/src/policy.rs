//! What a registry requires, and the signatures it keeps (`docs/registries.md` §11).

use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::record::{REGISTRY_VERSION, check_version};
use crate::signature::{self, PublicKey, Signature};

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
}

/// Who requires signatures, and with which keys: one of the keys of each must have signed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust(Vec<(String, Vec<PublicKey>)>);

impl Trust {
    pub(crate) fn require(&mut self, who: impl Into<String>, keys: Vec<PublicKey>) {
        if !keys.is_empty() {
            self.0.push((who.into(), keys));
        }
    }

    /// Whether nobody requires anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks the signatures of `what`, which `open` gives a reader of each time.
    pub(crate) fn check<R: Read>(
        &self,
        what: &str,
        signatures: &[StoredSignature],
        open: impl Fn() -> Result<R, Error>,
    ) -> Result<(), Error> {
        for (who, keys) in &self.0 {
            let mut valid = false;
            for stored in signatures {
                let known = keys
                    .iter()
                    .any(|key| key.key_id().to_string() == stored.key_id);
                if valid || !known {
                    continue;
                }
                let bad = |error: signature::SignatureError| Error::Signature {
                    what: format!("{what} and its signature by key {}", stored.key_id),
                    why: error.to_string(),
                };
                let signature = Signature::parse(&stored.text).map_err(bad)?;
                signature::verify(open()?, &signature, keys).map_err(bad)?;
                valid = true;
            }
            if !valid {
                let ids: Vec<String> = keys.iter().map(|key| key.key_id().to_string()).collect();
                return Err(Error::Unsigned {
                    what: what.to_owned(),
                    who: who.clone(),
                    keys: ids.join(", "),
                });
            }
        }
        Ok(())
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
