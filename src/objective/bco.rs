//! Binary classifier optimization (Jung et al. 2024, arXiv 2404.04656):
//!
//! L = − E[log σ(s − δ)] for desirable, − E[log σ(δ − s)] for undesirable completions,
//! s = β log π(y|x)/π_ref(y|x)
//!
//! δ is the running mean of s over the steps before this one (0 at the first, where policy and reference
//! are equal and s is 0): the paper's moving average without the step's own rewards, so that a step needs
//! one forward pass and does not depend on how it is split.

use super::batch::{Batch, StepContext, Terms};
use super::ops;
use super::registry::{Feedback, MethodInfo, Objective, positive};
use crate::base::error::Result;
use crate::plan::BetaSpec;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "bco",
    title: "binary classifier optimization",
    feedback: Feedback::Unpaired,
    needs_reference: true,
    paper: "2404.04656",
};

pub struct Bco {
    beta: f64,
}

impl Bco {
    pub(super) fn new(spec: &BetaSpec) -> Result<Self> {
        Ok(Self { beta: positive("bco", "beta", spec.beta)? })
    }
}

impl Objective for Bco {
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        Some(std::f64::consts::LN_2)
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let rewards = (batch.log_ratios()? * self.beta)?;
        let sign = batch.desirable.affine(2.0, -1.0)?;
        let losses = ops::log_sigmoid(&((&rewards - step.reward_shift)? * sign)?)?.neg()?;
        Terms::mean(losses, step, rewards)
    }
}
