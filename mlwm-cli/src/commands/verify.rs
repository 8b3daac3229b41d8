//! `mlwm verify`: is a published forecast what was published?

use clap::Args;
use indicatif::HumanBytes;
use mlwm_spec::manifest::{InputRecord, content_digest};
use mlwm_spec::{ExitCode, Manifest};
use mlwm_storage::{Error, Uri, Verified};
use serde_json::json;

use crate::Outcome;
use crate::commands::{output_of, runtime};
use crate::failure::Failure;
use crate::transfer::Transfer;

/// Read a published output again and compare every byte with its manifest; of an ensemble, its members, too.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm verify s3://bucket/danra/2022-04-07T0300Z/member0/surface.zarr"
)]
pub(crate) struct Arguments {
    /// URI of the output, or of its manifest.
    #[arg(value_name = "URI", value_parser = output_of)]
    output: Uri,
    /// Print what was verified as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let (verified, member_bytes) = runtime()?.block_on(async {
        let transfer = Transfer::start_saying("stopping")?;
        let verified = with_members(&arguments.output, &transfer).await;
        transfer.finish();
        Ok::<_, Failure>(verified?)
    })?;
    let manifest = &verified.manifest;
    let digest = content_digest(&manifest.objects);
    let members = members(manifest);
    if arguments.json {
        let object = json!({
            "uri": arguments.output.to_string(),
            "published_at": manifest.uri,
            "task": manifest.task,
            "objects": manifest.objects.len(),
            "bytes": verified.bytes,
            "digest": digest,
            "members": members.iter().map(|member| &member.uri).collect::<Vec<_>>(),
            "member_bytes": member_bytes,
        });
        say!("{object:#}");
        return Ok(ExitCode::Ok);
    }
    say!(
        "{}: {} objects, {}: all as published by task {}",
        arguments.output,
        manifest.objects.len(),
        HumanBytes(verified.bytes),
        manifest.task
    );
    if !members.is_empty() {
        say!(
            "{} outputs of members {}, {}: all as the ensemble was made of them",
            members.len(),
            manifest
                .ensemble
                .as_ref()
                .map_or_else(String::new, |ensemble| ensemble.members.to_string()),
            HumanBytes(member_bytes)
        );
    }
    if manifest.uri != arguments.output.to_string() {
        say!("published at {}", manifest.uri);
    }
    say!("{digest}");
    Ok(ExitCode::Ok)
}

/// Verifies an output and, where it is an ensemble, what its members published; the bytes of these.
async fn with_members(output: &Uri, transfer: &Transfer) -> Result<(Verified, u64), Error> {
    let verified = mlwm_storage::verify(output, &transfer.progress, &transfer.cancel).await?;
    let mut bytes = 0;
    for member in members(&verified.manifest) {
        let uri: Uri = member.uri.parse()?;
        let found = mlwm_storage::verify(&uri, &transfer.progress, &transfer.cancel).await?;
        // It may have been published anew, whole, after the ensemble was made of what was there before.
        let content = content_digest(&found.manifest.objects);
        if content != member.digest {
            return Err(Error::Corrupt {
                uri: output.to_string(),
                reason: format!(
                    "it was made of {} with content {}, and {uri} has {content} now",
                    member.name, member.digest
                ),
            });
        }
        bytes += found.bytes;
    }
    Ok((verified, bytes))
}

/// What the members of an ensemble published; nothing of an output that is no ensemble.
fn members(manifest: &Manifest) -> &[InputRecord] {
    match manifest.ensemble {
        Some(_) => &manifest.inputs,
        None => &[],
    }
}
