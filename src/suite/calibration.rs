//! Is σ(margin) a probability? Calibration of the Bradley-Terry probability that a policy implies.

/// log σ's companion, stable on both sides.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// (1 − σ(margin))²: the Brier score of the claim that chosen is preferred, which is true.
pub fn brier(margin: f64) -> f64 {
    // 1 − σ(x) = σ(−x), without cancellation.
    sigmoid(-margin).powi(2)
}

const BINS: usize = 10;

/// Expected calibration error of reward margins (Naeini et al. 2015; Guo et al., arXiv 1706.04599, eq. 3).
///
/// The order of a pair carries no information, so the claim of a pair is "the one with the higher reward is
/// preferred", with confidence σ(|margin|) in [0.5, 1]; it is right where the margin is positive, half right
/// at 0. Ten bins of equal width; NaN without a pair.
pub fn expected_calibration_error(margins: &mut dyn Iterator<Item = f64>) -> f64 {
    let mut bins = [(0.0, 0.0, 0.0); BINS]; // (pairs, right, confidence)
    for margin in margins {
        let confidence = sigmoid(margin.abs());
        let bin = (((confidence - 0.5) * 2.0 * BINS as f64) as usize).min(BINS - 1);
        let right = if margin > 0.0 {
            1.0
        } else if margin < 0.0 {
            0.0
        } else {
            0.5
        };
        bins[bin].0 += 1.0;
        bins[bin].1 += right;
        bins[bin].2 += confidence;
    }
    let n: f64 = bins.iter().map(|b| b.0).sum();
    bins.iter().map(|(_, right, confidence)| (right - confidence).abs()).sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::base::seed::rng;

    #[test]
    fn calibrated_margins_have_no_error_and_overconfident_ones_theirs() {
        let mut rng = rng(0, "calibration");
        let mut draw = |scale: f64| {
            let margins: Vec<f64> = (0..100_000)
                .map(|_| {
                    let truth = rng.random::<f64>() * 3.0;
                    let sign = if rng.random::<f64>() < sigmoid(truth) { 1.0 } else { -1.0 };
                    sign * truth * scale
                })
                .collect();
            expected_calibration_error(&mut margins.into_iter())
        };
        assert!(draw(1.0) < 0.005, "the true probabilities");
        assert!(draw(4.0) > 0.1, "four times too sure");
        // By hand: confidence 0.5 twice, right once and half: |1.5 − 1| / 2 … and a tie alone is calibrated.
        assert_eq!(expected_calibration_error(&mut [0.0].into_iter()), 0.0);
        assert!((expected_calibration_error(&mut [0.0, 1e-12].into_iter()) - 0.25).abs() < 1e-9);
        assert!(
            (brier(0.0) - 0.25).abs() < 1e-15 && brier(800.0) == 0.0 && (brier(-800.0) - 1.0).abs() < 1e-15
        );
    }
}
