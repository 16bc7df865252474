//! Side effects of alignment, seen in what the policy writes: a win rate alone hides them.

use std::collections::HashSet;

/// Distinct n-grams among the n-grams of a sample (Li et al., arXiv 1510.03055, per sample); 1 where it is
/// too short to have any.
pub fn distinct(tokens: &[u32], n: usize) -> f64 {
    if tokens.len() < n {
        return 1.0;
    }
    let seen: HashSet<&[u32]> = tokens.windows(n).collect();
    seen.len() as f64 / (tokens.len() - n + 1) as f64
}

/// Share of a sample's 4-grams that stood in it before (rep-4 of Welleck et al., arXiv 1908.04319).
pub fn repetition(tokens: &[u32]) -> f64 {
    1.0 - distinct(tokens, 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_of_a_loop_and_of_none() {
        assert_eq!(distinct(&[1, 1, 1, 1], 1), 0.25);
        assert_eq!(distinct(&[1, 2, 1, 2], 2), 2.0 / 3.0);
        assert_eq!(repetition(&[1, 2, 3, 4, 5]), 0.0);
        // 1 2 3 4 | 2 3 4 1 | 3 4 1 2 | 4 1 2 3 | 1 2 3 4: one of five was there before.
        assert!((repetition(&[1, 2, 3, 4, 1, 2, 3, 4]) - 0.2).abs() < 1e-15);
        assert_eq!((repetition(&[7]), distinct(&[], 1)), (0.0, 1.0));
    }
}
