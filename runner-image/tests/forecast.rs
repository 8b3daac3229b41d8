//! The forecast of the neural-lam case against neural-lam itself, and wired wrongly on purpose.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod case;

use case::{
    CaseArtifact, Kept, environment, interface, largest_difference, npy, open, predict, source,
    task,
};
use mlwm_runner::{Feed, Producer, RunnerError, StepModel, roll_out};
use mlwm_spec::interface::InputRole;

fn unchanged(_: &str, values: &[f32]) -> Vec<f32> {
    values.to_vec()
}

#[test]
fn prepared_arrays_equal_those_of_neural_lam() {
    let folder = CaseArtifact::new();
    let artifact = folder.artifact();
    let task = task(&environment(&source(), std::path::Path::new("unused")));
    let inputs = open(&artifact, &task, 6);
    let mut producer = Producer::new(&inputs);
    let start = producer.start().unwrap();
    assert_eq!(start.states.concat(), npy("shared/init_std"));
    assert!(start.statics.is_empty());
    let targets = npy("shared/target_std");
    let mut forcing = Vec::new();
    for target in targets.chunks_exact(840 * 3) {
        let step = producer.step().unwrap();
        forcing.extend_from_slice(&step.forcings[0]);
        let expected: Vec<f32> = inputs
            .boundary
            .iter()
            .flat_map(|p| target[p * 3..p * 3 + 3].to_vec())
            .collect();
        assert_eq!(step.boundary, expected);
    }
    assert_eq!(forcing, npy("shared/forcing_std"));
}

#[test]
fn forecast_equals_that_of_neural_lam() {
    let predicted = predict(&CaseArtifact::new(), unchanged);
    let difference = largest_difference(&predicted, &npy("graph_lam/pred_std"));
    println!("standardized forecast differs by at most {difference:e}");
    assert!(difference <= 1e-5, "{difference}");
}

/// How far a wrong forecast is from the right one at the first and at the last step.
fn error_of(predicted: &[f32]) -> (f32, f32) {
    let expected = npy("graph_lam/pred_std");
    let step = 840 * 3;
    let at = |i: usize| {
        largest_difference(
            &predicted[i * step..(i + 1) * step],
            &expected[i * step..(i + 1) * step],
        )
    };
    (at(0), at(5))
}

#[track_caller]
fn assert_wrong(what: &str, predicted: &[f32]) {
    let (first, last) = error_of(predicted);
    println!("{what}: standardized error {first:.2} at step 1, {last:.2} at step 6");
    assert!(
        first > 0.05 && last > 0.05,
        "{what} is not noticed: {first}, {last}"
    );
}

#[test]
fn swapped_states_are_noticed() {
    let mut swapped = interface();
    swapped.inputs[0].role = InputRole::State { steps_back: 1 };
    swapped.inputs[1].role = InputRole::State { steps_back: 0 };
    assert_wrong(
        "swapped states",
        &predict(&CaseArtifact::with(&swapped, |c| c), unchanged),
    );
}

#[test]
fn a_window_major_window_is_noticed() {
    fn window_major(name: &str, values: &[f32]) -> Vec<f32> {
        match name {
            "forcing" => values
                .chunks_exact(12)
                .flat_map(|row| {
                    (0..12)
                        .map(|i| row[i % 4 * 3 + i / 4])
                        .collect::<Vec<f32>>()
                })
                .collect(),
            _ => values.to_vec(),
        }
    }
    assert_wrong(
        "window-major forcing",
        &predict(&CaseArtifact::new(), window_major),
    );
}

#[test]
fn late_forcing_is_noticed() {
    let mut late = interface();
    if let InputRole::Forcing { past, future, .. } = &mut late.inputs[2].role {
        (*past, *future) = (0, 2);
    }
    assert_wrong(
        "forcing a step late",
        &predict(&CaseArtifact::with(&late, |c| c), unchanged),
    );
}

#[test]
fn a_boundary_that_is_not_overwritten_is_noticed() {
    let mut free = interface();
    free.boundary_width = 0;
    assert_wrong(
        "no boundary overwrite",
        &predict(&CaseArtifact::with(&free, |c| c), unchanged),
    );
}

#[test]
fn a_narrower_boundary_is_noticed() {
    let mut narrow = interface();
    narrow.boundary_width = 3;
    assert_wrong(
        "boundary of 3 points",
        &predict(&CaseArtifact::with(&narrow, |c| c), unchanged),
    );
}

#[test]
fn another_stacking_is_noticed() {
    let mut transposed = interface();
    transposed.grid.dims.reverse();
    transposed.grid.shape.reverse();
    let artifact = CaseArtifact::with(&transposed, |config| {
        config.replace(
            "method: stack\n        dims: [x, y]",
            "method: stack\n        dims: [y, x]",
        )
    });
    assert_wrong("(y, x) stacking", &predict(&artifact, unchanged));
}

/// A model that predicts NaN at a step, and counts its steps.
struct Failing {
    steps: usize,
    nan_at: usize,
}

impl StepModel for Failing {
    fn step(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<f32>, RunnerError> {
        self.steps += 1;
        let mut state = feeds[0].values.to_vec();
        if self.steps == self.nan_at {
            // A point in the middle, which the boundary does not overwrite: its second feature.
            state[(15 * 28 + 14) * 3 + 1] = f32::NAN;
        }
        Ok(state)
    }
}

#[test]
fn a_prediction_that_is_not_finite_ends_the_forecast() {
    let folder = CaseArtifact::new();
    let artifact = folder.artifact();
    let task = task(&environment(&source(), std::path::Path::new("unused")));
    let inputs = open(&artifact, &task, 6);
    let load = || {
        Ok(Failing {
            steps: 0,
            nan_at: 3,
        })
    };
    let error = roll_out(&artifact.interface, &inputs, load, &mut Kept::default()).unwrap_err();
    assert!(
        matches!(&error, RunnerError::NotFinite { step: 3, count: 1, feature, .. } if feature == "u10m"),
        "{error}"
    );
    assert!(error.to_string().contains("2022-04-07T12:00Z"), "{error}");
}

#[test]
fn an_error_while_loading_ends_the_forecast() {
    let folder = CaseArtifact::new();
    let artifact = folder.artifact();
    let task = task(&environment(&source(), std::path::Path::new("unused")));
    let inputs = open(&artifact, &task, 6);
    let load = || Err::<Failing, _>(RunnerError::Library("no library".into()));
    let error = roll_out(&artifact.interface, &inputs, load, &mut Kept::default()).unwrap_err();
    assert_eq!(error.to_string(), "no library");
}
