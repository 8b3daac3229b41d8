//! The metadata documents of a Zarr group on disk: version 2 or 3, consolidated or not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;

/// A metadata document larger than this is not read.
const MAX_METADATA_BYTES: u64 = 256 << 20;

/// The version of the Zarr format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZarrFormat {
    /// Version 2: `.zgroup`, `.zarray`, `.zattrs`, consolidated in `.zmetadata`.
    V2,
    /// Version 3: `zarr.json`, consolidated in the group's own.
    V3,
}

/// The metadata of a group and of the arrays directly in it.
pub(crate) struct Group {
    pub(crate) format: ZarrFormat,
    pub(crate) attributes: Map<String, Value>,
    pub(crate) arrays: BTreeMap<String, ArrayDocument>,
}

/// The metadata of one array as it is on disk.
pub(crate) struct ArrayDocument {
    /// `.zarray`, or `zarr.json` with its attributes.
    pub(crate) document: Value,
    /// User attributes (of version 2 with `_ARRAY_DIMENSIONS`).
    pub(crate) attributes: Map<String, Value>,
}

impl Group {
    /// Reads the metadata, from the consolidated copy where there is one, as xarray does. Version
    /// 3 is preferred where a folder has both.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        if let Some(root) = read_object(&path.join("zarr.json"))? {
            return Self::read_v3(path, root);
        }
        if let Some(consolidated) = read_object(&path.join(".zmetadata"))? {
            return Self::read_v2_consolidated(path, consolidated);
        }
        if read_object(&path.join(".zgroup"))?.is_some() {
            return Self::read_v2(path);
        }
        Err(Error::NotZarr {
            path: path.to_owned(),
        })
    }

    fn read_v3(path: &Path, mut root: Map<String, Value>) -> Result<Self, Error> {
        let file = path.join("zarr.json");
        if root.get("zarr_format") != Some(&Value::from(3)) {
            return Err(invalid(&file, "`zarr_format` is not 3"));
        }
        if root.get("node_type") != Some(&Value::from("group")) {
            return Err(invalid(&file, "it is not a group (`node_type`)"));
        }
        let attributes = take_object(&mut root, "attributes", &file)?;
        let mut arrays = BTreeMap::new();
        let consolidated = match root.remove("consolidated_metadata") {
            None | Some(Value::Null) => None,
            Some(Value::Object(mut value)) => Some(take_object(&mut value, "metadata", &file)?),
            Some(_) => return Err(invalid(&file, "`consolidated_metadata` is not an object")),
        };
        match consolidated {
            Some(metadata) => {
                for (name, document) in metadata {
                    if is_direct_child(&name, &file)? {
                        insert_v3(&mut arrays, name, document, &file)?;
                    }
                }
            }
            None => {
                for name in folders(path)? {
                    let file = path.join(&name).join("zarr.json");
                    if let Some(document) = read_object(&file)? {
                        insert_v3(&mut arrays, name, Value::Object(document), &file)?;
                    }
                }
            }
        }
        Ok(Self {
            format: ZarrFormat::V3,
            attributes,
            arrays,
        })
    }

    fn read_v2_consolidated(path: &Path, mut root: Map<String, Value>) -> Result<Self, Error> {
        let file = path.join(".zmetadata");
        let mut metadata = take_object(&mut root, "metadata", &file)?;
        if !metadata.contains_key(".zgroup") {
            return Err(invalid(&file, "it has no `.zgroup`"));
        }
        let attributes = take_object(&mut metadata, ".zattrs", &file)?;
        let names: Vec<String> = metadata
            .keys()
            .filter_map(|key| key.strip_suffix("/.zarray"))
            .map(str::to_owned)
            .collect();
        let mut arrays = BTreeMap::new();
        for name in names {
            if !is_direct_child(&name, &file)? {
                continue;
            }
            let attributes = take_object(&mut metadata, &format!("{name}/.zattrs"), &file)?;
            let Some(document) = metadata.remove(&format!("{name}/.zarray")) else {
                continue;
            };
            arrays.insert(
                name,
                ArrayDocument {
                    document,
                    attributes,
                },
            );
        }
        Ok(Self {
            format: ZarrFormat::V2,
            attributes,
            arrays,
        })
    }

    fn read_v2(path: &Path) -> Result<Self, Error> {
        let mut arrays = BTreeMap::new();
        for name in folders(path)? {
            let folder = path.join(&name);
            if let Some(document) = read_object(&folder.join(".zarray"))? {
                arrays.insert(
                    name,
                    ArrayDocument {
                        document: Value::Object(document),
                        attributes: read_object(&folder.join(".zattrs"))?.unwrap_or_default(),
                    },
                );
            }
        }
        Ok(Self {
            format: ZarrFormat::V2,
            attributes: read_object(&path.join(".zattrs"))?.unwrap_or_default(),
            arrays,
        })
    }
}

/// Adds a node of version 3 if it is an array.
fn insert_v3(
    arrays: &mut BTreeMap<String, ArrayDocument>,
    name: String,
    document: Value,
    file: &Path,
) -> Result<(), Error> {
    let Value::Object(mut document) = document else {
        return Err(invalid(file, &format!("`{name}` is not an object")));
    };
    if document.get("node_type") == Some(&Value::from("array")) {
        let attributes = take_object(&mut document, "attributes", file)?;
        arrays.insert(
            name,
            ArrayDocument {
                document: Value::Object(document),
                attributes,
            },
        );
    }
    Ok(())
}

/// Whether a key of consolidated metadata names something directly in the group; names below
/// subgroups are skipped, names that leave the group are an error.
fn is_direct_child(name: &str, file: &Path) -> Result<bool, Error> {
    let unsafe_part = |part: &str| matches!(part, "" | "." | "..") || part.contains(['\\', '\0']);
    if name.split('/').any(unsafe_part) {
        return Err(Error::UnsafeName {
            path: file.to_owned(),
            name: name.to_owned(),
        });
    }
    Ok(!name.contains('/'))
}

/// The names of the folders in a folder.
fn folders(path: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if let Ok(name) = entry.file_name().into_string()
            && entry.path().is_dir()
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes an object from an object; none counts as an empty one.
fn take_object(
    from: &mut Map<String, Value>,
    key: &str,
    file: &Path,
) -> Result<Map<String, Value>, Error> {
    match from.remove(key) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(value)) => Ok(value),
        Some(_) => Err(invalid(file, &format!("`{key}` is not an object"))),
    }
}

/// A JSON object in a file; `None` if there is no such file.
fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(MAX_METADATA_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > MAX_METADATA_BYTES {
        return Err(invalid(path, "it is larger than 256 MiB"));
    }
    let value = serde_json::from_str(&text)
        .or_else(|error| serde_json::from_str(&without_bare_numbers(&text)).map_err(|_| error))
        .map_err(|error| invalid(path, &error.to_string()))?;
    match value {
        Value::Object(object) => Ok(Some(object)),
        _ => Err(invalid(path, "it is not a JSON object")),
    }
}

/// Python writes `NaN`, `Infinity` and `-Infinity` into JSON, which JSON does not have: they
/// become `null` outside texts.
fn without_bare_numbers(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let bare = ["NaN", "Infinity", "-Infinity"]
            .into_iter()
            .find(|bare| rest.starts_with(bare));
        let length = if first == '"' {
            quoted_length(rest)
        } else {
            bare.map_or(first.len_utf8(), str::len)
        };
        let (part, after) = rest.split_at(length);
        result.push_str(if bare.is_some() { "null" } else { part });
        rest = after;
    }
    result
}

/// The length in bytes of the quoted text at the start, with its quotes.
fn quoted_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

fn invalid(path: &Path, reason: &str) -> Error {
    Error::Metadata {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_numbers_of_python_become_null() {
        let text = r#"{"a\"NaN": "NaN Infinity", "b": NaN, "c": [-Infinity, Infinity, 1]}"#;
        let value: Value = serde_json::from_str(&without_bare_numbers(text)).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"a\"NaN": "NaN Infinity", "b": null, "c": [null, null, 1]})
        );
    }

    #[test]
    fn names_that_leave_the_group_are_refused() {
        let file = Path::new("zarr.json");
        assert!(is_direct_child("t2m", file).unwrap());
        assert!(!is_direct_child("group/t2m", file).unwrap());
        for name in ["../t2m", "/t2m", "a/../../t2m", "..", ".", "", "a\\b"] {
            assert!(is_direct_child(name, file).is_err(), "{name}");
        }
    }
}
