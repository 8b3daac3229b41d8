//! Version 3 of `interface.json` as it is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Dim, ElementType, Features, Grid, Interface, ModelOutput, OutputRole, PointFeature, PointModel,
    PointState, PointStores, Predicts, Standardization,
};

/// Version 3: models of points.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionThree {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    step_seconds: i64,
    /// The dimension of the points.
    points: String,
    inputs: PointStores,
    input: String,
    features: Vec<PointFeature>,
    output: String,
    predicts: Predicts,
    states: Vec<PointState>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    coordinates: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, BTreeMap<String, String>>,
}

impl From<VersionThree> for Interface {
    fn from(written: VersionThree) -> Self {
        let states = written.states.iter();
        Self {
            version: written.version,
            model: written.model,
            step_seconds: written.step_seconds,
            standardization: Standardization::None,
            statistics_split: "train".to_owned(),
            state: Features {
                sources: Vec::new(),
                names: states.map(|state| state.name.clone()).collect(),
            },
            input_state: None,
            grid: Grid {
                dims: vec![written.points],
                shape: Vec::new(),
                coordinates: Vec::new(),
            },
            boundary_width: 0,
            inputs: Vec::new(),
            outputs: vec![ModelOutput {
                name: written.output,
                role: OutputRole::NextState,
                dims: vec![Dim::Grid, Dim::Feature],
                element: ElementType::Float32,
                features: Vec::new(),
                missing: BTreeMap::new(),
            }],
            attributes: written.attributes,
            program: None,
            points: Some(PointModel {
                stores: written.inputs,
                input: written.input,
                features: written.features,
                predicts: written.predicts,
                states: written.states,
                coordinates: written.coordinates,
            }),
        }
    }
}

impl VersionThree {
    /// `None` if the interface is not of a model of points alone.
    pub(super) fn of(interface: &Interface) -> Option<Self> {
        let model = interface.points.as_ref()?;
        let ([dim], [output]) = (interface.grid.dims.as_slice(), interface.outputs.as_slice())
        else {
            return None;
        };
        let written = Self {
            version: interface.version,
            model: interface.model.clone(),
            step_seconds: interface.step_seconds,
            points: dim.clone(),
            inputs: model.stores.clone(),
            input: model.input.clone(),
            features: model.features.clone(),
            output: output.name.clone(),
            predicts: model.predicts,
            states: model.states.clone(),
            coordinates: model.coordinates.clone(),
            attributes: interface.attributes.clone(),
        };
        (Interface::from(written.clone()) == *interface).then_some(written)
    }
}
