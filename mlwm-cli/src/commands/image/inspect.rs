//! `mlwm image inspect`: what an image is made of.

use clap::Args;
use indicatif::HumanBytes;
use mlwm_images::Platform;
use mlwm_spec::ExitCode;

use super::places::{find_image, place_of_image};
use crate::Outcome;
use crate::commands::{Configurations, runtime};

#[derive(Args)]
pub(crate) struct Inspect {
    /// HOST/PATH:TAG in a registry, oci:FOLDER:TAG in a layout, a configuration, whose image is taken,
    /// else of the local engine.
    #[arg(value_name = "IMAGE|NAME")]
    image: String,
    #[command(flatten)]
    folder: Configurations,
    /// Which of several images under one name.
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Inspect) -> Outcome {
    let platform = arguments
        .platform
        .clone()
        .unwrap_or_else(Platform::of_this_machine);
    let place = place_of_image(&arguments.image, &arguments.folder)?;
    let image = runtime()?.block_on(find_image(&place, &platform))?;
    let summary = image.summary();
    if arguments.json {
        say!("{:#}", serde_json::json!(summary));
        return Ok(ExitCode::Ok);
    }
    say!(
        "{}\ndigest    {}\nid        {}",
        place,
        summary.digest,
        summary.id
    );
    say!(
        "platform  {}\ncreated   {}",
        summary.platform,
        summary.created
    );
    for (name, value) in &summary.labels {
        say!("label     {name}={value}");
    }
    for layer in &summary.layers {
        let size = HumanBytes(layer.size).to_string();
        say!("layer     {size:>12}  {}  {}", layer.digest, layer.what);
    }
    say!("size      {}", HumanBytes(summary.size));
    Ok(ExitCode::Ok)
}
