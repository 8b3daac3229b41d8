//! `mlwm artifact tag`: another tag for what is published.

use clap::Args;
use mlwm_registries::TagMove;
use mlwm_spec::{ExitCode, PublishedArtifact, Tag};

use super::registry::{find, pinned, published, with_transfer};
use crate::Outcome;

/// Give a published artifact another tag. Nothing is copied.
///
/// Where signatures are required, by the registry or by MLWM_TRUSTED_KEYS, it is read to its end, and
/// refused without one.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm artifact tag s3://bucket/models/gefion-1:v2 stable --move"
)]
pub(crate) struct Arguments {
    /// Published artifact.
    #[arg(value_name = "REF", value_parser = published)]
    reference: PublishedArtifact,
    /// The new tag.
    tag: Tag,
    /// Take the tag from other content that has it. What a reference pins by digest stays as it is.
    #[arg(long = "move")]
    move_it: bool,
    /// Move it although no other tag has the content that loses it.
    #[arg(long, requires = "move_it")]
    yes: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let moving = match (arguments.move_it, arguments.yes) {
        (false, _) => TagMove::Never,
        (true, false) => TagMove::IfKept,
        (true, true) => TagMove::EvenIfLost,
    };
    let (registry, publication) = with_transfer(async |options| {
        let (registry, publication) = find(&arguments.reference, options).await?;
        let tagged = registry.tag(&publication, &arguments.tag, moving).await?;
        Ok((registry, tagged))
    })?;
    say!("{}", pinned(&registry, &publication));
    Ok(ExitCode::Ok)
}
