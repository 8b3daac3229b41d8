use super::*;

fn features(variable: &str, names: &[&str]) -> Features {
    Features {
        sources: vec![Source {
            datastore: "danra".into(),
            variable: variable.into(),
        }],
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn grid() -> Grid {
    Grid {
        dims: vec!["x".into(), "y".into()],
        shape: vec![5, 4],
        coordinates: vec![vec![0.0, 2.5, 5.0, 7.5, 10.0], vec![-1.5, 1e-5, 1.1, 4e300]],
    }
}

/// An interface with all roles.
fn interface() -> Interface {
    let input = |name: &str, role| ModelInput::new(name, role);
    Interface {
        version: INTERFACE_VERSION,
        model: Some("graph_lam".into()),
        step_seconds: 10_800,
        standardization: Standardization::Statistics,
        statistics_split: "train".into(),
        state: features("state", &["t2m", "u10m"]),
        input_state: None,
        points: None,
        program: None,
        grid: grid(),
        boundary_width: 1,
        inputs: vec![
            input("prev_state", InputRole::state(0)),
            input("prev_prev_state", InputRole::state(1)),
            input(
                "forcing",
                InputRole::Forcing {
                    features: features("forcing", &["swavr0m"]),
                    past: 1,
                    future: 2,
                    grid: None,
                },
            ),
            input(
                "static",
                InputRole::Static {
                    features: features("static", &["orography", "lsm"]),
                    grid: Some(grid()),
                },
            ),
        ],
        outputs: vec![ModelOutput::next_state("next_state")],
        attributes: BTreeMap::new(),
    }
}

#[test]
fn json_round_trip_with_all_roles() {
    let interface = interface();
    let text = serde_json::to_string_pretty(&interface).unwrap();
    assert_eq!(serde_json::from_str::<Interface>(&text).unwrap(), interface);
    let written: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(written["inputs"][2]["role"], "forcing");
    assert_eq!(written["inputs"][2]["future"], 2);
    assert_eq!(written["inputs"][1]["steps_back"], 1);
}

#[test]
fn a_sound_interface_passes_and_tells_its_reach() {
    let interface = interface();
    assert_eq!(interface.validate(), Ok(()));
    assert_eq!((interface.init_steps(), interface.future_steps()), (2, 2));
    let global = Interface {
        grid: Grid {
            dims: vec!["grid_index".into()],
            shape: vec![20],
            coordinates: Vec::new(),
        },
        boundary_width: 0,
        ..interface
    };
    assert_eq!(global.validate(), Ok(()));
}

#[test]
fn contradictions_are_refused() {
    type Change = fn(&mut Interface);
    type Check = fn(&InvalidInterface) -> bool;
    use InvalidInterface as E;
    let cases: [(Change, Check); 20] = [
        (|i| i.version = 5, |e| *e == E::Version(5)),
        (|i| i.step_seconds = 0, |e| *e == E::StepSeconds(0)),
        (|i| i.step_seconds = -3600, |e| *e == E::StepSeconds(-3600)),
        (
            |i| i.statistics_split.clear(),
            |e| *e == E::Empty("statistics_split"),
        ),
        (
            |i| i.state.names.clear(),
            |e| *e == E::NoFeatures("state".into()),
        ),
        (
            |i| i.state.sources.clear(),
            |e| *e == E::NoFeatures("state".into()),
        ),
        (
            |i| i.state.names[1] = "t2m".into(),
            |e| matches!(e, E::Twice { name, .. } if name == "t2m"),
        ),
        (
            |i| i.state.sources = vec![i.state.sources[0].clone(); 2],
            |e| matches!(e, E::Twice { name, .. } if name == "danra.state"),
        ),
        (
            |i| i.inputs[1].name = "prev_state".into(),
            |e| *e == E::TensorName("prev_state".into()),
        ),
        (
            |i| i.outputs[0].name = "static".into(),
            |e| *e == E::TensorName("static".into()),
        ),
        (
            |i| i.outputs[0].name.clear(),
            |e| *e == E::Empty("outputs[].name"),
        ),
        (|i| drop(i.inputs.remove(0)), |e| *e == E::NoLastState),
        (
            |i| i.inputs[1].role = InputRole::state(u64::MAX),
            |e| {
                matches!(
                    e,
                    E::Window {
                        steps: u64::MAX,
                        ..
                    }
                )
            },
        ),
        (
            |i| i.grid.shape = vec![20],
            |e| {
                matches!(
                    e,
                    E::Grid {
                        problem: GridProblem::Lengths,
                        ..
                    }
                )
            },
        ),
        (
            |i| i.grid.shape = vec![u64::MAX, 4],
            |e| {
                matches!(
                    e,
                    E::Grid {
                        problem: GridProblem::Points,
                        ..
                    }
                )
            },
        ),
        (
            |i| i.grid.dims[1] = "x".into(),
            |e| {
                matches!(
                    e,
                    E::Grid {
                        problem: GridProblem::Dimension(_),
                        ..
                    }
                )
            },
        ),
        (
            |i| drop(i.grid.coordinates.pop()),
            |e| {
                matches!(
                    e,
                    E::Grid {
                        problem: GridProblem::Coordinates,
                        ..
                    }
                )
            },
        ),
        (
            |i| i.grid.shape = vec![4, 5],
            |e| {
                matches!(
                    e,
                    E::Grid {
                        problem: GridProblem::CoordinateLength {
                            length: 4,
                            coordinates: 5,
                            ..
                        },
                        ..
                    }
                )
            },
        ),
        (
            |i| i.boundary_width = 2,
            |e| {
                matches!(
                    e,
                    E::BoundaryCoversAll {
                        width: 2,
                        length: 4,
                        ..
                    }
                )
            },
        ),
        (
            |i| {
                i.grid = Grid {
                    dims: vec!["grid_index".into()],
                    shape: vec![20],
                    coordinates: Vec::new(),
                }
            },
            |e| *e == E::BoundaryDimensions(1),
        ),
    ];
    for (at, (change, expected)) in cases.into_iter().enumerate() {
        let mut changed = interface();
        change(&mut changed);
        let error = changed.validate().unwrap_err();
        assert!(expected(&error), "case {at}: {error}");
    }
}

#[test]
fn the_grid_and_features_of_every_input_are_checked() {
    let mut changed = interface();
    if let InputRole::Static {
        grid: Some(grid), ..
    } = &mut changed.inputs[3].role
    {
        grid.coordinates[1][0] = f64::NAN;
    }
    let expected = InvalidInterface::Grid {
        of: "input `static`".into(),
        problem: GridProblem::CoordinateValue("y".into()),
    };
    assert_eq!(changed.validate(), Err(expected));

    let mut changed = interface();
    if let InputRole::Forcing { features, .. } = &mut changed.inputs[2].role {
        features.names.push("swavr0m".into());
    }
    let error = changed.validate().unwrap_err().to_string();
    assert!(
        error.starts_with("`swavr0m` stands twice among the features of the input `forcing`"),
        "{error}"
    );
}

#[test]
fn a_role_that_is_not_known_is_refused() {
    let text = serde_json::to_string(&interface()).unwrap();
    for (from, to) in [
        ("\"static\",\"features", "\"boundary\",\"features"),
        ("\"boundary_width\"", "\"boundary\""),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(
            serde_json::from_str::<Interface>(&text.replace(from, to)).is_err(),
            "{from}"
        );
    }
}

#[test]
fn facts_of_an_export_are_read() {
    let facts: ExportFacts = serde_json::from_str(include_str!("../cases/graph_lam.json")).unwrap();
    assert_eq!(facts.model.as_deref(), Some("graph_lam"));
    assert_eq!(facts.stack_dims, ["x", "y"]);
    assert_eq!((facts.grid_shape["x"], facts.grid_shape["y"]), (30, 28));
    assert_eq!(facts.num_grid_nodes, 840);
    assert_eq!((facts.n_boundary_points, facts.step_seconds), (4, 10_800));
    assert_eq!(facts.state_features, ["t2m", "u10m", "v10m"]);
    assert_eq!(facts.forcing_features.len(), 4);
    assert_eq!(
        (facts.num_past_forcing_steps, facts.num_future_forcing_steps),
        (1, 1)
    );
    assert_eq!(facts.state_mean[0], 278.2523193359375);
    assert_eq!(facts.forcing_std[3], 0.02255978062748909);
}
