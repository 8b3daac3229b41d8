//! `mlwm artifact key`: keys to sign with.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mlwm_registries::signature::{PublicKey, generate};
use mlwm_spec::ExitCode;

use super::sign::password;
use crate::Outcome;
use crate::failure::Failure;

#[derive(Subcommand)]
pub(crate) enum Command {
    New(New),
}

/// Make a key pair of minisign: `<PATH>.key`, to be kept secret, and `<PATH>.pub`, for everybody.
///
/// The password is taken from MLWM_SIGNING_PASSWORD or asked for.
#[derive(Args)]
#[command(after_help = "Example:\n  mlwm artifact key new models")]
pub(crate) struct New {
    /// Path of both files without their endings.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Protect the secret key with no password: whoever can read it can sign.
    #[arg(long)]
    without_password: bool,
}

pub(crate) fn main(command: &Command) -> Outcome {
    let Command::New(arguments) = command;
    let ending = |ending: &str| {
        let mut path = arguments.path.as_os_str().to_owned();
        path.push(ending);
        PathBuf::from(path)
    };
    let password = match arguments.without_password {
        true => None,
        false => Some(password("Password of the new key: ").map_err(|error| {
            let message = format!(
                "no password: {error}; set MLWM_SIGNING_PASSWORD, or give --without-password"
            );
            Failure::new(ExitCode::Usage, message)
        })?),
    };
    let files = generate(&ending(".key"), &ending(".pub"), password)?;
    note!("secret key in {}", files.secret.display());
    note!("public key in {}", files.public.display());
    say!("{}", files.key);
    Ok(ExitCode::Ok)
}

/// A public key as an argument: its file, or the line of base64 in it.
pub(super) fn public_key(text: &str) -> Result<PublicKey, String> {
    let key = match Path::new(text).exists() {
        true => PublicKey::read(Path::new(text)),
        false => PublicKey::parse(text),
    };
    key.map_err(|error| error.to_string())
}
