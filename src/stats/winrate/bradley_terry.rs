//! Bradley-Terry strengths of all contestants.

use std::collections::BTreeSet;

use super::Judgment;
use super::rate::{battles, contestants};
use crate::stats::Interval;
use crate::stats::bootstrap::percentiles;

/// Strength of a contestant on the logit scale, mean 0 over the contestants that judgments join:
/// P(i beats j) = σ(strength_i − strength_j).
#[derive(Clone, Debug, PartialEq)]
pub struct Strength {
    pub name: String,
    pub strength: f64,
    /// Bootstrap over prompts (all judgments of an id together).
    pub interval: Interval,
    /// Strengths compare within an island, the contestants that a chain of judgments joins; numbered from 0, by name.
    pub island: usize,
}

/// Half a win each way in every pair that met: keeps an unbeaten contestant's strength finite.
const PRIOR: f64 = 0.5;

/// Strengths by name. A tie counts half a win to each side. Each island has the mean 0.
pub fn bradley_terry(judgments: &[Judgment], resamples: usize, alpha: f64, seed: u64) -> Vec<Strength> {
    let names = contestants(judgments);
    let all: Vec<(usize, usize, f64)> = battles(judgments, &names).collect();
    let mut ids: Vec<&str> = judgments.iter().map(|j| j.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut by_id = vec![Vec::new(); ids.len()];
    let fought = judgments.iter().filter(|j| j.candidate != j.baseline);
    for (battle, judgment) in all.iter().zip(fought) {
        if let Ok(at) = ids.binary_search(&judgment.id.as_str()) {
            by_id[at].push(*battle);
        }
    }
    // Of a resample too: one that lacks a pair's only prompts has its prior, and no island of its own.
    let met = Met::of(names.len(), &all);
    let fitted = |units: &[usize]| fit(&met, units.iter().flat_map(|u| by_id[*u].iter().copied()));
    let everyone: Vec<usize> = (0..ids.len()).collect();
    let strengths = fitted(&everyone);
    let intervals = percentiles(ids.len(), resamples, alpha, seed, names.len(), fitted);
    let islands: BTreeSet<usize> = met.island.iter().copied().collect();
    let row = |(k, name): (usize, &&str)| Strength {
        name: (*name).into(),
        strength: strengths[k],
        interval: intervals[k],
        island: islands.range(..met.island[k]).count(),
    };
    names.iter().enumerate().map(row).collect()
}

/// Who met whom.
struct Met {
    rivals: Vec<Vec<usize>>,
    /// Contestant → its island: the least contestant that a chain of judgments joins it to.
    island: Vec<usize>,
}

impl Met {
    fn of(contestants: usize, battles: &[(usize, usize, f64)]) -> Self {
        let mut rivals = vec![BTreeSet::new(); contestants];
        for (i, j, _) in battles {
            rivals[*i].insert(*j);
            rivals[*j].insert(*i);
        }
        let mut island: Vec<usize> = (0..contestants).collect();
        for i in 0..contestants {
            let mut reached = if island[i] == i { vec![i] } else { vec![] };
            while let Some(next) = reached.pop() {
                for &j in &rivals[next] {
                    if island[j] > i {
                        island[j] = i;
                        reached.push(j);
                    }
                }
            }
        }
        Self { rivals: rivals.into_iter().map(|r| r.into_iter().collect()).collect(), island }
    }
}

/// Maximum likelihood by the minorisation of Hunter (2004), eq. 3: p_i ← W_i / Σ_j n_ij/(p_i + p_j).
fn fit(met: &Met, battles: impl Iterator<Item = (usize, usize, f64)>) -> Vec<f64> {
    let contestants = met.rivals.len();
    let mut wins = vec![vec![0.0; contestants]; contestants];
    for (i, j, p) in battles {
        wins[i][j] += p;
        wins[j][i] += 1.0 - p;
    }
    let games = |i: usize, j: usize| wins[i][j] + wins[j][i] + 2.0 * PRIOR;
    let mut p = vec![1.0f64; contestants];
    for _ in 0..2000 {
        let mut change = 0.0f64;
        for i in 0..contestants {
            let rivals = &met.rivals[i];
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
    let strengths: Vec<f64> = p.iter().map(|x| x.ln()).collect();
    let mean = |island: usize| {
        let own = strengths.iter().zip(&met.island).filter(|(_, i)| **i == island).map(|(s, _)| *s);
        let (sum, n) = own.fold((0.0, 0.0), |(sum, n), s| (sum + s, n + 1.0));
        sum / n
    };
    strengths.iter().zip(&met.island).map(|(s, i)| s - mean(*i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_island_is_centred_and_a_contestant_of_one_prompt_keeps_its_bounds() {
        let judged = |id: usize, candidate: &str, baseline: &str, preference: f64| Judgment {
            id: id.to_string(),
            candidate: candidate.into(),
            baseline: baseline.into(),
            preference,
            candidate_length: None,
            baseline_length: None,
        };
        // a and b meet on ten prompts, c and a on one; d and e nobody else.
        let mut all: Vec<Judgment> =
            (0..10).map(|i| judged(i, "a", "b", f64::from(u8::from(i < 7)))).collect();
        all.push(judged(10, "c", "a", 1.0));
        all.extend((11..15).map(|i| judged(i, "d", "e", 1.0)));
        let found = bradley_terry(&all, 400, 0.05, 1);
        let of = |name: &str| found.iter().find(|s| s.name == name).unwrap();
        assert!(["a", "b", "c"].map(|n| of(n).strength).iter().sum::<f64>().abs() < 1e-6);
        assert!((of("d").strength + of("e").strength).abs() < 1e-6);
        assert_eq!(found.iter().map(|s| s.island).collect::<Vec<_>>(), [0, 0, 0, 1, 1]);
        // ln 9: four wins and half a one against half a one.
        assert!((of("d").strength - of("e").strength - 9f64.ln()).abs() < 1e-6, "{found:?}");
        // A resample that lacks c's prompt sets it level with a, never elsewhere.
        let gap = |bound: fn(&Interval) -> f64| bound(&of("c").interval) - bound(&of("a").interval);
        assert!(gap(|i| i.low) > -1.0 && of("c").interval.high < 2.0, "{found:?}");
    }
}
