//! McNemar's exact test for two accuracies on the same examples.

use statrs::distribution::{Binomial, DiscreteCDF};

/// Two-sided exact p for `a_only` examples that arm a alone got right and `b_only` that arm b alone did:
/// p = min(1, 2 P(X ≤ min)), X ~ Binomial(a_only + b_only, ½) (McNemar 1947; exact form).
///
/// Of one seed, and for examples that are independent: it speaks of two checkpoints, not of two methods.
pub fn mcnemar(a_only: u64, b_only: u64) -> f64 {
    let n = a_only + b_only;
    match Binomial::new(0.5, n) {
        Ok(law) if n > 0 => (2.0 * law.cdf(a_only.min(b_only))).min(1.0),
        _ => 1.0,
    }
}

/// Discordant counts (a alone right, b alone right) of values where above ½ means right.
pub fn discordant(a: &[f64], b: &[f64]) -> (u64, u64) {
    let count =
        |x: &[f64], y: &[f64]| x.iter().zip(y).filter(|(x, y)| **x > 0.5 && **y <= 0.5).count() as u64;
    (count(a, b), count(b, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_values() {
        // R: binom.test(2, 12)$p.value = 0.03857422; binom.test(6, 12)$p.value = 1
        assert!((mcnemar(2, 10) - 0.03857421875).abs() < 1e-12);
        assert_eq!((mcnemar(6, 6), mcnemar(0, 0)), (1.0, 1.0));
        assert_eq!(discordant(&[1.0, 1.0, 0.0, 0.0], &[1.0, 0.0, 1.0, 0.5]), (1, 1));
    }
}
