//! The metadata documents that the writer writes for an array.

use serde_json::{Map, Value, json};

use crate::variable::DIMENSIONS;
use crate::{Definition, Element, ZarrFormat};

/// Blosc compresses at most this many bytes at once.
const MAX_CHUNK_BYTES: u64 = (2 << 30) - 64;

/// Attributes that say how values are encoded. The writer encodes by itself.
pub(crate) const ENCODING_ATTRIBUTES: [&str; 6] = [
    "_FillValue",
    "missing_value",
    "scale_factor",
    "add_offset",
    "_Unsigned",
    DIMENSIONS,
];

/// Checks that a definition makes sense by itself.
pub(crate) fn check(definition: &Definition) -> Result<(), String> {
    let Definition {
        shape,
        chunks,
        element,
        attributes,
        ..
    } = definition;
    check_names(definition)?;
    let bytes = chunks
        .iter()
        .try_fold(element.size(), |bytes, &chunk| bytes.checked_mul(chunk));
    match bytes {
        Some(0) => return Err("a chunk length is zero".to_owned()),
        Some(bytes) if bytes <= MAX_CHUNK_BYTES => {}
        _ => return Err("a chunk has more than 2 GiB".to_owned()),
    }
    let is_whole = chunks
        .iter()
        .zip(shape)
        .all(|(&chunk, &length)| chunk >= length);
    if *element == Element::Text && !is_whole {
        return Err("texts are written as one chunk".to_owned());
    }
    match ENCODING_ATTRIBUTES
        .into_iter()
        .find(|name| attributes.contains_key(*name))
    {
        Some(name) => Err(format!("the attribute `{name}` is set by the writer")),
        None => Ok(()),
    }
}

/// Checks the names of a variable and its dimensions, and that these have as many lengths.
pub(crate) fn check_names(definition: &Definition) -> Result<(), String> {
    let Definition {
        name,
        dims,
        shape,
        chunks,
        ..
    } = definition;
    let is_unsafe = name.is_empty()
        || name.starts_with('.')
        || name.starts_with("__")
        || name == "zarr.json"
        || name.contains(['/', '\\', '\0']);
    if is_unsafe {
        return Err("its name cannot be the name of a folder in a Zarr store".to_owned());
    }
    if dims.len() != shape.len() || chunks.len() != shape.len() {
        return Err(format!(
            "it has {} dimensions, {} lengths and {} chunk lengths",
            dims.len(),
            shape.len(),
            chunks.len()
        ));
    }
    if let Some(index) = (1..dims.len()).find(|&index| dims[..index].contains(&dims[index])) {
        return Err(format!("it has the dimension `{}` twice", dims[index]));
    }
    Ok(())
}

/// `zarr.json` of an array of version 3, as zarr-python and xarray write it. `characters` is the
/// length of the longest text, of texts.
pub(crate) fn document_v3(definition: &Definition, characters: usize) -> Value {
    let compressor = |size| definition.compressor.document(ZarrFormat::V3, size);
    let zstd = json!({"name": "zstd", "configuration": {"level": 0, "checksum": false}});
    let text = json!({
        "name": "fixed_length_utf32",
        "configuration": {"length_bytes": 4 * characters},
    });
    let (data_type, fill_value, compressor) = match definition.element {
        Element::F32 => (json!("float32"), json!("NaN"), compressor(4)),
        Element::F64 => (json!("float64"), json!("NaN"), compressor(8)),
        Element::I64 => (json!("int64"), json!(0), compressor(8)),
        Element::Text => (text, json!(""), Some(zstd)),
    };
    let bytes = json!({"name": "bytes", "configuration": {"endian": "little"}});
    let codecs: Vec<Value> = [bytes].into_iter().chain(compressor).collect();
    let mut attributes = definition.attributes.clone();
    if matches!(definition.element, Element::F32 | Element::F64) {
        // The bytes of a double NaN in base64: so xarray writes it for either width.
        attributes.insert("_FillValue".to_owned(), json!("AAAAAAAA+H8="));
    }
    json!({
        "shape": definition.shape,
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": definition.chunks}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_value,
        "codecs": codecs,
        "attributes": attributes,
        "dimension_names": definition.dims,
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    })
}

/// `.zarray` of an array of version 2, as zarr-python and xarray write it.
pub(crate) fn document_v2(definition: &Definition, characters: usize) -> Value {
    let compressor = |size| definition.compressor.document(ZarrFormat::V2, size);
    let zstd = json!({"id": "zstd", "level": 0});
    let (dtype, fill_value, compressor) = match definition.element {
        Element::F32 => (json!("<f4"), json!("NaN"), compressor(4)),
        Element::F64 => (json!("<f8"), json!("NaN"), compressor(8)),
        // xarray would take a fill value for missing.
        Element::I64 => (json!("<i8"), Value::Null, compressor(8)),
        Element::Text => (json!(format!("<U{characters}")), Value::Null, Some(zstd)),
    };
    json!({
        "shape": definition.shape,
        "chunks": definition.chunks,
        "dtype": dtype,
        "fill_value": fill_value,
        "order": "C",
        "filters": null,
        "dimension_separator": ".",
        "compressor": compressor,
        "zarr_format": 2,
    })
}

/// `.zattrs` of an array of version 2: the attributes, and the names of the dimensions.
pub(crate) fn attributes_v2(definition: &Definition) -> Map<String, Value> {
    let mut attributes = definition.attributes.clone();
    attributes.insert(DIMENSIONS.to_owned(), json!(definition.dims));
    attributes
}
