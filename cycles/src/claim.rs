//! Who does a task: of several mlwm that share a working folder, on one host or many, one at a time.
//!
//! A claim is a file of the claims folder, `<configuration>/<analysis time>/member<m>.<generation>`.
//! The newest generation holds the task. It is made by linking a finished file to its name, which
//! only one process can do, on network file systems too. Files are not removed when a task is let go,
//! but marked, so that no generation ever comes twice: somebody who is slow to find out that a holder
//! died cannot take the task from its successor. The holder touches its file now and then. Where its
//! process can be looked at, it holds the task as long as it lives; elsewhere, as long as its file is
//! seen to be touched. Nobody compares clocks.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use mlwm_engines::owner::{self, Owner};
use mlwm_spec::AnalysisTime;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::history::{owner_is_dead, this_host};
use crate::scratch::folder_name;

/// Between two touches of a claim.
const BEAT: Duration = Duration::from_secs(10);
/// A claim that is not touched for this long is one of a dead holder. It must be longer than a
/// network file system may show old times of files (a minute).
const LEASE: Duration = Duration::from_secs(120);
/// Marks of tasks that were let go are removed after this time.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// What the names of files begin with that are no claims yet.
const TEMPORARY: &str = ".claim-";

/// What is claimed: of a configuration and analysis time, `member3` or the `ensemble`.
pub(crate) type What<'a> = (&'a str, AnalysisTime, &'a str);

/// The claims of a working folder, as one process sees them.
#[derive(Debug)]
pub(crate) struct Claims {
    folder: PathBuf,
    me: Holder,
    /// When a claim was last seen to have been touched: its time then, and ours.
    seen: HashMap<PathBuf, (SystemTime, Instant)>,
    lease: Duration,
}

/// Who holds a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// The host.
    pub(crate) host: String,
    /// Its process, as [`owner`] names it.
    process: String,
    /// Whether it has let the task go.
    #[serde(default)]
    released: bool,
}

/// What came of trying to claim a task.
#[derive(Debug)]
pub(crate) enum Tried {
    /// It is ours.
    Ours {
        claim: Claim,
        /// Another held it and died.
        after_a_dead_one: bool,
    },
    /// Another holds it.
    Held(Holder),
}

/// A task that this process does. Let go when it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    generation: u64,
    holder: Holder,
    beating: tokio::task::JoinHandle<()>,
    /// Cancelled when the task was taken over.
    pub(crate) lost: CancellationToken,
}

impl Claims {
    /// The claims in a folder, which is made if need be.
    pub(crate) fn of(folder: &Path) -> Result<Self, Error> {
        mlwm_storage::create_folders(folder).map_err(|source| failed(folder, source))?;
        Ok(Self {
            folder: folder.to_owned(),
            me: Holder {
                host: this_host(),
                process: owner::this_process().unwrap_or_default(),
                released: false,
            },
            seen: HashMap::new(),
            lease: LEASE,
        })
    }

    /// Claims a task, unless another holds it. To be called again and again for a task that is held
    /// on another host: that its holder is dead is seen only in time.
    pub(crate) fn take(&mut self, what: What<'_>) -> Result<Tried, Error> {
        let stem = self.stem(what);
        let folder = stem.parent().unwrap_or(&self.folder).to_owned();
        mlwm_storage::create_folders(&folder).map_err(|source| failed(&folder, source))?;
        let mut after_a_dead_one = false;
        loop {
            let newest = newest(&stem)?;
            if let Some(generation) = newest {
                let path = numbered(&stem, generation);
                match read(&path) {
                    Ok(Some(holder)) if self.holds(&path, &holder)? => {
                        return Ok(Tried::Held(holder));
                    }
                    // Marked, of a dead holder, or damaged by a full disk.
                    Ok(holder) => {
                        after_a_dead_one = holder.is_none_or(|holder| !holder.released);
                    }
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(failed(&path, error)),
                }
            }
            let generation = newest.map_or(1, |generation| generation + 1);
            let path = numbered(&stem, generation);
            if self.make(&folder, &path)? {
                // Whoever held this generation meanwhile, and was followed by another, has freed its name.
                if self::newest(&stem)? != Some(generation) {
                    let _ = fs::remove_file(&path);
                    continue;
                }
                if let Some(before) = newest {
                    // It says nothing any more.
                    let _ = fs::remove_file(numbered(&stem, before));
                }
                return Ok(Tried::Ours {
                    claim: Claim::begin(stem, path, generation, &self.me),
                    after_a_dead_one,
                });
            }
        }
    }

    fn stem(&self, (configuration, analysis_time, name): What<'_>) -> PathBuf {
        self.folder
            .join(folder_name(configuration))
            .join(analysis_time.path_text())
            .join(name)
    }

    /// Whether a claim is of a holder who may live.
    fn holds(&mut self, path: &Path, holder: &Holder) -> Result<bool, Error> {
        if holder.released || owner_is_dead(&holder.host, &holder.process) {
            return Ok(false);
        }
        if owner::judge(Some(&holder.process)) == Owner::Alive {
            return Ok(true);
        }
        let touched = match fs::metadata(path).and_then(|found| found.modified()) {
            Ok(touched) => touched,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(path, error)),
        };
        let (last, since) = *self
            .seen
            .entry(path.to_owned())
            .or_insert_with(|| (touched, Instant::now()));
        if last != touched {
            self.seen.insert(path.to_owned(), (touched, Instant::now()));
            return Ok(true);
        }
        Ok(since.elapsed() < self.lease)
    }

    /// Makes a claim under a name that nobody has; `false` if somebody has it.
    fn make(&self, folder: &Path, path: &Path) -> Result<bool, Error> {
        let unmade = |source| failed(path, source);
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(folder)
            .map_err(unmade)?;
        file.write_all(&text(&self.me)).map_err(unmade)?;
        file.as_file().sync_all().map_err(unmade)?;
        match fs::hard_link(file.path(), path) {
            Ok(()) => Ok(true),
            // A server may have done it and lost its answer: then the file has two names.
            Err(_) if links(file.as_file()).map_err(unmade)? == 2 => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(unmade(error)),
        }
    }

    /// Removes the marks of tasks that were let go long ago. Those that cannot be removed, or that
    /// another mlwm removes just now, are left to the next run.
    pub(crate) fn tidy(&self) {
        for configuration in entries(&self.folder) {
            for cycle in entries(&configuration) {
                // Another may claim a task of a younger one just now.
                if !is_old(&cycle) {
                    continue;
                }
                for claim in entries(&cycle) {
                    if is_old(&claim) && (is_unlinked(&claim) || !is_held(&claim)) {
                        let _ = fs::remove_file(claim);
                    }
                }
                // Only if nothing is in it.
                let _ = fs::remove_dir(cycle);
            }
        }
    }
}

impl Claim {
    fn begin(stem: PathBuf, path: PathBuf, generation: u64, holder: &Holder) -> Self {
        let lost = CancellationToken::new();
        let (beat, told) = (path.clone(), lost.clone());
        let beating = tokio::spawn(async move {
            let mut clock = tokio::time::interval(BEAT);
            loop {
                clock.tick().await;
                let (stem, path) = (stem.clone(), beat.clone());
                let lost = tokio::task::spawn_blocking(move || {
                    // What cannot be touched or looked at now may be so the next time.
                    let _ = touch(&path);
                    newest(&stem).is_ok_and(|newest| newest != Some(generation))
                });
                if lost.await.unwrap_or(false) {
                    told.cancel();
                    return;
                }
            }
        });
        Self {
            path,
            generation,
            holder: holder.clone(),
            beating,
            lost,
        }
    }

    /// Fails if another has taken the task over.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let newest = newest(&self.path.with_extension(""))?;
        match newest != Some(self.generation) || self.lost.is_cancelled() {
            true => Err(Error::TakenOver {
                claim: self.path.clone(),
            }),
            false => Ok(()),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.beating.abort();
        let released = Holder {
            released: true,
            ..self.holder.clone()
        };
        if overwrite(&self.path, &text(&released)).is_err() {
            // On a full disk: what is empty holds nothing either, and needs no room.
            let _ = File::options().write(true).truncate(true).open(&self.path);
        }
    }
}

/// The newest generation of a claim.
fn newest(stem: &Path) -> Result<Option<u64>, Error> {
    let folder = stem.parent().unwrap_or(Path::new("."));
    let name = stem.file_name().unwrap_or_default().to_string_lossy();
    let unlisted = |source| failed(folder, source);
    let mut newest = None;
    for entry in fs::read_dir(folder).map_err(unlisted)? {
        let entry = entry.map_err(unlisted)?.file_name();
        let entry = entry.to_string_lossy();
        let generation = entry
            .strip_prefix(&*name)
            .and_then(|rest| rest.strip_prefix('.'))
            .and_then(|generation| generation.parse().ok());
        newest = newest.max(generation);
    }
    Ok(newest)
}

fn numbered(stem: &Path, generation: u64) -> PathBuf {
    stem.with_extension(generation.to_string())
}

/// Reads a claim; `None` for what is none.
fn read(path: &Path) -> io::Result<Option<Holder>> {
    Ok(serde_json::from_slice(&fs::read(path)?).ok())
}

fn text(holder: &Holder) -> Vec<u8> {
    // A structure of texts always has a form as JSON.
    serde_json::to_vec(holder).unwrap_or_default()
}

fn touch(path: &Path) -> io::Result<()> {
    File::options()
        .write(true)
        .open(path)?
        .set_modified(SystemTime::now())
}

fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn links(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.nlink())
}

/// What is in a folder; nothing if it is none.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn is_old(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|found| found.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEPT))
}

/// Whether it is what a process left that was killed before its claim had its name.
fn is_unlinked(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(TEMPORARY))
}

/// Whether a claim was not let go; what cannot be read may be held.
fn is_held(path: &Path) -> bool {
    !read(path).is_ok_and(|holder| holder.is_none_or(|holder| holder.released))
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Scratch {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: usize) -> What<'static> {
        let time = "2022-04-07T03:00Z".parse().unwrap();
        ("model", time, ["member0", "member1"][number])
    }

    fn claims(folder: &Path) -> Claims {
        Claims::of(folder).unwrap()
    }

    fn is_ours(tried: &Tried) -> bool {
        matches!(tried, Tried::Ours { .. })
    }

    /// Writes the newest claim as if another process had made it.
    fn plant(folder: &Path, holder: &Holder, generation: u64) -> PathBuf {
        let path = numbered(&claims(folder).stem(member(0)), generation);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text(holder)).unwrap();
        path
    }

    fn holder(host: &str, process: &str) -> Holder {
        Holder {
            host: host.to_owned(),
            process: process.to_owned(),
            released: false,
        }
    }

    #[tokio::test]
    async fn one_holds_a_task_until_it_lets_it_go() {
        let folder = tempfile::tempdir().unwrap();
        let (mut one, mut other) = (claims(folder.path()), claims(folder.path()));
        let first = one.take(member(0)).unwrap();
        assert!(is_ours(&first));
        assert!(matches!(other.take(member(0)).unwrap(), Tried::Held(_)));
        assert!(is_ours(&other.take(member(1)).unwrap()));
        drop(first);
        let Tried::Ours {
            claim,
            after_a_dead_one,
        } = other.take(member(0)).unwrap()
        else {
            panic!("held")
        };
        assert!(!after_a_dead_one);
        claim.check().unwrap();
    }

    #[tokio::test]
    async fn of_many_at_once_one_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Handle::current();
        let taken = std::thread::scope(|scope| {
            let all: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        let _entered = runtime.enter();
                        let tried = claims(folder.path()).take(member(0)).unwrap();
                        // Kept until all have tried.
                        is_ours(&tried).then(|| std::mem::forget(tried)).is_some()
                    })
                })
                .collect();
            all.into_iter()
                .filter_map(|one| one.join().unwrap().then_some(()))
                .count()
        });
        assert_eq!(taken, 1);
    }

    #[tokio::test]
    async fn a_dead_holder_on_this_host_is_followed_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let me = owner::this_process().unwrap();
        let (space, _) = me.rsplit_once(' ').unwrap();
        let (space, _) = space.rsplit_once(' ').unwrap();
        child.wait().unwrap();
        let dead = holder(&this_host(), &format!("{space} {} 1", child.id()));
        plant(folder.path(), &dead, 7);
        let tried = claims(folder.path()).take(member(0)).unwrap();
        assert!(matches!(
            tried,
            Tried::Ours {
                after_a_dead_one: true,
                ..
            }
        ));
        assert!(
            folder
                .path()
                .join("model/2022-04-07T0300Z/member0.8")
                .exists()
        );
        // One that rebooted is dead, too.
        let rebooted = holder(&this_host(), "another-boot pid:[1] 1 1");
        drop(tried);
        plant(folder.path(), &rebooted, 9);
        assert!(is_ours(&claims(folder.path()).take(member(0)).unwrap()));
    }

    #[tokio::test]
    async fn a_holder_elsewhere_lives_as_long_as_it_touches_its_claim() {
        let folder = tempfile::tempdir().unwrap();
        let path = plant(folder.path(), &holder("node2", "boot pid:[1] 1 1"), 1);
        let mut claims = claims(folder.path());
        claims.lease = Duration::from_millis(300);
        for _ in 0..5 {
            assert!(!is_ours(&claims.take(member(0)).unwrap()));
            std::thread::sleep(Duration::from_millis(100));
            // Its clock may say anything.
            let odd = SystemTime::UNIX_EPOCH + Duration::from_nanos(rand());
            set_modified(&path, odd);
        }
        assert!(!is_ours(&claims.take(member(0)).unwrap()));
        std::thread::sleep(Duration::from_millis(350));
        assert!(is_ours(&claims.take(member(0)).unwrap()));
    }

    #[tokio::test]
    async fn a_holder_elsewhere_whose_clock_jumps_holds_its_task_no_shorter_and_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = plant(folder.path(), &holder("node2", "boot pid:[1] 1 1"), 1);
        let mut claims = claims(folder.path());
        claims.lease = Duration::from_millis(300);
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
        let now = SystemTime::now();
        for jumped in [now - day, now, now - hour, now + day] {
            set_modified(&path, jumped);
            assert!(!is_ours(&claims.take(member(0)).unwrap()));
            std::thread::sleep(Duration::from_millis(200));
        }
        // It died a day ahead.
        std::thread::sleep(Duration::from_millis(150));
        assert!(is_ours(&claims.take(member(0)).unwrap()));
    }

    #[tokio::test]
    async fn only_old_marks_are_removed_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let claims = claims(folder.path());
        let released = Holder {
            released: true,
            ..holder("node2", "boot pid:[1] 1 1")
        };
        let now = SystemTime::now();
        let month = KEPT + Duration::from_secs(3600);
        let path = plant(folder.path(), &released, 1);
        let cycle = path.parent().unwrap();
        for (claim_at, cycle_at, stays) in [
            (now - month, now, true),
            (now, now - month, true),
            (now + month, now + month, true),
            (now - month, now - month, false),
        ] {
            set_modified(&path, claim_at);
            set_modified(cycle, cycle_at);
            claims.tidy();
            assert_eq!(path.exists(), stays, "{claim_at:?} {cycle_at:?}");
        }
        assert!(!cycle.exists());
        let path = plant(folder.path(), &holder("node2", "boot pid:[1] 1 1"), 1);
        set_modified(&path, now - month);
        set_modified(cycle, now - month);
        let unlinked = cycle.join(".claim-aBcDeF");
        fs::copy(&path, &unlinked).unwrap();
        set_modified(&unlinked, now - month);
        set_modified(cycle, now - month);
        claims.tidy();
        assert!(path.exists(), "held");
        assert!(!unlinked.exists(), "what never got its name");
    }

    fn set_modified(path: &Path, time: SystemTime) {
        File::open(path).unwrap().set_modified(time).unwrap();
    }

    fn rand() -> u64 {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(0) >> 8
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_taken_over_finds_out() {
        let folder = tempfile::tempdir().unwrap();
        let Tried::Ours { claim, .. } = claims(folder.path()).take(member(0)).unwrap() else {
            panic!("held")
        };
        claim.check().unwrap();
        plant(folder.path(), &holder("node2", "boot pid:[1] 1 1"), 2);
        claim.lost.cancelled().await;
        let error = claim.check().unwrap_err();
        assert!(
            error.to_string().contains("taken this task over"),
            "{error}"
        );
        // Letting go what is another's leaves it alone.
        drop(claim);
        let newest = folder.path().join("model/2022-04-07T0300Z/member0.2");
        let newest = fs::read_to_string(newest).unwrap();
        assert!(newest.contains("node2"));
    }

    #[tokio::test]
    async fn what_was_damaged_by_a_full_disk_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = plant(folder.path(), &holder("node2", "boot pid:[1] 1 1"), 1);
        fs::write(path, "").unwrap();
        assert!(is_ours(&claims(folder.path()).take(member(0)).unwrap()));
    }
}
