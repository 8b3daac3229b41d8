//! What must hold of an interface for a forecast to be made with it.

use std::collections::BTreeSet;

use super::error::{LONGEST_WINDOW, MOST_CHANNELS};
use super::{
    Dim, DimsProblem, Features, Grid, GridProblem, INTERFACE_VERSION, InputRole, Interface,
    InvalidInterface, ModelInput, ModelOutput, OutputRole, PROGRAM_VERSION, STATE_SCHEMA,
    Standardization, StateProblem, StateSchema,
};

impl Interface {
    /// Checks that the parts of the interface agree, and that a forecast can be made with it.
    pub fn validate(&self) -> Result<(), InvalidInterface> {
        if !(INTERFACE_VERSION..=PROGRAM_VERSION).contains(&self.version) {
            return Err(InvalidInterface::Version(self.version));
        }
        if self.step_seconds <= 0 {
            return Err(InvalidInterface::StepSeconds(self.step_seconds));
        }
        if self.statistics_split.is_empty() {
            return Err(InvalidInterface::Empty("statistics_split"));
        }
        self.check_points()?;
        if self.points.is_some() {
            return Ok(());
        }
        self.check_program()?;
        self.state.check("state", self.input_state.is_none())?;
        self.grid.check("state")?;
        if self.program.is_some() {
            return self.check_input_state();
        }
        self.check_boundary()?;
        self.check_tensor_names()?;
        for input in &self.inputs {
            input.check(self)?;
        }
        let last_state = |input: &ModelInput| match &input.role {
            InputRole::State { steps_back, .. } => steps_back.contains(&0),
            _ => false,
        };
        if !self.inputs.iter().any(last_state) {
            return Err(InvalidInterface::NoLastState);
        }
        self.check_outputs()?;
        self.check_input_state()
    }

    fn check_input_state(&self) -> Result<(), InvalidInterface> {
        match &self.input_state {
            Some(schema) => schema.check(self).map_err(InvalidInterface::State),
            None => Ok(()),
        }
    }

    /// Every feature is predicted once at most, and what is missing somewhere has a mask.
    fn check_outputs(&self) -> Result<(), InvalidInterface> {
        let mut predicted = BTreeSet::new();
        for output in &self.outputs {
            output.check(self)?;
            for name in self.features_of(output) {
                if !predicted.insert(name) {
                    return Err(InvalidInterface::PredictedTwice(name.clone()));
                }
            }
        }
        if !self
            .outputs
            .iter()
            .any(|output| output.role == OutputRole::NextState)
        {
            return Err(InvalidInterface::NoNextState);
        }
        let free = self
            .state
            .names
            .iter()
            .find(|name| !predicted.contains(name));
        match free {
            Some(name) if self.input_state.is_none() => {
                Err(InvalidInterface::NotPredicted(name.clone()))
            }
            _ => Ok(()),
        }
    }

    fn check_boundary(&self) -> Result<(), InvalidInterface> {
        if self.boundary_width == 0 {
            return Ok(());
        }
        if self.grid.dims.len() != 2 {
            return Err(InvalidInterface::BoundaryDimensions(self.grid.dims.len()));
        }
        let sides = self.grid.dims.iter().zip(&self.grid.shape);
        for (dim, length) in sides {
            if self.boundary_width.saturating_mul(2) >= *length {
                return Err(InvalidInterface::BoundaryCoversAll {
                    width: self.boundary_width,
                    dim: dim.clone(),
                    length: *length,
                });
            }
        }
        Ok(())
    }

    fn check_tensor_names(&self) -> Result<(), InvalidInterface> {
        let inputs = self
            .inputs
            .iter()
            .map(|input| ("inputs[].name", &input.name));
        let outputs = self
            .outputs
            .iter()
            .map(|output| ("outputs[].name", &output.name));
        let mut names = BTreeSet::new();
        for (of, name) in inputs.chain(outputs) {
            if name.is_empty() {
                return Err(InvalidInterface::Empty(of));
            }
            if !names.insert(name) {
                return Err(InvalidInterface::TensorName(name.clone()));
            }
        }
        Ok(())
    }
}

impl ModelInput {
    fn check(&self, interface: &Interface) -> Result<(), InvalidInterface> {
        let of = format!("input `{}`", self.name);
        let has_sources = interface.input_state.is_none();
        let reach = match &self.role {
            InputRole::State {
                steps_back,
                features,
            } => {
                check_are_of_state(&of, features, interface)?;
                if steps_back.is_empty() || first_repeated(steps_back.iter()).is_some() {
                    return Err(dims_problem(&of, DimsProblem::StepsBack));
                }
                if steps_back.len() > 1 && !self.dims.contains(&Dim::Time) {
                    return Err(dims_problem(&of, DimsProblem::NoTime));
                }
                steps_back.iter().max().copied().unwrap_or(0)
            }
            InputRole::Forcing {
                features,
                past,
                future,
                grid,
            } => {
                features.check(&of, true)?;
                grid.as_ref().map_or(Ok(()), |grid| grid.check(&of))?;
                *past.max(future)
            }
            InputRole::Static { features, grid } => {
                features.check(&of, has_sources)?;
                grid.as_ref().map_or(Ok(()), |grid| grid.check(&of))?;
                0
            }
            InputRole::Noise { channels, .. } => match (1..=MOST_CHANNELS).contains(channels) {
                true => 0,
                false => return Err(dims_problem(&of, DimsProblem::Channels)),
            },
        };
        if reach > LONGEST_WINDOW {
            return Err(InvalidInterface::Window {
                input: self.name.clone(),
                steps: reach,
            });
        }
        let with_feature = Self {
            dims: vec![Dim::Feature],
            ..self.clone()
        };
        let several = interface.input_shape(&with_feature) != [1];
        check_dims(&of, &self.dims, several)
    }
}

impl ModelOutput {
    fn check(&self, interface: &Interface) -> Result<(), InvalidInterface> {
        let of = format!("output `{}`", self.name);
        if let Some(name) = first_repeated(self.features.iter()) {
            return Err(InvalidInterface::PredictedTwice(name.clone()));
        }
        match self.role {
            OutputRole::NextState => check_are_of_state(&of, &self.features, interface)?,
            OutputRole::Diagnostics if self.features.is_empty() => {
                return Err(InvalidInterface::NoFeatures(of));
            }
            OutputRole::Diagnostics => {
                let of_state = |name: &&String| interface.state.names.contains(name);
                if let Some(name) = self.features.iter().find(of_state) {
                    return Err(InvalidInterface::PredictedTwice(name.clone()));
                }
            }
        }
        for (name, place) in &self.missing {
            if !interface.features_of(self).contains(name) {
                return Err(InvalidInterface::NotOfState {
                    of,
                    name: name.clone(),
                });
            }
            let problem = match &interface.input_state {
                None => StateProblem::NoMask(name.clone()),
                Some(schema) if schema.is_constant(&place.field) => continue,
                Some(_) => StateProblem::NotConstant(place.field.clone()),
            };
            return Err(InvalidInterface::State(problem));
        }
        check_dims(&of, &self.dims, interface.features_of(self).len() > 1)
    }
}

impl StateSchema {
    fn is_constant(&self, name: &str) -> bool {
        let field = self.field(name);
        field.is_some_and(|field| field.constant && field.missing.is_none())
    }

    fn check(&self, interface: &Interface) -> Result<(), StateProblem> {
        if self.schema != STATE_SCHEMA {
            return Err(StateProblem::Schema(self.schema.clone()));
        }
        let names = || self.fields.iter().map(|field| &field.name);
        if !interface.state.sources.is_empty() || !names().eq(&interface.state.names) {
            return Err(StateProblem::Fields);
        }
        if interface.standardization != Standardization::None {
            return Err(StateProblem::Standardized);
        }
        if interface.boundary_width != 0 {
            return Err(StateProblem::Boundary);
        }
        self.check_names(interface)?;
        self.check_offsets(interface)?;
        for input in &interface.inputs {
            match &input.role {
                InputRole::Forcing { .. } => {
                    return Err(StateProblem::Datastores(input.name.clone()));
                }
                InputRole::Static { features, grid } => {
                    if !features.sources.is_empty() || grid.is_some() {
                        return Err(StateProblem::Datastores(input.name.clone()));
                    }
                    let varying = features.names.iter().find(|name| !self.is_constant(name));
                    if let Some(name) = varying {
                        return Err(StateProblem::NotConstant(name.clone()));
                    }
                }
                InputRole::State { .. } | InputRole::Noise { .. } => {}
            }
        }
        for field in &self.fields {
            let sound = |[least, greatest]: [f64; 2]| {
                least.is_finite() && greatest.is_finite() && least <= greatest
            };
            if !field.range.is_none_or(sound) {
                return Err(StateProblem::Range(field.name.clone()));
            }
            if let Some(missing) = &field.missing
                && !self.is_constant(&missing.place.field)
            {
                return Err(StateProblem::NotConstant(missing.place.field.clone()));
            }
        }
        Ok(())
    }

    /// No field or coordinate has the name of a dimension, or of something else in the file.
    fn check_names(&self, interface: &Interface) -> Result<(), StateProblem> {
        let fields = self.fields.iter().map(|field| &field.name);
        let names = fields.chain(&self.coordinates);
        let mut seen = BTreeSet::new();
        let bad = names
            .into_iter()
            .find(|name| !is_name(name, &interface.grid) || !seen.insert(*name));
        bad.map_or(Ok(()), |name| Err(StateProblem::Name(name.clone())))
    }

    fn check_offsets(&self, interface: &Interface) -> Result<(), StateProblem> {
        let ascends = self.offsets_seconds.is_sorted_by(|a, b| a < b);
        if !ascends || self.offsets_seconds.last() != Some(&0) {
            return Err(StateProblem::Offsets);
        }
        for back in 0..interface.known_states() {
            let seconds = interface.step_seconds.saturating_mul(back.cast_signed());
            if !self.offsets_seconds.contains(&-seconds) {
                return Err(StateProblem::NoOffset(back, seconds));
            }
        }
        Ok(())
    }
}

/// Whether a variable may be called so: not as a dimension, and not as what is no name in a store.
pub(super) fn is_name(name: &str, grid: &Grid) -> bool {
    let taken = name == "time" || grid.dims.iter().any(|dim| dim == name);
    !(taken || name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.'))
}

fn dims_problem(of: &str, problem: DimsProblem) -> InvalidInterface {
    InvalidInterface::Dims {
        of: of.to_owned(),
        problem,
    }
}

fn check_dims(of: &str, dims: &[Dim], several_features: bool) -> Result<(), InvalidInterface> {
    if first_repeated(dims.iter()).is_some() {
        return Err(dims_problem(of, DimsProblem::Twice));
    }
    if !dims.contains(&Dim::Grid) {
        return Err(dims_problem(of, DimsProblem::NoGrid));
    }
    match several_features && !dims.contains(&Dim::Feature) {
        true => Err(dims_problem(of, DimsProblem::NoFeature)),
        false => Ok(()),
    }
}

fn check_are_of_state(
    of: &str,
    names: &[String],
    interface: &Interface,
) -> Result<(), InvalidInterface> {
    let unknown = names
        .iter()
        .find(|name| !interface.state.names.contains(name));
    unknown.map_or(Ok(()), |name| {
        Err(InvalidInterface::NotOfState {
            of: of.to_owned(),
            name: name.clone(),
        })
    })
}

impl Features {
    fn check(&self, of: &str, has_sources: bool) -> Result<(), InvalidInterface> {
        if self.names.is_empty() || self.sources.is_empty() == has_sources {
            return Err(InvalidInterface::NoFeatures(of.to_owned()));
        }
        let twice = |list: &str, name: String| InvalidInterface::Twice {
            list: format!("{list} of the {of}"),
            name,
        };
        if let Some(name) = first_repeated(self.names.iter()) {
            return Err(twice("features", name.clone()));
        }
        let sources = self
            .sources
            .iter()
            .map(|s| format!("{}.{}", s.datastore, s.variable));
        match first_repeated(sources) {
            Some(name) => Err(twice("sources", name)),
            None => Ok(()),
        }
    }
}

impl Grid {
    fn check(&self, of: &str) -> Result<(), InvalidInterface> {
        self.problem().map_or(Ok(()), |problem| {
            Err(InvalidInterface::Grid {
                of: of.to_owned(),
                problem,
            })
        })
    }

    fn problem(&self) -> Option<GridProblem> {
        if self.dims.is_empty() || self.dims.len() != self.shape.len() {
            return Some(GridProblem::Lengths);
        }
        let points = self
            .shape
            .iter()
            .try_fold(1u64, |points, n| points.checked_mul(*n));
        if points.is_none_or(|points| points == 0) {
            return Some(GridProblem::Points);
        }
        if let Some(dim) = first_repeated(self.dims.iter()) {
            return Some(GridProblem::Dimension(dim.clone()));
        }
        if self.coordinates.is_empty() {
            return None;
        }
        if self.coordinates.len() != self.dims.len() {
            return Some(GridProblem::Coordinates);
        }
        let sides = self.dims.iter().zip(&self.shape).zip(&self.coordinates);
        for ((dim, length), coordinates) in sides {
            if coordinates.len() as u64 != *length {
                return Some(GridProblem::CoordinateLength {
                    dim: dim.clone(),
                    length: *length,
                    coordinates: coordinates.len(),
                });
            }
            if !coordinates.iter().all(|value| value.is_finite()) {
                return Some(GridProblem::CoordinateValue(dim.clone()));
            }
        }
        None
    }
}

fn first_repeated<T: Ord + Clone>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    items.into_iter().find(|item| !seen.insert(item.clone()))
}
