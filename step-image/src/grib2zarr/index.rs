//! The first pass: what is in the files, from the headers alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use mlwm_grib::{CfNames, Coordinates, Grid, Header, Message, Place, Reader, Seen};

use super::table::{Table, Verdict};
use crate::provenance::Origin;
use crate::report::{FileReport, Refused, Report};
use crate::resample::{Moment, StepType};
use crate::{Error, Problems, time};

/// A field of a file.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// The number of its file.
    pub(crate) file: usize,
    pub(crate) seen: Seen,
    pub(crate) moment: Moment,
}

impl Field {
    pub(crate) fn place(&self) -> &Place {
        self.seen.place()
    }
}

/// The fields of a variable.
#[derive(Debug)]
pub(crate) struct Variable {
    /// Its number in the table; none of one that is called by its own name.
    pub(crate) entry: Option<usize>,
    /// What its first message says.
    pub(crate) header: Header,
    pub(crate) cf: CfNames,
    pub(crate) step_type: StepType,
    /// Where its fields are from, by level.
    pub(crate) origins: BTreeMap<LevelKey, BTreeSet<Origin>>,
    /// The numbers of its fields by level, then by the end of their intervals.
    pub(crate) levels: BTreeMap<LevelKey, BTreeMap<i64, usize>>,
}

/// A level as a key: ordered as its number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LevelKey(pub(crate) f64);

impl Eq for LevelKey {}

impl PartialOrd for LevelKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LevelKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// What is in the files.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) fields: Vec<Field>,
    pub(crate) variables: BTreeMap<String, Variable>,
    /// The grid of all fields, with where it came from and its points.
    pub(crate) grid: Option<(Grid, Place, Coordinates)>,
    /// What the centres are called that made the fields.
    pub(crate) centres: BTreeMap<String, String>,
}

impl Index {
    /// Reads the headers of all messages. Whatever is wrong is a problem; only what keeps files from being read
    /// at all is an error.
    pub(crate) fn read(
        files: Vec<PathBuf>,
        table: &Table,
        report: &mut Report,
        problems: &mut Problems,
    ) -> Result<Self, Error> {
        mlwm_grib::eccodes_version()?;
        let mut index = Self {
            files: Vec::new(),
            fields: Vec::new(),
            variables: BTreeMap::new(),
            grid: None,
            centres: BTreeMap::new(),
        };
        for path in files {
            let mut reader = Reader::open(&path)?;
            let mut said = FileReport {
                path: path.clone(),
                bytes: reader.size(),
                read: 0,
                used: 0,
                refused: Vec::new(),
                left_out: None,
            };
            index.files.push(path);
            for message in &mut reader {
                match message {
                    Err(
                        error @ (mlwm_grib::Error::Library { .. } | mlwm_grib::Error::Read { .. }),
                    ) => {
                        return Err(error.into());
                    }
                    Err(error) => problems.push(error.to_string()),
                    Ok(message) => index.message(&message, table, &mut said, problems)?,
                }
            }
            report.files.push(said);
        }
        Ok(index)
    }

    fn message(
        &mut self,
        message: &Message,
        table: &Table,
        file: &mut FileReport,
        problems: &mut Problems,
    ) -> Result<(), Error> {
        file.read += 1;
        let header = message.header();
        let refused = |reason: String| Refused {
            what: what(header),
            offset: Some(message.place().offset),
            reason,
        };
        let reason = match table.verdict(header) {
            Verdict::LeftOut(reason) => {
                file.refused.push(refused(reason));
                return Ok(());
            }
            Verdict::Unexplained => Err(
                "nothing says what becomes of it: name it in `variables` or `leave_out` of the table"
                    .to_owned(),
            ),
            Verdict::Ambiguous(reason) => Err(reason),
            Verdict::Variable(number) => {
                let named = table.variables.get_index(number);
                let name = named.map_or_else(String::new, |(name, _)| name.clone());
                self.add(message, name, Some(number), table)
            }
            Verdict::ByItsName => match self.own_name(message)? {
                Some(name) => self.add(message, name, None, table),
                None => Err(
                    "ecCodes does not know the parameter: name it, by its paramId, in a table"
                        .to_owned(),
                ),
            },
        };
        match reason {
            Ok(()) => file.used += 1,
            Err(reason) => {
                problems.push(format!("{}: {}: {reason}", message.place(), what(header)));
                file.refused.push(refused(reason));
            }
        }
        Ok(())
    }

    /// Tells of the fields that no value of the result is made of, such as those of a window in which others are
    /// missing, that they are not used after all.
    pub(crate) fn refuse_unused(&self, used: &BTreeSet<usize>, report: &mut Report) {
        for (name, variable) in &self.variables {
            for (level, fields) in &variable.levels {
                for (time, number) in fields.iter().filter(|(_, number)| !used.contains(number)) {
                    let field = &self.fields[*number];
                    let file = &mut report.files[field.file];
                    file.used -= 1;
                    file.refused.push(Refused {
                        what: format!("`{name}` at level {} of {}", level.0, time::text(*time)),
                        offset: Some(field.place().offset),
                        reason:
                            "no value is made of it: its window is not complete, or takes others"
                                .to_owned(),
                    });
                }
            }
        }
    }

    /// What a field is called if no table says so; none of an unknown parameter.
    fn own_name(&self, message: &Message) -> Result<Option<String>, Error> {
        let header = message.header();
        let known = self
            .variables
            .iter()
            .find(|(_, variable)| variable.entry.is_none() && variable.is_kind_of(header));
        if let Some((name, _)) = known {
            return Ok(Some(name.clone()));
        }
        if header.short_name == "unknown" {
            return Ok(None);
        }
        let cf = message.cf_names()?;
        Ok(Some(
            cf.variable.unwrap_or_else(|| header.short_name.clone()),
        ))
    }

    /// Adds a field to its variable; the reason if it does not fit.
    fn add(
        &mut self,
        message: &Message,
        name: String,
        entry: Option<usize>,
        table: &Table,
    ) -> Result<(), String> {
        let header = message.header();
        self.check_grid(message)?;
        if !self.centres.contains_key(&header.centre) {
            let name = message.centre_name().map_err(|error| error.to_string())?;
            self.centres.insert(header.centre.clone(), name);
        }
        let of_table = entry.and_then(|number| table.variables.get_index(number));
        let said = of_table.and_then(|(_, entry)| entry.step_type);
        let step_type = said.unwrap_or_else(|| StepType::of_grib(&header.step_type));
        let may_mix = of_table.is_some_and(|(_, entry)| entry.level_type.all().len() > 1);
        let fields = &mut self.fields;
        let variable = match self.variables.entry(name.clone()) {
            std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
            std::collections::btree_map::Entry::Vacant(vacant) => vacant.insert(Variable {
                entry,
                cf: message.cf_names().map_err(|error| error.to_string())?,
                header: header.clone(),
                step_type,
                origins: BTreeMap::new(),
                levels: BTreeMap::new(),
            }),
        };
        variable.check(header, step_type, may_mix, &name)?;
        let reference = header.reference_time.as_second();
        // Who says in a table that instants are amounts knows of no other beginning than that of the run.
        let start = match (said, StepType::of_grib(&header.step_type)) {
            (Some(StepType::Amount), StepType::Instant) => reference,
            _ => reference + header.start_step.as_secs(),
        };
        let moment = Moment {
            label: header.validity_time.as_second(),
            start,
            end: header.validity_time.as_second(),
            run: reference,
        };
        let level = LevelKey(header.level.value);
        let at_level = variable.levels.entry(level).or_default();
        if let Some(there) = at_level.get(&moment.end) {
            return Err(format!(
                "there is another field of `{name}` at the same level and time: {}",
                fields[*there].place()
            ));
        }
        at_level.insert(moment.end, fields.len());
        let origins = variable.origins.entry(level).or_default();
        if !origins.iter().any(|origin| origin.is_of(header)) {
            origins.insert(Origin::of(header));
        }
        fields.push(Field {
            file: self.files.len() - 1,
            seen: message.seen(),
            moment,
        });
        Ok(())
    }

    fn check_grid(&mut self, message: &Message) -> Result<(), String> {
        let grid = message.grid().map_err(|error| error.to_string())?;
        match &self.grid {
            Some((first, _, _)) if first == grid => Ok(()),
            Some((first, place, _)) => Err(format!(
                "it is on the grid {}, but the first field ({place}) on {}{}",
                grid.name(),
                first.name(),
                match grid.name() == first.name() {
                    true => " with other corners or another order of points",
                    false => "",
                }
            )),
            None => {
                let coordinates = message.coordinates().map_err(|error| error.to_string())?;
                self.grid = Some((grid.clone(), message.place().clone(), coordinates));
                Ok(())
            }
        }
    }
}

impl Variable {
    /// Whether a field is of the same parameter on the same type of level.
    fn is_kind_of(&self, header: &Header) -> bool {
        self.header.param_id == header.param_id
            && self.header.short_name == header.short_name
            && self.header.level.kind == header.level.kind
    }

    /// The reason if a field is not of the kind of the others.
    fn check(
        &self,
        header: &Header,
        step_type: StepType,
        may_mix: bool,
        name: &str,
    ) -> Result<(), String> {
        let first = &self.header;
        if first.param_id != header.param_id || first.units != header.units {
            return Err(format!(
                "it is of the parameter {} in {}, but `{name}` began with {} in {}: select one of them in a table",
                header.param_id, header.units, first.param_id, first.units
            ));
        }
        if first.level.kind != header.level.kind && !may_mix {
            return Err(format!(
                "it is at {}, but `{name}` began at {}: select one with `level_type` in a table, or list both",
                header.level.kind, first.level.kind
            ));
        }
        if self.step_type != step_type {
            return Err(format!(
                "its step type is {}, but `{name}` began with {}: say in a table what it is, with `step_type`",
                header.step_type, first.step_type
            ));
        }
        Ok(())
    }
}

/// A field as people call it: parameter, level and time.
pub(crate) fn what(header: &Header) -> String {
    let level = match header.level.kind.as_str() {
        "surface" => String::new(),
        kind => format!(" at {kind} {}", header.level.value),
    };
    let member = match header.member {
        Some(member) if member > 0 => format!(", member {member}"),
        _ => String::new(),
    };
    format!(
        "`{}` ({}){level} of {}{member}",
        header.short_name,
        header.param_id,
        time::text(header.validity_time.as_second())
    )
}
