//! Reads a variable block by block with several threads, and puts together what they find in one order.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use mlwm_datasets::Variable;

use crate::Fault;
use crate::moving::Grid;

/// The values of one chunk.
pub(crate) struct Block {
    /// Row by row along the first dimension of these, the time if there is one: `rows × points`.
    pub(crate) values: Vec<f64>,
    /// How many values a row has.
    pub(crate) points: usize,
    /// Where it lies along the time.
    pub(crate) times: Range<u64>,
    /// Where it lies along the other dimensions.
    pub(crate) place: Vec<Range<u64>>,
}

/// The chunks of a variable, in an order in which the times of one place follow each other.
pub(crate) struct Blocks<'a> {
    variable: &'a Variable,
    axis: Option<usize>,
    order: Vec<Vec<Range<u64>>>,
}

impl<'a> Blocks<'a> {
    pub(crate) fn of(variable: &'a Variable, dimension: &str) -> Self {
        let axis = variable.dims().iter().position(|dim| dim == dimension);
        let grid = Grid::regular(variable.shape(), &variable.chunk_shape());
        let mut cells: Vec<usize> = (0..grid.cells()).collect();
        if let Some(axis) = axis {
            let place = |cell: usize| {
                let mut index = grid.index(cell);
                let time = index.remove(axis);
                (index, time)
            };
            cells.sort_by_cached_key(|&cell| place(cell));
        }
        let ranges = |cell: &usize| {
            let block = grid.block(*cell);
            let along = block.start.iter().zip(&block.shape);
            along
                .map(|(&start, &length)| start..start + length)
                .collect()
        };
        Self {
            variable,
            axis,
            order: cells.iter().map(ranges).collect(),
        }
    }

    /// Whether the variable changes with time.
    pub(crate) fn has_times(&self) -> bool {
        self.axis.is_some()
    }

    /// Hands each block to `find`, in any order and by several threads, and what it finds to `combine`, in order.
    pub(crate) fn each<T: Send>(
        &self,
        threads: usize,
        find: impl Fn(&Block) -> Result<T, Fault> + Sync,
        mut combine: impl FnMut(T),
    ) -> Result<(), Fault> {
        // A few for each thread at a time, so that what was found does not pile up.
        for round in self.order.chunks(4 * threads.max(1)) {
            let next = AtomicUsize::new(0);
            let found: Vec<Mutex<Option<Result<T, Fault>>>> =
                round.iter().map(|_| Mutex::new(None)).collect();
            let work = || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(ranges), Some(place)) = (round.get(at), found.get(at)) else {
                        return;
                    };
                    let result = self.read(ranges).and_then(|block| find(&block));
                    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                }
            };
            std::thread::scope(|scope| {
                for _ in 1..threads.min(round.len()) {
                    scope.spawn(work);
                }
                work();
            });
            for result in found {
                let result = result.into_inner().unwrap_or_else(PoisonError::into_inner);
                if let Some(result) = result {
                    combine(result?);
                }
            }
        }
        Ok(())
    }

    fn read(&self, ranges: &[Range<u64>]) -> Result<Block, Fault> {
        let values = self.variable.read_range(ranges)?.into_f64()?;
        let mut place = ranges.to_vec();
        let Some(axis) = self.axis else {
            return Ok(Block {
                points: values.len(),
                values: values.into_iter().collect(),
                times: 0..1,
                place,
            });
        };
        let times = place.remove(axis);
        let mut order: Vec<usize> = (0..ranges.len()).collect();
        order.remove(axis);
        order.insert(0, axis);
        let rows = (times.end - times.start) as usize;
        Ok(Block {
            points: values.len() / rows.max(1),
            values: match axis {
                0 => values.into_raw_vec_and_offset().0,
                _ => values.permuted_axes(order).iter().copied().collect(),
            },
            times,
            place,
        })
    }
}
