//! Over-optimisation: whether the reward that is meant falls while the one that is learned from goes on rising.
//!
//! The gold reward of a run's samples has a peak, and what follows a peak is lower by the peak's own noise alone. So
//! each run's peak is taken where the other runs' mean is highest, and the change from there to the run's end is free of
//! that choice (leave-one-out; cf. cross-fitting, arXiv 1608.00060). Student's t over the n runs gives the interval, with
//! the variance of the mean taken as s²(1/n + 1/(n − 1)) instead of s²/n, because any two runs' peaks are chosen on
//! mostly the same runs (Nadeau & Bengio 2003, Machine Learning 52:239): of rewards that stay as they are it then says in
//! 2 % of studies that they fall, and would in 6 % without (20,000 simulated).

use super::distribution::t_quantile;
use super::law::Interval;

/// A part of a run: mean reward learned from (the proxy) and mean gold reward of its samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    pub proxy: f64,
    pub gold: f64,
}

/// A mean change over runs with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    pub mean: f64,
    pub interval: Interval,
}

/// What became of both rewards from the peak of the gold one to the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parting {
    pub proxy: Change,
    pub gold: Change,
    pub runs: usize,
}

impl Parting {
    /// The reward learned from rose and the gold reward fell, each beyond its interval.
    pub fn is_shown(&self) -> bool {
        self.proxy.interval.low > 0.0 && self.gold.interval.high < 0.0
    }
}

/// Runs of one arm under several seeds, each as its parts in order of training; `None` below three runs, or where they
/// differ in parts.
pub fn parting(runs: &[Vec<Part>]) -> Option<Parting> {
    let parts = runs.first()?.len();
    if runs.len() < 3 || parts < 2 || runs.iter().any(|r| r.len() != parts) {
        return None;
    }
    let mut changes = (vec![], vec![]);
    for (i, run) in runs.iter().enumerate() {
        let others = |part: usize| -> f64 {
            runs.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, r)| r[part].gold).sum()
        };
        let peak = (0..parts).fold(0, |best, p| if others(p) > others(best) { p } else { best });
        changes.0.push(run[parts - 1].proxy - run[peak].proxy);
        changes.1.push(run[parts - 1].gold - run[peak].gold);
    }
    Some(Parting { proxy: change(&changes.0), gold: change(&changes.1), runs: runs.len() })
}

fn change(values: &[f64]) -> Change {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = t_quantile(0.025, n - 1.0) * (variance * (1.0 / n + 1.0 / (n - 1.0))).sqrt();
    Change { mean, interval: Interval { low: mean - half, high: mean + half } }
}
