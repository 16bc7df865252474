//! McNemar's test for two accuracies on the same examples.

use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal};

use super::Paired;

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

/// McNemar's test of a design whose values are 0, ½ and 1; `None` for others.
///
/// With one seed and one example a prompt the exact test (a tie against a win is half a discordant pair, which has the
/// sign of a whole one). Else its form for clustered pairs, which one prompt's seeds and examples are: with D_c the net
/// share of prompt c's pairs that a alone got right, z = Σ D_c / √(Σ D_c²) (Durkalski et al. 2003, Statistics in
/// Medicine 22:2417). The seeds are held fixed.
pub fn of_design(design: &Paired) -> Option<f64> {
    if !design.graded() {
        return None;
    }
    let (sums, sizes) = design.sums();
    if design.seeds() == 1 && sizes.iter().all(|m| *m == 1.0) {
        let count = |sign: f64| sums.iter().filter(|d| **d * sign > 0.0).count() as u64;
        return Some(mcnemar(count(1.0), count(-1.0)));
    }
    let net = |c: usize| sums.iter().skip(c).step_by(sizes.len()).sum::<f64>() / sizes[c];
    let net: Vec<f64> = (0..sizes.len()).map(net).collect();
    let spread = net.iter().map(|d| d * d).sum::<f64>().sqrt();
    let z = net.iter().sum::<f64>() / spread;
    Some(if spread > 0.0 { 2.0 * Normal::standard().cdf(-z.abs()) } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn design(a: &[Vec<f64>], b: &[Vec<f64>], cluster: &[usize]) -> Paired {
        Paired::new(a, b, cluster).unwrap()
    }

    #[test]
    fn worked_values() {
        // R: binom.test(2, 12)$p.value = 0.03857422; binom.test(6, 12)$p.value = 1
        assert!((mcnemar(2, 10) - 0.03857421875).abs() < 1e-12);
        assert_eq!((mcnemar(6, 6), mcnemar(0, 0)), (1.0, 1.0));
    }

    #[test]
    fn one_seed_of_single_examples_takes_the_exact_test() {
        // Twelve discordant pairs, ten for a; two that agree.
        let a: Vec<f64> = (0..14).map(|i| f64::from(u8::from(i < 10 || i == 13))).collect();
        let b: Vec<f64> = (0..14).map(|i| f64::from(u8::from(i >= 10 && i != 12))).collect();
        let p = of_design(&design(std::slice::from_ref(&a), &[b], &(0..14).collect::<Vec<_>>())).unwrap();
        assert!((p - 0.03857421875).abs() < 1e-12, "{p}");
        assert_eq!(of_design(&design(&[vec![0.3; 14]], &[a], &(0..14).collect::<Vec<_>>())), None);
    }

    #[test]
    fn of_clusters_of_one_pair_it_is_mcnemars_own_chi_square() {
        // Two seeds that say the same are one pair a prompt: (10 − 2)²/12 = 5.333; R: pchisq(16/3, 1, lower = F).
        let a: Vec<f64> = (0..12).map(|i| f64::from(u8::from(i < 10))).collect();
        let b: Vec<f64> = a.iter().map(|x| 1.0 - x).collect();
        let p = of_design(&design(&[a.clone(), a], &[b.clone(), b], &(0..12).collect::<Vec<_>>())).unwrap();
        assert!((p - 0.020_921_335).abs() < 1e-6, "{p}");
    }
}
