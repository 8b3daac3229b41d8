//! `mlwm artifact list`: what a registry has.

use clap::Args;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use indicatif::HumanBytes;
use mlwm_registries::{Publication, Registry};
use mlwm_spec::{ArtifactName, ExitCode};

use super::registry::{RegistryArgument, pinned, with_transfer};
use crate::Outcome;

/// List what a registry has.
#[derive(Args)]
#[command(after_help = "Example:\n  mlwm artifact list s3://bucket/models")]
pub(crate) struct Arguments {
    #[command(flatten)]
    registry: RegistryArgument,
    /// Only the publications of this name.
    #[arg(long)]
    name: Option<ArtifactName>,
    /// Print the records as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let (registry, publications) = with_transfer(async |options| {
        let registry = Registry::open(&arguments.registry.registry, options).await?;
        let publications = registry.list(arguments.name.as_ref()).await?;
        Ok((registry, publications))
    })?;
    if arguments.json {
        let all: Vec<_> = publications
            .iter()
            .map(|publication| record(&registry, publication))
            .collect();
        say!("{:#}", serde_json::Value::Array(all));
    } else if publications.is_empty() {
        eprintln!("{} has no artifacts", registry.uri());
    } else {
        say!("{}", table(&publications));
    }
    Ok(ExitCode::Ok)
}

fn record(registry: &Registry, publication: &Publication) -> serde_json::Value {
    serde_json::json!({
        "name": publication.name,
        "tag": publication.tag,
        "reference": pinned(registry, publication),
        "digest": publication.digest,
        "set_digest": publication.set_digest,
        "size": publication.size,
        "files": publication.files,
        "published_at": publication.published_at,
    })
}

fn table(publications: &[Publication]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(["name", "tag", "size", "files", "published", "digest"]);
    for index in [2, 3] {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for publication in publications {
        table.add_row([
            publication.name.to_string(),
            publication.tag.to_string(),
            HumanBytes(publication.size).to_string(),
            publication.files.to_string(),
            publication.published_at.clone(),
            // Whole: it is what a configuration is pinned by.
            publication.digest.to_string(),
        ]);
    }
    table
}
