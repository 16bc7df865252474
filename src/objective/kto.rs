//! Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 8):
//!
//! L = E[λ_y − v(x, y)],
//! v = λ_D σ(β(r − z0)) for desirable y, λ_U σ(β(z0 − r)) for undesirable y,  r = log π(y|x)/π_ref(y|x)
//!
//! so that a desirable completion costs λ_D σ(−β(r − z0)). The reference point z0 estimates
//! KL(π ‖ π_ref) as max(0, mean over the step of log π/π_ref of mismatched completions); no gradient flows
//! through it, and it belongs to the whole step, not to a micro-batch.

use super::batch::{Batch, ClassCounts, StepContext, Terms};
use super::ops;
use super::registry::{Feedback, MethodInfo, Objective, positive, weight};
use crate::base::error::{HintExt, Result, anyhow};
use crate::plan::{KtoSpec, Lambda, Z0};

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "kto",
    title: "Kahneman-Tversky optimization",
    feedback: Feedback::Unpaired,
    needs_reference: true,
    paper: "2402.01306",
};

pub struct Kto {
    beta: f64,
    lambda: Lambda,
    z0: Z0,
}

impl Kto {
    pub(super) fn new(spec: &KtoSpec) -> Result<Self> {
        if let Lambda::Fixed { desirable, undesirable } = spec.lambda {
            weight("kto", "lambda_desirable", desirable)?;
            weight("kto", "lambda_undesirable", undesirable)?;
            if desirable + undesirable == 0.0 {
                return Err(anyhow!("kto: both weights λ are 0: nothing would be learned"))
                    .hint("set lambda_desirable or lambda_undesirable above 0");
            }
        }
        Ok(Self { beta: positive("kto", "beta", spec.beta)?, lambda: spec.lambda, z0: spec.z0 })
    }
}

impl Objective for Kto {
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn z0(&self) -> Option<Z0> {
        Some(self.z0)
    }

    fn identity_loss(&self, desirable: bool, step: &StepContext) -> Option<f64> {
        let (lambda_d, lambda_u) = weights(self.lambda, step.classes);
        Some(0.5 * if desirable { lambda_d } else { lambda_u })
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let (lambda_d, lambda_u) = weights(self.lambda, step.classes);
        let log_ratios = batch.log_ratios()?;
        // (n,) +1 desirable, −1 undesirable; λ likewise per example.
        let sign = batch.desirable.affine(2.0, -1.0)?;
        let lambda = batch.desirable.affine(lambda_d - lambda_u, lambda_u)?;
        // 1 − σ(s) as σ(−s): the difference would lose every digit once s > 37.
        let gain = (((&log_ratios - step.z0)? * self.beta)? * sign)?;
        let losses = (ops::sigmoid(&gain.neg()?)? * lambda)?;
        Terms::mean(losses, step, (log_ratios * self.beta)?)
    }
}

/// (λ_D, λ_U).
///
/// `Auto` is the paper's rule: λ_D n_D / (λ_U n_U) must lie in [1, 4/3], n being the class
/// counts of the training data. Where equal weights already satisfy it both are 1; otherwise the weight of
/// the rarer side is raised to the nearest end of the interval. `Counts` weighs each class inversely to its count
/// with a mean of 1 over the data: λ_c = (n_D + n_U)/2n_c. With one class only both are 1.
pub fn weights(lambda: Lambda, classes: ClassCounts) -> (f64, f64) {
    if let Lambda::Fixed { desirable, undesirable } = lambda {
        return (desirable, undesirable);
    }
    if classes.desirable == 0 || classes.undesirable == 0 {
        return (1.0, 1.0);
    }
    let (desirable, undesirable) = (classes.desirable as f64, classes.undesirable as f64);
    if lambda == Lambda::Counts {
        let half = 0.5 * (desirable + undesirable);
        return (half / desirable, half / undesirable);
    }
    let ratio = desirable / undesirable;
    if ratio < 1.0 {
        (1.0 / ratio, 1.0)
    } else if ratio > 4.0 / 3.0 {
        (1.0, 0.75 * ratio)
    } else {
        (1.0, 1.0)
    }
}

/// z0 of a step from the log-ratios of its mismatched completions: (unclamped, clamped at 0).
///
/// Zero for an estimator without a KL term.
pub fn z0(log_ratios: &[f64]) -> (f64, f64) {
    if log_ratios.is_empty() {
        return (0.0, 0.0);
    }
    let mean = log_ratios.iter().sum::<f64>() / log_ratios.len() as f64;
    (mean, mean.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambda_follows_the_papers_rule() {
        let auto = |d, u| weights(Lambda::Auto, ClassCounts { desirable: d, undesirable: u });
        for (d, u) in [(1, 10), (10, 1), (3, 4), (4, 3), (5, 4), (100, 100), (999, 1000), (1000, 1)] {
            let (lambda_d, lambda_u) = auto(d, u);
            let ratio = lambda_d * d as f64 / (lambda_u * u as f64);
            assert!((1.0 - 1e-12..=4.0 / 3.0 + 1e-12).contains(&ratio), "{d}:{u} gives {ratio}");
            assert!(lambda_d == 1.0 || lambda_u == 1.0, "one side keeps weight 1");
        }
        assert_eq!(auto(1, 10), (10.0, 1.0), "the paper's example: λ_D in [10, 13.3] at 1:10");
        assert_eq!((auto(0, 5), auto(5, 0)), ((1.0, 1.0), (1.0, 1.0)));
        let counts = |d, u| weights(Lambda::Counts, ClassCounts { desirable: d, undesirable: u });
        assert_eq!((counts(10, 30), counts(5, 5), counts(7, 0)), ((2.0, 2.0 / 3.0), (1.0, 1.0), (1.0, 1.0)));
        let fixed = Lambda::Fixed { desirable: 2.0, undesirable: 0.5 };
        assert_eq!(weights(fixed, ClassCounts { desirable: 1, undesirable: 10 }), (2.0, 0.5));
    }

    #[test]
    fn z0_is_clamped_and_keeps_what_it_was() {
        assert_eq!(z0(&[-2.0, 1.0]), (-0.5, 0.0));
        assert_eq!(z0(&[2.0, 1.0]), (1.5, 1.5));
        assert_eq!(z0(&[]), (0.0, 0.0));
    }
}
