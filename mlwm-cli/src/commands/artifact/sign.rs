//! `mlwm artifact sign`: vouch for an artifact.

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Args;
use mlwm_artifacts::Artifact;
use mlwm_registries::signature::{SecretKey, Signature, sign};
use mlwm_spec::{ArtifactReference, ExitCode};

use super::registry::{Found, blocking, from_start, read_beside, signature_path, with_reading};
use crate::Outcome;
use crate::failure::Failure;

/// Holds the password of the secret key; it is asked for on the terminal otherwise.
const PASSWORD: &str = "MLWM_SIGNING_PASSWORD";

/// Sign an artifact: a zip, beside which `<zip>.minisig` is written, or one in a registry.
///
/// The password of the key is taken from MLWM_SIGNING_PASSWORD or asked for.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm artifact sign gefion-1.zip --key models.key\n  minisign -Vm gefion-1.zip -p models.pub"
)]
pub(crate) struct Arguments {
    /// Zip, or published artifact.
    #[arg(value_name = "FILE|REF")]
    reference: ArtifactReference,
    /// Secret key that `mlwm artifact key new` or `minisign -G` made.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let key = read_key(&arguments.key)?;
    let signed = with_reading(async |options| {
        let found = Found::open(&arguments.reference, options).await?;
        let label = found.label();
        let Found {
            artifact,
            source,
            published,
        } = found;
        let path = artifact.path().to_owned();
        let known = published
            .as_ref()
            .map(|(_, publication)| publication.digest);
        let key_id = key.key_id();
        let text = blocking(move || {
            let digest = match known {
                Some(digest) => digest,
                None => artifact.digest()?,
            };
            let signature = sign(from_start(source), artifact.name(), digest, &key)?;
            Ok(signature.to_text())
        })
        .await?;
        match published {
            Some((registry, publication)) => {
                registry.add_signature(&publication, &text).await?;
                Ok(label)
            }
            None => {
                let path = signature_path(&path);
                write(&path, &text, &key_id.to_string())?;
                Ok(path.display().to_string())
            }
        }
    })?;
    say!("{signed}");
    Ok(ExitCode::Ok)
}

/// The signature of a zip, which is not written anywhere.
pub(super) fn signed(zip: &Path, key: &Path) -> Result<String, Failure> {
    let artifact = Artifact::open(zip)?;
    let key = read_key(key)?;
    let file = File::open(zip).map_err(|error| Failure::local("open", zip, &error))?;
    Ok(sign(file, artifact.name(), artifact.digest()?, &key)?.to_text())
}

/// Opens a secret key.
fn read_key(path: &Path) -> Result<SecretKey, Failure> {
    let prompt = format!("Password of {}: ", path.display());
    Ok(SecretKey::read(path, || password(&prompt))?)
}

/// The password in the environment, else one from the terminal.
pub(super) fn password(prompt: &str) -> std::io::Result<String> {
    match std::env::var(PASSWORD) {
        Ok(password) => Ok(password),
        Err(_) => rpassword::prompt_password(prompt),
    }
}

/// Writes a signature beside a zip. One of another key is not replaced.
fn write(path: &Path, text: &str, key_id: &str) -> Result<(), Failure> {
    if let Some(there) = read_beside(path)? {
        let theirs = Signature::parse(&there)?.key_id().to_string();
        if theirs != key_id {
            let message = format!(
                "{} is a signature by key {theirs}, and is not replaced: move it, or push it with the artifact and sign the published one",
                path.display()
            );
            return Err(Failure::new(ExitCode::Conflict, message));
        }
    }
    std::fs::write(path, text).map_err(|error| Failure::local("write", path, &error))
}
