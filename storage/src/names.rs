//! Names of objects that may become local paths.

use std::collections::HashSet;

/// Whether `name` is a relative path of plain segments separated by `/`; else why not.
pub(crate) fn check(name: &str) -> Result<(), &'static str> {
    for segment in name.split('/') {
        match segment {
            "" => return Err("it has an empty part between two `/`, or begins with `/`"),
            "." | ".." => return Err("it has a `.` or `..`"),
            _ if segment.len() > 255 => return Err("a part of it is longer than 255 bytes"),
            _ if segment.chars().any(char::is_control) => {
                return Err("it has a control character");
            }
            _ => {}
        }
    }
    Ok(())
}

/// The first of `names` that is also a folder of another one.
pub(crate) fn collision<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let folders: HashSet<&str> = names.clone().flat_map(folders).collect();
    names.into_iter().find(|name| folders.contains(name))
}

/// The folders above `name`, the innermost first.
pub(crate) fn folders(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(name.rsplit_once('/'), |(folder, _)| folder.rsplit_once('/'))
        .map(|(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_pass_and_others_do_not() {
        for name in [
            "a",
            "a/b",
            ".zattrs",
            "..a",
            "a b/ø/+&=~#1%",
            &"x".repeat(255),
        ] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        let long = "x".repeat(256);
        for name in [
            "", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\0", "a\nb", &long,
        ] {
            assert!(check(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_name_that_is_also_a_folder_is_found() {
        let found = |names: &[&str]| collision(names.iter().copied()).map(ToOwned::to_owned);
        assert_eq!(found(&["a", "a-b", "a/b"]), Some("a".to_owned()));
        assert_eq!(found(&["x/y/z", "x/y"]), Some("x/y".to_owned()));
        assert_eq!(found(&["a", "a-b/c", "ab/c", "b/a"]), None);
    }
}
