//! y = x·Wᵀ for few rows, as a decoding step has them.
//!
//! A general product packs W anew at every call, which at sixteen rows costs as much as the product. Here W is
//! read once, in place, the way checkpoints store it: four of its rows by three of x, dot products in eight
//! lanes, twelve of AVX2's sixteen registers. An element is summed in the same order whatever the number of
//! rows, so that a sample does not depend on who is sampled beside it.

use std::ops::Range;

use rayon::prelude::*;

use super::cpu;
use super::real::Real;
use crate::base::error::Result;

const LANES: usize = 8;
/// Rows of W and of x in a tile.
const DEEP: usize = 4;
const WIDE: usize = 3;
/// Fewest rows of W that are worth a task.
const STRIPE: usize = 64;

/// x (t, k), w (n, k) → `out` (t, n) = x·wᵀ, or with `accumulate` `out` += x·wᵀ.
pub fn product<T: Real>(out: &mut [T], accumulate: bool, x: &[T], w: &[T], k: usize) {
    let (t, n) = (x.len() / k.max(1), w.len() / k.max(1));
    if t == 0 || n == 0 {
        return;
    }
    assert_eq!(out.len(), t * n, "the product does not fit its place");
    // (n, t): each task owns whole rows of it.
    let mut turned = vec![T::ZERO; n * t];
    let stripe = n.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(DEEP).max(STRIPE);
    turned.par_chunks_mut(stripe * t).zip(w.par_chunks(stripe * k)).for_each(|(out, w)| {
        cpu::simd(
            #[inline(always)]
            || columns(out, x, w, t, k),
        );
    });
    turn_back(out, accumulate, &turned, (t, n));
}

/// As [`product`], of a w (n, k) that exists by stripes only, as `rows` makes them.
pub(super) fn product_by_stripes<T: Real>(
    out: &mut [T],
    accumulate: bool,
    x: &[T],
    (n, k): (usize, usize),
    rows: &(dyn Fn(Range<usize>) -> Result<Vec<T>> + Sync),
) -> Result<()> {
    let t = x.len() / k.max(1);
    if t == 0 || n == 0 {
        return Ok(());
    }
    assert_eq!(out.len(), t * n, "the product does not fit its place");
    let mut turned = vec![T::ZERO; n * t];
    turned.par_chunks_mut(STRIPE * t).enumerate().try_for_each(|(i, out)| -> Result<()> {
        let w = rows(i * STRIPE..((i + 1) * STRIPE).min(n))?;
        cpu::simd(
            #[inline(always)]
            || columns(out, x, &w, t, k),
        );
        Ok(())
    })?;
    turn_back(out, accumulate, &turned, (t, n));
    Ok(())
}

/// `turned` (n, t) into `out` (t, n).
fn turn_back<T: Real>(out: &mut [T], accumulate: bool, turned: &[T], (t, n): (usize, usize)) {
    for (i, row) in out.chunks_exact_mut(n).enumerate() {
        for (y, sums) in row.iter_mut().zip(turned.chunks_exact(t)) {
            *y = if accumulate { *y + sums[i] } else { sums[i] };
        }
    }
}

/// `out` (rows of w, t).
#[inline(always)]
fn columns<T: Real>(out: &mut [T], x: &[T], w: &[T], t: usize, k: usize) {
    let whole = w.len() / k / DEEP * DEEP;
    for (out, w) in out.chunks_exact_mut(DEEP * t).zip(w.chunks_exact(DEEP * k)) {
        across::<T, DEEP>(out, x, w, t, k);
    }
    for (out, w) in out[whole * t..].chunks_exact_mut(t).zip(w[whole * k..].chunks_exact(k)) {
        across::<T, 1>(out, x, w, t, k);
    }
}

#[inline(always)]
fn across<T: Real, const D: usize>(out: &mut [T], x: &[T], w: &[T], t: usize, k: usize) {
    let mut i = 0;
    while i + WIDE <= t {
        tile::<T, D, WIDE>(out, &x[i * k..], w, t, k, i);
        i += WIDE;
    }
    while i < t {
        tile::<T, D, 1>(out, &x[i * k..], w, t, k, i);
        i += 1;
    }
}

#[inline(always)]
fn tile<T: Real, const D: usize, const W: usize>(
    out: &mut [T],
    x: &[T],
    w: &[T],
    t: usize,
    k: usize,
    first: usize,
) {
    let (x, w) = (&x[..W * k], &w[..D * k]);
    let mut sums = [[[T::ZERO; LANES]; W]; D];
    let whole = k / LANES * LANES;
    for l in (0..whole).step_by(LANES) {
        let mut right = [[T::ZERO; LANES]; W];
        for (i, right) in right.iter_mut().enumerate() {
            // SAFETY: i < W and l + LANES ≤ k, so the range ends within the W·k numbers of x.
            right.copy_from_slice(unsafe { x.get_unchecked(i * k + l..i * k + l + LANES) });
        }
        for (j, sums) in sums.iter_mut().enumerate() {
            // SAFETY: j < D and l + LANES ≤ k, so the range ends within the D·k numbers of w.
            let left = unsafe { w.get_unchecked(j * k + l..j * k + l + LANES) };
            for (sums, right) in sums.iter_mut().zip(&right) {
                for ((sum, &a), &b) in sums.iter_mut().zip(left).zip(right) {
                    *sum = a.mul_add(b, *sum);
                }
            }
        }
    }
    for (j, sums) in sums.iter().enumerate() {
        for (i, lanes) in sums.iter().enumerate() {
            let mut sum = pairwise(*lanes);
            for l in whole..k {
                sum = w[j * k + l].mul_add(x[i * k + l], sum);
            }
            out[j * t + first + i] = sum;
        }
    }
}

#[inline(always)]
fn pairwise<T: Real>(mut lanes: [T; LANES]) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, by: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * by + i * i) % 37) as f32 / 7.0 - 2.0).collect()
    }

    #[test]
    fn products_of_odd_sizes_are_those_of_three_loops() {
        for (t, n, k) in [(1, 1, 1), (2, 3, 8), (3, 4, 9), (16, 130, 40), (7, 257, 31), (5, 64, 0)] {
            let (x, w) = (numbers(t * k, 5), numbers(n * k, 11));
            let mut out = numbers(t * n, 3);
            let wanted: Vec<f64> = (0..t * n)
                .map(|at| {
                    let (i, j) = (at / n, at % n);
                    let dot: f64 = (0..k).map(|l| f64::from(x[i * k + l]) * f64::from(w[j * k + l])).sum();
                    f64::from(out[at]) + dot
                })
                .collect();
            product(&mut out, true, &x, &w, k);
            for (found, wanted) in out.iter().zip(&wanted) {
                assert!((f64::from(*found) - wanted).abs() < 1e-3, "{t}×{n}×{k}: {found} {wanted}");
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_whoever_stands_beside_it() {
        let (n, k) = (131, 77);
        let (x, w) = (numbers(20 * k, 5), numbers(n * k, 11));
        let mut all = vec![0.0; 20 * n];
        product(&mut all, false, &x, &w, k);
        for (first, rows) in [(0, 1), (3, 2), (4, 16), (19, 1)] {
            let mut some = vec![0.0; rows * n];
            product(&mut some, false, &x[first * k..(first + rows) * k], &w, k);
            assert_eq!(some, all[first * n..(first + rows) * n], "rows {first} to {}", first + rows);
        }
    }
}
