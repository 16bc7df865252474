//! Estimates with standard errors that respect clusters.
//!
//! Every estimate here is, to first order, a sum of one influence ψ_i per example; examples of one prompt
//! are not independent, so the influences are summed within a cluster first:
//! Var = G/(G − 1) Σ_c (Σ_{i ∈ c} ψ_i)², G clusters (Liang and Zeger 1986; for evaluations arXiv 2411.00640).

use std::collections::BTreeMap;

/// A value, the examples behind it, and its standard error (NaN where a single cluster gives none).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub value: f64,
    pub n: usize,
    pub standard_error: f64,
}

/// Standard error from one influence per example.
pub fn clustered(influences: &[f64], clusters: &[&str]) -> f64 {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    for (psi, cluster) in influences.iter().zip(clusters) {
        *sums.entry(cluster).or_default() += psi;
    }
    let g = sums.len() as f64;
    if g < 2.0 {
        return f64::NAN;
    }
    (g / (g - 1.0) * sums.values().map(|s| s * s).sum::<f64>()).sqrt()
}

/// Mean: ψ_i = (x_i − x̄)/n.
pub fn mean(values: &[f64], clusters: &[&str]) -> Estimate {
    let n = values.len() as f64;
    let value = values.iter().sum::<f64>() / n;
    let influences: Vec<f64> = values.iter().map(|x| (x - value) / n).collect();
    Estimate { value, n: values.len(), standard_error: clustered(&influences, clusters) }
}

/// Ratio of sums r = Σx/Σy, by the delta method: ψ_i = (x_i − r y_i)/Σy.
pub fn ratio(x: &[f64], y: &[f64], clusters: &[&str]) -> Estimate {
    let total: f64 = y.iter().sum();
    let value = x.iter().sum::<f64>() / total;
    let influences: Vec<f64> = x.iter().zip(y).map(|(x, y)| (x - value * y) / total).collect();
    Estimate { value, n: x.len(), standard_error: clustered(&influences, clusters) }
}

/// exp of an estimate, by the delta method.
pub fn exp(e: Estimate) -> Estimate {
    let value = e.value.exp();
    Estimate { value, standard_error: e.standard_error * value, ..e }
}

/// Any statistic of the examples, with the standard error of the jackknife that leaves out one cluster at a
/// time: Var = (G − 1)/G Σ_c (θ_(c) − θ̄)².
///
/// `statistic` gets the examples' indices; it is called G + 1 times.
pub fn jackknife(clusters: &[&str], statistic: impl Fn(&mut dyn Iterator<Item = usize>) -> f64) -> Estimate {
    let n = clusters.len();
    let value = statistic(&mut (0..n));
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let of: Vec<usize> = clusters
        .iter()
        .map(|c| {
            let next = numbers.len();
            *numbers.entry(c).or_insert(next)
        })
        .collect();
    let g = numbers.len() as f64;
    if g < 2.0 {
        return Estimate { value, n, standard_error: f64::NAN };
    }
    let without: Vec<f64> =
        (0..numbers.len()).map(|c| statistic(&mut (0..n).filter(|i| of[*i] != c))).collect();
    let centre = without.iter().sum::<f64>() / g;
    let sum: f64 = without.iter().map(|t| (t - centre) * (t - centre)).sum();
    Estimate { value, n, standard_error: ((g - 1.0) / g * sum).sqrt() }
}

/// A weighted mean of group means Σ w_g x̄_g / Σ w_g over the groups that have examples:
/// ψ_i = w_g/Σw · (x_i − x̄_g)/n_g. `None` where no group has any.
pub fn weighted(
    values: &[f64],
    groups: &[&str],
    clusters: &[&str],
    weights: &BTreeMap<&str, f64>,
) -> Option<Estimate> {
    let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (x, group) in values.iter().zip(groups).filter(|(_, g)| weights.contains_key(*g)) {
        let entry = sums.entry(group).or_default();
        *entry = (entry.0 + x, entry.1 + 1.0);
    }
    let total: f64 = sums.keys().map(|g| weights[g]).sum();
    if sums.is_empty() {
        return None;
    }
    let value = sums.iter().map(|(g, (sum, n))| weights[g] / total * sum / n).sum();
    let influence = |(x, group): (&f64, &&str)| {
        sums.get(group).map_or(0.0, |(sum, n)| weights[group] / total * (x - sum / n) / n)
    };
    let influences: Vec<f64> = values.iter().zip(groups).map(influence).collect();
    let n = sums.values().map(|(_, n)| *n as usize).sum();
    Some(Estimate { value, n, standard_error: clustered(&influences, clusters) })
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::base::seed::rng;

    #[test]
    fn without_repeated_prompts_it_is_the_textbook_standard_error() {
        let e = mean(&[1.0, 0.0, 1.0, 1.0], &["a", "b", "c", "d"]);
        // s² = 0.25, s/√n = 0.25.
        assert!((e.value - 0.75).abs() < 1e-15 && (e.standard_error - 0.25).abs() < 1e-15);
        assert!(mean(&[1.0, 0.0], &["a", "a"]).standard_error.is_nan());
        let j = jackknife(&["a", "b", "c", "d"], |i| {
            let v: Vec<f64> = i.map(|i| [1.0, 0.0, 1.0, 1.0][i]).collect();
            v.iter().sum::<f64>() / v.len() as f64
        });
        assert!((j.standard_error - 0.25).abs() < 1e-12, "the jackknife of a mean is the same");
    }

    /// Draws data sets of 60 prompts with 1 to 4 examples that share a prompt effect, and compares the mean
    /// of the estimated variance with the variance of the estimates.
    #[test]
    fn standard_errors_match_the_spread_of_repeated_experiments() {
        let mut rng = rng(7, "clusters");
        let (mut means, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..3000 {
            let (mut x, mut y, mut names) = (Vec::new(), Vec::new(), Vec::new());
            for c in 0..60 {
                let effect: f64 = rng.random::<f64>() * 2.0 - 1.0;
                for _ in 0..rng.random_range(1..=4) {
                    x.push(3.0 + effect + rng.random::<f64>());
                    y.push(2.0 + rng.random::<f64>() - 0.3 * effect);
                    names.push(format!("{c}"));
                }
            }
            let clusters: Vec<&str> = names.iter().map(String::as_str).collect();
            means.push(mean(&x, &clusters));
            ratios.push(ratio(&x, &y, &clusters));
        }
        for estimates in [means, ratios] {
            let n = estimates.len() as f64;
            let centre = estimates.iter().map(|e| e.value).sum::<f64>() / n;
            let spread = estimates.iter().map(|e| (e.value - centre).powi(2)).sum::<f64>() / (n - 1.0);
            let claimed = estimates.iter().map(|e| e.standard_error.powi(2)).sum::<f64>() / n;
            assert!((claimed / spread - 1.0).abs() < 0.1, "claimed variance {claimed}, observed {spread}");
        }
    }

    #[test]
    fn a_weighted_mean_of_groups_skips_absent_groups() {
        let weights = BTreeMap::from([("a", 3.0), ("b", 1.0), ("absent", 100.0)]);
        let e = weighted(&[1.0, 0.0, 1.0, 5.0], &["a", "a", "b", "other"], &["1", "2", "3", "4"], &weights)
            .unwrap();
        assert!((e.value - 0.625).abs() < 1e-15, "(3 × 0.5 + 1 × 1) / 4");
        assert_eq!(e.n, 3);
        assert!(weighted(&[1.0], &["other"], &["1"], &weights).is_none());
    }
}
