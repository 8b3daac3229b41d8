//! The forecast of the neural-lam case against neural-lam itself, and wired wrongly on purpose.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod case;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use case::{
    CaseArtifact, Kept, environment, interface, largest_difference, npy, open, predict, source,
    task,
};
use mlwm_runner::{Feed, Producer, RunnerError, Sink, StepModel, roll_out};
use mlwm_spec::Interface;
use mlwm_spec::interface::{Dim, InputRole, ModelInput};

fn unchanged(_: &str, values: &[f32]) -> Vec<f32> {
    values.to_vec()
}

#[test]
fn prepared_arrays_equal_those_of_neural_lam() {
    let folder = CaseArtifact::new();
    let artifact = folder.artifact();
    let task = task(&environment(&source(), std::path::Path::new("unused")));
    let forecast = open(&artifact, &task, 6);
    let mut producer = Producer::new(&forecast);
    let start = producer.start().unwrap();
    assert_eq!(start.states.concat(), npy("shared/init_std"));
    assert!(start.statics.is_empty());
    let targets = npy("shared/target_std");
    let mut forcing = Vec::new();
    for target in targets.chunks_exact(840 * 3) {
        let step = producer.step().unwrap();
        forcing.extend_from_slice(&step.forcings[0]);
        let expected: Vec<f32> = forecast
            .boundary()
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
    swapped.inputs[0].role = InputRole::state(1);
    swapped.inputs[1].role = InputRole::state(0);
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
    fn step(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<Vec<f32>>, RunnerError> {
        self.steps += 1;
        let mut state = feeds[0].values.to_vec();
        if self.steps == self.nan_at {
            // A point in the middle, which the boundary does not overwrite: its second feature.
            state[(15 * 28 + 14) * 3 + 1] = f32::NAN;
        }
        Ok(vec![state])
    }
}

#[test]
fn a_prediction_that_is_not_finite_ends_the_forecast() {
    let folder = CaseArtifact::new();
    let artifact = folder.artifact();
    let task = task(&environment(&source(), std::path::Path::new("unused")));
    let forecast = open(&artifact, &task, 6);
    let load = || {
        Ok(vec![Failing {
            steps: 0,
            nan_at: 3,
        }])
    };
    let error = roll_out(&forecast, load, &mut Kept::default()).unwrap_err();
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
    let forecast = open(&artifact, &task, 6);
    let load = || Err::<Vec<Failing>, _>(RunnerError::Library("no library".into()));
    let error = roll_out(&forecast, load, &mut Kept::default()).unwrap_err();
    assert_eq!(error.to_string(), "no library");
}

/// Predicts the last state, and keeps what it was fed with.
#[derive(Default)]
struct Watching(Vec<(String, Vec<usize>, Vec<f32>)>);

impl StepModel for Watching {
    fn step(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<Vec<f32>>, RunnerError> {
        let fed = feeds.iter().map(|feed| {
            (
                feed.name.to_owned(),
                feed.shape.to_vec(),
                feed.values.to_vec(),
            )
        });
        self.0.extend(fed);
        // The output is `[feature, grid]` here: zeros are the same either way.
        Ok(vec![vec![0.0; 840 * 3]])
    }
}

#[test]
fn tensors_of_other_dimensions_hold_what_those_of_version_1_hold() {
    let mut other = interface();
    other.version = 2;
    let before_and_now = InputRole::State {
        steps_back: vec![1, 0],
        features: vec!["v10m".into(), "t2m".into()],
    };
    let forcing = other.inputs.remove(2);
    other.inputs = vec![
        ModelInput {
            dims: vec![Dim::Time, Dim::Feature, Dim::Grid],
            ..ModelInput::new("x", before_and_now)
        },
        ModelInput {
            dims: vec![Dim::Grid, Dim::Time, Dim::Feature],
            ..forcing
        },
    ];
    other.outputs[0].dims = vec![Dim::Feature, Dim::Grid];
    let fed = |interface: &Interface| {
        let folder = CaseArtifact::with(interface, |config| config);
        let artifact = folder.artifact();
        let task = task(&environment(&source(), std::path::Path::new("unused")));
        let forecast = open(&artifact, &task, 2);
        let mut model = Watching::default();
        roll_out(&forecast, || Ok(vec![&mut model]), &mut Kept::default()).unwrap();
        model.0
    };
    let (plain, other) = (fed(&interface()), fed(&other));
    assert_eq!((plain.len(), other.len()), (6, 4));
    for step in 0..2 {
        let [now, before, window] = &plain[step * 3..step * 3 + 3] else {
            panic!("three inputs");
        };
        let [x, forcing] = &other[step * 2..step * 2 + 2] else {
            panic!("two inputs");
        };
        assert_eq!(x.1, [2, 2, 840]);
        assert_eq!(forcing.1, [840, 3, 4]);
        for point in 0..840 {
            for (time, state) in [before, now].into_iter().enumerate() {
                for (place, feature) in [2, 0].into_iter().enumerate() {
                    let found = x.2[(time * 2 + place) * 840 + point];
                    assert_eq!(found, state.2[point * 3 + feature]);
                }
            }
            for feature in 0..4 {
                for time in 0..3 {
                    let found = forcing.2[(point * 3 + time) * 4 + feature];
                    assert_eq!(found, window.2[point * 12 + feature * 3 + time]);
                }
            }
        }
    }
}

/// A sink that waits for something that never comes, such as room on the disk.
struct Waiting(Arc<AtomicBool>);

impl Sink for Waiting {
    fn take(&mut self, _: u64, _: &[f32]) -> Result<(), RunnerError> {
        let begin = Instant::now();
        while !self.0.load(Ordering::Relaxed) {
            assert!(
                begin.elapsed() < Duration::from_secs(120),
                "it waits for ever"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn abandoned(&self) -> Option<Arc<AtomicBool>> {
        Some(Arc::clone(&self.0))
    }
}

/// A model that fails at its second step.
struct Breaking(bool);

impl StepModel for Breaking {
    fn step(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<Vec<f32>>, RunnerError> {
        match std::mem::replace(&mut self.0, true) {
            false => Ok(vec![feeds[0].values.to_vec()]),
            true => Err(RunnerError::Artifact("the model is broken".into())),
        }
    }
}

#[test]
fn a_model_that_fails_is_reported_while_a_sink_waits() {
    let folder = CaseArtifact::new();
    let artifact = folder.artifact();
    let task = task(&environment(&source(), std::path::Path::new("unused")));
    let forecast = open(&artifact, &task, 6);
    let mut sink = Waiting(Arc::new(AtomicBool::new(false)));
    let error = roll_out(&forecast, || Ok(vec![Breaking(false)]), &mut sink).unwrap_err();
    assert_eq!(error.to_string(), "the model is broken");
}
