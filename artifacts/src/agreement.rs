//! Do the parts of an artifact fit together? A model that is fed features in another order, or
//! with another window, gives a forecast that looks right and is wrong.

use mlwm_spec::interface::{Features, Grid, InputRole, PointModel, Standardization};
use mlwm_spec::{Interface, Period};

use crate::datastores::Datastore;
use crate::error::Error;
use crate::facts::TRAIN;
use crate::features::{Levels, are_called, configured_features};
use crate::onnx::{Dimension, FLOAT, GraphTensor, OnnxSignature};
use crate::statistics::grid_coordinates;
use crate::training::TrainingArguments;

fn disagreement<T>(message: String) -> Result<T, Error> {
    Err(Error::Disagreement(message))
}

/// Checks that the features of each training dataset are those that its configuration makes, as
/// far as the configuration alone tells.
pub(crate) fn check_datastores(datastores: &[Datastore]) -> Result<(), Error> {
    for datastore in datastores {
        for variable in datastore.config.output.variables.keys() {
            let Some(stored) = datastore.statistics.features(variable)? else {
                continue;
            };
            let configured =
                |levels: Levels| configured_features(&datastore.config, variable, levels);
            let (Some(expected), Some(aligned)) =
                (configured(Levels::OfEach), configured(Levels::OfFirst))
            else {
                continue;
            };
            if !are_called(&expected, &stored) && !are_called(&aligned, &stored) {
                let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
                return disagreement(format!(
                    "the {variable} features in the training dataset {} are [{}], its configuration makes [{}]: make the dataset again, or take the configuration that it was made with",
                    datastore.training.display(),
                    stored.join(", "),
                    expected.join(", ")
                ));
            }
        }
    }
    Ok(())
}

/// Checks that the statistics that a neural-lam model is run with are there: mean and standard
/// deviation of every state, and of its differences.
pub(crate) fn check_state_statistics(datastores: &[Datastore]) -> Result<(), Error> {
    let mut predicted = 0;
    for datastore in datastores
        .iter()
        .filter(|datastore| datastore.has_variable("state"))
    {
        for operation in ["mean", "std", "diff_mean", "diff_std"] {
            datastore.statistics.get("state", TRAIN, operation)?;
        }
        predicted += 1;
    }
    if predicted == 0 {
        return disagreement(
            "no datastore has a `state`: there is nothing that the model could predict".to_owned(),
        );
    }
    Ok(())
}

/// Checks an interface against the datastores and the ONNX graph.
pub(crate) fn check_interface(
    interface: &Interface,
    datastores: &[Datastore],
    signature: &OnnxSignature,
) -> Result<(), Error> {
    if interface.step_seconds <= 0 {
        return disagreement(format!(
            "the interface has a step of {} s: it must be positive",
            interface.step_seconds
        ));
    }
    if let Some(model) = &interface.points {
        return check_points(interface, model, datastores, signature);
    }
    let split = match interface.standardization {
        Standardization::Statistics => Some(interface.statistics_split.as_str()),
        Standardization::None => None,
    };
    // The fields of an input state are in no datastore.
    if interface.input_state.is_none() {
        if datastores.is_empty() {
            return disagreement(
                "the interface has no `input_state`, so that the model is fed from datastores, and there are none: give the neural-lam configuration that has them with --nl-config".to_owned(),
            );
        }
        check_features("state", &interface.state, split, datastores)?;
        check_grid(&interface.grid, &interface.state, datastores)?;
        for input in &interface.inputs {
            if let Some(features) = input.role.features() {
                check_features(&input.name, features, split, datastores)?;
            }
        }
    }
    check_boundary(interface)?;
    check_step(interface, datastores)?;
    if !interface
        .inputs
        .iter()
        .any(|i| matches!(i.role, InputRole::State { .. }))
    {
        return disagreement("the interface has no input with the role `state`".to_owned());
    }
    for input in &interface.inputs {
        let shape = known(interface.input_shape(input));
        check_tensor("input", &input.name, &signature.inputs, &shape)?;
    }
    let names = interface.inputs.iter().map(|input| input.name.as_str());
    check_unfed(&names.collect::<Vec<_>>(), signature)?;
    for output in &interface.outputs {
        let shape = known(interface.output_shape(output));
        check_tensor("output", &output.name, &signature.outputs, &shape)?;
    }
    Ok(())
}

/// Lengths that are all known.
fn known(shape: Vec<u64>) -> Vec<Option<u64>> {
    shape.into_iter().map(Some).collect()
}

/// The graph has no inputs but those that are fed.
fn check_unfed(fed: &[&str], signature: &OnnxSignature) -> Result<(), Error> {
    let mut inputs = signature.inputs.iter();
    match inputs.find(|tensor| !fed.contains(&tensor.name.as_str())) {
        None => Ok(()),
        Some(unfed) => disagreement(format!(
            "the ONNX model has the input `{}`, of which the interface says nothing",
            unfed.name
        )),
    }
}

/// A model of points has no datastores, and its graph takes any number of points.
fn check_points(
    interface: &Interface,
    model: &PointModel,
    datastores: &[Datastore],
    signature: &OnnxSignature,
) -> Result<(), Error> {
    if let Some(datastore) = datastores.first() {
        return disagreement(format!(
            "the interface is of a model of points, which reads no datastores, and the neural-lam configuration has `{}`: leave --nl-config out",
            datastore.name
        ));
    }
    interface
        .validate()
        .map_err(|error| Error::Disagreement(error.to_string()))?;
    let shape = |columns: usize| [None, Some(columns as u64)];
    let features = shape(model.features.len());
    check_tensor("input", &model.input, &signature.inputs, &features)?;
    check_unfed(&[model.input.as_str()], signature)?;
    for output in &interface.outputs {
        let states = shape(model.states.len());
        check_tensor("output", &output.name, &signature.outputs, &states)?;
    }
    Ok(())
}

/// A model without ONNX that says what it starts from starts from no datastores.
pub(crate) fn check_no_datastores(datastores: &[Datastore]) -> Result<(), Error> {
    match datastores.first() {
        None => Ok(()),
        Some(datastore) => disagreement(format!(
            "the interface is of a model that starts from an input state, which reads no datastores, and the neural-lam configuration has `{}`: leave --nl-config or the interface out",
            datastore.name
        )),
    }
}

/// Every source is there, its features are those named, and it can be standardized.
fn check_features(
    what: &str,
    features: &Features,
    split: Option<&str>,
    datastores: &[Datastore],
) -> Result<(), Error> {
    let mut names = Vec::new();
    for source in &features.sources {
        let datastore = datastores
            .iter()
            .find(|datastore| datastore.name == source.datastore)
            .ok_or_else(|| {
                Error::Disagreement(format!(
                    "`{what}` of the interface comes from datastore `{}`, which the neural-lam configuration does not have",
                    source.datastore
                ))
            })?;
        if let Some(split) = split {
            for operation in ["mean", "std"] {
                datastore
                    .statistics
                    .get(&source.variable, split, operation)?;
            }
        }
        names.extend(
            datastore
                .statistics
                .features(&source.variable)?
                .unwrap_or_default(),
        );
    }
    if names != features.names || names.is_empty() {
        return disagreement(format!(
            "the features of `{what}` in the interface are [{}], those of the training dataset are [{}]: names and order must be the same",
            features.names.join(", "),
            names.join(", ")
        ));
    }
    Ok(())
}

/// The grid is stacked as the datastores of the state stack it, over the same coordinates.
fn check_grid(grid: &Grid, state: &Features, datastores: &[Datastore]) -> Result<(), Error> {
    let whole = !grid.dims.is_empty() && grid.dims.len() == grid.shape.len();
    let known = grid.coordinates.is_empty()
        || grid
            .coordinates
            .iter()
            .map(|c| c.len() as u64)
            .eq(grid.shape.iter().copied());
    if !whole || !known {
        return disagreement(format!(
            "the grid of the interface has dimensions {:?}, shape {:?} and {} coordinates: each dimension needs one length, and as many coordinate values",
            grid.dims,
            grid.shape,
            grid.coordinates.len()
        ));
    }
    for source in &state.sources {
        let Some(datastore) = datastores.iter().find(|d| d.name == source.datastore) else {
            continue;
        };
        let stacked = datastore
            .config
            .inputs
            .values()
            .filter(|input| input.target_output_variable == source.variable)
            .filter_map(|input| input.dim_mapping.get("grid_index")?.dims.as_ref());
        for dims in stacked {
            if *dims != grid.dims {
                return disagreement(format!(
                    "datastore `{}` stacks its grid in the order {}, the interface says {}",
                    datastore.name,
                    dims.join(", "),
                    grid.dims.join(", ")
                ));
            }
        }
        let stored = grid_coordinates(
            &datastore.name,
            &datastore.training,
            &grid.dims,
            &grid.shape,
        )?;
        if !stored.is_empty() && !grid.coordinates.is_empty() && stored != grid.coordinates {
            return disagreement(format!(
                "the grid coordinates of the interface are not those of the training dataset of datastore `{}`",
                datastore.name
            ));
        }
    }
    Ok(())
}

/// A boundary that covers the whole grid would make the forecast a copy of its input.
fn check_boundary(interface: &Interface) -> Result<(), Error> {
    let width = interface.boundary_width;
    let smallest = interface.grid.shape.iter().min().copied().unwrap_or(0);
    if width > 0 && width.saturating_mul(2) >= smallest {
        return disagreement(format!(
            "a boundary of {width} points on each side covers the whole grid {:?}: the forecast would be a copy of its input",
            interface.grid.shape
        ));
    }
    Ok(())
}

/// The step is that of the training dataset, where its configuration says which that is.
fn check_step(interface: &Interface, datastores: &[Datastore]) -> Result<(), Error> {
    for source in &interface.state.sources {
        let configured = datastores
            .iter()
            .find(|datastore| datastore.name == source.datastore)
            .and_then(|datastore| datastore.config.output.coord_ranges.as_ref()?.get("time"))
            .and_then(|range| range.step.as_ref()?.as_str()?.parse::<Period>().ok());
        if let Some(step) = configured
            && step.seconds() != interface.step_seconds
        {
            return disagreement(format!(
                "datastore `{}` has a time step of {step}, the interface says {} s",
                source.datastore, interface.step_seconds
            ));
        }
    }
    Ok(())
}

/// The ONNX graph has this tensor, float32 of the shape that the interface makes; a length that it does
/// not know must be open.
fn check_tensor(
    kind: &str,
    name: &str,
    tensors: &[GraphTensor],
    expected: &[Option<u64>],
) -> Result<(), Error> {
    let Some(tensor) = tensors.iter().find(|tensor| tensor.name == name) else {
        let names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        return disagreement(format!(
            "the interface has the {kind} `{name}`, the ONNX model has {}",
            names.join(", ")
        ));
    };
    if tensor.element_type != FLOAT {
        return disagreement(format!(
            "the {kind} `{name}` of the ONNX model has element type {}, it must be float32 (1): export the model in 32 bit",
            tensor.element_type
        ));
    }
    let fits = |(dimension, expected): (&Dimension, &Option<u64>)| match dimension {
        Dimension::Fixed(length) => {
            expected.is_some_and(|expected| u64::try_from(*length) == Ok(expected))
        }
        Dimension::Symbolic(_) => true,
    };
    let expected_text = shape_text(expected);
    let Some(dimensions) = &tensor.dimensions else {
        return disagreement(format!(
            "the {kind} `{name}` of the ONNX model has no shape, the interface makes it {expected_text}: export the model again with the shapes of its inputs and outputs"
        ));
    };
    if dimensions.len() == expected.len() && dimensions.iter().zip(expected).all(fits) {
        return Ok(());
    }
    let found: Vec<String> = dimensions.iter().map(ToString::to_string).collect();
    disagreement(format!(
        "the {kind} `{name}` of the ONNX model has shape [{}], the interface makes it {expected_text}",
        found.join(", ")
    ))
}

/// A shape as messages have it.
fn shape_text(shape: &[Option<u64>]) -> String {
    let length = |length: &Option<u64>| match length {
        Some(length) => length.to_string(),
        None => "any number of points".to_owned(),
    };
    let lengths: Vec<String> = shape.iter().map(length).collect();
    format!("[{}]", lengths.join(", "))
}

/// The window of the forcing is the one that the model was trained with.
pub(crate) fn check_training_arguments(
    interface: &Interface,
    arguments: &TrainingArguments,
) -> Result<(), Error> {
    for (name, of_interface) in [
        ("num_past_forcing_steps", 0),
        ("num_future_forcing_steps", 1),
    ] {
        let Some(trained) = arguments.count(name)? else {
            continue;
        };
        for input in &interface.inputs {
            // A forcing on a grid of its own has a window of its own.
            let InputRole::Forcing {
                past,
                future,
                grid: None,
                ..
            } = &input.role
            else {
                continue;
            };
            let window = [*past, *future][of_interface];
            if window != trained {
                return disagreement(format!(
                    "the model was trained with `{name}` {trained}, the interface says {window} for the input `{}`",
                    input.name
                ));
            }
        }
    }
    Ok(())
}
