//! NetCDF, classic and NetCDF-4, through the official library; decoded as Zarr is. The file is hostile input:
//! nothing is read of a variable before its lengths are known to be those that are wanted.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use netcdf::AttributeValue;
use netcdf::types::{FloatType, IntType, NcVariableType};
use serde_json::{Map, Number, Value};
use zarrs::array::ArrayBytes;

use crate::decode::Decoding;
use crate::group::ZarrFormat;
use crate::stored::Stored;
use crate::variable::plain;
use crate::{Element, Values, cf_time, classic};

/// How a classic file begins, before its version, and how one of NetCDF-4 does.
const CLASSIC: &[u8] = b"CDF";
const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";
/// The most that the library keeps of the chunks of a variable, until the file is closed.
const CACHE: u64 = 64 << 20;
/// What the library puts where a float was never written.
const NEVER_WRITTEN: f32 = 9.969_21e36;

/// Whether a file begins as NetCDF does.
pub(crate) fn is_netcdf(start: &[u8]) -> bool {
    start.starts_with(CLASSIC) || start.starts_with(HDF5)
}

/// A NetCDF file, open.
pub(crate) struct NetCdf {
    file: netcdf::File,
    attributes: Map<String, Value>,
    variables: Vec<Variable>,
}

/// What is known of a variable.
struct Variable {
    name: String,
    dims: Vec<(String, u64)>,
    attributes: Map<String, Value>,
    /// Of numbers.
    decoding: Option<Decoding>,
    /// Packed with a scale or offset in float32: so are the unpacked values, by the CF conventions.
    is_single: bool,
}

impl NetCdf {
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        survived(|| {
            let file = netcdf::open(path).map_err(text)?;
            if file.groups().map_err(text)?.next().is_some() {
                return Err("it has groups".to_owned());
            }
            refuse_torn(path, &file)?;
            let variables = file.variables().map(|variable| describe(&variable));
            let variables = variables.collect::<Result<_, _>>()?;
            let mut attributes = Map::new();
            for attribute in file.attributes() {
                let value = attribute.value().map_err(text)?;
                attributes.insert(attribute.name().to_owned(), json(value));
            }
            Ok(Self {
                file,
                attributes,
                variables,
            })
        })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.variables.iter().map(|variable| variable.name.clone());
        names.collect()
    }

    /// The dimensions of a variable.
    pub(crate) fn dims(&self, name: &str) -> Result<&[(String, u64)], String> {
        Ok(&self.variable(name)?.dims)
    }

    /// The type of a variable's decoded values.
    pub(crate) fn element(&self, name: &str) -> Result<Element, String> {
        let variable = self.variable(name)?;
        Ok(match &variable.decoding {
            None => Element::Text,
            Some(_) if variable.is_single => Element::F32,
            Some(decoding) => decoding.element(),
        })
    }

    /// The attributes of a variable, without those that name others.
    pub(crate) fn attributes(&self, name: &str) -> Map<String, Value> {
        let variable = self.variable(name);
        variable.map_or_else(|_| Map::new(), |variable| plain(&variable.attributes))
    }

    /// The attributes of a variable as they are.
    pub(crate) fn raw_attributes(&self, name: &str) -> Result<&Map<String, Value>, String> {
        Ok(&self.variable(name)?.attributes)
    }

    /// The attributes of the file.
    pub(crate) fn file_attributes(&self) -> &Map<String, Value> {
        &self.attributes
    }

    /// How the values of a variable are decoded as netCDF4 and xarray decode them: in single precision where
    /// integers of at most two bytes are packed so. `None` of texts.
    pub(crate) fn decoding(&self, name: &str) -> Result<Option<Decoding>, String> {
        let variable = self.variable(name)?;
        let is_short = |decoding: &Decoding| {
            variable.is_single && decoding.stored().size().is_some_and(|size| size <= 2)
        };
        Ok(variable.decoding.clone().map(|decoding| match &decoding {
            short if is_short(short) => decoding.in_single(),
            _ => decoding,
        }))
    }

    /// The values in a part of a variable, one range for each dimension.
    pub(crate) fn read_range(
        &self,
        name: &str,
        ranges: &[Range<u64>],
        decoding: &Decoding,
    ) -> Result<Values, String> {
        let lengths = ranges
            .iter()
            .map(|range| (range.end - range.start) as usize);
        let shape: Vec<usize> = lengths.collect();
        let starts: Vec<usize> = ranges.iter().map(|range| range.start as usize).collect();
        let raw = survived(|| {
            let stored = self.file.variable(name).ok_or("it is not there")?;
            stored
                .get_raw_values((starts.as_slice(), shape.as_slice()))
                .map_err(text)
        })?;
        let values = decoding.decode(ArrayBytes::new_flen(raw), &shape)?;
        let attributes = &self.variable(name)?.attributes;
        if !attributes.contains_key("_FillValue") && has_unwritten(&values) {
            return Err("it has values that were never written".to_owned());
        }
        Ok(values)
    }

    /// What the library takes while a part of a variable is read, besides values.
    pub(crate) fn bytes_beside(&self, name: &str) -> Result<u64, String> {
        let variable = self.variable(name)?;
        let stored = variable
            .decoding
            .as_ref()
            .and_then(|one| one.stored().size());
        let size = stored.unwrap_or(1);
        let chunk = survived(|| {
            let stored = self.file.variable(name).ok_or("it is not there")?;
            stored.chunking().map_err(text)
        })?;
        let Some(chunk) = chunk.filter(|chunk| !chunk.is_empty()) else {
            return Ok(0);
        };
        let bytes =
            |lengths: &mut dyn Iterator<Item = u64>| lengths.fold(size, u64::saturating_mul);
        let all = bytes(&mut variable.dims.iter().map(|(_, length)| *length));
        let chunk = bytes(&mut chunk.iter().map(|&length| length as u64));
        let cached = if chunk <= CACHE { all.min(CACHE) } else { 0 };
        // Compressed, and before and after a filter.
        Ok(chunk.saturating_mul(3).saturating_add(cached))
    }

    /// All values of a variable.
    pub(crate) fn read(&self, name: &str) -> Result<Values, String> {
        let variable = self.variable(name)?;
        let values = self.decoded(variable)?;
        if !variable.attributes.contains_key("_FillValue") && has_unwritten(&values) {
            return Err(format!("`{name}` has values that were never written"));
        }
        Ok(match values {
            Values::F64(values) if variable.is_single => {
                Values::F32(values.mapv(|value| value as f32))
            }
            values => values,
        })
    }

    /// The times in Unix seconds.
    pub(crate) fn times(&self, name: &str) -> Result<Vec<i64>, String> {
        self.times_in_units_of(name, name)
    }

    /// The times of a variable without units of its own, such as the bounds of another one.
    pub(crate) fn times_in_units_of(&self, name: &str, other: &str) -> Result<Vec<i64>, String> {
        let variable = self.variable(name)?;
        let values = self.decoded(variable)?;
        let decoding = variable.decoding.as_ref().ok_or("its times are texts")?;
        cf_time::times(
            &values,
            decoding.stored(),
            &self.variable(other)?.attributes,
        )
        .map_err(|reason| format!("`{name}`: {reason}"))
    }

    fn decoded(&self, variable: &Variable) -> Result<Values, String> {
        let name = &variable.name;
        let unreadable = |reason: String| format!("`{name}`: {reason}");
        let not_numbers = || unreadable("it is not of numbers".to_owned());
        let decoding = variable.decoding.as_ref().ok_or_else(not_numbers)?;
        let raw = survived(|| {
            let stored = self.file.variable(name).ok_or("it is not there")?;
            stored.get_raw_values(..).map_err(text)
        });
        let lengths = variable.dims.iter().map(|(_, length)| *length as usize);
        let shape: Vec<usize> = lengths.collect();
        let bytes = ArrayBytes::new_flen(raw.map_err(unreadable)?);
        decoding.decode(bytes, &shape).map_err(unreadable)
    }

    fn variable(&self, name: &str) -> Result<&Variable, String> {
        let mut variables = self.variables.iter();
        let found = variables.find(|variable| variable.name == name);
        found.ok_or_else(|| format!("there is no `{name}`"))
    }
}

/// Refuses a classic file that has fewer bytes than its header and values: the library reads those that are not
/// there as 0.
fn refuse_torn(path: &Path, file: &netcdf::File) -> Result<(), String> {
    let mut start = [0; CLASSIC.len() + 1];
    let mut opened = File::open(path).map_err(|error| error.to_string())?;
    opened
        .read_exact(&mut start)
        .map_err(|error| error.to_string())?;
    let Some([version]) = start.strip_prefix(CLASSIC) else {
        return Ok(());
    };
    let found = opened.metadata().map_err(|error| error.to_string())?.len();
    let least = classic::least_bytes(file, *version)?;
    match found < least {
        true => Err(format!(
            "it has {found} bytes, and what is in it {least}: it was not written or copied whole"
        )),
        false => Ok(()),
    }
}

/// What the library puts where a number was never written.
fn never_written(kind: &NcVariableType) -> Option<Value> {
    match kind {
        NcVariableType::Int(IntType::I16) => Some((-32_767).into()),
        NcVariableType::Int(IntType::I32) => Some((-2_147_483_647).into()),
        NcVariableType::Float(_) => Some(float(NEVER_WRITTEN.into())),
        _ => None,
    }
}

fn describe(variable: &netcdf::Variable<'_>) -> Result<Variable, String> {
    let name = variable.name();
    let unreadable = |reason: String| format!("`{name}`: {reason}");
    let mut attributes = Map::new();
    let (mut is_packed, mut is_single) = (false, false);
    for attribute in variable.attributes() {
        let value = attribute.value().map_err(text).map_err(unreadable)?;
        let packs = matches!(attribute.name(), "scale_factor" | "add_offset");
        is_packed |= packs;
        is_single |= packs && matches!(value, AttributeValue::Float(_));
        attributes.insert(attribute.name().to_owned(), json(value));
    }
    let says_missing = ["_FillValue", "missing_value"]
        .iter()
        .any(|name| attributes.contains_key(*name));
    if is_packed
        && !says_missing
        && let Some(fill) = never_written(&variable.vartype())
    {
        // Unpacked, what was never written looks like any other value.
        attributes.insert("_FillValue".to_owned(), fill);
    }
    let decoding = stored(&variable.vartype())
        .map(|stored| Decoding::new(stored, ZarrFormat::V3, &Value::Null, &attributes));
    let dims = variable.dimensions().iter();
    Ok(Variable {
        dims: dims.map(|dim| (dim.name(), dim.len() as u64)).collect(),
        decoding: decoding.transpose().map_err(unreadable)?,
        name,
        attributes,
        is_single,
    })
}

fn stored(kind: &NcVariableType) -> Option<Stored> {
    let int = |bytes, signed| Some(Stored::Int { bytes, signed });
    match kind {
        NcVariableType::Int(IntType::I8) => int(1, true),
        NcVariableType::Int(IntType::I16) => int(2, true),
        NcVariableType::Int(IntType::I32) => int(4, true),
        NcVariableType::Int(IntType::I64) => int(8, true),
        NcVariableType::Int(IntType::U8) => int(1, false),
        NcVariableType::Int(IntType::U16) => int(2, false),
        NcVariableType::Int(IntType::U32) => int(4, false),
        NcVariableType::Int(IntType::U64) => int(8, false),
        NcVariableType::Float(FloatType::F32) => Some(Stored::Float { bytes: 4 }),
        NcVariableType::Float(FloatType::F64) => Some(Stored::Float { bytes: 8 }),
        _ => None,
    }
}

fn json(value: AttributeValue) -> Value {
    fn list<T>(values: Vec<T>, one: impl Fn(T) -> Value) -> Value {
        Value::Array(values.into_iter().map(one).collect())
    }
    match value {
        AttributeValue::Uchar(value) => value.into(),
        AttributeValue::Uchars(values) => values.into(),
        AttributeValue::Schar(value) => value.into(),
        AttributeValue::Schars(values) => values.into(),
        AttributeValue::Ushort(value) => value.into(),
        AttributeValue::Ushorts(values) => values.into(),
        AttributeValue::Short(value) => value.into(),
        AttributeValue::Shorts(values) => values.into(),
        AttributeValue::Uint(value) => value.into(),
        AttributeValue::Uints(values) => values.into(),
        AttributeValue::Int(value) => value.into(),
        AttributeValue::Ints(values) => values.into(),
        AttributeValue::Ulonglong(value) => value.into(),
        AttributeValue::Ulonglongs(values) => values.into(),
        AttributeValue::Longlong(value) => value.into(),
        AttributeValue::Longlongs(values) => values.into(),
        AttributeValue::Float(value) => float(value.into()),
        AttributeValue::Floats(values) => list(values, |value| float(value.into())),
        AttributeValue::Double(value) => float(value),
        AttributeValue::Doubles(values) => list(values, float),
        AttributeValue::Str(value) => value.into(),
        AttributeValue::Strs(values) => values.into(),
    }
}

/// A number as the attributes of Zarr have it.
fn float(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

fn has_unwritten(values: &Values) -> bool {
    match values {
        Values::F32(values) => values.iter().any(|value| *value == NEVER_WRITTEN),
        Values::F64(values) => values.iter().any(|value| *value as f32 == NEVER_WRITTEN),
        _ => false,
    }
}

/// The crate panics at names that are not UTF-8: such a file cannot be read, and that is all.
fn survived<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let panicked = |_| Err("it has names that are not UTF-8, or is damaged".to_owned());
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(panicked)
}

fn text(error: netcdf::Error) -> String {
    error.to_string()
}
