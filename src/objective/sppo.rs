//! Self-play preference optimization with hard labels (Wu et al. 2024, arXiv 2405.00675, with
//! P(y_w ≻ y_l) = 1), 1/η written as β:
//!
//! L = E[(r_w − 1/(2β))² + (r_l + 1/(2β))²],  r = log π(y|x)/π_ref(y|x)

use super::batch::{Batch, StepContext, Terms};
use super::registry::{Feedback, MethodInfo, Objective, positive};
use crate::base::error::Result;
use crate::plan::BetaSpec;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "sppo-hard",
    title: "self-play preference optimization, hard labels",
    feedback: Feedback::Paired,
    needs_reference: true,
    paper: "2405.00675",
};

pub struct SppoHard {
    beta: f64,
}

impl SppoHard {
    pub(super) fn new(spec: &BetaSpec) -> Result<Self> {
        Ok(Self { beta: positive("sppo-hard", "beta", spec.beta)? })
    }
}

impl Objective for SppoHard {
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        Some(0.5 / (self.beta * self.beta))
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let (chosen, rejected) = batch.pairs()?;
        let target = 0.5 / self.beta;
        let losses = ((chosen.log_ratio()? - target)?.sqr()? + (rejected.log_ratio()? + target)?.sqr()?)?;
        Terms::mean(losses, step, (batch.log_ratios()? * self.beta)?)
    }
}
