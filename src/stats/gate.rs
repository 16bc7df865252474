//! Has a trainer become worse? Ratios of repeated measurements, and trajectories.

use super::Interval;
use super::distribution::t_quantile;

/// One-sided error of a verdict: at most one false alarm in 200 gates.
pub const ALARM: f64 = 0.005;

/// What an interval says against a tolerance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Ratio candidate/baseline of a positive quantity (tokens/s, MiB), with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    pub ratio: f64,
    pub interval: Interval,
    pub change: Change,
}

/// Judges pairs (baseline, candidate) measured next to each other in time.
///
/// d_k = ln(candidate_k/baseline_k); interval mean(d) ± t_{n−1, 0.995} max(s, `noise`)/√n, so that a lucky
/// quiet run cannot claim more precision than the history of this measurement shows. `noise` is the standard
/// deviation of d learned from that history (0: none), `tolerance` > 0 a ratio (0.05: 5 %).
///
/// `None`: fewer than two pairs, or a measurement that is not positive and finite.
pub fn ratio(pairs: &[(f64, f64)], higher_is_better: bool, tolerance: f64, noise: f64) -> Option<Ratio> {
    let n = pairs.len() as f64;
    let positive = |x: f64| x.is_finite() && x > 0.0;
    if pairs.len() < 2 || !pairs.iter().all(|(b, c)| positive(*b) && positive(*c)) {
        return None;
    }
    let logs: Vec<f64> = pairs.iter().map(|(b, c)| (c / b).ln()).collect();
    let mean = logs.iter().sum::<f64>() / n;
    let spread = (logs.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let half = t_quantile(ALARM, n - 1.0) * spread.max(noise) / n.sqrt();
    let (low, high, allowed) = (mean - half, mean + half, tolerance.ln_1p());
    let (worst, best) = if higher_is_better { (low, high) } else { (-high, -low) };
    Some(Ratio {
        ratio: mean.exp(),
        interval: Interval { low: low.exp(), high: high.exp() },
        change: change(worst, best, allowed),
    })
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
            ratio(&pairs, true, tolerance, 0.03).expect("positive").change
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
        assert_eq!(ratio(&memory, false, 0.05, 0.0).map(|r| r.change), Some(Change::Regressed));
        assert_eq!(ratio(&[(1.0, 0.0), (1.0, 1.0)], false, 0.05, 0.0), None);
    }

    #[test]
    fn a_trajectory_that_ends_in_nan_is_infinitely_far() {
        let apart = residual(&[1.0, 0.9, 0.8], &[1.0, 0.7, f64::NAN]).unwrap();
        assert_eq!((apart.max, apart.steps), (f64::INFINITY, 3));
        let near = residual(&[1.0, 0.9], &[1.0, 0.7]).unwrap();
        assert!((near.max - 0.2).abs() < 1e-12 && (near.mean - 0.1).abs() < 1e-12);
    }
}
