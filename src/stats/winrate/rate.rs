//! Raw win rates, and everything that a file of judgments tells.

use std::collections::BTreeMap;

use super::{LengthControl, Strength, bradley_terry, length_controlled};
use crate::suite::estimate;

/// One pairwise judgment. Lengths are in characters.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgment {
    pub id: String,
    pub candidate: String,
    pub baseline: String,
    /// 1: the candidate wins, 0: the baseline does, 0.5: a tie.
    pub preference: f64,
    pub candidate_length: Option<f64>,
    pub baseline_length: Option<f64>,
}

/// Win rate of a candidate over a baseline, as shares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WinRate {
    /// Mean preference: win + half tie.
    pub rate: f64,
    /// Clustered by prompt. With one judgment a prompt that is the sample standard deviation (n − 1) of the preferences
    /// over √n, as AlpacaEval reports it.
    pub standard_error: f64,
    pub wins: usize,
    pub losses: usize,
    pub ties: usize,
}

/// All that can be said of one pair of contestants.
#[derive(Clone, Debug, PartialEq)]
pub struct WinRates {
    pub candidate: String,
    pub baseline: String,
    pub raw: WinRate,
    /// `None`: lengths are missing, or all length differences are the same.
    pub length_controlled: Option<LengthControl>,
}

/// Raw win rate of preferences in [0, 1], each on one of `prompts` (several seeds answer the same).
pub fn win_rate(preferences: &[f64], prompts: &[&str]) -> WinRate {
    let mean = estimate::mean(preferences, prompts);
    let count = |holds: fn(f64) -> bool| preferences.iter().filter(|p| holds(**p)).count();
    WinRate {
        rate: mean.value,
        standard_error: mean.standard_error,
        wins: count(|p| p > 0.5),
        losses: count(|p| p < 0.5),
        ties: count(|p| p == 0.5),
    }
}

/// Win rates of every (candidate, baseline) in the judgments, by name, and the Bradley-Terry strengths of
/// all contestants together with 1 − `alpha` bootstrap intervals.
pub fn winrate_file(
    judgments: &[Judgment],
    resamples: usize,
    alpha: f64,
    seed: u64,
) -> (Vec<WinRates>, Vec<Strength>) {
    let mut pairs: BTreeMap<(&str, &str), Vec<&Judgment>> = BTreeMap::new();
    for j in judgments {
        pairs.entry((&j.candidate, &j.baseline)).or_default().push(j);
    }
    let rates = pairs.into_iter().map(|((candidate, baseline), judged)| {
        let preferences: Vec<f64> = judged.iter().map(|j| j.preference).collect();
        let prompts: Vec<&str> = judged.iter().map(|j| j.id.as_str()).collect();
        let differences: Option<Vec<f64>> =
            judged.iter().map(|j| Some(j.baseline_length? - j.candidate_length?)).collect();
        WinRates {
            candidate: candidate.into(),
            baseline: baseline.into(),
            raw: win_rate(&preferences, &prompts),
            length_controlled: differences.and_then(|d| length_controlled(&preferences, &d)),
        }
    });
    (rates.collect(), bradley_terry(judgments, resamples, alpha, seed))
}

/// Contestants by name, and `matrix[i][j]`: mean preference for i over j in all their judgments, either way
/// round; `None` where they never met.
pub fn matrix(judgments: &[Judgment]) -> (Vec<&str>, Vec<Vec<Option<f64>>>) {
    let names = contestants(judgments);
    let mut sums = vec![vec![(0.0, 0.0); names.len()]; names.len()];
    for (i, j, p) in battles(judgments, &names) {
        for (i, j, p) in [(i, j, p), (j, i, 1.0 - p)] {
            sums[i][j].0 += p;
            sums[i][j].1 += 1.0;
        }
    }
    let mean = |(won, n): &(f64, f64)| (*n > 0.0).then(|| won / n);
    (names, sums.iter().map(|row| row.iter().map(mean).collect()).collect())
}

/// Names of all contestants, sorted.
pub(super) fn contestants(judgments: &[Judgment]) -> Vec<&str> {
    let mut names: Vec<&str> =
        judgments.iter().flat_map(|j| [j.candidate.as_str(), j.baseline.as_str()]).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// (candidate, baseline, preference) by number; a contestant against itself says nothing.
pub(super) fn battles<'a>(
    judgments: &'a [Judgment],
    names: &'a [&str],
) -> impl Iterator<Item = (usize, usize, f64)> + 'a {
    let number = |name: &str| names.binary_search(&name).ok();
    let all = judgments
        .iter()
        .filter_map(move |j| Some((number(&j.candidate)?, number(&j.baseline)?, j.preference)));
    all.filter(|(i, j, _)| i != j)
}
