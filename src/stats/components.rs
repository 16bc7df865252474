//! Where the variance of a comparison comes from: seeds, prompts, and what is left.

use super::{Events, Law, Paired};

/// Cells that lie no further apart than this share of their mean are equal but for rounding.
const ROUNDING: f64 = 1e-9;

/// Variance components of the crossed random-effects model (every seed sees the same prompts)
///
/// d_sc = θ + S_s + P_c + ε_sc,  Var(θ̂) = σ²_seed/S + σ²_prompt/C + σ²_resid/(S C),
///
/// by the analysis-of-variance estimators (Searle, Casella & McCulloch 1992, §4.3), negative ones set to 0.
/// The residual holds the seed × prompt interaction, sampling noise and the judge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Components {
    pub seeds: usize,
    pub clusters: usize,
    pub difference: f64,
    /// σ²_seed; 0 with one seed, which cannot show it.
    pub seed: f64,
    /// σ²_prompt; with one seed it holds the residual too.
    pub prompt: f64,
    pub residual: f64,
    /// Of the prompts' differences, means over the seeds: m₃/m₂^1.5, 0 where all are equal.
    pub skewness: f64,
    pub events: Events,
}

impl Components {
    pub fn of(design: &Paired) -> Self {
        let (s, c) = (design.seeds(), design.clusters());
        let values = design.influence();
        let squares = Squares::of(&values, s, c);
        let (seed, prompt) = if s < 2 {
            (0.0, squares.prompt)
        } else {
            ((squares.seed - squares.residual) / c as f64, (squares.prompt - squares.residual) / s as f64)
        };
        Self {
            seeds: s,
            clusters: c,
            difference: design.difference(),
            seed: seed.max(0.0),
            prompt: prompt.max(0.0),
            residual: squares.residual,
            skewness: skewness(&values, c),
            events: Events::of(design),
        }
    }

    /// The law of this design's mean difference.
    ///
    /// The part that only seeds can show is estimated by the spread of the seed means, on S − 1 degrees of
    /// freedom: A = MS_seed/(S C), expectation σ²_seed/S + σ²_resid/(S C). The rest is B = σ²_prompt/C.
    ///
    /// Seeds that each lose a few answers, not the same ones but as many, show neither spread. So A + B is no less than
    /// Σ (y − ȳ)²/(S C)², the variance were every cell a draw of its own. Its expectation is below Var(θ̂) whatever the
    /// components; it is 0 where all cells are equal, and never binds with one seed.
    pub fn law(design: &Paired) -> Law {
        Self::law_of(&design.influence(), design.seeds(), design.clusters())
    }

    /// The same of differences `y` (S, C) row-major.
    pub fn law_of(y: &[f64], s: usize, c: usize) -> Law {
        let squares = Squares::of(y, s, c);
        let cells = (s * c) as f64;
        let mean = y.iter().sum::<f64>() / cells;
        let total: f64 = y.iter().map(|v| (v - mean).powi(2)).sum();
        let (between_seeds, between_prompts) = match s {
            1 => (0.0, squares.prompt / c as f64),
            _ => (squares.seed / cells, (squares.prompt - squares.residual).max(0.0) / cells),
        };
        let law = Law {
            difference: mean,
            between_seeds,
            between_prompts,
            seed_df: s.saturating_sub(1) as f64,
            prompt_df: c.saturating_sub(1) as f64,
        };
        match total <= cells * (ROUNDING * mean).powi(2) {
            true => Law { between_seeds: 0.0, between_prompts: 0.0, ..law },
            false => law.at_least(total / (cells * cells)),
        }
    }

    /// The law to expect of the same comparison with other numbers of seeds and prompts.
    pub fn forecast(&self, seeds: usize, clusters: usize) -> Law {
        let (s, c) = (seeds as f64, clusters as f64);
        Law {
            difference: self.difference,
            between_seeds: self.seed / s + self.residual / (s * c),
            between_prompts: self.prompt / c,
            seed_df: s - 1.0,
            // Planning needs no small-sample term for prompts, and the normal tail is far cheaper than t's.
            prompt_df: f64::INFINITY,
        }
    }
}

/// Skewness of the column sums of `y` (S, C).
fn skewness(y: &[f64], c: usize) -> f64 {
    let mut columns = vec![-y.iter().sum::<f64>() / c as f64; c];
    y.iter().enumerate().for_each(|(k, v)| columns[k % c] += v);
    let moment = |power: i32| columns.iter().map(|m| m.powi(power)).sum::<f64>() / c as f64;
    match moment(2) > 0.0 {
        true => moment(3) / moment(2).powf(1.5),
        false => 0.0,
    }
}

/// Mean squares of a two-way layout with one value a cell.
struct Squares {
    seed: f64,
    prompt: f64,
    residual: f64,
}

impl Squares {
    /// `y` (S, C) row-major. A mean square without degrees of freedom is 0.
    fn of(y: &[f64], s: usize, c: usize) -> Self {
        let mean = y.iter().sum::<f64>() / y.len() as f64;
        let rows: Vec<f64> = y.chunks(c).map(|r| r.iter().sum::<f64>() / c as f64 - mean).collect();
        let mut columns = vec![-mean; c];
        for row in y.chunks(c) {
            row.iter().zip(&mut columns).for_each(|(v, m)| *m += v / s as f64);
        }
        let (mut seed, mut prompt, mut residual) = (0.0, 0.0, 0.0);
        for (row, r) in y.chunks(c).zip(&rows) {
            seed += r * r * c as f64;
            residual += row.iter().zip(&columns).map(|(v, m)| (v - mean - r - m).powi(2)).sum::<f64>();
        }
        prompt += columns.iter().map(|m| m * m).sum::<f64>() * s as f64;
        let over = |sum: f64, df: usize| if df == 0 { 0.0 } else { sum / df as f64 };
        Self {
            seed: over(seed, s - 1),
            prompt: over(prompt, c - 1),
            residual: over(residual, (s - 1) * (c - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_squares_of_a_worked_two_way_table() {
        // Rows 1 2 3 / 3 4 8: row means 2, 5; column means 2, 3, 5.5; by hand SS 13.5, 13, 3.
        let squares = Squares::of(&[1.0, 2.0, 3.0, 3.0, 4.0, 8.0], 2, 3);
        assert!((squares.seed - 13.5).abs() < 1e-12);
        assert!((squares.prompt - 6.5).abs() < 1e-12);
        assert!((squares.residual - 1.5).abs() < 1e-12);
    }

    #[test]
    fn seeds_that_lose_other_answers_are_no_certainty_and_equal_cells_are() {
        // Row means are equal, and MS_prompt = 0.97/99 lies below MS_resid = 2/198.
        let mut y = vec![0.0; 300];
        for i in [3, 150, 297] {
            y[i] = -1.0;
        }
        let law = Components::law_of(&y, 3, 100);
        assert!((law.variance() - 2.97 / 9e4).abs() < 1e-15, "{law:?}");
        assert!((0.05..0.15).contains(&law.p()) && law.interval(0.05).contains(0.0), "{law:?} {}", law.p());
        // 0.1 has no exact binary form: the mean of fifteen is off in the last place.
        let equal = Components::law_of(&[0.1; 15], 3, 5);
        assert_eq!((equal.variance(), equal.p()), (0.0, 0.5f64.powi(4)));
    }

    #[test]
    fn skewness_of_a_worked_example() {
        // Columns 0, 0, 0, 4 about their mean of 1: m₂ = 3, m₃ = 6, and 6/3^1.5 = 1.154701 (SciPy: the same).
        let y = [1.0, -1.0, 0.0, 4.0, -1.0, 1.0, 0.0, 0.0];
        assert!((skewness(&y, 4) - 6.0 / 27.0f64.sqrt()).abs() < 1e-12);
        assert_eq!(skewness(&[0.5; 6], 3), 0.0);
    }

    #[test]
    fn one_seed_gives_the_ordinary_standard_error_of_a_mean() {
        let a = vec![vec![1.0, 2.0, 4.0, 7.0]];
        let design = Paired::new(&a, &[vec![0.0; 4]], &[0, 1, 2, 3]).unwrap();
        let law = Components::law(&design);
        assert!((law.standard_error() - (7.0f64 / 4.0).sqrt()).abs() < 1e-12);
    }
}
