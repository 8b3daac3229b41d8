//! Names of features: `{var_name}{altitude}m`, formatted as Python's `str.format` formats NumPy
//! scalars.

use std::fmt::Write as _;

/// A value of a level coordinate, in the type that the dataset stores it in: Python writes an
/// integer `100` as `100` and a float as `100.0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LevelValue {
    /// An integer.
    Integer(i64),
    /// A float32.
    Float(f32),
    /// A float64.
    Double(f64),
}

impl LevelValue {
    /// The value as float64, exact for levels.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Float(value) => f64::from(value),
            Self::Double(value) => value,
        }
    }

    /// What Python's `format` makes of the NumPy scalar, which makes it a Python float first: a
    /// float32 shows all the digits of its float64.
    fn python_str(self) -> String {
        match self {
            Self::Integer(value) => value.to_string(),
            Self::Float(_) | Self::Double(_) => python_float(&format!("{:e}", self.as_f64())),
        }
    }

    /// What Python makes of it with a format specification: `[0][width][.precision][d|f]`.
    fn python_format(self, spec: &str) -> Option<String> {
        if spec.is_empty() {
            return Some(self.python_str());
        }
        let (spec, kind) = match spec.as_bytes().last()? {
            b'd' => (&spec[..spec.len() - 1], 'd'),
            b'f' => (&spec[..spec.len() - 1], 'f'),
            _ => return None,
        };
        let (zero, spec) = match spec.strip_prefix('0') {
            Some(rest) => (true, rest),
            None => (false, spec),
        };
        let (width, precision) = match spec.split_once('.') {
            Some((width, precision)) => (width, Some(precision.parse::<usize>().ok()?)),
            None => (spec, None),
        };
        let width: usize = if width.is_empty() {
            0
        } else {
            width.parse().ok()?
        };
        match (kind, self) {
            ('d', Self::Integer(value)) if precision.is_none() => {
                Some(pad(&value.to_string(), width, zero))
            }
            ('f', value) => {
                let digits = precision.unwrap_or(6);
                Some(pad(&format!("{:.digits$}", value.as_f64()), width, zero))
            }
            _ => None,
        }
    }
}

fn pad(number: &str, width: usize, zero: bool) -> String {
    if !zero {
        return format!("{number:>width$}");
    }
    match number.strip_prefix('-') {
        Some(digits) => format!("-{digits:0>width$}", width = width.saturating_sub(1)),
        None => format!("{number:0>width$}"),
    }
}

/// Python's `repr` of a float from the shortest digits that identify it (`1.5e2`): positional from
/// 1e-4 up to 1e16, else with an exponent of at least two digits.
fn python_float(scientific: &str) -> String {
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific.to_lowercase(); // inf, nan
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    if !(-4..16).contains(&exponent) {
        let direction = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{mantissa}e{direction}{:02}", exponent.abs());
    }
    let digits = mantissa.replace('.', "");
    if exponent < 0 {
        let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
        return format!("{sign}0.{zeros}{digits}");
    }
    let whole = exponent.unsigned_abs() as usize + 1;
    let digits = format!("{digits:0<whole$}");
    let (whole, fraction) = digits.split_at(whole);
    let fraction = if fraction.is_empty() { "0" } else { fraction };
    format!("{sign}{whole}.{fraction}")
}

/// Why a `name_format` cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum NameFormatError {
    /// A placeholder that stands for nothing.
    #[error("name_format `{format}`: `{{{field}}}` stands for nothing here: use {known}")]
    Unknown {
        /// The format.
        format: String,
        /// The placeholder.
        field: String,
        /// What can be used.
        known: String,
    },
    /// A placeholder that has to be there.
    #[error("name_format `{format}` lacks `{{{field}}}`: features would have the same name")]
    Lacks {
        /// The format.
        format: String,
        /// The placeholder.
        field: String,
    },
    /// A format specification that is not understood.
    #[error("name_format `{format}`: `{spec}` cannot format {value}: use `d`, `03d` or `.0f`")]
    Spec {
        /// The format.
        format: String,
        /// The specification.
        spec: String,
        /// What would be formatted.
        value: String,
    },
    /// Unbalanced braces.
    #[error("name_format `{0}` has an unbalanced brace")]
    Brace(String),
}

/// The name of the feature of `variable`, on one level of a dimension if it has levels.
pub(crate) fn feature_name(
    format: &str,
    variable: &str,
    level: Option<(&str, LevelValue)>,
) -> Result<String, NameFormatError> {
    let mut name = String::new();
    let (mut has_variable, mut has_level) = (false, level.is_none());
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        name.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix(brace) {
            name.push_str(brace);
            rest = after;
            continue;
        }
        let end = after.find('}').filter(|_| brace == "{");
        let end = end.ok_or_else(|| NameFormatError::Brace(format.to_owned()))?;
        let (field, spec) = after[..end].split_once(':').unwrap_or((&after[..end], ""));
        match level {
            _ if field == "var_name" && spec.is_empty() => {
                name.push_str(variable);
                has_variable = true;
            }
            Some((dim, value)) if field == dim => {
                let text = value
                    .python_format(spec)
                    .ok_or_else(|| NameFormatError::Spec {
                        format: format.to_owned(),
                        spec: spec.to_owned(),
                        value: value.python_str(),
                    })?;
                name.push_str(&text);
                has_level = true;
            }
            _ => {
                let mut known = "`{var_name}`".to_owned();
                if let Some((dim, _)) = level {
                    let _ = write!(known, " and `{{{dim}}}`");
                }
                return Err(NameFormatError::Unknown {
                    format: format.to_owned(),
                    field: after[..end].to_owned(),
                    known,
                });
            }
        }
        rest = &after[end + 1..];
    }
    name.push_str(rest);
    let lacks = |field: &str| NameFormatError::Lacks {
        format: format.to_owned(),
        field: field.to_owned(),
    };
    match level {
        _ if !has_variable => Err(lacks("var_name")),
        Some((dim, _)) if !has_level => Err(lacks(dim)),
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(value: LevelValue, format: &str) -> Result<String, NameFormatError> {
        feature_name(format, "t", Some(("altitude", value)))
    }

    #[test]
    fn formats_as_python_does() {
        let plain = "{var_name}{altitude}m";
        // Expected values: `"{}".format(np.int64(100))` and so on, NumPy 2.
        for (value, expected) in [
            (LevelValue::Integer(100), "t100m"),
            (LevelValue::Double(100.0), "t100.0m"),
            (LevelValue::Float(0.1), "t0.10000000149011612m"),
            (LevelValue::Float(0.995), "t0.9950000047683716m"),
            (LevelValue::Float(1e-5), "t9.999999747378752e-06m"),
            (LevelValue::Float(100.5), "t100.5m"),
            (LevelValue::Double(0.1 + 0.2), "t0.30000000000000004m"),
            (LevelValue::Double(1e16), "t1e+16m"),
            (
                LevelValue::Double(123_456_789_012_345.0),
                "t123456789012345.0m",
            ),
            (LevelValue::Double(0.0001), "t0.0001m"),
            (LevelValue::Double(0.00001), "t1e-05m"),
            (LevelValue::Double(-2.5), "t-2.5m"),
            (LevelValue::Float(0.0), "t0.0m"),
        ] {
            assert_eq!(level(value, plain).unwrap(), expected);
        }
        for (value, format, expected) in [
            (
                LevelValue::Double(850.0),
                "{var_name}_{altitude:.0f}",
                "t_850",
            ),
            (LevelValue::Integer(7), "{var_name}_{altitude:03d}", "t_007"),
            (
                LevelValue::Integer(-7),
                "{var_name}_{altitude:03d}",
                "t_-07",
            ),
            (LevelValue::Double(2.5), "{var_name}_{altitude:.0f}", "t_2"),
            (
                LevelValue::Integer(7),
                "{var_name}{{}}{altitude:5.1f}",
                "t{}  7.0",
            ),
        ] {
            assert_eq!(level(value, format).unwrap(), expected);
        }
        assert_eq!(feature_name("{var_name}_x", "t", None).unwrap(), "t_x");
    }

    #[test]
    fn refuses_what_python_or_we_cannot_format() {
        use NameFormatError::{Brace, Lacks, Spec, Unknown};
        let value = LevelValue::Double(100.0);
        assert!(matches!(
            level(value, "{var_name}{altitude:d}"),
            Err(Spec { .. })
        ));
        assert!(matches!(
            level(value, "{var_name}{altitude:g}"),
            Err(Spec { .. })
        ));
        assert!(matches!(
            level(value, "{var_name}{level}"),
            Err(Unknown { .. })
        ));
        assert!(matches!(level(value, "{var_name}"), Err(Lacks { .. })));
        assert!(matches!(level(value, "{altitude}"), Err(Lacks { .. })));
        assert!(matches!(
            feature_name("{var_name", "t", None),
            Err(Brace(_))
        ));
        assert!(matches!(
            feature_name("{var_name}}", "t", None),
            Err(Brace(_))
        ));
        assert!(matches!(feature_name("x", "t", None), Err(Lacks { .. })));
    }
}
