//! What tuning found: the best trial, and what a search of k trials is expected to find.

use crate::record::{Direction, Status, TrialRow};

/// The trial with the best validation score, the earliest of equals; `None` where none ended well.
pub fn best<'r>(rows: &[&'r TrialRow]) -> Option<&'r TrialRow> {
    let mut found: Option<&TrialRow> = None;
    for row in rows.iter().copied().filter(|r| scored(r)) {
        let better = |other: &TrialRow| match row.direction {
            Direction::Lower => row.value < other.value,
            _ => row.value > other.value,
        };
        if found.is_none_or(better) {
            found = Some(row);
        }
    }
    found
}

/// Whether the trial has a score to choose by.
pub fn scored(row: &TrialRow) -> bool {
    row.status == Status::Done && row.value.is_finite()
}

/// Expected best of k draws and its standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    pub k: usize,
    pub mean: f64,
    pub deviation: f64,
}

/// Expected best score of k trials for k = 1..n, from n scores (Dodge et al. 2019, arXiv 1909.03004, eq. 6 to 8):
/// E[max] = Σ v_i (P̂(V ≤ v_i)ᵏ − P̂(V < v_i)ᵏ) under the empirical distribution of the scores, and the standard
/// deviation of that maximum. With `lower`, of the least.
///
/// Draws with replacement, so for k near n it is a little too low (Tang et al. 2020, arXiv 2004.13705).
pub fn expected_best(scores: &[f64], lower: bool) -> Vec<Expected> {
    let sign = if lower { -1.0 } else { 1.0 };
    let mut sorted: Vec<f64> = scores.iter().map(|v| sign * v).collect();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let of = |k: usize| {
        // The i-th smallest is the best of k with probability (i/n)ᵏ − ((i − 1)/n)ᵏ; equal scores share theirs.
        let weight = |i: usize| ((i + 1) as f64 / n).powi(k as i32) - (i as f64 / n).powi(k as i32);
        let mean: f64 = sorted.iter().enumerate().map(|(i, v)| v * weight(i)).sum();
        let variance: f64 = sorted.iter().enumerate().map(|(i, v)| (v - mean).powi(2) * weight(i)).sum();
        Expected { k, mean: sign * mean, deviation: variance.sqrt() }
    };
    (1..=sorted.len()).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_best_is_that_of_all_draws_counted_one_by_one() {
        let scores = [0.3, 0.9, 0.3, 0.5];
        for k in 1..=4usize {
            // Every sequence of k draws with replacement.
            let all = (0..4usize.pow(k as u32)).map(|code| {
                (0..k).map(|place| scores[code / 4usize.pow(place as u32) % 4]).fold(f64::MIN, f64::max)
            });
            let all: Vec<f64> = all.collect();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            let variance = all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / all.len() as f64;
            let found = expected_best(&scores, false)[k - 1];
            assert!(
                (found.mean - mean).abs() < 1e-12 && (found.deviation - variance.sqrt()).abs() < 1e-12,
                "{k}"
            );
        }
        let lowest = expected_best(&scores, true);
        assert!((lowest[0].mean - 0.5).abs() < 1e-12 && lowest[3].mean < lowest[0].mean);
        assert!(expected_best(&[], false).is_empty());
    }
}
