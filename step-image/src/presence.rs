//! What of each variable is there at each time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use mlwm_datasets::{Element, Variable};
use ndarray::{ArrayViewMutD, IxDyn, Slice};

use crate::Fault;
use crate::blocks::{Block, Blocks};
use crate::lost::{Lost, lost};

/// What was found in a variable.
pub(crate) struct Presence {
    /// At each time, or once of a variable without times: how many values are missing.
    pub(crate) missing: Vec<u64>,
    /// How many values there are at a time.
    pub(crate) points: u64,
    /// How many values are infinite.
    pub(crate) infinite: u64,
    /// Least and greatest value; none without any.
    pub(crate) extremes: Option<(f64, f64)>,
    /// The chunks that were never written.
    pub(crate) absent: Vec<Lost>,
}

impl Presence {
    /// How much is there at each time, from 0 to 1.
    pub(crate) fn parts(&self) -> Vec<f64> {
        let part = |missing: &u64| 1.0 - *missing as f64 / self.points.max(1) as f64;
        self.missing.iter().map(part).collect()
    }

    /// How many values are missing.
    pub(crate) fn count(&self) -> u64 {
        self.missing.iter().sum()
    }
}

/// What is known of a block.
struct Part {
    start: usize,
    missing: Vec<u64>,
    infinite: u64,
    low: f64,
    high: f64,
}

/// Reads a variable of numbers. What lies in chunks that were never written counts as missing.
pub(crate) fn presence(
    variable: &Variable,
    dimension: &str,
    threads: usize,
) -> Result<Presence, Fault> {
    let axis = variable.dims().iter().position(|dim| dim == dimension);
    let times = axis.map_or(1, |axis| variable.shape()[axis]) as usize;
    let all: u64 = variable.shape().iter().product();
    let mut presence = Presence {
        missing: vec![0; times],
        points: all / times.max(1) as u64,
        infinite: 0,
        extremes: None,
        absent: lost(variable)?,
    };
    if variable.element() == Element::Text {
        return Ok(presence);
    }
    let blocks = Blocks::of(variable, dimension);
    let chunks = variable.chunk_shape();
    let mut absent: BTreeMap<Vec<u64>, Vec<Vec<Range<u64>>>> = BTreeMap::new();
    for lost in &presence.absent {
        let along = lost.ranges.iter().zip(&chunks);
        let block = along.map(|(range, chunk)| range.start / chunk * chunk);
        let there = absent.entry(block.collect()).or_default();
        there.push(lost.ranges.clone());
    }
    let find = |block: &Block| Ok(part(block, &absent, axis));
    blocks.each(threads, find, |part: Part| {
        for (at, missing) in part.missing.iter().enumerate() {
            presence.missing[part.start + at] += missing;
        }
        presence.infinite += part.infinite;
        if part.low <= part.high {
            let (low, high) = presence.extremes.unwrap_or((part.low, part.high));
            presence.extremes = Some((low.min(part.low), high.max(part.high)));
        }
    })?;
    Ok(presence)
}

fn part(
    block: &Block,
    absent: &BTreeMap<Vec<u64>, Vec<Vec<Range<u64>>>>,
    axis: Option<usize>,
) -> Part {
    let mut start: Vec<u64> = block.place.iter().map(|range| range.start).collect();
    if let Some(axis) = axis {
        start.insert(axis, block.times.start);
    }
    let values = match absent.get(&start) {
        None => Cow::Borrowed(&block.values),
        Some(lost) => Cow::Owned(without(block, lost, axis)),
    };
    let mut part = Part {
        start: block.times.start as usize,
        missing: Vec::new(),
        infinite: 0,
        low: f64::INFINITY,
        high: f64::NEG_INFINITY,
    };
    for row in values.chunks(block.points.max(1)) {
        let mut missing = 0;
        for &value in row {
            if value.is_nan() {
                missing += 1;
            } else if value.is_infinite() {
                part.infinite += 1;
            } else {
                part.low = part.low.min(value);
                part.high = part.high.max(value);
            }
        }
        part.missing.push(missing);
    }
    part
}

/// The values of a block, with NaN where chunks are not there.
fn without(block: &Block, lost: &[Vec<Range<u64>>], axis: Option<usize>) -> Vec<f64> {
    let mut values = block.values.clone();
    // The time comes first in a block, if there is one.
    let first = |mut ranges: Vec<Range<u64>>| {
        if let Some(axis) = axis {
            let times = ranges.remove(axis);
            ranges.insert(0, times);
        }
        ranges
    };
    let times = axis.map(|_| block.times.clone());
    let held: Vec<Range<u64>> = times
        .into_iter()
        .chain(block.place.iter().cloned())
        .collect();
    let shape: Vec<usize> = held
        .iter()
        .map(|range| (range.end - range.start) as usize)
        .collect();
    let view = ArrayViewMutD::from_shape(IxDyn(&shape), &mut values);
    // A block has the shape of its ranges.
    if let Ok(mut view) = view {
        for ranges in lost {
            let ranges = first(ranges.clone());
            let slice = |axis: usize| {
                let (range, held) = (&ranges[axis], &held[axis]);
                Slice::from((range.start - held.start) as usize..(range.end - held.start) as usize)
            };
            view.slice_each_axis_mut(|described| slice(described.axis.index()))
                .fill(f64::NAN);
        }
    }
    values
}
