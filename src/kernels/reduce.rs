//! Sums and maxima of slices in sixteen lanes: floating-point addition has an order, so the compiler does not
//! make lanes of a plain sum by itself.

use super::real::Real;

const LANES: usize = 16;

/// Applies `step` to lanes of accumulators, then `step` over what is left and the lanes.
#[inline(always)]
fn fold<T: Real>(x: &[T], start: T, step: impl Fn(T, T) -> T) -> T {
    let mut lanes = [start; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = step(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = step(*lane, x);
    }
    combine(lanes, step)
}

/// Pairwise, so that the halves are vectors as long as there are any.
#[inline(always)]
fn combine<T: Real>(mut lanes: [T; LANES], step: impl Fn(T, T) -> T) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = step(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Σ x
#[inline(always)]
pub fn sum<T: Real>(x: &[T]) -> T {
    fold(x, T::ZERO, |a, b| a + b)
}

/// max x; −∞ if empty.
#[inline(always)]
pub fn max<T: Real>(x: &[T]) -> T {
    fold(x, T::NEG_INF, |a, b| b.max_of(a))
}

/// Σ f(xᵢ, yᵢ), where `f` adds a term to an accumulator.
#[inline(always)]
pub fn sum_with<T: Real>(x: &[T], y: &[T], f: impl Fn(T, T, T) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let n = x.len().min(y.len());
    let whole = n - n % LANES;
    for (x, y) in x[..whole].chunks_exact(LANES).zip(y[..whole].chunks_exact(LANES)) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
            *lane = f(x, y, *lane);
        }
    }
    for ((lane, &x), &y) in lanes.iter_mut().zip(&x[whole..n]).zip(&y[whole..n]) {
        *lane = f(x, y, *lane);
    }
    combine(lanes, |a, b| a + b)
}

/// Σ xᵢ·yᵢ
#[inline(always)]
pub fn dot<T: Real>(x: &[T], y: &[T]) -> T {
    sum_with(x, y, |x, y, sum| x.mul_add(y, sum))
}

/// Replaces x by exp(x − shift) and returns the sum.
#[inline(always)]
pub fn exp_sum<T: Real>(x: &mut [T], shift: T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let mut chunks = x.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *x = (*x - shift).exp();
            *lane += *x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(chunks.into_remainder()) {
        *x = (*x - shift).exp();
        *lane += *x;
    }
    combine(lanes, |a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_give_what_plain_loops_give() {
        for n in [0, 1, 15, 16, 17, 100] {
            let x: Vec<f64> = (0..n).map(|i| f64::from(i * 37 % 101) - 50.0).collect();
            let y: Vec<f64> = x.iter().map(|x| x * 0.5 + 1.0).collect();
            assert_eq!(sum(&x), x.iter().sum::<f64>());
            assert_eq!(max(&x), x.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            assert_eq!(dot(&x, &y), x.iter().zip(&y).map(|(a, b)| a * b).sum::<f64>());
            let mut e = x.clone();
            let total = exp_sum(&mut e, 50.0);
            assert!((total - x.iter().map(|x| (x - 50.0).exp()).sum::<f64>()).abs() < 1e-12);
        }
    }

    #[test]
    fn the_polynomial_exponential_is_within_two_ulp() {
        let mut worst = 0.0f64;
        for i in -870_000..870_000 {
            let x = i as f32 * 1e-4;
            let (found, wanted) = (f64::from(Real::exp(x)), f64::from(x).exp());
            worst = worst.max((found / wanted - 1.0).abs());
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
        assert!(Real::exp(f32::NAN).is_nan());
        assert!(Real::exp(-1e9f32) < 1e-37 && Real::exp(1e9f32) > 1e38);
    }

    #[test]
    fn tanh_and_erf_are_within_their_bounds() {
        let (mut tanh, mut erf) = (0.0f64, 0.0f64);
        for i in -60_000..60_000 {
            let x = i as f32 * 1e-4;
            tanh = tanh.max((f64::from(Real::tanh(x)) - f64::from(x).tanh()).abs());
            erf = erf.max((f64::from(Real::erf(x)) - Real::erf(f64::from(x))).abs());
        }
        assert!(tanh < 2e-7 && erf < 6e-7, "tanh {tanh:e}, erf {erf:e}");
    }
}
