//! One feature at one time: values over the grid, read from a block of a source variable or
//! computed, copied into an array `[grid_index, feature]`.

/// What values are converted to.
pub(crate) trait Real: Copy + Default {
    fn single(value: f32) -> Self;
    fn double(value: f64) -> Self;
    fn integer(value: i64) -> Self;
}

impl Real for f32 {
    fn single(value: f32) -> Self {
        value
    }
    fn double(value: f64) -> Self {
        value as f32
    }
    fn integer(value: i64) -> Self {
        value as f32
    }
}

impl Real for f64 {
    fn single(value: f32) -> Self {
        f64::from(value)
    }
    fn double(value: f64) -> Self {
        value
    }
    fn integer(value: i64) -> Self {
        value as f64
    }
}

/// Where the values of a plane lie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Data<'a> {
    Single(&'a [f32]),
    Double(&'a [f64]),
    Integer(&'a [i64]),
}

/// The values of one feature over the grid: the point with index `i_k` along stacked dimension `k`
/// is at `offset + sum(i_k * strides[k])`; a stride of 0 repeats the values along a dimension.
#[derive(Clone, Debug)]
pub(crate) struct Plane<'a> {
    pub data: Data<'a>,
    pub offset: usize,
    pub strides: Vec<usize>,
}

/// Points that are copied together: their cache lines of `out` stay in cache over all features.
const TILE: usize = 256;

/// Copies planes over a grid into columns `first..` of `out`, which has `columns` of them.
/// Points are in row-major order of `shape`.
pub(crate) fn copy_planes<T: Real>(
    planes: &[Plane<'_>],
    shape: &[usize],
    out: &mut [T],
    columns: usize,
    first: usize,
) {
    let Some((&row_length, outer)) = shape.split_last() else {
        return;
    };
    let rows: usize = outer.iter().product();
    for row in 0..rows {
        for start in (0..row_length).step_by(TILE) {
            let points = TILE.min(row_length - start);
            let begin = (row * row_length + start) * columns;
            let tile = &mut out[begin..begin + points * columns];
            for (column, plane) in planes.iter().enumerate() {
                let stride = plane.strides.last().copied().unwrap_or(0);
                let source = plane.offset + row_offset(row, outer, &plane.strides) + start * stride;
                let cells = tile[first + column..].iter_mut().step_by(columns);
                match plane.data {
                    Data::Single(values) => copy(cells, &values[source..], stride, T::single),
                    Data::Double(values) => copy(cells, &values[source..], stride, T::double),
                    Data::Integer(values) => copy(cells, &values[source..], stride, T::integer),
                }
            }
        }
    }
}

fn copy<'a, S: Copy, T: Copy + 'a>(
    cells: impl Iterator<Item = &'a mut T>,
    values: &[S],
    stride: usize,
    convert: impl Fn(S) -> T,
) {
    for (index, cell) in cells.enumerate() {
        *cell = convert(values[index * stride]);
    }
}

/// The offset of a row, counted over all dimensions but the last.
fn row_offset(mut row: usize, outer: &[usize], strides: &[usize]) -> usize {
    let mut offset = 0;
    for (length, stride) in outer.iter().zip(strides).rev() {
        offset += (row % length) * stride;
        row /= length;
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes_repeats_and_interleaves() {
        // A source of dims (y, x) of 2 x 3, stacked over (x, y), and a row along y.
        let field = [0.0_f32, 1.0, 2.0, 10.0, 11.0, 12.0];
        let row = [5_i64, 6];
        let planes = [
            Plane {
                data: Data::Single(&field),
                offset: 0,
                strides: vec![1, 3],
            },
            Plane {
                data: Data::Integer(&row),
                offset: 0,
                strides: vec![0, 1],
            },
            Plane {
                data: Data::Double(&[7.5]),
                offset: 0,
                strides: vec![0, 0],
            },
        ];
        let mut out = vec![-1.0_f64; 6 * 4];
        copy_planes(&planes, &[3, 2], &mut out, 4, 1);
        let expected: Vec<f64> = [
            (0.0, 5.0),
            (10.0, 6.0),
            (1.0, 5.0),
            (11.0, 6.0),
            (2.0, 5.0),
            (12.0, 6.0),
        ]
        .into_iter()
        .flat_map(|(a, b)| [-1.0, a, b, 7.5])
        .collect();
        assert_eq!(out, expected);
    }

    #[test]
    fn tiles_cover_long_rows() {
        let values: Vec<f64> = (0..1000).map(f64::from).collect();
        let planes = [Plane {
            data: Data::Double(&values),
            offset: 0,
            strides: vec![1],
        }];
        let mut out = vec![0.0_f32; 1000];
        copy_planes(&planes, &[1000], &mut out, 1, 0);
        assert!(out.iter().zip(&values).all(|(a, b)| f64::from(*a) == *b));
    }
}
