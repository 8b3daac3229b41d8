//! Whether the outputs of a forecast can be cut into windows of lead time.

use mlwm_spec::Period;
use mlwm_spec::configuration;
use mlwm_spec::contract::TimeLayout;

use super::Steps;
use crate::Error;
use crate::load::Loaded;

/// Windows need a forecast of known length that has all the lead times that are to be published.
pub(super) fn check(
    loaded: &Loaded,
    name: &str,
    output: &configuration::Output,
    duration: Option<Period>,
    steps: Option<&Steps>,
    time_layout: TimeLayout,
) -> Result<(), Error> {
    let Some(windows) = &output.windows else {
        return Ok(());
    };
    let refuse = |reason: String| Error::Windows {
        configuration: loaded.name.clone(),
        output: name.to_owned(),
        reason,
    };
    let Some(duration) = duration else {
        return Err(refuse("add `forecast_duration`".to_owned()));
    };
    if time_layout != TimeLayout::Time {
        return Err(refuse("set `time_layout: time`".to_owned()));
    }
    if windows.grib.is_some() && steps.is_some_and(|steps| steps.seconds % 3600 != 0) {
        return Err(refuse(
            "GRIB has lead times in whole hours, and a step of the model is none".to_owned(),
        ));
    }
    let length = windows.length.seconds().unsigned_abs();
    if let Some(steps) = steps
        && !length.is_multiple_of(steps.seconds.unsigned_abs())
    {
        return Err(refuse(format!(
            "a window of {} is no whole number of steps of {} s, and its files would be written more than once: choose a multiple",
            windows.length, steps.seconds
        )));
    }
    let end = duration.seconds().unsigned_abs();
    let Some(wanted) = windows.hours else {
        return Ok(());
    };
    let (from, to) = (
        wanted.from.saturating_mul(3600),
        wanted.to.saturating_mul(3600),
    );
    if to > end {
        let hours = end / 3600;
        return Err(refuse(format!(
            "the forecast has {hours} hours, and {wanted} are to be published"
        )));
    }
    if !from.is_multiple_of(length) || !(to == end || to.is_multiple_of(length)) {
        return Err(refuse(format!(
            "the hours {wanted} begin or end within a window of {}, whose files would be written more than once: choose multiples of it",
            windows.length
        )));
    }
    Ok(())
}

/// Says how many members an ensemble has in GRIB: each member's files do, whichever are asked for this time.
pub(super) fn settle_ensemble(
    mut windows: configuration::Windows,
    configuration: &configuration::Configuration,
) -> configuration::Windows {
    let members = configuration.members.as_ref();
    let count = members.and_then(|members| u32::try_from(members.count()).ok());
    if let Some(grib) = &mut windows.grib {
        grib.ensemble_size = grib.ensemble_size.or(count);
    }
    windows
}
