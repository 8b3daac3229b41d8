use proptest::prelude::*;

use super::*;

fn surface_levels() -> DatasetPath {
    DatasetPath {
        model_name: "harmonie_cy46".into(),
        model_config: "default".into(),
        bbox: BoundingBox {
            lon_min: Number::Float(-10.5),
            lat_min: Number::Float(35.0),
            lon_max: Number::Float(10.5),
            lat_max: Number::Float(45.0),
        },
        resolution: Resolution {
            lon_resolution: Number::Float(0.1),
            lat_resolution: Number::Float(0.2),
            unit: Unit::Deg,
        },
        analysis_time: "2023-01-01T12:00Z".parse().unwrap(),
        member: 0,
        data_kind: "surface_levels".into(),
    }
}

#[test]
fn the_path_of_a_known_dataset() {
    let path = surface_levels();
    let text = "harmonie_cy46/default/w-10p5_s35p0_e10p5_n45p0/dx0p1deg_dy0p2deg/\
                2023-01-01T1200Z/member0/surface_levels.zarr";
    assert_eq!(path.relative_path().as_deref(), Ok(text));
    assert_eq!(text.parse(), Ok(path));
}

#[test]
fn names_may_hold_what_models_are_called() {
    for name in [
        "FakeDINI+FakeIFS",
        "v1.2",
        "a-b_c",
        "zarr.zarr",
        "m\u{f8}re",
    ] {
        let path = DatasetPath {
            model_config: name.into(),
            data_kind: name.into(),
            ..surface_levels()
        };
        assert_eq!(path.relative_path().unwrap().parse(), Ok(path), "{name}");
    }
}

#[test]
fn names_that_climb_out_are_refused_both_ways() {
    for name in [
        "", ".", "..", "a/b", "../x", ".hidden", "a..b", "a\0b", "a b", "a#b", "{x}",
    ] {
        let path = DatasetPath {
            model_name: name.into(),
            ..surface_levels()
        };
        let refused = InvalidDatasetPath::Name {
            field: "model_name",
            name: name.into(),
        };
        assert_eq!(path.relative_path(), Err(refused), "{name}");
        assert!(path.to_string().parse::<DatasetPath>().is_err(), "{name}");
    }
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut path = surface_levels();
        path.bbox.lat_max = Number::Float(bad);
        assert!(matches!(
            path.relative_path(),
            Err(InvalidDatasetPath::Number(_))
        ));
        let mut path = surface_levels();
        path.resolution.lat_resolution = Number::Float(bad);
        assert!(matches!(
            path.relative_path(),
            Err(InvalidDatasetPath::Number(_))
        ));
    }
}

#[test]
fn other_forms_name_the_part_that_is_wrong() {
    let good = surface_levels().to_string();
    type Check = fn(&InvalidDatasetPath) -> bool;
    let cases: [(&str, &str, Check); 8] = [
        (".zarr", ".nc", |e| matches!(e, InvalidDatasetPath::Form(_))),
        ("/default", "", |e| matches!(e, InvalidDatasetPath::Form(_))),
        ("s35p0", "s35.0", |e| {
            matches!(e, InvalidDatasetPath::BoundingBox(_))
        }),
        ("s35p0_", "", |e| {
            matches!(e, InvalidDatasetPath::BoundingBox(_))
        }),
        ("dy0p2deg", "dy0p2km", |e| {
            matches!(e, InvalidDatasetPath::Resolution(_))
        }),
        ("dx0p1", "dx1e-05", |e| {
            matches!(e, InvalidDatasetPath::Resolution(_))
        }),
        ("T1200Z", "T12:00Z", |e| {
            matches!(e, InvalidDatasetPath::AnalysisTime(_))
        }),
        ("member0", "member+0", |e| {
            matches!(e, InvalidDatasetPath::Member(_))
        }),
    ];
    for (from, to, expected) in cases {
        let bad = good.replace(from, to);
        let error = bad.parse::<DatasetPath>().unwrap_err();
        assert!(expected(&error), "{bad}: {error}");
    }
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<i64>().prop_map(Number::Integer),
        any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(Number::Float),
        (-1800i32..1800).prop_map(|tenths| Number::Float(f64::from(tenths) / 10.0)),
    ]
}

fn resolution() -> impl Strategy<Value = Resolution> {
    let unit = prop_oneof![Just(Unit::M), Just(Unit::Km), Just(Unit::Deg)];
    (number(), number(), unit).prop_map(|(lon_resolution, lat_resolution, unit)| Resolution {
        lon_resolution,
        lat_resolution,
        unit,
    })
}

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_+-]([A-Za-z0-9_+-]|[.][A-Za-z0-9_+-]){0,12}"
}

proptest! {
    #[test]
    fn build_and_parse_are_inverse(
        names in (name(), name(), name()),
        edges in (number(), number(), number(), number()),
        resolution in resolution(),
        minutes in -1_000_000_000i64..4_000_000_000,
        member: u32,
    ) {
        let path = DatasetPath {
            model_name: names.0,
            model_config: names.1,
            bbox: BoundingBox {
                lon_min: edges.0,
                lat_min: edges.1,
                lon_max: edges.2,
                lat_max: edges.3,
            },
            resolution,
            analysis_time: AnalysisTime::from_unix_seconds(minutes * 60).unwrap(),
            member,
            data_kind: names.2,
        };
        let text = path.relative_path().unwrap();
        let read: DatasetPath = text.parse().unwrap();
        prop_assert_eq!(&read, &path);
        prop_assert_eq!(read.to_string(), text);
    }

    #[test]
    fn what_can_be_read_is_written_the_same(text in "\\PC{0,80}") {
        if let Ok(path) = text.parse::<DatasetPath>() {
            prop_assert_eq!(path.to_string(), text);
        }
    }
}
