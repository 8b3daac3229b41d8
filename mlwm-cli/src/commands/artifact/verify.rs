//! `mlwm artifact verify`: is every byte right, and who vouches for it?

use clap::Args;
use indicatif::HumanBytes;
use mlwm_registries::signature::{self, PublicKey, Signature};
use mlwm_spec::{ArtifactReference, ExitCode};
use serde_json::json;

use super::key::public_key;
use super::registry::{Found, blocking, from_start, with_reading};
use crate::Outcome;
use crate::failure::Failure;

/// Check the size and hash of every file of an artifact, and who signed it.
///
/// One in a registry is read to its end, without a copy on this machine. Where signatures are
/// required, by the registry or by MLWM_TRUSTED_KEYS, it must have one.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm artifact verify s3://bucket/models/gefion-1 --key models.pub"
)]
pub(crate) struct Arguments {
    /// Zip, or published artifact.
    #[arg(value_name = "FILE|REF")]
    reference: ArtifactReference,
    /// Require a signature by this key, or by one of several: a file, or the line of base64 in it.
    #[arg(long = "key", value_name = "KEY", value_parser = public_key)]
    keys: Vec<PublicKey>,
    /// Print what was verified as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let (label, name, set_digest, size, verified, signer) = with_reading(async |options| {
        let mut options = options;
        if !arguments.keys.is_empty() {
            // Those that the command line names are in place of them, and looked for below.
            options.trusted_keys.clear();
        }
        let found = Found::open(&arguments.reference, options).await?;
        let label = found.label();
        let signatures = match arguments.keys.is_empty() {
            true => Vec::new(),
            false => found.signatures().await?,
        };
        let keys = arguments.keys.clone();
        let pinned = found
            .published
            .as_ref()
            .map(|(_, publication)| publication.digest);
        let Found {
            artifact,
            source,
            published,
        } = found;
        let checked = blocking(move || {
            let verified = artifact.verify()?;
            if let Some(expected) = pinned.filter(|expected| *expected != verified.digest) {
                let message = format!(
                    "{label} holds {} instead of {expected}: it is damaged in its registry; push the same artifact again",
                    verified.digest
                );
                return Err(Failure::new(ExitCode::ArtifactMismatch, message));
            }
            let signer = match keys.is_empty() {
                true => None,
                false => Some(signer(&label, &signatures, &keys, || from_start(source.clone()))?),
            };
            let (name, set_digest) = (artifact.name().to_owned(), artifact.set_digest());
            Ok((label, name, set_digest, artifact.size(), verified, signer))
        })
        .await?;
        if let Some((registry, publication)) = &published {
            registry.check_trust(publication).await?;
        }
        Ok(checked)
    })?;
    if arguments.json {
        let object = json!({
            "artifact": label,
            "name": name,
            "digest": verified.digest,
            "set_digest": set_digest,
            "files": verified.files,
            "size": size,
            "content_size": verified.bytes,
            "signature": signer.map(|signer| json!({
                "key_id": signer.key_id.to_string(),
                "trusted_comment": signer.trusted_comment,
            })),
        });
        say!("{object:#}");
        return Ok(ExitCode::Ok);
    }
    say!(
        "{label}: {} files, {}: every size and hash is right",
        verified.files,
        HumanBytes(size)
    );
    if let Some(signer) = signer {
        say!(
            "signature by key {} holds: {}",
            signer.key_id,
            signer.trusted_comment
        );
    }
    say!("{}", verified.digest);
    Ok(ExitCode::Ok)
}

/// The first signature that holds by one of the keys.
fn signer<R: std::io::Read>(
    label: &str,
    signatures: &[String],
    keys: &[PublicKey],
    open: impl Fn() -> R,
) -> Result<signature::Verified, Failure> {
    let ids: Vec<String> = keys.iter().map(|key| key.key_id().to_string()).collect();
    let mut why = "it has none".to_owned();
    for text in signatures {
        let checked = Signature::parse(text)
            .and_then(|signature| signature::verify(open(), &signature, keys));
        match checked {
            Ok(verified) => return Ok(verified),
            Err(error) => why = error.to_string(),
        }
    }
    let message = format!(
        "{label} has no valid signature by key {} ({why}): do not use it, or ask who keeps the key",
        ids.join(" or ")
    );
    Err(Failure::new(ExitCode::ArtifactMismatch, message))
}
