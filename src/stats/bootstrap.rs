//! Bootstrap intervals of a statistic over independent units (prompts, battles): percentile and BCa.

use rand::RngExt;
use rayon::prelude::*;
use statrs::distribution::{ContinuousCDF, Normal};

use super::Interval;
use crate::base::seed::rng_at;

/// BCa interval (Efron 1987) of `statistic(indices)` over `n` units.
///
/// z0 = Φ⁻¹(share of resamples below the estimate), a = Σ(θ̄ − θ_i)³ / 6(Σ(θ̄ − θ_i)²)^1.5 over the jackknife;
/// bounds are the quantiles at Φ(z0 + (z0 + z)/(1 − a(z0 + z))). For statistics of many units, such as a
/// length-controlled win rate over prompts. Not for three seeds: no resampling of three numbers knows how
/// large the fourth may be (`reports/METHODOLOGY.md`).
pub fn bca(
    n: usize,
    resamples: usize,
    alpha: f64,
    seed: u64,
    statistic: impl Fn(&[usize]) -> f64,
) -> Interval {
    let all: Vec<usize> = (0..n).collect();
    let estimate = statistic(&all);
    let drawn = draws(n, resamples, seed, &statistic);
    let normal = Normal::standard();
    let below = drawn.iter().map(|t| {
        if *t < estimate {
            1.0
        } else if *t == estimate {
            0.5
        } else {
            0.0
        }
    });
    let share = (below.sum::<f64>() / drawn.len() as f64).clamp(1e-6, 1.0 - 1e-6);
    let bias = normal.inverse_cdf(share);
    let acceleration = acceleration(n, &statistic);
    let bound = |tail: f64| {
        let z = bias + normal.inverse_cdf(tail);
        quantile(&drawn, normal.cdf(bias + z / (1.0 - acceleration * z)))
    };
    Interval { low: bound(0.5 * alpha), high: bound(1.0 - 0.5 * alpha) }
}

/// Percentile interval of `statistic(indices)` over `n` units.
pub fn percentile(
    n: usize,
    resamples: usize,
    alpha: f64,
    seed: u64,
    statistic: impl Fn(&[usize]) -> f64,
) -> Interval {
    let drawn = draws(n, resamples, seed, &statistic);
    Interval { low: quantile(&drawn, 0.5 * alpha), high: quantile(&drawn, 1.0 - 0.5 * alpha) }
}

/// Percentile intervals of `count` statistics that are computed together, resample k with its own stream.
pub fn percentiles(
    n: usize,
    resamples: usize,
    alpha: f64,
    seed: u64,
    count: usize,
    statistics: impl Fn(&[usize]) -> Vec<f64> + Sync,
) -> Vec<Interval> {
    let draw = |k: usize| {
        let mut rng = rng_at(seed, "stats/bootstrap", k as u64);
        let units: Vec<usize> = (0..n).map(|_| rng.random_range(0..n)).collect();
        statistics(&units)
    };
    let drawn: Vec<Vec<f64>> = (0..resamples.max(1)).into_par_iter().map(draw).collect();
    let interval = |i: usize| {
        let mut values: Vec<f64> =
            drawn.iter().filter_map(|d| d.get(i).copied()).filter(|t| t.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        Interval { low: quantile(&values, 0.5 * alpha), high: quantile(&values, 1.0 - 0.5 * alpha) }
    };
    (0..count).map(interval).collect()
}

/// Statistics of resamples with replacement, sorted. Resample k has its own stream.
pub fn draws(n: usize, resamples: usize, seed: u64, statistic: &impl Fn(&[usize]) -> f64) -> Vec<f64> {
    let mut units = vec![0; n];
    let mut draw = |k: usize| {
        let mut rng = rng_at(seed, "stats/bootstrap", k as u64);
        units.iter_mut().for_each(|u| *u = rng.random_range(0..n));
        statistic(&units)
    };
    let mut drawn: Vec<f64> = (0..resamples.max(1)).map(&mut draw).filter(|t| t.is_finite()).collect();
    drawn.sort_by(f64::total_cmp);
    drawn
}

/// Skewness of the jackknife values over 6; of at most 400 groups of units, so that it costs no n² work.
fn acceleration(n: usize, statistic: &impl Fn(&[usize]) -> f64) -> f64 {
    let groups = n.min(400);
    let without = |g: usize| statistic(&(0..n).filter(|i| i % groups != g).collect::<Vec<_>>());
    let values: Vec<f64> = (0..groups).map(without).collect();
    let mean = values.iter().sum::<f64>() / groups as f64;
    let sum = |power: i32| values.iter().map(|v| (mean - v).powi(power)).sum::<f64>();
    let spread = sum(2).powf(1.5);
    if spread > 0.0 { sum(3) / (6.0 * spread) } else { 0.0 }
}

/// Quantile of sorted values, interpolated between order statistics; NaN where there are none.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = share.clamp(0.0, 1.0) * last as f64;
    let (low, rest) = (at.floor() as usize, at.fract());
    sorted[low] * (1.0 - rest) + sorted[(low + 1).min(last)] * rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exponential quantiles, in an order that keeps neighbours apart.
    fn skewed(n: usize) -> Vec<f64> {
        (0..n).map(|i| -(1.0 - ((i * 37 % n) as f64 + 0.5) / n as f64).ln()).collect()
    }

    #[test]
    fn of_a_symmetric_mean_it_is_the_normal_interval() {
        let x: Vec<f64> = (0..200).map(|i| ((i * 77) % 200) as f64 / 200.0).collect();
        let interval = bca(200, 4000, 0.05, 3, |u| u.iter().map(|i| x[*i]).sum::<f64>() / u.len() as f64);
        let half = 1.96 * (1.0f64 / 12.0 / 200.0).sqrt();
        assert!((interval.high - interval.low - 2.0 * half).abs() < 0.1 * half, "{interval:?} {half}");
    }

    #[test]
    fn of_a_skewed_mean_it_leans_as_the_skew_does() {
        let x = skewed(60);
        let mean = |u: &[usize]| u.iter().map(|i| x[*i]).sum::<f64>() / u.len() as f64;
        let (bca, plain) = (bca(60, 4000, 0.05, 3, mean), percentile(60, 4000, 0.05, 3, mean));
        assert!(bca.low > plain.low && bca.high > plain.high, "{bca:?} {plain:?}");
    }
}
