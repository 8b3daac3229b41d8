//! Reads a window plane by plane.

use std::ops::Range;

use ndarray::Axis;

use super::{ForecastStore, Layout, StoreError};
use crate::{Dataset, Variable};

/// Several steps are read at once where a chunk holds several, as long as they take no more than
/// this much memory: otherwise every step would decode the whole chunk again.
const MAX_BLOCK_BYTES: u64 = 64 << 20;

/// A window whose times and coordinates are those that are due.
pub(crate) struct WindowSource<'a> {
    dataset: &'a Dataset,
    store: &'a ForecastStore,
    /// The steps of the window.
    steps: Range<u64>,
    /// The steps in the dataset: those of the window, of the whole forecast, or all that the store holds.
    there: Range<u64>,
    /// The window in which its files lie; none if it is a window by itself.
    shard: Option<u64>,
}

impl<'a> WindowSource<'a> {
    /// Checks the times and coordinates of a window, or of a dataset that holds the whole forecast.
    pub(crate) fn open(
        store: &'a ForecastStore,
        window: u64,
        dataset: &'a Dataset,
    ) -> Result<Self, StoreError> {
        store.check_window(window)?;
        let steps = store.windows.steps(window);
        let whole = 0..store.windows.steps_in_all();
        let length = store.variables.iter().next().and_then(|(name, layout)| {
            let variable = dataset.variable(name).ok()?;
            variable.shape().get(layout.axis).copied()
        });
        let source = Self {
            dataset,
            store,
            there: match length == Some(whole.end) {
                true => whole,
                false => steps.clone(),
            },
            steps,
            shard: None,
        };
        source.checked()
    }

    /// A window of the published store of which `store` is the plan. Of its shards, only those that
    /// are read need be there.
    pub(crate) fn published(
        store: &'a ForecastStore,
        window: u64,
        dataset: &'a Dataset,
    ) -> Result<Self, StoreError> {
        store.check_window(window)?;
        let source = Self {
            dataset,
            store,
            steps: store.windows.steps(window),
            there: store.first_step()..store.first_step() + store.steps(),
            shard: Some(window),
        };
        source.checked()
    }

    fn checked(self) -> Result<Self, StoreError> {
        let (windows, there) = (&self.store.windows, self.there.clone());
        self.store.coordinates.check(self.dataset, windows, there)?;
        Ok(self)
    }

    /// Hands over the planes of a variable step by step, in row-major order, with the step.
    pub(crate) fn planes<E: From<StoreError>>(
        &self,
        name: &str,
        mut each: impl FnMut(u64, &[f64]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (_, layout) = self.store.layout(name)?;
        let variable = self.variable(name, layout)?;
        let rows = variable.chunk_shape()[layout.axis].max(1);
        let bytes = rows.saturating_mul(layout.points()).saturating_mul(8);
        let together = if bytes <= MAX_BLOCK_BYTES { rows } else { 1 };
        let mut start = self.steps.start;
        while start < self.steps.end {
            let end = self.steps.end.min(start + together);
            let mut ranges: Vec<Range<u64>> = layout.shape.iter().map(|&n| 0..n).collect();
            ranges[layout.axis] = start - self.there.start..end - self.there.start;
            let values = variable.read_range(&ranges).map_err(StoreError::from)?;
            let block = values.into_f64().map_err(StoreError::from)?;
            for (index, plane) in block.axis_iter(Axis(layout.axis)).enumerate() {
                let step = start + index as u64;
                match plane.as_slice() {
                    Some(plane) => each(step, plane)?,
                    None => each(step, &plane.iter().copied().collect::<Vec<f64>>())?,
                }
            }
            start = end;
        }
        Ok(())
    }

    /// A variable, if it is laid out as planned and all of its chunks are there.
    fn variable(&self, name: &str, layout: &Layout) -> Result<&'a Variable, StoreError> {
        let variable = self.dataset.variable(name)?;
        let refuse = |reason: String| {
            Err(StoreError::Window {
                path: self.dataset.path().to_owned(),
                reason,
            })
        };
        let due = layout.with_steps(self.there.end - self.there.start);
        if variable.dims() != layout.dims || variable.shape() != due {
            return refuse(format!(
                "`{name}` has the dimensions {:?} of the lengths {:?}, where {:?} of {due:?} are due",
                variable.dims(),
                variable.shape(),
                layout.dims
            ));
        }
        let missing = match self.shard {
            None => variable.missing_chunks()?,
            Some(window) => {
                let shard = self.store.shard_path(name, window)?;
                u64::from(!self.dataset.path().join(shard).is_file())
            }
        };
        match missing {
            0 => Ok(variable),
            missing => refuse(format!(
                "it is incomplete: {missing} chunks of `{name}` were never written (a writer that \
                 leaves out chunks of missing values must write them: `write_empty_chunks`)"
            )),
        }
    }
}
