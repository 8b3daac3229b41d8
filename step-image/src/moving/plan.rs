//! In which order chunks are read, so that memory suffices.

use super::Grid;

/// What the process takes besides buffers: its code, metadata, stacks, and what the allocator keeps.
pub(crate) const BASE: u64 = 56 << 20;

/// What a copy may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Bytes of memory, of the whole process.
    pub(crate) memory: u64,
    pub(crate) threads: usize,
}

/// What one cell takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// The size of a value.
    pub(crate) size: u64,
    /// The bytes of a whole chunk of the source.
    pub(crate) source: u64,
    /// The bytes of a whole chunk of the target.
    pub(crate) target: u64,
}

impl Costs {
    /// While a chunk is read, it is there twice: as it is in its file, and decoded. The allocator may keep what
    /// was freed for one more.
    fn reading(self) -> u64 {
        3 * self.source
    }

    /// While a chunk is written, it is there again as it will be in its file.
    fn writing(self) -> u64 {
        2 * self.target
    }
}

/// How an array is copied.
#[derive(Debug, PartialEq)]
pub(crate) enum Plan {
    /// From source to target.
    Once { order: Vec<usize>, workers: usize },
    /// By way of a file of pieces.
    Twice {
        /// The pieces.
        between: Grid,
        /// The order in which the source is read, and where in it each slab ends.
        first: Vec<usize>,
        batches: Vec<usize>,
        workers: usize,
    },
}

impl Plan {
    /// The bytes that it needs on a disk besides the result.
    pub(crate) fn disk(&self, size: u64) -> u64 {
        match self {
            Self::Once { .. } => 0,
            Self::Twice { between, .. } => between.len() * size,
        }
    }
}

/// How far the reading of chunks may be ahead of the oldest one that is not yet dealt with.
pub(super) fn window(workers: usize) -> usize {
    match workers {
        1 => 1,
        workers => 2 * workers,
    }
}

/// Plans a copy with as many threads as memory allows; or says with how much memory it would go with one.
pub(crate) fn plan(source: &Grid, sink: &Grid, costs: Costs, budget: Budget) -> Result<Plan, u64> {
    let orders: Vec<Vec<usize>> = (0..source.dims().max(1))
        .map(|outermost| ordered(source, outermost))
        .collect();
    let mut least = u64::MAX;
    for workers in (1..=budget.threads.max(1)).rev() {
        for order in &orders {
            let begun = most_begun(source, sink, order, &[order.len()], window(workers));
            let need = once(begun, costs, workers);
            least = least.min(need);
            if need <= budget.memory {
                return Ok(Plan::Once {
                    order: order.clone(),
                    workers,
                });
            }
        }
        match twice(source, sink, costs, budget.memory, workers) {
            Ok(plan) => return Ok(plan),
            Err(need) => least = least.min(need),
        }
    }
    Err(least)
}

fn once(begun: u64, costs: Costs, workers: usize) -> u64 {
    let each = costs.reading() + costs.writing();
    BASE + begun * costs.target + workers as u64 * each
}

/// By way of pieces, or how much memory that takes at least.
fn twice(
    source: &Grid,
    sink: &Grid,
    costs: Costs,
    memory: u64,
    workers: usize,
) -> Result<Plan, u64> {
    let (slabs, between) = slabs_of(source, sink, &vec![1; source.dims()]);
    let smallest = first_need(&slabs, &between, costs, workers);
    let pieces = between.largest() * costs.size;
    let second_least = second_need(pieces, costs, workers);
    if smallest.max(second_least) > memory {
        return Err(smallest.max(second_least));
    }
    // Slabs grow where the target's chunks are longest beside the source's: then pieces are few and large.
    let mut counts = vec![1; source.dims()];
    let mut axes: Vec<usize> = (0..source.dims()).collect();
    axes.sort_by_key(|&axis| source.count(axis) as u64 * 1000 / sink.count(axis).max(1) as u64);
    for axis in axes.into_iter().rev() {
        let fits = |count: usize| {
            let mut counts = counts.clone();
            counts[axis] = count;
            let (slabs, between) = slabs_of(source, sink, &counts);
            first_need(&slabs, &between, costs, workers) <= memory
                && second_need(between.largest() * costs.size, costs, workers) <= memory
        };
        let per_target = source.count(axis).div_ceil(sink.count(axis).max(1)).max(1);
        counts[axis] = most(per_target, fits);
    }
    let (slabs, between) = slabs_of(source, sink, &counts);
    let mut first = Vec::with_capacity(source.cells());
    let mut batches = Vec::with_capacity(slabs.cells());
    for slab in 0..slabs.cells() {
        first.extend(source.overlapping(&slabs.block(slab)));
        batches.push(first.len());
    }
    Ok(Plan::Twice {
        between,
        first,
        batches,
        workers,
    })
}

/// The slabs of so many chunks of the source along each dimension, and their pieces.
fn slabs_of(source: &Grid, sink: &Grid, counts: &[usize]) -> (Grid, Grid) {
    let slabs = source.grouped(counts);
    let between = slabs.refined(sink);
    (slabs, between)
}

/// The first way: all pieces of a slab are begun at once, each in a buffer for the largest; one that is written is
/// there again compressed.
fn first_need(slabs: &Grid, between: &Grid, costs: Costs, workers: usize) -> u64 {
    let per_slab = (0..slabs.dims()).map(|axis| {
        let edges = slabs.edges(axis);
        let inside = |pair: &[u64]| {
            let edges = between.edges(axis);
            edges.partition_point(|&edge| edge < pair[1])
                - edges.partition_point(|&edge| edge < pair[0])
        };
        edges.windows(2).map(inside).max().unwrap_or(1) as u64
    });
    let pieces: u64 = per_slab.product();
    let piece = between.largest() * costs.size;
    BASE + pieces * piece + workers as u64 * (costs.reading() + piece)
}

/// The second way: each thread fills a chunk from pieces, each of which is there compressed, too.
fn second_need(piece: u64, costs: Costs, workers: usize) -> u64 {
    BASE + workers as u64 * (costs.target + 2 * piece + costs.writing())
}

/// The greatest number up to `limit` that fits; 1 is known to.
fn most(limit: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (1, limit);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        match fits(middle) {
            true => low = middle,
            false => high = middle - 1,
        }
    }
    low
}

/// All cells, one dimension changing slowest.
fn ordered(grid: &Grid, outermost: usize) -> Vec<usize> {
    if outermost == 0 {
        return (0..grid.cells()).collect();
    }
    let mut cells: Vec<usize> = (0..grid.cells()).collect();
    cells.sort_by_key(|&cell| (grid.index(cell)[outermost], cell));
    cells
}

/// How many cells of the sink are begun at once at most.
fn most_begun(
    source: &Grid,
    sink: &Grid,
    order: &[usize],
    batches: &[usize],
    window: usize,
) -> u64 {
    let mut touched = vec![(usize::MAX, 0); sink.cells()];
    for (at, &cell) in order.iter().enumerate() {
        for target in sink.overlapping(&source.block(cell)) {
            let (first, last): &mut (usize, usize) = &mut touched[target];
            *first = (*first).min(at);
            *last = at;
        }
    }
    let mut changes = vec![0i64; order.len() + 1];
    let mut batch_start = 0;
    let mut starts = Vec::with_capacity(order.len());
    for &end in batches {
        starts.extend(std::iter::repeat_n(batch_start, end - batch_start));
        batch_start = end;
    }
    for (first, last) in touched
        .into_iter()
        .filter(|touched| touched.0 != usize::MAX)
    {
        // Begun by who is ahead as far as possible; over when the last one is dealt with, which may be as late as
        // others are ahead.
        let begun = (first + 1).saturating_sub(window).max(starts[first]);
        changes[begun] += 1;
        changes[last + 1] -= 1;
    }
    let begun = changes.iter().scan(0, |begun, change| {
        *begun += change;
        Some(*begun)
    });
    begun.max().unwrap_or(0) as u64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn costs(source: &[u64], target: &[u64]) -> Costs {
        Costs {
            size: 4,
            source: 4 * source.iter().product::<u64>(),
            target: 4 * target.iter().product::<u64>(),
        }
    }

    fn planned(shape: &[u64], from: &[u64], to: &[u64], memory: u64) -> Result<Plan, u64> {
        let (source, sink) = (Grid::regular(shape, from), Grid::regular(shape, to));
        let budget = Budget { memory, threads: 2 };
        plan(&source, &sink, costs(from, to), budget)
    }

    #[test]
    fn aligned_chunks_need_one_way_and_little_memory() {
        // The months of the original project, 124 to 10 steps.
        let plan = planned(
            &[1240, 187_070],
            &[124, 187_070],
            &[10, 187_070],
            1024 * MIB,
        );
        assert!(matches!(plan.unwrap(), Plan::Once { workers: 2, .. }));
    }

    #[test]
    fn from_fields_to_series_takes_two_ways_within_the_limit() {
        let plan = planned(&[5840, 187_070], &[10, 187_070], &[5840, 2048], 1024 * MIB).unwrap();
        let Plan::Twice {
            first,
            batches,
            workers,
            ..
        } = &plan
        else {
            panic!("{plan:?}");
        };
        assert_eq!(*workers, 2);
        assert_eq!(first.len(), 584);
        assert!(batches.len() < 8, "{} slabs", batches.len());
        assert_eq!(plan.disk(4), 5840 * 187_070 * 4);
    }

    #[test]
    fn too_little_memory_says_how_much_is_enough() {
        let shape = [5840, 187_070];
        let (from, to) = ([10, 187_070], [5840, 2048]);
        let least = planned(&shape, &from, &to, 50 * MIB).unwrap_err();
        assert!(least > 50 * MIB && least < 300 * MIB, "{least}");
        assert!(planned(&shape, &from, &to, least).is_ok());
        assert!(planned(&shape, &from, &to, least - 1).is_err());
    }

    #[test]
    fn the_order_with_the_fewest_begun_chunks_is_taken() {
        // Chunks of one column: going along it first closes each chunk before the next begins.
        let (source, sink) = (
            Grid::regular(&[100, 100], &[1, 10]),
            Grid::regular(&[100, 100], &[100, 10]),
        );
        let natural = most_begun(&source, &sink, &ordered(&source, 0), &[1000], 1);
        let columns = most_begun(&source, &sink, &ordered(&source, 1), &[1000], 1);
        assert_eq!((natural, columns), (10, 1));
    }
}
