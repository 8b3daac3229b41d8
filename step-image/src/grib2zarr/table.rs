//! Which fields become which variables: a table in YAML.
//!
//! ```yaml
//! variables:
//!   t2m: {param: 2t}
//!   swvl1: {param: 39, resample: mean}
//!   sd: {param: 228141, level_type: snowLayer, layout: separate}   # sd_l1, sd_l2
//!   lsm: {param: lsm, static: true}
//! leave_out:
//!   - {param: [z, lnsp], reason: they are in the static file}
//! others: refuse
//! ```

use std::fmt;
use std::fs;
use std::path::Path;

use indexmap::IndexMap;
use jiff::SignedDuration;
use mlwm_grib::Header;
use mlwm_spec::{Period, yaml};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

use crate::Error;
use crate::resample::{Method, StepType};

/// Which fields become which variables.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// Each variable by its name: which fields it has.
    #[serde(default)]
    pub(crate) variables: IndexMap<String, Entry>,
    /// Fields that are not wanted, and why.
    #[serde(default)]
    pub(crate) leave_out: Vec<LeftOut>,
    /// What becomes of fields that are named nowhere.
    #[serde(default)]
    pub(crate) others: Others,
}

/// What becomes of fields that the table does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Others {
    /// They are a failure.
    #[default]
    Refuse,
    /// They are left out, and the report says so.
    LeaveOut,
    /// They become variables that are called as the CF conventions, or else ecCodes, call them.
    Keep,
}

/// The fields of a variable.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Its parameter: a paramId, a short name, or the number and table of edition 1, `"81.228"`.
    pub(crate) param: Param,
    /// The type of its levels in ecCodes' words; several if the editions of its fields differ in that.
    #[serde(default)]
    pub(crate) level_type: OneOrMany<String>,
    /// Its levels; else all.
    #[serde(default)]
    pub(crate) levels: OneOrMany<f64>,
    /// The first lead time that is taken.
    pub(crate) from_step: Option<Lead>,
    /// The last lead time that is taken.
    pub(crate) to_step: Option<Lead>,
    /// The member of an ensemble.
    pub(crate) member: Option<u32>,
    /// What several levels become.
    pub(crate) layout: Option<Layout>,
    /// What its values are over time, where its own key is known to be wrong.
    pub(crate) step_type: Option<StepType>,
    /// How its fields become one in a window; else as the command line says.
    pub(crate) resample: Option<Method>,
    /// Whether it is the same at all times; then it is stored once.
    #[serde(default, rename = "static")]
    pub(crate) is_static: bool,
}

/// A lead time in seconds. Unlike a period it may be none: `to_step: 0h` takes analyses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Lead(i64);

impl TryFrom<String> for Lead {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse::<SignedDuration>() {
            Ok(lead) if lead.is_zero() => Ok(Self(0)),
            _ => {
                let lead: Period = text.parse().map_err(|error| format!("{error}"))?;
                Ok(Self(lead.seconds()))
            }
        }
    }
}

/// What several levels of a variable become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// A dimension, called as the type of the levels.
    #[default]
    Dimension,
    /// A variable each, `<name>_l<level>`.
    Separate,
}

/// Fields that are not wanted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeftOut {
    /// Their parameters.
    pub(crate) param: OneOrMany<Param>,
    /// The types of their levels; else all.
    #[serde(default)]
    pub(crate) level_type: OneOrMany<String>,
    /// Their levels; else all.
    #[serde(default)]
    pub(crate) levels: OneOrMany<f64>,
    /// Lead times before this one only.
    pub(crate) before_step: Option<Period>,
    /// Why they are not wanted.
    pub(crate) reason: String,
}

/// One, or a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany<T> {
    /// A list.
    Many(Vec<T>),
    /// One.
    One(T),
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<T> OneOrMany<T> {
    pub(crate) fn all(&self) -> &[T] {
        match self {
            Self::Many(all) => all,
            Self::One(one) => std::slice::from_ref(one),
        }
    }
}

/// A parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Param {
    /// By ECMWF's number.
    Id(i64),
    /// By its short name.
    Name(String),
}

impl Param {
    fn named(text: &str) -> Self {
        if let Ok(id) = text.parse() {
            return Self::Id(id);
        }
        let of_table = text.split_once('.').and_then(|(number, table)| {
            let (number, table): (i64, i64) = (number.parse().ok()?, table.parse().ok()?);
            // As ECMWF numbers them.
            Some(Self::Id(match table {
                128 => number,
                _ => 1000 * table + number,
            }))
        });
        of_table.unwrap_or_else(|| Self::Name(text.to_owned()))
    }

    fn is_of(&self, header: &Header) -> bool {
        match self {
            Self::Id(id) => header.param_id == *id,
            Self::Name(name) => header.short_name == *name,
        }
    }
}

impl<'de> Deserialize<'de> for Param {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfParam;
        impl Visitor<'_> for OfParam {
            type Value = Param;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a paramId such as 167, a short name such as `2t`, or \"81.228\" in quotes",
                )
            }

            fn visit_i64<E: de::Error>(self, id: i64) -> Result<Param, E> {
                Ok(Param::Id(id))
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Param, E> {
                i64::try_from(id)
                    .map(Param::Id)
                    .map_err(|_| E::custom(format!("there is no paramId {id}")))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Param, E> {
                Ok(Param::named(text))
            }
        }
        deserializer.deserialize_any(OfParam)
    }
}

/// What a table says about a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is of the variable with this number in the table.
    Variable(usize),
    /// It is of a variable that is called by its own name.
    ByItsName,
    /// It is not wanted.
    LeftOut(String),
    /// It is named nowhere.
    Unexplained,
    /// It is of several variables.
    Ambiguous(String),
}

impl Table {
    /// Without a table, every field is kept.
    pub(crate) fn of_everything() -> Self {
        Self {
            variables: IndexMap::new(),
            leave_out: Vec::new(),
            others: Others::Keep,
        }
    }

    /// Reads a table.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(yaml::parse(&text, &path.display().to_string())?)
    }

    /// What becomes of a field.
    pub(crate) fn verdict(&self, header: &Header) -> Verdict {
        let matching = self.variables.iter().enumerate();
        let mut matching = matching.filter(|(_, (_, entry))| entry.takes(header));
        match (matching.next(), matching.next()) {
            (Some((_, (one, _))), Some((_, (other, _)))) => {
                return Verdict::Ambiguous(format!("it fits both `{one}` and `{other}`"));
            }
            (Some((number, _)), None) => return Verdict::Variable(number),
            (None, _) => {}
        }
        let left_out = self.leave_out.iter().find(|left| left.takes(header));
        match (left_out, self.others) {
            (Some(left), _) => Verdict::LeftOut(left.reason.clone()),
            (None, Others::Refuse) => Verdict::Unexplained,
            (None, Others::LeaveOut) => Verdict::LeftOut("the table does not name it".to_owned()),
            (None, Others::Keep) => Verdict::ByItsName,
        }
    }
}

impl Entry {
    fn takes(&self, header: &Header) -> bool {
        let step = header.end_step.as_secs();
        self.param.is_of(header)
            && is_level(header, self.level_type.all(), self.levels.all())
            && self.from_step.is_none_or(|Lead(from)| from <= step)
            && self.to_step.is_none_or(|Lead(to)| to >= step)
            && (self.member.is_none() || self.member == header.member)
    }
}

impl LeftOut {
    fn takes(&self, header: &Header) -> bool {
        let step = header.end_step.as_secs();
        self.param.all().iter().any(|param| param.is_of(header))
            && is_level(header, self.level_type.all(), self.levels.all())
            && self
                .before_step
                .is_none_or(|before| before.seconds() > step)
    }
}

/// Whether a field is on one of these levels; of none, all are meant.
fn is_level(header: &Header, kinds: &[String], levels: &[f64]) -> bool {
    let close = |level: &f64| (level - header.level.value).abs() <= 1e-9 * level.abs();
    (kinds.is_empty() || kinds.contains(&header.level.kind))
        && (levels.is_empty() || levels.iter().any(close))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_and_its_mistakes_are_named() {
        let table: Table = yaml::parse(
            "variables:\n  t2m: {param: 2t}\n  c: {param: \"81.228\", levels: 1}\n  d: {param: 39, static: true}\nleave_out:\n  - {param: [z, 152], reason: no}\nothers: leave_out\n",
            "table.yaml",
        )
        .unwrap();
        let params: Vec<&Param> = table.variables.values().map(|entry| &entry.param).collect();
        assert_eq!(
            params,
            [
                &Param::Name("2t".to_owned()),
                &Param::Id(228_081),
                &Param::Id(39)
            ]
        );
        assert_eq!(
            table.leave_out[0].param.all(),
            [Param::Name("z".to_owned()), Param::Id(152)]
        );
        let wrong = yaml::parse::<Table>("variables:\n  t2m: {parm: 2t}\n", "table.yaml");
        let error = wrong.unwrap_err().to_string();
        assert!(error.contains("parm") && error.contains("param"), "{error}");
    }

    #[test]
    fn lead_times_may_be_none_but_not_negative() {
        let lead = |text: &str| Lead::try_from(text.to_owned());
        assert_eq!(lead("0h"), Ok(Lead(0)));
        assert_eq!(lead("PT0S"), Ok(Lead(0)));
        assert_eq!(lead("P1DT6H"), Ok(Lead(108_000)));
        for wrong in ["-6h", "6", "soon", "1 month"] {
            assert!(lead(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_of_tables_are_those_of_ecmwf() {
        assert_eq!(Param::named("8.128"), Param::Id(8));
        assert_eq!(Param::named("141.228"), Param::Id(228_141));
        assert_eq!(Param::named("2t"), Param::Name("2t".to_owned()));
    }
}
