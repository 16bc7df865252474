//! Unlikelihood training (Welleck et al. 2019, arXiv 1908.04319, eq. 4) with every token of an undesirable
//! completion as a negative candidate, and likelihood for the desirable ones:
//!
//! L = − [Σ_{i∈D} log π(yᵢ|xᵢ) + α Σ_{i∈U} Σ_t log(1 − π(y_{i,t}|xᵢ, y_{i,<t}))] / Σᵢ |yᵢ|
//!
//! averaged over the completion tokens of both classes of the step. Above π = 1 − 10⁻⁵, where the authors'
//! code clamps (and has no gradient), log(1 − π) goes on along its tangent: see [`log_complement`].

use super::batch::{Batch, StepContext, Terms};
use super::ops;
use super::registry::{Feedback, MethodInfo, Objective, weight};
use crate::base::error::{Context, Result};
use crate::plan::UnlikelihoodSpec;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "unlikelihood",
    title: "likelihood of desirable, unlikelihood of undesirable completions' tokens",
    feedback: Feedback::Unpaired,
    needs_reference: false,
    paper: "1908.04319",
};

pub struct Unlikelihood {
    alpha: f64,
}

impl Unlikelihood {
    pub(super) fn new(spec: &UnlikelihoodSpec) -> Result<Self> {
        Ok(Self { alpha: weight("unlikelihood", "alpha", spec.alpha)? })
    }
}

impl Objective for Unlikelihood {
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn needs_complement(&self) -> bool {
        true
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        None
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let complement = batch.complement.as_ref().context("unlikelihood: Σ log(1 − π) is missing")?;
        let undesirable = batch.desirable.affine(-self.alpha, self.alpha)?;
        let likelihood = (&batch.desirable * &batch.policy)?;
        let losses = (likelihood + (undesirable * complement)?)?.neg()?;
        let share = (losses.sum_all()? / step.completion_tokens().max(1) as f64)?;
        Ok(Terms { losses: (losses / &batch.tokens)?, share, rewards: None })
    }
}

/// Least 1 − π that is told apart from 0: a log-prob from f32 logits has no digits left below it.
const LEAST: f64 = 1e-5;

/// log(1 − p) and its derivative in log p, both finite: from p = 1 − 10⁻⁵ on, along the tangent there.
pub fn log_complement(logp: f64) -> (f64, f64) {
    ops::log1m_exp_at(logp, (-LEAST).ln_1p())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complement_is_that_of_the_probability_and_its_slope_a_difference() {
        for p in [1e-12, 1e-3, 0.2, 0.5, 0.9, 0.999_9] {
            let (value, slope) = log_complement(f64::ln(p));
            assert!((value - (1.0 - p).ln()).abs() < 1e-12 * (1.0 + value.abs()), "{p}: {value}");
            assert!((slope + p / (1.0 - p)).abs() < 1e-10 * slope.abs().max(1e-3), "{p}: {slope}");
        }
        for logp in [-30.0, -2.0, -0.4, -1e-3, -1.0001e-5, -1e-6, 0.0, 1e-7] {
            let (value, slope) = log_complement(logp);
            let h = 1e-9;
            let numeric = (log_complement(logp + h).0 - log_complement(logp - h).0) / (2.0 * h);
            assert!(value.is_finite() && value < 0.0, "{logp}: {value}");
            assert!(
                (slope - numeric).abs() <= 1e-3 * slope.abs() + 1e-6,
                "{logp}: {slope} against {numeric}"
            );
        }
        assert_eq!(log_complement(-1e4), (0.0, 0.0));
    }
}
