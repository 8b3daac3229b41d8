//! `mlwm artifact list`: what a registry has.

use clap::Args;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use indicatif::HumanBytes;
use mlwm_registries::{Fault, Listing, Publication, Registry};
use mlwm_spec::{ArtifactName, ExitCode};

use super::registry::{RegistryArgument, pinned, with_reading};
use crate::Outcome;

/// List what a registry has, and which records of it cannot be read.
#[derive(Args)]
#[command(after_help = "Example:\n  mlwm artifact list s3://bucket/models")]
pub(crate) struct Arguments {
    #[command(flatten)]
    registry: RegistryArgument,
    /// Only the publications of this name.
    #[arg(long)]
    name: Option<ArtifactName>,
    /// Print the records as JSON; one that cannot be read has `name`, `tag` and `error`.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let (registry, listing) = with_reading(async |options| {
        let registry = Registry::open(&arguments.registry.registry, options).await?;
        let listing = registry.listing(arguments.name.as_ref()).await?;
        Ok((registry, listing))
    })?;
    let Listing {
        publications,
        faults,
    } = listing;
    if arguments.json {
        let records = publications.iter().map(|one| record(&registry, one));
        let all = records.chain(faults.iter().map(fault)).collect();
        say!("{:#}", serde_json::Value::Array(all));
        return Ok(ExitCode::Ok);
    }
    if !publications.is_empty() {
        say!("{}", table(&publications));
    } else if faults.is_empty() {
        match &arguments.name {
            Some(name) => note!("{} has no artifact named {name}", registry.uri()),
            None => note!("{} has no artifacts", registry.uri()),
        }
    }
    for Fault { name, tag, why } in faults {
        say!("{name}:{tag} cannot be read: {why}");
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

fn fault(fault: &Fault) -> serde_json::Value {
    serde_json::json!({ "name": fault.name, "tag": fault.tag, "error": fault.why })
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
