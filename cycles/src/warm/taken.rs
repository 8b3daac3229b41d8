//! Takes what a warm container wrote out of its reach, before anything looks at it.
//!
//! The container goes on, and may write to all that is below its mount, also through folders that it has open and
//! that are moved elsewhere. So only its files are taken: each is moved by itself into new folders which the
//! container never saw. What lies there stays a file, whatever the container does.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// Folders in folders; no dataset has more.
const DEEPEST: usize = 32;

/// Moves the files below a folder, which is below `root` by these names, to the new folder `to`. Whether there was
/// a folder, and no link on the way to it; the error says what is wrong with it, to be read after the words
/// "window `x`".
pub(super) fn take(root: &Path, names: &[&str], to: &Path) -> Result<bool, String> {
    let mut from = open(CWD, root).map_err(unusable)?;
    for name in names {
        from = match open(&from, *name) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            Err(error) => return Err(unusable(error)),
        };
    }
    std::fs::create_dir(to).map_err(|error| unusable_folder(&error))?;
    let to = open(CWD, to).map_err(unusable)?;
    take_files(&from, &to, DEEPEST)?;
    Ok(true)
}

fn take_files(from: &OwnedFd, to: &OwnedFd, deeper: usize) -> Result<(), String> {
    for entry in Dir::read_from(from).map_err(unusable)? {
        let entry = entry.map_err(unusable)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if kind(from, name)? != FileType::Directory {
            renameat(from, name, to, name).map_err(unusable)?;
            // Not before: it could be another by now.
            if kind(to, name)? != FileType::RegularFile {
                let name = name.to_string_lossy();
                return Err(format!(
                    "holds `{name}`, which is neither a file nor a folder"
                ));
            }
            continue;
        }
        if deeper == 0 {
            return Err(format!(
                "has more than {DEEPEST} folders one in the other, which no dataset has"
            ));
        }
        mkdirat(to, name, Mode::RWXU).map_err(unusable)?;
        let inner = open(from, name).map_err(unusable)?;
        take_files(&inner, &open(to, name).map_err(unusable)?, deeper - 1)?;
        // If something is in it again, it stays until the work is over.
        let _ = unlinkat(from, name, AtFlags::REMOVEDIR);
    }
    Ok(())
}

fn kind(folder: &OwnedFd, name: &CStr) -> Result<FileType, String> {
    let found = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(unusable)?;
    Ok(FileType::from_raw_mode(found.st_mode))
}

/// Opens a folder, and nothing else.
fn open(at: impl rustix::fd::AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, folder, Mode::empty())
}

fn unusable(error: Errno) -> String {
    unusable_folder(&error.into())
}

fn unusable_folder(error: &io::Error) -> String {
    format!("cannot be taken from the folder of its container: {error}")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use rustix::fs::{mkfifoat, open as open_path};

    use super::*;

    const NAMES: [&str; 3] = ["0000", "surface", "h000-006"];

    /// A folder that a container may write to, with a window of a file, a folder and a file in that.
    fn written() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let site = tempfile::tempdir().unwrap();
        let out = site.path().join("out");
        let window = out.join(NAMES.join("/"));
        fs::create_dir_all(window.join("t2m")).unwrap();
        fs::write(window.join("zarr.json"), "{}").unwrap();
        fs::write(window.join("t2m/c"), "values").unwrap();
        fs::write(site.path().join("secret"), "of the host").unwrap();
        (site, out, window)
    }

    #[test]
    fn all_files_are_taken() {
        let (site, out, window) = written();
        let to = site.path().join("taken");
        assert_eq!(take(&out, &NAMES, &to), Ok(true));
        assert_eq!(fs::read(to.join("zarr.json")).unwrap(), b"{}");
        assert_eq!(fs::read(to.join("t2m/c")).unwrap(), b"values");
        assert_eq!(fs::read_dir(window).unwrap().count(), 0);
        let other = site.path().join("other");
        assert_eq!(
            take(&out, &["0000", "surface", "h006-012"], &other),
            Ok(false)
        );
        assert!(!other.exists());
    }

    /// Whoever has a folder open that is taken can put nothing into what was taken.
    #[test]
    fn a_folder_that_is_open_leads_to_nothing_that_was_taken() {
        let (site, out, window) = written();
        let held = open_path(window.join("t2m"), OFlags::DIRECTORY, Mode::empty()).unwrap();
        let to = site.path().join("taken");
        assert_eq!(take(&out, &NAMES, &to), Ok(true));
        let planted = rustix::fs::symlinkat(site.path().join("secret"), &held, "c");
        // The folder is gone, and takes nothing in.
        assert_eq!(planted, Err(Errno::NOENT));
        drop(held);
        assert!(to.join("t2m/c").symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn links_and_pipes_are_refused_wherever_they_are() {
        for name in ["link", "t2m/link", "t2m/c"] {
            let (site, out, window) = written();
            let _ = fs::remove_file(window.join(name));
            symlink(site.path().join("secret"), window.join(name)).unwrap();
            let reason = take(&out, &NAMES, &site.path().join("taken")).unwrap_err();
            assert!(reason.contains("neither a file nor a folder"), "{reason}");
        }
        let (site, out, window) = written();
        let folder = File::open(&window).unwrap();
        mkfifoat(&folder, "pipe", Mode::RWXU).unwrap();
        let reason = take(&out, &NAMES, &site.path().join("taken")).unwrap_err();
        assert!(reason.contains("`pipe`"), "{reason}");
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_leads_nowhere() {
        for depth in 1..=3 {
            let (site, out, _window) = written();
            let folder = out.join(NAMES[..depth].join("/"));
            let elsewhere = site.path().join("elsewhere");
            fs::rename(&folder, &elsewhere).unwrap();
            symlink(&elsewhere, &folder).unwrap();
            let to = site.path().join("taken");
            assert_eq!(take(&out, &NAMES, &to), Ok(false), "{depth}");
            assert!(!to.exists());
        }
    }

    #[test]
    fn folders_without_end_are_refused() {
        let (site, out, window) = written();
        fs::create_dir_all(window.join("d/".repeat(DEEPEST + 1))).unwrap();
        let reason = take(&out, &NAMES, &site.path().join("taken")).unwrap_err();
        assert!(reason.contains("one in the other"), "{reason}");
    }

    /// A container that changes files into links all the time gets none of them into what is taken.
    #[test]
    fn what_changes_while_it_is_taken_is_taken_as_a_file_or_not_at_all() {
        let (site, out, window) = written();
        let (file, link) = (window.join("t2m/c"), window.join("t2m/l"));
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // What is in its way, it tries again.
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = fs::create_dir_all(window.join("t2m"));
                    let _ = fs::write(&file, "values");
                    let _ = symlink(site.path().join("secret"), &link);
                    let _ = fs::rename(&link, &file);
                }
            });
            for round in 0..200 {
                let to = site.path().join(format!("taken{round}"));
                match take(&out, &NAMES, &to) {
                    Err(_) => {}
                    Ok(false) => continue,
                    Ok(true) => {
                        let found = to.join("t2m/c").symlink_metadata();
                        assert!(found.map_or(true, |found| found.is_file()));
                    }
                }
                fs::remove_dir_all(to).unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
