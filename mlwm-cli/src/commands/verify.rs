//! `mlwm verify`: is a published forecast what was published?

use clap::Args;
use indicatif::HumanBytes;
use mlwm_spec::ExitCode;
use mlwm_spec::manifest::content_digest;
use mlwm_storage::Uri;
use serde_json::json;

use crate::Outcome;
use crate::commands::{output_of, runtime};
use crate::failure::Failure;
use crate::transfer::Transfer;

/// Read a published output again and compare every byte with its manifest.
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
    let verified = runtime()?.block_on(async {
        let transfer = Transfer::start_saying("stopping")?;
        let verified =
            mlwm_storage::verify(&arguments.output, &transfer.progress, &transfer.cancel).await;
        transfer.finish();
        Ok::<_, Failure>(verified?)
    })?;
    let manifest = &verified.manifest;
    let digest = content_digest(&manifest.objects);
    if arguments.json {
        let object = json!({
            "uri": arguments.output.to_string(),
            "task": manifest.task,
            "objects": manifest.objects.len(),
            "bytes": verified.bytes,
            "digest": digest,
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
    say!("{digest}");
    Ok(ExitCode::Ok)
}
