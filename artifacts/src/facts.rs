//! Interface files: those of mlwm, and the export facts that one can be made from.

use std::collections::BTreeMap;

use mlwm_spec::Interface;
use mlwm_spec::interface::{
    ExportFacts, Features, Grid, INTERFACE_VERSION, InputRole, ModelInput, ModelOutput,
    PROGRAM_VERSION, Source, Standardization,
};
use serde_json::Value;

use crate::datastores::Datastore;
use crate::error::Error;
use crate::onnx::OnnxSignature;
use crate::statistics::{grid_coordinates, grid_shape};

/// The split whose statistics standardize in neural-lam.
pub(crate) const TRAIN: &str = "train";

/// A file given as interface.
pub(crate) enum Given {
    Interface(Box<Interface>),
    Facts(Box<ExportFacts>),
}

/// Tells the two kinds of interface files apart and reads either.
pub(crate) fn parse_given(text: &str, source_name: &str) -> Result<Given, Error> {
    let fault = |why: String| Error::InterfaceFile {
        path: source_name.to_owned(),
        why,
    };
    let value: Value = serde_json::from_str(text).map_err(|error| fault(error.to_string()))?;
    if value.get("version").is_some() {
        return parse_interface(text, source_name)
            .map(|interface| Given::Interface(Box::new(interface)));
    }
    if value.get("num_grid_nodes").is_none() || value.get("state_features").is_none() {
        return Err(fault("it is neither of the known kinds".to_owned()));
    }
    let facts = serde_json::from_str(text).map_err(|error| fault(error.to_string()))?;
    Ok(Given::Facts(Box::new(facts)))
}

/// Reads an interface of a version that is known.
pub(crate) fn parse_interface(text: &str, source_name: &str) -> Result<Interface, Error> {
    let fault = |why: String| Error::InterfaceFile {
        path: source_name.to_owned(),
        why,
    };
    let value: Value = serde_json::from_str(text).map_err(|error| fault(error.to_string()))?;
    let version = value.get("version");
    let known = u64::from(INTERFACE_VERSION)..=u64::from(PROGRAM_VERSION);
    if version
        .and_then(Value::as_u64)
        .is_none_or(|version| !known.contains(&version))
    {
        let version = version.unwrap_or(&Value::Null);
        return Err(fault(format!("its version is {version}")));
    }
    let interface: Interface =
        serde_json::from_str(text).map_err(|error| fault(error.to_string()))?;
    if interface.program.is_some() {
        // No graph is compared with it, and no runner looks at it again.
        let checked = interface.validate();
        checked.map_err(|error| fault(error.to_string()))?;
    }
    Ok(interface)
}

/// The interface of a neural-lam step model exported with inputs `prev_state`, `prev_prev_state`
/// and `forcing` and output `new_state` (an input that the graph does not have is left out). Grid
/// shape and coordinates come from the training dataset; means and standard deviations in the facts must be
/// those of the stored statistics.
pub(crate) fn interface_from_facts(
    facts: &ExportFacts,
    datastores: &[Datastore],
    signature: &OnnxSignature,
) -> Result<Interface, Error> {
    let state = features("state", &facts.state_features, datastores)?;
    let forcing = features("forcing", &facts.forcing_features, datastores)?;
    features("static", &facts.static_features, datastores)?;
    for (variable, operation, exported) in [
        ("state", "mean", &facts.state_mean),
        ("state", "std", &facts.state_std),
        ("forcing", "mean", &facts.forcing_mean),
        ("forcing", "std", &facts.forcing_std),
    ] {
        check_exported(variable, operation, exported, datastores)?;
    }
    let grid = grid(facts, &state, datastores)?;
    let mut inputs = Vec::new();
    for tensor in &signature.inputs {
        let role = match tensor.name.as_str() {
            "prev_state" => InputRole::state(0),
            "prev_prev_state" => InputRole::state(1),
            "forcing" => InputRole::Forcing {
                features: forcing.clone(),
                past: facts.num_past_forcing_steps,
                future: facts.num_future_forcing_steps,
                grid: None,
            },
            other => {
                return Err(Error::Disagreement(format!(
                    "the ONNX input `{other}` is not one of `prev_state`, `prev_prev_state` and `forcing`, which export facts stand for: write an interface with `version: 1` instead"
                )));
            }
        };
        inputs.push(ModelInput::new(&tensor.name, role));
    }
    Ok(Interface {
        version: INTERFACE_VERSION,
        model: facts.model.clone(),
        step_seconds: facts.step_seconds,
        standardization: Standardization::Statistics,
        statistics_split: TRAIN.to_owned(),
        state,
        input_state: None,
        points: None,
        program: None,
        grid,
        boundary_width: facts.n_boundary_points,
        inputs,
        outputs: vec![ModelOutput::next_state("new_state")],
        attributes: BTreeMap::new(),
    })
}

/// The features of one variable in all datastores that have it, which must be those exported.
fn features(
    variable: &str,
    exported: &[String],
    datastores: &[Datastore],
) -> Result<Features, Error> {
    let mut sources = Vec::new();
    let mut names = Vec::new();
    for datastore in datastores {
        if let Some(own) = datastore.statistics.features(variable)? {
            names.extend(own);
            sources.push(Source {
                datastore: datastore.name.clone(),
                variable: variable.to_owned(),
            });
        }
    }
    // Facts without any need not say so.
    if names != exported && !(exported.is_empty() && variable != "state") {
        return Err(Error::Disagreement(format!(
            "the {variable} features of the interface are [{}], those of the training dataset are [{}]: names and order must be the same",
            exported.join(", "),
            names.join(", ")
        )));
    }
    Ok(Features { sources, names })
}

/// Means and standard deviations in the facts are float32 of the stored ones.
fn check_exported(
    variable: &str,
    operation: &str,
    exported: &[f64],
    datastores: &[Datastore],
) -> Result<(), Error> {
    if exported.is_empty() {
        return Ok(());
    }
    let mut stored = Vec::new();
    for datastore in datastores {
        if datastore.statistics.features(variable)?.is_some() {
            stored.extend(datastore.statistics.get(variable, TRAIN, operation)?);
        }
    }
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-6 * a.abs().max(b.abs());
    if exported.len() == stored.len() && exported.iter().zip(&stored).all(close) {
        return Ok(());
    }
    Err(Error::Disagreement(format!(
        "`{variable}_{operation}` of the interface is {exported:?}, the training dataset has {stored:?}: the ONNX file was exported from another training run"
    )))
}

fn grid(facts: &ExportFacts, state: &Features, datastores: &[Datastore]) -> Result<Grid, Error> {
    let of_state = state.sources.first();
    let datastore = of_state.and_then(|s| datastores.iter().find(|d| d.name == s.datastore));
    let stored = match datastore {
        Some(datastore) => grid_shape(&datastore.name, &datastore.training, &facts.stack_dims)?,
        None => None,
    };
    let shape = match stored {
        Some(shape) => same_lengths(facts, shape)?,
        None => exported_shape(facts)?,
    };
    let mut grid = Grid {
        dims: facts.stack_dims.clone(),
        shape,
        coordinates: Vec::new(),
    };
    if grid.points() != facts.num_grid_nodes {
        return Err(Error::Disagreement(format!(
            "the grid {:?} of the interface has {} points, `num_grid_nodes` is {}",
            grid.shape,
            grid.points(),
            facts.num_grid_nodes
        )));
    }
    if let Some(datastore) = datastore {
        grid.coordinates = grid_coordinates(
            &datastore.name,
            &datastore.training,
            &grid.dims,
            &grid.shape,
        )?;
    }
    Ok(grid)
}

/// The shape of the training dataset, if the facts have the same lengths in any order: neural-lam
/// (0.7) calls the length of the first stacked dimension `x`, whatever that dimension is called.
fn same_lengths(facts: &ExportFacts, stored: Vec<u64>) -> Result<Vec<u64>, Error> {
    let sorted = |mut lengths: Vec<u64>| {
        lengths.sort_unstable();
        lengths
    };
    let exported = facts.grid_shape.values().copied().collect();
    let as_named = exported_shape(facts).is_ok_and(|shape| shape == stored);
    if as_named || sorted(exported) == sorted(stored.clone()) {
        return Ok(stored);
    }
    let written = |lengths: &mut dyn Iterator<Item = (&String, &u64)>| {
        let each: Vec<String> = lengths.map(|(dim, n)| format!("{dim}: {n}")).collect();
        each.join(", ")
    };
    Err(Error::Disagreement(format!(
        "`grid_shape` of the interface is {{{}}}, the training dataset has {{{}}}: the ONNX file was exported from another training run",
        written(&mut facts.grid_shape.iter()),
        written(&mut facts.stack_dims.iter().zip(&stored))
    )))
}

/// The lengths that the facts give to the stacked dimensions.
fn exported_shape(facts: &ExportFacts) -> Result<Vec<u64>, Error> {
    let length = |dim: &String| {
        facts.grid_shape.get(dim).copied().ok_or_else(|| {
            Error::Disagreement(format!(
                "`grid_shape` of the interface has no length for the stacked dimension `{dim}`"
            ))
        })
    };
    facts.stack_dims.iter().map(length).collect()
}
