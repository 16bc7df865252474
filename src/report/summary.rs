//! Means and spread over seeds, for display. Verdicts never come from here: they are rows of
//! `comparisons.csv`, made by `stats`.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Two-sided 95 % quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// An arm's score over its seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub seeds: usize,
    pub mean: f64,
    /// Sample standard deviation over seeds / √seeds; `None` with one seed.
    pub standard_error: Option<f64>,
    /// 95 % interval: see [`Summary::of_scores`].
    pub low: f64,
    pub high: f64,
}

impl Summary {
    /// Mean of one value a seed, each with a standard error from its examples (clustered by prompt).
    ///
    /// The half-width of the interval is √(a² + b²), a = t₀.₉₇₅,ₖ₋₁ · s / √k from the k seeds and
    /// b = 1.96 · root mean square of the standard errors. b does not shrink with k, because all seeds are
    /// scored on the same prompts. Half-widths of independent parts added in quadrature: the method of
    /// variance estimates recovery (Zou & Donner 2008, Statistics in Medicine 27:1693). With one seed only
    /// b is left.
    ///
    /// `values` must not be empty.
    pub fn of_scores(values: &[f64], standard_errors: &[f64]) -> Self {
        let k = values.len() as f64;
        let mean = mean(values);
        let standard_error = standard_error(values);
        let seed_part = standard_error.map_or(0.0, |se| t_quantile(k - 1.0) * se);
        let squares: f64 = standard_errors.iter().filter(|e| e.is_finite()).map(|e| e * e).sum();
        let prompt_part = Z * (squares / k).sqrt();
        let half = seed_part.hypot(prompt_part);
        Self { seeds: values.len(), mean, standard_error, low: mean - half, high: mean + half }
    }
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sample standard deviation / √n; `None` below two values.
pub fn standard_error(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    (values.len() > 1).then(|| {
        let m = mean(values);
        let squares: f64 = values.iter().map(|v| (v - m) * (v - m)).sum();
        (squares / (n - 1.0) / n).sqrt()
    })
}

/// Of values in any order, at least one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// The value below which a share `q` of `sorted` lies, interpolated; `sorted` must not be empty.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (at - at.floor()) * (sorted[high] - sorted[low])
}

/// Two-sided 95 % quantile of Student's t with `freedom` ≥ 1 degrees of freedom.
fn t_quantile(freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).map_or(Z, |t| t.inverse_cdf(0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_joins_seed_spread_and_prompt_sampling() {
        let s = Summary::of_scores(&[0.5, 0.6, 0.7], &[0.02, 0.02, 0.02]);
        assert!((s.mean - 0.6).abs() < 1e-12);
        // s = 0.1, s/√3 = 0.057735; t(0.975, 2) = 4.302653 (tables).
        assert!((s.standard_error.unwrap() - 0.057_735_03).abs() < 1e-8);
        let half = (4.302_653_f64 * 0.057_735_03).hypot(1.959_964 * 0.02);
        assert!((s.high - 0.6 - half).abs() < 1e-6 && (0.6 - s.low - half).abs() < 1e-6);
    }

    #[test]
    fn one_seed_has_no_seed_spread_and_says_so() {
        let s = Summary::of_scores(&[0.5], &[0.02]);
        assert_eq!(s.standard_error, None);
        assert!((s.high - 0.5 - 1.959_964 * 0.02).abs() < 1e-6);
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), 2.5);
        assert_eq!(quantile(&[1.0], 0.9), 1.0);
        assert_eq!([median(&[3.0, 1.0, 40.0]), median(&[4.0, 1.0])], [3.0, 2.5]);
    }
}
