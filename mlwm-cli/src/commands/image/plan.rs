//! `mlwm image plan`: which images would be built anew, and why.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use mlwm_cycles::{Artifacts, Loaded};
use mlwm_engines::Engine;
use mlwm_images::{BuildInputs, Lock, Place, find, labels};
use mlwm_spec::{ArtifactDelivery, Digest, ExitCode};
use mlwm_storage::oci::OciOptions;
use serde::Serialize;

use super::parts::{Chosen, artifact_of, runner};
use super::places::{check_places, layout_of, place_in_registry, with_name};
use crate::Outcome;
use crate::commands::runtime;
use crate::failure::Failure;
use crate::transfer::Transfer;

/// Labels that say what an image is made of, and what each is called.
const PARTS: [(&str, &str); 6] = [
    (labels::RUNNER_DIGEST, "runner"),
    (labels::ARTIFACT_DIGEST, "artifact"),
    (labels::DELIVERY, "artifact delivery"),
    (labels::CONFIGURATION_DIGEST, "configuration"),
    (labels::MLWM_VERSION, "mlwm"),
    (labels::CONTRACT, "contract"),
];

#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm image plan --all --push 'registry.example.org/models/{name}:v1' --json   # in CI\n\nArtifacts that are not on this machine are not fetched: their digests are those of the configurations."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    chosen: Chosen,
    /// The runner; without it, `mlwm-runner` beside `mlwm`.
    #[arg(long, env = "MLWM_RUNNER", value_name = "FILE")]
    runner: Option<PathBuf>,
    /// ONNX Runtime; without it, `libonnxruntime.so` beside `mlwm`, or the one that `ci/setup`
    /// fetched.
    #[arg(long, env = "MLWM_ONNXRUNTIME", value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
    /// Look in a registry, at HOST/PATH:TAG; `{name}` in it is the configuration. Without this and
    /// --output, in the local engine.
    #[arg(long, value_name = "REF", conflicts_with = "output")]
    push: Option<String>,
    /// Look in an OCI layout, at oci:FOLDER or oci:FOLDER:TAG; without a tag, for the name of the
    /// configuration.
    #[arg(long, short, value_name = "oci:FOLDER")]
    output: Option<String>,
    /// The same as for `mlwm image build`: it is recorded in the image.
    #[arg(long, value_name = "PLACE")]
    allow_secret: Vec<String>,
    /// Print it as JSON: an array of objects with `configuration`, `place`, `rebuild`, `reasons`.
    #[arg(long)]
    json: bool,
}

/// What is to be done for a configuration.
#[derive(Serialize)]
struct Decision {
    configuration: String,
    place: String,
    rebuild: bool,
    reasons: Vec<String>,
}

/// What an image is to be made of.
struct Wanted {
    labels: BTreeMap<String, String>,
    /// The label that says what our layers lie on, and what that is called.
    base: (&'static str, &'static str),
}

/// What is where an image would go.
enum There {
    Nothing,
    /// An image that cannot be used, and why.
    Unusable(String),
    /// An image with these labels.
    Labelled(BTreeMap<String, String>),
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let names = arguments.chosen.names()?;
    check_places(&names, arguments.push.iter().chain(&arguments.output))?;
    let decisions = runtime()?.block_on(async {
        let transfer = Transfer::start()?;
        let mut decisions = Vec::new();
        for name in &names {
            decisions.push(decide(arguments, name, &transfer).await?);
        }
        transfer.finish();
        Ok::<_, Failure>(decisions)
    })?;
    if arguments.json {
        // In one line, as the outputs of CI jobs must be.
        say!("{}", serde_json::json!(decisions));
        return Ok(ExitCode::Ok);
    }
    for decision in decisions {
        match decision.rebuild {
            true => say!(
                "{}: rebuild: {}",
                decision.configuration,
                decision.reasons.join(", ")
            ),
            false => say!("{}: up to date", decision.configuration),
        }
    }
    Ok(ExitCode::Ok)
}

async fn decide(
    arguments: &Arguments,
    name: &str,
    transfer: &Transfer,
) -> Result<Decision, Failure> {
    let chosen = &arguments.chosen;
    let loaded = chosen.look(name, transfer).await?;
    let place = place_of(arguments, &loaded)?;
    let wanted = wanted(arguments, &loaded).await?;
    let reasons = match there(arguments, &place).await? {
        There::Nothing => vec!["no image there".to_owned()],
        There::Unusable(why) => vec![why],
        There::Labelled(found) => reasons(&found, &wanted),
    };
    Ok(Decision {
        configuration: loaded.name,
        place: place.to_string(),
        rebuild: !reasons.is_empty(),
        reasons,
    })
}

/// Where the image of a configuration would go.
fn place_of(arguments: &Arguments, loaded: &Loaded) -> Result<Place, Failure> {
    if let Some(output) = &arguments.output {
        let (folder, tag) = layout_of(output, &loaded.name)?;
        return Ok(Place::Layout {
            folder,
            tag: tag.or_else(|| Some(loaded.name.clone())),
            digest: None,
        });
    }
    let Some(reference) = &arguments.push else {
        let reference = loaded.configuration.image_reference(&loaded.name);
        return Ok(Place::Engine(reference));
    };
    place_in_registry(&with_name(reference, &loaded.name))
}

/// The labels that a build would give to the image, as far as they can be known without fetching or
/// building anything.
async fn wanted(arguments: &Arguments, loaded: &Loaded) -> Result<Wanted, Failure> {
    let chosen = &arguments.chosen;
    let environment = chosen.environment(loaded)?;
    let runner = match environment {
        Some(_) => None,
        None => Some(runner(
            arguments.runner.clone(),
            arguments.onnxruntime.clone(),
        )?),
    };
    let digest = loaded.artifact_digest();
    // Of an artifact that is not on this machine, the digest suffices.
    let facts = loaded.artifact.as_ref();
    let artifact = facts.map(|facts| artifact_of(facts, runner.is_some()));
    let artifact = artifact.transpose()?;
    let is_mounted = loaded.configuration.artifact_delivery == ArtifactDelivery::Mount;
    let path = chosen.lock_file(&loaded.name);
    let lock = Lock::read(&path)?;
    if let Some(lock) = &lock {
        lock.check(&path, chosen.base(loaded), digest)?;
    }
    // An environment is named after its content; what its base is now matters to the lock alone.
    let base = match environment.is_none() || lock.is_some() {
        true => chosen.find_base(loaded, lock.as_ref()).await?,
        false => None,
    };
    let built = environment.as_ref().map(|one| one.reference.as_str());
    let reference = loaded.configuration.image_reference(&loaded.name);
    let inputs = BuildInputs {
        configuration: &loaded.name,
        configuration_digest: loaded.digest,
        reference: Some(&reference),
        base: built.or(chosen.base(loaded)).unwrap_or_default(),
        base_image: base.as_ref().filter(|_| environment.is_none()),
        runner: runner.as_ref(),
        artifact: artifact.as_deref().filter(|_| !is_mounted),
        is_mounted,
        source: None,
        revision: None,
        allowed: &arguments.allow_secret,
        version: env!("CARGO_PKG_VERSION"),
    };
    let mut labels = inputs.plan(&Artifacts::receipts(false))?.labels;
    if artifact.is_none() && !is_mounted {
        labels.remove(labels::BUILD);
        labels.remove(labels::DELIVERY);
    }
    if let Some(digest) = digest.filter(|_| !is_mounted) {
        labels.insert(labels::ARTIFACT_DIGEST.to_owned(), digest.to_string());
    }
    Ok(Wanted {
        labels,
        base: match environment {
            Some(_) => (labels::BASE_NAME, "environment"),
            None => (labels::BASE_DIGEST, "base"),
        },
    })
}

/// Looks up the image at a place. An engine is only asked for the labels.
async fn there(arguments: &Arguments, place: &Place) -> Result<There, Failure> {
    if let Place::Engine(reference) = place {
        let found = Engine::connect().await?.image(reference).await?;
        return Ok(match found {
            Some(image) => There::Labelled(image.labels),
            None => There::Nothing,
        });
    }
    let platform = arguments.chosen.platform();
    match find(place, &platform, &OciOptions::default()).await {
        Ok(Some(image)) => Ok(There::Labelled(image.summary().labels)),
        Ok(None) => Ok(There::Nothing),
        Err(error @ mlwm_images::Error::BadImage { .. }) => Ok(There::Unusable(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// Why an image with the labels `found` is not the wanted one.
fn reasons(found: &BTreeMap<String, String>, wanted: &Wanted) -> Vec<String> {
    if !found.contains_key(labels::CONFIGURATION) {
        return vec!["the image there was not made by mlwm".to_owned()];
    }
    let change = |(label, what): (&str, &str)| {
        let (old, new) = (found.get(label), wanted.labels.get(label));
        (old != new).then(|| format!("{what} {} → {}", short(old), short(new)))
    };
    let name = [(labels::CONFIGURATION, "name"), wanted.base];
    let mut reasons: Vec<String> = name.into_iter().chain(PARTS).filter_map(change).collect();
    // What has no label of its own, such as ONNX Runtime; a rebased image does not say it.
    let told = [found, &wanted.labels].map(|labels| labels.contains_key(labels::BUILD));
    if reasons.is_empty() && told == [true, true] {
        reasons.extend(change((labels::BUILD, "other parts")));
    }
    reasons
}

/// A value in short, if it is a digest.
fn short(value: Option<&String>) -> String {
    let Some(value) = value else {
        return "none".to_owned();
    };
    match value.parse::<Digest>() {
        Ok(digest) => format!("sha256:{}…", &digest.hex()[..12]),
        Err(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: (&str, &str) = (labels::BASE_DIGEST, "base");

    fn labels_of(changes: &[(&str, &str)]) -> BTreeMap<String, String> {
        let parts = PARTS.into_iter().chain([BASE]);
        let mut all: BTreeMap<String, String> = parts
            .map(|(label, what)| (label.to_owned(), Digest::of(what).to_string()))
            .collect();
        all.insert(labels::CONFIGURATION.to_owned(), "danra".to_owned());
        all.insert(
            labels::BASE_NAME.to_owned(),
            "mlwm-environment/danra:1".to_owned(),
        );
        all.insert(labels::BUILD.to_owned(), "all".to_owned());
        for (label, value) in changes {
            all.insert((*label).to_owned(), (*value).to_owned());
        }
        all
    }

    fn wanted(changes: &[(&str, &str)]) -> Wanted {
        Wanted {
            labels: labels_of(changes),
            base: BASE,
        }
    }

    #[test]
    fn what_changed_is_said_and_nothing_else() {
        let there = labels_of(&[(labels::REVISION, "1"), (labels::BASE_NAME, "moved")]);
        assert!(reasons(&there, &wanted(&[])).is_empty());
        let other = Digest::of("other").to_string();
        for (label, what) in PARTS.into_iter().chain([BASE]) {
            let wanted = wanted(&[(label, &other), (labels::BUILD, "changed")]);
            let old = Digest::of(what).hex();
            let said = format!(
                "{what} sha256:{}… → sha256:{}…",
                &old[..12],
                &Digest::of("other").hex()[..12]
            );
            assert_eq!(reasons(&there, &wanted), [said]);
        }
        let several = wanted(&[(labels::CONTRACT, "2"), (labels::MLWM_VERSION, "9")]);
        assert_eq!(reasons(&there, &several).len(), 2);
        assert_eq!(
            reasons(&BTreeMap::new(), &several),
            ["the image there was not made by mlwm"]
        );
    }

    #[test]
    fn an_environment_is_known_by_its_name() {
        let there = labels_of(&[]);
        let mut wanted = wanted(&[(labels::BASE_NAME, "mlwm-environment/danra:2")]);
        wanted.labels.remove(labels::BASE_DIGEST);
        wanted.base = (labels::BASE_NAME, "environment");
        assert_eq!(
            reasons(&there, &wanted),
            ["environment mlwm-environment/danra:1 → mlwm-environment/danra:2"]
        );
    }

    #[test]
    fn parts_without_a_label_count_where_they_are_known() {
        let (there, wanted) = (labels_of(&[]), wanted(&[(labels::BUILD, "changed")]));
        assert_eq!(reasons(&there, &wanted), ["other parts all → changed"]);
        let mut rebased = there.clone();
        rebased.remove(labels::BUILD);
        assert!(reasons(&rebased, &wanted).is_empty());
        let mut unread = wanted;
        unread.labels.remove(labels::BUILD);
        assert!(reasons(&there, &unread).is_empty());
    }

    #[test]
    fn a_part_that_goes_is_a_change() {
        let mut wanted = wanted(&[]);
        wanted.labels.remove(labels::ARTIFACT_DIGEST);
        let found = reasons(&labels_of(&[]), &wanted);
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("→ none"), "{found:?}");
    }
}
