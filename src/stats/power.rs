//! What a design can find, and what would settle a comparison that it cannot.

use super::distribution::t_quantile;
use super::{Components, Law};

/// Probability with which a true difference shall be found.
pub const POWER: f64 = 0.8;

/// Most seeds that are proposed.
const MOST_SEEDS: usize = 200;
/// Most prompts that are proposed.
const MOST_PROMPTS: usize = 10_000_000;

/// Smallest true difference found with probability [`POWER`] at two-sided level `alpha`:
/// (c_α + t_{0.8, f}) se, c_α the critical value of the p-value that verdicts use. `None` where nothing varied: then
/// the rows say nothing of the differences that other rows would show.
pub fn detectable(law: &Law, alpha: f64) -> Option<f64> {
    if law.variance() <= 0.0 {
        return None;
    }
    let standard_errors = law.critical(alpha) + t_quantile(1.0 - POWER, law.degrees_of_freedom());
    Some(standard_errors * law.standard_error())
}

/// What would settle an undecided comparison, if the difference seen is the true one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settling {
    /// Seeds, on the same prompts.
    pub seeds: Option<usize>,
    /// Prompts, with the same seeds; `None`: no number of prompts does (the seeds differ too much).
    pub prompts: Option<usize>,
}

/// Seeds or prompts with which a true difference as large as the one seen would be found with probability
/// 0.8, or equivalence within ± `margin` shown, whichever comes first. `difference_alpha` is the level of
/// the difference test (two-sided), `equivalence_alpha` that of each one-sided test.
pub fn settling(parts: &Components, difference_alpha: f64, equivalence_alpha: f64, margin: f64) -> Settling {
    let effect = parts.difference.abs();
    let enough = |law: Law, clusters: usize| {
        let found = match detectable(&law, difference_alpha) {
            Some(least) => least <= effect,
            None => Law { prompt_df: clusters as f64 - 1.0, ..law }.p() <= difference_alpha,
        };
        let slack = t_quantile(1.0 - POWER, law.degrees_of_freedom()) * law.standard_error();
        let bound = parts.events.bound(parts.difference, margin, clusters).nearer(slack);
        let shown = || bound.p_beyond(&law, margin - effect - slack) <= equivalence_alpha;
        found || shown()
    };
    let seeds_enough = |s: usize| enough(parts.forecast(s, parts.clusters), parts.clusters);
    let prompts_enough = |c: usize| enough(parts.forecast(parts.seeds, c), c);
    Settling {
        seeds: first(parts.seeds.max(1) + 1, MOST_SEEDS, seeds_enough),
        prompts: if parts.seeds < 2 { None } else { first(parts.clusters + 1, MOST_PROMPTS, prompts_enough) },
    }
}

/// Smallest k in `from..=most` for which the rising condition holds.
fn first(from: usize, most: usize, holds: impl Fn(usize) -> bool) -> Option<usize> {
    let (mut low, mut high) = (from, most.max(from));
    if !holds(high) {
        return None;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Events;

    fn parts(seed: f64, prompt: f64, residual: f64) -> Components {
        let events = Events { rates: [0.0; 2], jump: 1e-3, shares: false };
        Components {
            seeds: 3,
            clusters: 400,
            difference: 0.02,
            seed,
            prompt,
            residual,
            skewness: 0.0,
            events,
        }
    }

    #[test]
    fn prompts_do_not_settle_what_seeds_leave_open() {
        let noisy_seeds = settling(&parts(0.03 * 0.03, 0.001, 0.1), 0.05, 0.05, 0.001);
        assert_eq!(noisy_seeds.prompts, None);
        assert!(noisy_seeds.seeds.is_some_and(|s| (15..60).contains(&s)), "{noisy_seeds:?}");
    }

    #[test]
    fn prompts_settle_what_prompts_leave_open() {
        // Known-variance count: C = σ² (z_.975 + z_.8)² / δ² = 0.1 · 7.849 / 0.0004 ≈ 1962; t adds some.
        let settled = settling(&parts(0.0, 0.1, 1e-6), 0.05, 0.05, 0.001);
        assert!(settled.prompts.is_some_and(|c| (1950..2050).contains(&c)), "{settled:?}");
        assert_eq!(settled.seeds, None);
    }

    #[test]
    fn arms_that_agree_on_every_prompt_want_prompts_and_no_seeds() {
        let none = Events { rates: [0.0; 2], jump: 1.0, shares: true };
        let same = Components { difference: 0.0, clusters: 100, events: none, ..parts(0.0, 0.0, 0.0) };
        // e^(−0.02 · 150) = 0.0498, e^(−0.02 · 231) = 0.0099; one prompt fewer does not do.
        let settled = |parts: &Components, alpha| settling(parts, alpha, alpha, 0.02);
        assert_eq!(settled(&same, 0.05), Settling { seeds: None, prompts: Some(150) });
        assert_eq!(settled(&same, 0.01), Settling { seeds: None, prompts: Some(231) });
        assert_eq!(detectable(&same.forecast(3, 100), 0.05), None);
        // One prompt in two hundred under all seeds: Q(n₁ + 1, 0.02 C) with n₁ = 0.005 C + 0.842 √(0.005 C).
        let few = Components {
            difference: 0.005,
            prompt: 0.005,
            events: Events { rates: [0.005, 0.0], jump: 1.0, shares: true },
            ..same
        };
        let wanted = settled(&few, 0.05).prompts;
        assert!(wanted.is_some_and(|c| (395..410).contains(&c)), "{wanted:?}");
    }
}
