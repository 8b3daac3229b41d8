//! `mlwm artifact remove`: take artifacts out of a registry.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::HumanBytes;
use mlwm_registries::{FoundReference, Publication, Registry, RemovalPlan, RemovalRequest};
use mlwm_spec::{ExitCode, PublishedArtifact, Tag};

use super::registry::{pinned, published, with_transfer};
use crate::Outcome;
use crate::commands::default_registry;
use crate::failure::Failure;

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
    /// Everything in this registry that no configuration refers to, and what killed pushes left.
    #[arg(
        long,
        value_name = "REGISTRY",
        conflicts_with = "reference",
        requires = "configurations"
    )]
    unreferenced: Option<String>,
    /// Folder of the configurations that are asked what they need.
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
    let references = match &arguments.configurations {
        Some(folder) => references(folder)?,
        None => Vec::new(),
    };
    let (registry, plans) = with_transfer(async |options| match &arguments.reference {
        Some(reference) => {
            let registry = Registry::of(reference, default_registry().as_deref(), options).await?;
            if reference.digest.is_some() {
                // The pin must hold: something else could have that tag by now.
                registry.resolve(reference).await?;
            }
            let plan = registry
                .plan_removal(&RemovalRequest {
                    name: reference.name.clone(),
                    tag: tag_of(arguments, reference),
                    references,
                })
                .await?;
            carry_out(&registry, std::slice::from_ref(&plan), arguments).await?;
            Ok((registry, vec![plan]))
        }
        None => {
            let uri = arguments.unreferenced.as_deref().unwrap_or_default();
            let registry = Registry::open(uri, options).await?;
            let plans = unreferenced(&registry, &references).await?;
            carry_out(&registry, &plans, arguments).await?;
            Ok((registry, plans))
        }
    })?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&plans).map_err(mlwm_cycles::Error::Json)?;
        say!("{text}");
    } else {
        plans
            .iter()
            .for_each(|plan| show(&registry, plan, arguments.dry_run));
    }
    Ok(ExitCode::Ok)
}

fn tag_of(arguments: &Arguments, reference: &PublishedArtifact) -> Option<Tag> {
    match arguments.all_tags {
        true => None,
        false => Some(reference.tag.clone().unwrap_or_else(Tag::latest)),
    }
}

/// The plans for everything whose content no configuration pins.
async fn unreferenced(
    registry: &Registry,
    references: &[FoundReference],
) -> Result<Vec<RemovalPlan>, Failure> {
    let mut plans = Vec::new();
    let needed = |publication: &Publication| {
        let mut digests = references
            .iter()
            .filter_map(|found| found.reference.digest());
        digests.any(|digest| digest == publication.digest)
    };
    for publication in registry.list(None).await? {
        if needed(&publication) {
            continue;
        }
        let request = RemovalRequest {
            name: publication.name.clone(),
            tag: Some(publication.tag.clone()),
            references: references.to_vec(),
        };
        plans.push(registry.plan_removal(&request).await?);
    }
    let sweep = registry.plan_sweep().await?;
    if !sweep.is_empty() {
        plans.push(sweep);
    }
    Ok(plans)
}

async fn carry_out(
    registry: &Registry,
    plans: &[RemovalPlan],
    arguments: &Arguments,
) -> Result<(), Failure> {
    if arguments.dry_run {
        return Ok(());
    }
    for plan in plans {
        registry.remove(plan, arguments.yes).await?;
    }
    Ok(())
}

fn show(registry: &Registry, plan: &RemovalPlan, dry_run: bool) {
    let done = match dry_run {
        true => "would be removed",
        false => "removed",
    };
    for publication in &plan.publications {
        say!("{} {done}", pinned(registry, publication));
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
    }
    say!("{} {done}", HumanBytes(plan.bytes));
}

/// What the configurations below a folder refer to. One that cannot be read ends the command: it
/// could refer to anything.
fn references(folder: &Path) -> Result<Vec<FoundReference>, Failure> {
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
