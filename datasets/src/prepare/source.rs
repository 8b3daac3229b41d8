//! One input of a datastore: which parts of which source variables make which features.

use std::ops::Range;
use std::path::{Path, PathBuf};

use mlwm_spec::interface::Grid;

use super::derived::DerivedField;
use super::name_format::LevelValue;
use super::times::TimeAxis;
use crate::Dataset;

/// A feature of a variable of a datastore, and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Its name in the datastore: `t2m`, `u100m`.
    pub name: String,
    /// Its units, empty if unknown.
    pub units: String,
    /// What it is, for people; empty if unknown.
    pub long_name: String,
    /// Name of the input that it comes from.
    pub input: String,
    /// Name of the source variable, or of the derived variable.
    pub variable: String,
    /// Whether it is computed rather than read.
    pub is_derived: bool,
    /// Dimensions of the source variable, in its order, without those that a single value was
    /// selected of.
    pub dims: Vec<String>,
    /// Dimension and value of the level that it is on, if levels became features.
    pub level: Option<(String, LevelValue)>,
    /// Dimensions of the source variable that a single value was selected of, and that value.
    pub selected: Vec<(String, LevelValue)>,
}

/// What a dimension of a source variable is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    /// Time, or the time since the analysis.
    Time,
    /// One position is read: the analysis time, or a single selected value.
    Fixed(u64),
    /// The stacked dimension with this number.
    Grid(usize),
    /// The levels.
    Level,
}

/// A source variable that is read.
#[derive(Clone, Debug)]
pub(crate) struct SourceVariable {
    pub name: String,
    pub axes: Vec<Axis>,
    /// Positions along the level dimension, in the order of the features.
    pub levels: Vec<usize>,
}

/// Where the values of a feature come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Source variable and position along the level dimension.
    Read {
        variable: usize,
        level: Option<usize>,
    },
    /// Derived field.
    Derived(usize),
}

/// An opened input.
#[derive(Debug)]
pub struct SourceInput {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) dataset: Dataset,
    pub(crate) grid: Grid,
    /// What the dataset calls the dimensions of the grid.
    pub(crate) grid_dims: Vec<String>,
    /// The part of each stacked dimension that is taken.
    pub(crate) grid_ranges: Vec<Range<u64>>,
    pub(crate) times: Option<TimeAxis>,
    pub(crate) variables: Vec<SourceVariable>,
    pub(crate) derived: Vec<DerivedField>,
    pub(crate) features: Vec<Feature>,
    pub(crate) origins: Vec<Origin>,
    /// Whether NumPy would promote the concatenated features to float64.
    pub(crate) is_double: bool,
}

impl SourceInput {
    /// Name of the input in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The dataset's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The dataset.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Names of its dimensions of time: that of the analysis, if it holds forecasts, and the one
    /// that varies in a forecast. None of static features.
    pub fn time_dims(&self) -> Option<(Option<&str>, &str)> {
        let axis = self.times.as_ref()?;
        let analysis = axis.fixed.as_ref().map(|(dim, _)| dim.as_str());
        Some((analysis, axis.dim.as_str()))
    }

    /// What the dataset calls the dimensions of the grid, the slowest first.
    pub fn grid_dims(&self) -> &[String] {
        &self.grid_dims
    }

    /// The part of some stacked dimensions that is taken, in the order given.
    pub fn grid_ranges_of(&self, dims: &[String]) -> Vec<Range<u64>> {
        let number = |dim| self.grid_dims.iter().position(|grid_dim| grid_dim == dim);
        dims.iter()
            .filter_map(number)
            .map(|number| self.grid_ranges[number].clone())
            .collect()
    }
}
