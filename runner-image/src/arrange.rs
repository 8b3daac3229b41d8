//! Between the arrays of the runner, `[grid_index, feature]`, and tensors of the graph with
//! dimensions in any order.

use std::borrow::Cow;

use mlwm_spec::interface::Dim;
use ndarray::{ArrayD, ArrayView2, ArrayViewD, ArrayViewMut2, ArrayViewMutD, Axis, Ix2};

/// A tensor of some dimensions and shape from arrays `[grid_index, feature]`, one for each time.
/// Borrowed if it is the only array as it is.
///
/// Arrays and shape must belong together, as the interface makes them.
pub(crate) fn arrange<'a>(
    dims: &[Dim],
    shape: &[usize],
    times: &[ArrayView2<'a, f32>],
) -> Cow<'a, [f32]> {
    let plain: Vec<Dim> = without_length_one(dims).collect();
    if let ([only], [Dim::Grid, Dim::Feature] | [Dim::Grid]) = (times, plain.as_slice())
        && let Some(values) = only.to_slice()
    {
        return Cow::Borrowed(values);
    }
    let mut tensor = ArrayD::zeros(shape);
    for (time, array) in times.iter().enumerate() {
        let mut part = tensor.view_mut();
        let mut order = Vec::new();
        for dim in dims {
            match dim {
                Dim::Batch => part = part.index_axis_move(Axis(order.len()), 0),
                Dim::Time => part = part.index_axis_move(Axis(order.len()), time),
                Dim::Feature | Dim::Grid => order.push(*dim),
            }
        }
        if let Some(mut part) = grid_feature_mut(part, &order) {
            part.assign(array);
        }
    }
    Cow::Owned(tensor.into_raw_vec_and_offset().0)
}

/// A tensor of one time as `[grid_index, feature]`; `None` if its shape has other dimensions.
pub(crate) fn as_grid_feature<'a>(
    dims: &[Dim],
    tensor: ArrayViewD<'a, f32>,
) -> Option<ArrayView2<'a, f32>> {
    let mut tensor = tensor;
    let mut order = Vec::new();
    for dim in dims {
        match dim {
            Dim::Batch | Dim::Time => tensor = tensor.index_axis_move(Axis(order.len()), 0),
            Dim::Feature | Dim::Grid => order.push(*dim),
        }
    }
    if !order.contains(&Dim::Feature) {
        tensor = tensor.insert_axis(Axis(1));
    }
    let tensor = tensor.into_dimensionality::<Ix2>().ok()?;
    Some(match order.first() {
        Some(Dim::Feature) => tensor.reversed_axes(),
        _ => tensor,
    })
}

fn without_length_one(dims: &[Dim]) -> impl Iterator<Item = Dim> {
    let is_long = |dim: &Dim| matches!(dim, Dim::Grid | Dim::Feature);
    dims.iter().copied().filter(is_long)
}

fn grid_feature_mut<'a>(
    part: ArrayViewMutD<'a, f32>,
    order: &[Dim],
) -> Option<ArrayViewMut2<'a, f32>> {
    let part = match order.contains(&Dim::Feature) {
        true => part,
        false => part.insert_axis(Axis(1)),
    };
    let part = part.into_dimensionality::<Ix2>().ok()?;
    Some(match order.first() {
        Some(Dim::Feature) => part.reversed_axes(),
        _ => part,
    })
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// Two times of 3 points and 2 features: `100 * time + 10 * point + feature`.
    fn arrays() -> [Array2<f32>; 2] {
        [0, 1].map(|time| Array2::from_shape_fn((3, 2), |(p, f)| (100 * time + 10 * p + f) as f32))
    }

    #[test]
    fn every_order_of_dimensions_holds_the_same_values_and_leads_back() {
        use Dim::{Batch, Feature, Grid, Time};
        let [first, second] = arrays();
        let views = [first.view(), second.view()];
        let tensor = arrange(&[Time, Feature, Grid], &[2, 2, 3], &views);
        assert_eq!(
            *tensor,
            [
                0., 10., 20., 1., 11., 21., 100., 110., 120., 101., 111., 121.
            ]
        );
        let tensor = arrange(&[Batch, Grid, Time, Feature], &[1, 3, 2, 2], &views);
        assert_eq!(
            *tensor,
            [
                0., 1., 100., 101., 10., 11., 110., 111., 20., 21., 120., 121.
            ]
        );
        for (dims, shape) in [
            (&[Batch, Grid, Feature][..], &[1, 3, 2][..]),
            (&[Feature, Time, Grid, Batch], &[2, 1, 3, 1]),
            (&[Grid, Feature, Time], &[3, 2, 1]),
        ] {
            let tensor = arrange(dims, shape, &views[..1]);
            let view = ArrayViewD::from_shape(shape, &tensor).unwrap();
            assert_eq!(as_grid_feature(dims, view).unwrap(), first, "{dims:?}");
        }
        let as_it_is = arrange(&[Batch, Grid, Feature], &[1, 3, 2], &views[1..]);
        assert!(matches!(as_it_is, Cow::Borrowed(_)));
        let column = first.select(Axis(1), &[1]);
        let alone = arrange(&[Batch, Grid], &[1, 3], &[column.view()]);
        assert_eq!(*alone, [1., 11., 21.]);
    }
}
