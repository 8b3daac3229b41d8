//! What is refused, and how it is classified.

use std::path::Path;

use mlwm_spec::ExitCode;
use mlwm_spec::contract::TimeLayout;
use mlwm_spec::interface::InputRole;

use super::{Case, case_folder};
use crate::prepare::{PrepareError, check};
use crate::testing::python;

/// The error of a changed case, with the wording that it must contain.
#[track_caller]
fn refused(case: &Case, code: ExitCode, says: &[&str]) -> PrepareError {
    let error = check(&case.request(6)).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.exit_code(), code, "{text}");
    for part in says {
        assert!(text.contains(part), "`{text}` does not say `{part}`");
    }
    error
}

/// The case with a part of its datastore configuration replaced.
fn configured(from: &str, to: &str) -> Case {
    let mut case = Case::new(None);
    let path = case_folder().join("train/danra.datastore.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(
        text.contains(from),
        "the configuration does not contain `{from}`"
    );
    let config = mlwm_spec::yaml::parse(&text.replacen(from, to, 1), "test").unwrap();
    case.configs.insert("danra".into(), config);
    case
}

#[test]
fn configurations_that_are_not_supported() {
    let wrong = ExitCode::BadConfiguration;
    let forcing =
        "function: mllam_data_prep.ops.derive_variable.physical_field.calculate_toa_radiation";
    for (from, to, says) in [
        ("schema_version: v0.6.0", "schema_version: v0.7.0", "v0.7.0"),
        (
            "  chunking:",
            "  domain_cropping: {margin_width_degrees: 1}\n  chunking:",
            "domain_cropping",
        ),
        (
            "  coord_ranges:\n",
            "  coord_ranges:\n    grid_index: {start: 0, end: 9}\n",
            "grid_index",
        ),
        ("method: stack\n", "method: flatten\n", "flatten"),
        ("method: stack\n", "method: rename\n", "lacks `dim`"),
        (
            "name_format: \"{var_name}\"",
            "name_format: \"{variable}\"",
            "{variable}",
        ),
        ("name_format: \"{var_name}\"", "name_format: x", "lacks"),
        ("variables: [t2m, u10m, v10m]", "variables: []", "neither"),
        (
            "variables: [t2m, u10m, v10m]",
            "variables: [t2m, t2m, v10m]",
            "twice",
        ),
        (
            "      state_feature:\n",
            "      other_feature:\n",
            "state_feature",
        ),
        (forcing, "function: numpy.sin", "numpy.sin"),
        ("component: sin", "component: tan", "tan"),
        ("lat: ds_input.lat", "lat: 56", "lat"),
        ("lat: ds_input.lat", "latitude: ds_input.lat", "latitude"),
    ] {
        refused(&configured(from, to), wrong, &[says]);
    }
}

#[test]
fn what_is_not_in_the_dataset() {
    let missing = ExitCode::InputMissing;
    refused(
        &configured("[t2m, u10m, v10m]", "[t2m, u10m, w10m]"),
        missing,
        &["w10m", "v10m", "swavr0m"],
    );
    refused(
        &configured("dims: [x, y]\n      state", "dims: [x, z]\n      state"),
        missing,
        &["`z`", "x, y"],
    );
    let selected = "variables: {t2m: {altitude: {values: [2]}}}";
    refused(
        &configured("variables: [t2m, u10m, v10m]", selected),
        missing,
        &["altitude", "t2m(time, y, x)"],
    );
    refused(
        &Case::new(Some(Path::new("/nowhere.zarr"))),
        missing,
        &["/nowhere.zarr"],
    );
    let mut no_path = Case::new(None);
    no_path
        .inputs
        .retain(|input| input.input != "danra_forcing");
    refused(&no_path, missing, &["danra.danra_forcing"]);
    let mut early = Case::new(None);
    early.analysis_time = "2022-04-01T00:00Z".parse().unwrap();
    refused(&early, missing, &["2022-03-31T21:00Z", "0 of 6 steps"]);
    let mut late = Case::new(None);
    late.analysis_time = "2022-04-07T21:00Z".parse().unwrap();
    let error = refused(
        &late,
        missing,
        &[
            "from 2022-04-01T00:00Z to 2022-04-08T09:00Z",
            "3 of 6 steps",
        ],
    );
    let PrepareError::MissingTimes(times) = error else {
        panic!("{error}")
    };
    assert_eq!((times.possible_steps, times.missing.len()), (3, 2));
    assert_eq!(times.missing_count, 2);
    let error = check(&late.request(1_000_000)).unwrap_err();
    assert!(error.to_string().contains("and 999993 more"), "{error}");
}

#[test]
fn artifacts_that_do_not_fit_together() {
    let mismatch = ExitCode::ArtifactMismatch;
    refused(
        &configured("[t2m, u10m, v10m]", "[u10m, t2m, v10m]"),
        mismatch,
        &["t2m, u10m, v10m", "u10m, t2m, v10m"],
    );
    let mut names = Case::new(None);
    names.interface.state.names.swap(0, 1);
    refused(&names, mismatch, &["interface", "u10m, t2m"]);
    let mut split = Case::new(None);
    split.interface.statistics_split = "test".into();
    refused(&split, mismatch, &["state__test__mean"]);
    let mut datastore = Case::new(None);
    datastore.interface.state.sources[0].datastore = "era5".into();
    refused(&datastore, mismatch, &["era5"]);
    for far in [10_001, u64::MAX] {
        let mut back = Case::new(None);
        back.interface.inputs[1].role = InputRole::state(far);
        refused(&back, mismatch, &["`prev_prev_state`", "10000"]);
        let mut ahead = Case::new(None);
        if let InputRole::Forcing { future, .. } = &mut ahead.interface.inputs[2].role {
            *future = far;
        }
        refused(&ahead, mismatch, &["`forcing`", "10000"]);
    }
    let mut long = Case::new(None);
    long.interface.step_seconds = i64::MAX;
    refused(&long, mismatch, &["step_seconds"]);
    let mut dims = Case::new(None);
    dims.interface.grid.dims.reverse();
    refused(&dims, mismatch, &["(x, y)", "(y, x)"]);
}

#[test]
fn datasets_that_the_model_cannot_use() {
    let corrupt = ExitCode::InputCorrupt;
    refused(
        &configured("dims: [time, x, y]", "dims: [time, x]"),
        corrupt,
        &["dimension `y`"],
    );
    let checked = "attributes: {source: DANRA}\n    target_output_variable: state";
    refused(
        &configured("target_output_variable: state", checked),
        corrupt,
        &["`source`"],
    );
    let mut shape = Case::new(None);
    shape.interface.grid.shape[0] = 31;
    refused(&shape, corrupt, &["30 x 28", "31 x 28"]);
    let mut shifted = Case::new(None);
    shifted.interface.grid.coordinates = vec![(0..30).map(f64::from).collect(), vec![]];
    refused(&shifted, corrupt, &["`x`"]);
    let mut hourly = Case::new(None);
    hourly.interface.step_seconds = 6 * 3600;
    hourly.analysis_time = "2022-04-03T00:00Z".parse().unwrap();
    refused(&hourly, corrupt, &["6 h", "2022-04-02T21:00Z"]);
}

/// Copies of the case's source, each with something wrong.
const SPOILED: &str = r#"
import sys
import numpy as np
import xarray as xr

ds = xr.open_zarr(sys.argv[1]).load()
for v in ds.variables:
    ds[v].encoding = {}

def write(name, ds):
    ds.to_zarr(f"{sys.argv[2]}/{name}.zarr", zarr_format=3)

def spoil(variable, time, y, x, value):
    copy = ds.copy(deep=True)
    copy[variable].loc[dict(time=time)][y, x] = value
    return copy

write("nan_forcing", spoil("swavr0m", "2022-04-07T18:00", 3, 5, np.nan))
write("inf_state", spoil("u10m", "2022-04-07T00:00", 14, 15, np.inf))
write("nan_inside_later", spoil("t2m", "2022-04-07T09:00", 14, 15, np.nan))
write("nan_boundary_later", spoil("t2m", "2022-04-07T09:00", 14, 1, np.nan))
write("duplicate_time", xr.concat([ds, ds.isel(time=[50])], "time", data_vars="minimal"))
write("gap", ds.isel(time=np.r_[0:52, 53:60]))
write("no_lat", ds.drop_vars("lat"))
write("shuffled", ds.isel(time=np.random.default_rng(0).permutation(60)))
ds["t2m"].attrs["units"] = "degC"
write("celsius", ds)
"#;

#[test]
fn spoiled_data() {
    let folder = tempfile::tempdir().unwrap();
    let source = case_folder().join("source/single_levels.zarr");
    python(SPOILED, &[&source, folder.path()]);
    let spoiled = |name: &str| Case::new(Some(&folder.path().join(format!("{name}.zarr"))));
    let (corrupt, missing) = (ExitCode::InputCorrupt, ExitCode::InputMissing);

    let forcing = spoiled("nan_forcing");
    refused(
        &forcing,
        corrupt,
        &["1 of 840 values", "`swavr0m`", "2022-04-07T18:00Z"],
    );
    refused(
        &spoiled("inf_state"),
        corrupt,
        &["`u10m`", "2022-04-07T00:00Z"],
    );
    refused(
        &spoiled("nan_boundary_later"),
        corrupt,
        &["1 of 400 values", "`t2m`"],
    );
    refused(
        &spoiled("duplicate_time"),
        corrupt,
        &["2022-04-07T06:00Z more than once"],
    );
    refused(
        &spoiled("gap"),
        missing,
        &["2022-04-07T12:00Z missing", "1 of 6 steps"],
    );
    refused(&spoiled("no_lat"), missing, &["`lat`"]);
    // The model does not see the driving state in the interior, nor the order of times.
    check(&spoiled("nan_inside_later").request(6)).unwrap();
    check(&spoiled("shuffled").request(6)).unwrap();
    let report = check(&spoiled("celsius").request(6)).unwrap();
    assert_eq!(report.warnings.len(), 1);
    assert!(report.warnings[0].contains("`degC`") && report.warnings[0].contains("`K`"));
}

#[test]
fn requests_that_make_no_sense() {
    let wrong = ExitCode::BadConfiguration;
    let case = Case::new(None);
    for steps in [
        0,
        1_000_001,
        3_000_000_000,
        99_999_999_999_999_999,
        u64::MAX,
    ] {
        assert_eq!(check(&case.request(steps)).unwrap_err().exit_code(), wrong);
    }
    let mut unknown = Case::new(None);
    unknown.inputs[0].input = "danra_clouds".into();
    refused(&unknown, wrong, &["danra_clouds", "danra_surface"]);
    let mut twice = Case::new(None);
    twice.inputs[1] = twice.inputs[0].clone();
    refused(&twice, wrong, &["two datasets"]);
    let forecasts = super::super::ForecastRequest {
        layout: TimeLayout::Forecast,
        ..case.request(6)
    };
    let error = check(&forecasts).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::InputMissing);
    assert!(error.to_string().contains("analysis_time"), "{error}");
}

#[test]
fn a_forcing_that_reaches_far_needs_more() {
    let mut case = Case::new(None);
    case.analysis_time = "2022-04-07T15:00Z".parse().unwrap();
    check(&case.request(5)).unwrap();
    if let InputRole::Forcing { future, .. } = &mut case.interface.inputs[2].role {
        *future = 3;
    }
    refused(&case, ExitCode::InputMissing, &["3 of 6 steps"]);
}
