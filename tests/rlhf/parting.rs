//! Over-optimisation as a statistic: a fall after the peak is found, and the peak's own noise is not taken for one.

use kto_eval::base::seed;
use kto_eval::stats::parting::{Part, parting};
use rand::RngExt;

/// Runs whose gold reward goes through `gold` with noise, the proxy rising by 0.1 a part.
fn runs(gold: &[f64], noise: f64, seed: u64) -> Vec<Vec<Part>> {
    let mut rng = seed::rng(seed, "test/parting");
    let mut part = |(i, g): (usize, &f64)| Part {
        proxy: 0.1 * i as f64 + rng.random_range(-0.01..0.01),
        gold: g + noise * rng.random_range(-1.0..1.0),
    };
    (0..5).map(|_| gold.iter().enumerate().map(&mut part).collect()).collect()
}

#[test]
fn a_fall_after_the_peak_is_found_and_measured() {
    let found = parting(&runs(&[0.5, 0.6, 0.65, 0.6, 0.55], 0.01, 1)).unwrap();
    assert!(found.is_shown(), "{found:?}");
    assert!(found.gold.interval.contains(-0.1) && found.proxy.interval.contains(0.2), "{found:?}");
}

#[test]
fn a_flat_reward_is_rarely_said_to_fall() {
    // The highest of twelve equal parts would seem to fall in nearly every study.
    let said = |seed| parting(&runs(&[0.5; 12], 0.05, seed)).unwrap().gold.interval.high < 0.0;
    let wrong = (0..400).filter(|s| said(*s)).count();
    // 2.5 % are expected; 400 draws of it exceed 22 once in a thousand times.
    assert!(wrong <= 22, "{wrong} of 400");
}

#[test]
fn a_reward_that_rises_to_the_end_and_too_few_runs_say_nothing() {
    assert!(!parting(&runs(&[0.5, 0.6, 0.7, 0.8], 0.01, 1)).unwrap().is_shown());
    assert_eq!(parting(&runs(&[0.5, 0.4], 0.01, 1)[..2]), None);
    let mut uneven = runs(&[0.5, 0.4, 0.3], 0.01, 1);
    uneven[1].pop();
    assert_eq!(parting(&uneven), None);
}
