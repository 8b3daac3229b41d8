//! The folders between mlwm and a warm container.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlwm_engines::{Mount, owner};
use mlwm_spec::Digest;
use mlwm_spec::contract::OutputRequest;
use mlwm_spec::contract::stream::{self, END, GO, IN, OUT, STREAM_DIR, WORK_FILE, WindowedOutput};
use mlwm_storage::points::reach;

use super::taken;
use crate::Error;
use crate::plan::PlannedTask;
use crate::scratch::{self, Scratch, create, failed};

/// In the folder of a container, the process that it belongs to.
const OWNER: &str = "owner";
/// Beside what the container sees: what is made for it.
const NEW: &str = "new";

/// The folders of one container.
#[derive(Debug)]
pub(super) struct Folder {
    root: Arc<Root>,
    works: u64,
}

/// The folder that holds them all; removed when the container is gone and all its works are.
#[derive(Debug)]
struct Root(PathBuf);

/// The folders of one member in those of its container. They go with this.
#[derive(Debug)]
pub(crate) struct Work {
    /// Its name.
    pub(crate) name: String,
    input: PathBuf,
    output: PathBuf,
    root: Arc<Root>,
}

impl Folder {
    pub(super) fn create(scratch: &Scratch, task: &PlannedTask) -> Result<Self, Error> {
        let place = scratch.warm(task);
        let root = new_folder(&place)?;
        let folder = Self {
            root: Arc::new(Root(root)),
            works: 0,
        };
        for name in [IN, OUT, NEW] {
            create(&folder.root.0.join(name))?;
        }
        Ok(folder)
    }

    pub(super) fn mounts(&self) -> [Mount; 2] {
        [(IN, true), (OUT, false)].map(|(name, read_only)| Mount {
            source: self.root.0.join(name),
            target: format!("{STREAM_DIR}/{name}"),
            read_only,
        })
    }

    /// Where the container writes.
    pub(super) fn out(&self) -> PathBuf {
        self.root.0.join(OUT)
    }

    /// Hands over a member whose inputs are staged: all of it appears at once.
    pub(super) fn hand_over(
        &mut self,
        scratch: &Scratch,
        task: &PlannedTask,
        identity: Digest,
    ) -> Result<Work, Error> {
        let name = format!("{:04}", self.works);
        self.works += 1;
        let work = Work {
            input: self.root.0.join(IN).join(&name),
            output: self.root.0.join(OUT).join(&name),
            name,
            root: Arc::clone(&self.root),
        };
        // Not made where the container could put a link in the way.
        let new = self.root.0.join(NEW).join(&work.name);
        for output in &task.outputs {
            create(&new.join(&output.name))?;
        }
        fs::rename(&new, &work.output).map_err(|source| failed(&work.output, source))?;
        let hidden = self.root.0.join(IN).join(format!(".{}", work.name));
        let inputs = hidden.join("inputs");
        create(&inputs)?;
        create(&hidden.join(GO))?;
        for input in &task.inputs {
            let (from, to) = (scratch.input(task, &input.name), inputs.join(&input.name));
            link_tree(&from, &to).map_err(|source| failed(&to, source))?;
        }
        let file = hidden.join(WORK_FILE);
        let order =
            serde_json::to_vec_pretty(&order(task, identity, &work)).map_err(Error::Json)?;
        fs::write(&file, order).map_err(|source| failed(&file, source))?;
        fs::rename(&hidden, &work.input).map_err(|source| failed(&work.input, source))?;
        Ok(work)
    }

    /// How many it was given.
    pub(super) fn handed_over(&self) -> usize {
        usize::try_from(self.works).unwrap_or(usize::MAX)
    }

    /// Says that no more will come.
    pub(super) fn end(&self) -> Result<(), Error> {
        touch(&self.root.0.join(IN).join(END))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // What stays is removed by `tidy` of a later run.
        let _ = remove_all(&self.0);
        for empty in self.0.ancestors().skip(1).take(3) {
            let _ = fs::remove_dir(empty);
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What stays goes with the folder of the container, when that can put nothing in the way any more.
        let _ = scratch::remove(&self.input);
        let _ = fs::remove_dir_all(&self.output);
    }
}

impl Work {
    /// Lets the container write a window.
    pub(crate) fn go(&self, window: &str) -> Result<(), Error> {
        touch(&self.input.join(GO).join(window))
    }

    /// Takes a window of an output from the container to `to`, where it cannot reach it. The error says what is
    /// wrong, to be read after the words "window `x`".
    pub(crate) fn take(&self, output: &str, window: &str, to: &Path) -> Result<(), String> {
        let out = self.root.0.join(OUT);
        match taken::take(&out, &[&self.name, output, window], to)? {
            true => Ok(()),
            false => Err("was not written, or is a link".to_owned()),
        }
    }

    /// Removes what the container was given: it is done with it.
    pub(crate) fn clear_inputs(&self) -> Result<(), Error> {
        fs::remove_dir_all(&self.input).map_err(|source| failed(&self.input, source))
    }
}

/// Makes a new folder that says whose it is, in a place that another container's may just be leaving, with what is empty
/// above it.
fn new_folder(place: &Path) -> Result<PathBuf, Error> {
    let owner = owner::this_process().unwrap_or_default();
    let make = || {
        let made = tempfile::Builder::new().prefix("").tempdir_in(place)?;
        // Until then `tidy` of another mlwm may take it for one that was left.
        fs::write(made.path().join(OWNER), &owner)?;
        Ok(made.keep())
    };
    let mut tries = 0..10;
    loop {
        create(place)?;
        match make() {
            Err(error) if is_gone(&error) && tries.next().is_some() => {}
            made => return made.map_err(|source| failed(place, source)),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Removes the folder of a container. What says whose it is goes last: of one that is killed meanwhile, the rest is then
/// known to be nobody's.
fn remove_all(root: &Path) -> Result<(), Error> {
    for name in [IN, OUT, NEW] {
        scratch::remove(&root.join(name))?;
        reach("warm: removed in part");
    }
    scratch::remove(root)
}

/// Removes the folders of containers whose mlwm died.
pub(crate) fn tidy(scratch: &Scratch) {
    let glob = scratch.warm_root();
    let subfolders = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect()
    };
    for configuration in subfolders(&glob) {
        for time in subfolders(&configuration) {
            for folder in subfolders(&time) {
                // What stays does no harm; another mlwm may be at it, too.
                match fs::read_to_string(folder.join(OWNER)) {
                    Ok(owner) if is_dead(&owner) => drop(remove_all(&folder)),
                    // Made or removed by one that was killed just then: empty.
                    Err(error) if is_gone(&error) => drop(fs::remove_dir(&folder)),
                    _ => {}
                }
            }
            let _ = fs::remove_dir(&time);
        }
        let _ = fs::remove_dir(&configuration);
    }
    let _ = fs::remove_dir(&glob);
}

/// Whether a process is no more: it may have been of this host before it was started again.
fn is_dead(owner: &str) -> bool {
    owner::judge(Some(owner)) == owner::Owner::Dead || owner::is_of_other_boot(owner)
}

fn order(task: &PlannedTask, identity: Digest, work: &Work) -> stream::Work {
    let input = |name: &str| format!("{STREAM_DIR}/{IN}/{}/inputs/{name}", work.name);
    let inputs = task.inputs.iter();
    let datastore_inputs = task.inputs.iter().flat_map(|staged| {
        let fed = staged.datastore_inputs.iter();
        fed.map(|fed| (fed.clone(), input(&staged.name)))
    });
    let outputs = task.outputs.iter().map(|output| WindowedOutput {
        output: OutputRequest {
            name: output.name.clone(),
            path: format!("{STREAM_DIR}/{OUT}/{}/{}", work.name, output.name),
            variables: output.variables.clone(),
            zarr_format: task.zarr_format(&output.name),
        },
        window: output.windows.as_ref().map(|windows| windows.length),
    });
    stream::Work {
        work: work.name.clone(),
        member: task.member,
        seed: task.seed,
        task: identity.to_string(),
        inputs: inputs
            .map(|staged| (staged.name.clone(), input(&staged.name)))
            .collect(),
        datastore_inputs: BTreeMap::from_iter(datastore_inputs),
        outputs: outputs.collect(),
    }
}

/// The same files at another place of the same file system. Nobody writes to what is staged.
fn link_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        return fs::hard_link(from, to);
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        link_tree(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn touch(path: &Path) -> Result<(), Error> {
    File::create(path)
        .map(drop)
        .map_err(|source| failed(path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_dead_go_wherever_they_were_killed() {
        let site = tempfile::tempdir().unwrap();
        let scratch = Scratch::open(site.path()).unwrap();
        let place = scratch.warm_root().join("danra/2022-04-07T0300Z");
        let mine = new_folder(&place).unwrap();
        // Killed while it served, while the folder was removed, and before that had a name in it.
        for (name, there) in [
            ("served", &[IN, OUT, NEW][..]),
            ("half", &[OUT]),
            ("new", &[]),
        ] {
            let folder = place.join(name);
            create(&folder).unwrap();
            for inner in there {
                create(&folder.join(inner)).unwrap();
                fs::write(folder.join(inner).join("values"), "").unwrap();
            }
            if name != "new" {
                fs::write(folder.join(OWNER), "other-boot pid:[1] 1 1").unwrap();
            }
        }
        // Of whom it is, nobody knows: it is not touched.
        let other = place.join("other");
        create(&other.join(IN)).unwrap();
        tidy(&scratch);
        let mut left: Vec<PathBuf> = fs::read_dir(&place)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        left.sort();
        let mut due = [mine, other];
        due.sort();
        assert_eq!(left, due);
    }
}
