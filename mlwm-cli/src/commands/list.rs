//! `mlwm list`: which configurations there are.

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use mlwm_cycles::{names, read};
use mlwm_spec::{ArtifactReference, ExitCode, Members};
use serde::Serialize;

use crate::Outcome;
use crate::commands::Configurations;

#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm list --json   # in CI: the matrix of a job for every configuration"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    configurations: Configurations,
    /// Print it as JSON: `name`, `image`, `artifact` and `base` of each, and `members` where there
    /// are several.
    #[arg(long)]
    json: bool,
}

/// What a configuration says; nothing of it is looked at.
#[derive(Serialize)]
struct Listed {
    name: String,
    /// Reference of the image that runs it.
    image: String,
    artifact: Option<ArtifactReference>,
    /// Reference of the image's base.
    base: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Members>,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let folder = &arguments.configurations.folder;
    let mut all = Vec::new();
    for name in names(folder)? {
        let configuration = read(folder, &name)?.configuration;
        all.push(Listed {
            image: configuration.image_reference(&name),
            name,
            artifact: configuration.artifact,
            base: configuration.base_image,
            members: configuration.members,
        });
    }
    if arguments.json {
        // In one line, as the outputs of CI jobs must be.
        say!("{}", serde_json::json!(all));
    } else if all.is_empty() {
        note!("{} has no configurations", folder.display());
    } else {
        say!("{}", table(&all));
    }
    Ok(ExitCode::Ok)
}

fn table(all: &[Listed]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(["name", "image", "artifact", "base"]);
    for listed in all {
        let artifact = listed.artifact.as_ref().map(ToString::to_string);
        table.add_row([
            listed.name.clone(),
            listed.image.clone(),
            artifact.unwrap_or_default(),
            listed.base.clone().unwrap_or_default(),
        ]);
    }
    table
}
