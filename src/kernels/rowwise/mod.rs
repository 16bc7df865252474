//! y = x·Wᵀ whose rows do not know of each other: for decoding, where a sample must not depend on who is
//! sampled beside it.
//!
//! A general product chooses its blocks by the number of rows, and with them the order of its sums; it also
//! packs W anew at every call, which at sixteen rows costs as much as the product. Here W is read in place, the
//! way checkpoints store it: dot products in eight lanes, four rows of W by at most three of x at a time, so
//! that the sums stay in registers. An element's sum has one order, whatever stands beside it.

use std::ops::Range;

use rayon::prelude::*;

use super::cpu;
use super::matrix::Place;
use super::real::Real;

#[cfg(target_arch = "x86_64")]
mod avx2;
mod portable;

/// Rows of W in a tile.
const DEEP: usize = 4;
/// Most rows of x in a tile.
const WIDE: usize = 3;
/// Rows of x that go with a panel of W before the next: few enough that they stay in the second cache.
const BLOCK: usize = 48;
/// Fewest rows of W that are worth a task.
const STRIPE: usize = 16;
/// Multiply-adds that one thread does before others would have woken.
const SERIAL: usize = 1 << 17;

/// x (t, k), w (n, k) → `out` = x·wᵀ, or with `accumulate` `out` += x·wᵀ; `out` has t rows of n numbers,
/// `stride` apart.
pub fn product<T: Real>(out: &mut [T], stride: usize, accumulate: bool, x: &[T], w: &[T], k: usize) {
    assert!(k > 0 && x.len().is_multiple_of(k) && w.len().is_multiple_of(k), "rows of {k} numbers");
    let (t, n) = (x.len() / k, w.len() / k);
    if t == 0 || n == 0 {
        return;
    }
    assert!((t - 1) * stride + n <= out.len() && n <= stride, "the product does not fit its place");
    let tasks = if t * n * k < SERIAL { 1 } else { 4 * rayon::current_num_threads() };
    let blocks = t.div_ceil(BLOCK);
    let wide = n.div_ceil(tasks.div_ceil(blocks)).max(STRIPE).next_multiple_of(DEEP);
    let stripes = n.div_ceil(wide);
    let place = Place { out: out.as_mut_ptr(), stride, accumulate };
    let task = |i: usize| {
        let (first, column) = (i / stripes * BLOCK, i % stripes * wide);
        let (last, end) = ((first + BLOCK).min(t), (column + wide).min(n));
        // SAFETY: rows and columns lie inside `out`, which is borrowed mutably, and no other task has both.
        unsafe { place.fill(first, column, &x[first * k..last * k], &w[column * k..end * k], k) }
    };
    match blocks * stripes {
        1 => task(0),
        all => (0..all).into_par_iter().for_each(task),
    }
}

/// x (g, k), w (n, k) → `out` (g, n) = x·wᵀ, on this thread.
pub fn scores<T: Real>(out: &mut [T], x: &[T], w: &[T], k: usize) {
    let n = w.len() / k;
    assert!(out.len() == x.len() / k * n, "the scores do not fit their place");
    let place = Place { out: out.as_mut_ptr(), stride: n, accumulate: false };
    // SAFETY: `out` is as large as the product, and borrowed mutably.
    unsafe { place.fill(0, 0, x, w, k) }
}

/// p (g, n), v (n, d) → `out` (g, d) = p·v, on this thread.
pub fn mixture<T: Real>(out: &mut [T], p: &[T], v: &[T], d: usize) {
    let (g, n) = (out.len() / d, v.len() / d);
    assert!(p.len() == g * n && out.len() == g * d, "a mixture of {n} rows of {d} numbers");
    #[cfg(target_arch = "x86_64")]
    if avx2::applies::<T>() {
        let place = Place { out: out.as_mut_ptr(), stride: d, accumulate: false };
        // SAFETY: T is f32, the instructions are there, and `out` is as large as the mixture.
        return unsafe { avx2::mixture(place.cast(), avx2::floats(p), avx2::floats(v), d) };
    }
    cpu::simd(
        #[inline(always)]
        || portable::mixture(out, p, v, d),
    );
}

impl<T: Real> Place<T> {
    /// Writes x·wᵀ at (`row`, `column`).
    ///
    /// # Safety
    /// The block must lie inside `out`, and nobody else may use it meanwhile.
    unsafe fn fill(self, row: usize, column: usize, x: &[T], w: &[T], k: usize) {
        // SAFETY: the caller's.
        let place = Self { out: unsafe { self.out.add(row * self.stride + column) }, ..self };
        #[cfg(target_arch = "x86_64")]
        if avx2::applies::<T>() {
            // SAFETY: T is f32 and the instructions are there; the rest is the caller's.
            return unsafe { avx2::fill(place.cast(), avx2::floats(x), avx2::floats(w), k) };
        }
        cpu::simd(
            #[inline(always)]
            // SAFETY: the caller's.
            || unsafe { portable::fill(place, x, w, k) },
        );
    }

    #[cfg(target_arch = "x86_64")]
    fn cast<U>(self) -> Place<U> {
        Place { out: self.out.cast(), stride: self.stride, accumulate: self.accumulate }
    }
}

/// Cuts t rows into tiles of at most three, of equal height as far as possible: a tile of one row leaves half
/// of the machine idle.
#[inline(always)]
fn tiles(t: usize) -> impl Iterator<Item = Range<usize>> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let height = match t - first {
            0 => return None,
            1 => 1,
            2 | 4 => 2,
            _ => WIDE,
        };
        first += height;
        Some(first - height..first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers<T: Real>(n: usize, by: usize) -> Vec<T> {
        (0..n).map(|i| T::of(((i * by + i * i) % 37) as f64 / 7.0 - 2.0)).collect()
    }

    fn products_are_right<T: Real>(bound: f64) {
        let sizes =
            [(1, 1, 1), (2, 3, 8), (3, 4, 9), (16, 130, 40), (7, 257, 31), (100, 66, 65), (50, 301, 33)];
        for (t, n, k) in sizes {
            for (accumulate, stride) in [(true, n), (false, n + 3)] {
                let (x, w): (Vec<T>, Vec<T>) = (numbers(t * k, 5), numbers(n * k, 11));
                let before: Vec<T> = numbers(t * stride, 3);
                let mut out = before.clone();
                product(&mut out, stride, accumulate, &x, &w, k);
                for (at, (&found, &before)) in out.iter().zip(&before).enumerate() {
                    let (i, j) = (at / stride, at % stride);
                    if j >= n {
                        assert!(found == before, "what lies between the rows stays");
                        continue;
                    }
                    let dot: f64 = (0..k).map(|l| x[i * k + l].to_f64() * w[j * k + l].to_f64()).sum();
                    let wanted = if accumulate { before.to_f64() + dot } else { dot };
                    assert!((found.to_f64() - wanted).abs() < bound, "{t}×{n}×{k}: {found} {wanted}");
                }
            }
        }
    }

    #[test]
    fn products_of_odd_sizes_are_those_of_three_loops() {
        products_are_right::<f32>(1e-3);
        products_are_right::<f64>(1e-11);
    }

    fn mixtures_are_right<T: Real>(bound: f64) {
        for (g, n, d) in [(1, 1, 1), (1, 9, 64), (2, 30, 64), (3, 5, 40), (4, 17, 100), (7, 3, 13)] {
            let (p, v): (Vec<T>, Vec<T>) = (numbers(g * n, 5), numbers(n * d, 11));
            let mut out = vec![T::ONE; g * d];
            mixture(&mut out, &p, &v, d);
            for (at, found) in out.iter().enumerate() {
                let (i, j) = (at / d, at % d);
                let wanted: f64 = (0..n).map(|l| p[i * n + l].to_f64() * v[l * d + j].to_f64()).sum();
                assert!((found.to_f64() - wanted).abs() < bound, "{g}×{n}×{d}: {found} {wanted}");
            }
        }
    }

    #[test]
    fn mixtures_of_odd_sizes_are_those_of_three_loops() {
        mixtures_are_right::<f32>(1e-4);
        mixtures_are_right::<f64>(1e-12);
    }

    #[test]
    fn the_portable_version_is_right_too() {
        let (t, n, k) = (7, 30, 29);
        let (x, w): (Vec<f32>, Vec<f32>) = (numbers(t * k, 5), numbers(n * k, 11));
        let (mut out, mut other) = (vec![0.0f32; t * n], vec![0.0f32; t * n]);
        product(&mut out, n, false, &x, &w, k);
        let place = Place { out: other.as_mut_ptr(), stride: n, accumulate: false };
        // SAFETY: the place is as large as the product.
        unsafe { portable::fill(place, &x, &w, k) };
        for (a, b) in out.iter().zip(&other) {
            assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
    }

    #[test]
    fn a_row_has_the_same_bits_whoever_stands_beside_it() {
        let (n, k) = (1031, 777);
        let (x, w): (Vec<f32>, Vec<f32>) = (numbers(70 * k, 5), numbers(n * k, 11));
        let mut all = vec![0.0; 70 * n];
        product(&mut all, n, false, &x, &w, k);
        for (first, rows) in [(0, 1), (3, 2), (4, 16), (19, 1), (5, 61), (69, 1)] {
            let mut some = vec![0.0; rows * n];
            product(&mut some, n, false, &x[first * k..(first + rows) * k], &w, k);
            assert_eq!(some, all[first * n..(first + rows) * n], "rows {first} to {}", first + rows);
        }
    }
}
