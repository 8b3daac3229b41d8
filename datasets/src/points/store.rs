//! One Zarr store over time and points.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::PointRequest;
use crate::prepare::{MissingTimes, PrepareError, Schedule, TIME_DIM, TimeAxis};
use crate::{Dataset, Element, Variable};

/// How many missing times a message shows.
const SHOWN_MISSING: usize = 3;

/// Attributes of a variable that those of the forecast have, too.
const KEPT_ATTRIBUTES: [&str; 2] = ["units", "long_name"];

/// A store, open.
#[derive(Debug)]
pub(super) struct Store {
    /// Name of the configuration's input.
    pub(super) input: String,
    pub(super) path: PathBuf,
    pub(super) dataset: Dataset,
    /// Its times, if it has any.
    times: Option<TimeAxis>,
}

impl Store {
    pub(super) fn open(request: &PointRequest<'_>, input: &str) -> Result<Self, PrepareError> {
        let path = request.paths.get(input).cloned().ok_or_else(|| {
            PrepareError::Request(format!(
                "the model reads the input `{input}`, and there is none: call an input of the configuration so"
            ))
        })?;
        let dataset = Dataset::open(&path)?;
        let times = match dataset.contains(TIME_DIM) {
            true => Some(TimeAxis::valid(&dataset, &path, TIME_DIM)?),
            false => None,
        };
        Ok(Self {
            input: input.to_owned(),
            path,
            dataset,
            times,
        })
    }

    /// How many points a variable has.
    pub(super) fn points(&self, name: &str, dim: &str) -> Result<u64, PrepareError> {
        let variable = self.dataset.variable(name)?;
        let at = variable.dims().iter().position(|there| there == dim);
        match at.map(|at| variable.shape()[at]) {
            Some(0) => Err(self.unusable(format!("`{name}` has no points along `{dim}`"))),
            Some(points) => Ok(points),
            None => Err(self.wrong_dims(variable, &format!("({TIME_DIM}, {dim})"))),
        }
    }

    /// All of these change with time, at so many points.
    fn all_varying(&self, names: &[&str], dim: &str, points: u64) -> Result<(), PrepareError> {
        for name in names {
            self.varying(name, dim, points)?;
        }
        Ok(())
    }

    /// The variables of the state are there at the analysis time.
    pub(super) fn check_state(
        &self,
        names: &[&str],
        dim: &str,
        points: u64,
        schedule: &Schedule,
    ) -> Result<(), PrepareError> {
        self.all_varying(names, dim, points)?;
        let once = Schedule {
            steps: 1,
            ..*schedule
        };
        self.check_times(&once, schedule.steps)
    }

    /// The forcing is there at the start of every step, and not in between.
    pub(super) fn check_forcing(
        &self,
        names: &[&str],
        dim: &str,
        points: u64,
        schedule: &Schedule,
    ) -> Result<(), PrepareError> {
        self.all_varying(names, dim, points)?;
        if let Some(axis) = &self.times {
            let last = schedule.valid_time(schedule.steps.cast_signed() - 1);
            axis.check_step(&self.path, schedule.analysis, last, schedule.step)?;
        }
        self.check_times(schedule, schedule.steps)
    }

    /// The store has the start of every step.
    fn check_times(&self, schedule: &Schedule, asked_steps: u64) -> Result<(), PrepareError> {
        let start = |step: u64| schedule.valid_time(step.cast_signed());
        let position = |time| self.times.as_ref().and_then(|axis| axis.position(time));
        let is_start = |time: &&i64| {
            let since = **time - schedule.analysis;
            since >= 0
                && since % schedule.step == 0
                && (since / schedule.step).cast_unsigned() < schedule.steps
        };
        let valid = self.times.iter().flat_map(|axis| &axis.valid);
        let present = valid.filter(is_start).count();
        let missing_count = schedule.steps as usize - present;
        if missing_count == 0 {
            return Ok(());
        }
        let absent = (0..schedule.steps).filter(|step| position(start(*step)).is_none());
        let absent: Vec<u64> = absent.take(SHOWN_MISSING.min(missing_count)).collect();
        Err(PrepareError::MissingTimes(Box::new(MissingTimes {
            path: self.path.clone(),
            input: self.input.clone(),
            needed: (schedule.analysis, start(schedule.steps - 1)),
            step: schedule.step,
            missing: absent.iter().map(|step| start(*step)).collect(),
            missing_count,
            present: self.times.as_ref().and_then(TimeAxis::extent),
            asked_steps,
            possible_steps: absent.first().copied().unwrap_or(0),
        })))
    }

    /// A variable over time and points.
    pub(super) fn varying(
        &self,
        name: &str,
        dim: &str,
        points: u64,
    ) -> Result<&Variable, PrepareError> {
        let variable = self.dataset.variable(name)?;
        if variable.dims() != [TIME_DIM, dim] {
            return Err(self.wrong_dims(variable, &format!("({TIME_DIM}, {dim})")));
        }
        let times = self
            .times
            .as_ref()
            .map_or(0, |axis| axis.valid.len() as u64);
        if variable.shape()[0] != times {
            return Err(self.unusable(format!(
                "`{name}` has {} times, and `{TIME_DIM}` has {times}",
                variable.shape()[0]
            )));
        }
        self.check_points(variable, dim, points)?;
        Ok(variable)
    }

    /// A variable has numbers at all points.
    pub(super) fn check_points(
        &self,
        variable: &Variable,
        dim: &str,
        points: u64,
    ) -> Result<(), PrepareError> {
        if variable.element() == Element::Text {
            return Err(self.unusable(format!("`{}` is text, not numbers", variable.name())));
        }
        match variable.shape().last() {
            Some(there) if *there == points => Ok(()),
            there => Err(self.unusable(format!(
                "`{}` has {} points along `{dim}`, but the state that the forecast starts from has {points}: \
                 give stores of the same points",
                variable.name(),
                there.copied().unwrap_or(0)
            ))),
        }
    }

    /// Variables at a time (those without times as they are), as columns of `[point, name]`; all finite.
    pub(super) fn read_columns(
        &self,
        names: &[&str],
        dim: &str,
        points: u64,
        time: i64,
    ) -> Result<Vec<f32>, PrepareError> {
        let mut columns = vec![0.0; points as usize * names.len()];
        for (column, name) in names.iter().enumerate() {
            let variable = self.dataset.variable(name)?;
            let has_time = variable.dims().len() == 2;
            let ranges = if has_time {
                let variable = self.varying(name, dim, points)?;
                let axis = self.times.as_ref();
                let position = axis.and_then(|axis| axis.position(time)).ok_or_else(|| {
                    PrepareError::Missing {
                        path: self.path.clone(),
                        what: format!("`{name}` at {}", mlwm_spec::time::utc_text(time)),
                        available: format!("{} times", variable.shape()[0]),
                    }
                })?;
                vec![position..position + 1, 0..points]
            } else if variable.dims() == [dim] {
                self.check_points(variable, dim, points)?;
                std::iter::once(0..points).collect()
            } else {
                let expected = format!("({dim}), or ({TIME_DIM}, {dim})");
                return Err(self.wrong_dims(variable, &expected));
            };
            let values = self.read(variable, &ranges)?;
            self.check_finite(name, &values, has_time.then_some(time))?;
            for (cell, value) in columns[column..]
                .iter_mut()
                .step_by(names.len())
                .zip(values)
            {
                *cell = value;
            }
        }
        Ok(columns)
    }

    /// Part of a variable as float32, in the order of its dimensions.
    pub(super) fn read(
        &self,
        variable: &Variable,
        ranges: &[Range<u64>],
    ) -> Result<Vec<f32>, PrepareError> {
        let values = variable.read_range(ranges)?.into_f32()?;
        Ok(match values.is_standard_layout() {
            true => values.into_raw_vec_and_offset().0,
            false => values.iter().copied().collect(),
        })
    }

    /// All values of a feature at a time are numbers.
    pub(super) fn check_finite(
        &self,
        name: &str,
        values: &[f32],
        time: Option<i64>,
    ) -> Result<(), PrepareError> {
        match values.iter().filter(|value| !value.is_finite()).count() {
            0 => Ok(()),
            count => Err(PrepareError::NotFinite {
                path: self.path.clone(),
                feature: name.to_owned(),
                time,
                count,
                of: values.len(),
            }),
        }
    }

    /// The start of a step along the time axis.
    pub(super) fn position(&self, time: i64) -> Option<u64> {
        self.times.as_ref()?.position(time)
    }

    /// The attributes of variables that those of a forecast have, too.
    pub(super) fn attributes(&self, names: &[&str]) -> BTreeMap<String, Map<String, Value>> {
        let mut all = BTreeMap::new();
        for name in names {
            let mut kept = self
                .dataset
                .variable(name)
                .map(Variable::plain_attributes)
                .unwrap_or_default();
            kept.retain(|name, value| {
                KEPT_ATTRIBUTES.contains(&name.as_str()) && value.is_string()
            });
            all.insert((*name).to_owned(), kept);
        }
        all
    }

    pub(super) fn unusable(&self, message: String) -> PrepareError {
        PrepareError::Unusable {
            path: self.path.clone(),
            message,
        }
    }

    fn wrong_dims(&self, variable: &Variable, expected: &str) -> PrepareError {
        self.unusable(format!(
            "`{}` has the dimensions ({}), but the model needs {expected}",
            variable.name(),
            variable.dims().join(", ")
        ))
    }
}
