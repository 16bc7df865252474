//! Anchored preference optimization (D'Oosterlinck et al. 2024, arXiv 2408.06266),
//! s = β log π(y|x)/π_ref(y|x):
//!
//! APO-zero: L = E[1 − σ(s_w) + σ(s_l)]: chosen become likelier, rejected less so. Where the chosen are
//! better than what the model says.
//! APO-down: L = E[σ(s_w) + 1 − σ(s_w − s_l)]: both become less likely, rejected more so. Where the model is
//! better than the chosen.

use super::batch::{Batch, StepContext, Terms};
use super::ops;
use super::registry::{Feedback, MethodInfo, Objective, positive};
use crate::base::error::Result;
use crate::plan::BetaSpec;

pub(super) const ZERO: MethodInfo = MethodInfo {
    name: "apo-zero",
    title: "anchored preference optimization, chosen up and rejected down",
    feedback: Feedback::Paired,
    needs_reference: true,
    paper: "2408.06266",
};

pub struct ApoZero {
    beta: f64,
}

impl ApoZero {
    pub(super) fn new(spec: &BetaSpec) -> Result<Self> {
        Ok(Self { beta: positive("apo-zero", "beta", spec.beta)? })
    }
}

impl Objective for ApoZero {
    fn info(&self) -> &'static MethodInfo {
        &ZERO
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

pub(super) const DOWN: MethodInfo = MethodInfo {
    name: "apo-down",
    title: "anchored preference optimization, both down",
    feedback: Feedback::Paired,
    needs_reference: true,
    paper: "2408.06266",
};

pub struct ApoDown {
    beta: f64,
}

impl ApoDown {
    pub(super) fn new(spec: &BetaSpec) -> Result<Self> {
        Ok(Self { beta: positive("apo-down", "beta", spec.beta)? })
    }
}

impl Objective for ApoDown {
    fn info(&self) -> &'static MethodInfo {
        &DOWN
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
