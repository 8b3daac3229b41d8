//! `mlwm cache`: the artifacts of registries on this machine, and what else is kept to be used again.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use indicatif::{HumanBytes, HumanDuration};
use mlwm_registries::{Cache, CacheEntry, KeptEntry, KeptKind, PruneRequest};
use mlwm_spec::bytes::{ByteSize, InvalidByteSize};
use mlwm_spec::{Digest, ExitCode, Period};
use serde::Serialize;

use crate::Outcome;
use crate::commands::runtime;
use crate::failure::Failure;

#[derive(Subcommand)]
pub(crate) enum Command {
    List(List),
    Prune(Prune),
    Remove(Remove),
}

/// List the artifacts in the cache, the longest unused first, and how much is kept of each kind:
/// artifacts; those that are unpacked, to be mounted; bases of images; digests of layers; receipts of
/// files that were hashed.
#[derive(Args)]
pub(crate) struct List {
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
}

/// Remove from the cache what is not needed, of every kind. What is in use stays.
#[derive(Args)]
#[command(after_help = "Example:\n  mlwm cache prune --unused-for P30D --keep 50GB")]
#[command(group(ArgGroup::new("what").required(true).multiple(true)))]
pub(crate) struct Prune {
    /// Remove what was not used for so long, ISO 8601.
    #[arg(long, value_name = "PERIOD", group = "what")]
    unused_for: Option<Period>,
    /// Remove what was unused longest, until the rest is no larger than this: `50GB`.
    #[arg(long, value_name = "SIZE", group = "what", value_parser = size_with_unit)]
    keep: Option<ByteSize>,
    /// Remove everything.
    #[arg(long, group = "what")]
    all: bool,
    /// Only say what would be removed.
    #[arg(long, requires = "what")]
    dry_run: bool,
    /// Print what was removed as JSON.
    #[arg(long)]
    json: bool,
}

/// Remove an artifact from the cache, so that it is fetched again when it is needed.
#[derive(Args)]
#[command(after_help = "Example:\n  mlwm cache remove gefion-1")]
pub(crate) struct Remove {
    /// Digest, `sha256:…`, or the name it was fetched as: then all of that name.
    #[arg(value_name = "DIGEST|NAME")]
    what: String,
}

/// Parses a size; a bare number is as good as a slip, and would remove nearly all.
fn size_with_unit(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text
        .parse()
        .map_err(|error: InvalidByteSize| error.to_string())?;
    match size.0 > 0 && text.trim().bytes().all(|byte| byte.is_ascii_digit()) {
        true => Err(format!(
            "write its unit: `{0}GB`, or `{0}B` for bytes",
            size.0
        )),
        false => Ok(size),
    }
}

pub(crate) fn main(command: Command) -> Outcome {
    match command {
        Command::List(arguments) => list(&arguments),
        Command::Prune(arguments) => prune(&arguments),
        Command::Remove(arguments) => remove(&arguments.what),
    }
}

fn list(arguments: &List) -> Outcome {
    let cache = Cache::open_default()?;
    let (artifacts, kept) = (cache.list()?, cache.kept()?);
    if arguments.json {
        let entries: Vec<Listed<'_>> = artifacts
            .iter()
            .map(|entry| Listed::Artifact {
                kind: "artifact",
                entry,
            })
            .chain(kept.iter().map(Listed::Kept))
            .collect();
        let text = serde_json::to_string_pretty(&entries).map_err(mlwm_cycles::Error::Json)?;
        say!("{text}");
        return Ok(ExitCode::Ok);
    }
    if artifacts.is_empty() && kept.is_empty() {
        note!("the cache is empty");
        return Ok(ExitCode::Ok);
    }
    if !artifacts.is_empty() {
        say!("{}", table(&artifacts));
    }
    say!("{}", kinds(&artifacts, &kept));
    Ok(ExitCode::Ok)
}

/// An entry of the list in JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Listed<'a> {
    Artifact {
        kind: &'static str,
        #[serde(flatten)]
        entry: &'a CacheEntry,
    },
    Kept(&'a KeptEntry),
}

fn prune(arguments: &Prune) -> Outcome {
    let request = PruneRequest {
        unused_for: arguments
            .unused_for
            .map(|period| Duration::from_secs(period.seconds().unsigned_abs())),
        keep_bytes: match arguments.all {
            true => Some(0),
            false => arguments.keep.map(|size| size.0),
        },
        dry_run: arguments.dry_run,
    };
    let pruned = runtime()?.block_on(async {
        let pruned = Cache::open_default()?.prune(request).await?;
        Ok::<_, Failure>(pruned)
    })?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&pruned).map_err(mlwm_cycles::Error::Json)?;
        say!("{text}");
        return Ok(ExitCode::Ok);
    }
    let done = match arguments.dry_run {
        true => "would be removed",
        false => "removed",
    };
    for entry in &pruned.removed {
        say!("{}@{}: {done}", entry.name, entry.digest);
    }
    for entry in &pruned.in_use {
        say!("{}@{}: in use, stays", entry.name, entry.digest);
    }
    for entry in &pruned.removed_kept {
        say!("{}: {done}", named(entry));
    }
    for entry in &pruned.in_use_kept {
        say!("{}: in use, stays", named(entry));
    }
    say!("{} {done}", HumanBytes(pruned.freed_bytes));
    Ok(ExitCode::Ok)
}

fn remove(what: &str) -> Outcome {
    let cache = Cache::open_default()?;
    // What is damaged may not be listed, but has its digest.
    let digests: Vec<Digest> = match what.parse() {
        Ok(digest) => Vec::from_iter(cache.has(digest)?.then_some(digest)),
        Err(_) => {
            let named = cache.list()?.into_iter();
            let named = named.filter(|entry| entry.name.as_str() == what);
            named.map(|entry| entry.digest).collect()
        }
    };
    if digests.is_empty() {
        let message = format!("the cache has no {what}: `mlwm cache list` shows what it has");
        return Err(Failure::new(ExitCode::InputMissing, message));
    }
    let mut code = ExitCode::Ok;
    for digest in digests {
        match cache.remove(digest)? {
            true => say!("{digest}: removed"),
            false => {
                code = ExitCode::Conflict;
                say!("{digest}: in use, stays");
            }
        }
    }
    Ok(code)
}

/// What is kept beside the artifacts, in words.
fn named(entry: &KeptEntry) -> String {
    let digest = entry.digest.map(|digest| digest.to_string());
    match (entry.kind, digest) {
        (KeptKind::Unpacked, Some(digest)) => format!("unpacked {digest}"),
        (KeptKind::Bases, Some(digest)) => format!("base {digest}"),
        (kind, _) => format!("{} {}", entry.number, kind.as_str()),
    }
}

/// How much is kept of each kind.
fn kinds(artifacts: &[CacheEntry], kept: &[KeptEntry]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(["kind", "number", "size"]);
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut add = |kind: &str, number: u64, size: u64| {
        table.add_row([
            kind.to_owned(),
            number.to_string(),
            HumanBytes(size).to_string(),
        ]);
    };
    let size = artifacts.iter().map(|entry| entry.size).sum();
    add("artifacts", artifacts.len() as u64, size);
    for kind in KeptKind::ALL {
        let of_kind = || kept.iter().filter(|entry| entry.kind == kind);
        let number = of_kind().map(|entry| entry.number).sum();
        add(
            kind.as_str(),
            number,
            of_kind().map(|entry| entry.size).sum(),
        );
    }
    table
}

fn table(entries: &[CacheEntry]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(["name", "tag", "size", "unused for", "digest"]);
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for entry in entries {
        table.add_row([
            entry.name.to_string(),
            entry.tag.to_string(),
            HumanBytes(entry.size).to_string(),
            HumanDuration(Duration::from_secs(entry.unused_seconds)).to_string(),
            entry.digest.to_string(),
        ]);
    }
    table
}
