//! Version 3: a model of points, such as an emulator of a land surface. It sees one row of features
//! for each point and nothing of the others, so that it can be run for any number of them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Interface, InvalidInterface, OutputRole, POINTS_VERSION};

/// The dimension of time in the stores.
const TIME: &str = "time";

/// What a model of points is given, and what becomes of what it returns.
#[derive(Clone, Debug, PartialEq)]
pub struct PointModel {
    /// Names of the configuration's inputs, which are Zarr stores over points and time.
    pub stores: PointStores,
    /// Name of the graph's input, `[point, feature]`.
    pub input: String,
    /// Its features in order.
    pub features: Vec<PointFeature>,
    /// What the graph's output, `[point, state]`, is.
    pub predicts: Predicts,
    /// Its columns in order: the variables of the state.
    pub states: Vec<PointState>,
    /// Further variables over the points, such as `lat`, which are copied into outputs and must be
    /// the same in all stores that have them.
    pub coordinates: Vec<String>,
}

/// The configuration's input that each kind of feature is read from. They may be the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointStores {
    /// Of the first state, at the analysis time.
    pub state: String,
    /// Of forcing, at the start of every step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forcing: Option<String>,
    /// Of what does not change; of variables with times, those of the analysis time.
    #[serde(default, rename = "static", skip_serializing_if = "Option::is_none")]
    pub statics: Option<String>,
}

/// A column of the graph's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointFeature {
    /// Name of the variable.
    pub name: String,
    /// Where it comes from.
    pub role: PointRole,
    /// The model sees `(value - mean) / std`; without, the value itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
}

/// Where a feature of a point comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PointRole {
    /// It does not change.
    Static,
    /// It is read at the start of every step.
    Forcing,
    /// It is predicted.
    State,
}

impl PointRole {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Forcing => "forcing",
            Self::State => "state",
        }
    }
}

/// What the graph's output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predicts {
    /// What is to be added to the state.
    Increments,
    /// The state one step later.
    State,
}

/// A column of the graph's output: a variable of the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointState {
    /// Name of the variable.
    pub name: String,
    /// The least value that it may have: what is less becomes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower: Option<f32>,
    /// The greatest value that it may have: what is more becomes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<f32>,
    /// What the model returns is scaled: it stands for `returned * std + mean`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
}

/// Mean and standard deviation; what is scaled with them is computed in float32.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// The mean.
    pub mean: f32,
    /// The standard deviation, more than 0.
    pub std: f32,
}

/// What does not fit in a model of points.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PointProblem {
    /// Points in the wrong version.
    #[error(
        "`features` of points need version {POINTS_VERSION}, and version {POINTS_VERSION} has nothing else"
    )]
    Version,
    /// No features, or no states.
    #[error("`{0}` is empty: name what the model is given and what it predicts")]
    Empty(&'static str),
    /// A variable twice.
    #[error("`{0}` stands there twice: name each variable once")]
    Twice(String),
    /// A feature that is said to be predicted, and is not.
    #[error("the feature `{0}` has the role `state`, but is not among `states`")]
    NotPredicted(String),
    /// A predicted variable that is fed as something else.
    #[error("`{0}` is among `states`, so its feature has the role `state`")]
    OtherRole(String),
    /// The model does not see any state.
    #[error(
        "no feature has the role `state`: the forecast would not depend on what it starts from"
    )]
    NoState,
    /// No store for a role that features have, or one that none has.
    #[error("`inputs` must name the store of `{0}` features if there are such, and only then")]
    Store(&'static str),
    /// A scale that is none.
    #[error("the scale of `{0}` must be a finite mean and a finite standard deviation above 0")]
    Scale(String),
    /// Bounds that exclude everything.
    #[error("the bounds of `{0}` must be finite, the lower one less than the upper one")]
    Bounds(String),
    /// A name that has a meaning of its own.
    #[error("a variable, coordinate or dimension cannot be called `{0}`")]
    Name(String),
}

impl PointModel {
    /// Names of the features of a role, in order.
    pub fn names(&self, role: PointRole) -> impl Iterator<Item = &str> {
        let of_role = self.features.iter().filter(move |one| one.role == role);
        of_role.map(|feature| feature.name.as_str())
    }

    /// The configuration's input that features of a role come from.
    pub fn store(&self, role: PointRole) -> Option<&str> {
        match role {
            PointRole::Static => self.stores.statics.as_deref(),
            PointRole::Forcing => self.stores.forcing.as_deref(),
            PointRole::State => Some(&self.stores.state),
        }
    }
}

impl Interface {
    /// Checks what is special about a model of points; does nothing for others.
    pub(super) fn check_points(&self) -> Result<(), InvalidInterface> {
        let Some(model) = &self.points else {
            return match self.version {
                POINTS_VERSION => Err(InvalidInterface::Points(PointProblem::Version)),
                _ => Ok(()),
            };
        };
        let only_points = self.version == POINTS_VERSION
            && self.inputs.is_empty()
            && self.input_state.is_none()
            && self.outputs.len() == 1
            && self
                .outputs
                .iter()
                .all(|one| one.role == OutputRole::NextState);
        if !only_points {
            return Err(InvalidInterface::Points(PointProblem::Version));
        }
        let names = [&model.input, &self.outputs[0].name, &model.stores.state];
        let stores = [&model.stores.forcing, &model.stores.statics];
        if names
            .into_iter()
            .chain(stores.into_iter().flatten())
            .any(String::is_empty)
        {
            return Err(InvalidInterface::Empty("inputs, input, output"));
        }
        if model.input == self.outputs[0].name {
            return Err(InvalidInterface::TensorName(model.input.clone()));
        }
        let dims = &self.grid.dims;
        model.check(dims).map_err(InvalidInterface::Points)
    }
}

impl PointModel {
    fn check(&self, dims: &[String]) -> Result<(), PointProblem> {
        if self.features.is_empty() {
            return Err(PointProblem::Empty("features"));
        }
        if self.states.is_empty() {
            return Err(PointProblem::Empty("states"));
        }
        self.check_names(dims)?;
        let is_predicted = |name: &str| self.states.iter().any(|state| state.name == name);
        for feature in &self.features {
            match (feature.role, is_predicted(&feature.name)) {
                (PointRole::State, false) => {
                    return Err(PointProblem::NotPredicted(feature.name.clone()));
                }
                (PointRole::Static | PointRole::Forcing, true) => {
                    return Err(PointProblem::OtherRole(feature.name.clone()));
                }
                _ => {}
            }
        }
        if self.names(PointRole::State).next().is_none() {
            return Err(PointProblem::NoState);
        }
        for role in [PointRole::Static, PointRole::Forcing] {
            if self.store(role).is_some() != self.names(role).next().is_some() {
                return Err(PointProblem::Store(role.name()));
            }
        }
        self.check_numbers()
    }

    fn check_names(&self, dims: &[String]) -> Result<(), PointProblem> {
        let features = self.features.iter().map(|feature| &feature.name);
        let states = self.states.iter().map(|state| &state.name);
        let is_bad = |name: &&String| {
            name.is_empty() || *name == TIME || name.contains(['/', '\\']) || name.starts_with('.')
        };
        let all = features
            .clone()
            .chain(states.clone())
            .chain(&self.coordinates);
        let taken = |name: &&String| dims.contains(name);
        if let Some(name) = all.clone().find(|name| is_bad(name) || taken(name)) {
            return Err(PointProblem::Name(name.clone()));
        }
        if let Some(name) = dims.iter().find(is_bad) {
            return Err(PointProblem::Name(name.clone()));
        }
        // A coordinate is a variable of the outputs, as the states are.
        let written = states.chain(&self.coordinates);
        for names in [features.collect::<Vec<_>>(), written.collect()] {
            let mut seen = BTreeSet::new();
            if let Some(name) = names.into_iter().find(|name| !seen.insert(*name)) {
                return Err(PointProblem::Twice(name.clone()));
            }
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), PointProblem> {
        let of_features = self.features.iter().map(|one| (&one.name, one.scale));
        let of_states = self.states.iter().map(|one| (&one.name, one.scale));
        let is_bad =
            |scale: Scale| !(scale.mean.is_finite() && scale.std.is_finite() && scale.std > 0.0);
        if let Some((name, _)) = of_features
            .chain(of_states)
            .find(|one| one.1.is_some_and(is_bad))
        {
            return Err(PointProblem::Scale(name.clone()));
        }
        let excludes_all = |state: &&PointState| {
            let bounds = [state.lower, state.upper];
            bounds.iter().flatten().any(|bound| !bound.is_finite())
                || matches!(bounds, [Some(lower), Some(upper)] if lower >= upper)
        };
        match self.states.iter().find(excludes_all) {
            Some(state) => Err(PointProblem::Bounds(state.name.clone())),
            None => Ok(()),
        }
    }
}
