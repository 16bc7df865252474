//! Length-controlled win rate: what would the preference be, were both answers equally long?

/// The fitted model and what it says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LengthControl {
    /// σ(θ): predicted preference at no difference in length.
    pub rate: f64,
    /// θ, the difference in quality.
    pub quality: f64,
    /// φ, the weight of tanh(standardised length difference); positive: the shorter answer is preferred.
    pub length: f64,
    /// Inverse strength C of the penalty that cross-validation chose.
    pub inverse_penalty: f64,
}

/// A row: tanh of the standardised length difference, and the preference.
type Row = (f64, f64);

const FOLDS: usize = 5;
const GRID: usize = 10;

/// `length_controlled_minimal` of AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475, §3 without the term of
/// instruction difficulty):
///
/// P(candidate preferred) = σ(θ + φ tanh(Δ/s)),  Δ = baseline length − candidate length, s its standard
/// deviation (n − 1, not centred), fitted to the preferences as soft labels under
/// |θ| + |φ| + C Σ log-loss, C from ten values 10⁻⁴ … 10⁴ by five-fold cross-validation on log-loss (fold of
/// row i: 4 − i mod 5, the best fold mean, the smaller C on a tie). The win rate is σ(θ).
///
/// `None`: fewer rows than folds, or all differences the same.
pub fn length_controlled(preferences: &[f64], differences: &[f64]) -> Option<LengthControl> {
    let n = preferences.len();
    let mean = differences.iter().sum::<f64>() / n as f64;
    let s = (differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n as f64 - 1.0)).sqrt();
    if n < FOLDS || !s.is_finite() || s <= 0.0 {
        return None;
    }
    let rows: Vec<Row> = differences.iter().zip(preferences).map(|(d, p)| ((d / s).tanh(), *p)).collect();
    let c = best_penalty(&rows);
    let (quality, length) = fit(&rows, c);
    Some(LengthControl { rate: sigmoid(quality), quality, length, inverse_penalty: c })
}

/// The C of the grid with the least held-out log-loss.
fn best_penalty(rows: &[Row]) -> f64 {
    let fold_of = |i: usize| FOLDS - 1 - (i % FOLDS);
    let held_out = |c: f64| -> f64 {
        let folds = (0..FOLDS).map(|fold| {
            let part = |held: bool| -> Vec<Row> {
                rows.iter()
                    .enumerate()
                    .filter(|(i, _)| (fold_of(*i) == fold) == held)
                    .map(|(_, r)| *r)
                    .collect()
            };
            let (theta, phi) = fit(&part(false), c);
            let test = part(true);
            test.iter().map(|(x, y)| log_loss(theta + phi * x, *y)).sum::<f64>() / test.len() as f64
        });
        folds.sum::<f64>() / FOLDS as f64
    };
    let grid = (0..GRID).map(|k| 10f64.powf(-4.0 + 8.0 * k as f64 / (GRID - 1) as f64));
    let scored: Vec<(f64, f64)> = grid.map(|c| (c, held_out(c))).collect();
    let least = scored.iter().map(|s| s.1).fold(f64::INFINITY, f64::min);
    scored.iter().find(|s| s.1 <= least).map_or(1.0, |s| s.0)
}

/// Minimises |θ| + |φ| + C Σ log-loss by coordinate-wise Newton steps with soft thresholding, halved until
/// they descend; convex, so that any fixed point is the minimum.
fn fit(rows: &[Row], c: f64) -> (f64, f64) {
    let value = |w: [f64; 2]| {
        w[0].abs() + w[1].abs() + c * rows.iter().map(|(x, y)| log_loss(w[0] + w[1] * x, *y)).sum::<f64>()
    };
    let (mut w, mut now) = ([0.0f64; 2], value([0.0; 2]));
    for _ in 0..500 {
        let before = w;
        for k in 0..2 {
            let (mut gradient, mut curvature) = (0.0, 1e-12);
            for (x, y) in rows {
                let (feature, p) = (if k == 0 { 1.0 } else { *x }, sigmoid(w[0] + w[1] * x));
                gradient += c * feature * (p - y);
                curvature += c * feature * feature * p * (1.0 - p);
            }
            let centre = w[k] - gradient / curvature;
            let target = centre.signum() * (centre.abs() - 1.0 / curvature).max(0.0);
            let mut step = target - w[k];
            for _ in 0..40 {
                let mut next = w;
                next[k] += step;
                let then = value(next);
                if then <= now {
                    (w, now) = (next, then);
                    break;
                }
                step *= 0.5;
            }
        }
        if (w[0] - before[0]).abs().max((w[1] - before[1]).abs()) < 1e-10 {
            break;
        }
    }
    (w[0], w[1])
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// −y log σ(z) − (1 − y) log(1 − σ(z)), without overflow.
fn log_loss(z: f64, y: f64) -> f64 {
    z.max(0.0) - y * z + (-z.abs()).exp().ln_1p()
}
