//! Forcing, step by step, read in blocks of times.

use std::ops::Range;

use mlwm_spec::time::utc_text;

use super::store::Store;
use crate::prepare::{PrepareError, Schedule, TIME_DIM};

/// Reads the forcing of one step after the other. Of every variable it keeps the part of one chunk in
/// time that the forecast needs, so that every chunk is read once.
#[derive(Debug)]
pub struct ForcingReader<'a> {
    store: &'a Store,
    names: &'a [String],
    points: usize,
    schedule: Schedule,
    /// First and last position along the time axis that will be read.
    wanted: Range<u64>,
    blocks: Vec<Option<Block>>,
    steps_done: u64,
}

/// Part of a variable in memory.
#[derive(Debug)]
struct Block {
    /// Positions along the time axis.
    times: Range<u64>,
    /// `[time, point]`.
    values: Vec<f32>,
}

impl<'a> ForcingReader<'a> {
    pub(super) fn new(
        store: &'a Store,
        names: &'a [String],
        points: usize,
        schedule: Schedule,
    ) -> Self {
        let starts = (0..schedule.steps).map(|step| schedule.valid_time(step.cast_signed()));
        let positions = || starts.clone().filter_map(|time| store.position(time));
        let wanted = match (names.is_empty(), positions().min(), positions().max()) {
            (false, Some(first), Some(last)) => first..last + 1,
            _ => 0..0,
        };
        Self {
            store,
            names,
            points,
            schedule,
            wanted,
            blocks: names.iter().map(|_| None).collect(),
            steps_done: 0,
        }
    }

    /// The forcing at the start of the next step, `[point, feature]`; all finite.
    ///
    /// # Errors
    /// If it cannot be read or is not finite.
    pub fn next_step(&mut self) -> Result<Vec<f32>, PrepareError> {
        let time = self.schedule.valid_time(self.steps_done.cast_signed());
        self.steps_done += 1;
        let columns = self.names.len();
        let mut forcing = vec![0.0; self.points * columns];
        for (column, name) in self.names.iter().enumerate() {
            let position = self
                .store
                .position(time)
                .ok_or_else(|| PrepareError::Missing {
                    path: self.store.path.clone(),
                    what: utc_text(time),
                    available: "other times".to_owned(),
                })?;
            let block = &mut self.blocks[column];
            let is_there = |block: &Block| block.times.contains(&position);
            if !block.as_ref().is_some_and(is_there) {
                *block = None; // Free it before the next one is read.
                *block = Some(read(self.store, name, self.points, position, &self.wanted)?);
            }
            let Some(block) = block else { continue };
            let first = (position - block.times.start) as usize * self.points;
            let values = &block.values[first..first + self.points];
            self.store.check_finite(name, values, Some(time))?;
            for (cell, value) in forcing[column..].iter_mut().step_by(columns).zip(values) {
                *cell = *value;
            }
        }
        Ok(forcing)
    }
}

/// Reads what is wanted of the chunk that a position is in.
fn read(
    store: &Store,
    name: &str,
    points: usize,
    position: u64,
    wanted: &Range<u64>,
) -> Result<Block, PrepareError> {
    let variable = store.dataset.variable(name)?;
    let at = variable.dims().iter().position(|dim| dim == TIME_DIM);
    let chunk = at.map_or(1, |at| variable.chunk_shape()[at]).max(1);
    let start = position / chunk * chunk;
    let times = start.max(wanted.start)..(start + chunk).min(wanted.end);
    let values = store.read(variable, &[times.clone(), 0..points as u64])?;
    Ok(Block { times, values })
}
