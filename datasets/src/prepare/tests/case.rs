//! The neural-lam case: every prepared array equals the oracle exactly.

use super::{Case, case_folder};
use crate::prepare::{ForecastInputs, check};

/// A float32 array of a `.npy` file in C order, with its shape.
fn npy(name: &str) -> (Vec<usize>, Vec<f32>) {
    let path = case_folder()
        .join("oracle/shared")
        .join(format!("{name}.npy"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(
        header.contains("'<f4'") && header.contains("'fortran_order': False"),
        "{header}"
    );
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let shape = shape
        .split(',')
        .filter_map(|n| n.trim().parse().ok())
        .collect();
    let values = bytes[10 + length..].chunks_exact(4);
    (
        shape,
        values
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
    )
}

#[test]
fn states_equal_the_oracle() {
    let case = Case::new(None);
    let inputs = ForecastInputs::open(&case.request(6)).unwrap();
    assert_eq!(inputs.warnings, [] as [&str; 0]);
    let mut reader = inputs.state.reader(&inputs.state_times());
    let (shape, expected) = npy("init_raw");
    assert_eq!(shape, [2, 840, 3]);
    let known = inputs.known_times();
    assert_eq!(known.len(), 2);
    let actual: Vec<f32> = known
        .iter()
        .flat_map(|time| reader.read(Some(*time)).unwrap())
        .collect();
    assert_eq!(actual, expected);

    let (shape, expected) = npy("target_raw");
    assert_eq!(shape, [6, 840, 3]);
    let predicted = inputs.schedule.predicted();
    let actual: Vec<f32> = predicted
        .iter()
        .flat_map(|time| reader.read(Some(*time)).unwrap())
        .collect();
    assert_eq!(actual, expected);
}

#[test]
fn forcing_equals_the_oracle() {
    let case = Case::new(None);
    let inputs = ForecastInputs::open(&case.request(6)).unwrap();
    let forcing = &inputs.forcings[0];
    let times = inputs.forcing_times(forcing);
    let mut reader = forcing.features.reader(&times);
    let steps: Vec<Vec<f32>> = times
        .iter()
        .map(|t| reader.read(Some(*t)).unwrap())
        .collect();
    let (shape, expected) = npy("forcing_raw");
    assert_eq!(shape, [6, 840, 12]);
    let window = forcing.past + forcing.future + 1;
    let mut actual = Vec::new();
    for step in 0..6 {
        for point in 0..840 {
            for feature in 0..4 {
                for lag in 0..window as usize {
                    actual.push(steps[step + lag][point * 4 + feature]);
                }
            }
        }
    }
    assert_eq!(actual, expected);
}

#[test]
fn static_features_and_boundary_equal_the_oracle() {
    let case = Case::new(None);
    let inputs = ForecastInputs::open(&case.request(6)).unwrap();
    let (_, features) = &inputs.statics[0];
    assert!(!features.is_double());
    let raw = features.reader(&[]).read(None).unwrap();
    let (mean, std) = (features.mean(), features.std());
    let standardized = raw
        .iter()
        .enumerate()
        .map(|(at, value)| (value - mean[at % 2] as f32) / (std[at % 2] as f32).max(f32::EPSILON));
    assert_eq!(standardized.collect::<Vec<f32>>(), npy("static_std").1);

    let mut mask = vec![0.0_f32; 840];
    inputs.boundary.iter().for_each(|&point| mask[point] = 1.0);
    assert_eq!(mask, npy("boundary_mask").1);
}

#[test]
fn check_reads_everything_that_is_needed_and_nothing_else() {
    let case = Case::new(None);
    let report = check(&case.request(6)).unwrap();
    let boundary = 840 - 22 * 20;
    // Two known states, six driving states, eight times of forcing, static features.
    assert_eq!(
        report.values,
        (2 * 840 * 3 + 6 * boundary * 3 + 8 * 840 * 4 + 840 * 2) as u64
    );
    let hours = |n: i64| case.analysis_time.unix_seconds() + n * 3600;
    assert_eq!(report.read, (hours(-3), hours(21)));

    let mut no_boundary = Case::new(None);
    no_boundary.interface.boundary_width = 0;
    let report = check(&no_boundary.request(6)).unwrap();
    assert_eq!(report.values, (2 * 840 * 3 + 8 * 840 * 4 + 840 * 2) as u64);
}
