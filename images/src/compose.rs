//! An image out of a base and layers of ours (pure): what its documents say.

use std::collections::BTreeMap;

use mlwm_storage::Content;
use serde_json::{Map, Value, json};

use crate::Error;
use crate::assembled::Assembled;
use crate::image::{Image, Layer, LayerSource};
use crate::labels;
use crate::oci::{CONFIG, Descriptor, LAYER_TAR, MANIFEST, Manifest, to_json};

/// What the history of an image says before each of our layers.
pub(crate) const HISTORY: &str = "mlwm: ";

/// A layer that is put on a base.
#[derive(Clone)]
pub(crate) struct Addition {
    /// What is in it, for the history of the image.
    pub(crate) what: String,
    /// The layer.
    pub(crate) layer: Layer,
}

impl Addition {
    /// A layer of ours, which is put together when it is read.
    pub(crate) fn of(what: String, layer: Assembled) -> Self {
        let digest = layer.sha256();
        Self {
            what,
            layer: Layer {
                descriptor: Descriptor::new(LAYER_TAR, digest, layer.size()),
                diff_id: digest,
                source: LayerSource::Assembled(layer),
            },
        }
    }
}

/// How the image is run, where that differs from its base.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Execution {
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) working_folder: Option<String>,
    pub(crate) environment: BTreeMap<String, String>,
}

/// The base with the additions on it. `created` is in RFC 3339.
pub(crate) fn compose(
    base: &Image,
    additions: &[Addition],
    execution: &Execution,
    labels: &BTreeMap<String, String>,
    created: &str,
) -> Result<Image, Error> {
    let mut layers = Vec::new();
    let ours = additions.iter().map(|addition| &addition.layer);
    for layer in base.layers.iter().chain(ours) {
        let descriptor = layer
            .descriptor
            .as_oci_layer()
            .map_err(|why| Error::BadImage {
                image: format!("the base image {}", base.digest()),
                why,
            })?;
        layers.push(Layer {
            descriptor,
            ..layer.clone()
        });
    }
    let mut labels = labels.clone();
    labels.insert(labels::CREATED.to_owned(), created.to_owned());
    let config = to_json(&config_of(base, additions, execution, &labels, created));
    let parsed = Manifest {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        config: Descriptor::of(CONFIG, &config),
        layers: layers
            .iter()
            .map(|layer| layer.descriptor.clone())
            .collect(),
        annotations: labels,
    };
    Ok(Image {
        manifest: to_json(&parsed),
        parsed,
        config,
        layers,
    })
}

/// The config of the base, with all that it says and mlwm does not know.
fn config_of(
    base: &Image,
    additions: &[Addition],
    execution: &Execution,
    labels: &BTreeMap<String, String>,
    created: &str,
) -> Value {
    let mut document = base.document();
    // Facts of the machine that built the base, which engines have stopped writing.
    for old in [
        "container",
        "container_config",
        "docker_version",
        "id",
        "parent",
    ] {
        if let Some(document) = document.as_object_mut() {
            document.shift_remove(old);
        }
    }
    document["created"] = json!(created);
    let run = object(&mut document["config"]);
    run.shift_remove("Image");
    if let Some(entrypoint) = &execution.entrypoint {
        run.insert("Entrypoint".to_owned(), json!(entrypoint));
        // The arguments of the base are for its own program.
        run.shift_remove("Cmd");
    }
    if let Some(folder) = &execution.working_folder {
        run.insert("WorkingDir".to_owned(), json!(folder));
    }
    let environment = array(run.entry("Env").or_insert(Value::Null));
    for (name, value) in &execution.environment {
        let of_name = |entry: &Value| {
            let name_of = entry.as_str().and_then(|entry| entry.split_once('='));
            name_of.is_some_and(|(found, _)| found == name)
        };
        environment.retain(|entry| !of_name(entry));
        environment.push(json!(format!("{name}={value}")));
    }
    let all = object(run.entry("Labels").or_insert(Value::Null));
    for (name, value) in labels {
        all.insert(name.clone(), json!(value));
    }
    all.sort_keys();

    let root = object(&mut document["rootfs"]);
    root.insert("type".to_owned(), json!("layers"));
    let ids = additions.iter().map(|added| json!(added.layer.diff_id));
    array(root.entry("diff_ids").or_insert(Value::Null)).extend(ids);
    let history = additions.iter().map(
        |addition| json!({"created": created, "created_by": format!("{HISTORY}{}", addition.what)}),
    );
    array(&mut document["history"]).extend(history);
    document
}

/// The value as an object, made one if it is none.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was just made an object"),
    }
}

/// The value as a list, made one if it is none.
fn array(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    match value {
        Value::Array(list) => list,
        _ => unreachable!("it was just made a list"),
    }
}
