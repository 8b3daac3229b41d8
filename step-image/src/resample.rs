//! Windows of time, and which fields each is made of.
//!
//! A field is of an instant or of an interval, and that is read from the input, never assumed. The field of an
//! instant stands for the time up to the next one, so a window is complete when what its fields stand for fills
//! it without gap or overlap. Windows are counted from 1970-01-01T00:00Z and named by their beginning.

use std::collections::BTreeMap;
use std::fmt;

use mlwm_spec::Period;
use serde::{Deserialize, Serialize};

use crate::time;

/// How the fields of a window become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Their mean; of fields of different intervals, weighted with their lengths.
    Mean,
    /// The sum of amounts, each of its own interval.
    Sum,
    /// The smallest of each point.
    Min,
    /// The largest of each point.
    Max,
    /// The last of them.
    Last,
    /// The amount of the window, of amounts since the beginning of a run.
    Deaccumulate,
}

impl Method {
    /// The name that tables and command lines use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Last => "last",
            Self::Deaccumulate => "deaccumulate",
        }
    }

    /// The method of a name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Mean,
            Self::Sum,
            Self::Min,
            Self::Max,
            Self::Last,
            Self::Deaccumulate,
        ];
        all.into_iter().find(|method| method.name() == name)
    }

    /// What fields it makes sense for.
    fn takes(self) -> &'static [StepType] {
        match self {
            Self::Mean => &[StepType::Instant, StepType::Mean],
            Self::Sum | Self::Deaccumulate => &[StepType::Amount],
            Self::Min => &[StepType::Instant, StepType::Min],
            Self::Max => &[StepType::Instant, StepType::Max],
            Self::Last => &[StepType::Instant],
        }
    }

    /// What the CF conventions call the result.
    fn cell_method(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Sum | Self::Deaccumulate => "sum",
            Self::Min => "minimum",
            Self::Max => "maximum",
            Self::Last => "point",
        }
    }
}

/// What a value is over the time of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepType {
    /// A value at an instant.
    Instant,
    /// An amount over an interval (`accum`).
    #[serde(alias = "accum")]
    Amount,
    /// A mean over an interval (`avg`).
    #[serde(alias = "avg")]
    Mean,
    /// A smallest value of an interval.
    Min,
    /// A largest value of an interval.
    Max,
    /// Anything else; it can be kept, but not made into windows.
    Other,
}

impl StepType {
    /// Of ecCodes' key `stepType`.
    pub fn of_grib(text: &str) -> Self {
        match text {
            "instant" => Self::Instant,
            "accum" => Self::Amount,
            "avg" => Self::Mean,
            "min" => Self::Min,
            "max" => Self::Max,
            _ => Self::Other,
        }
    }

    /// Of the attribute `cell_methods` of the CF conventions, for a dimension of time. A variable without one is
    /// of instants.
    pub fn of_cell_methods(text: &str, dim: &str) -> Self {
        let words: Vec<&str> = text.split_whitespace().collect();
        let prefix = format!("{dim}:");
        let at = words.iter().position(|word| *word == prefix);
        match at.and_then(|at| words.get(at + 1)) {
            None | Some(&"point") => Self::Instant,
            Some(&"sum") => Self::Amount,
            Some(&"mean") => Self::Mean,
            Some(&"minimum") => Self::Min,
            Some(&"maximum") => Self::Max,
            Some(_) => Self::Other,
        }
    }

    /// What the CF conventions call it.
    pub fn cell_method(self) -> Option<&'static str> {
        match self {
            Self::Instant => Some("time: point"),
            Self::Amount => Some("time: sum"),
            Self::Mean => Some("time: mean"),
            Self::Min => Some("time: minimum"),
            Self::Max => Some("time: maximum"),
            Self::Other => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Instant => "instants",
            Self::Amount => "amounts over intervals",
            Self::Mean => "means over intervals",
            Self::Min => "smallest values of intervals",
            Self::Max => "largest values of intervals",
            Self::Other => "values of a step type that mlwm does not know",
        }
    }
}

/// Windows of a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resampling {
    /// The length of a window.
    pub every: Period,
    /// How its fields become one.
    pub method: Method,
}

impl Resampling {
    /// The attribute `cell_methods` of the result; `spacing` is how far apart its fields were.
    pub fn cell_methods(&self, spacing: Option<i64>) -> String {
        let interval = spacing.map_or_else(String::new, |seconds| {
            format!("interval: {seconds} s comment: ")
        });
        format!(
            "time: {} ({interval}{} of windows of {} s, labelled by their beginning)",
            self.method.cell_method(),
            self.method.name(),
            self.every.seconds()
        )
    }
}

/// When a field is, in seconds since 1970-01-01T00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time that it is known by.
    pub label: i64,
    /// Where its interval begins; of an instant, the instant.
    pub start: i64,
    /// Where its interval ends; of an instant, the instant.
    pub end: i64,
    /// When its run began.
    pub run: i64,
}

impl Moment {
    /// An instant, of no run.
    pub fn at(instant: i64) -> Self {
        Self {
            label: instant,
            start: instant,
            end: instant,
            run: 0,
        }
    }
}

/// A field in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number among the fields.
    pub field: usize,
    /// What is subtracted from it, if something is.
    pub minus: Option<usize>,
    /// How many seconds it stands for.
    pub seconds: i64,
}

/// What is wrong with the fields of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The method makes no sense for them.
    Method(Method, StepType),
    /// It is not known how far apart they are.
    OneTime(i64),
    /// A field of an interval has none.
    NoInterval(i64),
    /// The interval of a field is not in one window.
    Crosses {
        /// Where it begins.
        start: i64,
        /// Where it ends.
        end: i64,
    },
    /// An amount that is not one since the beginning of its run.
    NotSinceBeginning {
        /// Where its interval begins.
        start: i64,
        /// Where it ends.
        end: i64,
    },
    /// A window has less than it should.
    Missing {
        /// Where the window begins.
        window: i64,
        /// Where what is missing begins.
        from: i64,
        /// Where it ends.
        to: i64,
    },
    /// A time that two fields stand for.
    Overlap(i64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = time::text;
        match self {
            Self::Method(method, step_type) => {
                let takes = method.takes().iter().map(|takes| takes.name());
                write!(
                    f,
                    "its values are {}, of which there is no `{}`: that takes {}",
                    step_type.name(),
                    method.name(),
                    takes.collect::<Vec<_>>().join(" or ")
                )
            }
            Self::OneTime(at) => write!(
                f,
                "it has only the time {}, so that nothing says how long its fields hold",
                text(*at)
            ),
            Self::NoInterval(at) => {
                write!(
                    f,
                    "its field at {} should have an interval, but has none",
                    text(*at)
                )
            }
            Self::Crosses { start, end } => write!(
                f,
                "its field from {} to {} is not inside one window",
                text(*start),
                text(*end)
            ),
            Self::NotSinceBeginning { start, end } => write!(
                f,
                "its amount from {} to {} is not one since the beginning of its run: `sum` takes such",
                text(*start),
                text(*end)
            ),
            Self::Missing { window, from, to } => write!(
                f,
                "the window of {} is incomplete: no field from {} to {}",
                text(*window),
                text(*from),
                text(*to)
            ),
            Self::Overlap(at) => {
                write!(f, "two of its fields stand for the time from {}", text(*at))
            }
        }
    }
}

/// The windows of a variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// The fields of each complete window, by its beginning.
    pub whole: BTreeMap<i64, Vec<Part>>,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// How far apart its fields are, of instants.
    pub spacing: Option<i64>,
}

/// The time that a field stands for.
struct Span {
    start: i64,
    end: i64,
    part: Part,
}

/// The windows that fields make.
pub fn windows(moments: &[Moment], step_type: StepType, resampling: &Resampling) -> Windows {
    let mut windows = Windows::default();
    let Resampling { every, method } = *resampling;
    if !method.takes().contains(&step_type) {
        windows.faults.push(Fault::Method(method, step_type));
        return windows;
    }
    let mut numbered: Vec<(usize, Moment)> = moments.iter().copied().enumerate().collect();
    numbered.sort_by_key(|(_, moment)| (moment.end, moment.start));
    let spans = match (method, step_type) {
        (Method::Deaccumulate, _) => increments(&numbered),
        (_, StepType::Instant) => {
            let times: Vec<i64> = numbered.iter().map(|(_, moment)| moment.label).collect();
            windows.spacing = time::spacing(&times);
            instants(&numbered, windows.spacing)
        }
        _ => intervals(&numbered),
    };
    match spans {
        Ok(spans) => fill(&mut windows, spans, every.seconds()),
        Err(fault) => windows.faults.push(fault),
    }
    windows
}

/// Instants, each of which stands for the time up to the next.
fn instants(numbered: &[(usize, Moment)], spacing: Option<i64>) -> Result<Vec<Span>, Fault> {
    let Some(seconds) = spacing.filter(|seconds| *seconds > 0) else {
        return Err(Fault::OneTime(
            numbered.first().map_or(0, |(_, moment)| moment.label),
        ));
    };
    let span = |&(field, moment): &(usize, Moment)| Span {
        start: moment.label,
        end: moment.label + seconds,
        part: Part {
            field,
            minus: None,
            seconds,
        },
    };
    Ok(numbered.iter().map(span).collect())
}

fn intervals(numbered: &[(usize, Moment)]) -> Result<Vec<Span>, Fault> {
    let span = |&(field, moment): &(usize, Moment)| match moment.end - moment.start {
        ..=0 => Err(Fault::NoInterval(moment.end)),
        seconds => Ok(Span {
            start: moment.start,
            end: moment.end,
            part: Part {
                field,
                minus: None,
                seconds,
            },
        }),
    };
    numbered.iter().map(span).collect()
}

/// What amounts since the beginning of a run grow by, from each to the next.
fn increments(numbered: &[(usize, Moment)]) -> Result<Vec<Span>, Fault> {
    let mut last: BTreeMap<i64, (usize, i64)> = BTreeMap::new();
    let mut spans = Vec::new();
    for &(field, moment) in numbered {
        if moment.start != moment.run {
            return Err(Fault::NotSinceBeginning {
                start: moment.start,
                end: moment.end,
            });
        }
        let before = last.insert(moment.run, (field, moment.end));
        let start = before.map_or(moment.run, |(_, end)| end);
        if moment.end > start {
            spans.push(Span {
                start,
                end: moment.end,
                part: Part {
                    field,
                    minus: before.map(|(field, _)| field),
                    seconds: moment.end - start,
                },
            });
        }
    }
    spans.sort_by_key(|span| span.start);
    Ok(spans)
}

/// Puts each span into its window, and finds the windows that are not filled.
fn fill(windows: &mut Windows, spans: Vec<Span>, every: i64) {
    let begin = |time: i64| time.div_euclid(every) * every;
    let mut filled: BTreeMap<i64, Vec<Span>> = BTreeMap::new();
    for span in spans {
        let window = begin(span.start);
        if span.end > window + every {
            windows.faults.push(Fault::Crosses {
                start: span.start,
                end: span.end,
            });
        } else {
            filled.entry(window).or_default().push(span);
        }
    }
    let (Some((&first, _)), Some((&last, _))) = (filled.first_key_value(), filled.last_key_value())
    else {
        return;
    };
    let mut window = first;
    while window <= last {
        let spans = filled.remove(&window).unwrap_or_default();
        match gap(&spans, window, window + every) {
            Some(fault) => windows.faults.push(fault),
            None => {
                let parts = spans.into_iter().map(|span| span.part).collect();
                windows.whole.insert(window, parts);
            }
        }
        window += every;
    }
}

/// The first thing that is wrong with how spans, sorted by their beginnings, fill a window.
fn gap(spans: &[Span], window: i64, end: i64) -> Option<Fault> {
    let mut filled = window;
    for span in spans {
        if span.start < filled {
            return Some(Fault::Overlap(span.start));
        }
        if span.start > filled {
            return Some(Fault::Missing {
                window,
                from: filled,
                to: span.start,
            });
        }
        filled = span.end;
    }
    (filled < end).then_some(Fault::Missing {
        window,
        from: filled,
        to: end,
    })
}

#[cfg(test)]
#[path = "resample_tests.rs"]
mod tests;
