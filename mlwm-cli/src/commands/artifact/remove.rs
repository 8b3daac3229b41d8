//! `mlwm artifact remove`: take artifacts out of a registry.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::HumanBytes;
use mlwm_registries::{Error, FoundReference, Registry, RemovalPlan, RemovalRequest};
use mlwm_spec::{ExitCode, PublishedArtifact, Tag};

use super::registry::{pinned, published, with_transfer};
use crate::Outcome;
use crate::commands::default_registry;
use crate::failure::Failure;

/// Folder of the configurations, if nobody names another one.
const CONFIGURATIONS: &str = "configurations";

/// Take a published artifact out of its registry.
///
/// What a configuration refers to is never removed, and the only publication of a content not
/// without --yes. `--dry-run` says what would happen.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  mlwm artifact remove s3://bucket/models/gefion-1:v2 --dry-run\n  mlwm artifact remove --unreferenced s3://bucket/models --configurations configurations --yes"
)]
pub(crate) struct Arguments {
    /// Published artifact; without a tag, the name's own publication.
    #[arg(value_name = "REF", value_parser = published, required_unless_present = "unreferenced")]
    reference: Option<PublishedArtifact>,
    /// All tags of that name.
    #[arg(long, requires = "reference")]
    all_tags: bool,
    /// Only what pushes left behind that died while they published it; nothing that is published.
    #[arg(long, requires = "reference", conflicts_with = "all_tags")]
    claims_only: bool,
    /// Everything in this registry that no configuration refers to, and what killed pushes left.
    #[arg(
        long,
        value_name = "REGISTRY",
        conflicts_with = "reference",
        requires = "configurations"
    )]
    unreferenced: Option<String>,
    /// Folder of the configurations that are asked what they need [default: `configurations`, if
    /// there is such a folder].
    #[arg(long, env = "MLWM_CONFIGURATIONS", value_name = "DIR")]
    configurations: Option<PathBuf>,
    /// Remove a content although the registry then has it no more.
    #[arg(long)]
    yes: bool,
    /// Only say what would be removed.
    #[arg(long)]
    dry_run: bool,
    /// Print what is removed as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let references = match arguments.claims_only {
        true => Vec::new(),
        false => references(arguments.configurations.as_deref())?,
    };
    let (registry, removed, failure) = with_transfer(async |options| {
        let (registry, plan) = match &arguments.reference {
            Some(reference) => {
                let registry =
                    Registry::of(reference, default_registry().as_deref(), options).await?;
                if reference.digest.is_some() {
                    // The pin must hold: something else could have that tag by now.
                    registry.resolve(reference).await?;
                }
                let (name, tag) = (reference.name.clone(), tag_of(arguments, reference));
                let plan = match tag {
                    Some(tag) if arguments.claims_only => registry.plan_claims(&name, &tag).await?,
                    tag => {
                        let request = RemovalRequest {
                            name,
                            tag,
                            references,
                        };
                        registry.plan_removal(&request).await?
                    }
                };
                (registry, plan)
            }
            None => {
                let uri = arguments.unreferenced.as_deref().unwrap_or_default();
                let registry = Registry::open(uri, options).await?;
                let plan = registry.plan_unreferenced(&references).await?;
                (registry, plan)
            }
        };
        if arguments.dry_run {
            return Ok((registry, plan, None));
        }
        match registry.remove(&plan, arguments.yes).await {
            Ok(removed) => Ok((registry, removed, None)),
            Err(error) => match &error {
                Error::RemovedInPart { removed, .. } => {
                    Ok((registry, removed.as_ref().clone(), Some(error)))
                }
                _ => Err(error.into()),
            },
        }
    })?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&removed).map_err(mlwm_cycles::Error::Json)?;
        say!("{text}");
    } else {
        show(&registry, &removed, arguments.dry_run);
    }
    match failure {
        Some(failure) => Err(failure.into()),
        None => Ok(ExitCode::Ok),
    }
}

fn tag_of(arguments: &Arguments, reference: &PublishedArtifact) -> Option<Tag> {
    match arguments.all_tags {
        true => None,
        false => Some(reference.tag.clone().unwrap_or_else(Tag::latest)),
    }
}

fn show(registry: &Registry, plan: &RemovalPlan, dry_run: bool) {
    let done = match dry_run {
        true => "would be removed",
        false => "removed",
    };
    for publication in &plan.publications {
        say!("{} {done}", pinned(registry, publication));
    }
    for fault in &plan.faults {
        let uri = registry.uri();
        say!(
            "{uri}/{}:{}, which cannot be read, {done}",
            fault.name,
            fault.tag
        );
    }
    for object in plan
        .objects
        .iter()
        .chain(&plan.signatures)
        .chain(&plan.claims)
    {
        say!("  {object} {done}");
    }
    for kept in &plan.kept {
        let tags: Vec<&str> = kept.tags.iter().map(Tag::as_str).collect();
        say!("  {} stays, for {}", kept.object, tags.join(", "));
    }
    if dry_run {
        for refusal in &plan.refusals {
            say!("  but it would be refused: {refusal}");
        }
        for digest in &plan.only_copies {
            say!("  only with --yes: it is the only publication of {digest} in this registry");
        }
        for fault in &plan.faults {
            let (name, tag) = (&fault.name, &fault.tag);
            say!(
                "  only with --yes: nobody knows the content of {name}:{tag} ({})",
                fault.why
            );
        }
    }
    say!("{} {done}", HumanBytes(plan.bytes));
}

/// What the configurations below a folder refer to. One that cannot be read ends the command: it
/// could refer to anything.
fn references(folder: Option<&Path>) -> Result<Vec<FoundReference>, Failure> {
    let usual = Path::new(CONFIGURATIONS);
    let Some(folder) = folder.or_else(|| usual.is_dir().then_some(usual)) else {
        note!(
            "no configurations were looked at: `--configurations` names the folder of those that \
             may refer to it"
        );
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for name in mlwm_cycles::names(folder)? {
        let loaded = mlwm_cycles::read(folder, &name)?;
        if let Some(reference) = loaded.configuration.artifact {
            found.push(FoundReference {
                configuration: name,
                reference,
            });
        }
    }
    Ok(found)
}
