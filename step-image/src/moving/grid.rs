//! The division of an array into cells.

/// A division into cells, which need not be equally long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Along each dimension: where each cell begins, and where the last ends.
    edges: Vec<Vec<u64>>,
}

/// A part of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) start: Vec<u64>,
    pub(crate) shape: Vec<u64>,
}

impl Block {
    /// The number of values.
    pub(crate) fn len(&self) -> u64 {
        self.shape.iter().product()
    }

    /// What both have in common.
    pub(crate) fn common(&self, other: &Self) -> Self {
        let ends = self.start.iter().zip(&self.shape);
        let other_ends = other.start.iter().zip(&other.shape);
        let (start, shape) = ends
            .zip(other_ends)
            .map(|((&a, &a_length), (&b, &b_length))| {
                let start = a.max(b);
                (
                    start,
                    (a + a_length).min(b + b_length).saturating_sub(start),
                )
            })
            .unzip();
        Self { start, shape }
    }
}

impl Grid {
    /// A grid of these edges, which rise.
    pub(crate) fn of(edges: Vec<Vec<u64>>) -> Self {
        Self { edges }
    }

    /// Equal chunks, of which the last along a dimension may be cut.
    pub(crate) fn regular(shape: &[u64], chunks: &[u64]) -> Self {
        let edges = shape.iter().zip(chunks).map(|(&length, &chunk)| {
            let starts = (0..length).step_by(chunk.max(1) as usize);
            starts.chain([length]).collect()
        });
        Self {
            edges: edges.collect(),
        }
    }

    pub(crate) fn dims(&self) -> usize {
        self.edges.len()
    }

    pub(crate) fn edges(&self, axis: usize) -> &[u64] {
        &self.edges[axis]
    }

    /// The number of cells along a dimension.
    pub(crate) fn count(&self, axis: usize) -> usize {
        self.edges[axis].len() - 1
    }

    /// The number of cells.
    pub(crate) fn cells(&self) -> usize {
        (0..self.dims()).map(|axis| self.count(axis)).product()
    }

    /// Of the cell of this number, in row-major order, its number along each dimension.
    pub(crate) fn index(&self, mut cell: usize) -> Vec<usize> {
        let mut index = vec![0; self.dims()];
        for axis in (0..self.dims()).rev() {
            index[axis] = cell % self.count(axis);
            cell /= self.count(axis);
        }
        index
    }

    pub(crate) fn block(&self, cell: usize) -> Block {
        let index = self.index(cell);
        let ends = index
            .iter()
            .zip(&self.edges)
            .map(|(&at, edges)| (edges[at], edges[at + 1] - edges[at]));
        let (start, shape) = ends.unzip();
        Block { start, shape }
    }

    /// The cells that have something in common with a block, in row-major order.
    pub(crate) fn overlapping(&self, block: &Block) -> Vec<usize> {
        let ranges: Vec<(usize, usize)> = (0..self.dims())
            .map(|axis| {
                let edges = &self.edges[axis];
                let (start, end) = (block.start[axis], block.start[axis] + block.shape[axis]);
                let first = edges.partition_point(|&edge| edge <= start).max(1) - 1;
                let next = edges
                    .partition_point(|&edge| edge < end)
                    .min(self.count(axis));
                (first, next)
            })
            .collect();
        let mut cells = vec![0];
        for (axis, &(first, next)) in ranges.iter().enumerate() {
            let along = self.count(axis);
            cells = cells
                .iter()
                .flat_map(|cell| (first..next).map(move |at| cell * along + at))
                .collect();
        }
        cells
    }

    /// The grid with the edges of both.
    pub(crate) fn refined(&self, other: &Self) -> Self {
        let both = self.edges.iter().zip(&other.edges);
        let edges = both.map(|(one, other)| {
            let mut edges = [one.as_slice(), other].concat();
            edges.sort_unstable();
            edges.dedup();
            edges
        });
        Self {
            edges: edges.collect(),
        }
    }

    /// The grid of whole groups of cells: so many along each dimension.
    pub(crate) fn grouped(&self, counts: &[usize]) -> Self {
        let edges = self.edges.iter().zip(counts).map(|(edges, &count)| {
            let cells = edges.len() - 1;
            let starts = (0..cells).step_by(count);
            starts.chain([cells]).map(|at| edges[at]).collect()
        });
        Self {
            edges: edges.collect(),
        }
    }

    /// The number of values in the largest cell, or more.
    pub(crate) fn largest(&self) -> u64 {
        let longest = |edges: &Vec<u64>| edges.windows(2).map(|pair| pair[1] - pair[0]).max();
        self.edges
            .iter()
            .map(|edges| longest(edges).unwrap_or(0))
            .product()
    }

    /// The number of values.
    pub(crate) fn len(&self) -> u64 {
        let ends = |edges: &Vec<u64>| edges.last().zip(edges.first()).map_or(0, |(e, s)| e - s);
        self.edges.iter().map(ends).product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_and_what_they_overlap() {
        let grid = Grid::regular(&[7, 5], &[3, 2]);
        assert_eq!((grid.count(0), grid.count(1), grid.cells()), (3, 3, 9));
        assert_eq!(grid.index(5), [1, 2]);
        let last = grid.block(8);
        assert_eq!(
            (last.start.as_slice(), last.shape.as_slice()),
            (&[6, 4][..], &[1, 1][..])
        );
        let block = Block {
            start: vec![2, 2],
            shape: vec![2, 3],
        };
        assert_eq!(grid.overlapping(&block), [1, 2, 4, 5]);
        for cell in 0..9 {
            assert_eq!(grid.overlapping(&grid.block(cell)), [cell]);
        }
        assert_eq!(grid.largest(), 6);
        assert_eq!(grid.len(), 35);
    }

    #[test]
    fn grids_without_dimensions_have_one_cell() {
        let grid = Grid::regular(&[], &[]);
        assert_eq!(grid.cells(), 1);
        assert_eq!(grid.overlapping(&grid.block(0)), [0]);
        assert_eq!(grid.len(), 1);
    }

    #[test]
    fn groups_and_common_edges() {
        let grid = Grid::regular(&[10], &[3]).grouped(&[2]);
        assert_eq!(grid.edges(0), [0, 6, 10]);
        let refined = grid.refined(&Grid::regular(&[10], &[4]));
        assert_eq!(refined.edges(0), [0, 4, 6, 8, 10]);
    }
}
