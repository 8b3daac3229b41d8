//! What of each variable is there at each time.

use std::collections::BTreeSet;

use mlwm_datasets::{Element, Variable};

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
        absent: lost(variable),
    };
    if variable.element() == Element::Text {
        return Ok(presence);
    }
    let blocks = Blocks::of(variable, dimension);
    let start = |lost: &Lost| lost.ranges.iter().map(|range| range.start).collect();
    let absent: BTreeSet<Vec<u64>> = presence.absent.iter().map(start).collect();
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

fn part(block: &Block, absent: &BTreeSet<Vec<u64>>, axis: Option<usize>) -> Part {
    let mut start: Vec<u64> = block.place.iter().map(|range| range.start).collect();
    if let Some(axis) = axis {
        start.insert(axis, block.times.start);
    }
    let is_absent = absent.contains(&start);
    let mut part = Part {
        start: block.times.start as usize,
        missing: Vec::new(),
        infinite: 0,
        low: f64::INFINITY,
        high: f64::NEG_INFINITY,
    };
    for row in block.values.chunks(block.points.max(1)) {
        let mut missing = 0;
        for &value in row {
            if value.is_nan() || is_absent {
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
