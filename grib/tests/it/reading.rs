//! What the reader says of messages, against what Python's eccodes says.

use std::path::Path;

use jiff::tz::TimeZone;
use mlwm_grib::{Grid, Message, Reader};
use serde_json::{Value, json};

use crate::oracle::{describe, make, numbers, same};

fn read(path: &Path) -> Vec<Message> {
    Reader::open(path)
        .expect("the file can be opened")
        .collect::<Result<_, _>>()
        .expect("all messages can be read")
}

/// Makes messages, reads them, and compares all that both sides say; the messages as read.
fn compare(messages: &Value) -> Vec<Message> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("messages.grib");
    make(&path, messages);
    let expected = describe(&path);
    let mut found = read(&path);
    assert_eq!(found.len(), messages.as_array().unwrap().len());
    assert_eq!(found.len(), expected.len());
    for (number, (message, expected)) in found.iter_mut().zip(&expected).enumerate() {
        compare_one(number, message, expected);
    }
    found
}

fn compare_one(number: usize, message: &mut Message, expected: &Value) {
    let header = message.header().clone();
    let time = |time: jiff::Timestamp| {
        let time = time.to_zoned(TimeZone::UTC);
        let text = |format: &str| {
            let text = time.strftime(format).to_string();
            text.parse::<i64>().unwrap()
        };
        (text("%Y%m%d"), text("%H%M"))
    };
    let (date, hour) = time(header.reference_time);
    let (validity_date, validity_hour) = time(header.validity_time);
    let said = json!({
        "edition": header.edition,
        "centre": header.centre,
        "paramId": header.param_id,
        "shortName": header.short_name,
        "name": header.name,
        "units": header.units,
        "typeOfLevel": header.level.kind,
        "level": header.level.value,
        "topLevel": header.level.top,
        "bottomLevel": header.level.bottom,
        "stepType": header.step_type,
        "startStep": header.start_step.as_secs(),
        "endStep": header.end_step.as_secs(),
        "dataDate": date,
        "dataTime": hour,
        "validityDate": validity_date,
        "validityTime": validity_hour,
        "dataType": header.data_type,
        "number": header.member,
        "bitmapPresent": i64::from(header.bitmap),
        "packingType": header.packing,
        "bitsPerValue": header.bits_per_value,
        "numberOfDataPoints": header.points,
        "totalLength": message.place().length,
        "offset": message.place().offset,
        "packingError": message.packing_error().unwrap(),
    });
    for (key, said) in said.as_object().unwrap() {
        assert_eq!(said, &expected[key], "{key} of message {number}");
    }
    let cf = message.cf_names().unwrap();
    for (name, key) in [(cf.variable, "cfVarName"), (cf.standard_name, "cfName")] {
        let expected = expected[key].as_str().filter(|name| *name != "unknown");
        assert_eq!(name.as_deref(), expected, "{key} of message {number}");
    }
    let values = message.values().expect("the values can be decoded");
    assert!(
        same(&values, &numbers(&expected["values"])),
        "values of message {number}"
    );
    let mut single = vec![0.0; header.points];
    message.read_f32(&mut single, &mut Vec::new()).unwrap();
    let rounded: Vec<f64> = values
        .iter()
        .map(|&value| f64::from(value as f32))
        .collect();
    let single: Vec<f64> = single.into_iter().map(f64::from).collect();
    assert!(same(&single, &rounded), "single values of message {number}");
    let grid = message.grid().expect("the grid can be read");
    assert_eq!(grid.points(), header.points);
    if let Grid::ReducedGaussian(grid) = grid {
        let points: Vec<f64> = grid
            .points_per_latitude()
            .iter()
            .map(|&n| n.into())
            .collect();
        assert_eq!(points, numbers(&expected["pl"]));
        assert_eq!(expected["N"], grid.n());
        assert_eq!(expected["isOctahedral"], i64::from(grid.is_octahedral()));
    }
}

/// Whether the coordinates are those that the oracle has, which is so for all orders of points that
/// it knows.
fn assert_coordinates(message: &Message, latitudes: &[f64], longitudes: &[f64]) {
    let coordinates = message.coordinates().unwrap();
    for (found, expected) in [
        (&coordinates.latitudes, latitudes),
        (&coordinates.longitudes, longitudes),
    ] {
        let close = found
            .iter()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(
            close && found.len() == expected.len(),
            "{found:?}\n{expected:?}"
        );
    }
}

fn regular(sample: &str, keys: &[Value]) -> Value {
    let mut all = vec![
        json!(["Ni", 4]),
        json!(["Nj", 3]),
        json!(["latitudeOfFirstGridPointInDegrees", 10]),
        json!(["latitudeOfLastGridPointInDegrees", 8]),
        json!(["longitudeOfFirstGridPointInDegrees", 1]),
        json!(["longitudeOfLastGridPointInDegrees", 7]),
        json!(["iDirectionIncrementInDegrees", 2]),
        json!(["jDirectionIncrementInDegrees", 1]),
        json!(["dataDate", 20240229]),
        json!(["dataTime", 1200]),
    ];
    all.extend_from_slice(keys);
    json!({"sample": sample, "keys": all, "points": 12})
}

fn octahedral(n: u32) -> (Vec<u32>, u32) {
    let north: Vec<u32> = (0..n).map(|row| 20 + 4 * row).collect();
    let all: Vec<u32> = north.iter().chain(north.iter().rev()).copied().collect();
    let points = all.iter().sum();
    (all, points)
}

#[test]
fn both_editions_in_one_file() {
    let found = compare(&json!([
        regular("regular_ll_sfc_grib1", &[json!(["shortName", "2t"])]),
        regular("regular_ll_sfc_grib2", &[json!(["shortName", "2t"])]),
        regular(
            "regular_ll_pl_grib1",
            &[json!(["shortName", "t"]), json!(["level", 850])]
        ),
        regular(
            "regular_ll_pl_grib2",
            &[
                json!(["shortName", "q"]),
                json!(["typeOfLevel", "isobaricInhPa"]),
                json!(["level", 50])
            ],
        ),
        regular("regular_ll_sfc_grib1", &[json!(["paramId", 228141])]),
    ]));
    let editions: Vec<u8> = found
        .iter()
        .map(|message| message.header().edition)
        .collect();
    assert_eq!(editions, [1, 2, 1, 2, 1]);
    assert_eq!(found[2].header().level.value, 850.0);
    // The same points, whatever the edition.
    let digests: Vec<_> = found
        .iter()
        .map(|message| message.grid().unwrap().digest())
        .collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]));
}

#[test]
fn levels_and_layers() {
    let found = compare(&json!([
        regular("regular_ll_sfc_grib1", &[json!(["shortName", "stl2"])]),
        regular(
            "regular_ll_sfc_grib2",
            &[
                json!(["shortName", "sot"]),
                json!(["typeOfLevel", "depthBelowLandLayer"]),
                json!(["scaleFactorOfFirstFixedSurface", 2]),
                json!(["scaledValueOfFirstFixedSurface", 7]),
                json!(["scaleFactorOfSecondFixedSurface", 2]),
                json!(["scaledValueOfSecondFixedSurface", 28]),
            ],
        ),
        regular("regular_ll_sfc_grib2", &[json!(["shortName", "100u"])]),
        regular("regular_ll_sfc_grib2", &[json!(["shortName", "msl"])]),
    ]));
    assert!((found[1].header().level.top - 0.07).abs() < 1e-12);
    assert!((found[1].header().level.bottom - 0.28).abs() < 1e-12);
    assert_eq!(found[2].header().level.value, 100.0);
}

#[test]
fn steps_in_all_units_and_intervals() {
    let interval = |units: &str, range: &str| {
        regular(
            "regular_ll_sfc_grib2",
            &[
                json!(["productDefinitionTemplateNumber", 8]),
                json!(["shortName", "tp"]),
                json!(["stepUnits", units]),
                json!(["stepRange", range]),
            ],
        )
    };
    let instant = |sample: &str, units: &str, range: &str| {
        let keys = [json!(["stepUnits", units]), json!(["stepRange", range])];
        regular(sample, &keys)
    };
    let found = compare(&json!([
        interval("h", "0-6"),
        interval("h", "6-12"),
        interval("m", "30-90"),
        interval("D", "1-3"),
        instant("regular_ll_sfc_grib2", "m", "15"),
        instant("regular_ll_sfc_grib2", "s", "3600"),
        instant("regular_ll_sfc_grib2", "3h", "5"),
        instant("regular_ll_sfc_grib1", "h", "240"),
        instant("regular_ll_sfc_grib1", "m", "45"),
        instant("regular_ll_sfc_grib1", "D", "2"),
        regular(
            "regular_ll_sfc_grib1",
            &[
                json!(["shortName", "tp"]),
                json!(["stepType", "accum"]),
                json!(["stepRange", "12-24"])
            ],
        ),
        // Accumulated by definition, but the message says it is of one time.
        regular(
            "regular_ll_sfc_grib1",
            &[json!(["shortName", "sro"]), json!(["step", 7])]
        ),
    ]));
    let hours: Vec<f64> = found
        .iter()
        .map(|message| message.header().end_step.as_secs_f64() / 3600.0)
        .collect();
    let expected = [
        6.0, 12.0, 1.5, 72.0, 0.25, 1.0, 15.0, 240.0, 0.75, 48.0, 24.0, 7.0,
    ];
    assert_eq!(hours, expected);
    assert_eq!(found[10].header().step_type, "accum");
    assert_eq!(found[11].header().step_type, "instant");
    assert_eq!(
        found[2].header().validity_time,
        "2024-02-29T13:30Z".parse().unwrap()
    );
}

#[test]
fn months_have_no_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("months.grib");
    let keys = [json!(["stepUnits", "M"]), json!(["stepRange", "2"])];
    make(&path, &json!([regular("regular_ll_sfc_grib2", &keys)]));
    let error = Reader::open(&path).unwrap().next().unwrap().unwrap_err();
    assert!(error.to_string().contains("months"), "{error}");
}

#[test]
fn reduced_gaussian_grids_have_all_their_points() {
    let (points_per_latitude, points) = octahedral(32);
    let found = compare(&json!([
        {
            "sample": "reduced_gg_pl_32_grib2",
            "keys": [["pl", points_per_latitude], ["numberOfDataPoints", points], ["numberOfValues", points]],
            "points": points,
            "gap": 7,
        },
        {"sample": "reduced_gg_pl_32_grib1", "keys": [], "points": 6114},
        {"sample": "reduced_gg_pl_32_grib2", "keys": [["packingType", "grid_ccsds"]], "points": 6114},
        {"sample": "reduced_gg_pl_48_grib2", "keys": [["bitsPerValue", 24]], "points": 13280},
        {"sample": "regular_gg_sfc_grib2", "keys": [], "points": 8192},
        {"sample": "regular_gg_sfc_grib1", "keys": [], "points": 8192},
    ]));
    let grids: Vec<Grid> = found
        .iter()
        .map(|message| message.grid().unwrap().clone())
        .collect();
    let names: Vec<String> = grids.iter().map(Grid::name).collect();
    assert_eq!(names, ["O32", "N32", "N32", "N48", "F32", "F32"]);
    assert_eq!(grids[1], grids[2]);
    assert_eq!(grids[1].digest(), grids[2].digest());
    assert_eq!(grids[4].digest(), grids[5].digest());
    for (a, b) in [(0, 1), (1, 3), (1, 4), (0, 4)] {
        assert_ne!(grids[a].digest(), grids[b].digest());
    }
    assert_eq!(grids[0].points(), 5248);
}

#[test]
fn a_message_is_read_again_unless_the_file_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again.grib");
    make(
        &path,
        &json!([
            {"sample": "regular_ll_sfc_grib1", "keys": [], "points": 496},
            {"sample": "regular_ll_sfc_grib2", "keys": [], "points": 496, "wave": 0.3},
        ]),
    );
    let mut reader = Reader::open(&path).unwrap();
    let mut messages: Vec<Message> = reader.by_ref().map(Result::unwrap).collect();
    let seen: Vec<_> = messages.iter().map(Message::seen).collect();
    let mut again = Vec::new();
    for (message, seen) in messages.iter_mut().zip(&seen) {
        reader.read_again(seen, &mut again).unwrap();
        assert_eq!(again, message.values().unwrap());
    }
    assert!(reader.next().is_none());
    let whole = std::fs::read(&path).unwrap();
    let second = seen[1].place().offset as usize;
    // The end, the length of a section, and the number of a parameter.
    for at in [whole.len() - 1, second + 16 + 3, second + 16 + 21 + 72 + 10] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = reader.read_again(&seen[1], &mut again).unwrap_err();
        assert!(matches!(error, mlwm_grib::Error::Changed { .. }), "{error}");
        reader.read_again(&seen[0], &mut again).unwrap();
    }
    std::fs::write(&path, &whole[..second]).unwrap();
    let error = reader.read_again(&seen[1], &mut again).unwrap_err();
    assert!(matches!(error, mlwm_grib::Error::Read { .. }), "{error}");
}

#[test]
fn coordinates_of_gaussian_grids_are_those_of_the_oracle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gaussian.grib");
    let (points_per_latitude, points) = octahedral(32);
    make(
        &path,
        &json!([
            {
                "sample": "reduced_gg_pl_32_grib2",
                "keys": [["pl", points_per_latitude], ["global", 1], ["numberOfDataPoints", points]],
                "points": points,
            },
            {"sample": "reduced_gg_pl_48_grib1", "keys": [], "points": 13280},
            {"sample": "regular_gg_sfc_grib2", "keys": [], "points": 8192},
        ]),
    );
    for (message, expected) in read(&path).iter().zip(&describe(&path)) {
        assert_coordinates(
            message,
            &numbers(&expected["latitudes"]),
            &numbers(&expected["longitudes"]),
        );
    }
}

#[test]
fn regular_grids_in_all_orders() {
    let south_first = [
        json!(["jScansPositively", 1]),
        json!(["latitudeOfFirstGridPointInDegrees", 8]),
        json!(["latitudeOfLastGridPointInDegrees", 10]),
    ];
    let east_first = [
        json!(["iScansNegatively", 1]),
        json!(["longitudeOfFirstGridPointInDegrees", 7]),
        json!(["longitudeOfLastGridPointInDegrees", 1]),
    ];
    let across_0 = [
        json!(["longitudeOfFirstGridPointInDegrees", 357]),
        json!(["longitudeOfLastGridPointInDegrees", 3]),
    ];
    let columns = [json!(["jPointsAreConsecutive", 1])];
    let turning = [json!(["alternativeRowScanning", 1])];
    let messages = json!([
        regular("regular_ll_sfc_grib2", &[]),
        regular("regular_ll_sfc_grib2", &south_first),
        regular("regular_ll_sfc_grib2", &east_first),
        regular("regular_ll_sfc_grib1", &south_first),
        regular("regular_ll_sfc_grib1", &columns),
        regular("regular_ll_sfc_grib2", &columns),
        regular("regular_ll_sfc_grib2", &across_0),
        regular("regular_ll_sfc_grib1", &across_0),
        regular("regular_ll_sfc_grib2", &turning),
    ]);
    let found = compare(&messages);
    let north = [
        10.0, 10.0, 10.0, 10.0, 9.0, 9.0, 9.0, 9.0, 8.0, 8.0, 8.0, 8.0,
    ];
    let south = [
        8.0, 8.0, 8.0, 8.0, 9.0, 9.0, 9.0, 9.0, 10.0, 10.0, 10.0, 10.0,
    ];
    let west = [1.0, 3.0, 5.0, 7.0, 1.0, 3.0, 5.0, 7.0, 1.0, 3.0, 5.0, 7.0];
    let east = [7.0, 5.0, 3.0, 1.0, 7.0, 5.0, 3.0, 1.0, 7.0, 5.0, 3.0, 1.0];
    let down = [
        10.0, 9.0, 8.0, 10.0, 9.0, 8.0, 10.0, 9.0, 8.0, 10.0, 9.0, 8.0,
    ];
    let slow = [1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 5.0, 5.0, 5.0, 7.0, 7.0, 7.0];
    // A row keeps its direction across longitude 0.
    let around = [
        -3.0, -1.0, 1.0, 3.0, -3.0, -1.0, 1.0, 3.0, -3.0, -1.0, 1.0, 3.0,
    ];
    let snake = [1.0, 3.0, 5.0, 7.0, 7.0, 5.0, 3.0, 1.0, 1.0, 3.0, 5.0, 7.0];
    let expected = [
        (north, west),
        (south, west),
        (north, east),
        (south, west),
        (down, slow),
        (down, slow),
        (north, around),
        (north, around),
        (north, snake),
    ];
    for (message, (latitudes, longitudes)) in found.iter().zip(&expected) {
        assert_coordinates(message, latitudes, longitudes);
    }
    let digests: std::collections::HashSet<_> = found
        .iter()
        .map(|message| message.grid().unwrap().digest())
        .collect();
    assert_eq!(
        digests.len(),
        6,
        "the same grids of two editions are the same"
    );
}

#[test]
fn missing_values_are_not_numbers_and_9999_is_one() {
    let mut messages = json!([
        regular("regular_ll_sfc_grib1", &[]),
        regular("regular_ll_sfc_grib2", &[]),
        regular("regular_ll_sfc_grib2", &[json!(["bitsPerValue", 0])]),
    ]);
    messages[0]["gap"] = 5.into();
    messages[1]["gap"] = 3.into();
    messages[2]["wave"] = 0.into();
    let mut found = compare(&messages);
    let missing = |message: &mut Message| {
        let values = message.values().unwrap();
        values.iter().filter(|value| value.is_nan()).count()
    };
    assert_eq!(missing(&mut found[0]), 3);
    assert_eq!(missing(&mut found[1]), 4);
    assert_eq!(missing(&mut found[2]), 0);
}

#[test]
fn other_grids_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("others.grib");
    make(
        &path,
        &json!([
            {"sample": "sh_pl_grib2", "keys": [], "points": 4160},
            {"sample": "polar_stereographic_sfc_grib2", "keys": [], "points": 496},
        ]),
    );
    let names: Vec<String> = read(&path)
        .iter()
        .map(|message| message.grid().unwrap_err().to_string())
        .collect();
    assert!(names[0].contains("`sh`"), "{}", names[0]);
    assert!(names[1].contains("`polar_stereographic`"), "{}", names[1]);
}

#[test]
fn members_of_an_ensemble() {
    let found = compare(&json!([
        regular(
            "regular_ll_sfc_grib2",
            &[
                json!(["productDefinitionTemplateNumber", 1]),
                json!(["number", 7]),
                json!(["numberOfForecastsInEnsemble", 50]),
            ],
        ),
        regular("regular_ll_sfc_grib2", &[]),
    ]));
    assert_eq!(found[0].header().member, Some(7));
    assert_eq!(found[0].header().members, Some(50));
    assert_eq!(found[1].header().member, None);
    assert_eq!(found[1].header().members, None);
}
