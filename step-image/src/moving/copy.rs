//! A part of an array from one buffer to another.

use super::Block;

/// Copies the values in `part`, which both blocks hold, from the buffer of one to that of the other; `size` is that
/// of a value in bytes.
pub(super) fn copy_part(from: (&[u8], &Block), to: (&mut [u8], &Block), part: &Block, size: usize) {
    let (source, from) = from;
    let (target, to) = to;
    let dims = part.shape.len();
    // As many of the last dimensions as lie without gaps in both are copied at once.
    let mut whole = dims;
    let mut run = size;
    while whole > 0 {
        whole -= 1;
        run *= part.shape[whole] as usize;
        if from.shape[whole] != part.shape[whole] || to.shape[whole] != part.shape[whole] {
            break;
        }
    }
    let runs: u64 = part.shape[..whole].iter().product();
    let (from_strides, to_strides) = (strides(&from.shape, size), strides(&to.shape, size));
    let place = |block: &Block, strides: &[usize]| -> usize {
        let along = part.start.iter().zip(&block.start).zip(strides);
        along
            .map(|((part, block), stride)| (part - block) as usize * stride)
            .sum()
    };
    let (mut source_at, mut target_at) = (place(from, &from_strides), place(to, &to_strides));
    let mut index = vec![0; whole];
    for _ in 0..runs {
        target[target_at..target_at + run].copy_from_slice(&source[source_at..source_at + run]);
        for axis in (0..whole).rev() {
            index[axis] += 1;
            source_at += from_strides[axis];
            target_at += to_strides[axis];
            if index[axis] < part.shape[axis] {
                break;
            }
            index[axis] = 0;
            source_at -= from_strides[axis] * part.shape[axis] as usize;
            target_at -= to_strides[axis] * part.shape[axis] as usize;
        }
    }
}

/// How many bytes lie between neighbours along each dimension.
fn strides(shape: &[u64], size: usize) -> Vec<usize> {
    let mut strides = vec![size; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis] as usize;
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two bytes for each value: its place along each dimension.
    fn numbered(block: &Block) -> Vec<u8> {
        let (rows, columns, deep) = (block.shape[0], block.shape[1], block.shape[2]);
        let mut bytes = Vec::new();
        for row in 0..rows {
            for column in 0..columns {
                for at in 0..deep {
                    let place = (
                        block.start[0] + row,
                        block.start[1] + column,
                        block.start[2] + at,
                    );
                    bytes.extend([(place.0 * 16 + place.1) as u8, place.2 as u8]);
                }
            }
        }
        bytes
    }

    #[test]
    fn every_value_comes_to_its_place() {
        let block = |start: [u64; 3], shape: [u64; 3]| Block {
            start: start.to_vec(),
            shape: shape.to_vec(),
        };
        let from = block([1, 0, 2], [3, 4, 5]);
        for to in [
            block([0, 0, 0], [6, 6, 8]),
            block([2, 1, 3], [2, 2, 2]),
            block([1, 0, 2], [3, 4, 5]),
            block([2, 0, 2], [5, 4, 5]),
            block([0, 3, 0], [3, 3, 3]),
        ] {
            let part = from.common(&to);
            let mut target = vec![255; to.len() as usize * 2];
            copy_part((&numbered(&from), &from), (&mut target, &to), &part, 2);
            let whole = numbered(&to);
            let copied = target
                .chunks(2)
                .zip(whole.chunks(2))
                .filter(|(got, _)| *got != [255, 255]);
            let copied: Vec<_> = copied.collect();
            assert_eq!(copied.len() as u64, part.len(), "{to:?}");
            assert!(
                copied.iter().all(|(got, expected)| got == expected),
                "{to:?}"
            );
        }
    }

    #[test]
    fn a_single_value_has_no_dimensions() {
        let block = Block {
            start: vec![],
            shape: vec![],
        };
        let mut target = [0; 4];
        copy_part((&[1, 2, 3, 4], &block), (&mut target, &block), &block, 4);
        assert_eq!(target, [1, 2, 3, 4]);
    }
}
