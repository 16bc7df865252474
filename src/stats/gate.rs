//! Has a trainer become worse? Ratios of repeated measurements, and trajectories.

use serde::{Deserialize, Serialize};

use super::Interval;
use super::distribution::t_quantile;

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
    /// Standard deviation of the log-ratios of these pairs, on pairs − 1 degrees of freedom.
    pub spread: f64,
}

/// Judges pairs (baseline, candidate) measured next to each other in time.
///
/// d_k = ln(candidate_k/baseline_k), and the interval of [`mean`]. `tolerance` > 0 a ratio (0.05: 5 %), `tail` the
/// one-sided error ([`ALARM`] shared among the metrics of a gate).
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
    if !pairs.iter().all(|(b, c)| positive(*b) && positive(*c)) {
        return None;
    }
    let logs: Vec<f64> = pairs.iter().map(|(b, c)| (c / b).ln()).collect();
    let m = mean(&logs, noise, tail)?;
    let (low, high) = (m.interval.low, m.interval.high);
    let (worst, best) = if higher_is_better { (low, high) } else { (-high, -low) };
    Some(Ratio {
        ratio: m.mean.exp(),
        interval: Interval { low: low.exp(), high: high.exp() },
        change: change(worst, best, tolerance.ln_1p()),
        spread: m.spread,
    })
}

/// Standard deviation that a history shows, and the degrees of freedom behind it. The default: no history.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Noise {
    pub sd: f64,
    pub degrees_of_freedom: f64,
}

/// A mean of paired differences with its t-interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    pub mean: f64,
    pub interval: Interval,
    /// Standard deviation of the differences, on n − 1 degrees of freedom.
    pub spread: f64,
}

/// mean(d) ± t √(v/n) at the one-sided level `tail`. Where the differences vary more than the history says,
/// v = s² on n − 1 degrees of freedom; where they vary less, v is the history's variance, on both degrees of
/// freedom together: a lucky quiet run cannot claim more precision than the history shows, and a long history
/// need not fear that s is too small by chance. Both are at most `tail` under one law of noise, since mean and s
/// are independent. `None`: fewer than two differences, or one that is not finite.
pub fn mean(differences: &[f64], noise: Noise, tail: f64) -> Option<Mean> {
    let n = differences.len() as f64;
    if differences.len() < 2 || !differences.iter().all(|d| d.is_finite()) {
        return None;
    }
    let mean = differences.iter().sum::<f64>() / n;
    let spread = (differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let df = n - 1.0 + if spread > noise.sd { 0.0 } else { noise.degrees_of_freedom };
    let half = t_quantile(tail, df) * spread.max(noise.sd) / n.sqrt();
    Some(Mean { mean, interval: Interval { low: mean - half, high: mean + half }, spread })
}

/// What one more residual stays below with probability 1 − `tail` where nothing has changed: the normal
/// prediction bound m + t_{n−1, tail} s √(1 + 1/n) of n residuals between repeats of one program.
/// `None`: fewer than three residuals, which show no spread worth the name.
pub fn noise_bound(residuals: &[f64], tail: f64) -> Option<f64> {
    let n = residuals.len() as f64;
    if residuals.len() < 3 || !residuals.iter().all(|r| r.is_finite()) {
        return None;
    }
    let mean = residuals.iter().sum::<f64>() / n;
    let spread = (residuals.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    Some(mean + t_quantile(tail, n - 1.0) * spread * (1.0 + 1.0 / n).sqrt())
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
    use rand::RngExt;

    use super::*;
    use crate::base::seed::rng_at;

    /// Verdicts of `trials` gates of eight interleaved pairs with 3 % noise each and a true ratio.
    fn verdicts(truth: f64, tolerance: f64, trials: u64) -> Vec<Change> {
        let gate = |trial| {
            let mut rng = rng_at(9, "test/gate", trial);
            // Sum of twelve uniforms: near enough to normal, and without outliers beyond 6.
            let mut noise = || 0.03 * ((0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0);
            let pairs: Vec<(f64, f64)> =
                (0..8).map(|_| (1000.0 * noise().exp(), truth * 1000.0 * noise().exp())).collect();
            ratio(&pairs, true, tolerance, Noise { sd: 0.03, degrees_of_freedom: 0.0 }, ALARM)
                .expect("positive")
                .change
        };
        (0..trials).map(gate).collect()
    }

    #[test]
    fn no_change_raises_at_most_one_false_alarm_in_200() {
        for tolerance in [0.0, 0.02] {
            let alarms = verdicts(1.0, tolerance, 10_000).iter().filter(|v| **v == Change::Regressed).count();
            // 50 of 10,000 allowed; three standard errors are 21.
            assert!(alarms <= 71, "tolerance {tolerance}: {alarms}");
        }
    }

    #[test]
    fn a_slowdown_of_a_tenth_is_caught() {
        let caught = verdicts(0.9, 0.02, 500).iter().filter(|v| **v == Change::Regressed).count();
        assert!(caught >= 450, "{caught} of 500");
        assert!(verdicts(1.12, 0.02, 100).contains(&Change::Improved));
    }

    #[test]
    fn where_lower_is_better_more_is_worse() {
        let memory = [(100.0, 120.0), (100.0, 121.0), (101.0, 120.0), (100.0, 120.5)];
        assert_eq!(
            ratio(&memory, false, 0.05, Noise::default(), ALARM).map(|r| r.change),
            Some(Change::Regressed)
        );
        assert_eq!(ratio(&[(1.0, 0.0), (1.0, 1.0)], false, 0.05, Noise::default(), ALARM), None);
    }

    #[test]
    fn a_mean_and_a_bound_are_those_of_a_worked_example() {
        // 1, 2, 3, 6: mean 3, s² = 14/3; t(0.005, 3) = 5.840909 (any table).
        let m = mean(&[1.0, 2.0, 3.0, 6.0], Noise::default(), 0.005).unwrap();
        let s = (14.0f64 / 3.0).sqrt();
        assert!((m.mean - 3.0).abs() < 1e-12 && (m.spread - s).abs() < 1e-12);
        assert!((m.interval.high - (3.0 + 5.840_909 * s / 2.0)).abs() < 1e-5, "{m:?}");
        let bound = noise_bound(&[1.0, 2.0, 3.0, 6.0], 0.005).unwrap();
        assert!((bound - (3.0 + 5.840_909 * s * 1.25f64.sqrt())).abs() < 1e-5, "{bound}");
        assert_eq!((noise_bound(&[0.0; 4], 0.005), noise_bound(&[1.0, 2.0], 0.005)), (Some(0.0), None));
        assert_eq!(mean(&[1.0], Noise::default(), 0.005), None);
        // A wider history on 27 degrees of freedom: t(0.005, 30) = 2.749996.
        let wide = mean(&[1.0, 2.0, 3.0, 6.0], Noise { sd: 4.0, degrees_of_freedom: 27.0 }, 0.005).unwrap();
        assert!((wide.interval.high - (3.0 + 2.749_996 * 4.0 / 2.0)).abs() < 1e-5, "{wide:?}");
    }

    #[test]
    fn a_trajectory_that_ends_in_nan_is_infinitely_far() {
        let apart = residual(&[1.0, 0.9, 0.8], &[1.0, 0.7, f64::NAN]).unwrap();
        assert_eq!((apart.max, apart.steps), (f64::INFINITY, 3));
        let near = residual(&[1.0, 0.9], &[1.0, 0.7]).unwrap();
        assert!((near.max - 0.2).abs() < 1e-12 && (near.mean - 0.1).abs() < 1e-12);
    }
}
