//! Bradley-Terry strengths of all contestants.

use super::Judgment;
use super::rate::{battles, contestants};
use crate::stats::Interval;
use crate::stats::bootstrap::percentiles;

/// Strength of a contestant on the logit scale, mean 0 over contestants:
/// P(i beats j) = σ(strength_i − strength_j).
#[derive(Clone, Debug, PartialEq)]
pub struct Strength {
    pub name: String,
    pub strength: f64,
    /// Bootstrap over prompts (all judgments of an id together).
    pub interval: Interval,
}

/// Half a win each way in every pair that met: keeps an unbeaten contestant's strength finite.
const PRIOR: f64 = 0.5;

/// Strengths by name. A tie counts half a win to each side. Contestants that no chain of judgments joins are
/// not comparable; each island is centred by itself.
pub fn bradley_terry(judgments: &[Judgment], resamples: usize, alpha: f64, seed: u64) -> Vec<Strength> {
    let names = contestants(judgments);
    let all: Vec<(usize, usize, f64)> = battles(judgments, &names).collect();
    let mut ids: Vec<&str> = judgments.iter().map(|j| j.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut by_id = vec![Vec::new(); ids.len()];
    let met = judgments.iter().filter(|j| j.candidate != j.baseline);
    for (battle, judgment) in all.iter().zip(met) {
        if let Ok(at) = ids.binary_search(&judgment.id.as_str()) {
            by_id[at].push(*battle);
        }
    }
    let fitted = |units: &[usize]| fit(names.len(), units.iter().flat_map(|u| by_id[*u].iter().copied()));
    let everyone: Vec<usize> = (0..ids.len()).collect();
    let strengths = fitted(&everyone);
    let intervals = percentiles(ids.len(), resamples, alpha, seed, names.len(), fitted);
    let row = |(k, name): (usize, &&str)| Strength {
        name: (*name).into(),
        strength: strengths[k],
        interval: intervals[k],
    };
    names.iter().enumerate().map(row).collect()
}

/// Maximum likelihood by the minorisation of Hunter (2004), eq. 3: p_i ← W_i / Σ_j n_ij/(p_i + p_j).
fn fit(contestants: usize, battles: impl Iterator<Item = (usize, usize, f64)>) -> Vec<f64> {
    let mut wins = vec![vec![0.0; contestants]; contestants];
    for (i, j, p) in battles {
        wins[i][j] += p;
        wins[j][i] += 1.0 - p;
    }
    let met = |i: usize, j: usize| wins[i][j] + wins[j][i] > 0.0;
    let games = |i: usize, j: usize| wins[i][j] + wins[j][i] + 2.0 * PRIOR;
    let mut p = vec![1.0f64; contestants];
    for _ in 0..2000 {
        let mut change = 0.0f64;
        for i in 0..contestants {
            let rivals: Vec<usize> = (0..contestants).filter(|j| met(i, *j)).collect();
            if rivals.is_empty() {
                continue;
            }
            let won: f64 = rivals.iter().map(|j| wins[i][*j] + PRIOR).sum();
            let next = won / rivals.iter().map(|j| games(i, *j) / (p[i] + p[*j])).sum::<f64>();
            change = change.max((next / p[i]).ln().abs());
            p[i] = next;
        }
        if change < 1e-9 {
            break;
        }
    }
    let mean = p.iter().map(|x| x.ln()).sum::<f64>() / contestants.max(1) as f64;
    p.iter().map(|x| x.ln() - mean).collect()
}
