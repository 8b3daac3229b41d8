//! Numbers of a dataset path: as they stand in YAML, and as they stand in a path.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A finite number that remembers whether it was written as an integer: `10` and `10.0` name
/// different paths (`10` and `10p0`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Number {
    /// An integer.
    Integer(i64),
    /// A floating-point number.
    Float(f64),
}

/// A number that has no place in a path.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0} is not a finite number: give one")]
pub struct InvalidNumber(String);

impl Number {
    /// Refuses NaN and infinity.
    pub fn check(self) -> Result<(), InvalidNumber> {
        match self {
            Self::Float(value) if !value.is_finite() => Err(InvalidNumber(value.to_string())),
            _ => Ok(()),
        }
    }

    /// Its value; integers beyond 2^53 are rounded.
    pub fn value(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    /// As written in paths: `-45p67`, `10`, `10p0`.
    pub fn path_text(self) -> String {
        self.to_string().replace('.', "p")
    }

    /// Reads what [`Number::path_text`] writes, and nothing else: a number has one text.
    pub fn from_path_text(text: &str) -> Option<Self> {
        let number = match text.contains('p') {
            true => Self::Float(text.replace('p', ".").parse().ok()?),
            false => Self::Integer(text.parse().ok()?),
        };
        (number.path_text() == text).then_some(number)
    }
}

impl FromStr for Number {
    type Err = InvalidNumber;

    /// Reads decimals as people type them: `10`, `10.0`, `-1e-5`.
    fn from_str(text: &str) -> Result<Self, InvalidNumber> {
        let invalid = || InvalidNumber(format!("`{text}`"));
        let number = match text.parse() {
            Ok(integer) => Self::Integer(integer),
            Err(_) => Self::Float(text.parse().map_err(|_| invalid())?),
        };
        number.check()?;
        Ok(number)
    }
}

/// The shortest plain decimals that are read back as the same number, without an exponent; a
/// floating-point number always has a point.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => {
                let digits = value.to_string();
                let point = if digits.contains('.') || !value.is_finite() {
                    ""
                } else {
                    ".0"
                };
                write!(f, "{digits}{point}")
            }
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a finite number")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Number, E> {
        Ok(Number::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Number, E> {
        // A larger integer as a float would name another path.
        i64::try_from(value)
            .map(Number::Integer)
            .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Number, E> {
        match value.is_finite() {
            true => Ok(Number::Float(value)),
            false => Err(E::invalid_value(de::Unexpected::Float(value), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn path_texts_of_known_numbers() {
        for (number, text) in [
            (Number::Float(123.456), "123p456"),
            (Number::Integer(789), "789"),
            (Number::Float(0.0), "0p0"),
            (Number::Float(-0.0), "-0p0"),
            (Number::Float(-45.67), "-45p67"),
            (Number::Integer(10), "10"),
            (Number::Float(10.0), "10p0"),
            (Number::Float(1e-5), "0p00001"),
            (Number::Float(1e16), "10000000000000000p0"),
            (Number::Integer(i64::MIN), "-9223372036854775808"),
        ] {
            assert_eq!(number.path_text(), text);
            assert_eq!(Number::from_path_text(text), Some(number));
        }
        for extreme in [1e300, f64::MAX, f64::MIN_POSITIVE, 5e-324, -5e-324] {
            let text = Number::Float(extreme).path_text();
            assert!(!text.contains(['e', 'E', '+']), "{text}");
            assert_eq!(Number::from_path_text(&text), Some(Number::Float(extreme)));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "-",
            "p",
            "1p",
            "p5",
            "1.5",
            "1e-05",
            "+1",
            "01",
            "1p50",
            "-0",
            "1p2p3",
            "NaN",
            "inf",
            "9223372036854775808",
            "1e5p0",
            " 1",
        ] {
            assert_eq!(Number::from_path_text(text), None, "{text}");
        }
    }

    #[test]
    fn yaml_keeps_integers_apart() {
        let read = |text| crate::yaml::parse::<Number>(text, "test");
        for (text, number) in [
            ("10", Number::Integer(10)),
            ("-3", Number::Integer(-3)),
            ("10.0", Number::Float(10.0)),
            ("-45.67", Number::Float(-45.67)),
            ("1e-05", Number::Float(1e-5)),
            ("1.0e+300", Number::Float(1e300)),
        ] {
            assert_eq!(read(text).unwrap(), number, "{text}");
        }
        for text in [
            ".nan",
            ".inf",
            "-.inf",
            "1e999",
            "ten",
            "'10'",
            "~",
            "[1]",
            "true",
            "18446744073709551615",
        ] {
            assert!(read(text).is_err(), "{text} {:?}", read(text));
        }
    }

    #[test]
    fn json_keeps_integers_apart() {
        let numbers = [
            Number::Integer(10),
            Number::Float(10.0),
            Number::Float(1e-5),
        ];
        let text = serde_json::to_string(&numbers).unwrap();
        assert_eq!(text, "[10,10.0,0.00001]");
        assert_eq!(serde_json::from_str::<[Number; 3]>(&text).unwrap(), numbers);
    }

    proptest! {
        #[test]
        fn every_finite_float_comes_back(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = Number::Float(value).path_text();
            let Some(Number::Float(read)) = Number::from_path_text(&text) else {
                return Err(TestCaseError::fail(text));
            };
            prop_assert_eq!(read.to_bits(), bits);
        }

        #[test]
        fn every_integer_comes_back(value: i64) {
            let number = Number::Integer(value);
            prop_assert_eq!(Number::from_path_text(&number.path_text()), Some(number));
        }
    }
}
