//! Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290, eq. 7):
//!
//! L = − E[log σ(β(r_w − r_l))],  r = log π(y|x)/π_ref(y|x)

use super::batch::{Batch, StepContext, Terms};
use super::ops;
use super::registry::{Feedback, MethodInfo, Objective, positive};
use crate::base::error::Result;
use crate::plan::DpoSpec;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "dpo",
    title: "direct preference optimization",
    feedback: Feedback::Paired,
    needs_reference: true,
    paper: "2305.18290",
};

pub struct Dpo {
    beta: f64,
}

impl Dpo {
    pub(super) fn new(spec: &DpoSpec) -> Result<Self> {
        Ok(Self { beta: positive("dpo", "beta", spec.beta)? })
    }
}

impl Objective for Dpo {
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        Some(std::f64::consts::LN_2)
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let (chosen, rejected) = batch.pairs()?;
        let margin = ((chosen.log_ratio()? - rejected.log_ratio()?)? * self.beta)?;
        Terms::mean(ops::log_sigmoid(&margin)?.neg()?, step, (batch.log_ratios()? * self.beta)?)
    }
}
