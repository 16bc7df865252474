//! Bootstrap intervals: percentiles of statistics over independent units (prompts), and the studentised two-level
//! bootstrap of a design over seeds and prompts.

use rand::RngExt;
use rayon::prelude::*;

use super::{Components, Interval, Paired};
use crate::base::seed::rng_at;

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

/// Fewest seeds of [`two_level`]. Of three resampled seeds one time in nine all are the same one, whose spread is 0 and
/// whose t is infinite: more than either tail of a 95 % interval. Of four, one time in 64.
const LEAST_SEEDS: usize = 4;

/// Studentised two-level bootstrap of a design's difference: seeds and prompts are resampled with replacement, each on
/// its own, and a prompt keeps its examples and its seeds (crossed, as in Owen 2007, "The pigeonhole bootstrap").
///
/// t* = (θ* − θ̂)/se*, se* by the variance components of the resample; bounds θ̂ − t*₁₋α/₂ se and θ̂ − t*_α/₂ se. `None`
/// below four seeds, where it has no finite bounds.
pub fn two_level(design: &Paired, resamples: usize, alpha: f64, seed: u64) -> Option<Interval> {
    let (s, c) = (design.seeds(), design.clusters());
    if s < LEAST_SEEDS || c < 2 {
        return None;
    }
    let (y, law) = (design.influence(), Components::law(design));
    let draw = |k: usize| {
        let mut rng = rng_at(seed, "stats/two-level", k as u64);
        let prompts: Vec<usize> = (0..c).map(|_| rng.random_range(0..c)).collect();
        let mut drawn = Vec::with_capacity(s * c);
        for _ in 0..s {
            let row = rng.random_range(0..s) * c;
            drawn.extend(prompts.iter().map(|p| y[row + p]));
        }
        let drawn = Components::law_of(&drawn, s, c);
        let (off, spread) = (drawn.difference - law.difference, drawn.standard_error());
        // Without spread t is infinite, unless there is nothing to divide.
        if off == 0.0 { 0.0 } else { off / spread }
    };
    let mut drawn: Vec<f64> = (0..resamples.max(1)).into_par_iter().map(draw).collect();
    drawn.sort_by(f64::total_cmp);
    let bound = |share: f64| law.difference - quantile(&drawn, share) * law.standard_error();
    let found = Interval { low: bound(1.0 - 0.5 * alpha), high: bound(0.5 * alpha) };
    (found.low.is_finite() && found.high.is_finite()).then_some(found)
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

    /// Seeds × prompts of a crossed design, with noise that has no ties.
    fn design(seeds: usize, prompts: usize) -> Paired {
        let noise = |i: usize, k: usize| ((i * 7919 + k * 104_729) % 1009) as f64 / 1009.0 - 0.5;
        let row =
            |s: usize| (0..prompts).map(|c| 0.2 + noise(s, 1) + noise(c, 2) + noise(s * 31 + c, 3)).collect();
        let a: Vec<Vec<f64>> = (0..seeds).map(row).collect();
        let b = vec![vec![0.0; prompts]; seeds];
        Paired::new(&a, &b, &(0..prompts).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn percentiles_of_a_mean_are_the_normal_interval() {
        let x: Vec<f64> = (0..200).map(|i| ((i * 77) % 200) as f64 / 200.0).collect();
        let mean = |u: &[usize]| vec![u.iter().map(|i| x[*i]).sum::<f64>() / u.len() as f64];
        let interval = percentiles(200, 4000, 0.05, 3, 1, mean)[0];
        let half = 1.96 * (1.0f64 / 12.0 / 200.0).sqrt();
        assert!((interval.high - interval.low - 2.0 * half).abs() < 0.1 * half, "{interval:?} {half}");
    }

    #[test]
    fn below_four_seeds_there_is_no_two_level_interval() {
        assert_eq!(two_level(&design(3, 40), 400, 0.05, 1), None);
        let found = two_level(&design(4, 40), 400, 0.05, 1).expect("four seeds have finite bounds");
        assert!(found.contains(design(4, 40).difference()));
        assert_eq!(
            Some(found),
            two_level(&design(4, 40), 400, 0.05, 1),
            "the same seed gives the same bounds"
        );
    }

    #[test]
    fn of_many_seeds_it_is_the_interval_of_the_variance_components() {
        let design = design(30, 60);
        let (drawn, law) =
            (two_level(&design, 2000, 0.05, 1).unwrap(), Components::law(&design).interval(0.05));
        let width = law.high - law.low;
        assert!(
            (drawn.low - law.low).abs() < 0.12 * width && (drawn.high - law.high).abs() < 0.12 * width,
            "{drawn:?} {law:?}"
        );
    }
}
