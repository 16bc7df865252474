//! Conservative DPO: labels are flipped with probability ε (Mitchell 2023, a note to arXiv 2305.18290):
//!
//! L = − E[(1 − ε) log σ(h) + ε log σ(−h)],  h = β(r_w − r_l)

use super::batch::{Batch, StepContext, Terms};
use super::ops;
use super::registry::{Feedback, MethodInfo, Objective, positive, smoothing};
use crate::base::error::Result;
use crate::plan::SmoothedSpec;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "cdpo",
    title: "conservative DPO (label smoothing)",
    feedback: Feedback::Paired,
    needs_reference: true,
    paper: "2305.18290",
};

pub struct Cdpo {
    beta: f64,
    epsilon: f64,
}

impl Cdpo {
    pub(super) fn new(spec: &SmoothedSpec) -> Result<Self> {
        Ok(Self {
            beta: positive("cdpo", "beta", spec.beta)?,
            epsilon: smoothing("cdpo", spec.label_smoothing)?,
        })
    }
}

impl Objective for Cdpo {
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
        Terms::mean((right - flipped)?, step, (batch.log_ratios()? * self.beta)?)
    }
}
