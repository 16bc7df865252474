//! Robust DPO: an unbiased estimate of DPO's loss where labels are flipped with probability ε
//! (Chowdhury et al. 2024, arXiv 2403.00409):
//!
//! L = − E[((1 − ε) log σ(h) − ε log σ(−h)) / (1 − 2ε)],  h = β(r_w − r_l)

use super::batch::{Batch, StepContext, Terms};
use super::ops;
use super::registry::{Feedback, MethodInfo, Objective, positive, smoothing};
use crate::base::error::Result;
use crate::plan::SmoothedSpec;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "robust-dpo",
    title: "DPO made unbiased under label flips",
    feedback: Feedback::Paired,
    needs_reference: true,
    paper: "2403.00409",
};

pub struct Robust {
    beta: f64,
    epsilon: f64,
}

impl Robust {
    pub(super) fn new(spec: &SmoothedSpec) -> Result<Self> {
        let epsilon = smoothing("robust-dpo", spec.label_smoothing)?;
        Ok(Self { beta: positive("robust-dpo", "beta", spec.beta)?, epsilon })
    }
}

impl Objective for Robust {
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        Some(std::f64::consts::LN_2)
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let (chosen, rejected) = batch.pairs()?;
        let h = ((chosen.log_ratio()? - rejected.log_ratio()?)? * self.beta)?;
        let right = (ops::log_sigmoid(&h)? * (self.epsilon - 1.0))?;
        let flipped = (ops::log_sigmoid(&h.neg()?)? * self.epsilon)?;
        let losses = ((right + flipped)? / (1.0 - 2.0 * self.epsilon))?;
        Terms::mean(losses, step, (batch.log_ratios()? * self.beta)?)
    }
}
