//! What is known of the members at some neighbouring points of one step.

use ethnum::U256;
use serde::{Deserialize, Serialize};

use super::{Product, exact};
use crate::blosc::OVERHEAD;

/// The points in a block.
pub(super) const POINTS: usize = 16_384;

/// What is kept at each point, as the products need it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The sum of the values.
    sum: bool,
    /// The sum of their squares.
    squares: bool,
    /// The smallest and the largest.
    extremes: bool,
    /// The number of values above each of these.
    above: Vec<f64>,
    /// All values, sorted.
    pub(super) sorted: bool,
}

impl Kept {
    pub(super) fn of(products: &[Product]) -> Self {
        let has = |wanted: &[Product]| products.iter().any(|product| wanted.contains(product));
        let mut above: Vec<f64> = products
            .iter()
            .filter_map(|product| match product {
                Product::Above(threshold) => Some(*threshold),
                _ => None,
            })
            .collect();
        above.sort_by(f64::total_cmp);
        let is_percentile = |product: &Product| matches!(product, Product::Percentile(_));
        Self {
            sum: has(&[Product::Mean, Product::Spread]),
            squares: has(&[Product::Spread]),
            extremes: has(&[Product::Minimum, Product::Maximum]),
            above,
            sorted: products.iter().any(is_percentile),
        }
    }

    /// The sections of a block, in order: the width of a value, and how many there are at a point.
    pub(super) fn sections(&self, members: usize) -> Vec<(usize, usize)> {
        let mut sections = vec![(2, 1)];
        let mut add = |wanted: bool, width: usize, count: usize| {
            sections.extend((wanted && count > 0).then_some((width, count)));
        };
        add(self.sum, 16, 1);
        add(self.squares, 32, 1);
        add(self.extremes, 4, 2);
        add(true, 2, self.above.len());
        add(self.sorted, 4, members);
        sections
    }

    /// The most bytes of all blocks of a plane.
    pub(super) fn plane_bytes(&self, points: u64, members: usize) -> u64 {
        let blocks = points.div_ceil(POINTS as u64);
        let section = |(width, count): (usize, usize)| {
            points * (width * count) as u64 + blocks * (8 + OVERHEAD)
        };
        self.sections(members).into_iter().map(section).sum()
    }
}

/// The points of a block; each field is empty where it is not kept.
pub(super) struct Block {
    members: usize,
    /// How many of the members have a value.
    count: Vec<u16>,
    sum: Vec<i128>,
    squares: Vec<U256>,
    /// Smallest and largest of each point.
    extremes: Vec<[f32; 2]>,
    /// For each point, the number above each threshold.
    above: Vec<u16>,
    /// For each point, the members' values, sorted; missing ones (NaN) last.
    sorted: Vec<f32>,
}

/// A value that cannot be added.
pub(super) enum Refused {
    /// Unlike the members before, this one is missing (or the other way round).
    Mixed { point: usize, is_missing: bool },
    /// It is too large.
    Overflow { point: usize, value: f32 },
}

impl Block {
    /// A block without members.
    pub(super) fn empty(kept: &Kept, points: usize) -> Self {
        let length = |wanted: bool| if wanted { points } else { 0 };
        Self {
            members: 0,
            count: vec![0; points],
            sum: vec![0; length(kept.sum)],
            squares: vec![U256::ZERO; length(kept.squares)],
            extremes: vec![[f32::NAN; 2]; length(kept.extremes)],
            above: vec![0; points * kept.above.len()],
            sorted: Vec::new(),
        }
    }

    /// Adds the values of one member; `may_mix` says of a point whether only some members may have
    /// a value there.
    pub(super) fn add(
        &mut self,
        kept: &Kept,
        values: &[f32],
        may_mix: impl Fn(usize) -> bool,
    ) -> Result<(), Refused> {
        let before = self.members;
        self.members += 1;
        if kept.sorted {
            self.sorted = insert(&self.sorted, before, values);
        }
        for (point, &value) in values.iter().enumerate() {
            let is_missing = value.is_nan();
            let others = usize::from(self.count[point]);
            let agrees = if is_missing {
                others == 0
            } else {
                others == before
            };
            if !agrees && !may_mix(point) {
                return Err(Refused::Mixed { point, is_missing });
            }
            if is_missing {
                continue;
            }
            self.count[point] += 1;
            if kept.sum {
                let exact = exact::fixed(value).ok_or(Refused::Overflow { point, value })?;
                self.sum[point] += exact;
                if kept.squares {
                    self.squares[point] += exact::square(exact);
                }
            }
            if let Some([low, high]) = self.extremes.get_mut(point) {
                // Total order: -0 is below 0, whichever came first.
                if low.is_nan() || value.total_cmp(low).is_lt() {
                    *low = value;
                }
                if high.is_nan() || value.total_cmp(high).is_gt() {
                    *high = value;
                }
            }
            for (index, threshold) in kept.above.iter().enumerate() {
                let is_above = f64::from(value) > *threshold;
                self.above[point * kept.above.len() + index] += u16::from(is_above);
            }
        }
        Ok(())
    }

    /// A product at every point; NaN where no member has a value.
    pub(super) fn product(&self, kept: &Kept, product: &Product) -> Vec<f64> {
        let at = |point: usize, count: u16| match product {
            Product::Mean => exact::mean(self.sum[point], count),
            Product::Spread => exact::spread(self.sum[point], self.squares[point], count),
            Product::Minimum => f64::from(self.extremes[point][0]),
            Product::Maximum => f64::from(self.extremes[point][1]),
            Product::Above(threshold) => {
                let index = kept.above.iter().position(|other| other == threshold);
                let place = point * kept.above.len() + index.unwrap_or_default();
                f64::from(self.above[place]) / f64::from(count)
            }
            Product::Percentile(percent) => {
                let row = &self.sorted[point * self.members..][..usize::from(count)];
                exact::percentile(row, *percent)
            }
        };
        let points = self.count.iter().copied().enumerate();
        points
            .map(|(point, count)| match count {
                0 => f64::NAN,
                _ => at(point, count),
            })
            .collect()
    }

    /// The bytes of each section.
    pub(super) fn encode(&self, kept: &Kept) -> Vec<Vec<u8>> {
        let mut sections = vec![bytes(&self.count, u16::to_le_bytes)];
        if kept.sum {
            sections.push(bytes(&self.sum, i128::to_le_bytes));
        }
        if kept.squares {
            sections.push(bytes(&self.squares, U256::to_le_bytes));
        }
        if kept.extremes {
            sections.push(bytes(self.extremes.as_flattened(), f32::to_le_bytes));
        }
        if !kept.above.is_empty() {
            sections.push(bytes(&self.above, u16::to_le_bytes));
        }
        if kept.sorted && self.members > 0 {
            sections.push(bytes(&self.sorted, f32::to_le_bytes));
        }
        sections
    }

    /// A block again, from the bytes of its sections, which have the lengths that [`Kept::sections`]
    /// says.
    pub(super) fn decode(kept: &Kept, members: usize, sections: &[Vec<u8>]) -> Self {
        let mut sections = sections.iter().map(Vec::as_slice);
        let mut next = |wanted: bool| match wanted {
            true => sections.next().unwrap_or_default(),
            false => &[],
        };
        Self {
            members,
            count: values(next(true), u16::from_le_bytes),
            sum: values(next(kept.sum), i128::from_le_bytes),
            squares: values(next(kept.squares), U256::from_le_bytes),
            extremes: values(next(kept.extremes), f32::from_le_bytes)
                .as_chunks()
                .0
                .to_vec(),
            above: values(next(!kept.above.is_empty()), u16::from_le_bytes),
            sorted: values(next(kept.sorted && members > 0), f32::from_le_bytes),
        }
    }
}

/// Rows of `length` sorted values, each with one more.
fn insert(rows: &[f32], length: usize, more: &[f32]) -> Vec<f32> {
    let mut result = Vec::with_capacity(rows.len() + more.len());
    for (point, &value) in more.iter().enumerate() {
        let row = &rows[point * length..][..length];
        let place = row.partition_point(|other| other.total_cmp(&value).is_le());
        result.extend_from_slice(&row[..place]);
        result.push(value);
        result.extend_from_slice(&row[place..]);
    }
    result
}

fn bytes<T: Copy, const N: usize>(values: &[T], encode: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| encode(value)).collect()
}

fn values<T, const N: usize>(bytes: &[u8], decode: fn([u8; N]) -> T) -> Vec<T> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&bytes| decode(bytes))
        .collect()
}
