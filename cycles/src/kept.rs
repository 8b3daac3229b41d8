//! What is kept until it is read: removed when all tasks that read it have published, and what they published has
//! been read again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use mlwm_spec::manifest::{NamedDigest, Removed, content_digest};
use mlwm_spec::{ExitCode, Manifest};
use mlwm_storage::{Progress, Store, Uri};

use crate::Error;
use crate::event::Event;
use crate::plan::PlannedTask;
use crate::run::Context;

/// Which tasks of a run are done, and what may be removed then.
pub(crate) struct Kept<'a> {
    tasks: &'a [PlannedTask],
    /// For outputs that are kept until they are read, by the turn of the task that makes them and their place in it:
    /// the turns of all tasks that must be done.
    until: BTreeMap<(usize, usize), BTreeSet<usize>>,
    done: Mutex<BTreeSet<usize>>,
}

impl<'a> Kept<'a> {
    pub(crate) fn of(tasks: &'a [PlannedTask]) -> Self {
        let turns = tasks.iter().enumerate();
        let turns: BTreeMap<String, usize> =
            turns.map(|(turn, task)| (task.title(), turn)).collect();
        let mut until = BTreeMap::new();
        for (turn, task) in tasks.iter().enumerate() {
            for (at, output) in task.outputs.iter().enumerate() {
                let readers = output.read_by.iter().map(|title| turns.get(title).copied());
                // One that is not planned now may need it later.
                let readers: Option<BTreeSet<usize>> = readers.collect();
                if let Some(mut readers) = readers.filter(|readers| !readers.is_empty()) {
                    readers.insert(turn);
                    until.insert((turn, at), readers);
                }
            }
        }
        Self {
            tasks,
            until,
            done: Mutex::default(),
        }
    }

    /// A task ended. What was kept for it alone is removed; returns what could not be.
    pub(crate) async fn ended(
        &self,
        turn: usize,
        code: ExitCode,
        context: &Context<'_>,
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        if code != ExitCode::Ok {
            return warnings;
        }
        for (maker, at) in self.read_with(turn) {
            let (task, output) = (&self.tasks[maker], &self.tasks[maker].outputs[at]);
            match self.remove(maker, at, context).await {
                Ok(0) => {}
                Ok(bytes) => (context.tell)(Event::Removed {
                    task: task.title(),
                    uri: output.uri.clone(),
                    bytes,
                }),
                Err(error) => {
                    (context.tell)(Event::NotRemoved {
                        task: task.title(),
                        uri: output.uri.clone(),
                        error: error.to_string(),
                    });
                    warnings.push(format!("{} is not removed: {error}", output.uri));
                }
            }
        }
        warnings
    }

    /// The outputs that nobody needs any more now that this task is done.
    fn read_with(&self, turn: usize) -> Vec<(usize, usize)> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.insert(turn);
        let of_turn = self.until.iter().filter(|(_, all)| all.contains(&turn));
        let read = of_turn.filter(|(_, all)| all.is_subset(&done));
        read.map(|(output, _)| *output).collect()
    }

    /// Removes an output, once what was made of it has been read again; returns the bytes that were there.
    async fn remove(&self, maker: usize, at: usize, context: &Context<'_>) -> Result<u64, Error> {
        let uri: Uri = self.tasks[maker].outputs[at].uri.parse()?;
        let manifest = Store::open(&uri).await?.manifest(&uri).await?;
        let removed = match manifest {
            None => return Ok(0),
            // What was killed then is brought to its end.
            Some(Manifest {
                removed: Some(removed),
                ..
            }) => removed,
            Some(manifest) => {
                let readers = self.until[&(maker, at)].iter();
                let readers = readers.filter(|turn| **turn != maker);
                let mut read_by = Vec::new();
                for reader in readers.map(|turn| &self.tasks[*turn]) {
                    read_by.push(read_again(reader, &uri, &manifest, context).await?);
                }
                Removed {
                    removed: Timestamp::now().strftime("%FT%TZ").to_string(),
                    read_by,
                }
            }
        };
        Ok(mlwm_storage::remove_published(&uri, removed).await?)
    }
}

/// Reads again what a task published, which must have been made of this source. What is itself removed was read
/// before it was.
async fn read_again(
    reader: &PlannedTask,
    source: &Uri,
    manifest: &Manifest,
    context: &Context<'_>,
) -> Result<NamedDigest, Error> {
    let mut task = None;
    for output in &reader.outputs {
        let made: Uri = output.uri.parse()?;
        let store = Store::open(&made).await?;
        let theirs = store.manifest(&made).await?.filter(|theirs| {
            let mut inputs = theirs.inputs.iter();
            // One that reads something around it, or in it, has another digest.
            let input = inputs.find(|input| input.uri == source.to_string());
            input.is_none_or(|input| input.digest == content_digest(&manifest.objects))
        });
        let theirs = theirs.ok_or_else(|| Error::ReadOtherwise {
            uri: made.to_string(),
        })?;
        if theirs.removed.is_none() {
            let progress = Progress::none();
            store.verify(&made, &progress, context.cancel).await?;
        }
        task = Some(theirs.task);
    }
    Ok(NamedDigest {
        name: reader.title(),
        digest: task.ok_or_else(|| Error::ReadOtherwise {
            uri: source.to_string(),
        })?,
    })
}
