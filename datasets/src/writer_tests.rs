//! Writing, compared with what xarray reads.

use std::ops::Range;
use std::path::Path;

use ndarray::{Array1, ArrayD, IxDyn, Slice};
use serde_json::{Map, json};

use crate::testing::{files, python_json};
use crate::{
    Dataset, Definition, Element, Error, Values, Writer, ZarrFormat, duration_attributes,
    time_attributes,
};

const FORMATS: [ZarrFormat; 2] = [ZarrFormat::V2, ZarrFormat::V3];

/// What xarray reads: with consolidated metadata, times, durations and coordinates decoded.
const READ: &str = r#"
import json, sys, warnings, numpy as np, xarray as xr
warnings.simplefilter("error")
ds = xr.open_zarr(sys.argv[1], consolidated=True)
plain = xr.open_zarr(sys.argv[1], consolidated=False)
assert plain.identical(ds)
print(json.dumps({
    "attributes": ds.attrs,
    "coordinates": sorted(ds.coords),
    "variables": {
        name: {
            "dims": v.dims, "dtype": str(v.dtype), "attributes": v.attrs, "missing": int(v.isnull().sum()),
            "values": [str(x) for x in v.values.ravel()[:6]],
            "chunks": v.encoding["chunks"],
        } for name, v in ds.variables.items()
    },
}))
"#;

/// A field in the shape of a forecast: (time, y, x) = (5, 7, 6), with a missing value.
fn field() -> ArrayD<f32> {
    let mut values = ArrayD::from_shape_fn(IxDyn(&[5, 7, 6]), |index| {
        280.0 + (index[0] * 100 + index[1] * 10 + index[2]) as f32 / 8.0
    });
    values[[0, 0, 1]] = f32::NAN;
    values
}

/// A part of a field.
fn part(field: &ArrayD<f32>, ranges: [Range<usize>; 3]) -> ArrayD<f32> {
    field
        .slice_each_axis(|axis| Slice::from(ranges[axis.axis.index()].clone()))
        .to_owned()
}

fn write_forecast(path: &Path, format: ZarrFormat) -> Result<(), Error> {
    let attributes = Map::from_iter([("title".to_owned(), json!("a forecast"))]);
    let mut writer = Writer::create(path, format, attributes)?;
    let time = Definition::new("time", &[("time", 5)], Element::I64)
        .attributes(time_attributes())
        .attribute("standard_name", "time");
    let lead = Definition::new("lead_time", &[("time", 5)], Element::I64)
        .attributes(duration_attributes());
    let x = Definition::new("x", &[("x", 6)], Element::F64).attribute("units", "m");
    let names = Definition::new("station", &[("y", 7)], Element::Text);
    let member = Definition::new("member", &[], Element::I64);
    let t2m = Definition::new("t2m", &[("time", 5), ("y", 7), ("x", 6)], Element::F32)
        .chunks(&[2, 4, 6])
        .attribute("units", "K")
        .attribute("coordinates", "lead_time station member");
    for definition in [&time, &lead, &x, &names, &member, &t2m] {
        writer.define(definition)?;
    }
    let hours = Array1::from_iter((0..5).map(|hour| 1_649_300_400 + hour * 3600)).into_dyn();
    let leads = Array1::from_iter((1..6).map(|hour| hour * 3600)).into_dyn();
    writer.write("time", Values::I64(hours))?;
    writer.write("lead_time", Values::I64(leads))?;
    writer.write("x", Values::F64(Array1::linspace(0.0, 1.0, 6).into_dyn()))?;
    let names = ["", "å∂ 😀", "c", "d", "e", "f", "g"].map(str::to_owned);
    writer.write("station", Values::Text(Array1::from_iter(names).into_dyn()))?;
    writer.write("member", Values::I64(ArrayD::from_elem(IxDyn(&[]), 3)))?;
    let field = field();
    std::thread::scope(|scope| {
        let blocks: Vec<_> = [0..2usize, 2..4, 4..5]
            .into_iter()
            .flat_map(|times| [(times.clone(), 0..4usize), (times, 4..7)])
            .map(|(times, rows)| {
                let values = Values::F32(part(&field, [times.clone(), rows.clone(), 0..6]));
                let start = [times.start as u64, rows.start as u64, 0];
                let writer = &writer;
                scope.spawn(move || writer.write_block("t2m", &start, values))
            })
            .collect();
        blocks
            .into_iter()
            .try_for_each(|block| block.join().unwrap())
    })?;
    writer.finish()
}

#[test]
fn xarray_reads_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    for format in FORMATS {
        let path = folder.path().join(format!("below/{format:?}.zarr"));
        write_forecast(&path, format).unwrap();
        let read = python_json(READ, &[&path]);
        assert_eq!(read["attributes"], json!({"title": "a forecast"}));
        let coordinates = json!(["lead_time", "member", "station", "time", "x"]);
        assert_eq!(read["coordinates"], coordinates);
        let variable = |name: &str| &read["variables"][name];
        let time = variable("time");
        assert_eq!(time["values"][1], json!("2022-04-07T04:00:00.000000000"));
        assert_eq!(time["attributes"], json!({"standard_name": "time"}));
        assert_eq!(variable("lead_time")["dtype"], json!("timedelta64[ns]"));
        assert_eq!(
            variable("lead_time")["values"][0],
            json!("3600000000000 nanoseconds")
        );
        assert_eq!(variable("x")["values"][1], json!("0.2"));
        assert_eq!(variable("x")["attributes"], json!({"units": "m"}));
        assert_eq!(variable("station")["values"][1], json!("å∂ 😀"));
        assert_eq!(variable("station")["missing"], json!(0));
        assert_eq!(variable("member")["values"], json!(["3"]));
        let t2m = variable("t2m");
        assert_eq!(t2m["dims"], json!(["time", "y", "x"]));
        assert_eq!(t2m["dtype"], json!("float32"));
        assert_eq!(t2m["attributes"], json!({"units": "K"}));
        assert_eq!(
            (&t2m["missing"], &t2m["chunks"]),
            (&json!(1), &json!([2, 4, 6]))
        );
        assert_eq!(t2m["values"][2], json!("280.25"));
    }
}

#[test]
fn what_is_written_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for format in FORMATS {
        let path = folder.path().join(format!("{format:?}.zarr"));
        write_forecast(&path, format).unwrap();
        let dataset = Dataset::open(&path).unwrap();
        assert_eq!(dataset.format(), format);
        assert_eq!(dataset.times("time").unwrap()[4], 1_649_314_800);
        assert_eq!(
            dataset.durations("lead_time").unwrap(),
            [3600, 7200, 10800, 14400, 18000]
        );
        assert_eq!(dataset.texts("station").unwrap()[1], "å∂ 😀");
        let t2m = dataset.variable("t2m").unwrap();
        assert_eq!(t2m.chunk_shape(), [2, 4, 6]);
        assert_eq!(t2m.text_attribute("units"), Some("K"));
        let bits = |values: ArrayD<f32>| values.mapv(f32::to_bits);
        assert_eq!(bits(t2m.read().unwrap().into_f32().unwrap()), bits(field()));
        let read = t2m
            .read_range(&[1..3, 2..7, 5..6])
            .unwrap()
            .into_f32()
            .unwrap();
        assert_eq!(read, part(&field(), [1..3, 2..7, 5..6]));
        assert_eq!(
            t2m.read_range(&[1..1, 0..7, 0..6]).unwrap().shape(),
            [0, 7, 6]
        );
        assert!(matches!(
            t2m.read_range(&[0..6, 0..7, 0..6]),
            Err(Error::Range { .. })
        ));
        assert!(matches!(
            t2m.read_range(&[0..5, 0..7]),
            Err(Error::Range { .. })
        ));
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for format in FORMATS {
        let [one, two] = ["one", "two"].map(|name| folder.path().join(format!("{name}{format:?}")));
        write_forecast(&one, format).unwrap();
        write_forecast(&two, format).unwrap();
        let written = files(&one);
        assert_eq!(
            written.len(),
            if format == ZarrFormat::V2 { 26 } else { 18 }
        );
        assert_eq!(written, files(&two));
        let root = if format == ZarrFormat::V2 {
            ".zmetadata"
        } else {
            "zarr.json"
        };
        let modified = |path: &Path| std::fs::metadata(path).unwrap().modified().unwrap();
        let last = modified(&one.join(root));
        assert!(written.keys().all(|file| modified(&one.join(file)) <= last));
    }
}

#[test]
fn an_unfinished_store_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    for format in FORMATS {
        let path = folder.path().join(format!("{format:?}.zarr"));
        let mut writer = Writer::create(&path, format, Map::new()).unwrap();
        let definition = Definition::new("t2m", &[("time", 4)], Element::F32).chunks(&[2]);
        writer.define(&definition).unwrap();
        let block = Values::F32(ArrayD::zeros(IxDyn(&[2])));
        writer.write_block("t2m", &[2], block).unwrap();
        assert!(matches!(Dataset::open(&path), Err(Error::NotZarr { .. })));
        let error = writer.finish().unwrap_err().to_string();
        assert!(error.contains("chunk") && error.contains("t2m"), "{error}");
        assert!(matches!(Dataset::open(&path), Err(Error::NotZarr { .. })));
        assert!(matches!(
            Writer::create(&path, format, Map::new()),
            Err(Error::Exists { .. })
        ));
    }
}

#[test]
fn values_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("refused.zarr");
    let mut writer = Writer::create(&path, ZarrFormat::V3, Map::new()).unwrap();
    let good = Definition::new("t2m", &[("time", 5)], Element::F32).chunks(&[2]);
    writer.define(&good).unwrap();
    writer
        .define(&Definition::new("names", &[("time", 5)], Element::Text))
        .unwrap();
    let other = |change: fn(&mut Definition)| {
        let mut definition = Definition::new("u10m", &[("y", 5), ("x", 2)], Element::F32);
        change(&mut definition);
        definition
    };
    for definition in [
        good.clone(),
        other(|d| d.dims[0] = "time".to_owned()).chunks(&[5]),
        other(|d| d.chunks[0] = 0),
        other(|d| d.chunks[0] = 1 << 40),
        other(|d| d.name = "../u10m".to_owned()),
        other(|d| d.name = "zarr.json".to_owned()),
        other(|d| d.dims[1] = "y".to_owned()),
        other(|d| (d.dims[0], d.shape[0]) = ("time".to_owned(), 6)),
        other(|d| (d.element, d.chunks[0]) = (Element::Text, 2)),
        other(|_| ()).attribute("scale_factor", 0.1),
    ] {
        let result = writer.define(&definition);
        assert!(
            matches!(result, Err(Error::Definition { .. })),
            "{definition:?}"
        );
    }
    let zeros = |length: usize| Values::F32(ArrayD::zeros(IxDyn(&[length])));
    for (start, length) in [(1, 2), (0, 3), (4, 2), (0, 6), (6, 0), (u64::MAX, 2)] {
        let result = writer.write_block("t2m", &[start], zeros(length));
        assert!(
            matches!(result, Err(Error::Definition { .. })),
            "{start} {length}"
        );
    }
    writer.write_block("t2m", &[4], zeros(1)).unwrap();
    let wrong = [
        writer.write("t2m", Values::F64(ArrayD::zeros(IxDyn(&[5])))),
        writer.write("t2m", zeros(4)),
        writer.write("nothing", zeros(5)),
        writer.write("names", zeros(5)),
        writer.write_block("t2m", &[0, 0], zeros(2)),
    ];
    for result in wrong {
        assert!(
            matches!(result, Err(Error::Definition { .. })),
            "{result:?}"
        );
    }
    assert_eq!(files(&path).len(), 1, "only the one good block is written");
}
