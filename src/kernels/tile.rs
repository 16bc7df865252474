//! Small matrix products inside attention, without packing.
//!
//! A general product packs both sides first, which costs as much as the work itself at the sizes of one head
//! (64 rows, 64 columns deep). Here the right side is read in place: its rows are contiguous and padded to
//! whole tiles. Six rows by sixteen columns of the result stay in registers, twelve of AVX2's sixteen.
//! Ranges per tile leave out what causality masks.

use std::ops::Range;

use super::real::Real;

/// Columns of a tile: rows of every operand are padded to a multiple of this.
pub const WIDTH: usize = 16;
/// Rows of a tile.
pub const HEIGHT: usize = 6;

/// The left side: element (i, l) is `data[i·row + l·col]`.
#[derive(Clone, Copy)]
pub struct Left<'a, T> {
    pub data: &'a [T],
    pub row: usize,
    pub col: usize,
}

/// The right side: element (l, j) is `data[l·row + j]`.
#[derive(Clone, Copy)]
pub struct Right<'a, T> {
    pub data: &'a [T],
    pub row: usize,
}

/// What of the result a tile of rows needs, and how deep: columns and depth.
pub type Bounds = (Range<usize>, Range<usize>);

/// Rounds up to whole tiles.
pub fn padded(n: usize) -> usize {
    n.next_multiple_of(WIDTH)
}

/// `out[i, j] (+)= Σ_l a[i, l]·b[l, j]` for rows `0..rows`; `bounds(tile's rows)` says for which columns
/// (widened to whole tiles) and over which l. `out` has rows `stride` apart.
#[inline(always)]
pub fn product<T: Real>(
    out: &mut [T],
    stride: usize,
    accumulate: bool,
    rows: usize,
    a: Left<'_, T>,
    b: Right<'_, T>,
    bounds: impl Fn(Range<usize>) -> Bounds,
) {
    let mut first = 0;
    while first < rows {
        let height = HEIGHT.min(rows - first);
        let (columns, depth) = bounds(first..first + height);
        let columns = columns.start / WIDTH * WIDTH..padded(columns.end);
        let place = Place { out: &mut *out, stride, first, columns, depth, accumulate };
        match height {
            6 => row_of_tiles::<T, 6>(place, a, b),
            5 => row_of_tiles::<T, 5>(place, a, b),
            4 => row_of_tiles::<T, 4>(place, a, b),
            3 => row_of_tiles::<T, 3>(place, a, b),
            2 => row_of_tiles::<T, 2>(place, a, b),
            _ => row_of_tiles::<T, 1>(place, a, b),
        }
        first += height;
    }
}

struct Place<'a, T> {
    out: &'a mut [T],
    stride: usize,
    first: usize,
    columns: Range<usize>,
    depth: Range<usize>,
    accumulate: bool,
}

#[inline(always)]
fn row_of_tiles<T: Real, const H: usize>(place: Place<'_, T>, a: Left<'_, T>, b: Right<'_, T>) {
    let Place { out, stride, first, columns, depth, accumulate } = place;
    if columns.is_empty() {
        return;
    }
    let (low, high) = (depth.start, depth.end.max(depth.start));
    // The checks that the inner loop leaves out: the last element of each operand is inside.
    assert!((first + H - 1) * stride + columns.end <= out.len(), "the result does not fit");
    if high > low {
        assert!((first + H - 1) * a.row + (high - 1) * a.col < a.data.len(), "the left side is too small");
        assert!((high - 1) * b.row + columns.end <= b.data.len(), "the right side is too small");
    }
    for column in columns.step_by(WIDTH) {
        let mut sums = [[T::ZERO; WIDTH]; H];
        for l in low..high {
            let at = l * b.row + column;
            // SAFETY: at + WIDTH ≤ (high − 1)·b.row + columns.end, asserted above.
            let right = unsafe { b.data.get_unchecked(at..at + WIDTH) };
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: at most (first + H − 1)·a.row + (high − 1)·a.col, asserted above.
                let left = unsafe { *a.data.get_unchecked((first + i) * a.row + l * a.col) };
                for j in 0..WIDTH {
                    sums[j] = left.mul_add(right[j], sums[j]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let at = (first + i) * stride + column;
            for (out, &sum) in out[at..at + WIDTH].iter_mut().zip(sums) {
                *out = if accumulate { *out + sum } else { sum };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cpu::simd;

    #[test]
    fn products_of_odd_sizes_are_those_of_three_loops() {
        for (rows, columns, depth) in [(1, 16, 1), (6, 32, 5), (13, 48, 9), (11, 16, 40)] {
            let a: Vec<f64> = (0..rows * depth).map(|i| (i * 7 % 13) as f64).collect();
            let b: Vec<f64> = (0..depth * columns).map(|i| (i * 5 % 11) as f64).collect();
            let mut wanted = vec![1.0; rows * columns];
            for i in 0..rows {
                for j in 0..columns {
                    for l in 0..depth {
                        wanted[i * columns + j] += a[i * depth + l] * b[l * columns + j];
                    }
                }
            }
            let right = Right { data: &b, row: columns };
            let mut transposed = vec![0.0; a.len()];
            for i in 0..rows {
                for l in 0..depth {
                    transposed[l * rows + i] = a[i * depth + l];
                }
            }
            for left in [Left { data: &a, row: depth, col: 1 }, Left { data: &transposed, row: 1, col: rows }]
            {
                let mut out = vec![1.0; rows * columns];
                simd(|| product(&mut out, columns, true, rows, left, right, |_| (0..columns, 0..depth)));
                assert_eq!(out, wanted);
            }
        }
    }
}
