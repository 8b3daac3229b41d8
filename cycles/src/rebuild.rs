//! A ledger from what is published: manifests are the truth, and the ledger only their history.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mlwm_ledger::{Found, Ledger, Published, TaskName};
use mlwm_spec::manifest::{MANIFEST_SUFFIX, content_digest};
use mlwm_spec::{Configuration, Manifest};
use mlwm_storage::{Store, Uri};

use crate::Error;

/// What a search for manifests came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Tasks that were found published, and are in the ledger now.
    pub tasks: u64,
    /// Outputs of them.
    pub outputs: u64,
    /// Manifests of other configurations, or that cannot be read.
    pub passed_over: u64,
}

/// Looks for what was published of configurations, by name, at all analysis times, and notes it in
/// the ledger. What the ledger knows already stays.
pub async fn rebuild(
    ledger: &Ledger,
    configurations: &[(String, Configuration)],
) -> Result<Rebuilt, Error> {
    let mut rebuilt = Rebuilt::default();
    let mut tasks: BTreeMap<(TaskName, String), Found> = BTreeMap::new();
    for (name, configuration) in configurations {
        for root in roots(name, configuration)? {
            let store = Store::open(&root).await?;
            for listed in store.list(&root).await? {
                if !listed.path.ends_with(MANIFEST_SUFFIX) {
                    continue;
                }
                let uri = root.join(&listed.path)?;
                let Some(manifest) = manifest(&store, &uri).await? else {
                    rebuilt.passed_over += 1;
                    continue;
                };
                // An ensemble has no history of its own.
                let theirs = manifest.configuration.name.split('/').next();
                if theirs != Some(name) || manifest.ensemble.is_some() {
                    rebuilt.passed_over += 1;
                    continue;
                }
                add(&mut tasks, &manifest, &uri);
            }
        }
    }
    for found in tasks.values() {
        rebuilt.tasks += 1;
        rebuilt.outputs += found.outputs.len() as u64;
        ledger.found(found)?;
    }
    Ok(rebuilt)
}

/// The folders below which the outputs of a configuration lie, whatever the analysis time.
fn roots(name: &str, configuration: &Configuration) -> Result<Vec<Uri>, Error> {
    let mut roots = Vec::new();
    let steps = configuration.steps.iter().chain([configuration]);
    for output in steps.flat_map(|step| step.outputs.values()) {
        let in_configuration = |source| Error::Uri {
            configuration: name.to_owned(),
            source,
        };
        let root: Uri = output.root().map_err(in_configuration)?.parse()?;
        if !roots.contains(&root) {
            roots.push(root);
        }
    }
    Ok(roots)
}

async fn manifest(store: &Store, uri: &Uri) -> Result<Option<Manifest>, Error> {
    let text = uri.to_string();
    let Some(output) = text.strip_suffix(MANIFEST_SUFFIX) else {
        return Ok(None);
    };
    match store.manifest(&output.parse()?).await {
        Ok(manifest) => Ok(manifest),
        Err(mlwm_storage::Error::BadManifest { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn add(tasks: &mut BTreeMap<(TaskName, String), Found>, manifest: &Manifest, uri: &Uri) {
    let task = TaskName {
        configuration: manifest.configuration.name.clone(),
        analysis_time: manifest.analysis_time,
        member: manifest.member,
    };
    let milliseconds = |text: &str| {
        text.parse::<Timestamp>()
            .ok()
            .map(Timestamp::as_millisecond)
    };
    let times = milliseconds(&manifest.run.started).zip(milliseconds(&manifest.run.finished));
    let found = tasks
        .entry((task.clone(), manifest.task.to_string()))
        .or_insert(Found {
            task,
            identity: manifest.task,
            times,
            outputs: Vec::new(),
        });
    found.outputs.push(Published {
        name: manifest.output.clone(),
        uri: manifest.uri.clone(),
        manifest: uri.to_string(),
        digest: content_digest(&manifest.objects),
    });
}
