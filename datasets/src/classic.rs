//! How many bytes a classic NetCDF file must have at least: the library reads those that are not there as 0.
//!
//! The lengths are those of the NetCDF Classic Format Specification (magic, numrecs, dim_list, gatt_list, var_list,
//! data): names and values of attributes are padded to four bytes, and counts have eight in version 5.

use netcdf::{Attribute, AttributeValue};

/// The bytes of header and values of a file with this version (1, 2 or 5). Between them there may be more.
pub(crate) fn least_bytes(file: &netcdf::File, version: u8) -> Result<u64, String> {
    let count = if version == 5 { 8 } else { 4 };
    let offset = if version == 1 { 4 } else { 8 };
    let list = 4 + count;
    let dims = file.dimensions();
    let dims = dims.fold(list, |sum, dim| sum + named(&dim.name(), count) + count);
    let mut bytes = 4 + count + dims + attributes(file.attributes(), count)? + list;
    let is_record = |variable: &netcdf::Variable<'_>| {
        let first = variable.dimensions().first();
        first.is_some_and(netcdf::Dimension::is_unlimited)
    };
    // A single variable of records has them one behind the other.
    let is_padded = file.variables().filter(is_record).count() != 1;
    for variable in file.variables() {
        let lengths = variable.dimensions().iter().map(|dim| dim.len() as u64);
        let records = match is_record(&variable) {
            true => variable.dimensions()[0].len() as u64,
            false => 1,
        };
        let all = lengths.fold(variable.vartype().size() as u64, u64::saturating_mul);
        let record = all.checked_div(records).unwrap_or(0);
        let values = match is_padded || !is_record(&variable) {
            true => record.checked_next_multiple_of(4).unwrap_or(u64::MAX),
            false => record,
        };
        let values = values.saturating_mul(records);
        let dims = count * (1 + variable.dimensions().len() as u64);
        let own = attributes(variable.attributes(), count)? + 4 + count + offset;
        let header = named(&variable.name(), count) + dims + own;
        bytes = bytes.saturating_add(header).saturating_add(values);
    }
    // Behind the last value there may be none.
    Ok(bytes.saturating_sub(3))
}

/// The bytes of a list of attributes.
fn attributes<'a>(mut all: impl Iterator<Item = Attribute<'a>>, count: u64) -> Result<u64, String> {
    all.try_fold(4 + count, |sum, attribute| {
        let value = attribute.value().map_err(|error| error.to_string())?;
        let value = 4 + count + padded(bytes_of(&value));
        Ok(sum + named(attribute.name(), count) + value)
    })
}

fn named(name: &str, count: u64) -> u64 {
    count + padded(name.len() as u64)
}

/// Bytes up to the next four.
fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(4)
}

fn bytes_of(value: &AttributeValue) -> u64 {
    let bytes = match value {
        AttributeValue::Uchar(_) | AttributeValue::Schar(_) => 1,
        AttributeValue::Uchars(values) => values.len(),
        AttributeValue::Schars(values) => values.len(),
        AttributeValue::Ushort(_) | AttributeValue::Short(_) => 2,
        AttributeValue::Ushorts(values) => values.len() * 2,
        AttributeValue::Shorts(values) => values.len() * 2,
        AttributeValue::Uint(_) | AttributeValue::Int(_) | AttributeValue::Float(_) => 4,
        AttributeValue::Uints(values) => values.len() * 4,
        AttributeValue::Ints(values) => values.len() * 4,
        AttributeValue::Floats(values) => values.len() * 4,
        AttributeValue::Ulonglong(_) | AttributeValue::Longlong(_) | AttributeValue::Double(_) => 8,
        AttributeValue::Ulonglongs(values) => values.len() * 8,
        AttributeValue::Longlongs(values) => values.len() * 8,
        AttributeValue::Doubles(values) => values.len() * 8,
        AttributeValue::Str(text) => text.len(),
        AttributeValue::Strs(texts) => texts.iter().map(String::len).sum(),
    };
    bytes as u64
}
