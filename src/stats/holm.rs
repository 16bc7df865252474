//! Holm's step-down correction.

/// Adjusted p-values in the order given: p̃_(k) = max_{j ≤ k} min(1, (m − j + 1) p_(j)) (Holm 1979). NaN (no
/// test was made) stays NaN and does not count towards m.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).filter(|i| !p[*i].is_nan()).collect();
    order.sort_by(|i, j| p[*i].total_cmp(&p[*j]));
    let (m, mut adjusted, mut floor) = (order.len(), vec![f64::NAN; p.len()], 0.0f64);
    for (k, i) in order.into_iter().enumerate() {
        floor = floor.max((p[i] * (m - k) as f64).min(1.0));
        adjusted[i] = floor;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worked_example() {
        // R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") = 0.03 0.06 0.06 0.02
        let adjusted = holm(&[0.01, 0.04, f64::NAN, 0.03, 0.005]);
        for (got, want) in adjusted.iter().zip([0.03, 0.06, f64::NAN, 0.06, 0.02]) {
            assert!((got - want).abs() < 1e-12 || want.is_nan() && got.is_nan(), "{adjusted:?}");
        }
    }
}
