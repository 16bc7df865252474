//! Where the centre of paired differences lies, whatever the law of their noise: Wilcoxon's signed ranks.

use super::Interval;

/// Hodges-Lehmann estimate with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Location {
    pub estimate: f64,
    /// Each end is beyond the truth with probability at most the tail asked for; infinite where the differences are
    /// too few to say so at all ([`fewest`]).
    pub interval: Interval,
}

/// Median of the Walsh averages (x_i + x_j)/2, i ≤ j, and the interval between their (w + 1)-th from either end, w
/// the largest number with P(W ≤ w) ≤ `tail` for Wilcoxon's W (Hollander & Wolfe, *Nonparametric Statistical Methods*,
/// §3.1 to 3.3).
///
/// Exact for independent differences that are symmetric about one centre, each with a law of its own; with ties it
/// errs on the safe side. The difference of two measurements of one thing is symmetric about 0 whatever the
/// machine does, and that is all a gate needs. `None`: no difference, or one that is not finite.
pub fn location(x: &[f64], tail: f64) -> Option<Location> {
    if x.is_empty() || !x.iter().all(|v| v.is_finite()) {
        return None;
    }
    let mut walsh = Vec::with_capacity(x.len() * (x.len() + 1) / 2);
    for (i, a) in x.iter().enumerate() {
        walsh.extend(x[i..].iter().map(|b| 0.5 * (a + b)));
    }
    walsh.sort_unstable_by(f64::total_cmp);
    let last = walsh.len() - 1;
    let estimate = 0.5 * (walsh[last / 2] + walsh[walsh.len() / 2]);
    let infinite = Interval { low: f64::NEG_INFINITY, high: f64::INFINITY };
    let interval =
        critical(x.len(), tail).map_or(infinite, |w| Interval { low: walsh[w], high: walsh[last - w] });
    Some(Location { estimate, interval })
}

/// Fewest differences that can show anything at this one-sided error: 2⁻ⁿ ≤ `tail`.
pub fn fewest(tail: f64) -> usize {
    (1..1000).find(|n| 0.5f64.powi(*n) <= tail).map_or(1000, |n| n as usize)
}

/// Largest w with P(W ≤ w) ≤ `tail`; W is the sum of those of the ranks 1 to n whose fair coin shows heads.
fn critical(n: usize, tail: f64) -> Option<usize> {
    let mut law = vec![1.0];
    for rank in 1..=n {
        let mut next = vec![0.0; law.len() + rank];
        for (w, p) in law.iter().enumerate() {
            next[w] += 0.5 * p;
            next[w + rank] += 0.5 * p;
        }
        law = next;
    }
    let mut below = 0.0;
    let over = law.iter().position(|p| {
        below += p;
        below > tail * (1.0 + 1e-12)
    });
    over.unwrap_or(law.len()).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::base::seed::rng_at;

    #[test]
    fn critical_values_are_those_of_the_printed_table() {
        // One-sided 0.025, 0.01 and 0.005 of any table of Wilcoxon's signed ranks.
        for (n, table) in [(6, [Some(0), None, None]), (8, [Some(3), Some(1), Some(0)])] {
            assert_eq!([0.025, 0.01, 0.005].map(|tail| critical(n, tail)), table, "n {n}");
        }
        for (n, table) in [(10, [8, 5, 3]), (12, [13, 9, 7]), (16, [29, 23, 19]), (20, [52, 43, 37])] {
            assert_eq!([0.025, 0.01, 0.005].map(|tail| critical(n, tail)), table.map(Some), "n {n}");
        }
        assert_eq!([0.5, 0.25, 0.005, 0.000_625].map(fewest), [1, 2, 8, 11]);
    }

    #[test]
    fn an_interval_is_that_of_a_worked_example() {
        // 1, 3, 8: Walsh averages 1, 2, 3, 4.5, 5.5, 8; with tail 1/8 the extremes, with 1/4 the next.
        let at = |tail| location(&[8.0, 1.0, 3.0], tail).unwrap();
        assert_eq!(at(0.125), Location { estimate: 3.75, interval: Interval { low: 1.0, high: 8.0 } });
        assert_eq!(at(0.25).interval, Interval { low: 2.0, high: 5.5 });
        assert_eq!(at(0.1).interval, Interval { low: f64::NEG_INFINITY, high: f64::INFINITY });
        assert_eq!((location(&[], 0.1), location(&[1.0, f64::NAN], 0.1)), (None, None));
    }

    /// Whatever the noise: two states, ties, tails without a mean, a scale that changes from one to the next.
    #[test]
    fn the_ends_err_no_more_often_than_was_asked() {
        let uniform = |trial: u64, k: u64| rng_at(3, "test/signed-rank", 100 * trial + k).random::<f64>();
        let laws: [fn(f64) -> f64; 4] = [
            |u| f64::from(u8::from(u < 0.5)),
            |u| if u < 0.1 { 9.0 } else { u },
            |u| (std::f64::consts::PI * (u - 0.5)).tan(),
            |u| (4.0 * u).floor(),
        ];
        let (trials, tail) = (4000, 0.05);
        for (i, law) in laws.iter().enumerate() {
            let misses = |trial: &u64| {
                let difference = |k: u64| {
                    (1.0 + k as f64) * (law(uniform(*trial, 2 * k)) - law(uniform(*trial, 2 * k + 1)))
                };
                let x: Vec<f64> = (0..10).map(difference).collect();
                location(&x, tail).unwrap().interval.low > 0.0
            };
            let missed = (0..trials).filter(misses).count();
            // 99.9 % quantile of the binomial law of 4000 and 0.05: 243.
            assert!(missed <= 243, "law {i}: {missed} of {trials}");
        }
    }
}
