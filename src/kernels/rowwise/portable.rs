//! The version for any number type and machine.

use super::super::real::Real;
use super::{DEEP, Place};

const LANES: usize = 8;

/// # Safety
/// x·wᵀ must fit into the place, which nobody else uses meanwhile.
#[inline(always)]
pub unsafe fn fill<T: Real>(place: Place<T>, x: &[T], w: &[T], k: usize) {
    let (t, n) = (x.len() / k, w.len() / k);
    let whole = n / DEEP * DEEP;
    for column in 0..n {
        if column < whole && column % DEEP != 0 {
            continue;
        }
        for (i, x) in x.chunks_exact(k).enumerate().take(t) {
            // SAFETY: row i, and the columns of this panel.
            let out = unsafe { place.out.add(i * place.stride + column) };
            let w = &w[column * k..];
            // SAFETY: as many numbers as the panel has columns.
            unsafe {
                if column < whole {
                    store(out, dots::<T, DEEP>(x, w), place.accumulate);
                } else {
                    store(out, dots::<T, 1>(x, w), place.accumulate);
                }
            }
        }
    }
}

/// Dot products of x with D rows of w.
#[inline(always)]
fn dots<T: Real, const D: usize>(x: &[T], w: &[T]) -> [T; D] {
    let k = x.len();
    let mut sums = [[T::ZERO; LANES]; D];
    let whole = k / LANES * LANES;
    for l in (0..whole).step_by(LANES) {
        let x = &x[l..l + LANES];
        for j in 0..D {
            let w = &w[j * k + l..j * k + l + LANES];
            for i in 0..LANES {
                sums[j][i] = add_product(x[i], w[i], sums[j][i]);
            }
        }
    }
    let mut dots = [T::ZERO; D];
    for j in 0..D {
        dots[j] = sums[j].iter().copied().sum();
        for l in whole..k {
            dots[j] = add_product(x[l], w[j * k + l], dots[j]);
        }
    }
    dots
}

/// Fused where every machine of the kind has an instruction for it; elsewhere it would be a call.
#[inline(always)]
fn add_product<T: Real>(a: T, b: T, sum: T) -> T {
    if cfg!(target_arch = "aarch64") { a.mul_add(b, sum) } else { sum + a * b }
}

#[inline(always)]
unsafe fn store<T: Real, const D: usize>(out: *mut T, dots: [T; D], accumulate: bool) {
    for (j, dot) in dots.into_iter().enumerate() {
        // SAFETY: the caller has D numbers there.
        let place = unsafe { &mut *out.add(j) };
        *place = if accumulate { *place + dot } else { dot };
    }
}

/// p (g, n), v (n, d) → `out` (g, d) = p·v.
#[inline(always)]
pub fn mixture<T: Real>(out: &mut [T], p: &[T], v: &[T], d: usize) {
    let n = v.len() / d;
    for (i, out) in out.chunks_exact_mut(d).enumerate() {
        out.fill(T::ZERO);
        for (&p, v) in p[i * n..][..n].iter().zip(v.chunks_exact(d)) {
            for (out, &v) in out.iter_mut().zip(v) {
                *out = add_product(p, v, *out);
            }
        }
    }
}
