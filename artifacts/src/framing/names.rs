//! Names that must not stand beside each other.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

use super::FramingError;

/// The names of an archive so far.
#[derive(Default)]
pub(super) struct Names {
    /// Files and the folders above them, by what a file system that folds names makes of them.
    known: HashMap<String, Known>,
}

struct Known {
    name: String,
    is_folder: bool,
    /// It has an entry of its own, and does not only stand in the path of another.
    is_listed: bool,
}

const SAME: &str = "are the same";

/// Two names that cannot stand beside each other.
pub(crate) type NameClash = (String, &'static str);

impl Names {
    /// Adds a name; a folder's ends with `/`.
    pub(super) fn add(&mut self, name: &str) -> Result<(), FramingError> {
        self.insert(name).map_err(|(other, why)| match why == SAME {
            true => FramingError::Duplicate(other),
            false => FramingError::Clash {
                first: other,
                second: name.to_owned(),
                why,
            },
        })
    }

    /// Adds a name and the folders above it; the name that is in its way, and why, if one is.
    fn insert(&mut self, name: &str) -> Result<(), NameClash> {
        let plain = name.strip_suffix('/').unwrap_or(name);
        for (end, _) in plain.match_indices('/') {
            self.insert_part(&plain[..end], true, false)?;
        }
        self.insert_part(plain, plain.len() < name.len(), true)
    }

    fn insert_part(
        &mut self,
        name: &str,
        is_folder: bool,
        is_listed: bool,
    ) -> Result<(), NameClash> {
        let known = self.known.entry(folded(name)).or_insert_with(|| Known {
            name: name.to_owned(),
            is_folder,
            is_listed: false,
        });
        let why = if known.name != name {
            match known.name.nfc().eq(name.nfc()) {
                true => "differ only by their Unicode form",
                false => "differ only by case",
            }
        } else if known.is_folder != is_folder {
            "are a file and a folder of one name"
        } else if known.is_listed && is_listed {
            SAME
        } else {
            known.is_listed |= is_listed;
            return Ok(());
        };
        Err((known.name.clone(), why))
    }
}

/// The name as a file system sees it that minds neither case nor Unicode form. Names are ASCII
/// (§6) and have one form only; this holds if that rule should ever be relaxed.
fn folded(name: &str) -> String {
    name.nfkc().flat_map(char::to_lowercase).nfkc().collect()
}

/// The first two of these names that cannot stand beside each other, and why.
pub(crate) fn clash<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<(String, NameClash)> {
    let mut known = Names::default();
    names
        .into_iter()
        .find_map(|name| Some((name.to_owned(), known.insert(name).err()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_some_file_system_confuses_are_found() {
        for (names, expected) in [
            (["a/b", "a/c"], None),
            (["a/", "a/c"], None),
            (["a/c", "a/"], None),
            (["ab", "a/b"], None),
            (["a", "a"], Some(SAME)),
            (["a/", "a/"], Some(SAME)),
            (["stats/T", "stats/t"], Some("differ only by case")),
            (["Stats/a", "stats/b"], Some("differ only by case")),
            (["stra\u{df}e", "STRASSE"], None),
            (
                ["caf\u{e9}", "cafe\u{301}"],
                Some("differ only by their Unicode form"),
            ),
            (["\u{212b}", "\u{e5}"], Some("differ only by case")),
            (["a", "a/b"], Some("are a file and a folder of one name")),
            (["a/b", "a"], Some("are a file and a folder of one name")),
        ] {
            let found = clash(names).map(|(_, (_, why))| why);
            assert_eq!(found, expected, "{names:?}");
        }
    }
}
