//! Contrastive preference optimization (Xu et al. 2024, arXiv 2401.08417): DPO against a
//! uniform reference, with a likelihood term that keeps the policy near the chosen completions:
//!
//! L = − E[log σ(β(log π(y_w|x) − log π(y_l|x)))] + α L_NLL(chosen)
//!
//! L_NLL is averaged over the chosen completion tokens of the step.

use super::batch::{Batch, StepContext, Terms};
use super::ops;
use super::registry::{Feedback, MethodInfo, Objective, positive, weight};
use crate::base::error::Result;
use crate::plan::LikelihoodSpec;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "cpo",
    title: "contrastive preference optimization",
    feedback: Feedback::Paired,
    needs_reference: false,
    paper: "2401.08417",
};

pub struct Cpo {
    beta: f64,
    alpha: f64,
}

impl Cpo {
    pub(super) fn new(spec: &LikelihoodSpec) -> Result<Self> {
        Ok(Self { beta: positive("cpo", "beta", spec.beta)?, alpha: weight("cpo", "alpha", spec.alpha)? })
    }
}

impl Objective for Cpo {
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        None
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let (chosen, rejected) = batch.pairs()?;
        let margin = ((&chosen.policy - &rejected.policy)? * self.beta)?;
        let losses = ops::log_sigmoid(&margin)?.neg()?;
        let rewards = (&batch.policy * self.beta)?;
        let nll = chosen.policy.neg()?;
        Terms::mean(losses, step, rewards)?.plus_likelihood(&nll, self.alpha, step.chosen_tokens)
    }
}
