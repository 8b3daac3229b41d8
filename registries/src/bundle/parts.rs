//! The files of a bundle: one tar, or its parts and the list of them.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use mlwm_spec::Digest;
use serde::{Deserialize, Serialize};

use super::BUNDLE_VERSION;
use crate::Error;

/// Parts have numbers of three digits, or four.
pub(super) const MAX_PARTS: u64 = 9999;
/// Largest list that is read, in bytes.
const MAX_LIST: u64 = 4 << 20;

const LIST_SUFFIX: &str = ".parts.json";
const FORMAT: &str = "mlwm-bundle-parts";

/// `<file>.parts.json`. The parts are not named: they are `<file>.001` and so on, whatever the
/// bundle is renamed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartList {
    format: String,
    format_version: u32,
    /// Size of the tar in bytes.
    pub(super) size: u64,
    /// SHA-256 of the tar.
    pub(super) digest: Digest,
    pub(super) parts: Vec<Part>,
}

/// One part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// In bytes.
    pub(super) size: u64,
    pub(super) digest: Digest,
}

/// Where a bundle is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// One file.
    File(PathBuf),
    /// Parts; the path without their endings.
    Parts(PathBuf),
}

impl PartList {
    pub(super) fn new(digest: Digest, parts: Vec<Part>) -> Self {
        Self {
            format: FORMAT.to_owned(),
            format_version: BUNDLE_VERSION,
            size: parts.iter().map(|part| part.size).sum(),
            digest,
            parts,
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }

    /// Reads the list of the parts of `base`.
    pub(super) fn read(base: &Path) -> Result<Self, Error> {
        let path = list_path(base);
        let bad = |why: String| Error::BadBundle {
            bundle: path.display().to_string(),
            why,
        };
        let size = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(missing(base, error));
            }
            Err(error) => return Err(Error::local("read", &path)(error)),
        };
        if size > MAX_LIST {
            return Err(bad("it is larger than any list of parts".to_owned()));
        }
        let text = fs::read(&path).map_err(Error::local("read", &path))?;
        let list: Self = serde_json::from_slice(&text)
            .map_err(|error| bad(format!("it is not a list of parts: {error}")))?;
        if list.format != FORMAT {
            return Err(bad("it is not a list of parts".to_owned()));
        }
        if list.format_version != BUNDLE_VERSION {
            return Err(bad(format!(
                "it has the format version {}, but this mlwm knows {BUNDLE_VERSION}: use a newer mlwm",
                list.format_version
            )));
        }
        let total = list
            .parts
            .iter()
            .try_fold(0_u64, |sum, part| sum.checked_add(part.size));
        let cut = list.parts.first().map_or(0, |part| part.size);
        let expected = part_sizes(list.size, cut).ok();
        let sizes = list.parts.iter().map(|part| part.size);
        if total != Some(list.size) || !expected.is_some_and(|expected| sizes.eq(expected)) {
            return Err(bad("its sizes do not go together".to_owned()));
        }
        Ok(list)
    }
}

/// Sizes of the parts of so many bytes, cut after `part_size` each. The error says what to do.
pub(super) fn part_sizes(
    size: u64,
    part_size: u64,
) -> Result<impl ExactSizeIterator<Item = u64>, String> {
    let count = match part_size {
        0 => u64::MAX,
        part_size => size.div_ceil(part_size),
    };
    if count > MAX_PARTS {
        return Err(format!(
            "a bundle of {size} bytes would have more than {MAX_PARTS} parts of {part_size} bytes: choose larger parts"
        ));
    }
    let sizes = move |index: u32| part_size.min(size - u64::from(index) * part_size);
    Ok((0..count as u32).map(sizes))
}

/// The error for a list that is not there.
fn missing(base: &Path, error: std::io::Error) -> Error {
    let list = list_path(base);
    match parts_there(base).unwrap_or_default().first() {
        None => Error::local("read", list)(error),
        Some(index) => Error::BadBundle {
            bundle: base.display().to_string(),
            why: format!(
                "{} is there, but its list {} is missing: copy it too",
                part_path(base, *index).display(),
                list.display()
            ),
        },
    }
}

/// `<file>.parts.json`
pub(super) fn list_path(base: &Path) -> PathBuf {
    with_ending(base, LIST_SUFFIX)
}

/// `<file>.001` for 0, and so on.
pub(super) fn part_path(base: &Path, index: usize) -> PathBuf {
    with_ending(base, &format!(".{:03}", index + 1))
}

fn with_ending(base: &Path, ending: &str) -> PathBuf {
    let mut path = OsString::from(base);
    path.push(ending);
    path.into()
}

/// The parts of `base` that are there, whether they belong to a bundle or not: their numbers from 0.
pub(super) fn parts_there(base: &Path) -> Result<Vec<usize>, Error> {
    let folder = super::sink::folder_of(base);
    let name = base.file_name().unwrap_or_default();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::local("read", folder))? {
        let entry = entry.map_err(Error::local("read", folder))?.file_name();
        if let Some((stem, number)) = split_number(Path::new(&entry))
            && stem.as_os_str() == name
        {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether a name without folder is that of the bundle `base`, of one of its parts, or of their list.
pub(super) fn is_file_of(name: &Path, base: &Path) -> bool {
    let base = Path::new(base.file_name().unwrap_or_default());
    let is_part = || split_number(name).is_some_and(|(stem, _)| stem == base);
    name == base || name == list_path(base) || is_part()
}

/// `<file>.001` is `<file>` and 0.
fn split_number(path: &Path) -> Option<(PathBuf, usize)> {
    let digits = path.extension()?.to_str()?;
    let number: usize = digits.parse().ok()?;
    let index = number.checked_sub(1)?;
    let base = path.with_extension("");
    (part_path(&base, index) == path).then_some((base, index))
}

/// The bundle that a path means: a tar, a list of parts, any of the parts, or all of them by the name
/// they have in common.
pub(super) fn find(path: &Path) -> Place {
    let text = path.as_os_str().to_str().unwrap_or_default();
    if let Some(base) = text.strip_suffix(LIST_SUFFIX) {
        return Place::Parts(base.into());
    }
    let is_there = |path: &Path| !matches!(fs::metadata(path), Err(error) if error.kind() == ErrorKind::NotFound);
    match split_number(path) {
        Some((base, _)) => Place::Parts(base),
        None if !is_there(path)
            && (is_there(&list_path(path)) || is_there(&part_path(path, 0))) =>
        {
            Place::Parts(path.to_owned())
        }
        None => Place::File(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bundle_is_found_by_each_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("a.tar");
        let parts = Place::Parts(base.clone());
        assert_eq!(find(&base), Place::File(base.clone()));
        fs::write(list_path(&base), "").unwrap();
        assert_eq!(find(&base), parts);
        assert_eq!(find(&list_path(&base)), parts);
        assert_eq!(find(&part_path(&base, 0)), parts);
        assert_eq!(find(&part_path(&base, 1233)), parts);
        for other in ["a.tar.1", "a.tar.0001", "a.tar.000", "a.tar.01x", "a.tar"] {
            let other = folder.path().join(other);
            fs::write(&other, "").unwrap();
            assert_eq!(find(&other), Place::File(other.clone()));
        }
        for index in [11, 0, 999] {
            fs::write(part_path(&base, index), "").unwrap();
        }
        fs::write(folder.path().join("b.tar.002"), "").unwrap();
        assert_eq!(parts_there(&base).unwrap(), [0, 11, 999]);
    }

    proptest! {
        #[test]
        fn parts_are_the_whole(size in 1_u64..1 << 40, part in 1_u64..1 << 40) {
            match part_sizes(size, part) {
                Ok(sizes) => {
                    let sizes: Vec<u64> = sizes.collect();
                    prop_assert_eq!(sizes.iter().sum::<u64>(), size);
                    prop_assert!(sizes.iter().all(|found| (1..=part).contains(found)));
                    prop_assert!(sizes[..sizes.len() - 1].iter().all(|found| *found == part));
                }
                Err(_) => prop_assert!(size.div_ceil(part) > MAX_PARTS),
            }
        }
    }

    #[test]
    fn a_list_that_does_not_add_up_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("a.tar");
        let part = |size| Part {
            size,
            digest: Digest::of("x"),
        };
        let write = |list: &PartList| fs::write(list_path(&base), list.to_json()).unwrap();
        let good = PartList::new(Digest::of("y"), vec![part(5), part(5), part(2)]);
        write(&good);
        assert_eq!(PartList::read(&base).unwrap(), good);
        for sizes in [
            vec![],
            vec![0],
            vec![5, 4, 5],
            vec![5, 6],
            vec![5, 0],
            vec![u64::MAX, 2],
        ] {
            let list = PartList {
                size: 12,
                parts: sizes.iter().map(|size| part(*size)).collect(),
                ..good.clone()
            };
            write(&list);
            assert!(PartList::read(&base).is_err(), "{sizes:?}");
        }
        write(&PartList {
            size: 13,
            ..good.clone()
        });
        assert!(PartList::read(&base).is_err());
        write(&PartList {
            format_version: 2,
            ..good
        });
        let error = PartList::read(&base).unwrap_err().to_string();
        assert!(error.contains("newer"), "{error}");
    }
}
