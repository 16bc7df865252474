//! Has a trainer become worse? Ratios of repeated measurements, and trajectories.

use serde::{Deserialize, Serialize};

use super::Interval;
use super::distribution::t_quantile;
use super::signed_rank::location;

/// One-sided error of a verdict: at most one false alarm in 200 gates.
pub const ALARM: f64 = 0.005;

/// What an interval says against a tolerance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// A change for the worse beyond the tolerance is excluded.
    Pass,
    /// The whole interval is worse than the tolerance allows.
    Regressed,
    /// The whole interval is better by more than the tolerance.
    Improved,
    /// The interval reaches beyond the tolerance and back: measure more often.
    Inconclusive,
}

impl Change {
    pub fn name(self) -> &'static str {
        match self {
            Change::Pass => "pass",
            Change::Regressed => "regressed",
            Change::Improved => "improved",
            Change::Inconclusive => "inconclusive",
        }
    }
}

/// Ratio candidate/baseline of a positive quantity (tokens/s, MiB), with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    pub ratio: f64,
    pub interval: Interval,
    pub change: Change,
    /// Standard deviation of the log-ratios of these pairs, by their median absolute deviation.
    pub spread: f64,
}

/// Judges pairs (baseline, candidate) measured next to each other in time.
///
/// d_k = ln(candidate_k/baseline_k), Hodges-Lehmann estimate and signed-rank interval ([`location`]): where nothing
/// has changed d_k is symmetric about 0 whatever the machine does, so that a regression is claimed with
/// probability at most `tail` under any law of noise. The history only widens it. `tolerance` is a share of the baseline
/// (0.05: 5 % slower, 5 % more memory), `tail` the one-sided error ([`ALARM`] shared among the metrics of a gate).
///
/// `None`: fewer than two pairs, or a measurement that is not positive and finite.
pub fn ratio(
    pairs: &[(f64, f64)],
    higher_is_better: bool,
    tolerance: f64,
    noise: Noise,
    tail: f64,
) -> Option<Ratio> {
    let positive = |x: f64| x.is_finite() && x > 0.0;
    if pairs.len() < 2 || !pairs.iter().all(|(b, c)| positive(*b) && positive(*c)) {
        return None;
    }
    let logs: Vec<f64> = pairs.iter().map(|(b, c)| (c / b).ln()).collect();
    let found = location(&logs, tail)?;
    let least = t_quantile(tail, f64::INFINITY) * noise.of_mean(logs.len());
    let low = found.interval.low.min(found.estimate - least);
    let high = found.interval.high.max(found.estimate + least);
    let (less, more) = (low.exp_m1(), high.exp_m1());
    let (worst, best) = if higher_is_better { (less, more) } else { (-more, -less) };
    Some(Ratio {
        ratio: found.estimate.exp(),
        interval: Interval { low: low.exp(), high: high.exp() },
        change: change(worst, best, tolerance),
        spread: robust_spread(&logs),
    })
}

/// Noise floor that earlier gates show. It can only widen an interval. The default: no history.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Noise {
    /// Standard deviation of one difference within a gate.
    pub within: f64,
    /// Standard deviation of whole gates' changes: what the rounds of one gate have in common and cannot see.
    pub between: f64,
}

impl Noise {
    /// Smallest standard error that a mean of n differences may claim.
    pub fn of_mean(&self, n: usize) -> f64 {
        (self.within / (n as f64).sqrt()).max(self.between)
    }
}

/// 1.4826 times the median absolute deviation from the median: the standard deviation of a normal law, and deaf to
/// the few rounds that something else disturbed.
pub fn robust_spread(x: &[f64]) -> f64 {
    let middle = median(x);
    1.4826 * median(&x.iter().map(|v| (v - middle).abs()).collect::<Vec<_>>())
}

fn median(x: &[f64]) -> f64 {
    let mut sorted = x.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n => 0.5 * (sorted[(n - 1) / 2] + sorted[n / 2]),
    }
}

/// A mean of paired differences with its t-interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    pub mean: f64,
    pub interval: Interval,
    /// Standard deviation of the differences, on n − 1 degrees of freedom.
    pub spread: f64,
}

/// mean(d) ± t √(s²/n) on n − 1 degrees of freedom at the one-sided level `tail`; s is at least `floor`, so that
/// differences that agree by luck claim no more precision than is known of them. For few differences (seeds),
/// where no interval without a law of noise says anything. `None`: fewer than two, or one that is not finite.
pub fn mean(differences: &[f64], floor: f64, tail: f64) -> Option<Mean> {
    let n = differences.len() as f64;
    if differences.len() < 2 || !differences.iter().all(|d| d.is_finite()) {
        return None;
    }
    let mean = differences.iter().sum::<f64>() / n;
    let spread = spread(differences);
    let half = t_quantile(tail, n - 1.0) * spread.max(floor) / n.sqrt();
    Some(Mean { mean, interval: Interval { low: mean - half, high: mean + half }, spread })
}

/// Standard deviation on n − 1 degrees of freedom; 0 of fewer than two.
pub fn spread(x: &[f64]) -> f64 {
    if x.len() < 2 {
        return 0.0;
    }
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (x.len() - 1) as f64).sqrt()
}

/// Judges an interval of a gain (worst to best, higher is better) against a tolerance.
pub fn change(worst: f64, best: f64, tolerance: f64) -> Change {
    match (worst, best) {
        (_, best) if best < -tolerance => Change::Regressed,
        (worst, _) if worst > tolerance => Change::Improved,
        (worst, _) if worst >= -tolerance => Change::Pass,
        _ => Change::Inconclusive,
    }
}

/// How far a trajectory (loss by step) lies from its baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual {
    pub max: f64,
    pub mean: f64,
    /// Steps compared.
    pub steps: usize,
}

/// Largest and mean |candidate − baseline| over the steps that both have. Two-sided: a loss that falls too
/// fast is a fault too. A value that is not finite on one side alone is infinitely far.
pub fn residual(baseline: &[f64], candidate: &[f64]) -> Option<Residual> {
    let gap = |(b, c): (&f64, &f64)| match (c - b).abs() {
        d if d.is_finite() => d,
        _ if b.is_finite() != c.is_finite() => f64::INFINITY,
        _ => 0.0,
    };
    let gaps: Vec<f64> = baseline.iter().zip(candidate).map(gap).collect();
    let steps = gaps.len();
    (steps > 0).then(|| Residual {
        max: gaps.iter().copied().fold(0.0, f64::max),
        mean: gaps.iter().sum::<f64>() / steps as f64,
        steps,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_lower_is_better_more_is_worse() {
        let memory: Vec<(f64, f64)> = (0..12).map(|k| (100.0, 119.0 + 0.1 * f64::from(k))).collect();
        let judged = |lower: bool, n: usize| {
            ratio(&memory[..n], !lower, 0.05, Noise::default(), ALARM).map(|r| r.change)
        };
        assert_eq!(judged(true, 12), Some(Change::Regressed));
        assert_eq!(judged(false, 12), Some(Change::Improved));
        // 2⁻⁷ is more than 1 in 200: whatever seven pairs show, a coin may have shown.
        assert_eq!((judged(true, 8), judged(true, 7)), (Some(Change::Regressed), Some(Change::Inconclusive)));
        assert_eq!(judged(true, 1), None);
        assert_eq!(ratio(&[(1.0, 0.0), (1.0, 1.0)], false, 0.05, Noise::default(), ALARM), None);
    }

    /// The tolerance is the share that is lost, for a speed as for a size.
    #[test]
    fn a_loss_within_the_tolerance_is_none() {
        let slower = |by: f64| {
            let pairs: Vec<(f64, f64)> = (0..12).map(|k| (1.0, 1.0 - by + 1e-5 * f64::from(k))).collect();
            move |tolerance| ratio(&pairs, true, tolerance, Noise::default(), ALARM).unwrap().change
        };
        assert_eq!((slower(0.049)(0.05), slower(0.051)(0.05)), (Change::Pass, Change::Regressed));
        assert_eq!((slower(0.4)(0.5), slower(0.51)(0.5)), (Change::Pass, Change::Regressed));
    }

    #[test]
    fn a_history_widens_and_never_narrows() {
        let pairs: Vec<(f64, f64)> = (0..12).map(|k| (1.0, 0.9 + 0.001 * f64::from(k))).collect();
        let of = |within, between| ratio(&pairs, true, 0.03, Noise { within, between }, ALARM).unwrap();
        let alone = of(0.0, 0.0);
        assert_eq!((alone.change, of(1e-6, 1e-6)), (Change::Regressed, alone));
        for noisy in [of(0.2, 0.0), of(0.0, 0.06)] {
            assert!(noisy.change == Change::Inconclusive && noisy.ratio == alone.ratio, "{noisy:?}");
        }
        // z(0.005) = 2.575829 of the standard error 0.06.
        let high = of(0.0, 0.06).interval.high.ln() - alone.ratio.ln();
        assert!((high - 2.575_829 * 0.06).abs() < 1e-6, "{high}");
    }

    #[test]
    fn a_mean_and_spreads_are_those_of_a_worked_example() {
        // 1, 2, 3, 6: mean 3, s² = 14/3; t(0.005, 3) = 5.840909 (any table).
        let m = mean(&[1.0, 2.0, 3.0, 6.0], 0.0, 0.005).unwrap();
        let s = (14.0f64 / 3.0).sqrt();
        assert!((m.mean - 3.0).abs() < 1e-12 && (m.spread - s).abs() < 1e-12);
        assert!((m.interval.high - (3.0 + 5.840_909 * s / 2.0)).abs() < 1e-5, "{m:?}");
        let wide = mean(&[1.0, 2.0, 3.0, 6.0], 4.0, 0.005).unwrap();
        assert!((wide.interval.high - (3.0 + 5.840_909 * 2.0)).abs() < 1e-5 && wide.spread == m.spread);
        assert_eq!(mean(&[1.0], 0.0, 0.005), None);
        // Median 2.5, deviations 1.5, 0.5, 0.5, 3.5.
        assert!((robust_spread(&[1.0, 2.0, 3.0, 6.0]) - 1.4826).abs() < 1e-12);
        assert_eq!((robust_spread(&[]), spread(&[1.0])), (0.0, 0.0));
    }

    #[test]
    fn a_trajectory_that_ends_in_nan_is_infinitely_far() {
        let apart = residual(&[1.0, 0.9, 0.8], &[1.0, 0.7, f64::NAN]).unwrap();
        assert_eq!((apart.max, apart.steps), (f64::INFINITY, 3));
        let near = residual(&[1.0, 0.9], &[1.0, 0.7]).unwrap();
        assert!((near.max - 0.2).abs() < 1e-12 && (near.mean - 0.1).abs() < 1e-12);
    }
}
