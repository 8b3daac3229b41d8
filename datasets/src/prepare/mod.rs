//! From source datasets to the arrays of a model, as mllam-data-prep 0.7 prepares them: variables
//! are selected, derived, stacked over the grid and concatenated along the feature dimension, time
//! by time, without ever holding more than a chunk in time of every source variable.
//!
//! What mllam-data-prep would silently fill with NaN, align or broadcast wrongly is an error here.
//! Ranges of time and splits of a configuration describe the training data and do not apply.
//!
//! [`Datastore`] prepares single variables; [`ForecastInputs`] prepares everything that one
//! forecast of an [`mlwm_spec::Interface`] needs, and [`check`] reads all of it without a model.

mod datastore;
mod derive;
mod derived;
mod error;
mod extraction;
mod features;
mod forecast;
mod grid;
mod mapping;
mod name_format;
mod naming;
mod opening;
mod plane;
mod reader;
mod select;
mod source;
mod times;

pub use datastore::{Datastore, PreparedVariable};
pub use error::{MissingTimes, PrepareError};
pub use features::{FeatureReader, FeatureSet};
pub use forecast::{Forcing, ForecastInputs, ForecastRequest, Report, Schedule, check};
pub use grid::{COORDINATE_TOLERANCE, boundary_points, grid_difference};
pub use mapping::{ANALYSIS_DIM, ELAPSED_DIM, TIME_DIM};
pub use name_format::LevelValue;
pub use naming::distinct_names;
pub use reader::Reader;
pub use source::{Feature, SourceInput};
pub(crate) use times::TimeAxis;

#[cfg(test)]
mod tests;
