//! The features of one role of a model, from one or several variables of datastores, with the
//! statistics that standardize them.

use std::collections::BTreeMap;

use mlwm_spec::interface::{Features, Grid, Standardization};

use super::datastore::PreparedVariable;
use super::grid::grid_difference;
use super::plane::Real;
use super::reader::Reader;
use super::source::Feature;
use super::{Datastore, ForecastRequest, PrepareError};

/// Features in the order of the model, with their statistics.
#[derive(Debug)]
pub struct FeatureSet {
    variables: Vec<PreparedVariable>,
    mean: Vec<f64>,
    std: Vec<f64>,
}

impl FeatureSet {
    /// The variables that the features are concatenated from.
    pub fn variables(&self) -> &[PreparedVariable] {
        &self.variables
    }

    /// The features in order.
    pub fn features(&self) -> impl Iterator<Item = &Feature> {
        self.variables.iter().flat_map(PreparedVariable::features)
    }

    /// Number of features.
    pub fn len(&self) -> usize {
        self.mean.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.mean.is_empty()
    }

    /// Number of points of the grid.
    pub fn points(&self) -> usize {
        self.variables
            .first()
            .map_or(0, |variable| variable.grid().points() as usize)
    }

    /// Training mean of each feature, as stored.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Training standard deviation of each feature, as stored.
    pub fn std(&self) -> &[f64] {
        &self.std
    }

    /// Whether NumPy would hold the features in float64.
    pub fn is_double(&self) -> bool {
        self.variables.iter().any(PreparedVariable::is_double)
    }

    /// Starts reading at these valid times.
    pub fn reader(&self, times: &[i64]) -> FeatureReader<'_> {
        FeatureReader {
            features: self,
            readers: self
                .variables
                .iter()
                .map(|variable| variable.reader(times))
                .collect(),
        }
    }

    /// Refuses NaN and infinite values in an array `[grid_index, feature]`, of which only some
    /// points matter if given. Returns the number of values looked at.
    ///
    /// # Errors
    /// [`PrepareError::NotFinite`] for the first feature that has some.
    pub fn check_finite(
        &self,
        array: &[f32],
        time: Option<i64>,
        points: Option<&[usize]>,
    ) -> Result<usize, PrepareError> {
        let columns = self.len();
        let row = |point: usize| &array[point * columns..(point + 1) * columns];
        let is_good = |values: &[f32]| values.iter().all(|value| value.is_finite());
        let all_good = match points {
            None => is_good(array),
            Some(points) => points.iter().all(|&point| is_good(row(point))),
        };
        let of = points.map_or(self.points(), <[usize]>::len);
        if all_good {
            return Ok(of * columns);
        }
        let bad = |column: usize, point: usize| !row(point)[column].is_finite();
        let counts = (0..columns).map(|column| match points {
            None => (0..self.points())
                .filter(|&point| bad(column, point))
                .count(),
            Some(points) => points.iter().filter(|&&point| bad(column, point)).count(),
        });
        let sources = self
            .variables
            .iter()
            .flat_map(|variable| variable.features().map(move |feature| (variable, feature)));
        for (count, (variable, feature)) in counts.zip(sources) {
            if count > 0 {
                let path = variable
                    .source(&feature.input)
                    .map(|source| source.path().to_owned());
                return Err(PrepareError::NotFinite {
                    path: path.unwrap_or_default(),
                    feature: feature.name.clone(),
                    time,
                    count,
                    of,
                });
            }
        }
        Ok(of * columns)
    }
}

/// Reads features time by time.
pub struct FeatureReader<'a> {
    features: &'a FeatureSet,
    readers: Vec<Reader<'a>>,
}

impl FeatureReader<'_> {
    /// The array `[grid_index, feature]` at a valid time (Unix seconds; none for static features)
    /// as float32, neither standardized nor checked for NaN.
    ///
    /// # Errors
    /// If the time is not there, or the data cannot be read.
    pub fn read(&mut self, time: Option<i64>) -> Result<Vec<f32>, PrepareError> {
        self.array(time)
    }

    /// As [`Self::read`], in float64.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_f64(&mut self, time: Option<i64>) -> Result<Vec<f64>, PrepareError> {
        self.array(time)
    }

    fn array<T: Real>(&mut self, time: Option<i64>) -> Result<Vec<T>, PrepareError> {
        let columns = self.features.len();
        let mut out = vec![T::default(); self.features.points() * columns];
        let mut first = 0;
        for (reader, variable) in self.readers.iter_mut().zip(&self.features.variables) {
            reader.read_into(time, &mut out, columns, first)?;
            first += variable.features().count();
        }
        Ok(out)
    }
}

/// Opens the variables of some features and checks names, order, grid and statistics.
pub(super) fn open_features(
    request: &ForecastRequest<'_>,
    datastores: &BTreeMap<&str, Datastore<'_>>,
    features: &Features,
    grid: &Grid,
    warnings: &mut Vec<String>,
) -> Result<FeatureSet, PrepareError> {
    let mut set = FeatureSet {
        variables: vec![],
        mean: vec![],
        std: vec![],
    };
    for source in &features.sources {
        let name = source.datastore.as_str();
        let datastore = datastores.get(name).ok_or_else(|| {
            PrepareError::Artifact(format!(
                "the interface takes `{}` from datastore `{name}`, which has no configuration",
                source.variable
            ))
        })?;
        let variable = datastore.variable(&source.variable)?;
        check_grid(&variable, grid)?;
        add_statistics(request, &variable, &mut set, warnings)?;
        set.variables.push(variable);
    }
    let names: Vec<&String> = set.features().map(|feature| &feature.name).collect();
    let expected: Vec<&String> = features.names.iter().collect();
    check_names("the interface", &expected, &names)?;
    Ok(set)
}

fn check_names(whose: &str, expected: &[&String], names: &[&String]) -> Result<(), PrepareError> {
    if expected == names {
        return Ok(());
    }
    let list = |names: &[&String]| {
        names
            .iter()
            .map(|name| name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    Err(PrepareError::Artifact(format!(
        "{whose} has the features {}, but the inputs make {}",
        list(expected),
        list(names)
    )))
}

fn check_grid(variable: &PreparedVariable, expected: &Grid) -> Result<(), PrepareError> {
    let Some(difference) = grid_difference(expected, variable.grid()) else {
        return Ok(());
    };
    if variable.grid().dims != expected.dims {
        return Err(PrepareError::Artifact(format!(
            "the grid of `{}` in datastore `{}` is not that of the interface: {difference}",
            variable.name(),
            variable.datastore()
        )));
    }
    let path = variable
        .sources()
        .first()
        .map(|source| source.path().to_owned());
    Err(PrepareError::Unusable {
        path: path.unwrap_or_default(),
        message: format!("its grid is not that of the model: {difference}"),
    })
}

fn add_statistics(
    request: &ForecastRequest<'_>,
    variable: &PreparedVariable,
    set: &mut FeatureSet,
    warnings: &mut Vec<String>,
) -> Result<(), PrepareError> {
    let (datastore, name) = (variable.datastore(), variable.name());
    if request.interface.standardization == Standardization::None {
        let count = variable.features().count();
        set.mean.extend(std::iter::repeat_n(0.0, count));
        set.std.extend(std::iter::repeat_n(1.0, count));
        return Ok(());
    }
    let statistics = request.statistics.get(datastore).ok_or_else(|| {
        PrepareError::Artifact(format!(
            "there are no statistics of datastore `{datastore}`"
        ))
    })?;
    let broken = |error: crate::Error| PrepareError::Artifact(error.to_string());
    let trained = statistics.features(name).map_err(broken)?;
    let names: Vec<&String> = variable.features().map(|feature| &feature.name).collect();
    let path = statistics.path().display();
    check_names(
        &path.to_string(),
        &trained.iter().collect::<Vec<_>>(),
        &names,
    )?;
    for (statistic, values) in [("mean", &mut set.mean), ("std", &mut set.std)] {
        let split = &request.interface.statistics_split;
        let stored = statistics
            .get(name, split, statistic)
            .map_err(broken)?
            .values;
        if stored.len() != names.len() {
            return Err(PrepareError::Artifact(format!(
                "{path} has {} values of `{name}__{split}__{statistic}` for {} features",
                stored.len(),
                names.len()
            )));
        }
        values.extend(stored);
    }
    // Units are not always recorded; where they are and differ, a person should look.
    let units = statistics.units(name).unwrap_or_default();
    for (feature, trained) in variable.features().zip(&units) {
        if feature.units != *trained && !trained.is_empty() {
            warnings.push(format!(
                "feature `{}` is in `{}` here, but was in `{trained}` in training",
                feature.name, feature.units
            ));
        }
    }
    Ok(())
}
