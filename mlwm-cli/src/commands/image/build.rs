//! `mlwm image build`: a base, the runner and an artifact become an image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use mlwm_artifacts::Artifact;
use mlwm_cycles::{Artifacts, Loaded};
use mlwm_engines::{BuildSecret, Engine};
use mlwm_images::{
    Allowed, BuildInputs, Image, ImagePlan, LayerDigests, Lock, Place, assemble, engine, labels,
    refused, scan_layers, secrets,
};
use mlwm_registries::cache_home;
use mlwm_spec::{ArtifactDelivery, ArtifactReference, ExitCode};
use serde_json::json;

use super::parts::{Chosen, artifact_of, runner};
use super::places::{check_places, layout_of, place_in_registry, with_name};
use super::rebase;
use crate::Outcome;
use crate::commands::runtime;
use crate::failure::Failure;
use crate::transfer::Transfer;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  mlwm image build danra_graph_lam\n  mlwm image build --all --push 'registry.example.org/models/{name}:v1'\n  mlwm image build danra_graph_lam --output oci:images:danra"
)]
pub(crate) struct Build {
    #[command(flatten)]
    chosen: Chosen,
    /// The runner; without it, `mlwm-runner` beside `mlwm`.
    #[arg(long, env = "MLWM_RUNNER", value_name = "FILE")]
    runner: Option<PathBuf>,
    /// ONNX Runtime; without it, `libonnxruntime.so` beside `mlwm`, or the one that `ci/setup`
    /// fetched.
    #[arg(long, env = "MLWM_ONNXRUNTIME", value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
    /// Send it to a registry, HOST/PATH:TAG; `{name}` in it is the configuration. No engine is
    /// needed, if the base is not in one.
    #[arg(long, value_name = "REF")]
    push: Option<String>,
    /// Write it into an OCI layout, oci:FOLDER or oci:FOLDER:TAG; without a tag, under the name of
    /// the configuration.
    #[arg(long, short, value_name = "oci:FOLDER")]
    output: Option<String>,
    /// Put it into the local engine; what happens anyway without --push and --output.
    #[arg(long)]
    load: bool,
    /// Where the sources of the image are, for its labels.
    #[arg(long, value_name = "URL")]
    source: Option<String>,
    /// Which revision of them it is made of, for its labels.
    #[arg(long, value_name = "ID")]
    revision: Option<String>,
    /// What steps of a Containerfile find with `RUN --mount=type=secret,id=NAME`: id=NAME,src=FILE or
    /// id=NAME,env=VARIABLE. The image may not hold it. May be given several times.
    #[arg(long, value_name = "id=NAME,src=FILE")]
    secret: Vec<String>,
    /// Certificates, in PEM, that steps of a Containerfile trust which reach servers through a network that
    /// has its own: they find them with `RUN --mount=type=secret,id=ca-bundle`, no file or an empty one without this.
    #[arg(long, env = "MLWM_CA_BUNDLE", value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
    /// A place that was found to hold what looks like a secret, and may: as it was named, or with
    /// `*` at its end. It is recorded in the image. May be given several times.
    #[arg(long, value_name = "PLACE")]
    allow_secret: Vec<String>,
    /// Hash the artifact and the runner again, even if they have not changed since they were hashed.
    #[arg(long)]
    paranoid: bool,
    /// Print what the images would be made of and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print what came of it as JSON, one object per image.
    #[arg(long)]
    json: bool,
}

/// What steps call the certificates that are given with `--ca-bundle`.
const CA_BUNDLE: &str = "ca-bundle";

/// What came of an image at one place.
struct Arrived {
    place: String,
    unchanged: bool,
}

pub(crate) fn main(arguments: Build) -> Outcome {
    let names = arguments.chosen.names()?;
    check_places(&names, arguments.push.iter().chain(&arguments.output))?;
    let created = created()?;
    let given = arguments
        .secret
        .iter()
        .map(|given| BuildSecret::read(given));
    let mut given: Vec<BuildSecret> = given.collect::<Result<_, _>>()?;
    if let Some(file) = &arguments.ca_bundle {
        given.push(ca_bundle(file)?);
    }
    runtime()?.block_on(async {
        let transfer = Transfer::start()?;
        let mut done = Ok(());
        for name in &names {
            done = build(&arguments, name, &created, &given, &transfer).await;
            if done.is_err() {
                break;
            }
        }
        transfer.finish();
        done
    })?;
    Ok(ExitCode::Ok)
}

async fn build(
    arguments: &Build,
    name: &str,
    created: &str,
    given: &[BuildSecret],
    transfer: &Transfer,
) -> Result<(), Failure> {
    let receipts = Artifacts::receipts(arguments.paranoid);
    let loaded = arguments.chosen.load(name, transfer, &receipts).await?;
    let environment = arguments.chosen.environment(&loaded)?;
    let mut given = given.to_vec();
    let is_given = given.iter().any(|secret| secret.id() == CA_BUNDLE);
    if !is_given
        && environment
            .as_ref()
            .is_some_and(|environment| environment.reads(CA_BUNDLE))
    {
        // A step that can do without need not be written twice. BuildKit mounts no file for an empty secret, others
        // an empty one.
        given.push(BuildSecret::new(CA_BUNDLE, Vec::new())?);
    }
    let given = &*given;
    if environment.is_none() && !arguments.secret.is_empty() {
        note!("note: {name} has no Containerfile: no step reads the secrets that are given");
    }
    let runner = match environment {
        Some(_) => None,
        None => Some(runner(
            arguments.runner.clone(),
            arguments.onnxruntime.clone(),
        )?),
    };
    let artifact = artifact_in(&loaded, runner.is_some())?;
    let lock = arguments.chosen.lock(&loaded)?;
    let built = environment
        .as_ref()
        .map(|environment| environment.reference.as_str());
    let reference = loaded.configuration.image_reference(&loaded.name);
    let inputs = BuildInputs {
        configuration: &loaded.name,
        configuration_digest: loaded.digest,
        reference: Some(&reference),
        base: built.or(arguments.chosen.base(&loaded)).unwrap_or_default(),
        base_image: None,
        runner: runner.as_ref(),
        artifact: artifact.as_deref(),
        is_mounted: loaded.configuration.artifact_delivery == ArtifactDelivery::Mount,
        source: arguments.source.as_deref(),
        revision: arguments.revision.as_deref(),
        allowed: &arguments.allow_secret,
        version: env!("CARGO_PKG_VERSION"),
    };
    if arguments.dry_run {
        show(&inputs.plan(&receipts)?);
        return Ok(());
    }
    let ground = arguments
        .chosen
        .ground(&loaded, lock.as_ref(), environment.as_ref(), given)
        .await?;
    let inputs = BuildInputs {
        base_image: Some(&ground.image),
        ..inputs
    };
    let plan = inputs.plan(&receipts)?;
    let notes = cache_home()?.join("mlwm/layers");
    let given = given.to_vec();
    let allowed = Allowed::new(arguments.allow_secret.clone());
    let (planned, created) = (plan.clone(), created.to_owned());
    let digests = match is_pinned(&loaded, lock.as_ref()) {
        true => LayerDigests::at(&notes).of_pinned(receipts),
        false => LayerDigests::at(&notes),
    };
    let (image, found) = in_background(move || {
        let base = &ground.image;
        let image = assemble(&planned, base, artifact.as_ref(), &digests, &created)?;
        let mut found = secrets(&planned, &image, artifact.as_ref())?;
        if ground.is_environment {
            found.extend(scan_layers(base, ground.base.as_ref(), &given, &notes)?);
        }
        Ok((image, refused(found, &allowed).0))
    })
    .await?;
    if !found.is_empty() {
        let configuration = name.to_owned();
        return Err(mlwm_images::Error::Secrets {
            configuration,
            found,
        }
        .into());
    }
    let arrived = deliver(arguments, &loaded, &plan, &image, transfer).await?;
    if arguments.json {
        let places: Vec<_> = arrived
            .iter()
            .map(|arrived| json!({"place": arrived.place, "unchanged": arrived.unchanged}))
            .collect();
        say!(
            "{}",
            json!({"configuration": name, "digest": image.digest(), "id": image.id(),
                "size": image.size(), "places": places})
        );
        return Ok(());
    }
    for arrived in arrived {
        let unchanged = if arrived.unchanged {
            " (unchanged)"
        } else {
            ""
        };
        say!("{}{unchanged}", arrived.place);
    }
    say!("{}", image.digest());
    Ok(())
}

/// The certificates in a file.
fn ca_bundle(file: &Path) -> Result<BuildSecret, Failure> {
    let read = std::fs::read(file);
    let bytes = read.map_err(|error| Failure::local("read the certificates", file, &error))?;
    if !String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE-----") {
        let message = format!(
            "{} holds no certificate in PEM: give the bundle of your network's authority",
            file.display()
        );
        return Err(Failure::new(ExitCode::Usage, message));
    }
    Ok(BuildSecret::new(CA_BUNDLE, bytes)?)
}

/// The artifact that goes into the image, with its digest, which must be the one that the
/// configuration was loaded with; none if it is mounted.
fn artifact_in(loaded: &Loaded, onnx: bool) -> Result<Option<Arc<Artifact>>, Failure> {
    // One that is mounted need not be on this machine, and should fit if it is.
    let Some(facts) = &loaded.artifact else {
        return Ok(None);
    };
    let artifact = artifact_of(facts, onnx)?;
    if loaded.configuration.artifact_delivery == ArtifactDelivery::Mount {
        return Ok(None);
    }
    // It was hashed when it was loaded.
    let artifact = Artifacts::receipts(false).open(artifact.path())?;
    let found = artifact.digest()?;
    if facts.digest != found {
        let (path, expected) = (artifact.path().to_owned(), facts.digest);
        return Err(mlwm_registries::Error::Replaced {
            path,
            expected,
            found,
        }
        .into());
    }
    Ok(Some(Arc::new(artifact)))
}

/// Whether the artifact has a digest that was told by a lock or a registry, which take only artifacts
/// whose files are what it records of them.
fn is_pinned(loaded: &Loaded, lock: Option<&Lock>) -> bool {
    let artifact = &loaded.configuration.artifact;
    lock.is_some() || matches!(artifact, Some(ArtifactReference::Published(_)))
}

/// Runs what reads and writes for long on a thread of its own.
pub(super) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, mlwm_images::Error> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|panic| mlwm_images::Error::Broken(panic.to_string()))??)
}

/// Brings an image to all places that were asked for.
async fn deliver(
    arguments: &Build,
    loaded: &Loaded,
    plan: &ImagePlan,
    image: &Image,
    transfer: &Transfer,
) -> Result<Vec<Arrived>, Failure> {
    let mut arrived = Vec::new();
    if let Some(output) = &arguments.output {
        let (folder, tag) = layout_of(output, &loaded.name)?;
        let tag = tag.unwrap_or_else(|| loaded.name.clone());
        let place = Place::Layout {
            folder,
            tag: Some(tag),
            digest: None,
        };
        let unchanged = rebase::deliver(image, &place, transfer).await?;
        let place = place.to_string();
        arrived.push(Arrived { place, unchanged });
    }
    if let Some(reference) = &arguments.push {
        let reference = with_name(reference, &loaded.name);
        let place = place_in_registry(&reference)?;
        let unchanged = rebase::deliver(image, &place, transfer).await?;
        arrived.push(Arrived {
            place: reference,
            unchanged,
        });
    }
    if arguments.load || arrived.is_empty() {
        let engine = Engine::connect().await?;
        let planned = plan.labels.get(labels::BUILD);
        let there = engine.image(&plan.reference).await?;
        let unchanged = there.is_some_and(|there| there.labels.get(labels::BUILD) == planned);
        if !unchanged {
            engine::load(image, &plan.reference, &engine).await?;
        }
        arrived.push(Arrived {
            place: plan.reference.clone(),
            unchanged,
        });
    }
    Ok(arrived)
}

/// The time that images say they were created at: that of `SOURCE_DATE_EPOCH`, else 1970, so that the
/// same parts give the same bytes.
fn created() -> Result<String, Failure> {
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse::<i64>().map_err(|_| {
            let message = format!("SOURCE_DATE_EPOCH is `{text}`: give whole seconds since 1970");
            Failure::new(ExitCode::Usage, message)
        })?,
        Err(_) => 0,
    };
    let time = jiff::Timestamp::from_second(seconds).map_err(|error| {
        Failure::new(
            ExitCode::Usage,
            format!("SOURCE_DATE_EPOCH cannot be a time: {error}"),
        )
    })?;
    Ok(time.to_string())
}

/// What an image would be made of.
fn show(plan: &ImagePlan) {
    say!("image {}\nbase  {}", plan.reference, plan.base);
    for (name, value) in &plan.labels {
        say!("label {name}={value}");
    }
    for file in &plan.files {
        say!("file  {:>12} {} {}", file.size, file.digest, file.path);
    }
}
