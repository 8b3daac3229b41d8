//! What is written of a forecast as GRIB, known from the first of its windows.

use std::path::Path;

use mlwm_datasets::Dataset;
use mlwm_datasets::forecast_store::{ForecastStore, StoreError};
use mlwm_grib::window::{self, WindowFile};
use mlwm_grib::{Forecast, Grid};
use mlwm_spec::configuration::Grib;
use mlwm_spec::contract::stream::Window;
use mlwm_spec::manifest::{GribRecord, NotEncoded};
use tokio_util::sync::CancellationToken;

use super::{Coded, Trial, distinct, forecast, grid};

/// More bytes than a message has beside its values and the points of its latitudes.
const HEADER: u64 = 1024;

/// What is written of a forecast as GRIB.
#[derive(Debug)]
pub(crate) struct Form {
    prefix: String,
    forecast: Forecast,
    variables: Vec<Variable>,
    step_hours: u32,
    record: GribRecord,
}

/// A variable and its fields: one for each of its levels, in the order of its values.
#[derive(Debug)]
struct Variable {
    name: String,
    fields: Vec<Coded>,
}

/// Dimensions with their lengths.
type Dims<'s> = Vec<(&'s str, u64)>;

/// Why a file of GRIB was not written.
#[derive(Debug)]
pub(crate) enum Unwritten {
    /// A value or a time is not what it should be.
    Store(StoreError),
    /// A field cannot be encoded, or the disk failed.
    Grib(mlwm_grib::Error),
    /// Somebody said stop.
    Stopped,
}

impl From<StoreError> for Unwritten {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<mlwm_grib::Error> for Unwritten {
    fn from(error: mlwm_grib::Error) -> Self {
        Self::Grib(error)
    }
}

impl Form {
    /// What is written of the forecast of a member; or why nothing can be. A variable without a code is noted,
    /// unless the configuration says its code.
    pub(crate) fn of(options: &Grib, store: &ForecastStore, member: u32) -> Result<Self, String> {
        let eccodes = mlwm_grib::eccodes_version().map_err(|error| error.to_string())?;
        let schedule = store.schedule();
        let step_hours = match u32::try_from(schedule.lead_seconds(0)) {
            Ok(seconds) if seconds % 3600 == 0 => seconds / 3600,
            _ => return Err("its lead times are no whole hours, as those of GRIB are".to_owned()),
        };
        let mut trial = Trial::of(options, schedule.analysis_time(), member)?;
        let mut grid: Option<(Dims<'_>, Grid)> = None;
        let mut variables = Vec::new();
        let mut not_encoded = Vec::new();
        for name in store.variables() {
            let coded = Coded::of(options, name).and_then(|coded| {
                coded.check_units(store.units(name))?;
                fields(store, &coded)
            });
            let tried = coded.and_then(|(fields, points)| {
                let tried = fields.into_iter();
                let tried = tried.map(|field| trial.encode(field, step_hours));
                Ok((tried.collect::<Result<Vec<_>, _>>()?, points))
            });
            let reason = match tried {
                Err(reason) => reason,
                Ok((fields, points)) => {
                    let known = match grid.take() {
                        Some(known) => known,
                        None => {
                            let grid = grid::of(store, &points, options.grid)?;
                            (points.clone(), grid)
                        }
                    };
                    let (on_grid, _) = &*grid.insert(known);
                    if points == *on_grid {
                        let name = name.to_owned();
                        variables.push(Variable { name, fields });
                        continue;
                    }
                    format!(
                        "its points have {}, and those of others {}",
                        grid::in_words(&points),
                        grid::in_words(on_grid)
                    )
                }
            };
            if options.parameters.contains_key(name) {
                return Err(format!(
                    "has the variable `{name}`, which cannot be written as GRIB: {reason}"
                ));
            }
            not_encoded.push(NotEncoded {
                variable: name.to_owned(),
                reason,
            });
        }
        let Some((_, grid)) = grid else {
            let example = not_encoded.first().map_or("", |left_out| &left_out.reason);
            return Err(format!(
                "has no variable that GRIB has a code for ({example}): say the codes in `parameters`"
            ));
        };
        let all: Vec<&Coded> = variables
            .iter()
            .flat_map(|variable| &variable.fields)
            .collect();
        distinct(&all)?;
        Ok(Self {
            prefix: options.prefix.clone(),
            forecast: forecast(options, schedule.analysis_time(), member, grid),
            variables,
            step_hours,
            record: GribRecord {
                eccodes,
                not_encoded,
            },
        })
    }

    /// What the manifest says of it.
    pub(crate) fn record(&self) -> &GribRecord {
        &self.record
    }

    /// What the user should know: the variables that are left out.
    pub(crate) fn warning(&self) -> Option<String> {
        let names: Vec<&str> = self
            .record
            .not_encoded
            .iter()
            .map(|left_out| left_out.variable.as_str())
            .collect();
        let first = self.record.not_encoded.first()?;
        Some(format!(
            "not in its GRIB files: {} ({}: {})",
            names.join(", "),
            first.variable,
            first.reason
        ))
    }

    /// The most bytes that the file of a window has.
    pub(crate) fn most_bytes(&self, steps: u64) -> u64 {
        // A bit more for each value: a bitmap, or what does not get smaller when it is compressed.
        let bits = u64::from(self.forecast.packing.bits_per_value) + 1;
        let values = (self.forecast.grid.points() as u64 * bits).div_ceil(8);
        let latitudes = match &self.forecast.grid {
            Grid::ReducedGaussian(grid) => 4 * grid.points_per_latitude().len() as u64,
            _ => 0,
        };
        let fields = self.variables.iter().map(|variable| variable.fields.len());
        steps * fields.sum::<usize>() as u64 * (values + latitudes + HEADER)
    }

    /// Writes the file of a window into a folder, field by field; its bytes.
    pub(crate) fn write(
        &self,
        folder: &Path,
        store: &ForecastStore,
        (number, window): (u64, &Window),
        dataset: &Dataset,
        stop: &CancellationToken,
    ) -> Result<u64, Unwritten> {
        let hours = |hours: u64| u32::try_from(hours).unwrap_or(u32::MAX);
        let window = window::Window {
            start: hours(window.from_hours),
            end: hours(window.to_hours),
        };
        let mut file = WindowFile::create(folder, &self.prefix, self.forecast.clone(), window)?;
        let points = self.forecast.grid.points();
        for variable in &self.variables {
            store.read_variable(&variable.name, number, dataset, |step, values| {
                let lead = hours(step + 1).saturating_mul(self.step_hours);
                for (coded, values) in variable.fields.iter().zip(values.chunks(points)) {
                    if stop.is_cancelled() {
                        return Err(Unwritten::Stopped);
                    }
                    let span = coded.span(lead, self.step_hours);
                    file.push(&coded.field(span, values.to_vec()))?;
                }
                Ok(())
            })?;
        }
        Ok(file.finish()?.bytes)
    }
}

/// The fields of a step of a variable, and the dimensions of their points.
fn fields<'s>(store: &'s ForecastStore, coded: &Coded) -> Result<(Vec<Coded>, Dims<'s>), String> {
    let plane = store.plane(&coded.variable);
    let mut dims = plane.map_err(|error| error.to_string())?;
    let Some(along) = &coded.along else {
        dims.retain(|(_, length)| *length > 1);
        return Ok((vec![coded.clone()], dims));
    };
    dims.retain(|(dim, length)| *length > 1 || dim == along);
    let count = match dims.first() {
        Some((first, count)) if first == along => *count,
        _ => {
            return Err(format!(
                "`{along}` is not the first of {} beside that of time",
                grid::in_words(&dims)
            ));
        }
    };
    dims.remove(0);
    let levels = grid::levels(store, along, count)?;
    Ok((
        levels.into_iter().map(|level| coded.at(level)).collect(),
        dims,
    ))
}
