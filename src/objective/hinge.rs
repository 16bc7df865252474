//! Hinge loss on DPO's margin (SLiC-HF's calibration against a reference, as in RSO: Liu et al. 2023,
//! arXiv 2309.06657):
//!
//! L = E[max(0, 1 − β(r_w − r_l))]

use super::batch::{Batch, StepContext, Terms};
use super::ops;
use super::registry::{Feedback, MethodInfo, Objective, positive};
use crate::base::error::Result;
use crate::plan::BetaSpec;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "hinge",
    title: "hinge loss on DPO's margin (SLiC-HF, RSO)",
    feedback: Feedback::Paired,
    needs_reference: true,
    paper: "2309.06657",
};

pub struct Hinge {
    beta: f64,
}

impl Hinge {
    pub(super) fn new(spec: &BetaSpec) -> Result<Self> {
        Ok(Self { beta: positive("hinge", "beta", spec.beta)? })
    }
}

impl Objective for Hinge {
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        Some(1.0)
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let (chosen, rejected) = batch.pairs()?;
        let h = ((chosen.log_ratio()? - rejected.log_ratio()?)? * self.beta)?;
        let losses = ops::relu(&h.affine(-1.0, 1.0)?)?;
        Terms::mean(losses, step, (batch.log_ratios()? * self.beta)?)
    }
}
