//! Products of the values of an ensemble's members, made window by window from what the members published:
//! of the variables that products are made of, each value is read once, and no more than a window lies here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use mlwm_datasets::Dataset;
use mlwm_datasets::ensemble::Ensemble;
use mlwm_datasets::forecast_store::{
    ForecastStore, Missing, StoreOptions, StoredAs, VariableOptions, Windows,
};
use mlwm_spec::configuration;
use mlwm_spec::manifest::{ObjectRecord, content_digest};
use mlwm_spec::{Digest, Manifest};
use mlwm_storage::points::reach;
use mlwm_storage::{Expected, Progress, Publishing, Store, Uri};

use super::members::Member;
use crate::plan::{PlannedEnsemble, PlannedProducts};
use crate::run::Context;
use crate::scratch::{create, remove};
use crate::{Error, output};

/// How many objects are brought at once.
const AT_ONCE: usize = 16;

/// The published output of a member, as far as it was brought here.
struct Source<'a> {
    number: u32,
    manifest: &'a Manifest,
    content: Digest,
    store: Store,
    uri: Uri,
    folder: PathBuf,
}

/// Makes products in `folder/output`; what is sent by `publishing` does not stay there.
pub(super) async fn make(
    context: &Context<'_>,
    planned: &PlannedEnsemble,
    asked: &PlannedProducts,
    members: &[Member],
    folder: &Path,
    publishing: &mut Option<Publishing>,
) -> Result<(), Error> {
    let refuse = |reason: String| Error::Products {
        ensemble: planned.title(),
        reason,
    };
    let mut sources = Vec::with_capacity(members.len());
    for member in members {
        let manifest = member
            .manifests
            .iter()
            .find(|manifest| manifest.output == asked.of);
        let manifest =
            manifest.ok_or_else(|| refuse(format!("the members have no output `{}`", asked.of)))?;
        let uri: Uri = manifest.uri.parse()?;
        sources.push(Source {
            number: member.number,
            manifest,
            content: content_digest(&manifest.objects),
            store: Store::open(&uri).await?,
            uri,
            folder: folder.join("members").join(member.number.to_string()),
        });
    }
    let Some(first) = sources.first() else {
        return Ok(());
    };
    bring_skeleton(context, first).await?;
    let (at, time, of) = (first.folder.clone(), planned.analysis_time, asked.clone());
    let plan = move || plan(&at, time, &of);
    let members_store = unless_cancelled(context, plan).await??;
    let members_store = Arc::new(members_store);
    let numbers: BTreeSet<u32> = sources.iter().map(|source| source.number).collect();
    let (made, variables, set) = (Arc::clone(&members_store), asked.variables.clone(), numbers);
    let set = Arc::new(set);
    let target = {
        let set = Arc::clone(&set);
        let plan = move || Ensemble::new(&made, variables)?.store(&set, &serde_json::Map::new());
        Arc::new(unless_cancelled(context, plan).await??)
    };
    for source in &sources[1..] {
        bring_skeleton(context, source).await?;
    }
    let (state, made) = (folder.join("state"), folder.join("output"));
    for window in members_store.windows() {
        let shards: Vec<String> = asked
            .variables
            .keys()
            .map(|variable| members_store.shard_path(variable, window))
            .collect::<Result<_, _>>()?;
        let bytes = space(&members_store, asked, &sources, &shards, window)?;
        let budget = context.machine.disk.budget();
        if bytes > budget {
            return Err(refuse(format!(
                "a window of them takes {bytes} bytes of the working folder, which may use {budget}: give more with --disk, or ask for fewer"
            )));
        }
        let _space = tokio::select! {
            space = context.machine.disk.reserve(bytes, 0) => space,
            () = context.cancel.cancelled() => return Err(Error::Interrupted),
        };
        let _held = context.machine.disk.hold(bytes);
        create(&state)?;
        for source in &sources {
            let objects = source.manifest.objects.iter();
            let objects = objects.filter(|object| shards.contains(&object.path));
            bring(context, source, objects).await?;
            let (store, variables) = (Arc::clone(&members_store), asked.variables.clone());
            let (state, at) = (state.clone(), source.folder.clone());
            let (number, content) = (source.number, source.content);
            let add = move || {
                let dataset = Dataset::open(&at).map_err(|error| error.to_string())?;
                let ensemble = Ensemble::new(&store, variables).map_err(|e| e.to_string())?;
                let added = ensemble.add_published(&state, number, content, window, &dataset);
                added.map_err(|error| error.to_string())
            };
            let added = unless_cancelled(context, add).await?;
            added.map_err(|reason| refuse(format!("member {number}: {reason}")))?;
            for shard in &shards {
                let path = source.folder.join(shard);
                std::fs::remove_file(&path)
                    .map_err(|source| crate::scratch::failed(&path, source))?;
            }
        }
        let (store, variables, set) = (
            Arc::clone(&members_store),
            asked.variables.clone(),
            Arc::clone(&set),
        );
        let (from, to, target) = (state.clone(), made.clone(), Arc::clone(&target));
        let write = move || {
            let ensemble = Ensemble::new(&store, variables)?;
            ensemble.write_window(&from, window, &set, &target, &to)
        };
        unless_cancelled(context, write).await??;
        remove(&state)?;
        reach("ensemble: window made");
        if let Some(publishing) = publishing {
            let none = Progress::none();
            publishing.add(&made, &none, context.cancel).await?;
            remove(&made)?;
            create(&made)?;
            reach("ensemble: window sent");
        }
    }
    remove(&folder.join("members"))?;
    unless_cancelled(context, move || target.finish(&made)).await??;
    Ok(())
}

/// What a window takes here at most: the shards of one member, what is accumulated, once more while a member
/// is added, and the products.
fn space(
    store: &ForecastStore,
    asked: &PlannedProducts,
    sources: &[Source<'_>],
    shards: &[String],
    window: u64,
) -> Result<u64, Error> {
    let of_member = |source: &Source<'_>| -> u64 {
        let objects = source.manifest.objects.iter();
        let objects = objects.filter(|object| shards.contains(&object.path));
        objects.map(|object| object.size).sum()
    };
    let largest = sources.iter().map(of_member).max().unwrap_or(0);
    let ensemble = Ensemble::new(store, asked.variables.clone())?;
    let accumulated = ensemble.expected_bytes(window, sources.len());
    Ok(largest + 3 * accumulated)
}

/// Brings all of a member's store but the values of its variables.
async fn bring_skeleton(context: &Context<'_>, source: &Source<'_>) -> Result<(), Error> {
    let objects = &source.manifest.objects;
    let is_metadata = |object: &&ObjectRecord| object.path.ends_with("zarr.json");
    bring(context, source, objects.iter().filter(is_metadata)).await?;
    let at = source.folder.clone();
    let names = unless_cancelled(context, move || {
        let dataset = Dataset::open(&at).map_err(|error| error.to_string())?;
        output::data_variables(&dataset)
    });
    let names = names.await?.map_err(|reason| Error::Products {
        ensemble: source.uri.to_string(),
        reason,
    })?;
    let is_coordinate = |object: &&ObjectRecord| {
        let array = object.path.split('/').next().unwrap_or_default();
        !object.path.ends_with("zarr.json") && !names.iter().any(|name| name == array)
    };
    bring(context, source, objects.iter().filter(is_coordinate)).await
}

async fn bring(
    context: &Context<'_>,
    source: &Source<'_>,
    objects: impl Iterator<Item = &ObjectRecord>,
) -> Result<(), Error> {
    let none = Progress::none();
    let bring_one = async |object: &ObjectRecord| {
        let path = source.folder.join(&object.path);
        if let Some(folder) = path.parent() {
            create(folder)?;
        }
        let from = source.uri.join(&object.path)?;
        let expected = Expected {
            size: object.size,
            digest: object.sha256,
        };
        let brought = source
            .store
            .download(&from, &expected, &path, &none, context.cancel);
        Ok::<_, Error>(brought.await?)
    };
    futures::stream::iter(objects)
        .map(bring_one)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// How the members' stores lie in time and space.
fn plan(
    folder: &Path,
    analysis_time: mlwm_spec::AnalysisTime,
    asked: &PlannedProducts,
) -> Result<ForecastStore, Error> {
    let refuse = |reason: String| Error::Products {
        ensemble: asked.of.clone(),
        reason,
    };
    let dataset = Dataset::open(folder).map_err(|error| refuse(error.to_string()))?;
    let leads = output::lead_times(&dataset, analysis_time).map_err(refuse)?;
    let from = asked.windows.hours.map_or(0, |hours| hours.from * 3600);
    let step = leads
        .first()
        .map(|lead| lead.unsigned_abs().saturating_sub(from))
        .filter(|step| *step > 0)
        .ok_or_else(|| refuse("it has no lead time after the analysis time".to_owned()))?;
    let steps = asked.forecast_duration.seconds().unsigned_abs() / step;
    let length = asked.windows.length.seconds().unsigned_abs();
    let windows = Windows::new(analysis_time, step, steps, length)?;
    let options = |name: &String| VariableOptions {
        stored: match asked.windows.stored_as.get(name) {
            Some(configuration::StoredAs::Float16) => StoredAs::Float16,
            _ => StoredAs::Float32,
        },
        missing: match asked.windows.missing.contains(name) {
            true => Missing::Anywhere,
            false => Missing::Nowhere,
        },
        range: None,
    };
    let variables: BTreeMap<String, VariableOptions> = asked
        .variables
        .keys()
        .map(|name| (name.clone(), options(name)))
        .collect();
    let options = StoreOptions {
        variables,
        hours: asked.windows.hours.map(|hours| hours.from..hours.to),
        attributes: serde_json::Map::new(),
    };
    Ok(ForecastStore::plan(&dataset, windows, &options)?)
}

/// Runs what blocks on a thread of its own, and waits for its end also when told to stop: another mlwm may be at the
/// same folder as soon as this one is not.
async fn unless_cancelled<T: Send + 'static>(
    context: &Context<'_>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await?;
    match context.cancel.is_cancelled() {
        true => Err(Error::Interrupted),
        false => Ok(done),
    }
}
