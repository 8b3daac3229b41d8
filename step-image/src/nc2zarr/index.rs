//! What is in the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use mlwm_datasets::{Element, NetCdfFile, Values};
use mlwm_spec::{AnalysisTime, Digest};
use serde_json::{Map, Value};

use super::Arguments;
use super::attributes::{Attributes, Owner, described, of_time, unapplied_ranges};
use super::names::{is_place, named};
use super::write::check_static;
use crate::output::TIME;
use crate::report::{FileReport, LeftOut, Refused, Report};
use crate::resample::Moment;
use crate::{Error, Problems, time};

/// What is in the files.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) files: Vec<PathBuf>,
    /// What is along time, by name.
    pub(crate) series: BTreeMap<String, Along>,
    /// What is not, by name.
    pub(crate) statics: BTreeMap<String, Static>,
    /// Variables that others name as their coordinates, and those of dimensions.
    pub(crate) coordinates: BTreeSet<String>,
    /// Variables of a file of which `--until` leaves no time.
    ended: BTreeSet<String>,
    /// The most that the library of NetCDF takes for reading a part of a variable, besides values.
    pub(crate) bytes_beside: u64,
    /// The attributes of the files, of their variables and of their times.
    pub(crate) attributes: Attributes,
}

/// What the attributes of the coordinate of time are of, however a file calls it.
pub(crate) fn time_owner() -> Owner {
    Owner::Variable(TIME.to_owned())
}

/// How a variable is.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    /// Its dimensions, without that of time.
    pub(crate) dims: Vec<(String, u64)>,
    pub(crate) element: Element,
    pub(crate) attributes: Map<String, Value>,
    /// What the dimension of time is called in its attributes.
    pub(crate) time: String,
    /// The number of the first file that has it.
    pub(crate) file: usize,
}

/// A variable along time.
#[derive(Debug)]
pub(crate) struct Along {
    pub(crate) kind: Kind,
    /// Where each time is: the number of the file, the index in it.
    pub(crate) fields: Vec<(usize, u64, Moment)>,
}

/// A variable that is stored once.
#[derive(Debug)]
pub(crate) struct Static {
    pub(crate) kind: Kind,
    digest: Digest,
}

/// The times of a file.
struct Times {
    name: String,
    moments: Vec<Moment>,
    bounds: Option<String>,
    /// Those that `--until` leaves out.
    left_out: Option<LeftOut>,
}

impl Index {
    /// Reads the headers, times and all that is not along time of files.
    pub(crate) fn read(
        files: Vec<PathBuf>,
        arguments: &Arguments,
        report: &mut Report,
        problems: &mut Problems,
    ) -> Result<Self, Error> {
        let mut index = Self {
            files: Vec::new(),
            series: BTreeMap::new(),
            statics: BTreeMap::new(),
            coordinates: BTreeSet::new(),
            ended: BTreeSet::new(),
            bytes_beside: 0,
            attributes: Attributes::default(),
        };
        for path in files {
            let file = match NetCdfFile::open(&path) {
                Err(error @ mlwm_datasets::Error::Read { .. }) => return Err(error.into()),
                Err(error) => {
                    problems.push(error.to_string());
                    continue;
                }
                Ok(file) => file,
            };
            let own = file.attributes().clone();
            index.attributes.add(Owner::Files, own, &path);
            index.files.push(path);
            let said = index.file(&file, arguments, problems)?;
            report.files.push(said);
        }
        report.notes = index.attributes.notes();
        let series = index.series.iter().map(|(name, along)| (name, &along.kind));
        let statics = index
            .statics
            .iter()
            .map(|(name, fixed)| (name, &fixed.kind));
        let all = series.chain(statics);
        report.notes.extend(unapplied_ranges(
            all.map(|(name, kind)| (name, &kind.attributes)),
        ));
        index.check_asked(arguments, problems);
        for name in &index.ended {
            if !index.series.contains_key(name) {
                problems.push(format!("`--until` leaves out all times of `{name}`"));
            }
        }
        Ok(index)
    }

    fn file(
        &mut self,
        file: &NetCdfFile,
        arguments: &Arguments,
        problems: &mut Problems,
    ) -> Result<FileReport, Error> {
        let path = file.path();
        let mut said = FileReport {
            path: path.to_owned(),
            bytes: path.metadata().map_or(0, |metadata| metadata.len()),
            read: 0,
            used: 0,
            refused: Vec::new(),
            left_out: None,
        };
        let mut times = match times(file, arguments)? {
            Ok(times) => times,
            Err(reason) => {
                problems.push(format!("`{}`: {reason}", path.display()));
                return Ok(said);
            }
        };
        if let Some(times) = &mut times {
            said.left_out = times.left_out.take();
        }
        let wanted = wanted(file, arguments)?;
        for name in file.names() {
            said.read += 1;
            let dims = file.dims(&name)?;
            if dims.iter().any(|(dim, _)| *dim == name) {
                self.coordinates.insert(name.clone());
            }
            let attributes = file.stored_attributes(&name)?;
            if is_place(attributes) {
                self.coordinates.insert(name.clone());
            }
            self.coordinates
                .extend(named(attributes).map(str::to_owned));
            let is_bounds = times.as_ref().and_then(|times| times.bounds.as_ref()) == Some(&name);
            let along = times
                .as_ref()
                .filter(|times| dims.iter().any(|(dim, _)| *dim == times.name));
            let is_time = times.as_ref().is_some_and(|times| times.name == name);
            let reason = if is_time {
                // Its values are written anew.
                let attributes = of_time(file.decoded_attributes(&name)?);
                self.attributes.add(time_owner(), attributes, path);
                said.used += 1;
                continue;
            } else if is_bounds {
                "they are the bounds of time, which say what the values are of, and are not kept"
            } else if !wanted.contains(&name) {
                "it is not asked for with `--variables`"
            } else if file.element(&name)? == Element::Text {
                "its values are texts"
            } else if let Some(times) = along
                && times.moments.is_empty()
                && said.left_out.is_some()
            {
                self.ended.insert(name.clone());
                "all of its times are left out"
            } else {
                let added = match along {
                    Some(times) => self.add_series(file, &name, times)?,
                    None => self.add_static(file, &name, arguments)?,
                };
                match added {
                    Ok(attributes) => {
                        self.bytes_beside = self.bytes_beside.max(file.bytes_beside(&name)?);
                        let owner = Owner::Variable(name.clone());
                        self.attributes.add(owner, attributes, path);
                        said.used += 1;
                    }
                    Err(reason) => {
                        problems.push(format!("`{name}` of `{}`: {reason}", path.display()));
                        said.refused.push(refused(&name, reason));
                    }
                }
                continue;
            };
            said.refused.push(refused(&name, reason));
        }
        Ok(said)
    }

    fn add_series(
        &mut self,
        file: &NetCdfFile,
        name: &str,
        times: &Times,
    ) -> Result<Result<Map<String, Value>, String>, Error> {
        let dims = file.dims(name)?;
        if dims.first().is_none_or(|(dim, _)| *dim != times.name) {
            return Ok(Err(format!(
                "{} is not its first dimension: reorder it, as with `ncpdq -a {0}`",
                times.name
            )));
        }
        if self.statics.contains_key(name) {
            return Ok(Err(
                "it is along time here, but not in another file".to_owned()
            ));
        }
        let number = self.files.len() - 1;
        let kind = kind(file, name, &dims[1..], &times.name, number)?;
        let there = self.series.entry(name.to_owned()).or_insert_with(|| Along {
            kind: kind.clone(),
            fields: Vec::new(),
        });
        if let Err(reason) = there.kind.check(&kind, &self.files) {
            return Ok(Err(reason));
        }
        let numbered = times.moments.iter().enumerate();
        there
            .fields
            .extend(numbered.map(|(at, &moment)| (number, at as u64, moment)));
        there.fields.sort_by_key(|(_, _, moment)| moment.label);
        let twice = there
            .fields
            .windows(2)
            .find(|pair| pair[0].2.label == pair[1].2.label);
        Ok(match twice {
            None => Ok(kind.attributes),
            Some(pair) => {
                let other = if pair[0].0 == number {
                    pair[1].0
                } else {
                    pair[0].0
                };
                Err(format!(
                    "it has a field at {} that `{}` has, too",
                    time::text(pair[0].2.label),
                    self.files[other].display()
                ))
            }
        })
    }

    fn add_static(
        &mut self,
        file: &NetCdfFile,
        name: &str,
        arguments: &Arguments,
    ) -> Result<Result<Map<String, Value>, String>, Error> {
        if self.series.contains_key(name) {
            return Ok(Err(
                "it is along time in another file, but not here".to_owned()
            ));
        }
        let number = self.files.len() - 1;
        let kind = kind(file, name, file.dims(name)?, "time", number)?;
        check_static(&kind, file, name, arguments)?;
        let digest = digest(file.read(name)?);
        let attributes = kind.attributes.clone();
        match self.statics.get(name) {
            None => {
                self.statics
                    .insert(name.to_owned(), Static { kind, digest });
            }
            Some(there) => {
                if let Err(reason) = there.kind.check(&kind, &self.files) {
                    return Ok(Err(reason));
                }
                if there.digest != digest {
                    return Ok(Err(format!(
                        "its values differ from those in `{}`, and it is not along time",
                        self.files[there.kind.file].display()
                    )));
                }
            }
        }
        Ok(Ok(attributes))
    }

    /// Names what is asked for and is in no file.
    fn check_asked(&self, arguments: &Arguments, problems: &mut Problems) {
        let is_there = |name: &String| {
            self.series.contains_key(name)
                || self.statics.contains_key(name)
                || self.coordinates.contains(name)
                || self.ended.contains(name)
        };
        let renamed = arguments.renames.iter().map(|rename| &rename.old);
        for name in arguments.variables.iter().chain(renamed) {
            if !is_there(name) && !self.files.is_empty() {
                problems.push(format!("no file has a variable `{name}` that is taken"));
            }
        }
    }
}

impl Kind {
    /// The reason if another file has the variable otherwise.
    fn check(&self, other: &Self, files: &[PathBuf]) -> Result<(), String> {
        let first = files[self.file].display();
        if self.dims != other.dims {
            return Err(format!(
                "it has the dimensions {:?}, but {:?} in `{first}`",
                other.dims, self.dims
            ));
        }
        if self.element != other.element {
            return Err(format!(
                "its values are {}, but {} in `{first}`",
                other.element.name(),
                self.element.name()
            ));
        }
        for name in ["units", "cell_methods"] {
            let of = |kind: &Self| kind.attributes.get(name).cloned().unwrap_or_default();
            if of(self) != of(other) {
                return Err(format!(
                    "its {name} are {}, but {} in `{first}`",
                    of(other),
                    of(self)
                ));
            }
        }
        Ok(())
    }
}

fn refused(name: &str, reason: impl Into<String>) -> Refused {
    Refused {
        what: format!("`{name}`"),
        offset: None,
        reason: reason.into(),
    }
}

fn kind(
    file: &NetCdfFile,
    name: &str,
    dims: &[(String, u64)],
    time: &str,
    number: usize,
) -> Result<Kind, Error> {
    Ok(Kind {
        dims: dims.to_vec(),
        element: file.element(name)?,
        attributes: described(file, name)?,
        time: time.to_owned(),
        file: number,
    })
}

/// The times of a file; none if it has no coordinate of time; the reason if that cannot be told.
fn times(file: &NetCdfFile, arguments: &Arguments) -> Result<Result<Option<Times>, String>, Error> {
    let mut candidates = Vec::new();
    for name in file.names() {
        let is_coordinate = matches!(file.dims(&name)?, [(dim, _)] if *dim == name);
        let units = file.stored_attributes(&name)?.get("units");
        let is_time = units
            .and_then(Value::as_str)
            .is_some_and(|units| units.contains(" since "));
        if is_coordinate && is_time {
            candidates.push(name);
        }
    }
    let name = match (&arguments.time, candidates.as_slice()) {
        (Some(asked), _) if candidates.contains(asked) => asked.clone(),
        (Some(asked), _) => return Ok(Err(format!("it has no coordinate of time `{asked}`"))),
        (None, []) => return Ok(Ok(None)),
        (None, [only]) => only.clone(),
        (None, several) => {
            return Ok(Err(format!(
                "it has several coordinates of time ({}): choose one with `--time`",
                several.join(", ")
            )));
        }
    };
    let instants = file.times(&name)?;
    if let Some(pair) = instants.windows(2).find(|pair| pair[1] <= pair[0]) {
        return Ok(Err(format!(
            "its times are not in order: {} follows {}",
            time::text(pair[1]),
            time::text(pair[0])
        )));
    }
    let bounds = file.stored_attributes(&name)?.get("bounds");
    let bounds = bounds.and_then(Value::as_str).map(str::to_owned);
    let mut moments: Vec<Moment> = instants
        .iter()
        .map(|&instant| Moment::at(instant))
        .collect();
    if let Some(bounds) = &bounds {
        let ends = file.bounds(bounds, &name)?;
        if ends.len() != 2 * moments.len() {
            return Ok(Err(format!(
                "`{bounds}` has not two times for each of `{name}`"
            )));
        }
        for (moment, pair) in moments.iter_mut().zip(ends.as_chunks::<2>().0) {
            (moment.start, moment.end) = (pair[0], pair[1]);
        }
    }
    let left_out = arguments.until.and_then(|until| {
        let first = moments.partition_point(|moment| moment.label < until.unix_seconds());
        left_out(&moments.split_off(first), until)
    });
    Ok(Ok(Some(Times {
        name,
        moments,
        bounds,
        left_out,
    })))
}

/// What the report says of times that are left out; none of no times.
fn left_out(moments: &[Moment], until: AnalysisTime) -> Option<LeftOut> {
    let (first, last) = (moments.first()?, moments.last()?);
    Some(LeftOut {
        times: moments.len(),
        from: time::text(first.label),
        to: time::text(last.label),
        reason: format!("`--until {until}` leaves out this time and later ones"),
    })
}

/// The variables that are asked for, with all that they name.
fn wanted(file: &NetCdfFile, arguments: &Arguments) -> Result<BTreeSet<String>, Error> {
    let names: BTreeSet<String> = file.names().into_iter().collect();
    if arguments.variables.is_empty() {
        return Ok(names);
    }
    let mut wanted = BTreeSet::new();
    let asked = arguments.variables.iter();
    let mut next: Vec<String> = asked
        .filter(|name| names.contains(*name))
        .cloned()
        .collect();
    while let Some(name) = next.pop() {
        if !wanted.insert(name.clone()) {
            continue;
        }
        let dims = file.dims(&name)?.iter().map(|(dim, _)| dim.as_str());
        let others = named(file.stored_attributes(&name)?).chain(dims);
        next.extend(
            others
                .filter(|name| names.contains(*name))
                .map(str::to_owned),
        );
    }
    Ok(wanted)
}

/// The same for equal values, bit by bit.
fn digest(values: Values) -> Digest {
    let bytes: Vec<u8> = match values {
        Values::F32(values) => values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
        Values::F64(values) => values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
        Values::I64(values) => values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
        Values::Text(values) => values
            .iter()
            .flat_map(|value| value.bytes().chain([0]))
            .collect(),
    };
    Digest::of(bytes)
}
