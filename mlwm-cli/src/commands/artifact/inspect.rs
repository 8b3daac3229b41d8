//! `mlwm artifact inspect`: what an artifact holds.

use clap::Args;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use indicatif::HumanBytes;
use mlwm_artifacts::Inspection;
use mlwm_spec::interface::StateSchema;
use mlwm_spec::{ArtifactReference, ExitCode};
use serde_json::Value;

use super::registry::{Found, blocking, provenance_path, read_beside, with_reading};
use crate::Outcome;

/// Show what an artifact holds: files, sizes, hashes, datastores, what its checkpoint imports.
///
/// One in a registry is looked into by a few requests, without downloading it.
#[derive(Args)]
#[command(after_help = "Example:\n  mlwm artifact inspect s3://bucket/models/gefion-1 --json")]
pub(crate) struct Arguments {
    /// Zip, or published artifact.
    #[arg(value_name = "FILE|REF")]
    reference: ArtifactReference,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

/// What is known of an artifact besides its contents.
struct Origin {
    reference: Option<String>,
    published_at: Option<String>,
    provenance: Option<String>,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let (inspection, origin) = with_reading(async |options| {
        let found = Found::open(&arguments.reference, options).await?;
        let origin = match &found.published {
            Some((registry, publication)) => Origin {
                reference: Some(found.label()),
                published_at: Some(publication.published_at.clone()),
                provenance: registry.provenance(publication).await?,
            },
            None => Origin {
                reference: None,
                published_at: None,
                provenance: read_beside(&provenance_path(found.artifact.path()))?,
            },
        };
        blocking(move || {
            let mut inspection = Inspection::of(&found.artifact)?;
            inspection.digest = match &found.published {
                Some((_, publication)) => Some(publication.digest),
                None => Some(found.artifact.digest()?),
            };
            Ok((inspection, origin))
        })
        .await
    })?;
    if arguments.json {
        let mut value = serde_json::to_value(&inspection).map_err(mlwm_cycles::Error::Json)?;
        if let Value::Object(object) = &mut value {
            object.insert("reference".to_owned(), origin.reference.into());
            object.insert("published_at".to_owned(), origin.published_at.into());
            object.insert("provenance".to_owned(), origin.provenance.into());
        }
        say!("{value:#}");
    } else {
        show(&inspection, &origin);
    }
    Ok(ExitCode::Ok)
}

fn show(inspection: &Inspection, origin: &Origin) {
    let line = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            say!("{key:11} {value}");
        }
    };
    line("name", Some(inspection.name.clone()));
    line("reference", origin.reference.clone());
    line("published", origin.published_at.clone());
    line("digest", inspection.digest.map(|digest| digest.to_string()));
    line(
        "set digest",
        inspection.set_digest.map(|digest| digest.to_string()),
    );
    line("size", Some(HumanBytes(inspection.size).to_string()));
    line("mlwm", inspection.mlwm_version.clone());
    if let Some(interface) = &inspection.interface {
        line("model", interface.model.clone());
        line("step", Some(format!("{} s", interface.step_seconds)));
        let grid = &interface.grid;
        line(
            "grid",
            Some(match interface.known_points() {
                Some(_) => format!("{:?}", grid.shape),
                None => format!("any number of points along {}", grid.dims.join(", ")),
            }),
        );
        if let Some(schema) = &interface.input_state {
            line("starts from", Some(starts_from(schema)));
        }
        let predicted: Vec<&str> = interface.predicted().map(String::as_str).collect();
        line("predicts", Some(predicted.join(" ")));
    }
    for datastore in &inspection.datastores {
        for variable in &datastore.variables {
            let name = format!("{}.{}", datastore.name, variable.name);
            line(
                "datastore",
                Some(format!("{name}: {}", variable.features.join(" "))),
            );
        }
    }
    if let Some(checkpoint) = &inspection.checkpoint {
        let unknown: Vec<String> = checkpoint
            .not_on_the_list
            .iter()
            .map(ToString::to_string)
            .collect();
        line(
            "checkpoint",
            Some(match (&checkpoint.fault, unknown.as_slice()) {
                (Some(fault), _) => format!("cannot be followed: {fault}"),
                (None, []) => "imports only what is known to be harmless".to_owned(),
                (None, unknown) => format!("imports {}", unknown.join(", ")),
            }),
        );
    }
    say!("{}", table(inspection));
    if let Some(provenance) = &origin.provenance {
        say!("\n{}", provenance.trim_end());
    }
}

/// The input state in a few words: `state: 92 fields at -6 h, 0 h`.
fn starts_from(schema: &StateSchema) -> String {
    let hours = |seconds: &i64| match seconds % 3600 {
        0 => format!("{} h", seconds / 3600),
        _ => format!("{seconds} s"),
    };
    let times: Vec<String> = schema.offsets_seconds.iter().map(hours).collect();
    let (input, fields) = (&schema.input, schema.fields.len());
    format!("{input}: {fields} fields at {}", times.join(", "))
}

fn table(inspection: &Inspection) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(["file", "size", "sha256"]);
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for file in &inspection.files {
        table.add_row([
            file.path.clone(),
            HumanBytes(file.size).to_string(),
            file.sha256
                .map_or_else(|| "-".to_owned(), |digest| digest.short()),
        ]);
    }
    table
}
