//! What an output becomes, known from the first window that a container wrote of it.

use std::path::Path;
use std::sync::Arc;

use mlwm_datasets::Dataset;
use mlwm_datasets::forecast_store::{self, ForecastStore, Missing, StoreOptions, VariableOptions};
use mlwm_spec::Period;
use mlwm_spec::configuration::StoredAs;
use mlwm_spec::contract::stream::Window;

use crate::grib::Form;
use crate::output;
use crate::plan::{PlannedOutput, PlannedTask};

/// What an output becomes.
pub(super) struct Target {
    /// Its variables and steps, and what they must be; the Zarr store that it becomes if it is not GRIB.
    pub(super) store: ForecastStore,
    pub(super) grib: Option<Arc<Form>>,
}

impl Target {
    /// What the output becomes of which this is a window, `of` the forecast.
    pub(super) fn of(
        window: &Dataset,
        of: &Window,
        wanted: &PlannedOutput,
        task: &PlannedTask,
    ) -> Result<Self, String> {
        let store = plan(window, of, wanted, task)?;
        let form = wanted
            .grib()
            .map(|options| Form::of(options, &store, task.member));
        Ok(Self {
            grib: form.transpose()?.map(Arc::new),
            store,
        })
    }
}

/// A window that a container wrote and does not reach any more.
pub(super) fn open(folder: &Path) -> Result<Dataset, String> {
    output::refuse_special_files(folder)?;
    Dataset::open(folder).map_err(|error| error.to_string())
}

fn plan(
    dataset: &Dataset,
    window: &Window,
    wanted: &PlannedOutput,
    task: &PlannedTask,
) -> Result<ForecastStore, String> {
    let declared = wanted.windows.as_ref().ok_or("is not cut")?;
    let length = declared.length.seconds().unsigned_abs();
    let (steps, step_seconds) = match &task.steps {
        Some(steps) => (steps.count, steps.seconds.unsigned_abs()),
        None => steps_of(dataset, window, task)?,
    };
    let windows = forecast_store::Windows::new(task.analysis_time, step_seconds, steps, length)
        .map_err(|error| error.to_string())?;
    let names: Vec<String> = match &wanted.variables {
        Some(names) => names.clone(),
        None => output::data_variables(dataset)?,
    };
    if let Some(name) = wanted.ranges.keys().find(|name| !names.contains(name)) {
        return Err(format!(
            "has no variable `{name}`, for which there is a range"
        ));
    }
    let options = |name: &String| VariableOptions {
        stored: match declared.stored_as.get(name) {
            Some(StoredAs::Float16) => forecast_store::StoredAs::Float16,
            _ => forecast_store::StoredAs::Float32,
        },
        missing: match declared.missing.contains(name) {
            true => Missing::Anywhere,
            false => Missing::Nowhere,
        },
        range: wanted.ranges.get(name).copied(),
    };
    let options = StoreOptions {
        variables: names
            .iter()
            .map(|name| (name.clone(), options(name)))
            .collect(),
        hours: declared.hours.map(|hours| hours.from..hours.to),
        attributes: serde_json::Map::new(),
    };
    ForecastStore::plan(dataset, windows, &options).map_err(|error| error.to_string())
}

/// The steps of a forecast whose model does not say how long one is: the first one of a window follows its beginning.
fn steps_of(dataset: &Dataset, window: &Window, task: &PlannedTask) -> Result<(u64, u64), String> {
    let leads = output::lead_times(dataset, task.analysis_time)?;
    let first = leads.first().and_then(|lead| u64::try_from(*lead).ok());
    let step = first.and_then(|first| first.checked_sub(window.from_hours * 3600));
    let step = step
        .filter(|step| *step > 0)
        .ok_or("has no lead time after its beginning")?;
    let duration: Option<Period> = task.forecast_duration().and_then(|text| text.parse().ok());
    let duration = duration
        .ok_or("is of unknown length")?
        .seconds()
        .unsigned_abs();
    match duration % step {
        0 => Ok((duration / step, step)),
        _ => Err(format!(
            "begins with a lead time of {step} s, of which the forecast is no multiple"
        )),
    }
}
