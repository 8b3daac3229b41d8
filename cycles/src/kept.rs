//! What is kept until it is read: removed when all tasks that read it have published, and what they published has
//! been read again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mlwm_spec::manifest::{NamedDigest, Removed, content_digest};
use mlwm_spec::{Digest, ExitCode, Manifest};
use mlwm_storage::{Progress, Store, Uri};

use crate::event::Event;
use crate::plan::{PlannedTask, order};
use crate::run::Context;
use crate::{Error, run};

/// Which tasks of a run are done, and what may be removed then.
pub(crate) struct Kept<'a> {
    tasks: &'a [PlannedTask],
    /// For outputs that are kept until they are read, by the turn of the task that makes them and their place in it:
    /// the turns of all tasks that must be done.
    until: BTreeMap<(usize, usize), BTreeSet<usize>>,
    done: Mutex<BTreeSet<usize>>,
    /// What was begun to be removed.
    begun: Mutex<BTreeSet<(usize, usize)>>,
    /// What was read again, and by which task it was made.
    whole: Mutex<BTreeSet<(String, Digest)>>,
}

impl<'a> Kept<'a> {
    /// Of tasks, and for each of them those that make what it reads.
    pub(crate) fn of(tasks: &'a [PlannedTask], waits: &[Vec<usize>]) -> Self {
        let mut until = BTreeMap::new();
        let turns = tasks.iter().enumerate();
        let turns: BTreeMap<String, usize> =
            turns.map(|(turn, task)| (task.title(), turn)).collect();
        for (turn, task) in tasks.iter().enumerate() {
            for (at, output) in task.outputs.iter().enumerate() {
                let readers = output.read_by.iter().map(|title| turns.get(title).copied());
                // One that is not planned now may need it later.
                let readers: Option<BTreeSet<usize>> = readers.collect();
                if let Some(mut all) = readers.filter(|readers| !readers.is_empty()) {
                    all.insert(turn);
                    // Those of other configurations, too.
                    let place = BTreeMap::from([(order::place(&output.uri), turn)]);
                    let reads = |other: &usize| {
                        let mut inputs = tasks[*other].inputs.iter();
                        inputs.any(|input| {
                            let read = order::place(&input.uri);
                            order::makers(&read, &place).next().is_some()
                        })
                    };
                    let others = (0..waits.len()).filter(|other| waits[*other].contains(&turn));
                    all.extend(others.filter(reads));
                    until.insert((turn, at), all);
                }
            }
        }
        Self {
            tasks,
            until,
            done: Mutex::default(),
            begun: Mutex::default(),
            whole: Mutex::default(),
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
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        // Of two that end at once, one does it.
        read.map(|(output, _)| *output)
            .filter(|output| begun.insert(*output))
            .collect()
    }

    /// Removes an output, once what was made of it has been read again; returns the bytes that were there.
    async fn remove(&self, maker: usize, at: usize, context: &Context<'_>) -> Result<u64, Error> {
        let task = &self.tasks[maker];
        let uri: Uri = task.outputs[at].uri.parse()?;
        // Nobody makes it again meanwhile.
        let _claim = run::claim_at_once(context, task)?;
        let Some(manifest) = Store::open(&uri).await?.manifest(&uri).await? else {
            return Ok(0);
        };
        // What was killed then is brought to its end.
        let removed = match manifest.removed.clone() {
            Some(removed) => removed,
            None => {
                let readers = self.until[&(maker, at)].iter();
                let mut read_by = Vec::new();
                for reader in readers.filter(|turn| **turn != maker) {
                    read_by.push(self.read_again(*reader, &uri, &manifest, context).await?);
                }
                Removed {
                    removed: crate::container::now(),
                    read_by,
                }
            }
        };
        Ok(mlwm_storage::remove_published(&uri, &manifest, removed).await?)
    }

    /// Reads again what a task published, which must have been made of this source.
    async fn read_again(
        &self,
        turn: usize,
        source: &Uri,
        manifest: &Manifest,
        context: &Context<'_>,
    ) -> Result<NamedDigest, Error> {
        let reader = &self.tasks[turn];
        let content = content_digest(&manifest.objects);
        let otherwise = |uri: &Uri| Error::ReadOtherwise {
            uri: uri.to_string(),
        };
        let mut task = None;
        for (at, output) in reader.outputs.iter().enumerate() {
            let made: Uri = output.uri.parse()?;
            let store = Store::open(&made).await?;
            let theirs = store.manifest(&made).await?;
            let theirs = theirs.ok_or_else(|| otherwise(&made))?;
            let mut inputs = theirs.inputs.iter();
            if !inputs.any(|input| input.uri == source.to_string() && input.digest == content) {
                return Err(otherwise(&made));
            }
            if theirs.removed.is_some() {
                // It was whole when it was removed, but it is made again if what reads it is to be.
                let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
                let until = self.until.get(&(turn, at));
                if !until.is_some_and(|until| until.is_subset(&done)) {
                    return Err(Error::ReadFurther(made.to_string()));
                }
            } else if !self.is_known(&made, theirs.task) {
                let progress = Progress::none();
                store.verify(&made, &progress, context.cancel).await?;
                self.whole().insert((made.to_string(), theirs.task));
            }
            task = Some(theirs.task);
        }
        Ok(NamedDigest {
            name: reader.title(),
            digest: task.ok_or_else(|| otherwise(source))?,
        })
    }

    /// Whether something was read again before, for another source.
    fn is_known(&self, made: &Uri, task: Digest) -> bool {
        self.whole().contains(&(made.to_string(), task))
    }

    fn whole(&self) -> MutexGuard<'_, BTreeSet<(String, Digest)>> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
