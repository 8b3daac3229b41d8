//! What a step is run for, and how its configuration names it.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, ToSpan};

use super::StepProblem;
use crate::AnalysisTime;

/// The spans of time that a step can be repeated over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calendar {
    Year,
    Month,
    Day,
}

impl Calendar {
    pub(super) fn of(variable: &str) -> Option<Self> {
        match variable {
            "year" => Some(Self::Year),
            "month" => Some(Self::Month),
            "day" => Some(Self::Day),
            _ => None,
        }
    }

    fn form(self) -> &'static str {
        match self {
            Self::Year => "%Y",
            Self::Month => "%Y-%m",
            Self::Day => "%Y-%m-%d",
        }
    }

    fn length(self) -> Span {
        match self {
            Self::Year => 1.year(),
            Self::Month => 1.month(),
            Self::Day => 1.day(),
        }
    }

    /// The first day of the span that is written like `2020-02`.
    pub(super) fn parse(self, text: &str) -> Option<Date> {
        let whole = match self {
            Self::Year => format!("{text}-01-01"),
            Self::Month => format!("{text}-01"),
            Self::Day => text.to_owned(),
        };
        let date: Date = whole.parse().ok()?;
        (date.strftime(self.form()).to_string() == text).then_some(date)
    }

    /// The spans from one to another, both among them; `None` if there are more than `most`.
    pub(super) fn all(self, from: Date, to: Date, most: usize) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        let mut date = from;
        while date <= to {
            if values.len() == most {
                return None;
            }
            values.push(Value::Dates {
                calendar: self,
                first: date,
            });
            date = date.checked_add(self.length()).ok()?;
        }
        Some(values)
    }
}

/// One of what a step is repeated over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Dates {
        calendar: Calendar,
        first: Date,
    },
    /// Lead times in hours.
    Window {
        from: u64,
        to: u64,
    },
    Member(u32),
    File(String),
    Text(String),
}

impl Value {
    /// What it is called in the name of its task.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Dates { calendar, first } => first.strftime(calendar.form()).to_string(),
            Self::Window { from, to } => format!("h{from:03}-{to:03}"),
            Self::Member(member) => member.to_string(),
            Self::File(name) | Self::Text(name) => name.clone(),
        }
    }

    /// What stands for it in a text: all of it or a part, in a form if that is given. `None` if there is no
    /// such part or form.
    fn text(&self, part: Option<&str>, form: Option<&str>) -> Option<String> {
        match (self, part, form) {
            (Self::Dates { calendar, first }, part, form) => {
                let length = calendar.length();
                let date = match part {
                    None => *first,
                    Some("previous") => first.checked_sub(length).ok()?,
                    Some("next") => first.checked_add(length).ok()?,
                    Some("last") => first.checked_add(length).ok()?.yesterday().ok()?,
                    Some(_) => return None,
                };
                match form {
                    None => Some(date.strftime(calendar.form()).to_string()),
                    Some(form) => {
                        let time = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
                        AnalysisTime::from_unix_seconds(time.as_second())?.formatted(form)
                    }
                }
            }
            (Self::Window { from, .. }, Some("from"), None) => Some(from.to_string()),
            (Self::Window { to, .. }, Some("to"), None) => Some(to.to_string()),
            (Self::File(name), Some("stem"), None) => {
                let stem = name.split_once('.').map_or(&**name, |(stem, _)| stem);
                Some(stem.to_owned())
            }
            (Self::Member(member), None, Some(form)) => {
                crate::configuration::uri::padded(*member, form)
            }
            (_, None, None) => Some(self.name()),
            _ => None,
        }
    }

    /// The text with this value for each placeholder of `variable`: `{month}`, `{month:%Y%m}`, `{month.next}`.
    /// Other braces stay.
    pub(super) fn substitute(&self, text: &str, variable: &str) -> Result<String, StepProblem> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, from)) = rest.split_once('{') {
            filled.push_str(before);
            let named = from.strip_prefix(variable);
            let named = named.filter(|after| after.starts_with(['}', '.', ':']));
            let Some((how, after)) = named.and_then(|after| after.split_once('}')) else {
                filled.push('{');
                rest = from;
                continue;
            };
            let (part, form) = match how.split_once(':') {
                Some((part, form)) => (part, Some(form)),
                None => (how, None),
            };
            let value = self.text(part.strip_prefix('.'), form);
            filled.push_str(
                &value.ok_or_else(|| StepProblem::Placeholder(format!("{variable}{how}")))?,
            );
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn month() -> Value {
        Value::Dates {
            calendar: Calendar::Month,
            first: "2020-02-01".parse().unwrap(),
        }
    }

    #[test]
    fn a_month_is_written_in_many_ways() {
        for (text, expected) in [
            ("{month}", "2020-02"),
            ("s3://b/{month:%Y%m}.grib", "s3://b/202002.grib"),
            ("{month.previous:%Y/%m}", "2020/01"),
            ("{month.next}", "2020-03"),
            (
                "{month:%Y-%m-%d}/{month.last:%Y-%m-%d}",
                "2020-02-01/2020-02-29",
            ),
            (
                "{months} ${month} {analysis_time} {",
                "{months} $2020-02 {analysis_time} {",
            ),
        ] {
            assert_eq!(month().substitute(text, "month").unwrap(), expected);
        }
        for wrong in ["{month.first}", "{month:%s}", "{month:}", "{month.}"] {
            let error = month().substitute(wrong, "month").unwrap_err();
            assert!(matches!(error, StepProblem::Placeholder(_)), "{wrong}");
        }
    }

    #[test]
    fn other_values_have_parts_of_their_own() {
        let file = Value::File("era5_202002.tar.gz".to_owned());
        assert_eq!(
            file.substitute("{file.stem}/{file}", "file").unwrap(),
            "era5_202002/era5_202002.tar.gz"
        );
        let window = Value::Window { from: 0, to: 72 };
        assert_eq!(
            window
                .substitute("{window} {window.from}+{window.to}", "window")
                .unwrap(),
            "h000-072 0+72"
        );
        let member = Value::Member(7);
        assert_eq!(
            member
                .substitute("m{member:03}/{member}", "member")
                .unwrap(),
            "m007/7"
        );
        assert!(member.substitute("{member.stem}", "member").is_err());
    }

    #[test]
    fn a_calendar_reads_what_it_writes() {
        assert!(Calendar::Month.parse("2020-2").is_none());
        assert!(Calendar::Month.parse("2020-13").is_none());
        assert!(Calendar::Day.parse("2020-02-30").is_none());
        let (from, to) = (
            Calendar::Year.parse("2019").unwrap(),
            Calendar::Year.parse("2021").unwrap(),
        );
        let names: Vec<String> = Calendar::Year
            .all(from, to, 10)
            .unwrap()
            .iter()
            .map(Value::name)
            .collect();
        assert_eq!(names, ["2019", "2020", "2021"]);
        assert!(Calendar::Day.all(from, to, 10).is_none());
    }
}
