//! Published stores, compared with what xarray and zarr-python find in them.

mod layout;
mod refusals;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlwm_spec::{AnalysisTime, ExitCode};
use ndarray::{Array1, ArrayD, IxDyn};
use serde_json::{Map, json};

use super::{
    BadValue, ForecastStore, Missing, StoreError, StoreOptions, StoredAs, VariableOptions, Windows,
};
use crate::testing::{files, python_json};
use crate::{
    Dataset, Definition, Element, Values, Writer, ZarrFormat, duration_attributes, time_attributes,
};

const HOUR: i64 = 3600;
const STEPS: u64 = 10;
const SHAPE: [u64; 3] = [2, 5, 4];

fn analysis() -> AnalysisTime {
    "2026-06-04T00:00Z".parse().unwrap()
}

/// Ten steps of six hours in windows of a day: 4, 4 and 2 steps.
fn windows() -> Windows {
    Windows::new(analysis(), 6 * HOUR as u64, STEPS, 24 * HOUR as u64).unwrap()
}

/// How a model writes its windows.
#[derive(Clone, Copy, Debug)]
struct Style {
    format: ZarrFormat,
    /// Dimensions `analysis_time` and `elapsed_forecast_duration` instead of `time`.
    is_elapsed: bool,
    /// Steps in a chunk.
    rows: u64,
    /// Columns in a chunk.
    columns: u64,
    element: Element,
}

const PLAIN: Style = Style {
    format: ZarrFormat::V3,
    is_elapsed: false,
    rows: 1,
    columns: 4,
    element: Element::F32,
};

const STYLES: [Style; 3] = [
    PLAIN,
    Style {
        format: ZarrFormat::V2,
        is_elapsed: true,
        rows: 4,
        columns: 4,
        ..PLAIN
    },
    Style {
        rows: 3,
        columns: 3,
        element: Element::F64,
        ..PLAIN
    },
];

/// A window as a model writes it, and ways to spoil it.
struct Made {
    style: Style,
    /// The lead times of its steps, in steps from 1.
    leads: Vec<u64>,
    analysis: i64,
    latitude: f64,
    spoil: fn(usize, usize, f64) -> f64,
}

impl Made {
    fn new(style: Style, window: u64) -> Self {
        Self {
            style,
            leads: windows().steps(window).map(|step| step + 1).collect(),
            analysis: analysis().unix_seconds(),
            latitude: 55.0,
            spoil: |_, _, value| value,
        }
    }

    fn write(&self, path: &Path) -> Dataset {
        let Style {
            format, is_elapsed, ..
        } = self.style;
        let attributes = Map::from_iter([("title".to_owned(), json!("a model"))]);
        let mut writer = Writer::create(path, format, attributes).unwrap();
        let n = self.leads.len() as u64;
        let leads: Vec<i64> = self.leads.iter().map(|k| *k as i64 * 6 * HOUR).collect();
        let valid = leads.iter().map(|lead| self.analysis + lead).collect();
        let put = |writer: &mut Writer, name: &str, dims: &[(&str, u64)], values: Vec<i64>| {
            let attributes = match name {
                "elapsed_forecast_duration" => duration_attributes(),
                _ => time_attributes(),
            };
            let definition = Definition::new(name, dims, Element::I64).attributes(attributes);
            writer.define(&definition).unwrap();
            let shape: Vec<usize> = dims.iter().map(|(_, n)| *n as usize).collect();
            let values = ArrayD::from_shape_vec(shape, values).unwrap();
            writer.write(name, Values::I64(values)).unwrap();
        };
        let step = match is_elapsed {
            true => ("elapsed_forecast_duration", n),
            false => ("time", n),
        };
        let once = ("analysis_time", 1);
        let (outer, times): (&[_], &[_]) = match is_elapsed {
            true => (&[once], &[once, step]),
            false => (&[], &[step]),
        };
        put(&mut writer, "time", times, valid);
        put(&mut writer, "elapsed_forecast_duration", &[step], leads);
        put(&mut writer, "analysis_time", outer, vec![self.analysis]);
        let [levels, y, x] = SHAPE;
        for (name, length, first) in [("level", levels, 500.0), ("y", y, self.latitude)] {
            let definition = Definition::new(name, &[(name, length)], Element::F64);
            writer.define(&definition).unwrap();
            let values = Array1::linspace(first, first + 1.0, length as usize).into_dyn();
            writer.write(name, Values::F64(values)).unwrap();
        }
        for (number, name) in ["t2m", "z", "sd"].into_iter().enumerate() {
            let mut dims = times.to_vec();
            if name == "z" {
                dims.push(("level", levels));
            }
            dims.extend([("y", y), ("x", x)]);
            let mut chunks: Vec<u64> = dims.iter().map(|(_, n)| *n).collect();
            *chunks.last_mut().unwrap() = self.style.columns;
            chunks[times.len() - 1] = self.style.rows;
            let definition = Definition::new(name, &dims, self.style.element)
                .chunks(&chunks)
                .attribute("units", "1")
                .attribute("coordinates", "analysis_time");
            writer.define(&definition).unwrap();
            let shape: Vec<usize> = dims.iter().map(|(_, n)| *n as usize).collect();
            let values = ArrayD::from_shape_fn(IxDyn(&shape), |index| {
                let lead = self.leads[index[times.len() - 1]] as usize;
                let column = index[dims.len() - 1];
                let rest: usize = (times.len()..dims.len())
                    .fold(0, |sum, axis| sum * dims[axis].1 as usize + index[axis]);
                let value = match name == "sd" && column == 0 {
                    true => f64::NAN,
                    false => (1000 * number + 10 * lead + rest) as f64,
                };
                (self.spoil)(number, lead, value)
            });
            let values = match self.style.element {
                Element::F64 => Values::F64(values),
                _ => Values::F32(values.mapv(|value| value as f32)),
            };
            writer.write(name, values).unwrap();
        }
        writer.finish().unwrap();
        Dataset::open(path).unwrap()
    }
}

/// Where `sd` is missing.
fn mask() -> Missing {
    Missing::Within(Arc::from_iter((0..20).map(|point| point % 4 == 0)))
}

fn options() -> StoreOptions {
    let sd = VariableOptions {
        missing: mask(),
        ..VariableOptions::default()
    };
    StoreOptions {
        variables: BTreeMap::from([
            ("t2m".to_owned(), VariableOptions::default()),
            ("z".to_owned(), VariableOptions::default()),
            ("sd".to_owned(), sd),
        ]),
        attributes: Map::from_iter([("member".to_owned(), json!(3))]),
        ..StoreOptions::default()
    }
}

/// Publishes windows in an order, the plan made from the first of them.
fn publish(folder: &Path, name: &str, style: Style, order: &[u64]) -> PathBuf {
    let made: Vec<Dataset> = order
        .iter()
        .map(|&window| {
            let path = folder.join(format!("{name}.{window}"));
            Made::new(style, window).write(&path)
        })
        .collect();
    let store = ForecastStore::plan(&made[0], windows(), &options()).unwrap();
    let target = folder.join(name);
    for (window, dataset) in order.iter().zip(&made) {
        let written = store.write_window(&target, *window, dataset).unwrap();
        let bytes: u64 = written.iter().map(|file| file.bytes).sum();
        assert!(bytes <= store.expected_bytes(*window));
        for file in written {
            let length = std::fs::metadata(target.join(&file.path)).unwrap().len();
            assert_eq!(length, file.bytes, "{}", file.path);
        }
    }
    store.finish(&target).unwrap();
    target
}
