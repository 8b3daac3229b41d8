//! `mlwm artifact import`: publish what a bundle brought.

use std::path::PathBuf;

use clap::Args;
use mlwm_registries::Registry;
use mlwm_registries::bundle::{self, Bundle, Imported};
use mlwm_registries::signature::PublicKey;
use mlwm_spec::ExitCode;

use super::bundle::watch;
use super::key::public_key;
use super::pull::trusting;
use super::registry::{RegistryArgument, blocking, pinned, with_transfer};
use crate::Outcome;
use crate::failure::Failure;

/// Publish the artifacts of a bundle in a registry, with their signatures.
///
/// The bundle is verified first; an artifact that cannot be published does not keep back the others.
/// What is published already is left out, and if the command is stopped, it goes on where it was when
/// it is run again.
#[derive(Args)]
#[command(after_help = "Example:\n  mlwm artifact import models.tar /data/models")]
pub(crate) struct Arguments {
    /// The bundle; of one in parts, its name without `.001`.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    registry: RegistryArgument,
    /// Take only what has a signature by this key, or by one of several: a file, or the line of
    /// base64 in it. In place of the keys in MLWM_TRUSTED_KEYS.
    #[arg(long = "key", value_name = "KEY", value_parser = public_key)]
    keys: Vec<PublicKey>,
    /// Print what came of each artifact as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let (registry, all) = with_transfer(async |options| {
        let options = trusting(&arguments.keys, options);
        let (file, watch) = (arguments.file.clone(), watch(&options));
        let bundle = blocking(move || {
            let bundle = Bundle::open(&file)?;
            bundle.verify(&watch)?;
            match bundle.artifacts() {
                [] => Err(Failure::new(
                    ExitCode::InputMissing,
                    format!(
                        "{} has no artifact: `mlwm image import` brings its images",
                        file.display()
                    ),
                )),
                _ => Ok(bundle),
            }
        })
        .await?;
        let registry = Registry::open(&arguments.registry.registry, options).await?;
        let all = bundle::import(&bundle, &registry).await;
        Ok((registry, all))
    })?;
    let (code, objects) = tell(&registry, &all, arguments.json);
    if arguments.json {
        say!("{:#}", serde_json::Value::Array(objects));
    }
    Ok(code)
}

/// Says what came of each artifact, unless that is wanted as JSON; gives the exit code and the
/// objects.
pub(in crate::commands) fn tell(
    registry: &Registry,
    all: &[Imported],
    json: bool,
) -> (ExitCode, Vec<serde_json::Value>) {
    let mut code = ExitCode::Ok;
    let mut objects = Vec::new();
    for imported in all {
        let (reference, outcome, error) = match &imported.outcome {
            Ok(pushed) => (
                pinned(registry, &pushed.publication),
                if pushed.new {
                    "published"
                } else {
                    "already-published"
                },
                None,
            ),
            Err(error) => {
                // The first failure decides: what follows may be a consequence.
                if code == ExitCode::Ok {
                    code = error.exit_code();
                }
                let name = format!("{}:{}@{}", imported.name, imported.tag, imported.digest);
                (name, "failed", Some(error.to_string()))
            }
        };
        if !json {
            say!("{reference} {outcome}");
        }
        if let Some(error) = &error {
            note!("error: {error}");
        }
        objects.push(serde_json::json!({
            "reference": reference,
            "outcome": outcome,
            "error": error,
        }));
    }
    (code, objects)
}
