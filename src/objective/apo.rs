//! Anchored preference optimization (D'Oosterlinck et al. 2024, arXiv 2408.06266),
//! s = β log π(y|x)/π_ref(y|x):
//!
//! APO-zero: L = E[1 − σ(s_w) + σ(s_l)]: chosen become likelier, rejected less so. Where the chosen are
//! better than what the model says.
//! APO-down: L = E[σ(s_w) + 1 − σ(s_w − s_l)]: both become less likely, rejected more so. Where the model is
//! better than the chosen.

use super::batch::{Batch, StepContext, Terms};
use super::ops;
use super::registry::{Feedback, Objective, positive};
use crate::base::error::Result;
use crate::plan::BetaSpec;

pub struct ApoZero {
    beta: f64,
}

impl ApoZero {
    pub(super) fn new(spec: &BetaSpec) -> Result<Self> {
        Ok(Self { beta: positive("apo-zero", "beta", spec.beta)? })
    }
}

impl Objective for ApoZero {
    fn name(&self) -> &'static str {
        "apo-zero"
    }

    fn feedback(&self) -> Feedback {
        Feedback::Paired
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        Some(1.0)
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let (chosen, rejected) = batch.pairs()?;
        let (s_w, s_l) = ((chosen.log_ratio()? * self.beta)?, (rejected.log_ratio()? * self.beta)?);
        // 1 − σ(s) = σ(−s)
        let losses = (ops::sigmoid(&s_w.neg()?)? + ops::sigmoid(&s_l)?)?;
        Terms::mean(losses, step, (batch.log_ratios()? * self.beta)?)
    }
}

pub struct ApoDown {
    beta: f64,
}

impl ApoDown {
    pub(super) fn new(spec: &BetaSpec) -> Result<Self> {
        Ok(Self { beta: positive("apo-down", "beta", spec.beta)? })
    }
}

impl Objective for ApoDown {
    fn name(&self) -> &'static str {
        "apo-down"
    }

    fn feedback(&self) -> Feedback {
        Feedback::Paired
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        Some(1.0)
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let (chosen, rejected) = batch.pairs()?;
        let (s_w, s_l) = ((chosen.log_ratio()? * self.beta)?, (rejected.log_ratio()? * self.beta)?);
        let losses = (ops::sigmoid(&s_w)? + ops::sigmoid(&(s_l - s_w)?)?)?;
        Terms::mean(losses, step, (batch.log_ratios()? * self.beta)?)
    }
}
