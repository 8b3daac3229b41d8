//! `mlwm image push`: an image that is already made, somewhere else.

use clap::Args;
use mlwm_images::{Place, Platform, check_secrets};
use mlwm_spec::ExitCode;
use serde_json::json;

use super::places::{find_image, named_place, place_of_image};
use super::rebase::deliver;
use crate::Outcome;
use crate::commands::{Configurations, runtime};
use crate::failure::Failure;
use crate::transfer::Transfer;

/// Copy an image to a registry or an OCI layout, as it is: its digest stays.
///
/// What is there is not sent, and what lies in another repository of the registry is mounted. If the
/// command is stopped, it goes on where it was when it is run again.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  mlwm image push danra_graph_lam --to registry.example.org/models/danra:v1\n  mlwm image push oci:images:danra --to registry.example.org/models/danra:v1\n  mlwm image push registry.example.org/test/danra:v1 --to registry.example.org/models/danra:v1"
)]
pub(crate) struct Arguments {
    /// HOST/PATH:TAG in a registry, oci:FOLDER:TAG in a layout, a configuration, whose image is taken,
    /// else of the local engine.
    #[arg(value_name = "IMAGE|NAME")]
    image: String,
    /// Where it goes: HOST/PATH:TAG in a registry, oci:FOLDER:TAG in a layout. A tag that names
    /// another image is moved.
    #[arg(long, value_name = "REF")]
    to: String,
    #[command(flatten)]
    folder: Configurations,
    /// Which of several images under one name.
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print what came of it as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let target = target(&arguments.to)?;
    let place = place_of_image(&arguments.image, &arguments.folder)?;
    let platform = arguments.platform.clone();
    let platform = platform.unwrap_or_else(Platform::of_this_machine);
    let (digest, there) = runtime()?.block_on(async {
        let transfer = Transfer::start()?;
        let copy = async {
            let image = find_image(&place, &platform).await?;
            check_secrets(&image, &place.to_string())?;
            let there = deliver(&image, &target, &transfer).await?;
            Ok::<_, Failure>((image.digest(), there))
        };
        let copied = copy.await;
        transfer.finish();
        copied
    })?;
    match arguments.json {
        true => say!(
            "{}",
            json!({"place": target.to_string(), "digest": digest, "unchanged": there})
        ),
        false => {
            say!("{target}{}", already(there));
            say!("{digest}");
        }
    }
    Ok(ExitCode::Ok)
}

/// What is said of an image that was in its place.
pub(super) fn already(there: bool) -> &'static str {
    if there { " (already there)" } else { "" }
}

fn target(text: &str) -> Result<Place, Failure> {
    match named_place(text)? {
        place @ (Place::Registry { digest: None, .. }
        | Place::Layout {
            tag: Some(_),
            digest: None,
            ..
        }) => Ok(place),
        _ => {
            let message = format!(
                "`{text}` is no place for an image: write HOST/PATH:TAG for a registry, or oci:FOLDER:TAG for a layout"
            );
            Err(Failure::new(ExitCode::Usage, message))
        }
    }
}
