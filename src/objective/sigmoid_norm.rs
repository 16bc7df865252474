//! DPO on length-normalised log-ratios (Lambert et al. 2024, Tülu 3, arXiv 2411.15124):
//!
//! L = − E[log σ(β(r_w/|y_w| − r_l/|y_l|))],  r = log π(y|x)/π_ref(y|x)

use super::batch::{Batch, StepContext, Terms, interleave};
use super::ops;
use super::registry::{Feedback, MethodInfo, Objective, positive};
use crate::base::error::Result;
use crate::plan::BetaSpec;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "sigmoid-norm",
    title: "DPO on length-normalised log-ratios (Tülu 3)",
    feedback: Feedback::Paired,
    needs_reference: true,
    paper: "2411.15124",
};

pub struct SigmoidNorm {
    beta: f64,
}

impl SigmoidNorm {
    pub(super) fn new(spec: &BetaSpec) -> Result<Self> {
        Ok(Self { beta: positive("sigmoid-norm", "beta", spec.beta)? })
    }
}

impl Objective for SigmoidNorm {
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        Some(std::f64::consts::LN_2)
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let (chosen, rejected) = batch.pairs()?;
        let (ratio_w, ratio_l) = (chosen.log_ratio_per_token()?, rejected.log_ratio_per_token()?);
        let margin = ((&ratio_w - &ratio_l)? * self.beta)?;
        let rewards = (interleave(&ratio_w, &ratio_l)? * self.beta)?;
        Terms::mean(ops::log_sigmoid(&margin)?.neg()?, step, rewards)
    }
}
