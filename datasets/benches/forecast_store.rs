//! How fast windows become shards, beside zstd alone on the same bytes, and what adding a member to
//! the products of an ensemble takes. One window of a global grid of 542,080 points, twelve steps.
//!
//! `cargo bench -p mlwm-datasets`

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use mlwm_datasets::ensemble::{Ensemble, Product};
use mlwm_datasets::forecast_store::{ForecastStore, StoreOptions, VariableOptions, Windows};
use mlwm_datasets::{Dataset, Definition, Element, Values, Writer, ZarrFormat, time_attributes};
use mlwm_spec::{AnalysisTime, Digest};
use ndarray::{Array1, ArrayD, IxDyn};
use serde_json::Map;

const POINTS: usize = 542_080;
const STEPS: usize = 12;
const MEMBERS: u32 = 6;
const REPEATS: usize = 3;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let windows = Windows::new(AnalysisTime::UNIX_EPOCH, 21_600, 12, 259_200).unwrap();
    let members: Vec<Dataset> = (0..MEMBERS)
        .map(|member| window(&folder.path().join(format!("{member}")), &windows, member))
        .collect();
    let values = field(0).into_raw_vec_and_offset().0;
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let megabytes = bytes.len() as f64 / 1e6;
    println!("one window of one variable: {megabytes:.0} MB, best of {REPEATS}\n");
    println!("{:40} {:>8} {:>8}", "", "MB/s", "size");
    for level in [1, 3] {
        let mut size = 0;
        let time = best(|| size = zstd::bulk::compress(&bytes, level).unwrap().len());
        row(
            &format!("zstd level {level} alone, in memory"),
            megabytes,
            time,
            size as u64,
        );
    }
    let options = StoreOptions {
        variables: BTreeMap::from([("t2m".to_owned(), VariableOptions::default())]),
        ..StoreOptions::default()
    };
    let store = ForecastStore::plan(&members[0], windows, &options).unwrap();
    let target = folder.path().join("store");
    let mut size = 0;
    let time = best(|| {
        let written = store.write_window(&target, 0, &members[0]).unwrap();
        size = written.iter().map(|file| file.bytes).sum();
    });
    row("write_window, from store to store", megabytes, time, size);

    println!("\nadding a member to the products, mean of {}", MEMBERS - 1);
    println!("{:40} {:>8} {:>8} {:>10}", "", "s", "MB/s", "file");
    let percentiles = [10.0, 50.0, 90.0].map(Product::Percentile);
    for (name, products) in [
        ("mean, spread", vec![Product::Mean, Product::Spread]),
        ("minimum, maximum", vec![Product::Minimum, Product::Maximum]),
        ("a probability", vec![Product::Above(280.0)]),
        ("three percentiles", percentiles.to_vec()),
    ] {
        let products = BTreeMap::from([("t2m".to_owned(), products)]);
        let ensemble = Ensemble::new(&store, products).unwrap();
        let state = folder.path().join(name);
        let mut time = Duration::ZERO;
        for (member, dataset) in (0..).zip(&members) {
            let start = Instant::now();
            let digest = Digest::of(format!("{member}"));
            ensemble.add(&state, member, digest, 0, dataset).unwrap();
            // The first has nothing to read.
            if member > 0 {
                time += start.elapsed() / (MEMBERS - 1);
            }
        }
        let size = ensemble.path(&state, "t2m", 0).metadata().unwrap().len();
        println!(
            "{name:40} {:8.2} {:8.0} {:7.0} MB",
            time.as_secs_f64(),
            megabytes / time.as_secs_f64(),
            size as f64 / 1e6
        );
        let due: BTreeSet<u32> = (0..MEMBERS).collect();
        let output = ensemble.store(&due, &Map::new()).unwrap();
        let start = Instant::now();
        ensemble
            .write_window(&state, 0, &due, &output, &folder.path().join("products"))
            .unwrap();
        println!(
            "{:40} {:8.2}",
            "  writing them",
            start.elapsed().as_secs_f64()
        );
    }
}

/// A window with one variable, a chunk for each step.
fn window(path: &Path, windows: &Windows, member: u32) -> Dataset {
    let mut writer = Writer::create(path, ZarrFormat::V3, Map::new()).unwrap();
    let dims = [("time", STEPS as u64), ("cell", POINTS as u64)];
    let time = Definition::new("time", &dims[..1], Element::I64).attributes(time_attributes());
    let t2m = Definition::new("t2m", &dims, Element::F32).chunks(&[1, POINTS as u64]);
    writer.define(&time).unwrap();
    writer.define(&t2m).unwrap();
    let times = (0..STEPS as u64).map(|step| windows.valid_time(step));
    let times = Array1::from_iter(times).into_dyn();
    writer.write("time", Values::I64(times)).unwrap();
    writer.write("t2m", Values::F32(field(member))).unwrap();
    writer.finish().unwrap();
    Dataset::open(path).unwrap()
}

/// Waves of several lengths with some noise, around 280.
fn field(member: u32) -> ArrayD<f32> {
    let mut noise = 0x9e37_79b9_u32.wrapping_mul(member + 1);
    ArrayD::from_shape_fn(IxDyn(&[STEPS, POINTS]), |index| {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        let (step, place) = (index[0] as f32, index[1] as f32 / 1000.0);
        let waves = 12.0 * (place / 90.0 + step / 7.0).sin() + 3.0 * (place * 1.7).sin();
        280.0 + waves + 0.02 * (noise as f32 / u32::MAX as f32) + 0.1 * member as f32
    })
}

fn best(mut run: impl FnMut()) -> Duration {
    let timed = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..REPEATS).map(timed).min().unwrap_or_default()
}

fn row(name: &str, megabytes: f64, time: Duration, size: u64) {
    let (speed, size) = (
        megabytes / time.as_secs_f64(),
        size as f64 / 1e4 / megabytes,
    );
    println!("{name:40} {speed:8.0} {size:6.0} %");
}
