//! The statistics of one variable.

use mlwm_datasets::Variable;
use ndarray::{ArrayD, ArrayViewD, Slice};

use super::moments::Moments;
use crate::Fault;
use crate::blocks::{Block, Blocks};

/// Of values, and of their changes from one time to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Both {
    pub(super) values: Moments,
    pub(super) changes: Moments,
}

impl Both {
    const NONE: Self = Self {
        values: Moments::NONE,
        changes: Moments::NONE,
    };

    fn add(&mut self, other: &Self) {
        self.values.add(&other.values);
        self.changes.add(&other.changes);
    }
}

/// What is known of a variable.
pub(super) struct Found {
    pub(super) all: Both,
    /// Of each point, without the dimension of the times.
    pub(super) points: Option<ArrayD<Both>>,
}

/// What is known of a block.
struct Part {
    all: Both,
    points: Vec<Both>,
    first: Vec<f64>,
    last: Vec<f64>,
    start: u64,
    place: Vec<std::ops::Range<u64>>,
}

/// Reads a variable; `each_point` to know it of each point too.
pub(super) fn gather(
    variable: &Variable,
    dimension: &str,
    each_point: bool,
    threads: usize,
) -> Result<Found, Fault> {
    let blocks = Blocks::of(variable, dimension);
    let each_point = each_point && blocks.has_times();
    let mut shape: Vec<usize> = variable
        .shape()
        .iter()
        .map(|&length| length as usize)
        .collect();
    if let Some(axis) = variable.dims().iter().position(|dim| dim == dimension) {
        shape.remove(axis);
    }
    let mut all = Both::NONE;
    let mut points = each_point.then(|| ArrayD::from_elem(shape, Both::NONE));
    // The last values of the block before, if it has the same place.
    let mut before: Vec<f64> = Vec::new();
    let find = |block: &Block| part(variable, block, each_point);
    blocks.each(threads, find, |part: Part| {
        let mut here = part.points;
        if part.start > 0 {
            let changes = before
                .iter()
                .zip(&part.first)
                .map(|(before, first)| first - before);
            all.changes.add(&known(changes.clone()));
            for (point, change) in here.iter_mut().zip(changes) {
                let mut joint = known([change].into_iter());
                joint.add(&point.changes);
                point.changes = joint;
            }
        }
        all.add(&part.all);
        if let Some(points) = &mut points {
            let mut target = points.slice_each_axis_mut(|axis| {
                let range = &part.place[axis.axis.index()];
                Slice::from(range.start as usize..range.end as usize)
            });
            let here = ArrayViewD::from_shape(target.raw_dim(), &here);
            if let Ok(here) = here {
                target.zip_mut_with(&here, |mine, other| mine.add(other));
            }
        }
        before = part.last;
    })?;
    Ok(Found { all, points })
}

fn part(variable: &Variable, block: &Block, each_point: bool) -> Result<Part, Fault> {
    if let Some(value) = block.values.iter().find(|value| value.is_infinite()) {
        let reason = format!(
            "`{}` has the value {value}, of which there are no statistics",
            variable.name()
        );
        return Err(Fault::store(variable.store(), reason));
    }
    let points = block.points.max(1);
    let mut all = Both::NONE;
    let mut each = vec![Both::NONE; if each_point { points } else { 0 }];
    let rows: Vec<&[f64]> = block.values.chunks(points).collect();
    for (at, row) in rows.iter().enumerate() {
        all.values.add(&Moments::of(row.iter().copied()));
        for (point, value) in each.iter_mut().zip(*row) {
            point.values.add(&Moments::one(*value));
        }
        if let Some(before) = at.checked_sub(1).map(|before| rows[before]) {
            let changes = row.iter().zip(before).map(|(now, before)| now - before);
            all.changes.add(&known(changes.clone()));
            for (point, change) in each.iter_mut().zip(changes) {
                point.changes.add(&known([change].into_iter()));
            }
        }
    }
    Ok(Part {
        all,
        points: each,
        first: rows.first().map(|row| row.to_vec()).unwrap_or_default(),
        last: rows.last().map(|row| row.to_vec()).unwrap_or_default(),
        start: block.times.start,
        place: block.place.clone(),
    })
}

/// Of changes, those from or to a missing value are none.
fn known(changes: impl Iterator<Item = f64> + Clone) -> Moments {
    let mut moments = Moments::of(changes);
    moments.missing = 0;
    moments
}
