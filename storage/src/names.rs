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
