//! How a published output came about, in the form that tools for supply chains read.

use mlwm_spec::manifest::InputRecord;
use mlwm_spec::{Digest, Manifest};
use serde_json::{Value, json};

/// The type of a statement: <https://in-toto.io/Statement/v1>.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// The type of its predicate: <https://slsa.dev/provenance/v1>.
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// What kind of building a forecast is: the container contract.
const BUILD_TYPE: &str = "urn:mlwm:container-contract:1";
/// The same of an ensemble: made of what its members published.
const ENSEMBLE: &str = "urn:mlwm:ensemble:1";

/// A manifest as a statement of in-toto whose predicate is SLSA provenance: subjects are the objects
/// of the output, dependencies what it was made of.
pub fn statement(manifest: &Manifest) -> Value {
    let subjects: Vec<Value> = manifest
        .objects
        .iter()
        .map(|object| json!({"name": object.path, "digest": hex(object.sha256)}))
        .collect();
    let mut dependencies = vec![
        json!({
            "name": "configuration",
            "uri": manifest.configuration.name,
            "digest": hex(manifest.configuration.digest),
        }),
        json!({"name": "image", "uri": manifest.image.name, "digest": hex(manifest.image.digest)}),
    ];
    if let Some(artifact) = &manifest.artifact {
        dependencies.push(
            json!({"name": "artifact", "uri": artifact.name, "digest": hex(artifact.digest)}),
        );
    }
    dependencies.extend(manifest.inputs.iter().map(input));
    let converters = manifest.inputs.iter().filter_map(|input| {
        let converter = input.converter.as_ref()?;
        Some(json!({
            "name": format!("converter of input {}", input.name),
            "uri": converter.name,
            "digest": hex(converter.digest),
        }))
    });
    dependencies.extend(converters);
    let run = &manifest.run;
    let mut parameters = json!({"seed": manifest.seed, "plan": manifest.plan});
    if manifest.deterministic {
        parameters["deterministic"] = json!(true);
    }
    json!({
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": match manifest.ensemble {
                    None => BUILD_TYPE,
                    Some(_) => ENSEMBLE,
                },
                "externalParameters": {
                    "configuration": manifest.configuration.name,
                    "analysisTime": manifest.analysis_time,
                    "member": match manifest.ensemble {
                        None => json!(manifest.member),
                        Some(_) => Value::Null,
                    },
                    "ensemble": manifest.ensemble,
                    "forecastDuration": manifest.forecast_duration,
                    "output": manifest.output,
                    "uri": manifest.uri,
                },
                "internalParameters": parameters,
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {
                    "id": "urn:mlwm:cycles",
                    "version": {"mlwm": run.mlwm, "engine": run.engine},
                },
                "metadata": {
                    "invocationId": manifest.task,
                    "startedOn": run.started,
                    "finishedOn": run.finished,
                },
                "byproducts": [{
                    "name": "host",
                    "annotations": {"host": run.host, "gpus": run.gpus},
                }],
            },
        },
    })
}

fn input(input: &InputRecord) -> Value {
    json!({
        "name": format!("input {}", input.name),
        "uri": input.uri,
        "digest": hex(input.digest),
        "annotations": {"objects": input.objects, "bytes": input.bytes},
    })
}

/// A digest as in-toto writes it.
fn hex(digest: Digest) -> Value {
    json!({"sha256": digest.hex()})
}
