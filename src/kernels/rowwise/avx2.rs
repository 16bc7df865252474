//! The f32 version for AVX2 and FMA, in intrinsics: left to itself the compiler spills the sums.

use std::arch::x86_64::*;

use super::super::real::Real;
use super::{DEEP, Place, WIDE, tiles};

const LANES: usize = 8;

/// Whether [`fill`] can be called for this number type on this machine.
pub fn applies<T: Real>() -> bool {
    T::DTYPE == candle_core::DType::F32 && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// # Safety
/// T must be f32.
pub unsafe fn floats<T: Real>(x: &[T]) -> &[f32] {
    // SAFETY: the same type, as the caller says.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len()) }
}

/// # Safety
/// The machine must have AVX2 and FMA; x·wᵀ must fit into the place, which nobody else uses meanwhile.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn fill(place: Place<f32>, x: &[f32], w: &[f32], k: usize) {
    let (t, n) = (x.len() / k, w.len() / k);
    let whole = n / DEEP * DEEP;
    for column in (0..whole).step_by(DEEP) {
        // SAFETY: four rows of w from `column` on.
        unsafe { panel::<DEEP>(place, column, x.as_ptr(), t, w.as_ptr().add(column * k), k) };
    }
    for column in whole..n {
        // SAFETY: one row of w.
        unsafe { panel::<1>(place, column, x.as_ptr(), t, w.as_ptr().add(column * k), k) };
    }
}

/// All rows of x with D rows of w.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn panel<const D: usize>(
    place: Place<f32>,
    column: usize,
    x: *const f32,
    t: usize,
    w: *const f32,
    k: usize,
) {
    for rows in tiles(t) {
        // The first two tiles fetch the panel after this one, half of it each.
        let ahead = w.wrapping_add(D * k + rows.start.min(1) * D * k / 2);
        // SAFETY: the rows are among the t, and the place has them.
        unsafe {
            let out = place.out.add(rows.start * place.stride + column);
            let place = Place { out, ..place };
            let x = x.add(rows.start * k);
            match rows.len() {
                3 if rows.start <= WIDE => tile::<D, 3, true>(place, x, w, k, ahead),
                3 => tile::<D, 3, false>(place, x, w, k, ahead),
                2 => tile::<D, 2, true>(place, x, w, k, ahead),
                _ => tile::<D, 1, true>(place, x, w, k, ahead),
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn tile<const D: usize, const W: usize, const FETCH: bool>(
    place: Place<f32>,
    x: *const f32,
    w: *const f32,
    k: usize,
    ahead: *const f32,
) {
    let mut sums = [[_mm256_setzero_ps(); D]; W];
    let whole = k / LANES * LANES;
    let mut l = 0;
    while l < whole {
        if FETCH {
            // A hint: what it names need not exist. A line is two vectors, and D rows are to come.
            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(l * D / 2).cast());
        }
        // Twelve sums, three of x and one of w at a time: sixteen registers, and no more.
        let mut left = [_mm256_setzero_ps(); W];
        for (i, left) in left.iter_mut().enumerate() {
            // SAFETY: l + 8 ≤ k numbers of row i of x.
            *left = unsafe { _mm256_loadu_ps(x.add(i * k + l)) };
        }
        for j in 0..D {
            // SAFETY: the same of row j of w.
            let right = unsafe { _mm256_loadu_ps(w.add(j * k + l)) };
            for (sums, left) in sums.iter_mut().zip(left) {
                sums[j] = _mm256_fmadd_ps(left, right, sums[j]);
            }
        }
        l += LANES;
    }
    if whole < k {
        let mask = first_lanes(k - whole);
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the mask lets through k − whole numbers of row i of x.
            let left = unsafe { _mm256_maskload_ps(x.add(i * k + whole), mask) };
            for (j, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the same of row j of w.
                let right = unsafe { _mm256_maskload_ps(w.add(j * k + whole), mask) };
                *sum = _mm256_fmadd_ps(left, right, *sum);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        // SAFETY: D numbers of row i of the place.
        unsafe { store(place.out.add(i * place.stride), sums, place.accumulate) };
    }
}

/// All bits set in the first n of eight lanes.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn first_lanes(n: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// Sums each accumulator's lanes, in the same order for one as for four.
///
/// # Safety
/// `out` has room for D numbers.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn store<const D: usize>(out: *mut f32, sums: &[__m256; D], accumulate: bool) {
    let mut four = [_mm256_setzero_ps(); DEEP];
    four[..D].copy_from_slice(sums);
    let pairs = [_mm256_hadd_ps(four[0], four[1]), _mm256_hadd_ps(four[2], four[3])];
    let halves = _mm256_hadd_ps(pairs[0], pairs[1]);
    let sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
    // SAFETY: the caller's.
    unsafe {
        if D == DEEP {
            let sums = if accumulate { _mm_add_ps(_mm_loadu_ps(out), sums) } else { sums };
            _mm_storeu_ps(out, sums);
        } else {
            let sum = _mm_cvtss_f32(sums);
            *out = if accumulate { *out + sum } else { sum };
        }
    }
}

/// p·v with p (g, n), v (n, d).
///
/// # Safety
/// The machine must have AVX2 and FMA; the mixture must fit into the place, which nobody else uses meanwhile.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn mixture(place: Place<f32>, p: &[f32], v: &[f32], d: usize) {
    let n = v.len() / d;
    for rows in tiles(p.len() / n.max(1)) {
        let (p, v) = (p[rows.start * n..].as_ptr(), v.as_ptr());
        // SAFETY: the rows are among those of p, and the place has them.
        unsafe {
            let place = Place { out: place.out.add(rows.start * place.stride), ..place };
            match rows.len() {
                3 => mixed_rows::<3, 4>(place, p, v, n, d),
                2 => mixed_rows::<2, 4>(place, p, v, n, d),
                _ => mixed_rows::<1, 8>(place, p, v, n, d),
            }
        }
    }
}

/// G rows of p, C vectors of columns at a time, then what is left one vector at a time.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn mixed_rows<const G: usize, const C: usize>(
    place: Place<f32>,
    p: *const f32,
    v: *const f32,
    n: usize,
    d: usize,
) {
    let mut column = 0;
    while column < d {
        let left = d - column;
        // SAFETY: at most `left` columns from `column` on.
        unsafe {
            let place = Place { out: place.out.add(column), ..place };
            let v = v.add(column);
            column += if left >= C * LANES {
                mixed_tile::<G, C>(place, p, v, n, d, LANES)
            } else {
                mixed_tile::<G, 1>(place, p, v, n, d, left.min(LANES))
            };
        }
    }
}

/// Returns how many columns it has done: `last` lanes of the last vector, all of the others.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn mixed_tile<const G: usize, const C: usize>(
    place: Place<f32>,
    p: *const f32,
    v: *const f32,
    n: usize,
    d: usize,
    last: usize,
) -> usize {
    let mask = first_lanes(last);
    let mut sums = [[_mm256_setzero_ps(); C]; G];
    for l in 0..n {
        let mut left = [_mm256_setzero_ps(); G];
        for (i, left) in left.iter_mut().enumerate() {
            // SAFETY: element l of row i of p.
            *left = unsafe { _mm256_broadcast_ss(&*p.add(i * n + l)) };
        }
        for c in 0..C {
            // SAFETY: inside row l of v, by the mask in the last vector.
            let right = unsafe {
                let at = v.add(l * d + c * LANES);
                if C == 1 { _mm256_maskload_ps(at, mask) } else { _mm256_loadu_ps(at) }
            };
            for (sums, left) in sums.iter_mut().zip(left) {
                sums[c] = _mm256_fmadd_ps(left, right, sums[c]);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (c, &sum) in sums.iter().enumerate() {
            // SAFETY: as in v, in row i of the place.
            unsafe {
                let at = place.out.add(i * place.stride + c * LANES);
                if C == 1 { _mm256_maskstore_ps(at, mask, sum) } else { _mm256_storeu_ps(at, sum) }
            }
        }
    }
    (C - 1) * LANES + last
}
