//! Sequence likelihood calibration (SLiC-HF: Zhao et al. 2023, arXiv 2305.10425), the margin δ of
//! the paper being 1/β and the loss scaled by β:
//!
//! L = E[max(0, 1 − β(log π(y_w|x) − log π(y_l|x)))] + α L_NLL(chosen)
//!
//! No reference model; L_NLL is averaged over the chosen completion tokens of the step.

use super::batch::{Batch, StepContext, Terms};
use super::ops;
use super::registry::{Feedback, MethodInfo, Objective, positive, weight};
use crate::base::error::Result;
use crate::plan::LikelihoodSpec;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "slic",
    title: "sequence likelihood calibration",
    feedback: Feedback::Paired,
    needs_reference: false,
    paper: "2305.10425",
};

pub struct Slic {
    beta: f64,
    alpha: f64,
}

impl Slic {
    pub(super) fn new(spec: &LikelihoodSpec) -> Result<Self> {
        Ok(Self { beta: positive("slic", "beta", spec.beta)?, alpha: weight("slic", "alpha", spec.alpha)? })
    }
}

impl Objective for Slic {
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        None
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let (chosen, rejected) = batch.pairs()?;
        let margin = ((&chosen.policy - &rejected.policy)? * self.beta)?;
        let losses = ops::relu(&margin.affine(-1.0, 1.0)?)?;
        let rewards = (&batch.policy * self.beta)?;
        let nll = chosen.policy.neg()?;
        Terms::mean(losses, step, rewards)?.plus_likelihood(&nll, self.alpha, step.chosen_tokens)
    }
}
