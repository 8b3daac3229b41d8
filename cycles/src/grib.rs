//! Outputs as GRIB: what GRIB calls their variables, and what can be known to be wrong before anything is run.

mod compare;
mod form;
mod grid;
mod units;

use std::collections::BTreeSet;

use jiff::Timestamp;
use mlwm_grib::{
    Encoding, Field, Forecast, Grid, Level, Member, Method, Packing, Process, ReducedGaussian,
    Span, Writer,
};
use mlwm_spec::configuration::{GaussianGrid, Grib, GribLevel, GribPacking, GribParameter, Since};
use mlwm_spec::{AnalysisTime, is_plain_name};

pub(crate) use compare::compare;
pub(crate) use form::{Form, Unwritten};

use crate::Error;
use crate::plan::{Plan, PlannedTask};

/// What GRIB calls a variable.
#[derive(Clone, Debug)]
pub(crate) struct Coded {
    variable: String,
    encoding: Encoding,
    level: Option<Level>,
    /// The dimension along which it has levels, of the kind of `level`.
    along: Option<String>,
    since: Since,
}

impl Coded {
    /// The code of a variable: that of the configuration, or the one that its name says; or why there is none.
    fn of(options: &Grib, variable: &str) -> Result<Self, String> {
        let named = match options.parameters.get(variable) {
            Some(asked) => asked.clone(),
            None => by_its_name(variable)?,
        };
        let encoding = encoding(&named.parameter)?;
        let level = level(&named)?;
        if level.is_none() && !encoding.has_level() {
            return Err(format!(
                "`{}` has no level by its definition: say which one in `parameters`",
                named.parameter
            ));
        }
        Ok(Self {
            variable: variable.to_owned(),
            encoding,
            level,
            along: match named.level {
                Some(GribLevel::Along(dim)) => Some(dim),
                _ => None,
            },
            since: named.since,
        })
    }

    /// Refuses values in other units than those that GRIB has, if it is known which they are in.
    fn check_units(&self, found: Option<&str>) -> Result<(), String> {
        let due = self.encoding.units();
        match found {
            Some(found) if !units::are_same(found, due) => Err(format!(
                "its values are in `{found}`, and those of `{}` in GRIB are in `{due}`: mlwm converts nothing, so \
                 have the model write these, and say so in the attribute `units`",
                self.encoding.short_name()
            )),
            _ => Ok(()),
        }
    }

    /// The same at a level of the same kind.
    fn at(&self, value: f64) -> Self {
        let kind = self.level.as_ref().map(|level| level.kind.as_str());
        Self {
            level: kind.map(|kind| Level::at(kind, value)),
            ..self.clone()
        }
    }

    /// The time or interval of a field at a lead time, in hours.
    fn span(&self, lead: u32, step: u32) -> Span {
        if !self.encoding.needs_interval() {
            return Span::Instant(lead);
        }
        Span::Interval {
            process: self.encoding.process().unwrap_or(Process::Accumulation),
            start: match self.since {
                Since::Step => lead.saturating_sub(step),
                Since::Start => 0,
            },
            end: lead,
        }
    }

    fn field(&self, span: Span, values: Vec<f32>) -> Field {
        Field {
            encoding: self.encoding.clone(),
            level: self.level.clone(),
            span,
            values,
        }
    }
}

/// Metres above ground at which much is observed: a name that ends in one of them says no pressure in hPa.
const METRES: [u32; 2] = [2, 10];

/// The parameter and level that a name like `t_850` says, if it does; else the name as a parameter.
fn by_its_name(variable: &str) -> Result<GribParameter, String> {
    let parts = variable.rsplit_once('_');
    let pressure = parts.and_then(|(name, level)| Some((name, level.parse::<u32>().ok()?)));
    match pressure {
        Some((name, level)) if encoding(name).is_ok_and(|encoding| !encoding.has_level()) => {
            if METRES.contains(&level) {
                return Err(format!(
                    "its name may mean {level} hPa or {level} m: say which in `parameters`, such as \
                     `{{parameter: {name}, level: {level}}}` or `{level}{name}`"
                ));
            }
            Ok(GribParameter {
                level: Some(GribLevel::At(f64::from(level))),
                ..GribParameter::named(name)
            })
        }
        _ => Ok(GribParameter::named(variable)),
    }
}

/// The level of a parameter, if it has another than that of its definition.
fn level(named: &GribParameter) -> Result<Option<Level>, String> {
    let kind = named.type_of_level.as_deref().unwrap_or("isobaricInhPa");
    Ok(match &named.level {
        None => None,
        Some(GribLevel::At(value)) => Some(Level::at(kind, is_level(*value)?)),
        Some(GribLevel::Layer([top, bottom])) => {
            Some(Level::layer(kind, is_level(*top)?, is_level(*bottom)?))
        }
        // Which ones, the dataset says.
        Some(GribLevel::Along(_)) => Some(Level::at(kind, 1.0)),
    })
}

/// Refuses what is no number of a level.
fn is_level(value: f64) -> Result<f64, String> {
    match value.is_finite() {
        true => Ok(value),
        false => Err(format!("its level is {value}: say a number")),
    }
}

fn encoding(name: &str) -> Result<Encoding, String> {
    Encoding::of(name).map_err(|error| match error {
        mlwm_grib::Error::Unencodable { reason, .. } => reason,
        error => error.to_string(),
    })
}

fn named_grid(grid: GaussianGrid) -> Result<ReducedGaussian, String> {
    match grid.is_octahedral {
        true => Ok(ReducedGaussian::octahedral(grid.n)),
        false => ReducedGaussian::classic(grid.n).map_err(|error| error.to_string()),
    }
}

/// What all fields of a member's forecast have in common.
fn forecast(options: &Grib, analysis_time: AnalysisTime, member: u32, grid: Grid) -> Forecast {
    Forecast {
        analysis_time: Timestamp::from_second(analysis_time.unix_seconds()).unwrap_or_default(),
        member: options.ensemble_size.map(|count| Member {
            number: member,
            count,
        }),
        grid,
        packing: Packing {
            method: match options.packing {
                GribPacking::Ccsds => Method::Ccsds,
                GribPacking::Simple => Method::Simple,
            },
            bits_per_value: options.bits_per_value,
        },
    }
}

/// Refuses a plan with an output as GRIB that is known not to become one: ecCodes is not there, a parameter that
/// the configuration names has no code, or there is no such grid.
pub(crate) fn check(plan: &Plan) -> Result<(), Error> {
    // Members and cycles of a configuration ask for the same.
    let mut seen = BTreeSet::new();
    for task in &plan.tasks {
        for output in &task.outputs {
            let Some(options) = output.grib() else {
                continue;
            };
            mlwm_grib::eccodes_version()?;
            let refused = |reason| Error::Grib {
                configuration: task.configuration.clone(),
                output: output.name.clone(),
                reason,
            };
            let is_new = seen.insert((&task.configuration, &output.name));
            check_task(options, task, is_new).map_err(refused)?;
        }
    }
    Ok(())
}

fn check_task(options: &Grib, task: &PlannedTask, is_new: bool) -> Result<(), String> {
    if !is_plain_name(&options.prefix) {
        return Err(format!(
            "its prefix `{}` is no plain name of a file",
            options.prefix
        ));
    }
    if task.member > options.ensemble_size.unwrap_or(0) {
        return Err(format!(
            "member {} is one of an ensemble, and GRIB says of how many: say `members` in the configuration, or \
             `ensemble_size` where the output is said to be GRIB",
            task.member
        ));
    }
    let mut trial = Trial::of(options, task.analysis_time, task.member)?;
    if !is_new {
        return Ok(());
    }
    options.grid.map(named_grid).transpose()?;
    let mut asked = Vec::with_capacity(options.parameters.len());
    for variable in options.parameters.keys() {
        // How long a step is may not be known yet.
        let coded = Coded::of(options, variable).and_then(|coded| trial.encode(coded, 6));
        let coded = coded.map_err(|reason| format!("its variable `{variable}`: {reason}"))?;
        asked.push(coded);
    }
    distinct(&asked.iter().collect::<Vec<_>>())
}

/// Encodes fields on a small grid: ecCodes says only then what it cannot say of a parameter or a level.
struct Trial {
    writer: Writer,
    points: usize,
}

impl Trial {
    fn of(options: &Grib, analysis_time: AnalysisTime, member: u32) -> Result<Self, String> {
        let grid = Grid::ReducedGaussian(ReducedGaussian::octahedral(8));
        let points = grid.points();
        let writer = Writer::new(forecast(options, analysis_time, member, grid));
        Ok(Self {
            writer: writer.map_err(|error| error.to_string())?,
            points,
        })
    }

    /// The code again, if a field of the first step can be encoded so.
    fn encode(&mut self, coded: Coded, step_hours: u32) -> Result<Coded, String> {
        let span = coded.span(step_hours, step_hours);
        let field = coded.field(span, vec![0.0; self.points]);
        match self.writer.message(&field) {
            Ok(_) => Ok(coded),
            Err(mlwm_grib::Error::Field { reason, .. }) => Err(reason),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Refuses two variables of one code: who reads them could not tell which is which.
fn distinct(coded: &[&Coded]) -> Result<(), String> {
    for (at, one) in coded.iter().enumerate() {
        let same = |other: &&&Coded| {
            // Without a level it is the one of its definition, which may be said, too.
            let either = other.level.is_none() || one.level.is_none();
            other.encoding.param_id() == one.encoding.param_id()
                && (either || other.level == one.level)
        };
        if let Some(other) = coded[..at].iter().find(same) {
            return Err(format!(
                "its variables `{}` and `{}` have the same code: name another `parameter` or `level` of one",
                other.variable, one.variable
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(parameters: &str) -> Grib {
        serde_json::from_str(&format!(r#"{{"prefix": "x", "parameters": {parameters}}}"#)).unwrap()
    }

    #[test]
    fn a_variable_is_coded_by_its_name_or_as_it_is_asked() {
        let asked = options(
            r#"{"rain": {"parameter": "tp", "since": "start"}, "zs": {"parameter": "z", "level": 0, "type_of_level": "surface"}}"#,
        );
        let coded = |variable: &str| Coded::of(&asked, variable).unwrap();
        assert_eq!(coded("2t").encoding.param_id(), 167);
        assert_eq!(coded("2t").level, None);
        assert_eq!(coded("t_850").encoding.param_id(), 130);
        assert_eq!(
            coded("t_850").level,
            Some(Level::at("isobaricInhPa", 850.0))
        );
        assert_eq!(coded("zs").level, Some(Level::at("surface", 0.0)));
        let interval = |start| Span::Interval {
            process: Process::Accumulation,
            start,
            end: 12,
        };
        assert_eq!(coded("tp").span(12, 6), interval(6));
        assert_eq!(coded("rain").span(12, 6), interval(0));
        assert_eq!(coded("2t").span(12, 6), Span::Instant(12));
    }

    #[test]
    fn what_has_no_code_or_no_level_says_so() {
        for (variable, why) in [
            ("cos_wd", "no code"),
            ("t2m", "no code"),
            ("t", "no level"),
            ("2t_850", "no code"),
            ("u_10", "10 hPa or 10 m"),
            ("t_2", "2 hPa or 2 m"),
            ("t_", "no code"),
        ] {
            let reason = Coded::of(&options("{}"), variable).unwrap_err();
            assert!(reason.contains(why), "{variable}: {reason}");
        }
    }

    #[test]
    fn a_level_that_is_no_number_is_refused() {
        for level in [f64::NAN, f64::INFINITY] {
            for level in [GribLevel::At(level), GribLevel::Layer([1.0, level])] {
                let mut asked = options(r#"{"wind": {"parameter": "u", "level": 500}}"#);
                asked.parameters["wind"].level = Some(level);
                let reason = Coded::of(&asked, "wind").unwrap_err();
                assert!(reason.contains("say a number"), "{reason}");
            }
        }
        // What is said is taken, whatever a name may mean.
        let asked = options(r#"{"u_10": {"parameter": "u", "level": 10}, "v_10": "10v"}"#);
        let level = Coded::of(&asked, "u_10").unwrap().level;
        assert_eq!(level, Some(Level::at("isobaricInhPa", 10.0)));
        assert_eq!(Coded::of(&asked, "v_10").unwrap().level, None);
    }

    #[test]
    fn values_in_other_units_are_not_taken_for_those_of_grib() {
        let coded = Coded::of(&options("{}"), "2t").unwrap();
        assert_eq!(coded.check_units(None), Ok(()));
        assert_eq!(coded.check_units(Some("kelvin")), Ok(()));
        let reason = coded.check_units(Some("degC")).unwrap_err();
        assert!(
            reason.contains("`degC`") && reason.contains("`K`"),
            "{reason}"
        );
    }

    #[test]
    fn two_variables_of_one_code_are_refused() {
        let asked = options(r#"{"t2m": "2t", "other": "167", "low": "2d"}"#);
        let coded = |variable: &str| Coded::of(&asked, variable).unwrap();
        assert!(distinct(&[&coded("t2m"), &coded("low")]).is_ok());
        let error = distinct(&[&coded("t2m"), &coded("low"), &coded("other")]).unwrap_err();
        assert!(error.contains("`t2m` and `other`"), "{error}");
    }
}
