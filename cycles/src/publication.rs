//! The record of a published output.

use mlwm_engines::Image;
use mlwm_spec::Manifest;
use mlwm_spec::configuration::Gpus;
use mlwm_spec::manifest::{GribRecord, MANIFEST_VERSION, NamedDigest, ObjectRecord, RunRecord};
use serde_json::json;

use crate::complete::Complete;
use crate::history::this_host;
use crate::place::Place;
use crate::plan::PlannedTask;
use crate::run::Context;

/// The manifest of one output of a task.
pub(crate) fn manifest(
    context: &Context<'_>,
    planned: &PlannedTask,
    place: &Place,
    image: &Image,
    complete: &Complete,
    grib: Option<&GribRecord>,
    objects: Vec<ObjectRecord>,
) -> Manifest {
    let engine = context.engine.info();
    Manifest {
        version: MANIFEST_VERSION,
        task: complete.identity,
        output: place.output.name.clone(),
        uri: place.uri.to_string(),
        analysis_time: planned.analysis_time,
        member: planned.member,
        forecast_duration: planned.forecast_duration(),
        seed: planned.seed,
        deterministic: planned.is_deterministic(),
        configuration: NamedDigest {
            name: planned.configuration.clone(),
            digest: planned.configuration_digest,
        },
        image: NamedDigest {
            name: planned.image.clone(),
            digest: image.id,
        },
        artifact: planned.artifact.as_ref().map(|artifact| NamedDigest {
            name: artifact.name.clone(),
            digest: artifact.digest,
        }),
        inputs: complete.inputs.clone(),
        plan: json!(planned),
        ensemble: None,
        grib: grib.cloned(),
        // The store knows what was there before.
        replaces: Vec::new(),
        removed: None,
        run: RunRecord {
            mlwm: context.options.version.clone(),
            engine: format!("{:?} {}", engine.kind, engine.version),
            host: Some(this_host()),
            gpus: gpus(planned),
            started: complete.ran.started.clone(),
            finished: complete.ran.finished.clone(),
        },
        objects,
    }
}

fn gpus(planned: &PlannedTask) -> Vec<String> {
    match &planned.resources.gpus {
        None => Vec::new(),
        Some(Gpus::Count(count)) => vec![count.to_string()],
        Some(Gpus::One(device)) => vec![device.clone()],
        Some(Gpus::Devices(devices)) => devices.clone(),
    }
}
