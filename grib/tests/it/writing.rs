//! What the writer makes, read by Python's eccodes and by cfgrib.

use std::path::{Path, PathBuf};

use mlwm_grib::{
    Encoding, Field, Forecast, Grid, Level, Member, Method, Packing, Process, Reader,
    ReducedGaussian, RegularLatLon, Rows, Scanning, Span, Writer,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::oracle::{describe, numbers, python};

pub(crate) fn forecast(grid: Grid) -> Forecast {
    Forecast {
        analysis_time: "2024-02-29T06:00Z".parse().unwrap(),
        member: Some(Member {
            number: 7,
            count: 50,
        }),
        grid,
        packing: Packing {
            method: Method::Ccsds,
            bits_per_value: 16,
        },
    }
}

pub(crate) fn field(grid: &Grid, name: &str, level: Option<Level>, span: Span) -> Field {
    let values = (0..grid.points())
        .map(|point| (point as f32 * 0.01 + span.lead_time() as f32).sin() * 30.0 + 270.0)
        .collect();
    Field {
        encoding: Encoding::of(name).unwrap(),
        level,
        span,
        values,
    }
}

pub(crate) fn regular(scanning: Scanning) -> Grid {
    let (first_latitude, last_latitude) = if scanning.j_positive {
        (-30_000_000, 30_000_000)
    } else {
        (30_000_000, -30_000_000)
    };
    let (first_longitude, last_longitude) = if scanning.i_negative {
        (355_000_000, 0)
    } else {
        (0, 355_000_000)
    };
    Grid::RegularLatLon(RegularLatLon {
        rows: Rows {
            ni: 72,
            nj: 13,
            scanning,
        },
        first_latitude,
        first_longitude,
        last_latitude,
        last_longitude,
    })
}

fn write(folder: &TempDir, forecast: Forecast, fields: &[Field]) -> PathBuf {
    let path = folder.path().join("written.grib");
    let mut writer = Writer::new(forecast).unwrap();
    let messages: Vec<u8> = fields
        .iter()
        .flat_map(|field| writer.message(field).unwrap())
        .collect();
    std::fs::write(&path, messages).unwrap();
    path
}

/// Compares a message's values with those that were written.
fn assert_values(said: &Value, written: &[f32]) {
    let error = said["packingError"].as_f64().unwrap();
    let read = numbers(&said["values"]);
    assert_eq!(read.len(), written.len());
    for (read, &written) in read.iter().zip(written) {
        let written = f64::from(written);
        assert_eq!(read.is_nan(), written.is_nan());
        if !written.is_nan() {
            // The error is rounded itself.
            assert!(
                (read - written).abs() <= error * (1.0 + 1e-6),
                "{read} {written} {error}"
            );
        }
    }
}

#[test]
fn eccodes_reads_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::ReducedGaussian(ReducedGaussian::octahedral(32));
    let span = |process, start, end| Span::Interval {
        process,
        start,
        end,
    };
    let fields = [
        field(&grid, "2t", None, Span::Instant(0)),
        field(
            &grid,
            "t",
            Some(Level::at("isobaricInhPa", 850.0)),
            Span::Instant(6),
        ),
        field(
            &grid,
            "q",
            Some(Level::at("isobaricInhPa", 50.0)),
            Span::Instant(960),
        ),
        field(&grid, "tp", None, span(Process::Accumulation, 0, 6)),
        field(&grid, "tp", None, span(Process::Accumulation, 66, 72)),
        field(&grid, "ssrd", None, span(Process::Accumulation, 0, 72)),
        field(
            &grid,
            "sot",
            Some(Level::layer("depthBelowLandLayer", 0.07, 0.28)),
            Span::Instant(6),
        ),
        field(
            &grid,
            "swh",
            Some(Level::at("meanSea", 0.0)),
            Span::Instant(6),
        ),
        field(&grid, "msl", None, Span::Instant(6)),
        field(
            &grid,
            "10u",
            Some(Level::at("heightAboveGround", 10.0)),
            Span::Instant(6),
        ),
    ];
    let said = describe(&write(&folder, forecast(grid), &fields));
    assert_eq!(said.len(), fields.len());
    for (said, field) in said.iter().zip(&fields) {
        assert_eq!(said["edition"], 2);
        assert_eq!(said["paramId"], field.encoding.param_id());
        assert_eq!(said["shortName"], field.encoding.short_name());
        assert_eq!(said["dataDate"], 20240229);
        assert_eq!(said["dataTime"], 600);
        assert_eq!(said["endStep"], field.span.lead_time() * 3600);
        assert_eq!(said["number"], 7);
        assert_eq!(said["numberOfForecastsInEnsemble"], 50);
        assert_eq!(said["dataType"], "pf");
        assert_eq!(said["packingType"], "grid_ccsds");
        assert_eq!(said["bitsPerValue"], 16);
        assert_eq!(said["gridType"], "reduced_gg");
        assert_eq!(said["N"], 32);
        assert_eq!(said["isOctahedral"], 1);
        assert_eq!(said["bitmapPresent"], 0);
        assert_values(said, &field.values);
        if let Some(level) = &field.level {
            assert_eq!(said["typeOfLevel"], level.kind);
            assert!((said["topLevel"].as_f64().unwrap() - level.top).abs() < 1e-9);
            assert!((said["bottomLevel"].as_f64().unwrap() - level.bottom).abs() < 1e-9);
        }
        match field.span {
            Span::Instant(hours) => {
                assert_eq!(said["startStep"], hours * 3600);
                assert_eq!(said["stepType"], "instant");
            }
            Span::Interval { start, .. } => {
                assert_eq!(said["startStep"], start * 3600);
                assert_eq!(said["stepType"], "accum");
            }
        }
    }
    assert_eq!(said[0]["typeOfLevel"], "heightAboveGround");
    assert_eq!(said[0]["level"], 2.0);
    assert_eq!(said[8]["typeOfLevel"], "meanSea");
    assert_eq!(said[2]["validityDate"], 20240409);
}

#[test]
fn control_forecasts_and_forecasts_without_ensemble() {
    let folder = tempfile::tempdir().unwrap();
    let grid = regular(Scanning::default());
    let fields = [field(&grid, "2t", None, Span::Instant(6))];
    let mut control = forecast(grid);
    control.member = Some(Member {
        number: 0,
        count: 50,
    });
    let mut alone = control.clone();
    alone.member = None;
    let said = describe(&write(&folder, control, &fields));
    assert_eq!(said[0]["number"], 0);
    assert_eq!(said[0]["dataType"], "cf");
    let said = describe(&write(&folder, alone, &fields));
    assert!(said[0]["numberOfForecastsInEnsemble"].is_null());
    assert_eq!(said[0]["dataType"], "fc");
}

#[test]
fn means_and_extremes_over_an_interval() {
    let folder = tempfile::tempdir().unwrap();
    let grid = regular(Scanning::default());
    let span = |process| Span::Interval {
        process,
        start: 6,
        end: 12,
    };
    let mut writer = Writer::new(forecast(grid.clone())).unwrap();
    let mut said = Vec::new();
    for process in [Process::Average, Process::Maximum, Process::Minimum] {
        // A parameter of one time; over an interval ecCodes may take it for another one.
        let field = field(
            &grid,
            "q",
            Some(Level::at("isobaricInhPa", 500.0)),
            span(process),
        );
        match writer.message(&field) {
            Ok(message) => {
                let path = folder.path().join("interval.grib");
                std::fs::write(&path, message).unwrap();
                said.push(describe(&path)[0]["stepType"].as_str().unwrap().to_owned());
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(said, ["avg", "max", "min"]);
}

#[test]
fn missing_values_are_a_bitmap_and_constant_fields_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let grid = regular(Scanning::default());
    let mut some = field(&grid, "2t", None, Span::Instant(6));
    for value in some.values.iter_mut().step_by(5) {
        *value = f32::NAN;
    }
    let mut all = field(&grid, "2d", None, Span::Instant(6));
    all.values.fill(f32::NAN);
    let mut constant = field(&grid, "msl", None, Span::Instant(6));
    constant.values.fill(9999.0);
    let fields = [some, all, constant];
    for method in [Method::Simple, Method::Ccsds] {
        let mut forecast = forecast(grid.clone());
        forecast.packing.method = method;
        let path = write(&folder, forecast, &fields);
        for (said, field) in describe(&path).iter().zip(&fields) {
            assert_values(said, &field.values);
        }
        let read: Vec<Vec<f64>> = Reader::open(&path)
            .unwrap()
            .map(|message| message.unwrap().values().unwrap())
            .collect();
        assert!(read[1].iter().all(|value| value.is_nan()));
        assert!(read[2].iter().all(|&value| value == 9999.0));
    }
}

#[test]
fn regular_grids_in_all_orders() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..16_u32 {
        let bit = |bit: u32| number >> bit & 1 == 1;
        let grid = regular(Scanning {
            i_negative: bit(0),
            j_positive: bit(1),
            j_consecutive: bit(2),
            alternating: bit(3),
        });
        let fields = [field(&grid, "2t", None, Span::Instant(6))];
        let path = write(&folder, forecast(grid.clone()), &fields);
        let message = Reader::open(&path).unwrap().next().unwrap().unwrap();
        assert_eq!(message.grid().unwrap(), &grid);
        let coordinates = message.coordinates().unwrap();
        let said = &describe(&path)[0];
        // The oracle's coordinates do not alternate.
        if !bit(3) {
            assert_eq!(coordinates.latitudes, numbers(&said["latitudes"]));
            assert_eq!(coordinates.longitudes, numbers(&said["longitudes"]));
        }
        assert_values(said, &fields[0].values);
    }
}

#[test]
fn real_grids_have_the_points_and_coordinates_of_the_oracle() {
    let folder = tempfile::tempdir().unwrap();
    let third = Grid::RegularLatLon(RegularLatLon {
        rows: Rows {
            ni: 1080,
            nj: 541,
            scanning: Scanning::default(),
        },
        first_latitude: 90_000_000,
        first_longitude: 180_000_000,
        last_latitude: -90_000_000,
        last_longitude: 179_666_667,
    });
    for (grid, name, points) in [
        (
            Grid::ReducedGaussian(ReducedGaussian::octahedral(96)),
            "O96",
            40_320,
        ),
        (
            Grid::ReducedGaussian(ReducedGaussian::classic(320).unwrap()),
            "N320",
            542_080,
        ),
        (third, "541 x 1080 latitudes and longitudes", 584_280),
    ] {
        assert_eq!(grid.name(), name);
        assert_eq!(grid.points(), points);
        let fields = [field(&grid, "2t", None, Span::Instant(6))];
        let path = write(&folder, forecast(grid.clone()), &fields);
        let said = &describe(&path)[0];
        assert_values(said, &fields[0].values);
        let message = Reader::open(&path).unwrap().next().unwrap().unwrap();
        assert_eq!(message.grid().unwrap(), &grid);
        let coordinates = message.coordinates().unwrap();
        for (found, expected) in [
            (&coordinates.latitudes, numbers(&said["latitudes"])),
            (&coordinates.longitudes, numbers(&said["longitudes"])),
        ] {
            let close = found
                .iter()
                .zip(&expected)
                .all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(close && found.len() == expected.len(), "{name}");
        }
    }
}

#[test]
fn cfgrib_opens_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let grid = regular(Scanning::default());
    let fields: Vec<Field> = [6, 12, 18]
        .into_iter()
        .flat_map(|hours| {
            [500.0, 850.0].map(|level| {
                let level = Level::at("isobaricInhPa", level);
                field(&grid, "t", Some(level), Span::Instant(hours))
            })
        })
        .collect();
    let path = write(&folder, forecast(grid), &fields);
    let script = r#"
import json, sys
import xarray
data = xarray.open_dataset(sys.argv[1], engine="cfgrib", backend_kwargs={"indexpath": ""})
t = data["t"].transpose("step", "isobaricInhPa", "latitude", "longitude")
order = t.sortby("isobaricInhPa")
print(json.dumps({
    "dims": dict(t.sizes), "units": t.attrs["units"], "number": int(data["number"]),
    "time": str(data["time"].values)[:19],
    "valid": [str(time)[:19] for time in data["valid_time"].values],
    "levels": order["isobaricInhPa"].values.tolist(),
    "latitudes": data["latitude"].values.tolist(),
    "longitudes": data["longitude"].values.tolist(),
    "values": order.values.reshape(6, -1).tolist(),
}))
"#;
    let said = python(script, &[&path]);
    assert_eq!(said["units"], "K");
    assert_eq!(said["number"], 7);
    assert_eq!(said["time"], "2024-02-29T06:00:00");
    let valid = [
        "2024-02-29T12:00:00",
        "2024-02-29T18:00:00",
        "2024-03-01T00:00:00",
    ];
    assert_eq!(said["valid"], serde_json::json!(valid));
    assert_eq!(numbers(&said["levels"]), [500.0, 850.0]);
    let latitudes: Vec<f64> = (0..13).map(|row| 30.0 - 5.0 * f64::from(row)).collect();
    let longitudes: Vec<f64> = (0..72).map(|column| 5.0 * f64::from(column)).collect();
    assert_eq!(numbers(&said["latitudes"]), latitudes);
    assert_eq!(numbers(&said["longitudes"]), longitudes);
    let packing = describe(&path);
    for (number, field) in fields.iter().enumerate() {
        let error = packing[number]["packingError"].as_f64().unwrap();
        let values = numbers(&said["values"][number]);
        assert_eq!(values.len(), field.values.len());
        for (value, &written) in values.iter().zip(&field.values) {
            // cfgrib rounds to single precision.
            assert!((value - f64::from(written)).abs() <= error + 2e-5);
        }
    }
}

#[test]
fn the_same_fields_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::ReducedGaussian(ReducedGaussian::octahedral(8));
    let mut fields = [
        field(&grid, "2t", None, Span::Instant(6)),
        field(&grid, "msl", None, Span::Instant(6)),
    ];
    fields[0].values[3] = f32::NAN;
    let once = std::fs::read(write(&folder, forecast(grid.clone()), &fields)).unwrap();
    let again = std::fs::read(write(&folder, forecast(grid.clone()), &fields)).unwrap();
    assert_eq!(once, again);
    // A field's bytes do not depend on those before it.
    let last = std::fs::read(write(&folder, forecast(grid), &fields[1..])).unwrap();
    assert!(once.ends_with(&last));
}

#[test]
fn a_reader_at_work_and_a_writer_do_not_disturb_each_other() {
    fn one(folder: &Path, number: u32) {
        let grid = Grid::ReducedGaussian(ReducedGaussian::octahedral(16));
        let path = folder.join(format!("{number}.grib"));
        let field = field(&grid, "2t", None, Span::Instant(number));
        let mut writer = Writer::new(forecast(grid)).unwrap();
        std::fs::write(&path, writer.message(&field).unwrap()).unwrap();
        let mut message = Reader::open(&path).unwrap().next().unwrap().unwrap();
        let error = message.packing_error().unwrap();
        for (value, &written) in message.values().unwrap().iter().zip(&field.values) {
            assert!((value - f64::from(written)).abs() <= error * (1.0 + 1e-6));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let folder = folder.path();
            scope.spawn(move || (0..20).for_each(|number| one(folder, thread * 100 + number)));
        }
    });
}
