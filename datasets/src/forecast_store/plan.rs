//! What a store of a forecast will hold, known from one of its windows.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::cast::Permission;
use super::coordinates::{Coordinates, ELAPSED, TIME};
use super::{Rules, StoreError, StoredAs, Windows, shard};
use crate::documents::check;
use crate::variable::product;
use crate::{Dataset, Definition, Element, Values};

/// The largest plane: what blosc compresses at once.
const MAX_PLANE_BYTES: u64 = 2 << 30;

/// What is published of a forecast.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// The variables; those of a window that are not among them are left out.
    pub variables: BTreeMap<String, VariableOptions>,
    /// Only the lead times in (start, end] hours, which must be whole windows. None: all.
    pub hours: Option<Range<u64>>,
    /// Attributes of the group; they replace those of the window with the same names.
    pub attributes: Map<String, Value>,
}

/// How one variable is published.
#[derive(Clone, Debug, Default)]
pub struct VariableOptions {
    /// The type that its values are stored as.
    pub stored: StoredAs,
    /// Where values may be missing (NaN).
    pub missing: Missing,
    /// Lowest and highest value.
    pub range: Option<[f64; 2]>,
}

/// Where values of a variable may be missing (NaN). Infinite values never may.
#[derive(Clone, Debug, Default)]
pub enum Missing {
    /// Nowhere.
    #[default]
    Nowhere,
    /// Anywhere. Over an ensemble: at points where no member has a value.
    Anywhere,
    /// At the points where this is true: the plane of one step in row-major order. Over an
    /// ensemble: there, some members may have a value and others not.
    Within(Arc<[bool]>),
}

/// The store of one member's forecast: what it will hold, and the way to write it.
///
/// Made from any one of the forecast's windows: all have the same variables and coordinates.
#[derive(Clone, Debug)]
pub struct ForecastStore {
    pub(crate) windows: Windows,
    /// The windows that it holds.
    pub(crate) held: Range<u64>,
    pub(crate) variables: BTreeMap<String, Layout>,
    pub(crate) coordinates: Coordinates,
    pub(crate) attributes: Map<String, Value>,
}

/// How a variable lies in the store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) dims: Vec<String>,
    /// Which of the dimensions is that of the steps.
    pub(crate) axis: usize,
    /// The length of each dimension; of steps, those in the store.
    pub(crate) shape: Vec<u64>,
    /// The steps in a shard.
    pub(crate) steps_each: u64,
    pub(crate) attributes: Map<String, Value>,
    pub(crate) rules: Rules,
}

impl Layout {
    /// The number of values in the plane of one step.
    pub(crate) fn points(&self) -> u64 {
        self.inner().iter().product()
    }

    /// The shape of an inner chunk: one step, everything else.
    pub(crate) fn inner(&self) -> Vec<u64> {
        self.with_steps(1)
    }

    /// The shape with another number of steps.
    pub(crate) fn with_steps(&self, steps: u64) -> Vec<u64> {
        let mut shape = self.shape.clone();
        shape[self.axis] = steps;
        shape
    }
}

impl ForecastStore {
    /// Plans the store of a forecast from one of its windows. Reads its metadata and coordinates,
    /// not its variables.
    ///
    /// # Errors
    /// [`StoreError::Variable`] for a variable that cannot be written as declared,
    /// [`StoreError::Windows`] for hours that are not whole windows, [`StoreError::Dataset`] for
    /// one that is not there, [`StoreError::Window`] for a window of another forecast.
    pub fn plan(
        window: &Dataset,
        windows: Windows,
        options: &StoreOptions,
    ) -> Result<Self, StoreError> {
        let held = match &options.hours {
            Some(hours) => windows.within(hours)?,
            None => 0..windows.count(),
        };
        let step_dim = step_dim(window, options)?;
        let steps = held_steps(&windows, &held);
        let mut variables = BTreeMap::new();
        for (name, declared) in &options.variables {
            let layout = layout(window, &windows, &step_dim, steps, name, declared)?;
            variables.insert(name.clone(), layout);
        }
        let mut attributes = window.attributes().clone();
        attributes.extend(options.attributes.clone());
        let coordinates = Coordinates::read(window, &windows, &step_dim, |name| {
            options.variables.contains_key(name)
        })?;
        Ok(Self {
            windows,
            held,
            variables,
            coordinates,
            attributes,
        })
    }

    /// The steps of the forecast.
    pub fn schedule(&self) -> &Windows {
        &self.windows
    }

    /// The numbers of the windows that the store holds.
    pub fn windows(&self) -> Range<u64> {
        self.held.clone()
    }

    /// The names of the variables, sorted.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// The dimensions of the plane of one step of a variable, with their lengths.
    ///
    /// # Errors
    /// [`StoreError::Variable`] for a variable that the store does not hold.
    pub fn plane(&self, variable: &str) -> Result<Vec<(&str, u64)>, StoreError> {
        let layout = self.layout(variable)?.1;
        let dims = layout.dims.iter().map(String::as_str);
        let dims = dims.zip(layout.shape.iter().copied()).enumerate();
        Ok(dims
            .filter(|(axis, _)| *axis != layout.axis)
            .map(|(_, dim)| dim)
            .collect())
    }

    /// The units of a variable, if its attributes say them.
    pub fn units(&self, variable: &str) -> Option<&str> {
        let attributes = &self.variables.get(variable)?.attributes;
        attributes.get("units")?.as_str()
    }

    /// The coordinates that do not change along the steps, with their values.
    pub fn coordinates(&self) -> impl Iterator<Item = &(Definition, Values)> {
        self.coordinates.fixed.iter()
    }

    /// The most bytes that [`Self::write_window`] writes for a window: what it takes if nothing can
    /// be compressed. 0 for windows that the store does not hold.
    pub fn expected_bytes(&self, window: u64) -> u64 {
        if !self.held.contains(&window) {
            return 0;
        }
        let steps = self.windows.steps(window);
        let longest = |layout| shard::longest(layout, steps.end - steps.start);
        self.variables.values().map(longest).sum()
    }

    /// The path of a shard in the store's folder, with `/`: `t2m/c/3/0/0`.
    ///
    /// # Errors
    /// [`StoreError::NoWindow`] for a window that the store does not hold,
    /// [`StoreError::Variable`] for a variable that it does not.
    pub fn shard_path(&self, variable: &str, window: u64) -> Result<String, StoreError> {
        self.check_window(window)?;
        let layout = self.layout(variable)?.1;
        let keys: Vec<String> = (0..layout.dims.len())
            .map(|axis| match axis == layout.axis {
                true => (window - self.held.start).to_string(),
                false => "0".to_owned(),
            })
            .collect();
        Ok(format!("{variable}/c/{}", keys.join("/")))
    }

    pub(crate) fn check_window(&self, window: u64) -> Result<(), StoreError> {
        match self.held.contains(&window) {
            true => Ok(()),
            false => Err(StoreError::NoWindow {
                window,
                first: self.held.start,
                last: self.held.end.saturating_sub(1),
            }),
        }
    }

    pub(crate) fn layout(&self, variable: &str) -> Result<(&str, &Layout), StoreError> {
        match self.variables.get_key_value(variable) {
            Some((name, layout)) => Ok((name, layout)),
            None => Err(refuse(variable, "the store has no such variable")),
        }
    }

    /// The number of steps in the store.
    pub(crate) fn steps(&self) -> u64 {
        held_steps(&self.windows, &self.held)
    }

    /// The first step in the store.
    pub(crate) fn first_step(&self) -> u64 {
        self.windows.steps(self.held.start).start
    }
}

fn held_steps(windows: &Windows, held: &Range<u64>) -> u64 {
    windows.steps(held.end - 1).end - windows.steps(held.start).start
}

/// The dimension of steps, which all variables must have.
fn step_dim(window: &Dataset, options: &StoreOptions) -> Result<String, StoreError> {
    let Some(first) = options.variables.keys().next() else {
        let reason = "no variables are declared; name some".to_owned();
        return Err(StoreError::Windows(reason));
    };
    let dims = window.variable(first)?.dims();
    let found = [ELAPSED, TIME]
        .into_iter()
        .find(|name| dims.iter().any(|dim| dim == name));
    match found {
        Some(name) => Ok(name.to_owned()),
        None => Err(refuse(
            first,
            "it has neither of the dimensions `time` and `elapsed_forecast_duration`",
        )),
    }
}

/// How a variable will lie in the store.
fn layout(
    window: &Dataset,
    windows: &Windows,
    step_dim: &str,
    steps: u64,
    name: &str,
    declared: &VariableOptions,
) -> Result<Layout, StoreError> {
    let variable = window.variable(name)?;
    let Some(axis) = variable.dims().iter().position(|dim| dim == step_dim) else {
        let reason = format!("it has no dimension `{step_dim}`, as the other variables do");
        return Err(refuse(name, &reason));
    };
    if variable.element() == Element::Text {
        return Err(refuse(name, "it holds texts"));
    }
    if let Some(fault) = declared.stored.fault() {
        return Err(refuse(name, &fault));
    }
    let mut shape = variable.shape().to_vec();
    shape[axis] = steps;
    let layout = Layout {
        dims: variable.dims().to_vec(),
        axis,
        shape,
        steps_each: windows.steps_each().min(steps),
        attributes: variable.decoded_attributes(),
        rules: Rules {
            stored: declared.stored,
            may_be_missing: match &declared.missing {
                Missing::Nowhere => Permission::Nowhere,
                Missing::Anywhere => Permission::Anywhere,
                Missing::Within(mask) => Permission::Within(Arc::clone(mask)),
            },
            range: declared.range,
        },
    };
    let points = product(&layout.inner()).filter(|points| *points > 0);
    let bytes = points.and_then(|points| points.checked_mul(8));
    if bytes.is_none_or(|bytes| bytes > MAX_PLANE_BYTES) {
        let reason = format!(
            "the plane of one step has the shape {:?}; it must have a value, and at most 2 GiB",
            layout.inner()
        );
        return Err(refuse(name, &reason));
    }
    if let Missing::Within(mask) = &declared.missing
        && mask.len() as u64 != layout.points()
    {
        let reason = format!(
            "its mask of missing values has {} points, its plane {}",
            mask.len(),
            layout.points()
        );
        return Err(refuse(name, &reason));
    }
    definition_check(name, &layout)?;
    Ok(layout)
}

/// Refuses names and dimensions that cannot be in a Zarr store.
fn definition_check(name: &str, layout: &Layout) -> Result<(), StoreError> {
    let dims: Vec<(&str, u64)> = layout
        .dims
        .iter()
        .map(String::as_str)
        .zip(layout.inner())
        .collect();
    let definition =
        Definition::new(name, &dims, Element::F32).attributes(layout.attributes.clone());
    check(&definition).map_err(|reason| refuse(name, &reason))
}

pub(crate) fn refuse(name: &str, reason: &str) -> StoreError {
    StoreError::Variable {
        name: name.to_owned(),
        reason: reason.to_owned(),
    }
}
