//! The time axis of a source dataset.

use std::collections::HashMap;
use std::path::Path;

use mlwm_spec::AnalysisTime;
use mlwm_spec::time::utc_text;

use super::PrepareError;
use super::error::hours_text;
use super::mapping::TimeDims;
use crate::Dataset;

/// The times of a source dataset along the one dimension that varies: valid time, or the time
/// since the analysis of one forecast.
#[derive(Clone, Debug)]
pub(crate) struct TimeAxis {
    /// The dimension that varies.
    pub dim: String,
    /// The dimension that is fixed, and where: the forecast that is read.
    pub fixed: Option<(String, u64)>,
    /// Valid times along `dim`, Unix seconds.
    pub valid: Vec<i64>,
    positions: HashMap<i64, u64>,
}

impl TimeAxis {
    /// Reads the axis; of a dataset of forecasts, that of the forecast from `analysis`.
    pub(crate) fn read(
        dataset: &Dataset,
        path: &Path,
        dims: &TimeDims,
        analysis: AnalysisTime,
    ) -> Result<Self, PrepareError> {
        let (dim, fixed, valid) = match dims {
            TimeDims::Valid(dim) => (dim.clone(), None, dataset.times(dim)?),
            TimeDims::Forecast {
                analysis: analysis_dim,
                elapsed,
            } => {
                let start = analysis.unix_seconds();
                let starts = dataset.times(analysis_dim)?;
                check_unique(path, &starts)?;
                let at = starts
                    .iter()
                    .position(|time| *time == start)
                    .ok_or_else(|| PrepareError::Missing {
                        path: path.to_owned(),
                        what: format!("the forecast from {analysis}"),
                        available: format!("{}", StartsText(&starts)),
                    })?;
                let valid = dataset
                    .durations(elapsed)?
                    .iter()
                    .map(|d| start + d)
                    .collect();
                (
                    elapsed.clone(),
                    Some((analysis_dim.clone(), at as u64)),
                    valid,
                )
            }
        };
        Self::of(path, dim, fixed, valid)
    }

    /// The axis of valid times in a dimension of this name.
    pub(crate) fn valid(dataset: &Dataset, path: &Path, dim: &str) -> Result<Self, PrepareError> {
        Self::of(path, dim.to_owned(), None, dataset.times(dim)?)
    }

    fn of(
        path: &Path,
        dim: String,
        fixed: Option<(String, u64)>,
        valid: Vec<i64>,
    ) -> Result<Self, PrepareError> {
        check_unique(path, &valid)?;
        let positions = valid
            .iter()
            .enumerate()
            .map(|(at, time)| (*time, at as u64))
            .collect();
        Ok(Self {
            dim,
            fixed,
            valid,
            positions,
        })
    }

    /// Where a valid time is along the axis.
    pub(crate) fn position(&self, valid_time: i64) -> Option<u64> {
        self.positions.get(&valid_time).copied()
    }

    /// First and last time and their number.
    pub(crate) fn extent(&self) -> Option<(i64, i64, usize)> {
        let first = self.valid.iter().min()?;
        let last = self.valid.iter().max()?;
        Some((*first, *last, self.valid.len()))
    }

    /// Refuses data that has times between those `step` apart from `first` to `last`: what is
    /// accumulated over another step means something else.
    pub(crate) fn check_step(
        &self,
        path: &Path,
        first: i64,
        last: i64,
        step: i64,
    ) -> Result<(), PrepareError> {
        let between =
            |time: &&i64| (first..=last).contains(time) && (**time - first).rem_euclid(step) != 0;
        match self.valid.iter().find(between) {
            None => Ok(()),
            Some(time) => Err(PrepareError::Unusable {
                path: path.to_owned(),
                message: format!(
                    "it has data at {}, between the times that the model's step of {} from {} \
                     needs: give it data of the step it was trained on",
                    utc_text(*time),
                    hours_text(step),
                    utc_text(first)
                ),
            }),
        }
    }
}

fn check_unique(path: &Path, times: &[i64]) -> Result<(), PrepareError> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(PrepareError::Unusable {
            path: path.to_owned(),
            message: format!("it has the time {} more than once", utc_text(pair[0])),
        }),
    }
}

/// Start times of forecasts as a message lists them.
struct StartsText<'a>(&'a [i64]);

impl std::fmt::Display for StartsText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            [] => f.write_str("no forecasts"),
            [first, .., last] if self.0.len() > 4 => write!(
                f,
                "{} forecasts from {} to {}",
                self.0.len(),
                utc_text(*first),
                utc_text(*last)
            ),
            few => {
                let few: Vec<String> = few.iter().map(|time| utc_text(*time)).collect();
                write!(f, "the forecasts from {}", few.join(", "))
            }
        }
    }
}
