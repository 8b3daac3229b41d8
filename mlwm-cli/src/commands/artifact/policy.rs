//! `mlwm artifact policy`: what a registry requires.

use clap::Args;
use mlwm_registries::signature::PublicKey;
use mlwm_registries::{Policy, Registry};
use mlwm_spec::ExitCode;

use super::key::public_key;
use super::registry::{RegistryArgument, with_transfer};
use crate::Outcome;

/// Show or set what a registry requires.
///
/// mlwm obeys it on every push and pull. Whoever may write to the registry may change it: to be safe
/// from them too, keep the keys elsewhere and give them to `pull`, `import` and `verify`, or name
/// their files in MLWM_TRUSTED_KEYS.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm artifact policy s3://bucket/models --require-signature-by models.pub"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    registry: RegistryArgument,
    /// Take and give nothing that is not signed by this key, or one of several: a file, or the line
    /// of base64 in it. Replaces the keys required before.
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    require_signature_by: Vec<PublicKey>,
    /// Require no signature any more.
    #[arg(long, conflicts_with = "require_signature_by")]
    require_no_signature: bool,
    /// Print the policy as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let policy = with_transfer(async |options| {
        let registry = Registry::open(&arguments.registry.registry, options).await?;
        if !arguments.require_no_signature && arguments.require_signature_by.is_empty() {
            return Ok(registry.policy().await?);
        }
        let keys = arguments.require_signature_by.iter();
        let policy = Policy {
            require_signature_by: keys.map(PublicKey::to_base64).collect(),
            ..Policy::default()
        };
        registry.set_policy(&policy).await?;
        Ok(policy)
    })?;
    let keys = &policy.require_signature_by;
    if arguments.json {
        say!("{:#}", serde_json::json!({ "require_signature_by": keys }));
    } else if keys.is_empty() {
        say!("no signature is required");
    } else {
        say!(
            "a signature is required by one of:\n  {}",
            keys.join("\n  ")
        );
    }
    Ok(ExitCode::Ok)
}
