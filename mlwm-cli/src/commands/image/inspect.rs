//! `mlwm image inspect`: what an image is made of.

use clap::Args;
use indicatif::HumanBytes;
use mlwm_images::Platform;
use mlwm_spec::ExitCode;

use super::parts::find_image;
use crate::Outcome;
use crate::commands::runtime;

#[derive(Args)]
pub(crate) struct Inspect {
    /// HOST/PATH:TAG in a registry, oci:FOLDER:TAG in a layout, else of the local engine.
    reference: String,
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
    let image = runtime()?.block_on(find_image(&arguments.reference, &platform))?;
    let summary = image.summary();
    if arguments.json {
        say!("{:#}", serde_json::json!(summary));
        return Ok(ExitCode::Ok);
    }
    say!(
        "{}\ndigest    {}\nid        {}",
        arguments.reference,
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
