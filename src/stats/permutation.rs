//! Paired permutation test: under no difference the sign of a prompt's difference is a coin.

use rand::RngExt;

use super::Paired;
use crate::base::seed::rng;

/// Flips all 2^k sign vectors where k is at most this; else draws `resamples` of them.
const EXACT: usize = 14;

/// Two-sided p from flipping the signs of whole prompts, averaged over seeds. Speaks of these checkpoints:
/// the seeds are held fixed. (Flips of three seeds could not fall below p = 0.25, whatever they showed.)
pub fn flip_prompts(design: &Paired, resamples: usize, seed: u64) -> f64 {
    let (sums, sizes) = design.sums();
    let mut prompts = vec![0.0; sizes.len()];
    for row in sums.chunks(sizes.len()) {
        row.iter().zip(&mut prompts).for_each(|(t, p)| *p += t);
    }
    flip(&prompts, resamples, seed)
}

/// p = share of sign vectors with |Σ ±x| at least the one seen; drawn ones count the seen one too
/// (Phipson & Smyth 2010), so that p is never 0 and the test never too free.
fn flip(x: &[f64], resamples: usize, seed: u64) -> f64 {
    let seen = x.iter().sum::<f64>().abs();
    let enough = seen - 1e-12 * x.iter().map(|v| v.abs()).sum::<f64>();
    let hit = |sum: f64| u64::from(sum.abs() >= enough);
    if x.len() <= EXACT {
        let all = 1u64 << x.len();
        let sum =
            |signs: u64| x.iter().enumerate().map(|(i, v)| if signs >> i & 1 == 1 { -v } else { *v }).sum();
        return (0..all).map(|signs| hit(sum(signs))).sum::<u64>() as f64 / all as f64;
    }
    let mut rng = rng(seed, "stats/permutation");
    let mut draw = || {
        let words = x.chunks(64);
        words
            .map(|chunk| {
                let bits: u64 = rng.random();
                let signed = chunk.iter().enumerate().map(|(i, v)| if bits >> i & 1 == 1 { -v } else { *v });
                signed.sum::<f64>()
            })
            .sum::<f64>()
    };
    let hits: u64 = (0..resamples).map(|_| hit(draw())).sum();
    (hits + 1) as f64 / (resamples + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn design(rows: &[Vec<f64>]) -> Paired {
        let zero: Vec<Vec<f64>> = rows.iter().map(|r| vec![0.0; r.len()]).collect();
        Paired::new(rows, &zero, &(0..rows[0].len()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn small_designs_are_enumerated() {
        // Sums of ±1 ±2 ±3: |sum| = 6 for two of the eight.
        assert_eq!(flip_prompts(&design(&[vec![1.0, 2.0, 3.0]]), 0, 0), 0.25);
        // The seeds of a prompt flip together: 1.5, 3 and 4.
        assert_eq!(flip_prompts(&design(&[vec![1.0, 2.0, 3.0], vec![0.5, 1.0, 1.0]]), 0, 0), 0.25);
    }

    #[test]
    fn drawn_signs_agree_with_the_normal_limit() {
        let x: Vec<f64> = (0..400).map(|i| if i % 20 < 11 { 1.0 } else { -1.0 }).collect();
        // Sum 40, sd 20: P(|Σ±1| ≥ 40) = 0.051 with 400 fair coins.
        let p = flip_prompts(&design(&[x]), 20_000, 1);
        assert!((0.044..0.058).contains(&p), "{p}");
    }
}
