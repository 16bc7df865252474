//! The paired design behind a comparison: seeds × prompts, every prompt seen by every seed.

use crate::base::error::{Result, ensure};

/// Differences a − b of two arms for S seeds × C prompts. A prompt is a cluster of one or more examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Paired {
    seeds: usize,
    /// Sum of the differences of each prompt's examples, (S, C) row-major.
    sums: Vec<f64>,
    /// Examples of each prompt, (C).
    sizes: Vec<f64>,
    mean_a: f64,
    mean_b: f64,
    /// Every value is 0, ½ or 1: right, wrong or a tie.
    graded: bool,
    /// Every value lies in 0..=1.
    shares: bool,
}

impl Paired {
    /// `a[s][i]` and `b[s][i]`: value of example i under seed s; `cluster[i]`: its prompt, 0..C.
    ///
    /// # Errors
    /// Where nothing is left to compare, lengths differ, or a value is not finite.
    pub fn new(a: &[Vec<f64>], b: &[Vec<f64>], cluster: &[usize]) -> Result<Self> {
        let (seeds, n) = (a.len(), cluster.len());
        ensure!(seeds > 0 && n > 0, "a paired comparison needs a seed and an example; got {seeds} and {n}");
        ensure!(b.len() == seeds, "arm a has {seeds} seeds, arm b {}", b.len());
        let clusters = cluster.iter().max().map_or(0, |c| c + 1);
        let (mut sums, mut sizes) = (vec![0.0; seeds * clusters], vec![0.0; clusters]);
        for &c in cluster {
            sizes[c] += 1.0;
        }
        ensure!(sizes.iter().all(|m| *m > 0.0), "prompt numbers must run 0..{clusters} without a gap");
        for (s, (a, b)) in a.iter().zip(b).enumerate() {
            ensure!(
                a.len() == n && b.len() == n,
                "seed {s}: {} values of arm a and {} of arm b for {n} examples",
                a.len(),
                b.len()
            );
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                ensure!(
                    x.is_finite() && y.is_finite(),
                    "seed {s}, example {i}: value {x} or {y} is not finite"
                );
                sums[s * clusters + cluster[i]] += x - y;
            }
        }
        let cells = (seeds * n) as f64;
        let mean = |v: &[Vec<f64>]| v.iter().flatten().sum::<f64>() / cells;
        let all = |holds: fn(&f64) -> bool| a.iter().chain(b).flatten().all(holds);
        let graded = all(|v| [0.0, 0.5, 1.0].contains(v));
        let shares = all(|v| (0.0..=1.0).contains(v));
        Ok(Self { seeds, sums, sizes, mean_a: mean(a), mean_b: mean(b), graded, shares })
    }

    pub fn seeds(&self) -> usize {
        self.seeds
    }

    /// Prompts C.
    pub fn clusters(&self) -> usize {
        self.sizes.len()
    }

    /// Examples N.
    pub fn examples(&self) -> usize {
        self.sizes.iter().sum::<f64>() as usize
    }

    /// Whether every value is 0, ½ or 1, as accuracies and preferences are.
    pub fn graded(&self) -> bool {
        self.graded
    }

    /// Whether every value lies between 0 and 1, as those of all metrics that are shares do.
    pub fn shares(&self) -> bool {
        self.shares
    }

    pub fn mean_a(&self) -> f64 {
        self.mean_a
    }

    pub fn mean_b(&self) -> f64 {
        self.mean_b
    }

    /// Mean of a − b over seeds and examples.
    pub fn difference(&self) -> f64 {
        self.sums.iter().sum::<f64>() / (self.seeds as f64 * self.sizes.iter().sum::<f64>())
    }

    /// Sums of differences (S, C) row-major, and examples a prompt (C).
    pub fn sums(&self) -> (&[f64], &[f64]) {
        (&self.sums, &self.sizes)
    }

    /// Variance of the mean difference were the sign of each prompt's difference under each seed a coin:
    /// Σ T_sc²/(S N)². That is the law under no change where few prompts differ at all, and variance components of
    /// a handful of ±1 say nothing.
    pub fn coin_variance(&self) -> f64 {
        let cells = self.seeds as f64 * self.sizes.iter().sum::<f64>();
        self.sums.iter().map(|t| t * t).sum::<f64>() / (cells * cells)
    }

    /// The design as one value a prompt and seed, (S, C) row-major, with mean exactly the difference:
    /// y_sc = θ + (C/N)(T_sc − m_c θ), T the sum over a prompt's m_c examples. That is the linearisation of
    /// the ratio Σ T / Σ m, whose variance is that of the clustered mean (Cochran 1977, §6.3).
    pub fn influence(&self) -> Vec<f64> {
        let (theta, clusters) = (self.difference(), self.clusters());
        let scale = clusters as f64 / self.sizes.iter().sum::<f64>();
        let value = |(k, t): (usize, &f64)| theta + scale * (t - self.sizes[k % clusters] * theta);
        self.sums.iter().enumerate().map(value).collect()
    }
}
