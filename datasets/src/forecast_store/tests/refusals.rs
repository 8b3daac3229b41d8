//! What must not be published.

use super::*;

#[test]
fn windows_that_would_write_a_file_twice_are_refused() {
    let wrong = |step, steps, window| {
        let error = Windows::new(analysis(), step, steps, window).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::BadConfiguration);
        error.to_string()
    };
    assert!(wrong(21_600, 10, 31 * 3600).contains("not a whole number of steps"));
    assert!(wrong(0, 10, 3600).contains("positive"));
    assert!(wrong(3600, 0, 3600).contains("positive"));
    assert!(wrong(u64::MAX / 2, 10, u64::MAX / 2).contains("too long"));
    let folder = tempfile::tempdir().unwrap();
    let window = Made::new(PLAIN, 0).write(&folder.path().join("w"));
    let refused = [(6, 24), (0, 30), (24, 24), (48, 24), (24, 72), (60, 66)];
    for (from, to) in refused {
        let options = StoreOptions {
            hours: Some(from..to),
            ..options()
        };
        let error = ForecastStore::plan(&window, windows(), &options).unwrap_err();
        assert!(matches!(error, StoreError::Windows(_)), "{error}");
    }
}

#[test]
fn narrow_types_are_decoded_by_xarray_and_too_large_values_refused() {
    let folder = tempfile::tempdir().unwrap();
    let declared = |stored| StoreOptions {
        variables: BTreeMap::from([(
            "sd".to_owned(),
            VariableOptions {
                stored,
                missing: Missing::Anywhere,
                range: None,
            },
        )]),
        ..StoreOptions::default()
    };
    let packed = StoredAs::Int16 {
        scale: 0.125,
        offset: 2000.0,
    };
    for (number, stored) in [StoredAs::Float16, packed].into_iter().enumerate() {
        let target = folder.path().join(format!("store{number}"));
        let mut store = None;
        for window in 0..3 {
            let mut made = Made::new(PLAIN, window);
            made.spoil = |_, _, value| value + 0.25;
            let dataset = made.write(&folder.path().join(format!("{number}-{window}")));
            let planned = ForecastStore::plan(&dataset, windows(), &declared(stored)).unwrap();
            planned.write_window(&target, window, &dataset).unwrap();
            store = Some(planned);
        }
        store.unwrap().finish(&target).unwrap();
        let read = python_json(
            r#"
import json, sys, numpy as np, xarray as xr, zarr
v = xr.open_zarr(sys.argv[1]).sd
k = np.arange(1, 11).reshape(-1, 1, 1)
exact = 2000.25 + 10 * k + np.arange(20).reshape(5, 4)
exact[..., 0] = np.nan
raw = zarr.open_group(sys.argv[1])["sd"].dtype
print(json.dumps([str(raw), bool((v.isnull() == np.isnan(exact)).all()),
    float(np.nanmax(abs(v.values - exact))), bool(np.array_equal(
        v.values, exact.astype("f2").astype(v.dtype), equal_nan=True))]))
"#,
            &[&target],
        );
        let mlwm = Dataset::open(&target).unwrap();
        let plane = mlwm.variable("sd").unwrap().read().unwrap();
        let plane = plane.into_f64().unwrap();
        assert!(plane[[0, 0, 0]].is_nan());
        match number {
            0 => assert_eq!((&read[0], &read[3]), (&json!("float16"), &json!(true))),
            _ => {
                assert_eq!(read, json!(["int16", true, 0.0, false]));
                assert_eq!(plane[[0, 0, 1]], 2011.25);
            }
        }
    }
    for (stored, value) in [
        (StoredAs::Float16, 101_325.0),
        (packed, 2000.0 + 0.125 * 32_768.0),
        (packed, 1e30),
        (StoredAs::Float32, 1e39),
    ] {
        let mut made = Made::new(STYLES[2], 0);
        made.spoil = match value {
            101_325.0 => |_, lead, value| if lead == 3 { 101_325.0 } else { value },
            1e30 => |_, lead, value| if lead == 3 { 1e30 } else { value },
            1e39 => |_, lead, value| if lead == 3 { 1e39 } else { value },
            _ => |_, lead, value| if lead == 3 { 2000.0 + 4096.0 } else { value },
        };
        let path = folder.path().join(format!("{value}"));
        let dataset = made.write(&path);
        let store = ForecastStore::plan(&dataset, windows(), &declared(stored)).unwrap();
        let target = folder.path().join("overflow");
        let error = store.write_window(&target, 0, &dataset).unwrap_err();
        let text = error.to_string();
        let StoreError::Value {
            problem: BadValue::Overflow(_),
            lead,
            ..
        } = error
        else {
            panic!("{text}");
        };
        assert_eq!(lead, "18 h");
        assert!(
            text.contains("`sd`") && text.contains(&value.to_string()),
            "{text}"
        );
        std::fs::remove_dir_all(&path).unwrap();
    }
}

#[test]
fn a_window_that_is_not_the_one_that_is_due_is_refused() {
    type Change = fn(&mut Made);
    let cases: [(&str, Change); 8] = [
        ("step 1 of the window", |made| made.leads = vec![5, 6, 7, 8]),
        ("step 3 of the window", |made| made.leads = vec![1, 2, 2, 3]),
        ("has 3 steps", |made| made.leads = vec![1, 2, 3]),
        ("has 5 steps", |made| made.leads = vec![1, 2, 3, 4, 5]),
        ("2026-06-03T00:00Z", |made| made.analysis -= 24 * HOUR),
        ("coordinate `y`", |made| made.latitude = 56.0),
        ("dimensions", |made| made.style.is_elapsed = true),
        ("`sd`", |made| {
            made.spoil = |_, _, value| if value.is_nan() { value } else { f64::NAN };
        }),
    ];
    let folder = tempfile::tempdir().unwrap();
    let good = Made::new(PLAIN, 0).write(&folder.path().join("good"));
    let store = ForecastStore::plan(&good, windows(), &options()).unwrap();
    let target = folder.path().join("store");
    for (number, (expected, change)) in cases.into_iter().enumerate() {
        let mut made = Made::new(PLAIN, 0);
        change(&mut made);
        let dataset = made.write(&folder.path().join(number.to_string()));
        let error = store.write_window(&target, 0, &dataset).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Incomplete, "{error}");
        let is_layout = made.style.is_elapsed;
        assert!(
            is_layout || error.to_string().contains(expected),
            "{expected}: {error}"
        );
        assert!(!target.join("sd").exists() || files(&target).is_empty());
    }
    let unwritten = folder.path().join("good/z/c/2/0/0/0");
    std::fs::remove_file(unwritten).unwrap();
    let error = store
        .write_window(&target, 0, &good)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`z`") && error.contains("never written"),
        "{error}"
    );
}

#[test]
fn values_that_must_not_be_published_are_refused_and_leave_no_file() {
    type Spoil = fn(usize, usize, f64) -> f64;
    let cases: [(Spoil, &str, f64); 4] = [
        (
            |n, k, v| if (n, k) == (0, 2) { f64::NAN } else { v },
            "missing",
            f64::NAN,
        ),
        (
            |n, k, v| if (n, k) == (0, 2) { f64::INFINITY } else { v },
            "finite",
            f64::INFINITY,
        ),
        (
            |n, k, v| if (n, k) == (0, 2) { 500.0 } else { v },
            "range",
            500.0,
        ),
        (
            |n, k, v| if (n, k) == (0, 2) { -0.5 } else { v },
            "range",
            -0.5,
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (number, (spoil, expected, bad)) in cases.into_iter().enumerate() {
        let mut made = Made::new(PLAIN, 0);
        made.spoil = spoil;
        let dataset = made.write(&folder.path().join(number.to_string()));
        let mut options = options();
        options.variables.get_mut("t2m").unwrap().range = Some([0.0, 400.0]);
        let store = ForecastStore::plan(&dataset, windows(), &options).unwrap();
        let target = folder.path().join(format!("store{number}"));
        let error = store.write_window(&target, 0, &dataset).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains("12 h"), "{text}");
        let StoreError::Value {
            value, variable, ..
        } = error
        else {
            panic!("{text}");
        };
        assert_eq!((variable.as_str(), value.to_bits()), ("t2m", bad.to_bits()));
        let left = files(&target);
        assert!(
            left.keys().all(|path| path.starts_with("sd")),
            "{:?}",
            left.keys()
        );
        assert!(Dataset::open(&target).is_err(), "it cannot be opened");
    }
}

#[test]
fn declarations_that_cannot_be_written_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let window = Made::new(PLAIN, 0).write(&folder.path().join("w"));
    let plan = |name: &str, declared: VariableOptions| {
        let mut options = options();
        options.variables.insert(name.to_owned(), declared);
        ForecastStore::plan(&window, windows(), &options).unwrap_err()
    };
    let short = VariableOptions {
        missing: Missing::Within(Arc::from([true; 7])),
        ..VariableOptions::default()
    };
    assert!(plan("t2m", short).to_string().contains("7 points"));
    let flat = VariableOptions {
        stored: StoredAs::Int16 {
            scale: 0.0,
            offset: 0.0,
        },
        ..VariableOptions::default()
    };
    assert_eq!(plan("t2m", flat).exit_code(), ExitCode::BadConfiguration);
    let static_field = plan("y", VariableOptions::default());
    assert!(
        static_field.to_string().contains("no dimension"),
        "{static_field}"
    );
    let absent = plan("tp", VariableOptions::default());
    assert_eq!(absent.exit_code(), ExitCode::Incomplete);
    assert!(absent.to_string().contains("`tp`"), "{absent}");
}
