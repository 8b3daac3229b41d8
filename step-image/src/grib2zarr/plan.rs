//! What is written, decided from the headers before anything is.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Arguments;
use super::index::{Index, LevelKey, Variable};
use super::levels;
use super::table::{Entry, Layout, Table};
use crate::Problems;
use crate::axis::{Axis, Row, lay_out};
use crate::output::TIME;
use crate::pour::Cell;
use crate::provenance::{self, Origin};
use crate::report::Report;
use crate::resample::{Resampling, StepType};

/// What is written.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) times: Vec<i64>,
    /// Dimensions of levels, and their levels.
    pub(crate) levels: BTreeMap<String, Levels>,
    pub(crate) variables: Vec<Planned>,
}

/// The levels of a dimension.
#[derive(Debug)]
pub(crate) struct Levels {
    pub(crate) values: Vec<f64>,
    pub(crate) attributes: Map<String, Value>,
}

/// A variable that is written.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) name: String,
    /// The dimension of its levels.
    pub(crate) level_dim: Option<String>,
    pub(crate) is_static: bool,
    pub(crate) resampling: Option<Resampling>,
    /// By level and time.
    pub(crate) cells: Vec<Vec<Cell>>,
    /// Of a variable that is stored once: its other fields by level, which must be equal to the first.
    pub(crate) again: Vec<Vec<usize>>,
    pub(crate) attributes: Map<String, Value>,
}

/// A variable with some of its levels.
struct Part<'a> {
    name: String,
    variable: &'a Variable,
    entry: Option<&'a Entry>,
    levels: Vec<LevelKey>,
    level_dim: Option<String>,
}

impl Plan {
    pub(crate) fn of(
        index: &Index,
        table: &Table,
        arguments: &Arguments,
        grid_dims: &[&str],
        report: &mut Report,
        problems: &mut Problems,
    ) -> Self {
        for (number, (name, entry)) in table.variables.iter().enumerate() {
            let is_there = index
                .variables
                .values()
                .any(|variable| variable.entry == Some(number));
            if !is_there {
                problems.push(format!(
                    "there is no field for `{name}` of the table, which takes {:?}",
                    entry.param
                ));
            }
        }
        let parts = parts(index, table, arguments);
        check_names(&parts, grid_dims, problems);
        let levels = levels(&parts, problems);
        let mut rows = Vec::new();
        for part in parts.iter().filter(|part| !part.is_static()) {
            let resampling = part.resampling(arguments, problems);
            rows.extend(part.rows(index, resampling));
        }
        let axis = lay_out(&rows, &arguments.output, report, problems);
        let Axis { times, rows } = axis;
        let mut rows = rows.into_iter();
        let variables: Vec<Planned> = parts
            .iter()
            .map(|part| match part.is_static() {
                true => part.planned_static(&mut report.notes),
                false => {
                    let rows: Vec<_> = rows.by_ref().take(part.levels.len()).collect();
                    let spacing = rows.first().and_then(|row| row.spacing);
                    let cells = rows.into_iter().map(|row| row.cells).collect();
                    // Problems are told once, above.
                    let resampling = part.resampling(arguments, &mut Problems::default());
                    part.planned(resampling, cells, spacing, &mut report.notes)
                }
            })
            .collect();
        if index.fields.is_empty() && problems.is_empty() {
            problems.push("no field of the input is used: see what the report says of each");
        }
        let used = variables.iter().flat_map(Planned::fields).collect();
        index.refuse_unused(&used, report);
        for planned in &variables {
            report
                .variables
                .insert(planned.name.clone(), planned.attributes.clone());
        }
        Self {
            times,
            levels,
            variables,
        }
    }

    /// What the store says of where it is from, as cfgrib does: that in which all variables agree.
    pub(crate) fn attributes_of_all(
        &self,
        centres: &BTreeMap<String, String>,
    ) -> Map<String, Value> {
        let mut all = Map::new();
        for key in provenance::OF_STORE {
            let of_variables = || {
                self.variables
                    .iter()
                    .map(|planned| planned.attributes.get(key))
            };
            if let Some(value) = of_variables().next().flatten()
                && !value.is_array()
                && of_variables().all(|other| other == Some(value))
            {
                all.insert(key.to_owned(), value.clone());
            }
        }
        let centre = all.get("GRIB_centre").and_then(Value::as_str);
        if let Some(name) = centre.and_then(|centre| centres.get(centre)) {
            for key in ["GRIB_centreDescription", "institution"] {
                all.insert(key.to_owned(), json!(name));
            }
        }
        all
    }
}

impl Planned {
    /// The numbers of all fields that its values are made of.
    fn fields(&self) -> impl Iterator<Item = usize> {
        let of_cell = |cell: &Cell| -> Vec<usize> {
            match cell {
                Cell::Missing => Vec::new(),
                Cell::Field(field) => vec![*field],
                Cell::Window(parts) => {
                    let all = parts.iter().flat_map(|part| [Some(part.field), part.minus]);
                    all.flatten().collect()
                }
            }
        };
        let cells = self.cells.iter().flatten().flat_map(of_cell);
        cells.chain(self.again.iter().flatten().copied())
    }
}

/// The variables, taken apart by level where that is asked for.
fn parts<'a>(index: &'a Index, table: &'a Table, arguments: &Arguments) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    for (name, variable) in &index.variables {
        let named = variable
            .entry
            .and_then(|number| table.variables.get_index(number));
        let entry = named.map(|(_, entry)| entry);
        let layout = entry
            .and_then(|entry| entry.layout)
            .unwrap_or(arguments.levels);
        let levels: Vec<LevelKey> = variable.levels.keys().copied().collect();
        let several = levels.len() > 1;
        let asked = entry.is_some_and(|entry| entry.layout == Some(Layout::Separate));
        if layout == Layout::Separate && (several || asked) {
            parts.extend(levels.into_iter().map(|level| Part {
                name: format!("{name}_l{}", level.0),
                variable,
                entry,
                levels: vec![level],
                level_dim: None,
            }));
        } else {
            let asked = entry.is_some_and(|entry| entry.layout == Some(Layout::Dimension));
            parts.push(Part {
                name: name.clone(),
                variable,
                entry,
                levels,
                level_dim: (several || asked).then(|| variable.header.level.kind.clone()),
            });
        }
    }
    parts
}

fn check_names(parts: &[Part<'_>], grid_dims: &[&str], problems: &mut Problems) {
    let mut taken: BTreeSet<&str> = grid_dims.iter().copied().collect();
    taken.extend([TIME, "latitude", "longitude"]);
    taken.extend(parts.iter().filter_map(|part| part.level_dim.as_deref()));
    for part in parts {
        if !taken.insert(&part.name) {
            problems.push(format!(
                "two variables of the result would be called `{}`: name them in a table",
                part.name
            ));
        }
    }
}

/// The dimensions of levels, which are the same for all variables that have them.
fn levels(parts: &[Part<'_>], problems: &mut Problems) -> BTreeMap<String, Levels> {
    let mut dims: BTreeMap<String, (Levels, &str)> = BTreeMap::new();
    for part in parts {
        let Some(dim) = &part.level_dim else {
            continue;
        };
        let levels = Levels {
            values: part.levels.iter().map(|level| level.0).collect(),
            attributes: levels::attributes(dim, part.variable.header.edition),
        };
        match dims.get(dim) {
            None => {
                dims.insert(dim.clone(), (levels, &part.name));
            }
            Some((others, name)) if others.values != levels.values => problems.push(format!(
                "`{}` has the levels {:?} of {dim}, but `{name}` has {:?}: select levels in a table, or make \
                 each a variable with `--levels separate`",
                part.name, levels.values, others.values
            )),
            Some((others, name)) if others.attributes != levels.attributes => problems.push(format!(
                "the levels of {dim} are counted otherwise in `{}` than in `{name}`, which is of another edition \
                 of GRIB: make each a variable with `--levels separate`, or read them apart",
                part.name
            )),
            Some(_) => {}
        }
    }
    dims.into_iter()
        .map(|(dim, (levels, _))| (dim, levels))
        .collect()
}

impl Part<'_> {
    /// Where the fields of its levels are from.
    fn origins(&self) -> BTreeSet<&Origin> {
        let of_levels = self.levels.iter();
        of_levels
            .flat_map(|level| &self.variable.origins[level])
            .collect()
    }

    fn is_static(&self) -> bool {
        self.entry.is_some_and(|entry| entry.is_static)
    }

    fn resampling(&self, arguments: &Arguments, problems: &mut Problems) -> Option<Resampling> {
        let method = self.entry.and_then(|entry| entry.resample);
        let asked = arguments.output.resample.map(|option| option.0);
        if method.is_some() && asked.is_none() {
            problems.push(format!(
                "the table says how the fields of `{}` become one in a window, but not how long that is: say it \
                 with `--resample`",
                self.name
            ));
        }
        asked.map(|asked| Resampling {
            method: method.unwrap_or(asked.method),
            ..asked
        })
    }

    fn rows(&self, index: &Index, resampling: Option<Resampling>) -> Vec<Row> {
        let row = |level: &LevelKey| {
            let label = match &self.level_dim {
                Some(dim) => format!("{} at {dim} {}", self.name, level.0),
                None => self.name.clone(),
            };
            let fields = self.variable.levels[level].values();
            Row {
                label,
                fields: fields
                    .map(|&field| (field, index.fields[field].moment))
                    .collect(),
                step_type: self.variable.step_type,
                resampling,
            }
        };
        self.levels.iter().map(row).collect()
    }

    fn planned(
        &self,
        resampling: Option<Resampling>,
        cells: Vec<Vec<Cell>>,
        spacing: Option<i64>,
        notes: &mut Vec<String>,
    ) -> Planned {
        let cell_methods = match resampling {
            Some(resampling) => Some(resampling.cell_methods(spacing)),
            None => self.variable.step_type.cell_method().map(str::to_owned),
        };
        Planned {
            name: self.name.clone(),
            level_dim: self.level_dim.clone(),
            is_static: false,
            resampling,
            cells,
            again: Vec::new(),
            attributes: self.attributes(cell_methods, notes),
        }
    }

    fn planned_static(&self, notes: &mut Vec<String>) -> Planned {
        let fields = |level: &LevelKey| {
            let fields: Vec<usize> = self.variable.levels[level].values().copied().collect();
            fields
        };
        let by_level: Vec<Vec<usize>> = self.levels.iter().map(fields).collect();
        let first = |fields: &Vec<usize>| {
            fields
                .first()
                .map_or(Cell::Missing, |&one| Cell::Field(one))
        };
        Planned {
            name: self.name.clone(),
            level_dim: self.level_dim.clone(),
            is_static: true,
            resampling: None,
            cells: by_level.iter().map(|fields| vec![first(fields)]).collect(),
            again: by_level,
            attributes: self.attributes(None, notes),
        }
    }

    fn attributes(
        &self,
        cell_methods: Option<String>,
        notes: &mut Vec<String>,
    ) -> Map<String, Value> {
        let Variable {
            header,
            cf,
            step_type,
            ..
        } = self.variable;
        let mut attributes = Map::new();
        let mut put = |name: &str, value: Value| attributes.insert(name.to_owned(), value);
        put("units", json!(header.units));
        put("long_name", json!(header.name));
        if let Some(name) = &cf.standard_name {
            put("standard_name", json!(name));
        }
        if let Some(methods) = cell_methods {
            put("cell_methods", json!(methods));
        }
        put("GRIB_paramId", json!(header.param_id));
        if self.level_dim.is_none()
            && let [level] = self.levels[..]
        {
            put("GRIB_level", json!(level.0));
        }
        if StepType::of_grib(&header.step_type) != *step_type {
            put("step_type", json!(step_type));
        }
        let of_origins = provenance::attributes(&self.name, &self.origins(), notes);
        attributes.extend(of_origins);
        attributes
    }
}
